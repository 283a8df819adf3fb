package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The machine may have other work, and then every process waits for its turn. What the library promises is measured
// beside that: each process has a pulse, a plain timer, and where that comes late the process stood still.

const (
	pulseEvery = 50 * time.Millisecond
	stallFrom  = 100 * time.Millisecond // lateness of a pulse that counts
)

// stall is a time in which a process stood still.
type stall struct{ from, to time.Time }

// startPulse tells of the stalls of this process until it is stopped.
func startPulse(tell func(stall)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pulse(ctx, tell)
	}()
	return func() { cancel(); <-done }
}

func pulse(ctx context.Context, tell func(stall)) {
	for {
		due := time.Now().Add(pulseEvery)
		t := time.NewTimer(pulseEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		if now := time.Now(); now.Sub(due) >= stallFrom {
			tell(stall{due, now})
		}
	}
}

// stalls are those of all processes.
type stalls struct {
	mu   sync.Mutex
	by   map[string][]stall // by process
	all  []stall            // of any process, merged; made by merge
	most time.Duration
}

func (s *stalls) add(process string, one stall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string][]stall{}
	}
	s.by[process] = append(s.by[process], one)
	s.most = max(s.most, one.to.Sub(one.from))
	s.all = nil
}

// of is how much of a time a process stood still.
func (s *stalls) of(process string, from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return overlap(s.by[process], from, to)
}

// any is how much of a time some process or other stood still.
func (s *stalls) any(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return overlap(s.merged(), from, to)
}

// total is for how long some process or other stood still, and for how long one did at most.
func (s *stalls) total() (sum, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.merged() {
		sum += one.to.Sub(one.from)
	}
	return sum, s.most
}

// merged are the stalls of all, in order and apart. It is called with the lock held.
func (s *stalls) merged() []stall {
	if s.all != nil {
		return s.all
	}
	var all []stall
	for _, some := range s.by {
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b stall) int { return a.from.Compare(b.from) })
	for _, one := range all {
		if n := len(s.all); n > 0 && !one.from.After(s.all[n-1].to) {
			if one.to.After(s.all[n-1].to) {
				s.all[n-1].to = one.to
			}
			continue
		}
		s.all = append(s.all, one)
	}
	return s.all
}

// overlap is how much of a time the stalls take, which are in order and apart.
func overlap(in []stall, from, to time.Time) (sum time.Duration) {
	first, _ := slices.BinarySearchFunc(in, from, func(one stall, at time.Time) int { return one.to.Compare(at) })
	for _, one := range in[first:] {
		if !one.from.Before(to) {
			break
		}
		begin, end := one.from, one.to
		if from.After(begin) {
			begin = from
		}
		if to.Before(end) {
			end = to
		}
		sum += max(0, end.Sub(begin))
	}
	return sum
}
