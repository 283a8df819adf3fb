package rpcclient_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A reply queue that takes no replies is its requester's trouble, and nobody else's: others are answered meanwhile, and
// what it missed is sent when it takes replies again, without another execution.
func TestReplyQueueThatTakesNothing(t *testing.T) {
	unknown := rpcclient.NewMethod[sumRequest, sumReply]("unknown")
	for name, tc := range map[string]struct {
		fault  sqstest.Fault
		method rpcclient.Method[sumRequest, sumReply]
	}{
		"throttled":           {sqstest.Throttle, sum},
		"unreachable":         {sqstest.BlackHole, sum},
		"throttled, refusals": {sqstest.Throttle, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				_, other := p.newRequester(t, rpcclient.StaticReplyQueue(p.queue(t, "rq_test_r_0002")))
				var mu sync.Mutex
				runs := map[int]int{}
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					mu.Lock()
					defer mu.Unlock()
					if len(r.Numbers) > 0 {
						runs[r.Numbers[0]]++
					}
					return addUp(ctx, r)
				})
				p.fault(sqstest.Rule{Fault: tc.fault, Action: "SendMessageBatch", Queue: replyQueue})
				const calls = 800
				var all []*rpcclient.Pending[sumReply]
				loaded := make(chan struct{})
				go func() { // 100 calls a second
					defer close(loaded)
					for i := range calls {
						all = append(all, tc.method.Start(context.Background(), p.channel, sumRequest{Numbers: []int{i}},
							rpcclient.CallTimeout(time.Minute), rpcclient.CallMaxAttempts(1)))
						time.Sleep(10 * time.Millisecond)
					}
				}()
				answered := 0
				for end := time.Now().Add(8 * time.Second); time.Now().Before(end); answered++ {
					if _, err := sum.Call(t.Context(), other, sumRequest{}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if answered < 40 { // half of what fits in
					t.Errorf("the other requester had %d answers in 8 s", answered)
				}
				<-loaded
				p.server.SetFaults(sqstest.Plan{})
				for i, pending := range all {
					_, err := pending.Wait(t.Context())
					if (err == nil) != (name != "throttled, refusals") {
						t.Fatalf("call %d: %v", i, err)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for i, n := range runs {
					if n > 1 {
						t.Errorf("call %d was executed %d times", i, n)
					}
				}
			})
		})
	}
}
