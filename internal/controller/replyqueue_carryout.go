package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// provision creates the queue, in one request: attributes and tags together. Its name is the record's UID, so no
// other queue can bear it. A copy of a cluster makes none: the original has no record of it, and would sweep it.
func (s *recordScope) provision(ctx context.Context) error {
	s.record.Status.State = v1alpha1.ReplyQueueProvisioning
	provider, err := s.Providers.Get(ctx, s.record.Spec.ProviderRef.Name, s.record.Namespace)
	if err != nil {
		return s.providerMissing(ctx, err)
	}
	if err := provider.MayCreate(); err != nil {
		return s.sqsFailed(ctx, err, true)
	}
	tags := s.record.Spec.Tags.Strings()
	for key, value := range map[string]string{
		v1alpha1.TagCluster:      s.ClusterUID,
		v1alpha1.TagKind:         v1alpha1.TagKindReply,
		v1alpha1.TagNamespace:    s.record.Namespace,
		v1alpha1.TagName:         s.record.Name,
		v1alpha1.TagPodNamespace: s.record.Namespace,
		v1alpha1.TagPodName:      s.record.Spec.PodRef.Name,
		v1alpha1.TagPodUID:       s.record.Spec.PodRef.UID,
	} {
		tags[key] = value
	}
	if s.record.Spec.Identity == v1alpha1.IdentityStable {
		tags[v1alpha1.TagIdentity] = string(v1alpha1.IdentityStable)
	}
	url, err := provider.CreateReplyQueue(ctx, provider.ReplyQueueName(s.record.UID), s.record.Spec.Attributes, tags)
	if err != nil {
		return s.sqsFailed(ctx, err, true)
	}
	s.record.Status.QueueURL = url
	s.record.Status.State = v1alpha1.ReplyQueueActive
	conditions.Ready(s.record, v1alpha1.ReasonAvailable, "The queue exists, and the pod exists")
	return s.writeStatus(ctx)
}

// providerMissing says why no provider can be had, and when to look again.
func (s *recordScope) providerMissing(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, queue.ErrProviderNotFound):
		conditions.Reconciling(s.record, v1alpha1.ReasonWaitingForProvider, err.Error())
	case errors.Is(err, queue.ErrProviderNotAllowed):
		conditions.Stalled(s.record, v1alpha1.ReasonProviderNotAllowed, err.Error())
	case errors.Is(err, queue.ErrProviderInvalid):
		conditions.Stalled(s.record, v1alpha1.ReasonProviderInvalid, err.Error())
	default:
		return err
	}
	s.look(slowRetry)
	return s.writeStatus(ctx)
}

// sqsFailed says what SQS said, and when to try again. creating distinguishes a queue that could not be made.
func (s *recordScope) sqsFailed(ctx context.Context, err error, creating bool) error {
	said := queue.Explain(err)
	stall := func(reason string) {
		conditions.Stalled(s.record, reason, said)
		if creating {
			s.record.Status.State = v1alpha1.ReplyQueueFailed
		}
		s.look(slowRetry)
	}
	switch queue.Classify(err) {
	case queue.Throttled:
		after, ok := queue.RetryAfter(err)
		if !ok {
			after = throttledRetry
		}
		conditions.Reconciling(s.record, v1alpha1.ReasonThrottled, "AWS throttles our requests; the next is made when it allows")
		s.look(after)
	case queue.DeletedRecently:
		conditions.Reconciling(s.record, v1alpha1.ReasonQueueDeletedRecently, said)
		s.look(time.Minute)
	case queue.Fenced:
		stall(v1alpha1.ReasonIdentityConflict)
	case queue.Unproven:
		after, _ := queue.RetryAfter(err)
		conditions.Reconciling(s.record, v1alpha1.ReasonIdentityUnproven, said)
		s.look(after)
	case queue.Denied:
		stall(v1alpha1.ReasonAccessDenied)
	case queue.KMS:
		stall(v1alpha1.ReasonKMSError)
	case queue.Invalid, queue.Exists:
		stall(v1alpha1.ReasonInvalid)
	default:
		conditions.Reconciling(s.record, v1alpha1.ReasonSQSUnavailable, said)
		if writeErr := s.writeStatus(ctx); writeErr != nil {
			return errors.Join(err, writeErr)
		}
		return err
	}
	return s.writeStatus(ctx)
}

// confirm reads pod and Lease from the API server and decides again. Only what still holds then is closed, and the
// Lease only over the version that was read: a heartbeat in between is a conflict, and keeps the queue.
func (s *recordScope) confirm(ctx context.Context) error {
	pod, err := s.reader(ctx, s.Reader)
	if err != nil {
		return err
	}
	reader := readerOf(s.record)
	lease, err := s.leaseOf(ctx, reader)
	if err != nil {
		return err
	}
	s.again = 0
	s.now = s.Signals.Clock.Now()
	observed := s.observe(pod)
	decision := s.Signals.decide(observed, s.now)
	if decision.Action != lifecycle.Close {
		s.look(decision.Again)
		s.note(observed)
		s.pod = pod
		if decision.Action == lifecycle.Drain {
			return s.drain(ctx, decision)
		}
		return s.keep(ctx, decision)
	}
	idle := decision.Reason == v1alpha1.CloseIdle
	if idle || (pod != nil && decision.Reason != v1alpha1.ClosePodStopped) {
		heard := s.Signals.Heartbeats.Hear(reader, s.now)
		if (idle && lease == nil) || (lease != nil && heartbeat.RenewalOf(lease) != heard.Renewal) {
			// Something was written that the watch has not delivered yet.
			s.look(staleRetry)
			return nil
		}
		if seen, err := s.beaconSeen(ctx); err != nil || !seen {
			s.look(staleRetry)
			return err
		}
		// That it is the same may have become so just now, with the word that etcd was set back.
		if s.Signals.decide(s.observe(pod), s.now).Action != lifecycle.Close {
			s.look(staleRetry)
			return nil
		}
	}
	return s.close(ctx, decision, lease)
}

// beaconSeen says that the API server has the operator's own Lease as the watch delivered it last. Another says that what was
// read just now is not of the time that the watch is at: the watch is late, or etcd was set back, and with it a heartbeat that
// was answered, and the watch does not know it yet. Where there is no such Lease, nothing is said.
func (s *recordScope) beaconSeen(ctx context.Context) (bool, error) {
	beacon := &coordinationv1.Lease{}
	err := s.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName}, beacon)
	if err != nil {
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}
	return s.Signals.Heartbeats.Beacon() == heartbeat.RenewalOf(beacon), nil
}

// leaseOf reads a pod's Lease from the API server; nil when there is none.
func (s *recordScope) leaseOf(ctx context.Context, reader types.UID) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	err := s.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: string(reader)}, lease)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return lease, nil
}

// announce notes on the record, before its Lease is marked closing, by what that mark is known for the operator's own:
// whoever may read records learns nothing that would let them set the mark. A mark that an earlier leader announced, and
// that arrives after this, is none any more; the queue is then closed by the next, if that still has to be.
func (s *recordScope) announce(ctx context.Context) (id string, err error) {
	id = rand.Text()
	s.record.Status.ClosingIDHash = hashOfID(id)
	if err := s.writeStatus(ctx); err != nil {
		return "", err
	}
	s.before = s.record.DeepCopy()
	return id, nil
}

// close marks the queue closed for ever: first on the Lease, so that the application stops using it, then on the
// record, so that every later leader finishes it. Only then is the queue deleted.
func (s *recordScope) close(ctx context.Context, decision lifecycle.Decision, lease *coordinationv1.Lease) error {
	if lease != nil {
		id, err := s.announce(ctx)
		if err != nil {
			return err
		}
		if err := closeLease(ctx, s.Client, lease, s.record.UID, id); err != nil {
			return err
		}
	}
	s.record.Status.State = v1alpha1.ReplyQueueClosing
	s.record.Status.Closing = &v1alpha1.Closing{Reason: decision.Reason, Message: decision.Message, Time: metav1.NewTime(s.now)}
	conditions.Remove(s.record, v1alpha1.ConditionInUse)
	conditions.Reconciling(s.record, v1alpha1.ReasonDeleting, "Closed: "+decision.Message)
	if err := s.writeStatus(ctx); err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info("Closed a reply queue", "reason", decision.Reason, "why", decision.Message, "queueURL", s.record.Status.QueueURL)
	if decision.Reason == v1alpha1.CloseIdle && s.pod != nil {
		s.Recorder.Eventf(s.pod, s.record, corev1.EventTypeWarning, EventReplyQueueIdle, "Close",
			"The reply queue was closed: %s. The application gets a new one with its next heartbeat", decision.Message)
	}
	s.before = s.record.DeepCopy()
	return s.finish(ctx)
}

// resume finishes a closing that the cache shows, where the API server has it too. Closing is never taken back, but etcd may
// have been set back to before it, and a cache whose watch hangs does not know. Who closes and finishes in one go asks nothing.
func (s *recordScope) resume(ctx context.Context) error {
	current := &v1alpha1.ReplyQueue{}
	switch err := s.Reader.Get(ctx, client.ObjectKeyFromObject(s.record), current); {
	case apierrors.IsNotFound(err):
		// Another has finished it, or it was removed by force: a queue that is left is the sweeper's, who asks for the pod.
		return s.forgetReader(ctx)
	case err != nil:
		return err
	case current.UID != s.record.UID || open(current):
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("replyqueues").GroupResource(), s.record.Name,
			errors.New("the cache shows a closing that was undone"))
	}
	s.record, s.before = current, current.DeepCopy()
	return s.finish(ctx)
}

// finish deletes the queue of a closed record, and then what is left of it in the cluster.
func (s *recordScope) finish(ctx context.Context) error {
	if err := s.deleteQueue(ctx); err != nil {
		_, noProvider := explainProvider(err)
		switch {
		case s.record.Annotations[v1alpha1.AnnotationForceDelete] == "true" && !passing(err):
			s.Recorder.Eventf(s.record, nil, corev1.EventTypeWarning, EventQueueAbandoned, "Delete",
				"Given up by the annotation %s; the queue may be left in SQS: %s", v1alpha1.AnnotationForceDelete, queue.Explain(err))
		case noProvider:
			return s.providerMissing(ctx, err)
		default:
			return s.sqsFailed(ctx, err, false)
		}
	}
	if err := s.forgetReader(ctx); err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(s.record, v1alpha1.FinalizerReplyQueue)
	if err := s.Patch(ctx, s.record, client.MergeFromWithOptions(s.before, client.MergeFromWithOptimisticLock{})); err != nil {
		return client.IgnoreNotFound(err)
	}
	if s.record.DeletionTimestamp != nil {
		return nil
	}
	return s.remove(ctx)
}

// remove deletes a record whose queue is deleted, in the version that says so: one that came back with a backup of etcd is open,
// and could not be kept for a name any more once somebody had asked for its deletion.
func (s *recordScope) remove(ctx context.Context) error {
	return client.IgnoreNotFound(s.Delete(ctx, s.record, client.Preconditions{UID: &s.record.UID, ResourceVersion: &s.record.ResourceVersion}))
}

// passing says that a queue cannot be deleted now, but can in a moment.
func passing(err error) bool {
	switch queue.Classify(err) {
	case queue.Throttled:
		return true
	case queue.Unproven:
		return !queue.Overdue(err)
	}
	return false
}

// deleteQueue deletes the record's queue in SQS. That it is not there is success.
func (s *recordScope) deleteQueue(ctx context.Context) error {
	provider, err := s.Providers.ForDeletion(ctx, s.record.Spec.ProviderRef.Name)
	if err != nil {
		return err
	}
	return provider.DeleteQueueByName(ctx, provider.ReplyQueueName(s.record.UID))
}

// forgetReader deletes the Lease of a reader that is gone or has ended, and what was remembered of it. A reader that
// lives goes on heartbeating, and is heard when it wakes.
func (s *recordScope) forgetReader(ctx context.Context) error {
	if pod, err := s.reader(ctx, s.Reader); err != nil || (pod != nil && !ended(pod)) {
		return err
	}
	reader := readerOf(s.record)
	if err := deleteLease(ctx, s.Reader, s.Client, reader); err != nil {
		return err
	}
	s.Signals.Heartbeats.Forget(reader)
	s.Signals.Pods.Forget(reader)
	return nil
}

// patchStatus writes the status if it differs from before, over that version alone.
func patchStatus(ctx context.Context, c client.Client, after, before client.Object) error {
	if equality.Semantic.DeepEqual(after, before) {
		return nil
	}
	return c.Status().Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}
