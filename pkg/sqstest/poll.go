package sqstest

import "context"

// waiter is a long poll that found nothing yet.
type waiter struct {
	ctx        context.Context //nolint:containedctx // the poll's own: whoever hands out a message must not hand it to one that is gone
	limit      int
	visibility int64
	attempt    string
	answers    chan polled // holds the one answer that a waiter gets
	waiting    bool        // in the queue's list

	next, prev *waiter
}

type polled struct {
	deliveries []delivery
	err        *apiError
}

// answer ends the wait. The waiter must have left its list.
func (w *waiter) answer(p polled) { w.answers <- p }

// waiterList is the long polls of a queue, longest waiting first.
type waiterList struct {
	head, tail *waiter
	len        int
}

func (l *waiterList) push(w *waiter) {
	w.waiting = true
	w.prev, w.next = l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.len++
}

func (l *waiterList) remove(w *waiter) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
	w.waiting = false
	l.len--
}

func (l *waiterList) pop() *waiter {
	w := l.head
	if w != nil {
		l.remove(w)
	}
	return w
}

// receive is what ReceiveMessage does. It blocks for up to wait while there is nothing, without taking anything when ctx
// ends first. What comes with an error left for a client that was gone by then.
func (q *queue) receive(ctx context.Context, limit int, visibility, wait int64, attempt string) ([]delivery, *apiError) {
	now, apiErr := q.lock()
	if apiErr != nil {
		return nil, apiErr
	}
	if visibility < 0 {
		visibility = int64(q.settings.visibility) * 1000
	}
	if wait < 0 {
		wait = int64(q.settings.wait) * 1000
	}
	if q.fifo == nil {
		attempt = ""
	}
	// Nothing is taken for a client that hung up before its request was looked at. This is asked under the lock: whoever
	// hangs up, and only then sends a message, does not lose it to the request before.
	if isGone(ctx) {
		q.unlock()
		return nil, errAborted()
	}
	if attempt != "" {
		if again, err := q.replay(attempt, limit, visibility, now); err != nil || len(again) > 0 {
			q.unlock()
			return again, err
		}
		q.takeOver(attempt)
	}
	found := q.take(limit, visibility, now)
	if len(found) > 0 || wait == 0 {
		if len(found) > 0 && attempt != "" {
			q.remember(attempt, found, now)
		}
		// A short poll is told of a full queue; a long poll gets nothing, a FIFO queue says nothing (SQS quotas, developer guide).
		full := q.fifo == nil && q.inFlight >= maxInFlight
		q.unlock()
		if full && len(found) == 0 {
			return nil, errOverLimit("Too many messages in flight on queue %s: the limit is %d.", q.key.name, maxInFlight)
		}
		return found, nil
	}
	if q.server.closed.Load() {
		// Close has set this before it looked at this queue's polls, or will find the one below.
		q.unlock()
		return nil, errAborted()
	}
	limit = q.server.faults.wakeUp(q.key.name, limit)
	w := &waiter{ctx: ctx, limit: limit, visibility: visibility, attempt: attempt, answers: make(chan polled, 1)}
	q.waiters.push(w)
	end := q.server.clock.AfterFunc(millis(wait), func() { q.giveUp(w) })
	q.unlock()
	defer end.Stop()

	select {
	case p := <-w.answers:
		if isGone(ctx) {
			return q.abandon(p), errAborted()
		}
		return p.deliveries, p.err
	case <-ctx.Done():
		q.mu.Lock()
		if w.waiting {
			q.leave(w)
			q.unlock()
			return nil, errAborted()
		}
		q.mu.Unlock()
		return q.abandon(<-w.answers), errAborted()
	}
}

// takeOver ends the poll of an attempt that is being made again while it waits: its client has given it up, and what comes
// is for the new one.
func (q *queue) takeOver(attempt string) {
	for w := q.waiters.head; w != nil; w = w.next {
		if w.attempt == attempt {
			q.waiters.remove(w)
			w.answer(polled{})
			return
		}
	}
}

// giveUp answers a long poll with nothing when its time is over.
func (q *queue) giveUp(w *waiter) {
	q.mu.Lock()
	if !w.waiting {
		q.mu.Unlock()
		return
	}
	if !q.deleted {
		q.settle(q.server.millis()) // what becomes visible in the last moment still counts
	}
	if w.waiting {
		q.waiters.remove(w)
		w.answer(polled{})
	}
	q.unlock()
}

// leave ends a poll that still waits when its client goes, or lets it wait on without one: see AbandonPoll.
func (q *queue) leave(w *waiter) {
	d := q.server.faults.lingers(q.key.name)
	if d == 0 {
		q.waiters.remove(w)
		return
	}
	w.ctx = context.WithoutCancel(w.ctx)
	q.server.after(d, func() { q.giveUp(w) })
}

// abandon deals with messages that were chosen for a poll whose client had gone by then: they are as before, unless the
// fault plan wants what AWS does, which is to leave them hidden until their visibility timeout has passed. Those are
// returned.
func (q *queue) abandon(p polled) []delivery {
	if len(p.deliveries) == 0 || q.server.faults.keepsAbandoned(q.key.name) {
		return p.deliveries
	}
	if _, err := q.lock(); err != nil {
		return nil
	}
	q.putBack(p.deliveries)
	q.unlock()
	return nil
}

// serve gives what is ready to those who wait. One message wakes one poll: the one that has waited longest and still has
// a client.
func (q *queue) serve(now int64) {
	for q.waiters.len > 0 && q.anyReady() {
		w := q.waiters.head
		if w.ctx.Err() != nil {
			q.waiters.remove(w)
			w.answer(polled{})
			continue
		}
		found := q.take(w.limit, w.visibility, now)
		if len(found) == 0 {
			return // all of it was for the dead-letter queue, or too much is in flight
		}
		if w.attempt != "" {
			q.remember(w.attempt, found, now)
		}
		q.waiters.remove(w)
		w.answer(polled{deliveries: found})
	}
}

func (q *queue) anyReady() bool {
	if q.fifo != nil {
		return q.fifo.ready.len() > 0
	}
	return !q.fair.empty()
}
