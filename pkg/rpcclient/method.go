package rpcclient

import (
	"context"
	"fmt"
	"time"
)

// Method is one operation that requesters call and responders handle. Both sides share the value, so
// that name, types and codec agree. It is immutable.
type Method[Req, Rep any] struct {
	name  string
	codec Codec
}

// MethodOption configures a Method.
type MethodOption func(*methodConfig)

type methodConfig struct{ codec Codec }

// WithCodec sets the codec of both payloads. The default is JSON.
func WithCodec(c Codec) MethodOption { return func(m *methodConfig) { m.codec = c } }

// NewMethod defines a method. The name is what travels: 1 to 256 bytes. It panics on any other, since
// methods are defined in package variables.
func NewMethod[Req, Rep any](name string, opts ...MethodOption) Method[Req, Rep] {
	if name == "" || len(name) > maxMethodBytes {
		panic(fmt.Sprintf("rpcclient: method name %q must have 1 to %d bytes", name, maxMethodBytes))
	}
	c := methodConfig{codec: JSON}
	for _, o := range opts {
		o(&c)
	}
	return Method[Req, Rep]{name: name, codec: c.codec}
}

// Name returns the method's name.
func (m Method[Req, Rep]) Name() string { return m.name }

// CallOption configures one call.
type CallOption func(*callConfig)

type callConfig struct {
	timeout  time.Duration
	group    string
	metadata map[string]string
}

// CallTimeout ends the call after d, measured from the moment of the call. An earlier deadline of the
// context still counts.
func CallTimeout(d time.Duration) CallOption { return func(c *callConfig) { c.timeout = d } }

// CallGroup sets the message group, 1 to 128 characters: on a FIFO channel, calls of one group are
// handled in order; on a standard one, it is the tenant of SQS's fair queues. Without it a FIFO call
// is a group by itself.
func CallGroup(key string) CallOption { return func(c *callConfig) { c.group = key } }

// CallMetadata sends a key and value with the request, at most 4 KiB in all.
func CallMetadata(key, value string) CallOption {
	return func(c *callConfig) {
		if c.metadata == nil {
			c.metadata = map[string]string{}
		}
		c.metadata[key] = value
	}
}

// Call sends req to the channel and waits for the reply. It blocks until the reply, until the earliest
// of ctx's deadline, the call's, the channel's and the requester's timeouts, or until the call cannot
// end well any more. Every error is an *Error whose Outcome says whether a handler may have run.
//
// Calls are safe inside a handler: replies never wait for requests.
func (m Method[Req, Rep]) Call(ctx context.Context, ch *Channel, req Req, opts ...CallOption) (Rep, error) {
	var rep Rep
	var c callConfig
	for _, o := range opts {
		o(&c)
	}
	payload, err := m.codec.Marshal(req)
	if err != nil {
		return rep, ch.requester.refused(ch, m.name,
			localError(InvalidArgument, NotSent, err, "encode the request: %v", err))
	}
	callErr := ch.requester.call(ctx, ch, m.name, m.codec.Name(), payload, c, func(data []byte) error {
		return m.codec.Unmarshal(data, &rep)
	})
	if callErr != nil {
		return rep, callErr
	}
	return rep, nil
}

// Handle registers fn for the method. It must be called before Serve; a second registration of the same
// name panics.
//
// fn's context ends at the request's deadline, and carries RequestInfo. An *Error that fn returns goes
// to the requester as it is; any other error becomes Unknown with its text; a panic becomes Internal.
// fn may run again for the same call when a responder dies or a reply cannot be sent.
func (m Method[Req, Rep]) Handle(r *Responder, fn func(ctx context.Context, req Req) (Rep, error)) {
	codec := m.codec
	r.register(m.name, handler{
		codec: codec.Name(),
		run: func(ctx context.Context, payload []byte) ([]byte, error) {
			var req Req
			if err := codec.Unmarshal(payload, &req); err != nil {
				return nil, &undecodable{err}
			}
			rep, err := fn(ctx, req)
			if err != nil {
				return nil, err
			}
			out, err := codec.Marshal(rep)
			if err != nil {
				return nil, Errorf(Internal, "encode the reply: %w", err)
			}
			return out, nil
		},
	})
}

// handler is a registered method with its types erased.
type handler struct {
	codec string
	run   func(ctx context.Context, payload []byte) ([]byte, error)
}

// undecodable marks a payload that the codec refused before the handler ran.
type undecodable struct{ err error }

func (e *undecodable) Error() string { return "decode the request: " + e.err.Error() }
func (e *undecodable) Unwrap() error { return e.err }
