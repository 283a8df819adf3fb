package rpcclient_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
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

func TestCostOfWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const minutes = 10
		p := newPair(t)
		before := p.server.Requests()
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(minutes*time.Minute))
		synctest.Wait()
		if n := p.server.Requests() - before; n < 3*minutes || n > 9*minutes {
			t.Errorf("%d requests in %d minutes, want at most nine a minute", n, minutes)
		}
	})
}
