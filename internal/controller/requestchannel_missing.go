package controller

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// This file holds what is told of a queue that someone else deleted. The condition Drifted holds it until the queue is there
// again as asked for, and what creates it may not be what sees that.

// saidMissing reports whether the channel's status says already that the queue is missing.
func (*RequestChannelReconciler) saidMissing(s *scope, name string) bool {
	return conditions.Is(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue) &&
		strings.Contains(conditions.Message(s.channel, v1alpha1.ConditionDrifted), missingOf(name))
}

// missingOf is how the message about a missing queue begins.
func missingOf(name string) string { return fmt.Sprintf("Queue %s was deleted by someone else", name) }

// againOf is that message.
func againOf(name string) string { return missingOf(name) + ", and is created again" }

// liftDrift ends what was found of the channel's queues, now that they are as asked for, and tells of those that were
// created again. asIs: the dead-letter queue is not yet.
func (r *RequestChannelReconciler) liftDrift(s *scope, request string, asIs bool) {
	dead := s.provider.DeadLetterQueue(s.channel, "").Name
	own := s.channel.Spec.DeadLetter != nil && s.channel.Spec.DeadLetter.Queue != nil
	requestMissed, deadMissed := r.saidMissing(s, request), own && r.saidMissing(s, dead)
	if requestMissed {
		r.tellRecreated(s, request)
	}
	if deadMissed && asIs {
		conditions.Set(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand, againOf(dead))
		return
	}
	if deadMissed {
		r.tellRecreated(s, dead)
	}
	conditions.Remove(s.channel, v1alpha1.ConditionDrifted)
}

func (r *RequestChannelReconciler) tellRecreated(s *scope, name string) {
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventQueueRecreated, "CreateQueue", "Queue %s had been deleted by someone else, with its messages, and was created again", name)
}
