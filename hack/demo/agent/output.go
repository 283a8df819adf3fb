package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serve answers the API server's questions for containers' output (kubectl logs) until ctx ends.
func (a *Agent) serve(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveOutput)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: requestLimit,
		// Followers end with the node.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		a.config.Log.Error("output is not served any more", "error", err)
	}
}

// serveOutput sends one run's output: the latest, or with previous=true the one before; with tailLines=n the
// last n lines of it; with follow=true also what comes until a newer run begins.
func (a *Agent) serveOutput(w http.ResponseWriter, r *http.Request) {
	file, err := a.outputOf(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), r.FormValue("previous") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	shown := text
	if n, err := strconv.Atoi(r.FormValue("tailLines")); err == nil && n >= 0 {
		shown = lastLines(text, n)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := w.Write(shown); err != nil || r.FormValue("follow") != "true" {
		return
	}
	follow(r.Context(), w, file, int64(len(text)))
}

// outputOf finds the file of the pod's newest run; of several pods of that name, of the newest one.
func (a *Agent) outputOf(namespace, pod, container string, previous bool) (string, error) {
	pattern := filepath.Join(a.config.Dir, "logs", namespace+"_"+pod+"_*", container, "*.log")
	files, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	began := map[string]time.Time{}
	for _, f := range files {
		if info, err := os.Stat(filepath.Dir(filepath.Dir(f))); err == nil {
			began[filepath.Dir(f)] = info.ModTime()
		}
	}
	slices.SortFunc(files, func(x, y string) int {
		if d := began[filepath.Dir(x)].Compare(began[filepath.Dir(y)]); d != 0 {
			return d
		}
		return run(x) - run(y)
	})
	wanted := len(files) - 1
	if previous {
		wanted--
	}
	if wanted < 0 || (previous && filepath.Dir(files[wanted]) != filepath.Dir(files[wanted+1])) {
		return "", fmt.Errorf("no such run of container %s of pod %s/%s", container, namespace, pod)
	}
	return files[wanted], nil
}

// run is the number in a file's name.
func run(file string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(file), ".log"))
	return n
}

func lastLines(text []byte, n int) []byte {
	whole := bytes.TrimSuffix(text, []byte("\n"))
	at := len(whole)
	for range n {
		if at = bytes.LastIndexByte(whole[:max(at, 0)], '\n'); at < 0 {
			return text
		}
	}
	return text[min(at+1, len(text)):]
}

// follow sends what is appended to file until ctx ends or the next run's file is there.
func follow(ctx context.Context, w http.ResponseWriter, file string, offset int64) {
	flush := http.NewResponseController(w)
	next := filepath.Join(filepath.Dir(file), strconv.Itoa(run(file)+1)+".log")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := os.Stat(next)
		over := err == nil
		in, err := os.Open(file)
		if err != nil {
			return
		}
		n, err := io.Copy(w, io.NewSectionReader(in, offset, 1<<40))
		_ = in.Close()
		if offset += n; err != nil || over {
			return
		}
	}
}
