// Package health answers the kubelet's probes for the example programs.
package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Serve answers GET /healthz with 200 as long as the process runs, and GET /readyz with 200 while ready
// does, until stop is called. With an empty address it does nothing.
func Serve(address string, ready func() bool) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			panic(err) // the listener broke: the probes would have said so too
		}
	}, nil
}
