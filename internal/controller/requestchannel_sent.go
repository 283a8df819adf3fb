package controller

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what the process remembers of its own writes to a queue, while SQS may go on showing what was before.
// A verdict on what is shown, and what a change of the spec has to send, would be wrong without it.

// known is a queue as it is as far as that is known: as observed, with what was written lately in place.
func (s *scope) known(name string, observed queue.Observed) queue.Observed {
	var sent queue.Sent
	s.memory(func(v *visit) { sent = v.sent[name].Blind(v.blind) })
	known, hidden := sent.Over(observed, s.reconciler.now())
	s.lookIn(hidden)
	return known
}

// lookIn has the queue looked at again after a while, if nothing has it looked at sooner; 0: there is no need.
func (s *scope) lookIn(wait time.Duration) {
	if wait > 0 && (s.settles == 0 || wait < s.settles) {
		s.settles = wait
	}
}

// sent notes what was written to a queue that was observed like that, and what may have been.
func (s *scope) sent(name string, observed queue.Observed, done, lost queue.Plan) {
	if done.Empty() && lost.Empty() {
		return
	}
	now := s.reconciler.now()
	s.channel.Status.LastWriteTime = ptr.To(metav1.NewTime(now))
	s.memory(func(v *visit) {
		v.sent = maps.Clone(v.sent)
		if v.sent == nil {
			v.sent = map[string]queue.Sent{}
		}
		v.sent[name] = v.sent[name].With(done, observed, now).Lost(lost, now)
	})
}

// madeSo notes what a queue was created with, as far as that was seen.
func (s *scope) madeSo(desired queue.Desired, observed queue.Observed) {
	s.sent(desired.Name, observed, queue.Plan{Attributes: queue.InPlace(desired, observed)}, queue.Plan{})
}

// blindAt is until when a process before this one may have written what the status does not tell: when it says that
// something was written, and until now where the spec was not known to be carried out on the request queue. Where it was, all that can
// have been written since is what it says.
func (s *scope) blindAt(now time.Time) time.Time {
	status := s.original.Status
	ready := conditions.ObservedGeneration(s.original) == s.original.Generation && conditions.Is(s.original, v1alpha1.ConditionReady, metav1.ConditionTrue)
	if !ready && !s.wasBrought(v1alpha1.ConditionQueueReady) {
		return now
	}
	if status.LastWriteTime == nil {
		return time.Time{}
	}
	if last := status.LastWriteTime.Time; last.Before(now) {
		return last
	}
	return now // The other process' clock is ahead.
}

// wasBrought reports whether the queue that a condition tells of had been brought to the spec as it is, whatever the channel waits for
// beside it, and nothing was being changed on it since.
func (s *scope) wasBrought(part string) bool {
	return conditions.Is(s.original, part, metav1.ConditionTrue) && conditions.Judged(s.original, part) &&
		conditions.Reason(s.original, v1alpha1.ConditionReady) != v1alpha1.ReasonProgressing
}

// settled takes out of a plan what SQS may merely not show yet: there is no verdict on what was written until it has surely
// been propagated. Where the queue, which the condition part tells of, was not brought to the spec yet, it is written once more. asIs:
// where dead letters go is left alone, so that nothing says of the spec as a whole that it was applied.
func (r *RequestChannelReconciler) settled(s *scope, part string, plan queue.Plan, observed queue.Observed, asIs bool) queue.Plan {
	was := &s.original.Status
	ready, applied := r.wasReady(s), was.AppliedTerms == s.terms()
	if (!ready || !applied) && (!s.wasBrought(part) || (!applied && !asIs)) {
		return plan
	}
	settled, hidden := plan.Settled(observed)
	if redrive, set := plan.Attributes[queue.RedrivePolicy]; set && queue.DeadLetterTarget(plan.Attributes) != was.DeadLetterTargetARN {
		settled.Attributes[queue.RedrivePolicy] = redrive // Where dead letters go is not what it was.
	}
	s.lookIn(hidden)
	return settled
}
