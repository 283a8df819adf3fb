package rpcclient

import (
	"sync"
	"time"
)

const (
	// DefaultTimeout ends a call whose context, channel and options name no earlier time.
	DefaultTimeout = 30 * time.Second
	// maxBudget is the longest deadline on the wire: SQS keeps no message longer than 14 days.
	maxBudget = 14 * 24 * time.Hour
	// staleGuard is how much older than its budget a request may be by the sender's wall clock. It
	// catches redriven messages, whose SQS timestamps are new, and allows for bad clocks.
	staleGuard = 5 * time.Minute
)

// sqsClock estimates the offset between this machine's clock and SQS's, so that the age of a message
// can be told on any delivery without trusting the sender's clock or ours.
//
// A message received for the first time carries SQS's time of that receive. Seen when the answer
// arrives, it is late by one hop at most, so every sample is at most the true offset and the largest
// is the best. Samples live in two windows, so that a drifting clock is followed.
type sqsClock struct {
	mu              sync.Mutex
	current, before time.Duration
	hasCurrent      bool
	hasBefore       bool
	started         time.Time
}

const clockWindow = time.Minute

// observe learns from a first delivery: SQS handed the message out at firstReceive, and its answer
// arrived at local.
func (c *sqsClock) observe(firstReceive, local time.Time) {
	sample := firstReceive.Sub(local)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasCurrent || local.Sub(c.started) > clockWindow {
		c.before, c.hasBefore = c.current, c.hasCurrent
		c.current, c.hasCurrent, c.started = sample, true, local
		return
	}
	c.current = max(c.current, sample)
}

// offset returns what to add to local time to get SQS's, and whether anything is known.
func (c *sqsClock) offset() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.hasCurrent && c.hasBefore:
		return max(c.current, c.before), true
	default:
		return c.current, c.hasCurrent
	}
}

// delivery is what SQS tells of one receive of a message.
type delivery struct {
	sent         time.Time // SentTimestamp, SQS's clock
	firstReceive time.Time // ApproximateFirstReceiveTimestamp, SQS's clock
	count        int       // ApproximateReceiveCount, from 1
	local        time.Time // when the answer arrived here
	serverDate   time.Time // Date of the answer, whole seconds; zero when unknown
}

// age is how long the message had existed at time now by this machine's clock. It is low by one hop at
// most once the clock has seen a first delivery; before, by the Date header's resolution of a second.
func (d delivery) age(clock *sqsClock, now time.Time) time.Duration {
	if d.sent.IsZero() {
		return 0
	}
	if d.count == 1 && !d.firstReceive.IsZero() {
		return max(0, d.firstReceive.Sub(d.sent)) + now.Sub(d.local)
	}
	offset, known := clock.offset()
	if !known && !d.serverDate.IsZero() {
		offset, known = d.serverDate.Sub(d.local), true
	}
	if !known {
		offset = 0 // nothing to go by but the two clocks being right
	}
	return max(0, now.Add(offset).Sub(d.sent))
}

// remaining is what is left of a request's budget.
func (d delivery) remaining(clock *sqsClock, budget time.Duration, now time.Time) time.Duration {
	return budget - d.age(clock, now)
}

// staleBySender reports whether a request is too old by its sender's own clock, whatever SQS says.
func staleBySender(sentMS int64, budget time.Duration, now time.Time) bool {
	return sentMS > 0 && now.Sub(time.UnixMilli(sentMS)) > budget+staleGuard
}
