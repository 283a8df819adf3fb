package rpcclient_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The cause of a context is found whoever notices first that its deadline is over: the context, or the call's own
// timer for the same instant.
func TestCauseOfADeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		mine := errors.New("my own cause")
		for i := range 30 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, mine)
			var err error
			switch i % 3 {
			case 0:
				_, err = sum.Call(ctx, p.channel, sumRequest{})
			case 1:
				_, err = collect(count.Stream(ctx, p.channel, 1))
			default: // never sent
				p.fault(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch"})
				_, err = sum.Call(ctx, p.channel, sumRequest{})
				p.server.SetFaults(sqstest.Plan{})
			}
			cancel()
			if rpcclient.CodeOf(err) != rpcclient.DeadlineExceeded || !errors.Is(err, mine) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
}

// A deadline that an interceptor sets is the call's: it travels with the request.
func TestDeadlineOfAnInterceptor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
				defer cancel()
				return next(ctx, c, receive)
			}
		}))
		var left atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			deadline, _ := ctx.Deadline()
			left.Store(int64(time.Until(deadline)))
			return addUp(ctx, r)
		})
		p.call(t)
		if d := time.Duration(left.Load()); d <= 0 || d > 2*time.Second {
			t.Errorf("the handler has %s", d)
		}
	})
}

// What may have arrived is Unavailable, whatever the last attempt to send it failed with, which is the cause.
func TestCodeOfWhatMayHaveArrived(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.Throttle, sqstest.AccessDenied, sqstest.SlowCreate} {
		t.Run(string(fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				later := sqstest.Rule{Fault: fault, Action: "SendMessageBatch", Queue: requestQueue, Skip: 1}
				if fault == sqstest.SlowCreate {
					later.Skip, later.Duration = 0, time.Hour
				}
				p.fault(sqstest.Rule{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 1}, later)
				wantOutcome(t, sum.Notify(t.Context(), p.channel, sumRequest{}), rpcclient.Unavailable, rpcclient.MaybeExecuted)
			})
		})
	}
}

// noQueueYet is a reply queue that never comes.
type noQueueYet struct{ changed chan struct{} }

func (n noQueueYet) Current() (string, <-chan struct{}) { return "", n.changed }
func (noQueueYet) Lost(string)                          {}

// However Resume fails, it does not say that the call which it resumes was not sent: an earlier process sent it.
func TestResumeIsNeverNotSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithHeldReplies(10*time.Minute))
		p.serve(t, addUp)
		id := rpcclient.NewCallID()
		if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.WithCallID(id)); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		resume := func(ctx context.Context, ch *rpcclient.Channel, code rpcclient.Code, opts ...rpcclient.CallOption) {
			t.Helper()
			_, err := sum.Resume(ctx, ch, id, opts...)
			wantOutcome(t, err, code, rpcclient.MaybeExecuted)
		}
		resume(ended, p.channel, rpcclient.Canceled)
		resume(t.Context(), p.channel, rpcclient.DeadlineExceeded, rpcclient.CallTimeout(0))

		options := p.options
		p.options = append(slices.Clone(options), rpcclient.WithMaxPending(1, true))
		full, ch := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "SendMessageBatch", Queue: requestQueue})
		sum.Start(t.Context(), ch, sumRequest{})
		time.Sleep(time.Second)
		resume(t.Context(), ch, rpcclient.ResourceExhausted)
		_ = full.Shutdown(ended)
		resume(t.Context(), ch, rpcclient.Canceled)

		p.options = options
		_, ch = p.newRequester(t, noQueueYet{make(chan struct{})})
		resume(t.Context(), ch, rpcclient.DeadlineExceeded)

		p.options = append(slices.Clone(options), rpcclient.WithCallInterceptors(func(rpcclient.CallFunc) rpcclient.CallFunc {
			return func(context.Context, *rpcclient.OutgoingCall, func(any) error) error { return errors.New("no") }
		}))
		_, ch = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		resume(t.Context(), ch, rpcclient.Unknown)
		p.options = options
	})
}
