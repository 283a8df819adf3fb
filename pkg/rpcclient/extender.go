package rpcclient

import (
	"context"
	"slices"
	"sync"
	"time"
)

// extender keeps requests hidden until they are settled: it renews at six tenths of the visibility, what
// is due together in one request, and past the request's deadline, after which nobody should handle it, only by what
// its delete may take. What fails is tried again each tenth.
type extender struct {
	settler    *settler
	visibility time.Duration

	mu     sync.Mutex
	held   map[*heldRequest]struct{}
	timer  *time.Timer
	at     time.Time // when the timer is due
	closed bool
	wg     sync.WaitGroup
}

type heldRequest struct {
	copies   func() []messageCopy // those that are not settled
	deadline time.Time
	due      time.Time
	refused  []string             // handles that SQS refuses: deleted, or received anew
	until    map[string]time.Time // until when, by SQS's clock, handles are hidden that were extended; zero: not known
	claim    func() error         // renews its claim in the reply store; nil: there is none
}

func newExtender(s *settler, visibility time.Duration) *extender {
	return &extender{settler: s, visibility: visibility, held: map[*heldRequest]struct{}{}}
}

// renewAfter is when a message that was just hidden is hidden again.
func (x *extender) renewAfter() time.Duration { return x.visibility * 6 / 10 }

// retryAfter is when a renewal that failed is made again, and how much earlier than need be one is made to
// go with others.
func (x *extender) retryAfter() time.Duration { return x.visibility / 10 }

// deleteWithin is what a delete takes that waits for company: what is settled at its deadline stays hidden for it.
const deleteWithin = time.Second

// hiddenFor is for how long a request is hidden at now.
func (x *extender) hiddenFor(h *heldRequest, now time.Time) time.Duration {
	return min(x.visibility, h.deadline.Sub(now)+x.settler.linger+deleteWithin)
}

// hold starts to extend a request that SQS gave out at given, by this machine's clock.
func (x *extender) hold(copies func() []messageCopy, given, deadline time.Time) *heldRequest {
	h := &heldRequest{copies: copies, deadline: deadline, due: given.Add(x.renewAfter())}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held[h] = struct{}{}
	switch {
	case x.closed:
	case x.timer == nil:
		x.arm(h.due)
	case h.due.Before(x.at.Add(-x.retryAfter())): // its answer was late
		x.schedule(time.Now())
	}
	return h
}

// release ends the extension. h may be nil.
func (x *extender) release(h *heldRequest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.held, h)
}

// adopt changes what an extension is of, and until when it goes on.
func (x *extender) adopt(h *heldRequest, copies func() []messageCopy, deadline time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h.copies, h.deadline = copies, deadline
	x.schedule(time.Now())
}

// prolong lets the extension go on until deadline at least.
func (x *extender) prolong(h *heldRequest, deadline time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if deadline.After(h.deadline) {
		h.deadline = deadline
		x.schedule(time.Now())
	}
}

// renewClaim has a claim renewed with the visibility.
func (x *extender) renewClaim(h *heldRequest, renew func() error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h.claim = renew
}

// arm is called with the lock held and no timer set.
func (x *extender) arm(at time.Time) {
	x.wg.Add(1)
	x.at = at
	x.timer = time.AfterFunc(time.Until(at), func() {
		defer x.wg.Done()
		x.renew()
	})
}

// schedule sees to it that the timer is due when the next renewal is. It is called with the lock held.
func (x *extender) schedule(now time.Time) {
	var next time.Time
	for h := range x.held {
		if now.Before(h.deadline) && (next.IsZero() || h.due.Before(next)) {
			next = h.due
		}
	}
	if next.IsZero() || x.closed {
		return
	}
	if soonest := now.Add(x.retryAfter()); next.Before(soonest) {
		next = soonest
	}
	if x.timer != nil {
		if !next.Before(x.at) || !x.timer.Stop() { // one that has fired schedules the next itself
			return
		}
		x.wg.Done()
	}
	x.arm(next)
}

// extension is one handle to extend.
type extension struct {
	of     *heldRequest
	copy   messageCopy
	change visibilityChange
}

// renew extends what is due, or will be soon.
func (x *extender) renew() {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.timer = nil
	if x.closed {
		return
	}
	var due []extension
	for h := range x.held {
		if h.due.After(now.Add(x.retryAfter())) || !now.Before(h.deadline) {
			continue
		}
		h.due = now.Add(x.renewAfter())
		if h.claim != nil {
			x.wg.Go(func() {
				if h.claim() != nil {
					x.failed(h)
				}
			})
		}
		for _, c := range h.copies() {
			if !slices.Contains(h.refused, c.handle) {
				due = append(due, extension{h, c, visibilityChange{handle: c.handle, d: x.hiddenFor(h, now)}})
			}
		}
	}
	for part := range slices.Chunk(due, maxBatch) {
		x.wg.Go(func() { x.extend(part) })
	}
	x.schedule(now)
}

// extend renews at most a batch.
func (x *extender) extend(part []extension) {
	changes := make([]visibilityChange, len(part))
	for i := range part {
		changes[i] = part[i].change
	}
	// One that is lost in the network must leave time for another.
	ctx, cancel := context.WithTimeout(x.settler.ctx, 2*x.retryAfter())
	defer cancel()
	started := time.Now()
	refused, failed, date := x.settler.changeBatch(ctx, changes)
	took := time.Since(started)
	for _, i := range failed {
		x.failed(part[i].of)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range refused {
		part[i].of.refused = append(part[i].of.refused, changes[i].handle)
	}
	for i := range part {
		if slices.Contains(refused, i) || slices.Contains(failed, i) {
			continue
		}
		var until time.Time // of what came too late, another may have it
		if x.hiddenAt(part[i].of, part[i].copy, date) {
			until = date.Add(changes[i].d - took)
		}
		if part[i].of.until == nil {
			part[i].of.until = map[string]time.Time{}
		}
		part[i].of.until[changes[i].handle] = until
	}
}

// hidden reports whether a copy had been hidden without a break, from when SQS gave it out, when SQS answered with
// the Date date.
func (x *extender) hidden(h *heldRequest, c messageCopy, date time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.hiddenAt(h, c, date)
}

// hiddenAt is hidden, with the lock held. Only SQS's clock is asked: how long the answer that brought the copy took,
// or this process was stopped, nobody here can tell. A Date lacks what is left of its second; a tenth of the
// visibility is left for how well SQS's clocks agree.
func (x *extender) hiddenAt(h *heldRequest, c messageCopy, date time.Time) bool {
	until, extended := h.until[c.handle]
	if !extended && !c.given.IsZero() {
		until = c.given.Add(x.visibility)
	}
	return !date.IsZero() && !until.IsZero() && date.Add(time.Second).Before(until.Add(-x.visibility/10))
}

// failed has a renewal made again soon.
func (x *extender) failed(h *heldRequest) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if soon := now.Add(x.retryAfter()); soon.Before(h.due) {
		h.due = soon
		x.schedule(now)
	}
}

// close stops extending and waits for a renewal under way.
func (x *extender) close() {
	x.mu.Lock()
	x.closed = true
	if x.timer != nil && x.timer.Stop() {
		x.timer = nil
		x.wg.Done()
	}
	x.mu.Unlock()
	x.wg.Wait()
}
