package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// EventReplyQueueMissing surfaces on a pod whose reply queue was deleted in SQS by someone else.
const EventReplyQueueMissing = "ReplyQueueMissing"

// QueueMissing notes that sweeps did not find the queue of the record with that UID. What becomes of it is decided when
// the record is reconciled next.
func (s *Signals) QueueMissing(record types.UID) { s.missing.Store(record, struct{}{}) }

// replaceMissing closes a record whose queue is gone, and reports whether it did. Its pod, if it lives, then gets
// another record by the way on which an idle one wakes: the queue is not made again under its name, because a client
// that has lost a queue does not come back to its address.
func (s *recordScope) replaceMissing(ctx context.Context) (bool, error) {
	if s.record.Status.QueueURL == "" {
		return false, nil
	}
	provider, err := s.Providers.ForDeletion(ctx, s.record.Spec.ProviderRef.Name)
	if err != nil {
		return false, nil //nolint:nilerr // Then nothing is known of the queue; whoever needs the provider says so.
	}
	if _, err := provider.LookUp(ctx, provider.ReplyQueueName(s.record.UID)); queue.Classify(err) != queue.NotFound {
		return false, nil //nolint:nilerr // It is there, or nothing is known; the next sweep asks again.
	}
	if provider.MayDelete() != nil {
		return false, nil // The queues may not be this cluster's, or in another account; the next sweep asks again.
	}
	if same, err := provider.SameAccount(ctx, s.record.Status.QueueURL); err != nil || !same {
		return false, nil //nolint:nilerr // As above.
	}
	if s.pod, err = s.reader(ctx, s.Reader); err != nil {
		return false, err
	}
	lease, err := s.leaseOf(ctx, readerOf(s.record))
	if err != nil {
		return false, err
	}
	const message = "its queue was deleted in SQS by someone else"
	if err := s.close(ctx, lifecycle.Decision{Reason: v1alpha1.CloseQueueMissing, Message: message}, lease); err != nil {
		return false, err
	}
	if s.pod != nil {
		remedy := "The application gets a new one with its next heartbeat"
		if s.record.Spec.Heartbeat == v1alpha1.HeartbeatPod {
			remedy = "The pod's annotation will name a new one, which its containers use once they start again"
		}
		s.Recorder.Eventf(s.pod, nil, corev1.EventTypeWarning, EventReplyQueueMissing, "Close",
			"The reply queue was closed: %s. %s", message, remedy)
	}
	return true, nil
}
