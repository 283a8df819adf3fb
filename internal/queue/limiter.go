package queue

import (
	"context"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// operation is a class of SQS requests that AWS limits together.
type operation int

const (
	read operation = iota
	write
	tag
	operations
)

// Limits are how many requests per second one provider may be sent, by class. SQS publishes no figures for its
// control plane, so these are where the limiter starts: an answer that says we are throttled halves the rate of
// its class, and answers that do not let it grow back.
type Limits struct {
	// Read limits GetQueueUrl, GetQueueAttributes and ListQueues.
	Read rate.Limit
	// Write limits CreateQueue, DeleteQueue and SetQueueAttributes.
	Write rate.Limit
	// Tag limits TagQueue, UntagQueue and ListQueueTags, which AWS limits most.
	Tag rate.Limit
}

// DefaultLimits let a thousand pods start within half a minute. What is created is read back, so writing is the
// slowest: a queue that got its turn to be created need not wait for another one to be read.
var DefaultLimits = Limits{Read: 100, Write: 50, Tag: 60}

const (
	// longestWait is how long a request may wait for its turn inside a worker. A turn further off is answered
	// with SlowDown, so that a burst occupies the workqueue and not the workers.
	longestWait = 250 * time.Millisecond
	// slowestRate is where halving ends, in requests per second.
	slowestRate = rate.Limit(1)
	// recovery is how many answers that were not throttled it takes to grow from nothing to the full rate.
	recovery = 200
)

// limiter gives out turns for one provider.
type limiter struct {
	provider string
	clock    clock.Clock
	lanes    [operations]lane
}

// lane holds one class's turns: those taken at once, and those given to requests that were told to come back.
type lane struct {
	full  rate.Limit
	now   *rate.Limiter
	later *rate.Limiter
}

func newLimiter(provider string, limits Limits, clk clock.Clock) *limiter {
	l := &limiter{provider: provider, clock: clk}
	for op, full := range [operations]rate.Limit{read: limits.Read, write: limits.Write, tag: limits.Tag} {
		burst := max(1, int(full))
		l.lanes[op] = lane{full: full, now: rate.NewLimiter(full, burst), later: rate.NewLimiter(full, 1)}
	}
	return l
}

// wait returns when the request may be sent. It returns *SlowDown at once when that is too far off, and the
// context's cause when the context ends first.
func (l *limiter) wait(ctx context.Context, op operation, action string) error {
	lane := &l.lanes[op]
	now := l.clock.Now()
	turn := lane.now.ReserveN(now, 1)
	delay := turn.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	if delay > longestWait {
		turn.CancelAt(now)
		later := lane.later.ReserveN(now, 1).DelayFrom(now)
		return &SlowDown{Provider: l.provider, Action: action, RetryAfter: delay + later}
	}
	timer := l.clock.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		turn.CancelAt(l.clock.Now())
		return context.Cause(ctx)
	}
}

// answered adapts the rate of a class to an answer's class.
func (l *limiter) answered(op operation, class Class) {
	lane := &l.lanes[op]
	current := lane.now.Limit()
	next := current
	if class == Throttled {
		next = max(slowestRate, current/2)
	} else if current < lane.full {
		next = min(lane.full, current+lane.full/recovery)
	}
	if next != current {
		now := l.clock.Now()
		lane.now.SetLimitAt(now, next)
		lane.later.SetLimitAt(now, next)
	}
}
