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
		channel: ch, codec: m.codec, started: time.Now(), progress: progress{outcome: NotSent},
		decode: func(payload []byte) (any, error) {
			return decodeOwned[Rep](m.codec, payload)
		},
	}
	o.cfg.idempotent = m.idempotent
	o.cfg.apply(opts)
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
	if isNil(err) {
		err = nil
	}
	if _, _, ended := o.progress.now(); ended && o.cfg.replyMetadata != nil {
		*o.cfg.replyMetadata = o.ReplyMetadata
	}
	var e *Error
	if err != nil && (o.Kind != KindStream || !errors.Is(err, ErrStopped)) { // of an inner stream it is an error like others
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

// ErrStopped is in the chain of the error with which a stream ends, for its interceptors, when its consumer left
// the loop: nothing went wrong.
var ErrStopped = errors.New("the consumer stopped")

// conform makes an *Error of this call of what came out of the interceptors, which may be an application's or
// another call's.
func (o *OutgoingCall) conform(err error) *Error {
	outcome, attempts, _ := o.progress.now()
	id := hashCallID(o.id)
	if e, ok := err.(*Error); ok { //nolint:errorlint // a wrapped one is the next case
		if e.CallID != id {
			c := *e
			c.CallID, c.Attempt, c.Outcome = id, attempts, outcome
			e = &c
		}
		return e
	}
	out := &Error{Code: CodeOf(err), Message: err.Error(), Outcome: outcome, CallID: id, Attempt: attempts, cause: err}
	if inner := errorAs(err); inner != nil {
		out.Details, out.RetryAfter, out.remote = inner.Details, inner.RetryAfter, inner.remote
	}
	return out
}

func (r *Requester) onCallEnd(o *OutgoingCall, err *Error) {
	if len(r.hooks.callEnd) == 0 {
		return
	}
	_, attempts, _ := o.progress.now()
	end := CallEnd{
		Channel: o.Channel, Method: o.Method, Kind: o.Kind, CallID: hashCallID(o.id),
		Attempts: attempts, Took: time.Since(o.started),
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
	if !o.progress.begin() {
		return o.failure(errCalledTwice)
	}
	if d, ok := ctx.Deadline(); ok && d.Before(o.Deadline) {
		o.Deadline = d // an interceptor's
	}
	e := r.attempts(ctx, o, receive)
	if e != nil {
		o.explain(ctx, e)
	}
	switch {
	case e != nil:
		o.progress.end(e.Outcome)
		return e
	case o.Kind == KindNotify:
		o.progress.end(MaybeExecuted)
	default:
		o.progress.end(Executed)
	}
	return nil
}

// contextLate is how late the timer of a context may be.
const contextLate = 100 * time.Millisecond

// explain adds what an attempt cannot know of its end. A resumed call's request was sent by an earlier one: it is
// NotSent of nothing. And when the deadline was the context's own, the call's timer may come first: the context's
// cause is given all the same.
func (o *OutgoingCall) explain(ctx context.Context, e *Error) {
	if o.resumed && e.Outcome == NotSent && e.Code != InvalidArgument {
		e.Outcome = MaybeExecuted
	}
	d, ok := ctx.Deadline()
	if e.Code != DeadlineExceeded || e.remote || !ok || d.After(o.Deadline) || time.Now().Before(d) {
		return
	}
	late := time.NewTimer(contextLate)
	defer late.Stop()
	select {
	case <-ctx.Done():
	case <-late.C:
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(e, cause) {
		e.Message += ": " + cause.Error()
		e.cause = errors.Join(e.cause, cause)
	}
}

// attempts makes the call, again where that is safe, until its deadline.
func (r *Requester) attempts(ctx context.Context, o *OutgoingCall, receive func(reply any) error) *Error {
	c := r.newCall(o)
	if o.cfg.nilOption {
		return c.failure(InvalidArgument, NotSent, nil, "an option of the call is nil")
	}
	if !isCallID(c.id) {
		return c.failure(InvalidArgument, NotSent, nil, "the call ID has %d bytes; it must be %d to %d letters, digits, - or _", len(c.id), minCallIDBytes, maxCallIDBytes)
	}
	if !o.resumed {
		if e := c.prepare(o); e != nil {
			return e
		}
	}
	timer := r.timer(time.Until(o.Deadline))
	defer r.putTimer(timer)
	if e := c.enter(ctx, timer.C); e != nil {
		return e
	}
	defer func() { <-r.slots }()
	for worst := NotSent; ; c = c.again() {
		o.Attempts = c.attempt
		o.progress.attempt(c.attempt)
		e := c.run(ctx, timer.C, o, receive)
		if e == nil || errors.Is(e, ErrStopped) {
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

var (
	errCalledTwice = errors.New("an interceptor made the call twice")
	errSwallowed   = errors.New("an interceptor swallowed the reply")
)

// failure is the error of a call of which the application's own code, around it, made something impossible.
func (o *OutgoingCall) failure(cause error) *Error {
	outcome, attempts, _ := o.progress.now()
	e := localError(Internal, outcome, cause, "%v", cause)
	e.CallID, e.Attempt = hashCallID(o.id), attempts
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
