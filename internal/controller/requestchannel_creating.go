package controller

import (
	"context"
	"slices"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what is written to the API server before a queue is created, since afterwards it could be lost.

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
	if s.takesFromChannels() {
		status.AppliedAttributes = union(status.AppliedAttributes, []string{queue.RedriveAllowPolicy}) // set once the queue is there
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
