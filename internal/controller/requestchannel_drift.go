package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what is told of a queue that someone else changed.

// noteDrift notes, and reports, that a queue differs from a spec that it had been brought to: before it is corrected, since
// afterwards nothing would show it any more. What was found before and could not be corrected yet is not counted again.
func (r *RequestChannelReconciler) noteDrift(ctx context.Context, s *scope, name string, plan queue.Plan) (bool, error) {
	if plan.Empty() || s.created || s.original.Status.AppliedTerms != s.terms() {
		return false, nil
	}
	if r.told(s, name) {
		return true, nil
	}
	if !r.wasReady(s) && !foundSince(s) {
		return false, nil
	}
	message := s.driftMessage(name, plan)
	if conditions.Is(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue) {
		message = conditions.Message(s.channel, v1alpha1.ConditionDrifted) + ". " + message
	}
	conditions.Set(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonAttributesDiffer, message)
	return true, r.noteFound(ctx, s, v1alpha1.ReasonAttributesDiffer)
}

// foundSince reports whether drift was found of the spec as it is, and is not corrected yet. What else differs is drift too, though
// the channel is not Ready any more.
func foundSince(s *scope) bool {
	return conditions.Is(s.original, v1alpha1.ConditionDrifted, metav1.ConditionTrue) && conditions.Judged(s.original, v1alpha1.ConditionDrifted)
}

// told reports whether the channel's status says already that the queue differs.
func (*RequestChannelReconciler) told(s *scope, name string) bool {
	return conditions.Reason(s.original, v1alpha1.ConditionDrifted) == v1alpha1.ReasonAttributesDiffer &&
		strings.Contains(conditions.Message(s.original, v1alpha1.ConditionDrifted), driftOf(name))
}

// noteFound writes down a drift that was found, before it is corrected, and counts it.
func (r *RequestChannelReconciler) noteFound(ctx context.Context, s *scope, reason string) error {
	s.channel.Status.LastDriftTime = ptr.To(metav1.NewTime(r.now()))
	if err := r.save(ctx, s); err != nil {
		return err
	}
	r.Metrics.drifted(s.channel.Namespace, reason)
	return nil
}

func (r *RequestChannelReconciler) tellCorrected(s *scope, name string, plan queue.Plan) {
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventDriftCorrected, "SetQueueAttributes", "%s", s.driftMessage(name, plan))
}

func (s *scope) driftMessage(name string, plan queue.Plan) string {
	return driftOf(name) + s.differs(name, plan)
}

// differs names what a plan changes on a queue, by the fields that say so.
func (s *scope) differs(name string, plan queue.Plan) string {
	var what []string
	for _, attribute := range sortedKeys(plan.Attributes) {
		field := queue.FieldOf(attribute)
		if attribute == queue.RedriveAllowPolicy && name == s.provider.DeadLetterQueue(s.channel, "").Name {
			field = queue.FieldOf(queue.RedrivePolicy) // That of a dead-letter queue made beside follows from this.
		}
		what = append(what, field)
	}
	for _, key := range slices.Sorted(slices.Values(append(sortedKeys(plan.Tags), plan.Untag...))) {
		what = append(what, "tag "+key)
	}
	return strings.Join(what, ", ")
}

// driftOf is how driftMessage begins.
func driftOf(name string) string { return fmt.Sprintf("Queue %s was changed by someone else: ", name) }
