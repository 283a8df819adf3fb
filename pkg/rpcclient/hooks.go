package rpcclient

import (
	"log/slog"
	"runtime/debug"
	"time"
)

// A Hook is any value with one or more of the On… methods below; each is found by its interface. They
// run on the goroutines that do the work: they must not block and must be safe for concurrent use. A
// panic of one is logged, and ends nothing.
// Instrumentation (metrics, tracing, logs) is built on them, so that the core imports none.
type Hook any

// SQSRequest is one API request that has ended.
type SQSRequest struct {
	Action   Action
	QueueURL string
	// Entries sent in the batch, or messages received.
	Entries int
	Took    time.Duration
	Err     error
}

// HookSQSRequest sees every SQS API request.
type HookSQSRequest interface{ OnSQSRequest(SQSRequest) }

// CallEnd is one call that has ended on the requester's side.
type CallEnd struct {
	Channel, Method string
	Kind            CallKind
	// CallID is the hash that Error.CallID shows.
	CallID string
	// Attempts made, 0 when the call ended before the first.
	Attempts int
	Took     time.Duration
	// Err is nil or an *Error.
	Err error
}

// HookCallEnd sees every call's end.
type HookCallEnd interface{ OnCallEnd(CallEnd) }

// Retry is one attempt of a call that has failed and will be followed by another.
type Retry struct {
	Channel, Method string
	// CallID is the hash that Error.CallID shows.
	CallID string
	// Attempt that failed, from 1.
	Attempt int
	// Pause before the next.
	Pause time.Duration
	// Err is an *Error.
	Err error
}

// HookRetry sees every attempt that another follows.
type HookRetry interface{ OnRetry(Retry) }

// StrayReply is a message on the reply queue that no pending call waits for.
type StrayReply struct {
	// CallID is the hash of the identifier it carries; empty when it carries none.
	CallID string
	// Late: the call was this requester's and has ended, or this is another copy of its reply. Otherwise
	// the reply is another process's, or nobody's.
	Late bool
	// Dropped: the message is deleted. Otherwise it was put back for the process it belongs to.
	Dropped bool
	// Age of the message by SQS's clock.
	Age time.Duration
}

// HookStrayReply sees every reply that changed nothing.
type HookStrayReply interface{ OnStrayReply(StrayReply) }

// Served is one request that a responder has settled.
type Served struct {
	// Channel is the channel's name, QueueURL its request queue.
	Channel, QueueURL, Method string
	// Registered is true when Method has a handler of its own, and so is one of few.
	Registered bool
	// Peer is what kind of requester asked.
	Peer   Peer
	CallID string
	// Attempt is the requester's, from 1; 0 when it does not say. ReceiveCount is SQS's.
	Attempt, ReceiveCount int
	// Age of the request when it was taken up, by SQS's clock: its time in the queue.
	Age time.Duration
	// Replies sent: 1, or a stream's number.
	Replies int
	// Situation is what became of the request.
	Situation Situation
	// Took is the handler's time; 0 when none ran.
	Took time.Duration
	// Err is the handler's error or the reason for the situation.
	Err error
}

// HookServed sees every request a responder settles.
type HookServed interface{ OnServed(Served) }

// HookForgottenEarly sees every request that a responder's cache forgot for want of room, left before its time:
// a copy of it that comes later runs again (WithReplyCache).
type HookForgottenEarly interface {
	OnForgottenEarly(left time.Duration)
}

// HookReplyQueue sees the reply queue change: the URL that replies now come to, or "" when it is lost.
type HookReplyQueue interface{ OnReplyQueue(queueURL string) }

// isHook reports whether a value has any of the On… methods.
func isHook(h Hook) bool {
	switch h.(type) {
	case HookSQSRequest, HookCallEnd, HookRetry, HookStrayReply, HookServed, HookForgottenEarly, HookReplyQueue:
		return true
	default:
		return false
	}
}

// hooks are sorted by interface once, so that an absent hook costs a nil check.
type hooks struct {
	log     *slog.Logger
	request []HookSQSRequest
	callEnd []HookCallEnd
	retry   []HookRetry
	stray   []HookStrayReply
	served  []HookServed
	forgot  []HookForgottenEarly
	queue   []HookReplyQueue
}

func newHooks(all []Hook, log *slog.Logger) hooks {
	h := hooks{log: log}
	for _, hook := range all {
		if v, ok := hook.(HookSQSRequest); ok {
			h.request = append(h.request, v)
		}
		if v, ok := hook.(HookCallEnd); ok {
			h.callEnd = append(h.callEnd, v)
		}
		if v, ok := hook.(HookRetry); ok {
			h.retry = append(h.retry, v)
		}
		if v, ok := hook.(HookStrayReply); ok {
			h.stray = append(h.stray, v)
		}
		if v, ok := hook.(HookServed); ok {
			h.served = append(h.served, v)
		}
		if v, ok := hook.(HookForgottenEarly); ok {
			h.forgot = append(h.forgot, v)
		}
		if v, ok := hook.(HookReplyQueue); ok {
			h.queue = append(h.queue, v)
		}
	}
	return h
}

// contain is deferred around a hook: instrumentation that fails must not end what it looks at.
func (h hooks) contain() {
	if p := recover(); p != nil {
		h.log.Error("a hook panicked", "panic", p, "stack", string(debug.Stack()))
	}
}

func (h hooks) onRequest(r SQSRequest) {
	for _, v := range h.request {
		func() {
			defer h.contain()
			v.OnSQSRequest(r)
		}()
	}
}

func (h hooks) onStray(r StrayReply) {
	for _, v := range h.stray {
		func() {
			defer h.contain()
			v.OnStrayReply(r)
		}()
	}
}

func (h hooks) onServed(s Served) {
	for _, v := range h.served {
		func() {
			defer h.contain()
			v.OnServed(s)
		}()
	}
}

func (h hooks) onForgottenEarly(left time.Duration) {
	for _, v := range h.forgot {
		func() {
			defer h.contain()
			v.OnForgottenEarly(left)
		}()
	}
}

func (h hooks) onReplyQueue(url string) {
	for _, v := range h.queue {
		func() {
			defer h.contain()
			v.OnReplyQueue(url)
		}()
	}
}
