package rpcclient

import (
	"errors"
	"sync/atomic"
	"time"
)

// jam bounds the replies that wait at reply queues which do not take them. A responder receives nothing while too
// many replies are under way, whoever they are for: without a bound on these, one requester whose queue is throttled
// or cannot be reached would stop it for all. A reply beyond the bound is not sent: it is kept, and sent when its
// request comes again.
type jam struct {
	limit int64
	stuck atomic.Int64 // replies under way to queues of which the latest send failed
}

// jamPatience is how long the sends to a queue must have failed before replies to it are given up: an ordinary
// throttle or a lost answer delays nobody by a visibility timeout.
const jamPatience = time.Second

var errJammed = errors.New("the reply queue takes no replies, and enough wait for it")

// patientMessage may say that it must not be given up: nothing sends it again.
type patientMessage interface {
	patient() bool
}

// count follows the messages that a sender has. It is called with the sender's lock held.
func (s *sender) count(n int) {
	if s.jam == nil {
		return
	}
	s.backlog += n
	if s.failing {
		s.jam.stuck.Add(int64(n))
	}
}

// tried notes how a send ended: well when SQS took something.
func (s *sender) tried(well bool, now time.Time) {
	if s.jam == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failing == !well:
	case well:
		s.failing = false
		s.jam.stuck.Add(int64(-s.backlog))
	default:
		s.failing, s.failingSince = true, now
		s.jam.stuck.Add(int64(s.backlog))
	}
}

// jammed reports whether another message for the queue would be one too many.
func (s *sender) jammed() bool {
	if s.jam == nil || s.jam.stuck.Load() < s.jam.limit {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing && time.Since(s.failingSince) >= jamPatience
}

// relieve takes from a batch that failed, and from the queue, what is to be given up.
func (s *sender) relieve(batch []parcel) (rest []parcel, excess parcel) {
	if s.jam == nil || s.jam.stuck.Load() <= s.jam.limit {
		return batch, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failing || time.Since(s.failingSince) < jamPatience {
		return batch, nil
	}
	over := int(s.jam.stuck.Load() - s.jam.limit)
	giveUp := func(o *outgoing) bool {
		if p, ok := o.message.(patientMessage); over <= 0 || o.state != sendQueued || ok && p.patient() {
			return false
		}
		over--
		if o.err == nil {
			o.err = errJammed
		}
		excess = append(excess, o)
		return true
	}
	for _, p := range batch {
		var kept parcel
		for _, o := range p {
			if !giveUp(o) {
				kept = append(kept, o)
			}
		}
		if len(kept) > 0 {
			rest = append(rest, kept)
		}
	}
	n := 0
	for _, o := range s.queue {
		if giveUp(o) {
			s.countPackable(o, -1)
			continue
		}
		s.queue[n] = o
		n++
	}
	clear(s.queue[n:])
	s.queue = s.queue[:n]
	return rest, excess
}
