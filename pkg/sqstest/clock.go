package sqstest

import (
	"container/heap"
	"sync"
	"time"
)

// Clock is where a Server takes its time from: what messages are stamped with, when they become visible again, when a
// long poll ends, when a deleted queue's name is free.
//
// The default is package time, so a Server inside a testing/synctest bubble follows the bubble's time with nothing to
// configure. ManualClock is for tests that want to move time themselves.
type Clock interface {
	// Now is the current time.
	Now() time.Time
	// AfterFunc calls f once, d from now, on a goroutine of the clock's choosing, unless the Timer is stopped first.
	// f must not be called before AfterFunc returned.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a pending call of a Clock.
type Timer interface {
	// Stop prevents the call. It reports whether it did: false means that the call was made already or is being made.
	Stop() bool
}

type systemClock struct{}

func (systemClock) Now() time.Time                            { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// ManualClock is a Clock that stands still until Advance. It is safe for concurrent use.
type ManualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers manualTimers
	serial uint64
}

// NewManualClock returns a clock that stands at start. It panics unless that is after 1970 has begun: SQS's times are
// milliseconds since then, and a zero is never.
func NewManualClock(start time.Time) *ManualClock {
	if start.UnixMilli() <= 0 {
		panic("sqstest: a clock before 1970")
	}
	return &ManualClock{now: start}
}

// Now is the time the clock stands at.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward by d and makes the calls that fall due, in the order of their times, on the calling
// goroutine: when Advance returns, they have returned. A negative d moves nothing.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(max(d, 0))
	for len(c.timers) > 0 && !c.timers[0].at.After(end) {
		t := heap.Pop(&c.timers).(*manualTimer)
		if t.at.After(c.now) {
			c.now = t.at
		}
		c.mu.Unlock()
		t.f()
		c.mu.Lock()
	}
	if end.After(c.now) {
		c.now = end
	}
	c.mu.Unlock()
}

// AfterFunc arranges for Advance to call f when the clock has moved by d.
func (c *ManualClock) AfterFunc(d time.Duration, f func()) Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	t := &manualTimer{clock: c, at: c.now.Add(max(d, 0)), serial: c.serial, f: f}
	heap.Push(&c.timers, t)
	return t
}

// Pending is the number of calls that wait for the clock: zero when nothing on the server waits for time to pass.
func (c *ManualClock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

type manualTimer struct {
	clock  *ManualClock
	at     time.Time
	serial uint64
	f      func()
	index  int // in clock.timers, or -1
}

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.clock.timers, t.index)
	return true
}

// manualTimers is a container/heap: earliest first, in order of creation among equals.
type manualTimers []*manualTimer

func (h manualTimers) Len() int { return len(h) }
func (h manualTimers) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].serial < h[j].serial
}
func (h manualTimers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *manualTimers) Push(x any) {
	t := x.(*manualTimer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *manualTimers) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
