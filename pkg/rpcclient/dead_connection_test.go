package rpcclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// A connection that dies without a word is replaced, whatever is spoken on it.
func TestDeadConnectionIsReplaced(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closed, stop := context.WithCancel(t.Context())
				l := pipeListener{make(chan net.Conn), closed.Done(), stop}
				s := &httptest.Server{Listener: l, EnableHTTP2: http2, Config: &http.Server{
					ReadHeaderTimeout: time.Hour,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						_, _ = io.WriteString(w, r.Proto[:6])
					}),
				}}
				s.StartTLS()
				defer s.Close()
				pool := x509.NewCertPool()
				pool.AddCert(s.Certificate())
				built := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
					tr.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS12}
				})
				own := newClient(sqs.New(sqs.Options{Region: "us-east-1", HTTPClient: built})).Options().HTTPClient.(tracingDoer).own
				var dials, dead atomic.Int64 // connections up to that number are dead
				own.DialContext = func(context.Context, string, string) (net.Conn, error) {
					here, there := net.Pipe()
					l.conns <- there
					return &mortalConn{Conn: here, number: dials.Add(1), dead: &dead}, nil
				}
				defer own.CloseIdleConnections()
				ask := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), sendTimeout)
					defer cancel()
					r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://sqs.us-east-1.amazonaws.com/", http.NoBody)
					if err != nil {
						return err
					}
					answer, err := own.RoundTrip(r)
					if err != nil {
						return err
					}
					body, err := io.ReadAll(answer.Body)
					if err == nil && string(body) != name {
						t.Errorf("the server was spoken to in %s", body)
					}
					return answer.Body.Close()
				}
				for range 2 {
					if err := ask(); err != nil || dials.Load() != 1 {
						t.Fatalf("%v, with %d connections", err, dials.Load())
					}
				}
				dead.Store(1)
				died := time.Now()
				for ask() != nil {
					if time.Since(died) > 15*time.Second {
						t.Fatalf("nothing is answered %s after the connection died; %d connections were made", time.Since(died), dials.Load())
					}
				}
			})
		})
	}
}

// mortalConn swallows what is written to it once it is dead.
type mortalConn struct {
	net.Conn
	number int64
	dead   *atomic.Int64
}

func (c *mortalConn) Write(b []byte) (int, error) {
	if c.number <= c.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

type pipeListener struct {
	conns  chan net.Conn
	closed <-chan struct{}
	stop   func()
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	l.stop()
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
