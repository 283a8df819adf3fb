package rpcclient

import (
	"context"
	"fmt"
)

// HandleOption configures a handler.
type HandleOption func(*handler)

// WithMethodConcurrency bounds the executions of this handler that run at once in one responder, beside
// the responder's own limit. As many requests again wait for a place; more are shed: a native requester
// is told Unavailable with RetryAfter, and calls again after that as often as its RetryPolicy allows. That is for a
// few at a time: of a burst of many times the limit most fail, since a channel's retries stop when most calls fail.
func WithMethodConcurrency(n int) HandleOption {
	return func(h *handler) { h.limit = newMethodLimit(n) }
}

// Handle registers fn for the method. It must be called before Serve; a second registration of the same
// name panics, and so does a nil fn or option.
//
// fn's context ends at the request's deadline, and carries RequestInfo. An *Error that fn returns goes
// to the requester as it is; of one that is wrapped, code, details and RetryAfter go with the whole text; that
// includes the error of a call that fn made, so give it another code (Errorf with %v) where the caller should not
// take it for fn's own. Any other error becomes Unknown with its text; a panic becomes Internal, and
// so does a handler that ends its goroutine (runtime.Goexit, as a test's FailNow does). A nil *Error is no
// error.
// fn may run again for the same call when a responder dies or a reply cannot be sent.
func (m Method[Req, Rep]) Handle(r *Responder, fn func(ctx context.Context, req Req) (Rep, error), opts ...HandleOption) {
	mustHandle(m.name, fn == nil)
	h := m.newHandler(func(ctx context.Context, c *IncomingCall, send func(any) error) error {
		req, err := requestOf[Req](c)
		if err != nil {
			return err
		}
		rep, err := fn(ctx, req)
		if err != nil && !isNil(err) {
			return err
		}
		return send(rep)
	})
	r.register(m.name, h, opts)
}

// HandleStream registers fn for the method, as Handle does, to answer with any number of replies: each
// call of send sends one. send blocks while too many wait for SQS. It fails when the requester is gone
// or the deadline has passed; fn should return then. It is not safe for concurrent use.
//
// A requester that is not streaming (Call, Start, Gather) is refused before fn runs.
func (m Method[Req, Rep]) HandleStream(r *Responder, fn func(ctx context.Context, req Req, send func(Rep) error) error, opts ...HandleOption) {
	mustHandle(m.name, fn == nil)
	h := m.newHandler(func(ctx context.Context, c *IncomingCall, send func(any) error) error {
		req, err := requestOf[Req](c)
		if err != nil {
			return err
		}
		return fn(ctx, req, func(rep Rep) error { return send(rep) })
	})
	h.stream = true
	r.register(m.name, h, opts)
}

// HandleDefault registers fn for all requests whose method has no handler; InfoFromContext tells method
// and codec. It also serves requests that name no method, unless WithDefaultMethod names one for them.
// Payload and reply are bytes in the request's codec.
func (r *Responder) HandleDefault(fn func(ctx context.Context, payload []byte) ([]byte, error), opts ...HandleOption) {
	mustHandle("(default)", fn == nil)
	h := NewRawMethod("default", "").newHandler(func(ctx context.Context, c *IncomingCall, send func(any) error) error {
		payload, err := requestOf[[]byte](c)
		if err != nil {
			return err
		}
		reply, err := fn(ctx, payload)
		if err != nil && !isNil(err) {
			return err
		}
		return send(reply)
	})
	h.anyCodec = true
	r.register("", h, opts)
}

// mustHandle panics where there is no function to call.
func mustHandle(name string, none bool) {
	if none {
		panic(fmt.Sprintf("rpcclient: the handler of method %q is nil", name))
	}
}

// newHandler erases a method's types.
func (m Method[Req, Rep]) newHandler(serve HandlerFunc) *handler {
	codec := m.codec
	return &handler{
		codec: codec.Name(), serve: serve, encode: codec.Marshal,
		decode: func(payload []byte) (any, error) { return decodeOwned[Req](codec, payload) },
	}
}

func requestOf[Req any](c *IncomingCall) (Req, error) {
	req, ok := c.Request.(Req)
	if !ok && c.Request != nil {
		return req, Errorf(Internal, "an interceptor made the request a %T", c.Request)
	}
	return req, nil
}

// handler is a registered method with its types erased.
type handler struct {
	codec    string
	anyCodec bool
	stream   bool
	decode   func(payload []byte) (any, error)
	encode   func(reply any) ([]byte, error)
	serve    HandlerFunc // the interceptors included
	limit    *methodLimit
}

// undecodable marks a payload that the codec refused before the handler ran.
type undecodable struct{ err error }

func (e *undecodable) Error() string { return "decode the request: " + e.err.Error() }
func (e *undecodable) Unwrap() error { return e.err }

// answer runs a handler for its one reply.
func (h *handler) answer(ctx context.Context, info *RequestInfo, payload []byte) (out []byte, err error) {
	req, err := h.decode(payload)
	if err != nil {
		return nil, &undecodable{err}
	}
	c := &single{handler: h, call: IncomingCall{Info: info, Request: req}}
	err = h.serve(ctx, &c.call, c.send)
	switch {
	case err != nil && !isNil(err):
		return nil, err
	case !c.sent:
		return nil, Errorf(Internal, "an interceptor swallowed the reply")
	default:
		return c.out, nil
	}
}

// single is one execution of a handler that sends one reply.
type single struct {
	handler *handler
	call    IncomingCall
	sent    bool
	out     []byte
}

func (c *single) send(reply any) error {
	if c.sent {
		return Errorf(Internal, "the handler sent a second reply")
	}
	c.sent = true
	var err error
	if c.out, err = c.handler.encode(reply); err != nil {
		return Errorf(Internal, "encode the reply: %w", err)
	}
	return nil
}
