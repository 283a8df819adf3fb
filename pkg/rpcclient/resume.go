package rpcclient

import (
	"context"
	"time"
)

const (
	// maxHeld and maxHeldBytes bound the replies held for Resume; further ones are treated as those of
	// another process.
	maxHeld      = 4096
	maxHeldBytes = 16 << 20
)

// WithHeldReplies holds replies for which no call is pending until Resume asks for them, each for grace
// from when it was first seen, instead of dropping those that are old; for requesters. 0: none, the default. It
// is for reply hosts with a Stable identity, where a restarted process reads its predecessor's queue; rpcenv
// turns it on there. Held replies stay in the queue, hidden for 2 to 30 s at a time, so that they survive another
// restart.
func WithHeldReplies(grace time.Duration) Option { return func(c *config) { c.heldGrace = grace } }

// Resume waits for the reply to a call that was made WithCallID, by this process or an earlier one with
// the same reply queue (a Stable identity), and sends nothing. It blocks as Call does. Its deadline is
// its own: nobody knows the call's. Without a reply by then, or when it fails before, the outcome is MaybeExecuted: the
// request may never have been sent, or have been executed. Making the call again with the same identifier is safe while the responder keeps
// its answer.
//
// Give the requester WithHeldReplies, or replies that come before Resume may be dropped. Streams cannot
// be resumed.
func (m Method[Req, Rep]) Resume(ctx context.Context, ch *Channel, callID string, opts ...CallOption) (Rep, error) {
	o := m.newOutgoing(ctx, ch, KindCall, opts)
	o.id, o.resumed = callID, true
	o.progress.outcome = MaybeExecuted
	return m.one(ctx, o)
}

// heldReplies are replies that came for no pending call, and identifiers whose reply was taken. The
// requester's lock guards them.
type heldReplies struct {
	replies  map[string]*heldReply
	bytes    int
	answered map[string]time.Time // when; identifiers that applications chose
}

type heldReply struct {
	answer answer
	queue  *replyQueue
	handle string // "" in a pack, which holds others too
	first  time.Time
}

func (h *heldReply) size() int { return len(h.answer.body) + len(h.answer.envelope) + 256 }

// hold keeps a reply for Resume, and reports whether it did. It is called with the requester's lock held.
func (h *heldReplies) hold(id string, a answer, q *replyQueue, handle string, grace time.Duration, now time.Time) bool {
	if old, ok := h.replies[id]; ok {
		old.handle, old.queue = handle, q
		if now.Sub(old.first) < grace {
			return true
		}
		h.drop(id)
		return false
	}
	n := &heldReply{answer: a, queue: q, handle: handle, first: now}
	if len(h.replies) >= maxHeld || h.bytes+n.size() > maxHeldBytes {
		for other, r := range h.replies { // those whose messages came no more
			if now.Sub(r.first) >= grace {
				h.drop(other)
			}
		}
		if len(h.replies) >= maxHeld || h.bytes+n.size() > maxHeldBytes {
			return false
		}
	}
	if h.replies == nil {
		h.replies = map[string]*heldReply{}
	}
	h.replies[id] = n
	h.bytes += n.size()
	return true
}

func (h *heldReplies) drop(id string) {
	h.bytes -= h.replies[id].size()
	delete(h.replies, id)
}

// take removes and returns a reply that is held.
func (h *heldReplies) take(id string, now time.Time) (*heldReply, bool) {
	r, ok := h.replies[id]
	if ok {
		h.drop(id)
		h.note(id, now)
	}
	return r, ok
}

// note remembers that an identifier has its reply, so that copies of it are known.
func (h *heldReplies) note(id string, now time.Time) {
	if h.answered == nil {
		h.answered = map[string]time.Time{}
	}
	if len(h.answered) >= maxHeld {
		h.forget(now)
	}
	h.answered[id] = now
}

// forget makes room: what is over an hour old, or else anything.
func (h *heldReplies) forget(now time.Time) {
	for id, at := range h.answered {
		if now.Sub(at) > time.Hour || len(h.answered) >= maxHeld {
			delete(h.answered, id)
		}
	}
}

// wasAnswered reports whether an identifier had its reply already.
func (h *heldReplies) wasAnswered(id string) bool {
	_, ok := h.answered[id]
	return ok
}
