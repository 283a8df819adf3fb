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

// SQS may not find a reply queue that was created a moment ago: that costs nobody the reply, nor a second execution.
func TestNewReplyQueue(t *testing.T) {
	for name, try := range map[string]func(ctx context.Context, ch *rpcclient.Channel) error{
		"call": func(ctx context.Context, ch *rpcclient.Channel) error {
			_, err := sum.Call(ctx, ch, sumRequest{})
			return err
		},
		"refusal": func(ctx context.Context, ch *rpcclient.Channel) error {
			_, err := rpcclient.NewMethod[int, int]("unknown").Call(ctx, ch, 1)
			if rpcclient.CodeOf(err) == rpcclient.Unimplemented {
				return nil
			}
			return err
		},
		"stream": func(ctx context.Context, ch *rpcclient.Channel) error {
			got, err := collect(count.Stream(ctx, ch, 50))
			if err == nil && !slices.Equal(got, upTo(50)) {
				return errors.New("the stream is not whole")
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: sqstest.SlowCreate, Queue: "rq_test_r_0002", Duration: 1900 * time.Millisecond})
				var runs atomic.Int64
				p.respond(t, func(r *rpcclient.Responder) {
					sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) { runs.Add(1); return addUp(ctx, q) })
					count.HandleStream(r, func(ctx context.Context, n int, send func(int) error) error {
						runs.Add(1)
						return countTo(ctx, n, send)
					})
				})
				_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.queue(t, "rq_test_r_0002")))
				if err := try(t.Context(), channel); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				if n := p.messages(t, requestQueue); runs.Load() > 1 || n != 0 {
					t.Errorf("executed %d times, %d requests left", runs.Load(), n)
				}
			})
		})
	}
}
