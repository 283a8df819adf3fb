package rpcclient

import (
	"context"
	"sync"
	"time"
)

// methodLimit bounds the executions of one method. As many requests as may run may wait, in the order
// in which they came; they are hidden from other responders meanwhile, and so there are no more.
type methodLimit struct {
	running chan struct{} // one element per execution

	mu      sync.Mutex
	waiting int
	usual   time.Duration // moving average of an execution
}

func newMethodLimit(n int) *methodLimit {
	return &methodLimit{running: make(chan struct{}, max(1, n)), usual: minRetryAfter}
}

// minRetryAfter and maxRetryAfter bound what a shed requester is told.
const (
	minRetryAfter = 100 * time.Millisecond
	maxRetryAfter = 10 * time.Second
)

// enter takes a place, waiting for one if others do not wait in number already. retryAfter is set when
// the request is to be shed; neither is when ctx ended.
func (l *methodLimit) enter(ctx context.Context) (entered bool, retryAfter time.Duration) {
	select {
	case l.running <- struct{}{}:
		return true, 0
	default:
	}
	l.mu.Lock()
	if l.waiting >= cap(l.running) {
		l.mu.Unlock()
		return false, l.retryAfter()
	}
	l.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.waiting--
		l.mu.Unlock()
	}()
	select {
	case l.running <- struct{}{}:
		return true, 0
	case <-ctx.Done():
		return false, 0
	}
}

// retryAfter is in how long those that wait now have run.
func (l *methodLimit) retryAfter() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(minRetryAfter, 2*l.usual), maxRetryAfter)
}

// leave gives the place back.
func (l *methodLimit) leave(took time.Duration) {
	l.mu.Lock()
	l.usual += (took - l.usual) / 8
	l.mu.Unlock()
	<-l.running
}
