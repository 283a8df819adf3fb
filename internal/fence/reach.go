package fence

import (
	"context"
	"errors"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// The comparisons ask SQS about every provider in use, so they notice first where nothing can be done any more: a role that
// cannot be assumed, credentials or an endpoint that are gone.

const (
	// unreachableAfter is for how long every comparison has to fail before that is told: SQS may be away for a moment, and
	// IAM takes some seconds to know a new role.
	unreachableAfter = time.Minute
	// outage is how long SQS may be away by itself. What lasts longer is somebody's to set right, as far as anybody can tell.
	outage = 10 * time.Minute
)

// Reach is whether SQS answers this process about a provider's queues.
type Reach struct {
	// Known is false until SQS has answered a comparison, or has failed to for a minute; and where nothing has it asked.
	Known bool
	// Reason is why SQS cannot be asked: v1alpha1.ReasonAccessDenied or v1alpha1.ReasonSQSUnavailable; empty: it answers.
	Reason string
	// Message says so in AWS's own words; empty when Reason is.
	Message string
	// Stuck says that waiting does not seem to help: AWS denies it, or SQS has not answered for ten minutes.
	Stuck bool
}

// reach is what is known of it of one provider.
type reach struct {
	Reach
	// failing is since when no comparison was answered; zero: the last was. told is when Message was noted.
	failing, told time.Time
}

// Reach says whether SQS answers about a provider's queues. It does not block, and asks nothing.
func (f *Fence) Reach(provider string) Reach {
	f.init()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(provider).reach.Reach
}

// after is what is known when a comparison was answered like that.
func (r reach) after(err error, now time.Time) reach {
	class := queue.Classify(err)
	switch {
	case class == queue.None, class == queue.Fenced, class == queue.Unproven:
		return reach{Reach: Reach{Known: true}}
	case class == queue.Throttled, errors.Is(err, context.Canceled), is[*ofCluster](err):
		return r // That says nothing of it.
	}
	if r.failing.IsZero() {
		r.failing = now
	}
	lasted := now.Sub(r.failing)
	if lasted < unreachableAfter {
		return r
	}
	reason, words := v1alpha1.ReasonSQSUnavailable, "SQS has not answered as it should for more than a minute: "
	if class == queue.Denied {
		reason, words = v1alpha1.ReasonAccessDenied, "AWS has denied the operator for more than a minute: "
	}
	if r.Reason != reason || now.Sub(r.told) >= unreachableAfter { // Words that go to and fro are not told each time.
		r.Message, r.told = words+queue.Explain(err), now
	}
	r.Known, r.Reason, r.Stuck = true, reason, reason == v1alpha1.ReasonAccessDenied || lasted >= outage
	return r
}

// reached takes in how a comparison was answered, and tells what changed by that.
func (f *Fence) reached(ctx context.Context, provider string, err error) {
	f.mu.Lock()
	s := f.state(provider)
	before := s.reach.Reach
	s.reach = s.reach.after(err, f.Clock.Now())
	now := s.reach.Reach
	f.mu.Unlock()
	f.tellReach(ctx, provider, before, now)
}

// unasked forgets whether SQS answers about the providers that nothing has it asked about any more.
func (f *Fence) unasked(ctx context.Context, asked map[string]bool) {
	var left []string
	f.mu.Lock()
	for name, s := range f.states {
		if !asked[name] && s.reach != (reach{}) {
			left = append(left, name)
		}
	}
	f.mu.Unlock()
	for _, name := range left {
		f.mu.Lock()
		s := f.state(name)
		before := s.reach.Reach
		s.reach = reach{}
		f.mu.Unlock()
		f.tellReach(ctx, name, before, Reach{})
	}
}

func (f *Fence) tellReach(ctx context.Context, provider string, before, now Reach) {
	if before == now {
		return
	}
	// An API server that fails is told this with the next write.
	if news, _ := f.Report(ctx, provider, v1alpha1.ConditionUnreachable, now.Message); !news {
		f.changed(provider)
	}
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// ofCluster marks an error as the API server's, or the way to it: it says nothing of SQS.
type ofCluster struct{ error }

// Unwrap is the error itself.
func (e *ofCluster) Unwrap() error { return e.error }
