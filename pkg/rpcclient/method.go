package rpcclient

import (
	"context"
	"fmt"
	"unicode/utf8"
)

// Method is one operation that requesters call and responders handle. Both sides share the value, so
// that name, types and codec agree. It is immutable.
//
// Its calls: Call waits for the one reply; Start does not; Stream receives many; Gather and GatherFirst
// ask several channels at once; Notify awaits none; Resume awaits the reply of a call that an earlier
// process made. Handle and HandleStream register what answers them.
type Method[Req, Rep any] struct {
	name       string
	codec      Codec
	idempotent bool
}

// MethodOption configures a Method.
type MethodOption func(*methodConfig)

type methodConfig struct {
	codec      Codec
	idempotent bool
}

// WithCodec sets the codec of both payloads. The default is JSON.
func WithCodec(c Codec) MethodOption { return func(m *methodConfig) { m.codec = c } }

// Idempotent says that running the method twice does what running it once does, so that requesters may
// repeat calls of which nobody can say whether they were executed.
func Idempotent() MethodOption { return func(m *methodConfig) { m.idempotent = true } }

// NewMethod defines a method. The name is what travels: 1 to 256 bytes of UTF-8. It panics on any other, and on a nil
// option or codec, since methods are defined in package variables.
func NewMethod[Req, Rep any](name string, opts ...MethodOption) Method[Req, Rep] {
	if name == "" || len(name) > maxMethodBytes || !utf8.ValidString(name) {
		panic(fmt.Sprintf("rpcclient: method name %q must have 1 to %d bytes of UTF-8", name, maxMethodBytes))
	}
	c := methodConfig{codec: JSON}
	for _, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("rpcclient: an option of method %q is nil", name))
		}
		o(&c)
	}
	if c.codec == nil {
		panic(fmt.Sprintf("rpcclient: the codec of method %q is nil", name))
	}
	return Method[Req, Rep]{name: name, codec: c.codec, idempotent: c.idempotent}
}

// NewRawMethod defines a method whose payloads are bytes that the application encodes itself. codec is
// the name that travels with them; "" is Raw's. A proxy that passes JSON through names "json".
func NewRawMethod(name, codec string, opts ...MethodOption) Method[[]byte, []byte] {
	if codec == "" {
		codec = Raw.Name()
	}
	return NewMethod[[]byte, []byte](name, append([]MethodOption{WithCodec(rawCodec{codec})}, opts...)...)
}

// Name returns the method's name.
func (m Method[Req, Rep]) Name() string { return m.name }

// Call sends req to the channel and waits for the reply. It blocks until the reply, until the earliest
// of ctx's deadline, the call's, the channel's and the requester's timeouts, or until the call cannot
// end well any more. Every error is an *Error whose Outcome says whether a handler may have run.
//
// Calls are safe inside a handler: replies never wait for requests.
func (m Method[Req, Rep]) Call(ctx context.Context, ch *Channel, req Req, opts ...CallOption) (Rep, error) {
	o := m.newOutgoing(ctx, ch, KindCall, opts)
	o.Request = req
	return m.one(ctx, o)
}

// one makes a call that has one reply.
func (m Method[Req, Rep]) one(ctx context.Context, o *OutgoingCall) (Rep, error) {
	var got struct {
		rep Rep
		any bool
	}
	err := o.invoke(ctx, func(reply any) error {
		rep, ok := reply.(Rep)
		if !ok && reply != nil { // a nil interface is the zero value of an interface type
			return Errorf(Internal, "an interceptor returned a reply of type %T", reply)
		}
		got.rep, got.any = rep, true
		return nil
	})
	if err == nil && !got.any {
		err = o.failure(errSwallowed)
	}
	if err != nil {
		var none Rep
		return none, err
	}
	return got.rep, nil
}

// Notify sends req and awaits no reply. It blocks until SQS has the request, or as Call does. nil says
// that a responder will get the request unless NotifyExpiry passes first; not that it was handled. After
// an error with outcome NotSent nobody will get it; after MaybeExecuted somebody may.
func (m Method[Req, Rep]) Notify(ctx context.Context, ch *Channel, req Req, opts ...CallOption) error {
	o := m.newOutgoing(ctx, ch, KindNotify, opts)
	o.Request = req
	return o.invoke(ctx, func(any) error { return nil })
}
