package queue

import (
	"cmp"
	"context"
	"slices"
	"sync"
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

// Limits are how many requests per second one account and region may be sent, by class. SQS publishes no figures for its
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

// limiter gives out turns for one place: an account and region, whichever providers lead there.
type limiter struct {
	clock clock.Clock
	lanes [operations]lane
}

// lane holds one class's turns. Requests that cannot be sent yet stand in a line, so that who comes first is served
// first: whoever comes later, and whoever comes back too early, is sent to its place.
type lane struct {
	full rate.Limit
	now  *rate.Limiter

	mu   sync.Mutex
	line []place // by number
	next uint64
}

// place is one request's in the line.
type place struct {
	// number is the order in which requests came.
	number uint64
	// key is what the request is about.
	key string
	// back is when it was told to come back.
	back time.Time
}

// turn is what a request was sent with: its number, by which it gets its place back where SQS throttles it.
type turn struct {
	number uint64
	key    string
}

const (
	// longestAbsence is after how long a request in the line is told to ask again at the latest: the rate may have grown.
	longestAbsence = 30 * time.Second
	// late is how much later than told a request may come back before others go first, and missed how much later it still
	// finds its place. What never comes back (its object was deleted) must not hold the others up.
	late   = time.Second
	missed = 15 * time.Second
)

func newLimiter(limits Limits, clk clock.Clock) *limiter {
	l := &limiter{clock: clk}
	for op, full := range [operations]rate.Limit{read: limits.Read, write: limits.Write, tag: limits.Tag} {
		lane := &l.lanes[op]
		lane.full, lane.now = full, rate.NewLimiter(full, max(1, int(full)))
	}
	return l
}

// fresh is a limiter of the same limits that has given out no turn.
func (l *limiter) fresh() *limiter {
	return newLimiter(Limits{Read: l.lanes[read].full, Write: l.lanes[write].full, Tag: l.lanes[tag].full}, l.clock)
}

// wait returns when the request may be sent. It returns *SlowDown at once when that is too far off, and the
// context's cause when the context ends first. key is what the request is about; a request that comes back has the key
// that it had.
func (l *limiter) wait(ctx context.Context, op operation, action, key string) (turn, error) {
	lane := &l.lanes[op]
	now := l.clock.Now()
	mine, reserved, after := lane.take(key, now)
	if reserved == nil {
		return mine, &SlowDown{Action: action, RetryAfter: after}
	}
	delay := reserved.DelayFrom(now)
	if delay == 0 {
		return mine, nil
	}
	timer := l.clock.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C():
		return mine, nil
	case <-ctx.Done():
		reserved.CancelAt(l.clock.Now())
		return mine, context.Cause(ctx)
	}
}

// take gives the request its turn, which may be a moment off, or a place in the line and the time to come back in.
func (l *lane) take(key string, now time.Time) (mine turn, reserved *rate.Reservation, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = slices.DeleteFunc(l.line, func(p place) bool { return now.Sub(p.back) > missed })
	at := slices.IndexFunc(l.line, func(p place) bool { return p.key == key })
	if at < 0 {
		at = len(l.line)
		l.next++
		mine = turn{l.next, key}
	} else {
		mine = turn{l.line[at].number, key}
	}
	// Those before it in the line have their turns first, but for those that are late.
	ahead := slices.ContainsFunc(l.line[:at], func(p place) bool { return now.Sub(p.back) <= late })
	if !ahead && l.in(0, now) <= longestWait {
		if at < len(l.line) {
			l.line = slices.Delete(l.line, at, at+1)
		}
		return mine, l.now.ReserveN(now, 1), 0
	}
	if at == len(l.line) {
		l.line = append(l.line, place{number: mine.number, key: key})
	}
	after = min(l.in(at, now), longestAbsence)
	if at > 0 {
		after = max(after, l.line[at-1].back.Sub(now)+time.Millisecond)
	}
	after = max(after, time.Millisecond)
	l.line[at].back = now.Add(after)
	return mine, nil, after
}

// in is how long it takes until there is a turn for the place at that index; 0: there is one.
func (l *lane) in(at int, now time.Time) time.Duration {
	missing := float64(at+1) - l.now.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	// A little more, so that nobody comes back a nanosecond early.
	return time.Duration(missing/float64(l.now.Limit())*float64(time.Second)) + time.Millisecond
}

// again gives a request that SQS throttled its place in the line back, and says when to come back.
func (l *limiter) again(op operation, was turn) time.Duration {
	lane := &l.lanes[op]
	now := l.clock.Now()
	lane.mu.Lock()
	defer lane.mu.Unlock()
	at, _ := slices.BinarySearchFunc(lane.line, was.number, func(p place, n uint64) int { return cmp.Compare(p.number, n) })
	lane.line = slices.Insert(lane.line, at, place{number: was.number, key: was.key})
	after := lane.in(at, now)
	lane.line[at].back = now.Add(after)
	return after
}

// answered adapts the rate of a class to an answer's class. What was saved up while nothing was sent is not spent on a
// service that throttles.
func (l *limiter) answered(op operation, class Class) {
	lane := &l.lanes[op]
	current := lane.now.Limit()
	now := l.clock.Now()
	switch {
	case class == Throttled:
		if saved := int(lane.now.TokensAt(now)); saved > 0 {
			lane.now.AllowN(now, saved)
		}
		lane.now.SetLimitAt(now, max(slowestRate, current/2))
	case current < lane.full:
		lane.now.SetLimitAt(now, min(lane.full, current+lane.full/recovery))
	}
}
