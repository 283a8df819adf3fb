package rpcenv

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// A heartbeat that gets no answer is given up with its connection, whose other end may be gone without a word: the next
// goes onto a new one, though the API server speaks HTTP/2.
func TestHeartbeatAfterADeadConnection(t *testing.T) {
	dead := make(chan struct{})
	var accepted atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.Listener = dyingListener{s.Listener, &accepted, dead}
	s.StartTLS()
	defer s.Close()
	folder := t.TempDir()
	for name, content := range map[string][]byte{
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), "token": []byte("t"),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := apiClient{account: serviceAccount(folder)}
	defer c.close()
	ask := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := c.do(r)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	for range 2 {
		if err := ask(time.Minute); err != nil || accepted.Load() != 1 {
			t.Fatalf("%v, with %d connections", err, accepted.Load())
		}
	}
	close(dead)
	if ask(100*time.Millisecond) == nil {
		t.Fatal("the connection is not dead")
	}
	if err := ask(time.Minute); err != nil {
		t.Error(err)
	}
}

// dyingListener's first connection swallows what comes once it is dead.
type dyingListener struct {
	net.Listener
	accepted *atomic.Int64
	dead     <-chan struct{}
}

func (l dyingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.accepted.Add(1) == 1 {
		c = dyingConn{c, l.dead}
	}
	return c, err
}

type dyingConn struct {
	net.Conn
	dead <-chan struct{}
}

func (c dyingConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		select {
		case <-c.dead:
			if err == nil {
				continue
			}
		default:
		}
		return n, err
	}
}
