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
// is the best, unless one of SQS's hosts has a clock ahead of the others': a largest one with which no other receive
// agrees is left out when two others agree with each other, or when it cannot be, since SQS had told another time
// within another receive. Samples live in two windows, so that a drifting clock is followed. They are told by the
// monotonic clock, which stands still while a machine is suspended, as the wall clock is stepped: where the one has moved
// against the other, neither is believed, and what was learned before is worth nothing.
type sqsClock struct {
	mu              sync.Mutex
	base            time.Time // local times are told from here by the monotonic clock, which nobody sets
	current, before clockSamples
	started         time.Time
	wall            time.Duration // how far the wall clock is ahead of the monotonic one since base, at the latest receive
	stood           time.Time     // when the answer came of the latest receive in which the one moved against the other
}

const (
	clockWindow = time.Minute
	// clockAgreement is how near two samples are that agree: answers are later than others by less, and an error of less
	// costs nobody a call.
	clockAgreement = time.Second
)

// clockSamples are what is kept of the receives of a window.
type clockSamples struct {
	n       int              // how many there were, up to three
	largest [3]time.Duration // of them, the largest first
	ceiling time.Duration    // what no offset can be above, by any of the receives
}

// add takes in a receive whose offset is at least sample, and at most ceiling.
func (c *clockSamples) add(sample, ceiling time.Duration) {
	if c.n == 0 || ceiling < c.ceiling {
		c.ceiling = ceiling
	}
	for i := range c.largest {
		if i >= c.n {
			c.largest[i], c.n = sample, i+1
			return
		}
		if sample > c.largest[i] {
			c.largest[i], sample = sample, c.largest[i]
		}
	}
}

// and are the samples of both windows.
func (c clockSamples) and(other clockSamples) clockSamples {
	for _, sample := range other.largest[:other.n] {
		c.add(sample, other.ceiling)
	}
	return c
}

// best is the offset, if there was a receive.
func (c clockSamples) best() (offset time.Duration, known bool) {
	first, second, third := c.largest[0], c.largest[1], c.largest[2]
	switch {
	case c.n < 2 || first-second <= clockAgreement:
		return first, c.n > 0
	case first > c.ceiling+clockAgreement, c.n == 3 && second-third <= clockAgreement:
		return second, true
	default: // the others' answers were late
		return first, true
	}
}

// observe learns from a receive that was asked for at the local time asked: SQS handed the latest of the first deliveries
// that it brought out at firstReceive, which is zero when it brought none, and the answer arrived at local.
func (c *sqsClock) observe(firstReceive, asked, local time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	steady := c.steady(local)
	wall := c.wallAhead(local)
	if (wall - c.wall).Abs() > clockAgreement {
		c.current, c.before = clockSamples{}, clockSamples{}
	}
	c.wall = wall
	if (wall - c.wallAhead(asked)).Abs() > clockAgreement { // SQS may have answered long ago
		c.stood = local
		return
	}
	if firstReceive.IsZero() {
		return
	}
	if c.current.n == 0 || local.Sub(c.started) > clockWindow {
		c.before, c.current, c.started = c.current, clockSamples{}, local
	}
	sample := firstReceive.Sub(steady)
	c.current.add(sample, sample+local.Sub(asked))
}

// steady is t by a clock that never steps. It is called with the lock held.
func (c *sqsClock) steady(t time.Time) time.Time {
	if c.base.IsZero() {
		c.base = t
	}
	return c.base.Add(t.Sub(c.base)).Round(0)
}

// wallAhead is how far the wall clock has moved by t against the monotonic one. It is called with the lock held, after
// steady.
func (c *sqsClock) wallAhead(t time.Time) time.Duration {
	return t.Round(0).Sub(c.base.Round(0)) - t.Sub(c.base)
}

// sqsTime estimates SQS's time at local time t, from what was observed, or from the sample given where that is
// nothing; ok is false when there is neither, or the sample is of before this machine was suspended.
func (c *sqsClock) sqsTime(t time.Time, sample *clockSample) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset, known := c.current.and(c.before).best()
	at = c.steady(t)
	if (c.wallAhead(t) - c.wall).Abs() > clockAgreement {
		known = false
	}
	if sample != nil && !known && sample.local.After(c.stood) && (c.wallAhead(t)-c.wallAhead(sample.local)).Abs() <= clockAgreement {
		offset, known = sample.sqs.Sub(c.steady(sample.local)), true
	}
	return at.Add(offset), known
}

// clockSample is one reading of SQS's clock: of a first delivery, or of a Date header, whose resolution is a second. It
// serves only while there is nothing better.
type clockSample struct{ sqs, local time.Time }

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
	return d.ageAt(d.sqsTime(clock, now))
}

// ageAt is age by SQS's time.
func (d delivery) ageAt(at time.Time) time.Duration {
	if d.sent.IsZero() {
		return 0
	}
	return max(0, at.Sub(d.sent))
}

// sqsTime estimates SQS's time at now by this machine's clock.
func (d delivery) sqsTime(clock *sqsClock, now time.Time) time.Time {
	var sample *clockSample
	switch {
	case d.count == 1 && !d.firstReceive.IsZero():
		sample = &clockSample{sqs: d.firstReceive, local: d.local}
	case !d.serverDate.IsZero():
		sample = &clockSample{sqs: d.serverDate, local: d.local}
	}
	at, known := clock.sqsTime(now, sample)
	if !known {
		return now // nothing to go by but the two clocks being right
	}
	return at
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

// staleBySender reports whether a request is too old by its sender's own clock, whatever SQS says, whose time is now.
func staleBySender(sentMS int64, budget time.Duration, now time.Time) bool {
	return sentMS > 0 && now.Sub(time.UnixMilli(sentMS)) > budget+staleGuard
}
