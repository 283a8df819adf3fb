package rpcclient_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What doc.go says that calls cost, but for those of many at a time, which TestRequestsPerCall and the benchmark see.
func TestCostOfCallsOneByOne(t *testing.T) {
	const calls, idlePerMinute = 50, 3
	for pause, want := range map[time.Duration][2]float64{
		100 * time.Millisecond: {3.9, 4.5},
		5 * time.Second:        {5.5, 6.1},
		30 * time.Second:       {6.1, 8},
	} {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.serve(t, addUp)
			time.Sleep(time.Minute)
			before, started := p.server.Requests(), time.Now()
			for range calls {
				p.call(t)
				time.Sleep(pause)
			}
			synctest.Wait()
			idle := idlePerMinute * time.Since(started).Minutes()
			if got := (float64(p.server.Requests()-before) - idle) / calls; got < want[0] || got > want[1] {
				t.Errorf("a call every %s: %.2f requests each, want %.1f to %.1f", pause, got, want[0], want[1])
			}
		})
	}
}

// Polls stay side by side only while a lost one would be long beside what was waited already, however many wait.
func TestCostOfWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const minutes = 10
		p := newPair(t)
		before := p.server.Requests()
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(minutes*time.Minute))
		synctest.Wait()
		if n := p.server.Requests() - before; n < 3*minutes || n > 4*minutes {
			t.Errorf("%d requests in %d minutes, want about three a minute", n, minutes)
		}
	})
}

func TestCostOfManyWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const callers, minutes = 50, 10
		p := newPair(t)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(minutes*time.Minute))
			})
		}
		time.Sleep(time.Minute)
		before := p.server.Requests()
		wg.Wait()
		if n := p.server.Requests() - before; n < 3*(minutes-1) || n > 4*(minutes-1) {
			t.Errorf("%d requests in %d minutes, want about three a minute", n, minutes-1)
		}
	})
}

// A poll that is lost delays a reply by no more than a third of what was waited before.
func TestLostPollOfALongWait(t *testing.T) {
	for _, took := range []time.Duration{5 * time.Second, 24 * time.Second, 41 * time.Second, 90 * time.Second, 130 * time.Second} {
		t.Run(took.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					time.Sleep(took)
					return addUp(ctx, r)
				})
				// The poll that is under way when the reply comes, where it is alone.
				time.AfterFunc(max(0, took-20*time.Second), func() {
					p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "ReceiveMessage", Queue: replyQueue, Count: 1})
				})
				started := time.Now()
				p.call(t, rpcclient.CallTimeout(5*time.Minute))
				if d := time.Since(started) - took; d > took/3+2*time.Second {
					t.Errorf("%s late", d)
				}
			})
		})
	}
}

// Nor does it delay those who have only begun to wait beside one that has waited for long.
func TestLostPollUnderANewCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		waits := make(chan struct{})
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if len(r.Numbers) == 0 {
				<-waits
			}
			return addUp(ctx, r)
		})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(waits)
		wg.Go(func() {
			if _, err := sum.Call(context.Background(), p.channel, sumRequest{}, rpcclient.CallTimeout(time.Hour)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Minute)
		p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "ReceiveMessage", Queue: replyQueue, Count: 1})
		time.Sleep(21 * time.Second) // one poll is under way, and lost
		started := time.Now()
		p.call(t)
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("answered after %s", took)
		}
	})
}
