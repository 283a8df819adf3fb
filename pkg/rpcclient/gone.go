package rpcclient

import (
	"sync"
	"sync/atomic"
	"time"
)

// goneRequesters are the reply queues that SQS no longer knows: what their requesters asked for besides
// need not be done. Only native ones, whose queues' names are never used again.
type goneRequesters struct {
	some atomic.Bool // spares the lock while there are none

	mu    sync.Mutex
	since map[string]goneSince
}

type goneSince struct{ first, latest time.Time }

const (
	// maxGone and goneMemory bound what is remembered.
	maxGone    = 1024
	goneMemory = 10 * time.Minute
)

// missing notes that a reply found no queue.
func (g *goneRequesters) missing(q *request, now time.Time) {
	if q.peer != PeerNative {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since == nil {
		g.since = map[string]goneSince{}
	}
	s, known := g.since[q.to.queueURL]
	if !known {
		if len(g.since) >= maxGone {
			g.forget(now)
		}
		s.first = now
	}
	s.latest = now
	g.since[q.to.queueURL] = s
	g.some.Store(true)
}

// forget drops what is old, and if that is nothing, one. It is called with the lock held.
func (g *goneRequesters) forget(now time.Time) {
	for url, s := range g.since {
		if now.Sub(s.latest) > goneMemory || len(g.since) >= maxGone {
			delete(g.since, url)
		}
	}
}

// answered notes that the queue took a reply.
func (g *goneRequesters) answered(url string) {
	if !g.some.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.since, url)
	g.some.Store(len(g.since) > 0)
}

// confirmed reports whether the queue was missing twice, at least missingConfirm apart, as a new queue
// may be at first.
func (g *goneRequesters) confirmed(url string, now time.Time) bool {
	if !g.some.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.since[url]
	return ok && s.latest.Sub(s.first) >= missingConfirm && now.Sub(s.latest) <= goneMemory
}
