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
// something was written, and until now where the spec was not known to be carried out.
func (s *scope) blindAt(now time.Time) time.Time {
	status := s.original.Status
	if conditions.ObservedGeneration(s.original) != s.original.Generation || !conditions.Is(s.original, v1alpha1.ConditionReady, metav1.ConditionTrue) {
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

// settled takes out of a plan what SQS may merely not show yet: there is no verdict on what was written until it has surely
// been propagated. Where the queue was not brought to the spec yet, it is written once more.
func (r *RequestChannelReconciler) settled(s *scope, plan queue.Plan, observed queue.Observed) queue.Plan {
	if !r.wasReady(s) || s.original.Status.AppliedTerms != s.terms() {
		return plan
	}
	plan, hidden := plan.Settled(observed)
	s.lookIn(hidden)
	return plan
}
