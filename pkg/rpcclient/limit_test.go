package rpcclient_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// A method with a limit runs no more at once than it may, leaves the responder to others, and tells what
// does not fit to come again: all its calls end well.
func TestMethodConcurrency(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 10, Tokens: 100}))
		slow := rpcclient.NewMethod[int, int]("slow")
		var running, most atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			sum.Handle(r, addUp)
			slow.Handle(r, func(_ context.Context, n int) (int, error) {
				if now := running.Add(1); now > most.Load() {
					most.Store(now)
				}
				time.Sleep(time.Second)
				running.Add(-1)
				return n, nil
			}, rpcclient.WithMethodConcurrency(2))
		})
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				got, err := slow.Call(t.Context(), p.channel, i)
				if err != nil || got != i {
					t.Errorf("call %d: %d, %v", i, got, err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		started := time.Now()
		p.call(t)
		if took := time.Since(started); took > 500*time.Millisecond {
			t.Errorf("another method waited %s", took)
		}
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d ran at once", most.Load())
		}
		if s := p.requester.Stats(); s.Retries == 0 {
			t.Errorf("nothing was shed: %+v", s)
		}
	})
}

// A request that waits for its method's place until its deadline is not handled.
func TestMethodConcurrencyAndDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		slow := rpcclient.NewMethod[time.Duration, int]("slow")
		var runs atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			slow.Handle(r, func(_ context.Context, d time.Duration) (int, error) {
				time.Sleep(d)
				return int(runs.Add(1)), nil
			}, rpcclient.WithMethodConcurrency(1))
		})
		first := slow.Start(t.Context(), p.channel, 10*time.Second)
		time.Sleep(time.Second)
		_, err := slow.Call(t.Context(), p.channel, 0, rpcclient.CallTimeout(3*time.Second))
		if rpcclient.CodeOf(err) != rpcclient.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if _, err := first.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if runs.Load() != 1 || p.responder.Stats().Expired != 1 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d runs, stats %+v", runs.Load(), p.responder.Stats())
		}
	})
}

func TestDefaultHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) {
			sum.Handle(r, addUp)
			r.HandleDefault(func(ctx context.Context, payload []byte) ([]byte, error) {
				info, _ := rpcclient.InfoFromContext(ctx)
				return []byte(`"` + info.Method + " in " + info.Codec + `: ` + string(payload) + `"`), nil
			})
		})
		p.call(t) // a method with a handler is not the default's
		got, err := rpcclient.NewMethod[int, string]("new").Call(t.Context(), p.channel, 7)
		if err != nil || got != "new in json: 7" {
			t.Errorf("got %q, %v", got, err)
		}
		raw, err := rpcclient.NewRawMethod("bytes", "").Call(t.Context(), p.channel, []byte("x"))
		if err != nil || string(raw) != `"bytes in raw: x"` {
			t.Errorf("got %q, %v", raw, err)
		}
		proxied, err := rpcclient.NewRawMethod("calculate_sum", "json").Call(t.Context(), p.channel, []byte(`{"Numbers":[1,2]}`))
		if err != nil || string(proxied) != `{"Sum":3}` {
			t.Errorf("got %q, %v", proxied, err)
		}
	})
}

// The advice of the package's documentation against handlers that wait for each other.
func TestHandlersThatCallTheirOwnChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 10, Tokens: 100}))
		outer := rpcclient.NewMethod[int, int]("outer")
		p.respond(t, func(r *rpcclient.Responder) {
			sum.Handle(r, addUp)
			outer.Handle(r, func(ctx context.Context, n int) (int, error) {
				got, err := sum.Call(ctx, p.channel, sumRequest{Numbers: []int{n, 1}})
				return got.Sum, err
			}, rpcclient.WithMethodConcurrency(3))
		}, rpcclient.WithConcurrency(8))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if got, err := outer.Call(t.Context(), p.channel, i); err != nil || got != i+1 {
					t.Errorf("call %d: %d, %v", i, got, err)
				}
			})
		}
		wg.Wait()
	})
}
