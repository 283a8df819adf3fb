package rpcclient_test

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Reply queues that were lost leave nothing running behind, however many there were.
func TestLostQueuesLeaveNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		source := newMovingQueue("")
		p.requester, p.channel = p.newRequester(t, source)
		move := func(times int) int {
			for range times {
				source.move(p.replyURL)
				pending := sum.Start(t.Context(), p.channel, sumRequest{})
				synctest.Wait() // a poll is under way
				source.move("")
				<-pending.Done()
			}
			synctest.Wait()
			return runtime.NumGoroutine()
		}
		before := move(20)
		if after := move(100); after > before+10 {
			t.Errorf("%d goroutines, %d after 100 more queues", before, after)
		}
	})
}
