package rpcclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// RetryPolicy says how often and how fast a requester repeats calls. The zero value of each field is its
// default.
//
// A call is repeated only when that is safe and there is hope: its outcome is NotSent or Rejected and its
// code Unavailable or ResourceExhausted; or its method is Idempotent and its code Unavailable, whatever
// the outcome. All attempts share the call's deadline, its identifier and its place among the pending
// calls. A stream that has begun and a resumed call are never repeated.
type RetryPolicy struct {
	// MaxAttempts of one call, the first included, 1 to 10; 1: never repeat. Default 3. A channel's and a
	// call's own come before it.
	MaxAttempts int
	// InitialBackoff is the pause before the second attempt, doubling up to MaxBackoff; half of each
	// pause is random. Defaults 100 ms and 5 s. A responder's RetryAfter, and up to a fifth more at random,
	// takes the place of a shorter pause.
	InitialBackoff, MaxBackoff time.Duration
	// Tokens and TokenRatio throttle a channel's retries when most of its calls fail: each failure that
	// may be repeated takes a token, each success gives TokenRatio back, and nothing is repeated while
	// half or less of Tokens are there (gRPC's proposal A6). Defaults 10 and 0.1.
	Tokens, TokenRatio float64
}

// DefaultMaxAttempts of one call.
const DefaultMaxAttempts = 3

// maxAttemptsLimit is the highest MaxAttempts, as in a RequestChannel's spec.
const maxAttemptsLimit = 10

func (p *RetryPolicy) setDefaults() {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = DefaultMaxAttempts
	}
	if p.InitialBackoff == 0 {
		p.InitialBackoff = 100 * time.Millisecond
	}
	if p.MaxBackoff == 0 {
		p.MaxBackoff = 5 * time.Second
	}
	if p.Tokens == 0 {
		p.Tokens = 10
	}
	if p.TokenRatio == 0 {
		p.TokenRatio = 0.1
	}
}

func (p *RetryPolicy) validate() error {
	switch {
	case p.MaxAttempts < 1 || p.MaxAttempts > maxAttemptsLimit:
		return errors.New("the attempts of a call must be between 1 and 10")
	case p.InitialBackoff < 0 || p.MaxBackoff < p.InitialBackoff:
		return errors.New("the retry backoff must not be negative, nor its limit below it")
	case p.Tokens < 0 || p.TokenRatio < 0:
		return errors.New("the retry tokens and their ratio must not be negative")
	default:
		return nil
	}
}

// WithRetries sets how calls are repeated, for requesters.
func WithRetries(p RetryPolicy) Option { return func(c *config) { c.retries = p } }

// retrier decides about the retries of one channel.
type retrier struct {
	policy RetryPolicy

	mu     sync.Mutex
	tokens float64
}

func newRetrier(p RetryPolicy, channel *ChannelConfig) *retrier {
	if channel.MaxAttempts > 0 {
		p.MaxAttempts = channel.MaxAttempts
	}
	return &retrier{policy: p, tokens: p.Tokens}
}

func (r *retrier) succeeded() {
	r.mu.Lock()
	r.tokens = min(r.policy.Tokens, r.tokens+r.policy.TokenRatio)
	r.mu.Unlock()
}

// next reports whether a call that failed with e may be tried again, and after what pause.
func (r *retrier) next(o *OutgoingCall, e *Error) (pause time.Duration, again bool) {
	if !mayRetry(o, e) {
		return 0, false
	}
	if !r.takeToken() || o.Attempts >= r.limit(o) {
		return 0, false
	}
	// Those that were refused together must not come together again: at least RetryAfter, and up to a fifth
	// more. An interceptor's error may have any.
	wait := min(max(e.RetryAfter, 0), maxBudget)
	pause = max(wait+rand.N(wait/5+1), r.policy.pause(o.Attempts))
	// A pause that leaves no time for an answer is not worth it.
	return pause, time.Until(o.Deadline) > pause
}

// mayRetry reports whether repeating a call that failed with e is safe, and may end otherwise.
func mayRetry(o *OutgoingCall, e *Error) bool {
	if o.resumed || o.received {
		return false
	}
	for _, hopeless := range []error{ErrPayloadTooLarge, ErrTooManyPending, ErrClosed, errNoQueueWillCome} {
		if errors.Is(e, hopeless) {
			return false
		}
	}
	switch e.Outcome {
	case NotSent, Rejected:
		return e.Code == Unavailable || e.Code == ResourceExhausted
	default:
		return o.cfg.idempotent && e.Code == Unavailable
	}
}

// repeats reports whether a call that may have been executed is made again.
func (r *retrier) repeats(c *call) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.attempt < c.repeats && r.tokens-1 > r.policy.Tokens/2
}

// limit is the most attempts of a call.
func (r *retrier) limit(o *OutgoingCall) int {
	if o.cfg.maxAttempts > 0 {
		return o.cfg.maxAttempts
	}
	return r.policy.MaxAttempts
}

// takeToken pays for a failure, and reports whether a retry may follow it.
func (r *retrier) takeToken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = max(0, r.tokens-1)
	return r.tokens > r.policy.Tokens/2
}

// pause is the backoff after attempt n, from 1.
func (p *RetryPolicy) pause(n int) time.Duration {
	d := min(p.MaxBackoff, p.InitialBackoff<<min(max(n-1, 0), 20))
	return d/2 + rand.N(d/2+1)
}

// pause waits before another attempt. It returns nil when that may begin.
func (c *call) pause(ctx context.Context, timeout <-chan time.Time, d time.Duration, last *Error) *Error {
	t := time.NewTimer(d)
	defer t.Stop()
	r := c.requester
	for {
		r.mu.Lock()
		changed, closing := r.changed, r.closing
		r.mu.Unlock()
		if closing {
			return c.failure(Canceled, last.Outcome, errors.Join(ErrClosed, last), "the requester is shutting down; the last attempt: %v", last)
		}
		select {
		case <-t.C:
			return nil
		case <-changed:
		case <-timeout: // the pause ends before: only should this goroutine not have run for long
			return c.failure(DeadlineExceeded, last.Outcome, errors.Join(context.DeadlineExceeded, last),
				"the deadline passed while waiting to try again; the last attempt: %v", last)
		case <-ctx.Done():
			e := endedError(ctx, last.Outcome, "waiting to try again")
			e.Message += "; the last attempt: " + last.Error()
			return c.identify(e)
		}
	}
}

// worseOutcome is what is known of a call of which two attempts ended in a and b.
func worseOutcome(a, b Outcome) Outcome {
	rank := [...]int{NotSent: 0, Rejected: 1, MaybeExecuted: 2, Executed: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
