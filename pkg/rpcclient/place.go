package rpcclient

import (
	"context"
	"time"
)

// placePatience is how long a message that was not received before waits for a place where it came when all were taken,
// before it is put back for other responders.
const placePatience = time.Second

// lostInDrain is how little time is left for what a drain may cost a request: as long as a pod's usual grace period.
const lostInDrain = 30 * time.Second

// place waits for a place for the first of messages, in which the others follow it. It has none when its receive had
// lent its places and they are taken. It is kept hidden meanwhile: put back, it would come to the next responder whose
// poll is still under way though its places are taken, and be counted as received each time, up to the dead-letter
// queue. A refusal needs no place. place reports false when the messages are to be put back.
func (s *channelServer) place(messages []*received) bool {
	r, m := s.r, messages[0]
	patience, toOthers := s.waitsBeforePutBack(messages)
	spares := s.sparesReceives(messages, 1)
	began := time.Now()
	for now := began; !m.placed; now = time.Now() {
		q := s.admit(m.message, m.delivery, now)
		if q.refusal != nil {
			m.refusal = q
			return true
		}
		if m.held == nil {
			s.keep(m, q)
		}
		// With one receive left it stays through the drain, unless it would be too late after that: the next responder may be
		// stopped too.
		leaves := toOthers || spares && q.native && q.deadline.Sub(now) < lostInDrain
		var stop <-chan struct{} // without others to have it, it is served in the drain
		if leaves || spares && !r.isStopping() {
			stop = r.stopping
		}
		// It may be refused when it has waited for longer.
		wait, back := maxBudget, patience
		if q.native {
			wait = q.deadline.Sub(now)
			back = min(patience, max(q.deadline.Sub(began)/8, placePatience)) // it is to be in time elsewhere
		}
		if r.cfg.maxQueueAge > 0 {
			if left := r.cfg.maxQueueAge - q.info.Age; left >= 0 {
				wait = min(wait, left)
			}
		}
		if toOthers {
			wait = min(wait, back-now.Sub(began))
		}
		ctx, cancel := context.WithTimeout(r.work, wait+time.Millisecond)
		m.placed = r.slots.acquireFor(ctx, stop)
		cancel()
		switch {
		case m.placed:
		case r.work.Err() != nil, leaves && r.isStopping(), toOthers && time.Since(began) >= back:
			return false
		}
	}
	return true
}

// waitsBeforePutBack is how long messages wait for a place before they are put back, while the responder is not stopping.
// ok is false when they are not, since that might make dead letters of what no handler failed at: two receives are left
// for failures.
//
// Another responder may have a place for what waits here, but the next whose poll is under way may be full as well, and a
// receive is lost. A full one begins no other poll. So the wait doubles with each receive, up to what such polls take.
func (s *channelServer) waitsBeforePutBack(messages []*received) (after time.Duration, ok bool) {
	count := receives(messages)
	if !s.sparesReceives(messages, 2) {
		return 0, false
	}
	if count == 1 {
		return min(placePatience, s.visibility/5), true
	}
	return min(placePatience<<min(count-1, 10), s.r.cfg.receiveWait+placePatience), true
}

// sparesReceives reports whether messages may be received n times more without becoming dead letters.
func (s *channelServer) sparesReceives(messages []*received, n int) bool {
	return !s.channel.DeadLetter || receives(messages)+n <= s.channel.MaxReceiveCount
}

// receives is how often those messages were received at most.
func receives(messages []*received) int {
	count := 1
	for _, m := range messages {
		count = max(count, m.delivery.count)
	}
	return count
}

// keep keeps a message hidden that waits, admitted as q.
func (s *channelServer) keep(m *received, q *request) {
	deadline := q.deadline
	if !q.native || deadline.IsZero() { // its time begins when it is taken up, or it has none
		deadline = m.delivery.local.Add(maxBudget)
	}
	m.held = s.extender.hold(func() []messageCopy { return []messageCopy{q.copy} }, q.given, deadline)
}
