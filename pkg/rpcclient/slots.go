package rpcclient

import (
	"context"
	"sync"
	"time"
)

// slots bound what a responder works on: handlers that run, and requests whose replies are not
// accepted yet. A receive takes places for all it may bring before it starts, so that nothing waits
// in memory while other responders are free. One that brings nothing for a while lends its places, so that
// neither the idle channels of a responder nor a receive that is lost in the network keep them from others.
type slots struct {
	mu        sync.Mutex
	free      int // places for handlers
	total     int
	unsettled int           // replies under way
	received  int           // requests that were received and wait for a place: they go before receives
	wake      chan struct{} // closed at the next change; nil: nobody waits
}

// unsettledPerSlot bounds replies under way: when SQS stops taking replies, requests stop being taken.
const unsettledPerSlot = 4

func newSlots(n int) *slots { return &slots{free: n, total: n} }

// slotPatience is how long a receive waits for all its places once it has some: handlers that take
// microseconds give theirs back in that time, so that receives are full; next to handlers that take
// longer it does not matter.
const slotPatience = 3 * time.Millisecond

// acquire waits for want places, or after slotPatience for at least one, and takes them; 0 when ctx ends
// or stop is closed.
func (s *slots) acquire(ctx context.Context, stop <-chan struct{}, want int) int {
	var patience *time.Timer
	var over <-chan time.Time
	enough := want
	defer func() {
		if patience != nil {
			patience.Stop()
		}
	}()
	for {
		n, some, wake := s.take(want, enough, false)
		if n > 0 {
			return n
		}
		if some && patience == nil {
			patience = time.NewTimer(slotPatience)
			over = patience.C
		}
		select {
		case <-wake:
		case <-over:
			enough, over = 1, nil
		case <-ctx.Done():
			return 0
		case <-stop:
			return 0
		}
	}
}

// acquireFor waits for the place of a request that was received. It reports false when ctx ends or stop is
// closed.
func (s *slots) acquireFor(ctx context.Context, stop <-chan struct{}) bool {
	s.waits(1)
	defer s.waits(-1)
	for {
		n, _, wake := s.take(1, 1, true)
		if n == 1 {
			return true
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return false
		case <-stop:
			return false
		}
	}
}

func (s *slots) waits(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received += n
	if n < 0 {
		s.signal()
	}
}

// take takes up to want places if there are enough. Otherwise some reports whether there are any, and
// wake is closed when there are more.
func (s *slots) take(want, enough int, received bool) (n int, some bool, wake <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsettled < s.total*unsettledPerSlot && s.free >= enough && (received || s.received == 0) {
		n = min(want, s.free)
		s.free -= n
		return n, true, nil
	}
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return 0, s.free > 0 && s.received == 0, s.wake
}

// lendAfter is how long a receive may bring nothing before it lends its places: longer than SQS takes to
// answer while messages wait.
const lendAfter = 100 * time.Millisecond

// loan are the places of a receive that is under way.
type loan struct {
	slots      *slots
	n          int
	timer      *time.Timer
	lent, over bool // under the slots' lock
}

// lend lets others have n places that were taken, in a while.
func (s *slots) lend(n int) *loan {
	l := &loan{slots: s, n: n}
	l.timer = time.AfterFunc(lendAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !l.over {
			l.lent = true
			s.free += n
			s.signal()
		}
	})
	return l
}

// end takes places for used messages back and gives up the others. It returns how many there were: all,
// unless the places were lent and are in use.
func (l *loan) end(used int) (placed int) {
	l.timer.Stop()
	s := l.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	l.over = true
	if !l.lent {
		s.free += l.n - used
		s.signal()
		return used
	}
	placed = max(0, min(used, s.free))
	s.free -= placed
	return placed
}

func (s *slots) release(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	s.signal()
}

func (s *slots) replying(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsettled += n
	if n < 0 {
		s.signal()
	}
}

// signal wakes everybody who waits. It is called with the lock held.
func (s *slots) signal() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}
