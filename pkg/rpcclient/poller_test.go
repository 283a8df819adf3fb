package rpcclient

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// A call may begin in the moment in which its reply queue is given up: its poll is waited for, or is none. The race
// detector sees the difference.
func TestWakeWhilePollersEnd(t *testing.T) {
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		c := &crew{}
		p := &pollers{
			wanted: func() bool { return true }, expecting: func() bool { return true }, max: 1, crew: c, ctx: ctx,
			log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			poll: func(ctx context.Context) (bool, error) {
				<-ctx.Done()
				return false, ctx.Err()
			},
		}
		var wg sync.WaitGroup
		wg.Go(p.wake)
		time.Sleep(0)
		cancel()
		p.wait()
		if n := p.count(); n != 0 {
			t.Fatalf("%d pollers run", n)
		}
		wg.Wait()
		c.close()
	}
}
