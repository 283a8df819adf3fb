package fence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// What others ask the fence.

// MayDelete implements queue.Fence: it is nil while the last comparison is fresh and said so.
func (f *Fence) MayDelete(provider string) error {
	f.init()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state(provider)
	switch {
	case s.conflict != "":
		return &queue.Held{Provider: provider, Conflict: true, Message: s.conflict, RetryAfter: time.Minute}
	case f.fresh(s):
		return nil
	}
	f.asked[provider] = true
	return f.unproven(provider, s)
}

// unprovenRetry is when to ask again: a comparison takes a few requests.
const unprovenRetry = time.Second

// unproven says why it is not known whose the queues are.
func (f *Fence) unproven(provider string, s *state) *queue.Held {
	now := f.Clock.Now()
	if s.unknown.IsZero() {
		s.unknown = now
	}
	const found = "whether its queues are this cluster's is being found out"
	held := &queue.Held{Provider: provider, Message: found, RetryAfter: unprovenRetry, Known: s.held, Overdue: now.Sub(s.unknown) >= f.Watch+watchMargin*f.Interval}
	waits := s.until.Sub(now)
	switch {
	case s.failed != nil:
		// The next comparison comes by itself; to ask for it sooner would be to ask SQS in vain.
		held.Message, held.RetryAfter = "whether its queues are this cluster's cannot be found out: "+queue.Explain(s.failed), f.Interval
		return held
	case !s.until.IsZero() && waits > 0:
		held.Message = fmt.Sprintf("%s: this process of the operator has watched them for less than %v", found, s.needs)
		held.RetryAfter = waits
		return held
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return held
}

// watchMargin is how many intervals the comparisons around a watch may take.
const watchMargin = 2

// AdoptsFrom implements queue.Fence. Queues are given only while the marker is held: an operator of the other cluster
// that still runs has then stopped deleting, or will within its own interval.
func (f *Fence) AdoptsFrom(provider string) string {
	f.init()
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.state(provider); f.fresh(s) {
		return s.adoptFrom
	}
	return ""
}

// fresh says that the last comparison that agreed is fresh.
func (f *Fence) fresh(s *state) bool {
	return !s.proven.IsZero() && f.Clock.Since(s.proven) <= provenFor*f.Interval
}

// SweepsFrom is the UID of the cluster that is gone and whose reply queues are swept; empty: none.
func (f *Fence) SweepsFrom(provider string) string {
	f.init()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(provider).sweepFrom
}

// Trouble says what is wrong with a provider: TroubleConflict or TroubleSweep; empty: nothing.
func (f *Fence) Trouble(provider, what string) string {
	f.init()
	return f.store.troubleOf(provider, what)
}

// Report notes what is wrong with a provider (empty: nothing any more) where people look for it, and reports whether
// that is news.
func (f *Fence) Report(ctx context.Context, provider, what, message string) (news bool, err error) {
	f.init()
	if !f.store.trouble(provider, what, message) {
		return false, nil
	}
	f.changed(provider)
	f.checking.Lock()
	defer f.checking.Unlock()
	known, err := f.store.read(ctx)
	if err != nil {
		return true, err
	}
	if message != "" {
		f.event(provider, known.object, corev1.EventTypeWarning, what, message)
	}
	return true, f.store.write(ctx, known)
}

// Allowance is how many queues a human has allowed the next sweep of a provider to delete; 0: none.
func (f *Fence) Allowance(ctx context.Context, provider string) (int, error) {
	f.init()
	known, err := f.store.read(ctx)
	if err != nil {
		return 0, err
	}
	n, _ := known.allowance(provider)
	return n, nil
}

// UseAllowance takes the allowance away, before it is used: a process that stops in between has used it up.
func (f *Fence) UseAllowance(ctx context.Context, provider string) error {
	f.init()
	f.checking.Lock()
	defer f.checking.Unlock()
	known, err := f.store.read(ctx)
	if err != nil {
		return err
	}
	if _, value := known.allowance(provider); value != "" {
		known.use(v1alpha1.AnnotationAllowSweep, value)
	}
	return f.store.write(ctx, known)
}

// Known are the providers whose markers this cluster has claimed.
func (f *Fence) Known(ctx context.Context) ([]string, error) {
	f.init()
	known, err := f.store.read(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(known.entries)), nil
}
