package rpcclient

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// DefaultReceiveWait is the long poll's length: SQS's longest, so that waiting costs least.
	DefaultReceiveWait = 20 * time.Second
	// maxPollers bounds the long polls at one queue.
	maxPollers = 4
	// receiveBackoffLimit bounds the pause after a failed receive.
	receiveBackoffLimit = 2 * time.Second
)

// pollers keeps long polls going at one queue: one at low rate, more while receives come back full.
// A poll that is under way is never cancelled for want of callers: SQS may have chosen messages for it,
// and those would stay hidden until their visibility ends.
type pollers struct {
	// wanted reports whether another poll is worth starting.
	wanted func() bool
	// poll makes one receive and hands its messages on. full: there may be more at once.
	poll func(ctx context.Context) (full bool, err error)
	// ctx ends to abandon polls that no longer matter.
	ctx context.Context
	max int
	log *slog.Logger
	url string

	mu      sync.Mutex
	running int
	wg      sync.WaitGroup
}

// wake starts a poll when none is under way. It is cheap and does not block.
func (p *pollers) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == 0 && p.ctx.Err() == nil && p.wanted() {
		p.start()
	}
}

// start adds a poller. It is called with the lock held.
func (p *pollers) start() {
	p.running++
	first := p.running == 1
	p.wg.Go(func() { p.loop(first) })
}

func (p *pollers) loop(first bool) {
	failures := 0
	for p.again() {
		full, err := p.poll(p.ctx)
		if err == nil && failures > 0 {
			p.log.Info("receiving works again", "queueURL", p.url, "failures", failures)
		}
		switch {
		case err != nil:
			if failures++; failures == 1 && p.ctx.Err() == nil {
				p.log.Warn("receiving fails; it is tried on", "queueURL", p.url, "error", err)
			}
			if !sleep(p.ctx, backoff(failures, receiveBackoffLimit)) {
				failures = 0
			}
		case full:
			failures = 0
			p.mu.Lock()
			if p.running < p.max && p.ctx.Err() == nil {
				p.start()
			}
			p.mu.Unlock()
		default:
			failures = 0
			first = p.retire(first)
			if !first {
				return
			}
		}
	}
}

// again reports whether the loop goes on; otherwise the poller is counted out, under the lock that
// wake takes, so that a call registered now finds either a poller or none.
func (p *pollers) again() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() == nil && p.wanted() {
		return true
	}
	p.running--
	return false
}

// retire counts a poller out after a receive that was not full, unless it is the last.
func (p *pollers) retire(first bool) (stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == 1 || first {
		return true
	}
	p.running--
	return false
}

// wait blocks until no poller runs.
func (p *pollers) wait() { p.wg.Wait() }
