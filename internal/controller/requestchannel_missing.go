package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what is told of a queue that someone else deleted. The condition Drifted holds it until the queue is there
// again as asked for, and what creates it may not be what sees that.

// saidMissing reports whether the channel's status says already that the queue is missing.
func (*RequestChannelReconciler) saidMissing(s *scope, name string) bool {
	return conditions.Is(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue) &&
		strings.Contains(conditions.Message(s.channel, v1alpha1.ConditionDrifted), missingOf(name))
}

// notMade refuses to create a queue whose name has the form of computed ones. One that was there, and adopted, is not handed out any
// more.
func (r *RequestChannelReconciler) notMade(ctx context.Context, s *scope) error {
	status := &s.channel.Status
	if status.QueueURL != "" {
		if err := r.sameAccount(ctx, s); err != nil {
			return err
		}
		status.QueueURL, status.QueueARN = "", ""
		conditions.Remove(s.channel, v1alpha1.ConditionDrifted)
	}
	return stalled(v1alpha1.ReasonQueueNameNotAllowed,
		"spec.queueName %s has the form of the names that the operator gives itself: a queue of that name can be adopted or observed, and is not created. SQS shows none: delete this channel, or have the queue's owner make it again", s.channel.Spec.QueueName)
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
	if requestMissed && !slices.Contains(s.outlived, request) {
		r.tellRecreated(s, request)
	}
	if deadMissed && asIs {
		conditions.Set(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand, againOf(dead))
		return
	}
	if deadMissed && !slices.Contains(s.outlived, dead) {
		r.tellRecreated(s, dead)
	}
	if !s.drifts {
		conditions.Remove(s.channel, v1alpha1.ConditionDrifted)
	}
}

// learnAge reads when a queue was created, where its creation did not tell; of one that SQS does not show yet that is not known.
func (s *scope) learnAge(ctx context.Context, observed *queue.Observed) error {
	if observed.Attributes[queue.CreatedTimestamp] != "" {
		return nil
	}
	attributes, err := s.provider.Attributes(ctx, observed.URL)
	if err != nil {
		if queue.Classify(err) == queue.NotFound {
			return nil
		}
		return err
	}
	observed.Attributes = maps.Clone(observed.Attributes) // What else it shows may be older than its creation.
	observed.Attributes[queue.CreatedTimestamp] = attributes[queue.CreatedTimestamp]
	return nil
}

func (r *RequestChannelReconciler) tellRecreated(s *scope, name string) {
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventQueueRecreated, "CreateQueue", "Queue %s had been deleted by someone else, with its messages, and was created again", name)
}
