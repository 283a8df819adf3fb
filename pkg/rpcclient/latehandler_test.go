package rpcclient_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// A handler that ends after the deadline is not run again for a copy that seems to have time left: each copy's is
// estimated by itself.
func TestLateHandlerIsNotRunAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			time.Sleep(62 * time.Second)
			return addUp(ctx, r)
		})
		id := p.copies(t, 1, "calculate_sum", `{"Numbers":[1,2]}`, "1")
		time.Sleep(63 * time.Second)
		p.copiesOf(t, id, 1, "calculate_sum", `{"Numbers":[1,2]}`, "1")
		time.Sleep(70 * time.Second)
		if runs.Load() != 1 || p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 0 {
			t.Errorf("%d runs, %d requests and %d replies in the queues; want one run and nothing", runs.Load(),
				p.messages(t, requestQueue), p.messages(t, replyQueue))
		}
	})
}
