package rpcclient

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// gapGrace is how long the missing frame of a stream is awaited, while there is room for it, once the
// stream's end has come, or one too far ahead to be taken in: three times what a receive whose answer was
// lost keeps its messages hidden.
const gapGrace = 3 * replyVisibility

// Stream sends req and ranges over the replies of the method, which HandleStream answers, in the order
// in which they were sent. A method with one reply is a stream of one.
//
// The call begins with the range, and blocks in it as Call does; all replies share its deadline. An
// error, an *Error, is the last thing it yields. When it ended with less than everything, because frames
// were lost or the responder was, its chain has an *Incomplete: what was yielded until then is in order
// and without a gap. Leaving the loop ends the call; the responder goes on until its context ends.
//
// Up to 1,024 replies and about 4 MiB wait for a slow loop in memory, and the rest in the reply queue,
// which is not polled meanwhile unless other calls are pending. SQS has no credit to give a responder: it
// sends as fast as SQS accepts, however slow the loop is. The loop is left with DeadlineExceeded or
// Canceled as soon as the deadline or the context has ended, whatever waits.
func (m Method[Req, Rep]) Stream(ctx context.Context, ch *Channel, req Req, opts ...CallOption) iter.Seq2[Rep, error] {
	return func(yield func(Rep, error) bool) {
		o := m.newOutgoing(ctx, ch, KindStream, opts)
		o.Request = req
		// An interceptor that loses receive's error, or does not wait for next, must not go on in a loop that is over.
		var mu sync.Mutex
		stopped := false
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			stopped = true
		}()
		err := o.invoke(ctx, func(reply any) error {
			mu.Lock()
			defer mu.Unlock()
			if stopped {
				return ErrStopped
			}
			rep, ok := reply.(Rep)
			if !ok && reply != nil {
				return Errorf(Internal, "an interceptor returned a reply of type %T", reply)
			}
			stopped = true // should the loop's body panic
			if stopped = !yield(rep, nil); stopped {
				return ErrStopped
			}
			return nil
		})
		mu.Lock()
		over := stopped
		mu.Unlock()
		if err != nil && !over {
			var none Rep
			yield(none, err)
		}
	}
}

// stream hands on the frames of an attempt as they come, and ends with their end.
func (c *call) stream(ctx context.Context, timeout <-chan time.Time, o *OutgoingCall, receive func(reply any) error) *Error {
	received := 0
	// incomplete says how far the stream got, in the chain of what ended it.
	incomplete := func(e *Error) *Error {
		if received == 0 && !o.received {
			return e
		}
		e.Outcome = Executed // some of it, at least
		e.cause = errors.Join(e.cause, &Incomplete{Received: received, Expected: c.frames.expected()})
		return e
	}
	// Whatever ends the loop, a panic in its body too: the call is over, and no copy of it may follow.
	defer func() {
		c.requester.remove(c)
		_, _ = c.abandon()
	}()
	var gap *time.Timer
	var gapOver <-chan time.Time
	defer func() {
		if gap != nil {
			gap.Stop()
		}
	}()
	for {
		f, ok, missing, broken := c.frames.take()
		if ok {
			gapOver = nil
			if received == 0 {
				// The attempt that sent the request may be under way: should it end without certainty, no copy
				// may follow.
				_, _ = c.abandon()
			}
			o.received = o.received || !f.refusal()
			if !f.last() && (ctx.Err() != nil || !time.Now().Before(c.deadline)) {
				return incomplete(c.givenUp(ctx))
			}
			over, e := c.frame(&f, o, receive, &received)
			if over || e != nil {
				c.requester.remove(c)
				return e
			}
			continue
		}
		if broken != nil {
			c.requester.remove(c)
			o.received = true
			e := c.failure(broken.code, MaybeExecuted, broken.cause, "the stream broke off after %d replies: %v", received, broken.cause)
			return incomplete(e)
		}
		if missing && gapOver == nil {
			if gap != nil {
				gap.Stop()
			}
			gap = time.NewTimer(gapGrace)
			gapOver = gap.C
		}
		select {
		case <-c.frames.wake:
			continue
		case a := <-c.done: // nobody else removes a stream's call for good
			return incomplete(a.err)
		case <-gapOver:
			c.requester.remove(c)
			o.received = true
			return incomplete(c.failure(DataLoss, Executed, errFramesLost, "the stream broke off after %d replies: %v", received, errFramesLost))
		case <-ctx.Done():
		case <-timeout:
		}
		if !c.requester.remove(c) {
			return incomplete((<-c.done).err)
		}
		return incomplete(c.givenUp(ctx))
	}
}

// refusal reports whether a frame says that no handler ran.
func (f *frame) refusal() bool { return f.env.Code != OK && f.env.Rejected && f.env.Run == "" }

// last reports whether a frame ends its stream and carries no reply.
func (f *frame) last() bool { return f.env.Code != OK || f.env.End > 0 && f.env.Run != "" }

// frame hands on one frame in its turn. over: it was the last.
func (c *call) frame(f *frame, o *OutgoingCall, receive func(reply any) error, received *int) (over bool, e *Error) {
	o.addReplyMetadata(joinTrace(f.env.Metadata, f.trace))
	if f.env.Code != OK {
		e := c.remoteError(&f.env)
		if *received > 0 || f.env.Run != "" {
			e.Outcome = Executed
		}
		return true, e
	}
	if f.env.End > 0 && f.env.Run != "" {
		return true, nil
	}
	payload, err := decodeBody(f.body, f.env.Encoding)
	var reply any
	if err == nil {
		reply, err = o.decode(payload)
	}
	if err != nil {
		return true, c.failure(Internal, Executed, err, "decode reply %d: %v", *received, err)
	}
	*received++
	if err := receive(reply); err != nil {
		return true, c.failure(CodeOf(err), Executed, err, "%v", err)
	}
	return f.env.End > 0, nil
}
