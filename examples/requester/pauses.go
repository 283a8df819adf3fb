package main

import (
	"errors"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// pauses notices that the process was stopped (SIGSTOP, a frozen node) by a clock that missed its
// ticks. Calls that fail for it are this process's own doing and are counted apart.
type pauses struct {
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	lastTick time.Time
	resumed  time.Time // end of the latest pause
}

const (
	pauseTick = 200 * time.Millisecond
	// pauseLength is what counts as a pause: far more than a busy machine is late.
	pauseLength = 3 * time.Second
	// pauseAftermath is how long after a pause the loss of the reply queue is still its consequence:
	// the queue was closed as idle, and the next heartbeat brings another.
	pauseAftermath = 10 * time.Second
)

func watchPauses() *pauses {
	p := &pauses{done: make(chan struct{}), lastTick: time.Now()}
	p.wg.Go(func() {
		ticker := time.NewTicker(pauseTick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.tick()
			case <-p.done:
				return
			}
		}
	})
	return p
}

func (p *pauses) stop() {
	close(p.done)
	p.wg.Wait()
}

func (p *pauses) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.lastTick) > pauseLength {
		p.resumed = now
	}
	p.lastTick = now
}

// excuse reports whether a call that began at started and failed now did so because of a pause.
func (p *pauses) excuse(started time.Time, err error) bool {
	p.tick() // the call may have noticed the resumption before the ticker
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.resumed.IsZero():
		return false
	case started.Before(p.resumed):
		return true
	default:
		return errors.Is(err, rpcclient.ErrReplyQueueLost) && time.Since(p.resumed) < pauseAftermath
	}
}
