package rpcclient

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Interceptors wrap what happens between the application and the wire, on either side. One shape serves
// every kind of call: a call receives no reply (Notify), one (Call, Start, Gather, Resume) or many
// (Stream), and so does a handler send them.
//
// They see values rather than bytes. To compress, encrypt or sign payloads, wrap a Codec.

// Metadata are keys and values that travel beside a payload: at most 4 KiB with a request and as much
// with a reply. The key "traceparent" travels as a message attribute of that name, where tracers of
// other languages look for it; all others are inside the envelope.
type Metadata map[string]string

// TraceParent is the metadata key of the W3C trace context.
const TraceParent = "traceparent"

// CallKind says how many replies a call has.
type CallKind uint8

// The kinds of call.
const (
	// KindCall: one reply, or an error.
	KindCall CallKind = iota
	// KindStream: any number of replies and an end.
	KindStream
	// KindNotify: none; the call ends when SQS has the request.
	KindNotify
)

// String returns call, stream or notify.
func (k CallKind) String() string {
	switch k {
	case KindStream:
		return "stream"
	case KindNotify:
		return "notify"
	default:
		return "call"
	}
}

// OutgoingCall is one call as a requester's interceptors see it.
type OutgoingCall struct {
	// Channel is the channel's name, QueueURL its request queue.
	Channel, QueueURL string
	Method            string
	Kind              CallKind
	// CallID is the hash that errors and hooks show.
	CallID string
	// Deadline ends the call.
	Deadline time.Time
	// Request is the request's value, which is encoded when the innermost interceptor calls next. An interceptor may
	// replace it with another of the same type.
	Request any
	// Metadata to send. An interceptor may add to it; it is this call's own map, never nil.
	Metadata Metadata
	// ReplyMetadata is what came with the replies so far; nil before the first.
	ReplyMetadata Metadata
	// Attempts made so far.
	Attempts int

	channel  *Channel
	codec    Codec
	decode   func(payload []byte) (any, error)
	cfg      callConfig
	id       string
	started  time.Time
	received bool // a frame of a stream came
	resumed  bool // nothing is sent: an earlier process did
	early    *encoded

	progress progress
}

// progress is how far a call got. An interceptor may return before next has.
type progress struct {
	mu       sync.Mutex
	begun    bool    // the call got past its interceptors
	ended    bool    // and came back to them
	outcome  Outcome // of what happened so far
	attempts int
}

// begin notes that the call is made, and is false when it was made before. Until it ends, whether something was
// executed is open.
func (p *progress) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return false
	}
	p.begun, p.outcome = true, MaybeExecuted
	return true
}

func (p *progress) attempt(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = n
}

func (p *progress) end(o Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.outcome = true, o
}

func (p *progress) now() (o Outcome, attempts int, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outcome, p.attempts, p.ended
}

// CallFunc makes a call. It blocks until the call has ended, and calls receive for each reply, one after
// the other, with a value of the method's reply type; an error that receive returns ends the call.
type CallFunc func(ctx context.Context, c *OutgoingCall, receive func(reply any) error) error

// CallInterceptor wraps calls of a requester. It must call next at most once, and return when next has. When a
// stream's loop was left, next returns an error whose chain has ErrStopped, which is none to the application. An
// error that is not the call's own is given the call's identifier and outcome on its way out.
type CallInterceptor func(next CallFunc) CallFunc

// WithCallInterceptors wraps every call, for requesters. The first given is the outermost: it sees the
// call first and its end last. All attempts of a call happen inside; HookRetry sees them.
func WithCallInterceptors(all ...CallInterceptor) Option {
	return func(c *config) { c.callInterceptors = append(c.callInterceptors, all...) }
}

// IncomingCall is one execution of a handler as a responder's interceptors see it.
type IncomingCall struct {
	// Info says what is known of the request. Interceptors must not change it.
	Info *RequestInfo
	// Request is the decoded request. An interceptor may replace it with another of the same type.
	Request any
}

// HandlerFunc handles a request. It calls send for each reply, with a value of the method's reply type:
// exactly once before it returns nil, or any number of times in a streaming method. send is not safe for
// concurrent use. In a streaming method it blocks while too many frames wait for SQS, and its error says
// that no more can be sent.
type HandlerFunc func(ctx context.Context, c *IncomingCall, send func(reply any) error) error

// HandlerInterceptor wraps the handlers of a responder. It must call next at most once: a second time is an error,
// and the handler does not run.
type HandlerInterceptor func(next HandlerFunc) HandlerFunc

// WithHandlerInterceptors wraps every handler, for responders. The first given is the outermost. They run
// once for each execution: after the request was decoded and found to be no duplicate, with the
// handler's context, within its limit of concurrency; their panics are contained as a handler's.
func WithHandlerInterceptors(all ...HandlerInterceptor) Option {
	return func(c *config) { c.handlerInterceptors = append(c.handlerInterceptors, all...) }
}

// withCallID shows interceptors the call's ID, which is hashed for them alone.
func withCallID(next HandlerFunc) HandlerFunc {
	return func(ctx context.Context, c *IncomingCall, send func(reply any) error) error {
		if c.Info.id != "" {
			c.Info.CallID = hashCallID(c.Info.id)
		}
		return next(ctx, c, send)
	}
}

var errHandledTwice = errors.New("an interceptor handled the request twice")

// once refuses to run a handler twice for one request.
func once(next HandlerFunc) HandlerFunc {
	return func(ctx context.Context, c *IncomingCall, send func(reply any) error) error {
		if s, ok := ctx.Value(servingKey{}).(*serving); ok && s.handled.Swap(true) {
			return Errorf(Internal, "%w", errHandledTwice)
		}
		return next(ctx, c, send)
	}
}

// intercepted wraps base so that the first interceptor is the outermost.
func intercepted[F ~func(context.Context, C, func(any) error) error, I ~func(F) F, C any](base F, all []I) F {
	for _, i := range slices.Backward(all) {
		inner := i(base)
		base = func(ctx context.Context, c C, each func(any) error) error {
			err := inner(ctx, c, each)
			if isNil(err) { // no interceptor need know of that
				return nil
			}
			return err
		}
	}
	return base
}

// SetReplyMetadata sends a key and value with the reply of the request to which a handler's context
// belongs: with a stream's next frame. Together at most 4 KiB travel; what is more is left out. It
// reports whether ctx is a handler's which has not answered, both are UTF-8, SQS takes them (a trace context has
// attributes' characters only) and there is room.
func SetReplyMetadata(ctx context.Context, key, value string) bool {
	s, ok := ctx.Value(servingKey{}).(*serving)
	return ok && s.metadata.set(key, value)
}

// serving is what a handler's context carries.
type serving struct {
	info     *RequestInfo
	metadata replyMetadata
	handled  atomic.Bool // the handler was called; kept where there are interceptors
}

type servingKey struct{}

// replyMetadata gathers what a handler sends beside its reply.
type replyMetadata struct {
	mu     sync.Mutex
	bytes  int
	values Metadata
	left   bool // the last reply was rendered
}

func (m *replyMetadata) set(key, value string) bool {
	if !utf8.ValidString(key) || !utf8.ValidString(value) || key == TraceParent && !isXMLText(value) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return false
	}
	old, had := m.values[key]
	n := m.bytes + len(key) + len(value)
	if had {
		n -= len(key) + len(old)
	}
	if n > maxMetadataBytes {
		return false
	}
	if m.values == nil {
		m.values = Metadata{}
	}
	m.values[key], m.bytes = value, n
	return true
}

// take returns what was set since the last take; nil when that is nothing. last: nothing is taken any more.
func (m *replyMetadata) take(last bool) Metadata {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = m.left || last
	out := m.values
	m.values, m.bytes = nil, 0
	return out
}

// splitTrace parts what travels as a message attribute from what travels in the envelope, without
// changing m.
func splitTrace(m Metadata) (rest Metadata, trace string) {
	trace, ok := m[TraceParent]
	if !ok {
		return m, ""
	}
	rest = maps.Clone(m)
	delete(rest, TraceParent)
	return rest, trace
}

// joinTrace undoes splitTrace.
func joinTrace(m Metadata, trace string) Metadata {
	if trace == "" {
		return m
	}
	if m == nil {
		m = Metadata{}
	}
	m[TraceParent] = trace
	return m
}
