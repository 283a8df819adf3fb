package rpcclient

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// execution is one run of a request's handler, as far as it got.
type execution struct {
	stream  *frameSender // of a streaming handler
	payload []byte
	err     error
	panic   any // what the handler, its codec or its error's methods panicked with; nil: nothing
	stack   []byte
	whole   bool // the handler returned, or panicked; otherwise it ended its goroutine
	cutOff  bool // its error is that the request's deadline was over
	took    time.Duration
}

// run calls the handler and settles.
func (s *channelServer) run(q *request) {
	r := s.r
	ctx, cancel := context.WithDeadlineCause(r.work, q.deadline, errDeadline)
	defer cancel()
	ctx = context.WithValue(ctx, servingKey{}, &q.serving)
	if l := q.handler.limit; l != nil {
		entered, retryAfter := l.enter(ctx)
		if !entered {
			s.turnedAway(q, retryAfter)
			return
		}
	}
	x := &execution{}
	started := time.Now()
	// Deferred, since a handler that calls runtime.Goexit returns to nobody.
	defer func() {
		x.took = time.Since(started)
		if q.handler.limit != nil {
			q.handler.limit.leave(x.took)
		}
		s.ended(q, x)
	}()
	if q.handler.stream {
		x.stream = newFrameSender(s, q)
	}
	s.roused(q.from)
	x.run(ctx, q)
}

// run calls the handler. Whatever is the application's is called here, where panics are contained: the
// methods of an error too.
func (x *execution) run(ctx context.Context, q *request) {
	defer func() {
		if p := recover(); p != nil {
			x.whole, x.panic, x.stack = true, p, debug.Stack()
		}
	}()
	if x.stream != nil {
		x.err = x.stream.run(ctx)
	} else {
		x.payload, x.err = q.handler.answer(ctx, &q.info, q.payload)
	}
	if isNil(x.err) {
		x.err = nil
	}
	if x.err != nil {
		code := asError(x.err).Code
		x.cutOff = errors.Is(ctx.Err(), context.DeadlineExceeded) && (code == DeadlineExceeded || isTimeout(x.err))
	}
	x.whole = true
}

// isTimeout reports whether an error calls itself one, as those of connections do.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

var errExited = errors.New("the handler ended its goroutine")

// ended settles what was run.
func (s *channelServer) ended(q *request, x *execution) {
	r := s.r
	situation, err := Succeeded, x.err
	switch {
	case x.panic != nil:
		situation, err = Panicked, Errorf(Internal, "the handler panicked")
		r.cfg.log.Error("handler panicked", "channel", s.channel.Name, "method", q.method, "callID", hashCallID(q.info.id),
			"panic", x.panic, "stack", string(x.stack))
	case !x.whole:
		situation, err = Panicked, Errorf(Internal, "%w", errExited)
		r.cfg.log.Error("handler ended its goroutine", "channel", s.channel.Name, "method", q.method, "callID", hashCallID(q.info.id))
	case err != nil && r.work.Err() != nil: // it was cut off, and says so in its own words
		situation = ReplyNotSent
	case err != nil:
		situation = HandlerFailed
		if errors.As(err, new(*undecodable)) {
			situation = Undecodable
			err = Errorf(InvalidArgument, "%w", err)
		}
	}
	if situation != Undecodable {
		r.cfg.stats.served.Add(1)
	}
	if x.cutOff && q.sent == 0 {
		if time.Now().Add(clockAgreement).Before(r.cache.madeAgain(q.entry)) && s.sparesCopies(q) {
			s.leaveToCallAgain(q, x.took)
			return
		}
		r.cache.cutOff(q.entry)
	}
	// What is left of a deadline is estimated too long rather than too short. But it was run: a copy of which more seems to
	// be left must not be.
	if q.native && !time.Now().Before(q.deadline) && (q.peer == PeerNative || situation != Succeeded) {
		q.late = true
		switch {
		case q.peer != PeerNative: // there is nobody to tell what came of it
			r.cache.finish(q.entry, replyContent{}, Expired)
		case situation == ReplyNotSent: // it was not cut off too soon
			situation, err = HandlerFailed, errDeadline
		}
	}
	if x.stream != nil && situation != Undecodable {
		if broken := x.stream.failure(); broken != nil {
			// Without every frame its end must not be sent: a redelivery is another run.
			situation, err = ReplyNotSent, broken
			switch {
			case isMissingQueue(broken):
				situation = RequesterGone
			case isUnacceptable(broken): // nor would SQS take it of another run
				situation, err = ReplyTooLarge, errorOfUnacceptable(broken)
				x.stream.endAtRefused()
			case q.late && q.peer == PeerNative: // nor is there another run
				situation, err = HandlerFailed, errDeadline
			}
		}
	}
	s.conclude(q, situation, x.payload, err, x.took)
}

// turnedAway settles a request whose method had no place for it: shed, or out of time.
func (s *channelServer) turnedAway(q *request, retryAfter time.Duration) {
	r := s.r
	switch {
	case retryAfter > 0:
		s.conclude(q, Shed, nil, &Error{Code: Unavailable, Message: errMethodBusy.Error(), RetryAfter: retryAfter, cause: errMethodBusy}, 0)
	case time.Now().Before(q.deadline): // cut off
		s.conclude(q, ReplyNotSent, nil, ErrClosed, 0)
	case !time.Now().Before(r.cache.deadline(q.entry, q.deadline)):
		s.conclude(q, Expired, nil, errDeadline, 0)
	case s.sparesCopies(q):
		s.leaveToCallAgain(q, 0)
	default: // The call that was made again is told to come anew. Another, still in the queue, takes the refusal for its own.
		q.uncertain = true
		s.conclude(q, Shed, nil, &Error{Code: Unavailable, Message: errMethodBusy.Error(), RetryAfter: q.handler.limit.retryAfter(), cause: errMethodBusy}, 0)
	}
}

var errMethodBusy = errors.New("the method has as many requests running and waiting as it may")
