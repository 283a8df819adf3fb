package controller

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds whose dead letters a channel's queue takes. Channels of its own namespace can be named and nothing else, and
// the names of their queues follow from their specs: neither side has to be there before the other.

// setLater are the attributes that may be set after a queue was created.
var setLater = []string{queue.RedrivePolicy, queue.RedriveAllowPolicy}

// useProvider finds the channel's provider, and what follows from it.
func (r *RequestChannelReconciler) useProvider(ctx context.Context, s *scope) error {
	provider, err := r.provider(ctx, s.channel)
	if err != nil {
		return err
	}
	s.provider = provider
	return r.resolveSources(ctx, s)
}

// resolveSources finds the names of the queues of the channels that spec.deadLettersFrom names. It reads the cache. Of a channel
// that there is not, it is the computed one.
func (r *RequestChannelReconciler) resolveSources(ctx context.Context, s *scope) error {
	const field = "spec.deadLettersFrom.channels"
	s.sources = nil
	if s.channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		return nil
	}
	for _, name := range sourcesOf(s.channel) {
		source := &v1alpha1.RequestChannel{}
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.channel.Namespace, Name: name}, source)
		switch {
		case apierrors.IsNotFound(err):
			s.sources = append(s.sources, s.provider.RequestQueueName(s.channel.Namespace, name, s.channel.Spec.FIFO != nil))
		case err != nil:
			return ofCluster(fmt.Errorf("get RequestChannel %s: %w", name, err))
		case providerName(source) != providerName(s.channel):
			return stalled(v1alpha1.ReasonInvalid, "%s: RequestChannel %s uses another QueueProvider; SQS wants both queues in one account and region", field, name)
		case (source.Spec.FIFO != nil) != (s.channel.Spec.FIFO != nil):
			return stalled(v1alpha1.ReasonInvalid, "%s: the dead-letter queue of a FIFO queue is a FIFO queue, and of a standard queue a standard queue; RequestChannel %s is not", field, name)
		case permits(s.provider, source) != nil, ofAnother(source):
			// What it says about its queue is on itself.
		default:
			s.sources = append(s.sources, s.provider.ChannelQueueName(source))
		}
	}
	slices.Sort(s.sources)
	return nil
}

// desired is what the queue with that ARN should be.
func (s *scope) desired(deadLetterARN, arn string) queue.Desired {
	desired := s.provider.RequestQueue(s.channel, deadLetterARN)
	if s.takesFromChannels() {
		var sources []string
		for _, name := range s.sources {
			sources = append(sources, queue.SiblingARN(arn, name))
		}
		desired.Attributes[queue.RedriveAllowPolicy] = queue.TakesDeadLetters(v1alpha1.DeadLetterPermissionChannels, sources)
	}
	return desired
}

func (s *scope) takesFromChannels() bool { return len(sourcesOf(s.channel)) > 0 }

// sourcesOf are the names of the channels that a channel takes dead letters from; none where it does not name any.
func sourcesOf(channel *v1alpha1.RequestChannel) (names []string) {
	from := channel.Spec.DeadLettersFrom
	if from == nil || from.Permission != v1alpha1.DeadLetterPermissionChannels {
		return nil
	}
	for _, source := range from.Channels {
		names = append(names, source.Name)
	}
	return names
}

// takesFrom reports whether a channel's spec lets the channel called name, of its namespace, send it dead letters.
func takesFrom(channel *v1alpha1.RequestChannel, name string) bool {
	from := channel.Spec.DeadLettersFrom
	if from == nil || channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		return true // AWS decides.
	}
	return from.Permission == v1alpha1.DeadLetterPermissionAll || slices.Contains(sourcesOf(channel), name)
}

// takesMoved reports whether it changed from whom a channel takes dead letters: what it says, or what its queue was brought to.
func takesMoved(was, is *v1alpha1.RequestChannel) bool {
	said := !equality.Semantic.DeepEqual(was.Spec.DeadLettersFrom, is.Spec.DeadLettersFrom)
	return said || (is.Spec.DeadLettersFrom != nil && was.Status.AppliedTerms != is.Status.AppliedTerms)
}

// ofAnother reports whether the queue of a channel is another's.
func ofAnother(channel *v1alpha1.RequestChannel) bool {
	return conditions.Is(channel, v1alpha1.ConditionQueueReady, metav1.ConditionFalse) &&
		conditions.Reason(channel, v1alpha1.ConditionQueueReady) == v1alpha1.ReasonNotOwned
}
