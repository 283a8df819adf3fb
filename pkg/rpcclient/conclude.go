package rpcclient

import (
	"errors"
	"slices"
	"time"
)

// conclude settles a request by the table.
func (s *channelServer) conclude(q *request, situation Situation, payload []byte, err error, took time.Duration) {
	r := s.r
	var reply replyContent
	if situation == Succeeded {
		reply = answerContent(q, payload)
		if reply.bytes()+r.cfg.reserve > maxSQSBytes {
			situation, err = ReplyTooLarge, &Error{Code: ResourceExhausted, Message: "the reply is over the limit of a message", cause: ErrPayloadTooLarge}
		}
	}
	st := settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies)
	switch situation {
	case BadAddress, Shed, UnknownMethod, Undecodable:
		r.cfg.stats.refused.Add(1)
	case Expired:
		r.cfg.stats.expired.Add(1)
		if errors.Is(err, errSenderClock) {
			s.warnOfClock(q, err)
		}
	}
	if st.reply && st.rejected {
		q.deadline = r.cache.deadline(q.entry, q.deadline)
		s.refuse(q, situation, err, took)
		return
	}
	if !st.reply {
		if q.late {
			s.remember(q, true, replyContent{}, Expired)
		} else {
			s.remember(q, situation == Succeeded, reply, situation)
		}
		copies := r.cache.settleWithoutReply(q.entry, q.copy, situation)
		s.settle(q, copies, st.delete)
		s.served(q, situation, err, took)
		return
	}
	if situation == Succeeded {
		r.cache.finish(q.entry, reply, situation)
	} else {
		reply = r.cache.finishError(q.entry, func(attempt int) replyContent {
			q.answers = attempt
			return errorContent(q, err, false)
		}, situation)
	}
	s.remember(q, true, reply, situation)
	// The call may have been made again meanwhile, under the same identifier: who waits now is answered, as are those who ask
	// later.
	q.deadline = r.cache.deadline(q.entry, q.deadline)
	if q.late && q.peer == PeerNative && !time.Now().Before(q.deadline) {
		r.cfg.stats.expired.Add(1)
		s.settle(q, r.cache.takeCopies(q.entry, q.copy), true)
		s.served(q, Expired, errDeadline, took)
		return
	}
	s.send(q, reply, situation, err, took)
}

// sparesCopies reports whether what joined a request may be received once more without becoming dead letters.
func (s *channelServer) sparesCopies(q *request) bool {
	return !s.channel.DeadLetter || !slices.ContainsFunc(s.r.cache.unsettled(q.entry, q.copy), func(c messageCopy) bool {
		return c.id != q.copy.id && c.count >= s.channel.MaxReceiveCount
	})
}

// leaveToCallAgain settles a request whose handler gave up at its deadline, or that had no place until then, while a call that
// was made again under the identifier has time left: that the first was out of time is no answer to it. It is given out anew
// at once, where it may be received once more.
func (s *channelServer) leaveToCallAgain(q *request, took time.Duration) {
	var changes []visibilityChange
	for _, c := range s.r.cache.unsettled(q.entry, q.copy) {
		if c.id != q.copy.id {
			changes = append(changes, visibilityChange{handle: c.handle})
		}
	}
	s.conclude(q, ReplyNotSent, nil, errDeadline, took)
	s.settler.delete(q.copy.handle)
	s.settler.changeVisibility(changes)
}

// clockWarning is how often it is said, per channel, that requests are dropped for their senders' clocks.
const clockWarning = time.Minute

// warnOfClock says it: the sender has no other sign than that its calls are not answered.
func (s *channelServer) warnOfClock(q *request, err error) {
	now, last := time.Now().UnixNano(), s.warnedOfClock.Load()
	if now-last >= int64(clockWarning) && s.warnedOfClock.CompareAndSwap(last, now) {
		s.r.cfg.log.Warn("a request is dropped for its sender's clock; others may be", "channel", s.channel.Name,
			"callID", hashCallID(q.info.id), "replyQueue", q.to.queueURL, "error", err)
	}
}

// send sends a reply and settles its request when SQS has answered.
func (s *channelServer) send(q *request, reply replyContent, situation Situation, err error, took time.Duration) {
	r := s.r
	r.unsettled.Add(1)
	r.slots.replying(1)
	s.hold(q)
	m := &replyMessage{to: q.to, content: reply, reserve: r.cfg.reserve, pack: q.packs, last: q.deleted}
	if q.peer == PeerNative {
		m.deadline = q.deadline
	} else {
		s.extender.prolong(q.held, time.Now().Add(DefaultTimeout)) // which has no deadline that its reply must meet
	}
	m.done = func(sendErr error) {
		defer r.unsettled.Done()
		defer r.slots.replying(-1)
		if sendErr != nil && isMissingQueue(sendErr) && q.peer != PeerNative && !m.failedOver {
			// The Java client keeps a second queue under this name for when the first is lost.
			m.failedOver = true
			m.to.queueURL += failoverSuffix
			s.sendAgain(m)
			return
		}
		if q.deleted && sendErr != nil && !isPermanent(sendErr) && r.work.Err() == nil && time.Now().Before(m.deadline) {
			s.sendAgain(m) // nobody else can say it any more
			return
		}
		waits, sendErr := s.notFoundYet(q, m, sendErr, func() { s.sendAgain(m) })
		if waits {
			return
		}
		switch {
		case sendErr == nil:
			r.gone.answered(q.to.queueURL)
			if m.replaced {
				r.cache.replace(q.entry, m.content, situation)
			}
		case isMissingQueue(sendErr):
			situation, err = RequesterGone, sendErr
		case !m.deadline.IsZero() && time.Now().After(m.deadline):
			situation, err = Expired, sendErr
			r.cfg.stats.expired.Add(1)
		case isUnacceptable(sendErr) && !m.replaced && !q.deleted:
			m.replaced = true
			situation, err = ReplyTooLarge, errorOfUnacceptable(sendErr)
			if settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies).reply {
				q.answers = r.cache.attempt(q.entry)
				m.content, m.packed = errorContent(q, err, false), ""
				s.sendAgain(m)
				return
			}
		default:
			situation, err = ReplyNotSent, sendErr
		}
		st := settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies)
		s.settle(q, r.cache.takeCopies(q.entry, q.copy), st.delete)
		s.served(q, situation, err, took)
	}
	m.out.message = m
	if to := r.replies.to(m.to.queueURL); q.deleted || !to.jammed() {
		to.add(&m.out)
	} else {
		m.done(errJammed)
	}
}

// sendAgain sends a reply anew, from its end.
func (s *channelServer) sendAgain(m *replyMessage) {
	r := s.r
	m.out = outgoing{message: m}
	r.unsettled.Add(1)
	r.slots.replying(1)
	r.replies.to(m.to.queueURL).add(&m.out)
}

// settle deletes a request's copies or leaves them in the queue, and lets go of them.
func (s *channelServer) settle(q *request, copies []messageCopy, remove bool) {
	defer s.extender.release(q.held)
	if q.deleted {
		return
	}
	if !remove {
		s.r.cfg.stats.left.Add(int64(len(copies)))
		if q.from != nil {
			q.from.left.Store(true)
		}
		return
	}
	for _, c := range copies {
		s.settler.delete(c.handle)
	}
}

func (s *channelServer) served(q *request, situation Situation, err error, took time.Duration) {
	if len(s.r.hooks.served) == 0 {
		return
	}
	e := Served{
		Channel: s.channel.Name, QueueURL: s.channel.URL, Method: q.method, Registered: q.info.Registered, Peer: q.peer,
		Attempt: q.info.Attempt, ReceiveCount: q.info.ReceiveCount, Age: q.info.Age,
		Replies: q.sent, Situation: situation, Took: took, Err: err,
	}
	if q.run == "" && situation == Succeeded && q.peer != PeerOneWay {
		e.Replies = 1
	}
	if q.info.id != "" {
		e.CallID = hashCallID(q.info.id)
	}
	s.r.hooks.onServed(e)
}
