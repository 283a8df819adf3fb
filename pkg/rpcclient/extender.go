package rpcclient

import (
	"context"
	"slices"
	"sync"
	"time"
)

// extender keeps requests hidden until they are settled: it renews at six tenths of the visibility, what
// is due together in one request, and never past the request's deadline, after which nobody should handle
// it. What fails is tried again each tenth.
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
	handles  func() []string // the receipt handles of all its copies
	deadline time.Time
	due      time.Time
	refused  []string             // handles that SQS refuses: deleted, or received anew
	until    map[string]time.Time // until when handles are hidden that were extended
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

// hold starts to extend a request that was received just now.
func (x *extender) hold(handles func() []string, deadline time.Time) *heldRequest {
	h := &heldRequest{handles: handles, deadline: deadline, due: time.Now().Add(x.renewAfter())}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held[h] = struct{}{}
	if x.timer == nil && !x.closed {
		x.arm(h.due)
	}
	return h
}

// release ends the extension. h may be nil.
func (x *extender) release(h *heldRequest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.held, h)
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
		for _, handle := range h.handles() {
			if !slices.Contains(h.refused, handle) {
				due = append(due, extension{h, visibilityChange{handle: handle, d: min(x.visibility, h.deadline.Sub(now))}})
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
	refused, failed := x.settler.changeBatch(ctx, changes)
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
		h := part[i].of
		if h.until == nil {
			h.until = map[string]time.Time{}
		}
		h.until[changes[i].handle] = started.Add(changes[i].d)
	}
}

// hidden reports whether a copy has been hidden all the time since it was received. A tenth of the visibility is
// left for what the messages took to arrive.
func (x *extender) hidden(h *heldRequest, c messageCopy) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	until := c.hidden
	if extended := h.until[c.handle]; extended.After(until) {
		until = extended
	}
	return time.Now().Before(until.Add(-x.visibility / 10))
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
