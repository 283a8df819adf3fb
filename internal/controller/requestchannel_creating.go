package controller

import (
	"context"
	"slices"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what is written to the API server before a queue is created or changed, since afterwards it could be lost.

// holdProvider keeps the channel's QueueProvider from going before the queue. One that is being deleted takes no new users;
// had says that the channel is not new to it.
func (r *RequestChannelReconciler) holdProvider(ctx context.Context, s *scope, had bool) error {
	err := holdProvider(ctx, r.Client, r.reader(), providerName(s.channel))
	if had && providerLeaves(err) {
		return nil
	}
	return err
}

// noteCreation notes the attributes and the tags that a queue is about to be created with: when the process stops before it
// can note them afterwards, what the spec no longer has by then could not be told from what others set.
func (r *RequestChannelReconciler) noteCreation(ctx context.Context, s *scope, desired queue.Desired) error {
	status, written := &s.channel.Status, &s.written.Status
	status.AppliedTags = union(status.AppliedTags, sortedKeys(desired.Tags))
	status.AppliedAttributes = union(status.AppliedAttributes, sortedKeys(desired.Attributes))
	// These are set once the queue is there.
	if s.takesFromChannels() {
		status.AppliedAttributes = union(status.AppliedAttributes, []string{queue.RedriveAllowPolicy})
	}
	if s.channel.Spec.DeadLetter != nil {
		status.AppliedAttributes = union(status.AppliedAttributes, []string{queue.RedrivePolicy})
	}
	if slices.Equal(status.AppliedTags, union(written.AppliedTags, nil)) && slices.Equal(status.AppliedAttributes, union(written.AppliedAttributes, nil)) {
		return nil
	}
	conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The queue is being created")
	return r.save(ctx, s)
}

// noteDeadLetterQueue notes that a dead-letter queue is about to be made, by its ARN: a deletion then knows that there may
// be one, though SQS does not show it yet.
func (r *RequestChannelReconciler) noteDeadLetterQueue(ctx context.Context, s *scope, arn string) error {
	if s.channel.Status.DeadLetterQueueARN == arn {
		return nil
	}
	s.channel.Status.DeadLetterQueueARN = arn
	conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The dead-letter queue is being created")
	return r.save(ctx, s)
}

// writeAhead notes what is about to be set before it is, where the note could be lost: a process that stops after
// setting an attribute and before noting it must not forget to restore its default later, nor that it adopted.
func (r *RequestChannelReconciler) writeAhead(ctx context.Context, s *scope, desired queue.Desired, plan queue.Plan, adopting bool) error {
	status := &s.channel.Status
	attributes := union(status.AppliedAttributes, intersection(desired.Attributes, plan.Attributes))
	tags := union(status.AppliedTags, intersection(desired.Tags, plan.Tags))
	written := &s.written.Status
	if slices.Equal(attributes, union(written.AppliedAttributes, nil)) && slices.Equal(tags, union(written.AppliedTags, nil)) &&
		isTrue(status.Adopted) == isTrue(written.Adopted) {
		status.AppliedAttributes, status.AppliedTags = attributes, tags // as before an adoption was tried again
		return nil
	}
	if written.QueueURL == "" && !s.remembers() && !adopting {
		// A queue that nothing is remembered of yet counts as ours in every attribute (requestQueue).
		return nil
	}
	status.AppliedAttributes, status.AppliedTags = attributes, tags
	conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The queue is being changed")
	return r.save(ctx, s)
}

// noteTagsOf notes the tags that a dead-letter queue is about to get, for the same reason. They are remembered together with the
// request queue's, which get them afterwards; of its attributes nothing needs to be remembered.
func (r *RequestChannelReconciler) noteTagsOf(ctx context.Context, s *scope, desired queue.Desired, plan queue.Plan) error {
	status := &s.channel.Status
	tags := union(status.AppliedTags, intersection(desired.Tags, plan.Tags))
	if slices.Equal(tags, union(s.written.Status.AppliedTags, nil)) {
		return nil
	}
	status.AppliedTags = tags
	conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The dead-letter queue is being changed")
	return r.save(ctx, s)
}
