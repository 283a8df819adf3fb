package rpctest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpctest"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var upper = rpcclient.NewMethod[string, string]("upper")

func handleUpper(r *rpcclient.Responder) {
	upper.Handle(r, func(_ context.Context, s string) (string, error) {
		if s == "" {
			return "", rpcclient.Errorf(rpcclient.InvalidArgument, "nothing to do")
		}
		return strings.ToUpper(s), nil
	})
}

func TestServe(t *testing.T) {
	channel := rpctest.Serve(t, handleUpper)
	if got, err := upper.Call(t.Context(), channel, "ann"); err != nil || got != "ANN" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := upper.Call(t.Context(), channel, ""); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestInABubbleTimeoutsTakeNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		channel := rpctest.Serve(t, func(r *rpcclient.Responder) {
			upper.Handle(r, func(ctx context.Context, _ string) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			})
		})
		started := time.Now()
		_, err := upper.Call(t.Context(), channel, "x", rpcclient.CallTimeout(time.Hour))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != time.Hour {
			t.Errorf("after %s: %v", time.Since(started), err)
		}
	})
}

// Handlers that are still at work when the test ends neither hang it nor outlive it (goleak).
func TestWhatIsRunningIsCutOff(t *testing.T) {
	entered := make(chan struct{})
	t.Run("", func(t *testing.T) {
		channel := rpctest.Serve(t, func(r *rpcclient.Responder) {
			upper.Handle(r, func(ctx context.Context, _ string) (string, error) {
				close(entered)
				<-ctx.Done()
				return "", ctx.Err()
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := upper.Call(ctx, channel, "x")
			ended <- err
		}()
		<-entered
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the call ended with %v", err)
		}
	})
}

func TestAWorldWithFaultsAndSeveralChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := rpctest.New(t)
		w.Channel("login")
		w.Channel("orders.fifo")
		one, two := w.Serve(handleUpper), w.Serve(handleUpper)
		a, b := w.Requester(), w.Requester()
		if a.ReplyQueueURL() == b.ReplyQueueURL() {
			t.Fatal("two requesters share a reply queue")
		}
		w.Server.SetFaults(sqstest.Plan{Seed: 1, Rules: []sqstest.Rule{
			{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Queue: "rq_test_ns_orders.fifo", Count: 2},
		}})
		for i, r := range []*rpcclient.Requester{a, b, a, b} {
			for _, name := range r.Channels() {
				channel, err := r.Channel(name)
				if err != nil {
					t.Fatal(err)
				}
				word := fmt.Sprintf("word %d", i)
				if got, err := upper.Call(t.Context(), channel, word); err != nil || got != strings.ToUpper(word) {
					t.Errorf("%s: got %q, %v", name, got, err)
				}
			}
		}
		served := func(r *rpcclient.Responder) int64 { s := r.Stats(); return s.Served }
		// Two of the sends were repeated, and FIFO queues deduplicate.
		if n := served(one) + served(two); n != 8 {
			t.Errorf("%d handlers ran for 8 calls", n)
		}
		if hits := w.Server.FaultHits(); hits[0] != 2 {
			t.Errorf("the fault struck %d times, want 2", hits[0])
		}
	})
}

// Responders are shut down before requesters, whichever were made first: their handlers may call.
func TestOrderOfShutdown(t *testing.T) {
	outer, inner := rpcclient.NewMethod[int, int]("outer"), rpcclient.NewMethod[int, int]("inner")
	ended := make(chan error, 1)
	t.Run("world", func(t *testing.T) {
		w := rpctest.New(t)
		config := w.Channel("numbers")
		var channel *rpcclient.Channel
		started := make(chan struct{})
		w.Serve(func(r *rpcclient.Responder) {
			inner.Handle(r, func(_ context.Context, n int) (int, error) { return n, nil })
			outer.Handle(r, func(ctx context.Context, n int) (int, error) {
				close(started)
				for ctx.Err() == nil {
					if _, err := inner.Call(ctx, channel, n); err != nil && ctx.Err() == nil {
						ended <- err
						return 0, err
					}
				}
				ended <- nil
				return n, nil
			})
		})
		requester := w.Requester()
		var err error
		if channel, err = requester.Channel(config.Name); err != nil {
			t.Fatal(err)
		}
		outer.Start(context.Background(), channel, 1)
		<-started
	})
	if err := <-ended; err != nil {
		t.Errorf("the requester was shut down under a handler: %v", err)
	}
}

// What a channel sets is seen in a world: its timeout, its queue's limit and its dead letters.
func TestChannelSettings(t *testing.T) {
	for _, name := range []string{"orders", "orders.fifo"} {
		synctest.Test(t, func(t *testing.T) {
			w := rpctest.New(t)
			config := w.Channel(name, func(c *rpcclient.ChannelConfig) {
				c.Timeout, c.VisibilityTimeout, c.MaxMessageBytes, c.DeadLetter = 2*time.Second, 5*time.Second, 8<<10, true
			})
			other := w.Channel("other")
			channel, err := w.Requester().Channel(name)
			if err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			if _, err := upper.Call(t.Context(), channel, "x"); !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != 2*time.Second {
				t.Errorf("after %s: %v", time.Since(started), err)
			}
			if _, err := upper.Call(t.Context(), channel, strings.Repeat("x", 9<<10)); !errors.Is(err, rpcclient.ErrPayloadTooLarge) {
				t.Errorf("got %v", err)
			}
			info, _ := w.Server.Queue("rq_test_ns_" + name)
			if a := info.Attributes; a["MaximumMessageSize"] != "8192" || a["VisibilityTimeout"] != "5" {
				t.Errorf("the queue has %v", a)
			}
			var runs atomic.Int64
			w.Serve(func(r *rpcclient.Responder) {
				upper.Handle(r, func(context.Context, string) (string, error) {
					runs.Add(1)
					return "", errors.New("poison")
				})
			})
			if err := upper.Notify(t.Context(), channel, "x"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if n := w.DeadLetters(config); n != 1 || runs.Load() != rpctest.DeadLetterReceives {
				t.Errorf("%d dead letters after %d executions", n, runs.Load())
			}
			if n := w.DeadLetters(other); n != 0 {
				t.Errorf("%d dead letters where there is no queue for them", n)
			}
		})
	}
}
