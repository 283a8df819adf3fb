package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// ledger is the truth about processes and their queues. It is kept by the processes and read from SQS's own log; it
// knows nothing of pod objects, records or what the operator thinks.
type ledger struct {
	// retention is how long a process must have been silent before its queue may be deleted under it.
	retention time.Duration

	mu    sync.Mutex
	spans map[string][]*span // by queue name
	// violations are what must not have happened, once each.
	violations []string
	said       map[string]bool
}

// span is the time in which one process relied on one queue.
type span struct {
	pod   string
	queue string
	// from is when the process was told of the queue; until is when it ended or was told otherwise; zero: not yet.
	from, until time.Time
	// beats are when it sent the heartbeats that were accepted. A process that starts counts as heard.
	beats []time.Time
}

func newLedger(retention time.Duration) *ledger {
	return &ledger{retention: retention, spans: map[string][]*span{}, said: map[string]bool{}}
}

// begin notes that a process relies on a queue from now on.
func (l *ledger) begin(pod, queue string, now time.Time) *span {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &span{pod: pod, queue: queue, from: now, beats: []time.Time{now}}
	l.spans[queue] = append(l.spans[queue], s)
	return s
}

// beat notes a heartbeat, sent at that time, that was accepted while the process relied on the queue.
func (l *ledger) beat(s *span, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.beats = append(s.beats, sent)
}

// end notes that a process does not rely on its queue any more.
func (l *ledger) end(s *span, now time.Time) {
	if s == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.until.IsZero() {
		s.until = now
	}
}

// deleted takes in that SQS was asked to delete a queue, and did.
func (l *ledger) deleted(queue string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spans[queue] {
		if s.heardWithin(l.retention, at) {
			l.violated(fmt.Sprintf("queue %s was deleted at %s under the living process of pod %s, last heard %s before",
				queue, clock(at), s.pod, at.Sub(s.lastBeat(at)).Round(time.Millisecond)))
		}
	}
}

// missing takes in which queues exist, and finds processes that rely on one that does not.
func (l *ledger) missing(exists func(queue string) bool, now time.Time) {
	l.mu.Lock()
	var relied []*span
	for _, all := range l.spans {
		for _, s := range all {
			if s.until.IsZero() && s.heardWithin(l.retention/2, now) {
				relied = append(relied, s)
			}
		}
	}
	l.mu.Unlock()
	for _, s := range relied {
		if exists(s.queue) {
			continue
		}
		l.mu.Lock()
		if s.until.IsZero() { // it may have ended since
			l.violated(fmt.Sprintf("queue %s of the living process of pod %s does not exist at %s", s.queue, s.pod, clock(now)))
		}
		l.mu.Unlock()
	}
}

// foreign takes in a request that changed a queue which is not the operator's.
func (l *ledger) foreign(action, queue string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violated(fmt.Sprintf("%s on %s at %s, which is not ours", action, queue, clock(at)))
}

func (l *ledger) violated(what string) {
	if !l.said[what] {
		l.said[what] = true
		l.violations = append(l.violations, what)
	}
}

// verdict is everything that must not have happened.
func (l *ledger) verdict() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.violations)
}

// relied is how many different queues processes were told of.
func (l *ledger) relied() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spans)
}

// heardWithin says whether the process relied on the queue at that time and had been heard no longer before than d.
func (s *span) heardWithin(d time.Duration, at time.Time) bool {
	if at.Before(s.from) || (!s.until.IsZero() && !at.Before(s.until)) {
		return false
	}
	return at.Sub(s.lastBeat(at)) < d
}

func (s *span) lastBeat(at time.Time) time.Time {
	last := s.from
	for _, b := range s.beats {
		if b.After(last) && !b.After(at) {
			last = b
		}
	}
	return last
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// times are durations, for what is said about them.
type times []time.Duration

func (t times) quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (t times) String() string {
	var b strings.Builder
	for i, d := range t {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(d.Round(100 * time.Millisecond).String())
	}
	return b.String()
}
