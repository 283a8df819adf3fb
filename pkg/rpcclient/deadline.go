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
	base            time.Time // local times are told from here by the monotonic clock, which nobody sets
	current, before time.Duration
	hasCurrent      bool
	hasBefore       bool
	started         time.Time
}

const clockWindow = time.Minute

// observe learns from a first delivery: SQS handed the message out at firstReceive, and its answer
// arrived at local.
func (c *sqsClock) observe(firstReceive, local time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sample := firstReceive.Sub(c.steady(local))
	if !c.hasCurrent || local.Sub(c.started) > clockWindow {
		c.before, c.hasBefore = c.current, c.hasCurrent
		c.current, c.hasCurrent, c.started = sample, true, local
		return
	}
	c.current = max(c.current, sample)
}

// steady is t by a clock that never steps. It is called with the lock held.
func (c *sqsClock) steady(t time.Time) time.Time {
	if c.base.IsZero() {
		c.base = t
	}
	return c.base.Add(t.Sub(c.base)).Round(0)
}

// sqsTime estimates SQS's time at local time t, from what was observed and from one more sample; ok is
// false when there is neither.
func (c *sqsClock) sqsTime(t time.Time, sample *clockSample) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset, known := c.current, c.hasCurrent
	if c.hasBefore {
		offset = max(offset, c.before)
	}
	if sample != nil {
		own := sample.sqs.Sub(c.steady(sample.local))
		switch {
		case !known:
			offset, known = own, true
		case sample.exact:
			offset = max(offset, own)
		}
	}
	return c.steady(t).Add(offset), known
}

// clockSample is one reading of SQS's clock. An exact one is late by one hop at most; the other has the
// resolution of a Date header and serves only while there is nothing better.
type clockSample struct {
	sqs, local time.Time
	exact      bool
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
//
// FirstReceive − Sent alone would not do: it says nothing of what passed since, on a redelivery or
// while this process was stopped with the answer in its socket.
func (d delivery) age(clock *sqsClock, now time.Time) time.Duration {
	if d.sent.IsZero() {
		return 0
	}
	var sample *clockSample
	switch {
	case d.count == 1 && !d.firstReceive.IsZero():
		sample = &clockSample{sqs: d.firstReceive, local: d.local, exact: true}
	case !d.serverDate.IsZero():
		sample = &clockSample{sqs: d.serverDate, local: d.local}
	}
	at, known := clock.sqsTime(now, sample)
	if !known {
		at = now // nothing to go by but the two clocks being right
	}
	return max(0, at.Sub(d.sent))
}

// given is when SQS gave the message out, by its own clock; zero when it does not say: FirstReceive is of another
// receive then.
func (d delivery) given() time.Time {
	if d.count != 1 {
		return time.Time{}
	}
	return d.firstReceive
}

// givenOut estimates when, by this machine's clock, SQS gave a message out that has the given age at now. It is
// early by nothing, and late by what the best of the clock's samples was late, at most by what the answer took.
func (d delivery) givenOut(age time.Duration, now time.Time) time.Time {
	waited := d.firstReceive.Sub(d.sent)
	if d.given().IsZero() || d.sent.IsZero() || age <= waited {
		return d.local
	}
	return now.Add(waited - age)
}

// staleBySender reports whether a request is too old by its sender's own clock, whatever SQS says.
func staleBySender(sentMS int64, budget time.Duration, now time.Time) bool {
	return sentMS > 0 && now.Sub(time.UnixMilli(sentMS)) > budget+staleGuard
}
