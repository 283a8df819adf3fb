package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// Pending is a call under way. It is safe for concurrent use.
type Pending[Rep any] struct {
	id     string
	cancel context.CancelCauseFunc
	done   chan struct{}
	reply  Rep   // written before done is closed
	err    error // likewise
}

// Start sends req without waiting for the reply. The call ends as one made with Call does, ctx's end
// included, whether or not anybody waits. Shutdown waits for it. A panic of a codec or an interceptor, which Call
// hands on, ends it as Internal.
//
// With interceptors, for which req is encoded after them, req must not change until the call has ended: a buffer, map or
// pointer in it must not be used for another. Without them it is encoded before Start returns.
//
// Calls that were started one after the other may reach SQS in another order, in one group of a FIFO
// channel too: where the order matters, make the next when the last has ended, or Notify, which waits until
// SQS has the request.
func (m Method[Req, Rep]) Start(ctx context.Context, ch *Channel, req Req, opts ...CallOption) *Pending[Rep] {
	o := m.newOutgoing(ctx, ch, KindCall, opts)
	o.Request = req
	if len(ch.requester.cfg.callInterceptors) == 0 {
		e := o.encode()
		o.early = &e
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p := &Pending[Rep]{id: o.id, cancel: cancel, done: make(chan struct{})}
	ch.requester.background(func() {
		defer cancel(nil)
		defer close(p.done)
		o.alone(&p.err, func() (err error) {
			p.reply, err = m.one(ctx, o)
			return err
		})
	})
	return p
}

// alone makes a call on a goroutine that is not its caller's, and sets err to how it ended: also when a codec or an
// interceptor panics, which nobody else can recover there, or ends the goroutine.
func (o *OutgoingCall) alone(err *error, call func() error) {
	*err = errNoReturn
	defer func() {
		if p := recover(); p != nil {
			o.channel.requester.cfg.log.Error("a codec or an interceptor panicked", "channel", o.Channel, "method", o.Method,
				"callID", hashCallID(o.id), "panic", p, "stack", string(debug.Stack()))
			cause, ok := p.(error)
			if !ok {
				cause = fmt.Errorf("%v", p)
			}
			*err = o.failure(fmt.Errorf("a codec or an interceptor panicked: %w", cause))
		} else if *err == errNoReturn { //nolint:errorlint // this very one
			*err = o.failure(errNoReturn)
		}
	}()
	*err = call()
}

// errNoReturn ends a call whose goroutine an interceptor or a codec ended (runtime.Goexit, as a test's FailNow does).
var errNoReturn = errors.New("an interceptor or a codec ended the goroutine of the call")

// Wait blocks until the call has ended, and returns how, as Call does. It may be called any number of
// times. When ctx ends first, the error says so and the call goes on.
func (p *Pending[Rep]) Wait(ctx context.Context) (Rep, error) {
	select {
	case <-p.done:
		return p.reply, p.err
	default:
	}
	select {
	case <-p.done:
		return p.reply, p.err
	case <-ctx.Done():
		var none Rep
		e := endedError(ctx, MaybeExecuted, "waiting for a call that goes on")
		e.CallID = hashCallID(p.id)
		return none, e
	}
}

// Done is closed when the call has ended.
func (p *Pending[Rep]) Done() <-chan struct{} { return p.done }

// Cancel ends the call, unless it has ended. What was not sent by now never is: its outcome is NotSent.
// A responder that has the request is not told.
func (p *Pending[Rep]) Cancel() { p.cancel(context.Canceled) }

// CallID is the call's identifier, with which a later process can Resume it if this one was given it
// WithCallID. Whoever knows it can answer the call: keep it as a secret.
func (p *Pending[Rep]) CallID() string { return p.id }

// background runs a call on a goroutine that Shutdown awaits.
func (r *Requester) background(run func()) {
	r.mu.Lock()
	closing := r.closing
	if !closing {
		r.started.Add(1)
	}
	r.mu.Unlock()
	if closing {
		run() // it fails at once
		return
	}
	go func() {
		defer r.started.Done()
		run()
	}()
}
