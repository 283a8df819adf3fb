package rpcclient

import (
	"sync"
	"time"
)

// extender keeps requests hidden while their handlers run: it renews at six tenths of the visibility,
// what is due together in one request, and never past the request's deadline, after which nobody
// should handle it.
type extender struct {
	settler    *settler
	visibility time.Duration

	mu     sync.Mutex
	held   map[*heldRequest]struct{}
	timer  *time.Timer
	closed bool
	wg     sync.WaitGroup
}

type heldRequest struct {
	handle   func() string // the latest receipt handle
	deadline time.Time
	due      time.Time
}

func newExtender(s *settler, visibility time.Duration) *extender {
	return &extender{settler: s, visibility: visibility, held: map[*heldRequest]struct{}{}}
}

// renewAfter is when a message that was just hidden is hidden again.
func (x *extender) renewAfter() time.Duration { return x.visibility * 6 / 10 }

// hold starts to extend a request that was received just now.
func (x *extender) hold(handle func() string, deadline time.Time) *heldRequest {
	h := &heldRequest{handle: handle, deadline: deadline, due: time.Now().Add(x.renewAfter())}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held[h] = struct{}{}
	if x.timer == nil && !x.closed {
		x.arm(x.renewAfter())
	}
	return h
}

// release ends the extension.
func (x *extender) release(h *heldRequest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.held, h)
}

// arm is called with the lock held.
func (x *extender) arm(d time.Duration) {
	x.wg.Add(1)
	x.timer = time.AfterFunc(d, func() {
		defer x.wg.Done()
		x.renew()
	})
}

// renew extends what is due, or will be within a tenth of the visibility.
func (x *extender) renew() {
	now := time.Now()
	var due []*heldRequest
	x.mu.Lock()
	for h := range x.held {
		if !h.due.After(now.Add(x.visibility/10)) && now.Before(h.deadline) {
			due = append(due, h)
			h.due = now.Add(x.renewAfter())
		}
	}
	x.mu.Unlock()

	changes := make([]visibilityChange, len(due))
	for i, h := range due {
		changes[i] = visibilityChange{handle: h.handle(), d: min(x.visibility, h.deadline.Sub(now))}
	}
	refused := x.settler.changeVisibility(changes)

	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range refused {
		delete(x.held, due[i]) // no longer ours: it was deleted, or its time is over
	}
	x.timer = nil
	if len(x.held) == 0 || x.closed {
		return
	}
	next := x.renewAfter()
	for h := range x.held {
		if now.Before(h.deadline) {
			next = min(next, h.due.Sub(now))
		}
	}
	x.arm(max(next, x.visibility/10))
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
