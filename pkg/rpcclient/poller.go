package rpcclient

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultReceiveWait is the long poll's length: SQS's longest, so that waiting costs least.
	DefaultReceiveWait = 20 * time.Second
	// maxPollers bounds the long polls at one queue.
	maxPollers = 4
	// suspectAfter is how long a poll may bring nothing, when something is expected, before another joins
	// it: should it be lost in the network, messages do not wait until it times out.
	suspectAfter = 1500 * time.Millisecond
	// suspectPollers bounds the polls that wait side by side for that reason.
	suspectPollers = 3
	// longSilence: where nothing had come, and nothing was newly expected, for long before a poll began, it may bring
	// nothing for that time divided by this. Should it be lost, those who have waited for long wait for that much more;
	// three polls side by side for as long as somebody waits would be paid for each time.
	longSilence = 3
	// receiveBackoffLimit bounds the pause after a failed receive.
	receiveBackoffLimit = 2 * time.Second
)

// pollers keeps long polls going at one queue: one at low rate, more while receives come back full.
// A poll that is under way is never cancelled for want of callers: SQS may have chosen messages for it,
// and those would stay hidden until their visibility ends.
type pollers struct {
	// wanted reports whether another poll is worth starting.
	wanted func() bool
	// expecting reports whether silence is suspicious.
	expecting func() bool
	// poll makes one receive and hands its messages on. full: there may be more at once.
	poll func(ctx context.Context) (full bool, err error)
	// ctx ends to abandon polls that no longer matter.
	ctx  context.Context
	max  int
	crew *crew // their goroutines
	log  *slog.Logger
	url  string

	// stirred: something came, or is newly expected, since quiet was set.
	stirred atomic.Bool

	mu       sync.Mutex
	running  int
	ended    bool      // wait was called
	suspects int       // of running: polls that have been silent for too long
	quiet    time.Time // since when nothing has come, and nothing was newly expected; late by suspectAfter at most
	failure  error     // of the last receive; nil when it went well
	since    time.Time // when the first of the failures in a row was
	wg       sync.WaitGroup
}

// stir says that something came, or is newly expected. It is cheaper than wake.
func (p *pollers) stir() {
	if !p.stirred.Load() { // mostly it is, and many look
		p.stirred.Store(true)
	}
}

// look sees whether something stirred. It is called with the lock held.
func (p *pollers) look(now time.Time) {
	if p.stirred.Load() {
		p.stirred.Store(false)
		p.quiet = now
	}
}

// patience is how long a poll that began then may be silent. It is called with the lock held.
func (p *pollers) patience(began time.Time) time.Duration {
	return max(suspectAfter, began.Sub(p.quiet)/longSilence)
}

// wake starts a poll when none is under way. It is cheap and does not block.
func (p *pollers) wake() {
	p.stir()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == 0 && !p.ended && p.ctx.Err() == nil && p.wanted() {
		p.start()
	}
}

// start adds a poller. It is called with the lock held.
func (p *pollers) start() {
	p.running++
	p.crew.run(&p.wg, p.loop)
}

func (p *pollers) loop() {
	failures := 0
	for p.again() {
		full, err := p.watched()
		p.note(err)
		switch {
		case err != nil:
			if failures++; failures == 1 && p.ctx.Err() == nil {
				p.log.Warn("receiving fails; it is tried on", "queueURL", p.url, "error", err)
			}
			_ = sleep(p.ctx, backoff(failures, receiveBackoffLimit))
			continue
		case failures > 0:
			p.log.Info("receiving works again", "queueURL", p.url, "failures", failures)
			failures = 0
		}
		if full {
			p.grow()
		} else if !p.stay() {
			return
		}
	}
}

// note takes down how a receive ended.
func (p *pollers) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.failure = nil
	case p.ctx.Err() != nil: // ended by this side
	default:
		if p.failure == nil {
			p.since = time.Now()
		}
		p.failure = err
	}
}

// failing is what the last receive failed with, and since when they fail; nil when it went well.
func (p *pollers) failing() (since time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.failure
}

// watched polls once, and gets the poll company when its silence is suspicious.
func (p *pollers) watched() (full bool, err error) {
	suspect, over := false, false
	began := time.Now()
	p.mu.Lock()
	p.look(began)
	var timer *time.Timer
	timer = time.AfterFunc(suspectAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if over {
			return
		}
		now := time.Now()
		if p.look(now); now.Sub(began) < p.patience(began) {
			timer.Reset(suspectAfter)
			return
		}
		suspect = true
		p.suspects++
		if p.running == p.suspects && p.running < min(suspectPollers, p.max) &&
			p.ctx.Err() == nil && p.wanted() && p.expecting() {
			p.start()
		}
	})
	p.mu.Unlock()
	full, err = p.poll(p.ctx)
	timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	over = true
	if suspect {
		p.suspects--
	}
	return full, err
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

// grow adds a poller after a full receive.
func (p *pollers) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running < p.max && p.ctx.Err() == nil {
		p.start()
	}
}

// stay counts a poller out after a receive that was not full, unless it is the last; where silence is
// suspicious, the last that is not suspect.
func (p *pollers) stay() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	others := p.running - 1
	if p.expecting() {
		others -= p.suspects
	}
	if others <= 0 {
		return true
	}
	p.running--
	return false
}

// count is how many pollers run.
func (p *pollers) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// wait blocks until no poller runs. None is started any more: ctx has ended, or nothing is wanted.
func (p *pollers) wait() {
	p.mu.Lock()
	p.ended = true // one that wake is starting is counted by now
	p.mu.Unlock()
	p.wg.Wait()
}
