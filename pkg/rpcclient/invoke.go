package rpcclient

import (
	"context"
	"errors"
	"time"
)

// newOutgoing is a call of a method as the application asked for it, from this moment on.
func (m Method[Req, Rep]) newOutgoing(ctx context.Context, ch *Channel, kind CallKind, opts []CallOption) *OutgoingCall {
	o := &OutgoingCall{
		Channel: ch.config.Name, QueueURL: ch.config.URL, Method: m.name, Kind: kind,
		channel: ch, codec: m.codec, started: time.Now(),
		decode: func(payload []byte) (any, error) {
			return decodeOwned[Rep](m.codec, payload)
		},
	}
	o.outcome.Store(uint32(NotSent))
	o.cfg.idempotent = m.idempotent
	for _, opt := range opts {
		opt(&o.cfg)
	}
	r := ch.requester
	if o.id = o.cfg.callID; o.id == "" {
		o.id = newCallID(r.nonce)
	}
	o.Deadline = o.started.Add(firstPositive(ch.config.Timeout, r.cfg.timeout))
	if o.cfg.timeout != nil {
		o.Deadline = o.started.Add(*o.cfg.timeout)
	}
	if d, ok := ctx.Deadline(); ok && d.Before(o.Deadline) {
		o.Deadline = d
	}
	return o
}

// invoke makes a call through the interceptors and counts its end. Its error is nil or an *Error.
func (o *OutgoingCall) invoke(ctx context.Context, receive func(reply any) error) error {
	r := o.channel.requester
	if len(r.cfg.callInterceptors) > 0 {
		o.CallID = hashCallID(o.id)
		own := make(Metadata, len(o.cfg.metadata))
		for k, v := range o.cfg.metadata {
			own[k] = v
		}
		o.Metadata = own
	} else {
		o.Metadata = o.cfg.metadata
	}
	err := r.calls(ctx, o, receive)
	if isNil(err) { // an interceptor's
		err = nil
	}
	if o.cfg.replyMetadata != nil {
		*o.cfg.replyMetadata = o.ReplyMetadata
	}
	var e *Error
	if err != nil && !errors.Is(err, errStopped) {
		e = o.conform(err)
	}
	r.cfg.stats.callEnded(e)
	r.onCallEnd(o, e)
	switch {
	case e != nil:
		return e
	case err != nil:
		return err
	default:
		return nil
	}
}

// exited is how a call ends whose goroutine an interceptor or codec ends (runtime.Goexit), so that it never returns.
func (o *OutgoingCall) exited() *Error {
	return o.failure(Internal, MaybeExecuted, errExitedCall, "%v", errExitedCall)
}

var errExitedCall = errors.New("an interceptor or codec ended the call's goroutine")

// errStopped is what a stream's consumer ends the call with when it wants no more.
var errStopped = errors.New("the consumer stopped")

// conform makes an *Error of what came out of the interceptors.
func (o *OutgoingCall) conform(err error) *Error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // a wrapped one is the next case
		if e.CallID != hashCallID(o.id) { // of no call, or of another that the interceptor made
			c := *e
			c.CallID, c.Attempt, c.Outcome = hashCallID(o.id), o.Attempts, Outcome(o.outcome.Load())
			e = &c
		}
		return e
	}
	out := &Error{Code: CodeOf(err), Message: err.Error(), Outcome: Outcome(o.outcome.Load()), CallID: hashCallID(o.id), Attempt: o.Attempts, cause: err}
	if inner := errorAs(err); inner != nil {
		out.Details, out.RetryAfter, out.remote = inner.Details, inner.RetryAfter, inner.remote
	}
	return out
}

func (r *Requester) onCallEnd(o *OutgoingCall, err *Error) {
	if len(r.hooks.callEnd) == 0 {
		return
	}
	end := CallEnd{
		Channel: o.Channel, Method: o.Method, Kind: o.Kind, CallID: hashCallID(o.id),
		Attempts: o.Attempts, Took: time.Since(o.started),
	}
	if err != nil {
		end.Err = err
	}
	for _, h := range r.hooks.callEnd {
		func() {
			defer r.hooks.contain()
			h.OnCallEnd(end)
		}()
	}
}

// perform is the innermost CallFunc: it encodes, sends as often as is safe and wanted, and receives.
func (r *Requester) perform(ctx context.Context, o *OutgoingCall, receive func(reply any) error) error {
	if o.begun {
		return o.failure(Internal, Outcome(o.outcome.Load()), nil, "an interceptor made the call twice")
	}
	o.begun = true
	o.outcome.Store(uint32(MaybeExecuted)) // until it has returned, which it may not
	e := r.attempts(ctx, o, receive)
	if e != nil {
		o.outcome.Store(uint32(e.Outcome))
		return e
	}
	if o.Kind != KindNotify {
		o.outcome.Store(uint32(Executed))
	}
	return nil
}

// attempts makes the call, again where that is safe, until its deadline.
func (r *Requester) attempts(ctx context.Context, o *OutgoingCall, receive func(reply any) error) *Error {
	c := r.newCall(o)
	if !isCallID(c.id) {
		return c.failure(InvalidArgument, NotSent, nil, "the call ID has %d bytes; it must be %d to %d letters, digits, - or _", len(c.id), minCallIDBytes, maxCallIDBytes)
	}
	if !o.resumed {
		payload, err := o.codec.Marshal(o.Request)
		if err != nil {
			return c.failure(InvalidArgument, NotSent, err, "encode the request: %v", err)
		}
		if e := c.prepare(o.codec.Name(), payload, o.Metadata); e != nil {
			return e
		}
	}
	timer := time.NewTimer(time.Until(o.Deadline))
	defer timer.Stop()
	if e := c.enter(ctx, timer.C); e != nil {
		return e
	}
	defer func() { <-r.slots }()
	for worst := NotSent; ; c = c.again() {
		o.Attempts = c.attempt
		e := c.run(ctx, timer.C, o, receive)
		if e == nil || errors.Is(e, errStopped) {
			o.channel.retries.succeeded()
			return e
		}
		worst = worseOutcome(worst, e.Outcome)
		e.Outcome = worst
		pause, again := o.channel.retries.next(o, e)
		if !again {
			return e
		}
		r.onRetry(o, e, pause)
		if ended := c.pause(ctx, timer.C, pause, e); ended != nil {
			return ended
		}
	}
}

func (o *OutgoingCall) failure(code Code, outcome Outcome, cause error, format string, args ...any) *Error {
	e := localError(code, outcome, cause, format, args...)
	e.CallID, e.Attempt = hashCallID(o.id), o.Attempts
	return e
}

func (r *Requester) onRetry(o *OutgoingCall, e *Error, pause time.Duration) {
	r.cfg.stats.retries.Add(1)
	for _, h := range r.hooks.retry {
		func() {
			defer r.hooks.contain()
			h.OnRetry(Retry{Channel: o.Channel, Method: o.Method, CallID: e.CallID, Attempt: o.Attempts, Pause: pause, Err: e})
		}()
	}
}
