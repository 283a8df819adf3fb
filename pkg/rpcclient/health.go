package rpcclient

import (
	"fmt"
	"time"
)

// unhealthyAfter is how long receives must have failed in a row: longer than what SQS and networks make of
// an ordinary minute.
const unhealthyAfter = 10 * time.Second

// healthy is nil unless receives from the queue have failed for unhealthyAfter.
func (p *pollers) healthy() error {
	since, err := p.failing()
	if took := time.Since(since); err != nil && took >= unhealthyAfter {
		return fmt.Errorf("no receive from %s has succeeded for %s: %w", p.url, took.Round(time.Second), err)
	}
	return nil
}

// Healthy is nil unless replies cannot be received: for 10 s every receive from the reply queue has
// failed, for want of a permission perhaps, or there has been no reply queue; or there is none and none will come. It makes no request and does not block, so that a readiness
// probe may ask it. A requester without calls does not poll: what it knows is of the last call.
func (r *Requester) Healthy() error {
	r.mu.Lock()
	q, since, lost := r.queue, r.queueless, r.lostURL
	r.mu.Unlock()
	if q != nil {
		return q.pollers.healthy()
	}
	if _, more := r.source.Current(); more == nil {
		return fmt.Errorf("%w%s", errNoQueueWillCome, was(lost))
	}
	if took := time.Since(since); took >= unhealthyAfter {
		return fmt.Errorf("%w, for %s%s", errNoReplyQueue, took.Round(time.Second), was(lost))
	}
	return nil
}

// Healthy is nil unless the requests of a channel cannot be received: for 10 s every receive from its queue
// has failed. It makes no request and does not block, so that a readiness probe may ask it.
func (r *Responder) Healthy() error {
	r.mu.Lock()
	servers := r.servers
	r.mu.Unlock()
	for _, s := range servers {
		if err := s.pollers.healthy(); err != nil {
			return fmt.Errorf("channel %s: %w", s.channel.Name, err)
		}
	}
	return nil
}
