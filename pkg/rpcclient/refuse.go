package rpcclient

import (
	"errors"
	"slices"
	"time"
)

var errNotDeleted = errors.New("SQS did not confirm that the refused request is deleted")

// refuse settles a request with a refusal. Its messages are deleted first: the caller may repeat what was
// Rejected, and is told so when no other responder can be given it any more. What SQS does not confirm as deleted
// is left in the queue without a word.
func (s *channelServer) refuse(q *request, situation Situation, err error, took time.Duration) {
	r := s.r
	if r.replies.jammed(q.to.queueURL) { // a refusal whose request is deleted could not be given up
		s.remember(q, false, replyContent{}, situation)
		s.settle(q, r.cache.settleWithoutReply(q.entry, q.copy, ReplyNotSent), false)
		s.served(q, ReplyNotSent, errJammed, took)
		return
	}
	r.unsettled.Add(1)
	r.slots.replying(1)
	s.hold(q)
	if q.peer != PeerNative {
		s.extender.prolong(q.held, time.Now().Add(DefaultTimeout))
	}
	attempt, copies := r.cache.refuse(q.entry, q.copy)
	q.answers = attempt
	s.remember(q, false, replyContent{}, situation)
	handles := make([]string, len(copies))
	for i := range copies {
		handles[i] = copies[i].handle
	}
	known := func() {}
	if s.channel.FIFO && q.from != nil {
		refused := make(chan struct{})
		q.from.refused, known = refused, func() { close(refused) }
	}
	s.settler.confirm(handles, func(deleted bool, date time.Time) {
		defer known()
		defer r.unsettled.Done()
		defer r.slots.replying(-1)
		if !deleted {
			s.settle(q, copies, false)
			s.served(q, ReplyNotSent, errNotDeleted, took)
			return
		}
		q.uncertain = q.uncertain || slices.ContainsFunc(copies, func(c messageCopy) bool { return s.mayBeElsewhere(q, c, date) })
		q.deleted = true
		s.extender.release(q.held)
		s.send(q, errorContent(q, err, true), situation, err, took)
	})
}

// mayBeElsewhere reports whether another responder may have been given a copy that was just deleted: it was
// received before, or it is not known to have been hidden all the time until SQS answered, with the Date date, that
// it is deleted. On a FIFO queue the delete would have failed then.
func (s *channelServer) mayBeElsewhere(q *request, c messageCopy, date time.Time) bool {
	return c.count > 1 || !s.channel.FIFO && !s.extender.hidden(q.held, c, date)
}
