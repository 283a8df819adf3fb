// Package freeport finds ports for servers that cannot find their own.
package freeport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

var (
	mu    sync.Mutex
	given = map[int]bool{}
)

// Loopback returns a port of 127.0.0.1 on which nothing listens, and which this process was not given before. It is one
// from 20000 to 29999: below those that systems give to connections, and to listeners of port 0, one of which would take
// it now and then before the server does. It may be called by several goroutines at once.
func Loopback() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	const tries = 100
	var last error
	for range tries {
		port := 20_000 + rand.IntN(10_000)
		if given[port] {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		given[port] = true
		return port, l.Close()
	}
	return 0, fmt.Errorf("no port of %d tried is free: %w", tries, last)
}
