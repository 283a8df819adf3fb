package controller

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds how long a queue is used that a channel has by its owner's consent: for as long as that is given, whatever the
// channel's own spec keeps the operator from doing beside.

// seenOwn reports whether the queue that a channel's status names was the channel's own when it was last looked at.
func seenOwn(channel *v1alpha1.RequestChannel) bool {
	return conditions.Is(channel, v1alpha1.ConditionQueueReady, metav1.ConditionTrue) &&
		conditions.Reason(channel, v1alpha1.ConditionQueueReady) == v1alpha1.ReasonAvailable
}

// managed reports whether the operator looks after a channel's queue as its own, and the status tells of that for the spec as it is.
func managed(channel *v1alpha1.RequestChannel) bool {
	return seenOwn(channel) && conditions.Judged(channel, v1alpha1.ConditionQueueReady) &&
		channel.Spec.ManagementPolicy != v1alpha1.ManagementPolicyObserve && !isTrue(channel.Spec.Suspend)
}

// mayHave reports whether a queue with those tags is the channel's, or another's who consents to its use.
func mayHave(provider *queue.Provider, channel *v1alpha1.RequestChannel, tags map[string]string) bool {
	desired := provider.RequestQueue(channel, "")
	consents := provider.Consents
	if channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		consents = provider.Lends
	}
	return queue.OwnerIn(tags) == desired.Owner || provider.Inherits(desired, tags) || consents(tags, channel.Namespace)
}

// tagsOf reads the tags of a channel's queue, of which its name alone is known.
func tagsOf(ctx context.Context, provider *queue.Provider, channel *v1alpha1.RequestChannel) (map[string]string, error) {
	url, err := provider.QueueURL(ctx, provider.ChannelQueueName(channel))
	if err != nil {
		return nil, err
	}
	return provider.Tags(ctx, url)
}

// lendsQueue refuses the queue of a channel for the dead letters of another where it is not the channel's to lend. Of one that is looked
// after its status says so; of any other, its tags are asked.
func (s *scope) lendsQueue(ctx context.Context, other *v1alpha1.RequestChannel, field string) error {
	if managed(other) {
		return nil
	}
	tags, err := tagsOf(ctx, s.provider, other)
	switch {
	case queue.Classify(err) == queue.NotFound:
		return waiting(slowRetry, v1alpha1.ReasonWaitingForDeadLetter, "%s: SQS shows no queue of RequestChannel %s", field, other.Name)
	case err != nil:
		return err
	case !mayHave(s.provider, other, tags):
		return stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: the queue of RequestChannel %s is another's, who does not consent to its use", field, other.Name)
	}
	return s.letIn(ctx, other, field)
}

// letIn is the wait for a channel's queue to take dead letters from this one, as its spec says and its queue does not show yet: SQS would refuse
// all that is set together with it.
func (s *scope) letIn(ctx context.Context, other *v1alpha1.RequestChannel, field string) error {
	arn := other.Status.QueueARN
	if other.Spec.DeadLettersFrom == nil || s.channel.Status.DeadLetterTargetARN == arn {
		return nil
	}
	observed, err := s.provider.Observe(ctx, s.provider.ChannelQueueName(other))
	if err != nil {
		return err
	}
	if !queue.LetsIn(observed.Attributes, queue.SiblingARN(arn, s.provider.ChannelQueueName(s.channel))) {
		return waiting(slowRetry, v1alpha1.ReasonWaitingForDeadLetter, "%s: the queue of RequestChannel %s does not take dead letters from this channel's yet", field, other.Name)
	}
	return nil
}

// takenBack reports why the queue that the status names is not to be handed out any more, and takes it out of the status; nil: it is.
// It asks at the drift interval, and only of a queue that is not known to be the channel's own; again is when it wants to be asked next,
// 0: not at all. It needs the provider.
func (r *RequestChannelReconciler) takenBack(ctx context.Context, s *scope) (again time.Duration, gone error) {
	status := &s.channel.Status
	if (status.QueueURL == "" && !ofAnother(s.channel)) || seenOwn(s.channel) || r.elsewhere(s) != nil {
		return 0, nil
	}
	now := r.now()
	s.memory(func(v *visit) { again = v.consented.Sub(now) })
	if again > 0 {
		return again, nil
	}
	observes := s.channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve
	name := s.provider.ChannelQueueName(s.channel)
	tags, err := tagsOf(ctx, s.provider, s.channel)
	if err == nil {
		s.seesOffer(s.provider.RequestQueue(s.channel, ""), tags)
	}
	switch {
	case queue.Classify(err) == queue.NotFound && observes:
		gone = stalled(v1alpha1.ReasonObservedQueueMissing, "there is no queue %s in %s, and managementPolicy Observe creates none", name, s.provider.Region)
	case err != nil:
		return slowRetry, nil // It is not known.
	case mayHave(s.provider, s.channel, tags):
		again = time.Duration(float64(r.driftInterval()) * (0.9 + 0.2*fraction(s.channel.UID)))
		s.memory(func(v *visit) { v.consented = now.Add(again) })
		return again, nil
	default:
		gone = notOwned(s, name, tags, false)
	}
	status.QueueURL, status.QueueARN = "", "" // What is sent there would go to somebody else.
	if observes {
		status.DeadLetterTargetARN = ""
	}
	return 0, gone
}

// takenBackWithout is takenBack where the channel may not use its provider, whose queue it has nevertheless. Where nothing can be asked with
// it, nothing is known.
func (r *RequestChannelReconciler) takenBackWithout(ctx context.Context, s *scope) (again time.Duration, gone error) {
	if s.channel.Status.QueueURL == "" {
		return 0, nil
	}
	provider, err := r.Providers.ForDeletion(ctx, providerName(s.channel))
	if err != nil {
		return slowRetry, nil //nolint:nilerr // It is told by who needs the provider.
	}
	s.provider = provider
	return r.takenBack(ctx, s)
}

// unlessTakenBack is why nothing can be done with the channel's queue: what is in the way of its spec, unless the queue may not be used at
// all. Who may not have its name is not told whose it is.
func (r *RequestChannelReconciler) unlessTakenBack(ctx context.Context, s *scope, inTheWay error) error {
	unnamed := judge(s.channel, inTheWay).reason == v1alpha1.ReasonQueueNameNotAllowed
	if unnamed && s.channel.Status.QueueURL == "" {
		return inTheWay
	}
	if _, gone := r.takenBack(ctx, s); gone != nil && !unnamed {
		return gone
	}
	return inTheWay
}

// lookSuspended looks whether the queue of a suspended channel may still be handed out, and returns when to look again; 0: not at all.
func (r *RequestChannelReconciler) lookSuspended(ctx context.Context, s *scope) time.Duration {
	if s.channel.Status.QueueURL == "" {
		return 0
	}
	if r.useProvider(ctx, s) != nil { // What is wrong with the provider, suspend tells.
		again, gone := r.takenBackWithout(ctx, s)
		if p := judge(s.channel, gone); p != nil {
			conditions.Set(s.channel, v1alpha1.ConditionQueueReady, metav1.ConditionFalse, p.reason, "The queue is not this channel's to use any more")
		}
		return again
	}
	again, gone := r.takenBack(ctx, s)
	if p := judge(s.channel, gone); p != nil {
		conditions.Set(s.channel, v1alpha1.ConditionQueueReady, metav1.ConditionFalse, p.reason, p.message)
	}
	return again
}
