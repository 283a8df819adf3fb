package freeport

import (
	"context"
	"fmt"
	"net"
	"testing"
)

// What is given can be listened on, is given once, and is of no range from which systems give ports by themselves.
func TestLoopback(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := Loopback()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < 20_000 || port > 29_999 {
			t.Errorf("port %d", port)
		}
		seen[port] = true
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
