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

// confirmed: the queue was missing twice, at least missingConfirm apart.
func (s goneSince) confirmed() bool { return s.latest.Sub(s.first) >= missingConfirm }

const (
	// missingRetry is after how long a reply is sent again whose queue was not found.
	missingRetry = missingConfirm / 4
	// maxGone and goneMemory bound what is remembered.
	maxGone    = 1024
	goneMemory = 10 * time.Minute
)

// missing notes that a native requester's reply found no queue, and reports whether that is confirmed.
func (g *goneRequesters) missing(url string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since == nil {
		g.since = map[string]goneSince{}
	}
	s, known := g.since[url]
	if !known {
		if len(g.since) >= maxGone {
			g.forget(now)
		}
		s.first = now
	}
	s.latest = now
	g.since[url] = s
	g.some.Store(true)
	return s.confirmed()
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

// confirmed reports whether the queue is gone: it was missing for longer than a new queue may be at first.
func (g *goneRequesters) confirmed(url string, now time.Time) bool {
	if !g.some.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.since[url]
	return ok && s.confirmed() && now.Sub(s.latest) <= goneMemory
}
