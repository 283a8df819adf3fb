package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

const (
	// appearRetry is when to look again for a queue that may have been created a moment ago.
	appearRetry = 5 * time.Second
	// unavailableFor is how long SQS must have failed before a deletion may be forced past that.
	unavailableFor = 2 * time.Minute

	// EventQueueDeleted surfaces when a channel's queue was deleted with it.
	EventQueueDeleted = "QueueDeleted"
	// EventQueueRetained surfaces when a channel was deleted and its queue left, without our ownership.
	EventQueueRetained = "QueueRetained"
	// EventSecretLeft surfaces when a channel was deleted and the API server refuses to delete its binding's Secret.
	EventSecretLeft = "SecretLeft"
	// EventQueueLeft surfaces when a channel was deleted and a queue of its name left because it is another's.
	EventQueueLeft = "QueueLeft"
	// EventQueueAbandoned surfaces when a forced deletion left a queue behind.
	EventQueueAbandoned = "QueueAbandoned"
	// EventDeletionHeld surfaces each day that a deletion waits for messages to go, or for a queue that is offered to be taken over.
	EventDeletionHeld = "DeletionHeld"
)

// reconcileDeletion deletes or gives up the channel's queues, then lets the channel go.
func (r *RequestChannelReconciler) reconcileDeletion(ctx context.Context, s *scope) (ctrl.Result, error) {
	channel := s.channel
	if !controllerutil.ContainsFinalizer(channel, v1alpha1.FinalizerRequestChannel) {
		r.forget(client.ObjectKeyFromObject(channel), channel.UID)
		return ctrl.Result{}, nil
	}
	var p *pause
	if !isDone(channel) {
		p = judge(channel, r.release(ctx, s))
	}
	forced := isForced(channel)
	if p != nil && p.inTheWay() && r.stood(s, p) && forced {
		r.Recorder.Eventf(channel, nil, corev1.EventTypeWarning, EventQueueAbandoned, "Delete",
			"%s is set: the queue is left behind in SQS (%s)", v1alpha1.AnnotationForceDelete, p.message)
		p = nil
	}
	if p == nil {
		return ctrl.Result{}, r.letGo(ctx, s)
	}
	if !s.failing && !p.passing {
		s.memory(func(v *visit) { v.leaving.unavailable = time.Time{} })
	}
	if p.reason != "" {
		message := p.message + ". " + remedy(channel, "the queue")
		if p.stalled {
			conditions.Stalled(channel, p.reason, message)
		} else {
			conditions.Reconciling(channel, p.reason, message)
		}
	}
	if err := r.finish(ctx, s); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	return p.result()
}

func isForced(channel *v1alpha1.RequestChannel) bool {
	return channel.Annotations[v1alpha1.AnnotationForceDelete] == "true"
}

// stood reports whether what stands in a deletion's way has stood there long enough to be forced past: one answer of
// SQS's that is no verdict is tried again first.
func (r *RequestChannelReconciler) stood(s *scope, p *pause) bool {
	if p.reason != v1alpha1.ReasonSQSUnavailable {
		return true
	}
	s.failing = true
	since, now := time.Time{}, r.now()
	s.memory(func(v *visit) {
		if v.leaving.unavailable.IsZero() {
			v.leaving.unavailable = now
		}
		since = v.leaving.unavailable
	})
	return now.Sub(since) >= unavailableFor
}

// tellUntouched tells of a queue that carries the ownership tags of a channel that ends in Observe, which writes nothing. It
// keeps no deletion waiting.
func (r *RequestChannelReconciler) tellUntouched(ctx context.Context, s *scope) {
	provider, err := r.Providers.ForDeletion(ctx, providerName(s.channel))
	if err != nil {
		return
	}
	for _, desired := range []queue.Desired{provider.RequestQueue(s.channel, ""), provider.DeadLetterQueue(s.channel, "")} {
		if tags, err := provider.ConsentOf(ctx, desired.Name); err == nil && queue.OwnerIn(tags) == desired.Owner {
			r.leaves(s, desired.Name, "managementPolicy is Observe: queue %s is left as it is, with this channel's ownership tags and its messages. A channel of this name would have it again", desired.Name)
		}
	}
}

// inTheWay reports whether a deletion may have to be forced past this: SQS, or the provider, stands in its way. What
// the API server says, and being throttled, goes by; so does that it is not known yet whose the queues are, unless that is
// overdue: nobody needs to know it to leave them behind.
func (p *pause) inTheWay() bool {
	switch p.reason {
	case "", v1alpha1.ReasonThrottled, v1alpha1.ReasonProgressing, v1alpha1.ReasonDeleting:
		return false
	case v1alpha1.ReasonIdentityUnproven:
		return queue.Overdue(p.why)
	}
	return true
}

// letGo takes the channel's finalizer off: the operator is done with it. The Secret goes before, since the channel may be held by
// others for long, or may leave to Kubernetes' garbage collector what it was told to orphan.
func (r *RequestChannelReconciler) letGo(ctx context.Context, s *scope) error {
	if err := r.endBinding(ctx, s); err != nil {
		return err
	}
	if err := r.tellGone(ctx, s); err != nil {
		return client.IgnoreNotFound(err)
	}
	controllerutil.RemoveFinalizer(s.channel, v1alpha1.FinalizerRequestChannel)
	if err := r.patchMetadata(ctx, s); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer: %w", err)
	}
	r.forget(client.ObjectKeyFromObject(s.channel), s.channel.UID)
	return nil
}

// endBinding removes the Secret of a channel whose queue is gone. One that a policy of the cluster wants kept holds nothing; what the API
// server fails in is told, and holds the channel for as long as nobody forces it.
func (r *RequestChannelReconciler) endBinding(ctx context.Context, s *scope) error {
	binding := s.channel.Status.Binding
	if binding == nil {
		return nil
	}
	err := r.removeSecret(ctx, s, binding.Name)
	if p := judge(s.channel, err); p != nil && p.reason != "" {
		if !p.stalled && (!r.failedFor(s) || !isForced(s.channel)) {
			return errors.Join(err, r.tellSecretHolds(ctx, s, p.message))
		}
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventSecretLeft, "Delete", "%s", p.message)
	} else if p != nil {
		return err
	}
	s.channel.Status.Binding = nil
	return nil
}

// failedFor reports whether the API server has failed to delete the Secret for long enough to be forced past that.
func (r *RequestChannelReconciler) failedFor(s *scope) (enough bool) {
	now := r.now()
	s.memory(func(v *visit) {
		if v.leaving.secretFailed.IsZero() {
			v.leaving.secretFailed = now
		}
		enough = now.Sub(v.leaving.secretFailed) >= unavailableFor
	})
	return enough
}

// queuesDone is how it is told that the operator has ended a channel's queues, or has left them, in this deletion of this object. That is not decided anew,
// when the status does not tell any more where they were.
func queuesDone(channel *v1alpha1.RequestChannel) string {
	return fmt.Sprintf("The operator is done with the queues of this channel (UID %s, deletion asked for at %s)", channel.UID, channel.DeletionTimestamp.UTC().Format(time.RFC3339))
}

// isDone reports whether that was told of a channel that is being deleted. A status may be another deletion's: a backup puts back what was there once.
func isDone(channel *v1alpha1.RequestChannel) bool {
	return conditions.Reason(channel, v1alpha1.ConditionReady) == v1alpha1.ReasonDeleting &&
		strings.HasPrefix(conditions.Message(channel, v1alpha1.ConditionReady), queuesDone(channel))
}

// tellSecretHolds tells that a Secret alone holds a deletion. The words of one try differ from those of the next, and are told once.
func (r *RequestChannelReconciler) tellSecretHolds(ctx context.Context, s *scope, message string) error {
	s.hasNoQueue()
	if conditions.Reason(s.channel, v1alpha1.ConditionBindingReady) == v1alpha1.ReasonDeleting {
		message = conditions.Message(s.channel, v1alpha1.ConditionBindingReady)
	}
	conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonDeleting, message)
	conditions.Reconciling(s.channel, v1alpha1.ReasonDeleting, fmt.Sprintf("%s, which waits for its Secret to go. %s. %s", queuesDone(s.channel), message, remedy(s.channel, "the Secret")))
	return r.finish(ctx, s)
}

// remedy says what a deletion that is held may be told, or was told already.
func remedy(channel *v1alpha1.RequestChannel, what string) string {
	if isForced(channel) {
		return fmt.Sprintf("%s is set, and what may pass is waited for first", v1alpha1.AnnotationForceDelete)
	}
	return fmt.Sprintf("To leave %s behind, annotate the channel with %s=true", what, v1alpha1.AnnotationForceDelete)
}

// ending is what is to become of one queue of a channel that is being deleted.
type ending struct {
	name, url string
	adopted   bool
	tags      map[string]string
}

// release deletes or gives up the channel's queues. It asks SQS by name and not by what the status says, since a
// crash may have kept the status from being written, and people may write to it.
func (r *RequestChannelReconciler) release(ctx context.Context, s *scope) error {
	channel := s.channel
	if channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		r.tellUntouched(ctx, s)
		return nil
	}
	provider, err := r.Providers.ForDeletion(ctx, providerName(channel))
	if errors.Is(err, queue.ErrProviderNotFound) && channel.Status.QueueURL == "" {
		// A provider is held while it is used, so nothing was ever made with this one, unless the channel came out of a backup.
		r.Recorder.Eventf(channel, nil, corev1.EventTypeWarning, EventQueueAbandoned, "Delete",
			"QueueProvider %s does not exist. If this channel was restored from a backup and had a queue, that is left behind in SQS", providerName(channel))
		return nil
	}
	if err != nil {
		return explained(err)
	}
	s.provider = provider
	if providerName(channel) == v1alpha1.DefaultProviderName && channel.Spec.QueueName != "" && channel.Status.QueueURL == "" {
		return nil // The operator's own environment gives no names out and never did: nothing was made.
	}
	if err := r.elsewhere(s); err != nil {
		return err
	}
	// Giving a queue up takes its ownership tags away, which would be as bad for the cluster that owns it.
	if err := provider.MayDelete(); err != nil {
		return err
	}
	endings, unseen, err := r.endings(ctx, s)
	if channel.Spec.DeletionPolicy == v1alpha1.DeletionPolicyDeleteIfEmpty {
		// What is forced leaves behind what cannot be looked at, and what holds messages, and nothing else.
		forced := func(wait error) bool {
			p := judge(channel, wait)
			return isForced(channel) && p.inTheWay() && r.stood(s, p)
		}
		if wait := cmp.Or(err, unseen); wait != nil && !forced(wait) { // Messages of both queues count, and one cannot be looked at yet.
			return wait
		}
		empty, waits := r.emptied(ctx, s, endings)
		if waits != nil {
			if !forced(waits) {
				return waits
			}
			endings, err, unseen = empty, bothOf(channel, cmp.Or(err, unseen), waits), nil
		}
	}
	// What stands in the way of one queue does not keep the other: a deletion that is forced leaves behind what it must.
	for _, e := range endings {
		if failed := r.end(ctx, s, e); failed != nil && err == nil {
			err = about(channel, e.name, failed)
		}
	}
	return bothOf(channel, err, unseen)
}

// about is an error that says which queue it is about: SQS's words do not always.
func about(channel *v1alpha1.RequestChannel, name string, err error) error {
	p := *judge(channel, err)
	p.message = fmt.Sprintf("queue %s: %s", name, p.message)
	return &p
}

// bothOf is an error that tells of another one too, where there are two: they are about different queues.
func bothOf(channel *v1alpha1.RequestChannel, one, other error) error {
	if one == nil || other == nil {
		return cmp.Or(one, other)
	}
	p, also := *judge(channel, one), judge(channel, other)
	p.message += "; " + also.message
	if also.after > 0 {
		p.after = min(p.after, also.after)
	}
	return &p
}

// endings are the channel's queues that exist and are ours. The dead-letter queue is looked for whatever spec and status
// say: it may have been made before spec.deadLetter was taken out and the status lost. It counts as adopted if the request queue was,
// which names it and is left; while that cannot be told, it is not ended. unseen is the wait for a queue that
// may have been created and is not shown, or of which it is not certain that it is the channel's still, or that is offered to another.
func (r *RequestChannelReconciler) endings(ctx context.Context, s *scope) (all []ending, unseen, err error) {
	spec, status := &s.channel.Spec, &s.channel.Status
	request, deadLetter := s.provider.RequestQueue(s.channel, ""), s.provider.DeadLetterQueue(s.channel, "")
	spokenOf := status.DeadLetterQueueURL != "" || (spec.DeadLetter != nil && spec.DeadLetter.Queue != nil)
	adopted, unknown, awaited := isTrue(status.Adopted), false, false
	for _, desired := range []queue.Desired{request, deadLetter} {
		url, failed := s.provider.QueueURL(ctx, desired.Name)
		var tags map[string]string
		if failed == nil {
			tags, failed = s.provider.Tags(ctx, url)
		}
		left := time.Duration(0)
		switch {
		case failed == nil:
			left = s.noteOffer(desired, tags)
		case queue.Classify(failed) == queue.NotFound:
			s.endOffer(desired.Name)
		}
		switch {
		case queue.Classify(failed) == queue.NotFound:
			known, named := status.QueueURL, true
			if desired.Name == deadLetter.Name {
				known, named = status.DeadLetterQueueURL, status.DeadLetterQueueARN != "" || status.DeadLetterQueueURL != ""
			}
			if named && s.mayAppear(desired.Name, known) {
				unseen = waiting(appearRetry, v1alpha1.ReasonProgressing, "queue %s may have been created a moment ago, and SQS does not show it", desired.Name)
			}
		case failed != nil:
			err = about(s.channel, desired.Name, failed)
			unknown = status.QueueURL == "" && spec.DeletionPolicy == ""
			awaited = s.offerOf(request.Name) >= 0 // It may be another's by now.
		case queue.OwnerIn(tags) == desired.Owner && unknown:
			// What was read of the request queue is the error.
		case queue.OwnerIn(tags) == desired.Owner:
			if desired.Name == request.Name && queue.IsAdopted(tags) {
				adopted = true
			}
			e := ending{name: desired.Name, url: url, tags: tags, adopted: adopted || queue.IsAdopted(tags)}
			doubt, failed := r.holds(ctx, s, e, left, awaited)
			awaited = s.offerOf(request.Name) >= 0 && !r.givesUp(s, e)
			switch {
			case errors.Is(doubt, errLeft):
			case failed != nil:
				err = about(s.channel, desired.Name, failed)
			case doubt != nil:
				unseen = bothOf(s.channel, unseen, doubt)
			default:
				all = append(all, e)
			}
		case s.takenLately(desired):
			unseen = takenOver(desired.Name)
		case r.permitted(s) != nil && status.QueueURL == "":
			// Who may not have the name is not told that there is a queue. Had it been allowed before, and this been the
			// channel's, its tags would say so.
		case desired.Name == request.Name || spokenOf:
			r.leaves(s, desired.Name, "Queue %s is not this channel's, and is left as it is", desired.Name)
		}
	}
	return all, unseen, err
}

// errLeft: a queue is left in SQS as it is.
var errLeft = errors.New("the queue is left as it is")

// holds is why a queue of the channel's is not to be deleted or given up now, or errLeft; nil: it is. left is noteOffer's. awaited: it is the dead-letter
// queue of a request queue that is offered, and goes no sooner than that, which names it. Who has the consent is not kept from a queue by its being
// left, so a namespace that is being deleted waits no longer for that to be used than for messages.
func (r *RequestChannelReconciler) holds(ctx context.Context, s *scope, e ending, left time.Duration, awaited bool) (doubt, failed error) {
	to := s.provider.OfferedTo(e.tags)
	if to != "" && !r.givesUp(s, e) {
		outlasted, failed := r.outlasted(ctx, s)
		if failed != nil {
			return nil, failed
		}
		if outlasted {
			s.givesUp = append(s.givesUp, e.name)
			if dead := s.provider.DeadLetterQueue(s.channel, "").Name; e.name != dead {
				s.givesUp = append(s.givesUp, dead) // It goes with the queue that names it.
			}
		}
	}
	if to != "" && r.givesUp(s, e) {
		r.leaves(s, e.name, "Queue %s is left in SQS as it is, with this channel's ownership tags, since it is offered to %s by its tag %s. Until that has it, a channel of this name would have it again",
			e.name, to, v1alpha1.TagAdoptableBy)
		return errLeft, nil
	}
	if doubt = s.offered(e.name, left, "neither deleted nor given up"); doubt != nil {
		if left == 0 {
			r.warnHeld(s, fmt.Sprintf("queue %s to be taken over by %s, to whom its tag %s offers it", e.name, to, v1alpha1.TagAdoptableBy), "Take that tag off")
		}
		return doubt, nil
	}
	if awaited && !r.givesUp(s, e) {
		return stalled(v1alpha1.ReasonOffered, "dead-letter queue %s waits for what becomes of the queue that is offered, which names it", e.name), nil
	}
	return r.doubted(ctx, s, e.name, e.url)
}

// givesUp reports whether a queue is to be left in SQS.
func (*RequestChannelReconciler) givesUp(s *scope, e ending) bool {
	policy := s.channel.Spec.DeletionPolicy
	return policy == v1alpha1.DeletionPolicyRetain || slices.Contains(s.givesUp, e.name) || (policy == "" && e.adopted)
}

func (r *RequestChannelReconciler) end(ctx context.Context, s *scope, e ending) error {
	if r.givesUp(s, e) {
		keys := slices.DeleteFunc(queue.OwnTags(), func(key string) bool { return e.tags[key] == "" })
		if err := s.provider.Untag(ctx, e.url, keys); err != nil && queue.Classify(err) != queue.NotFound {
			return err
		}
		if !s.leavesBehind(e.name) {
			return nil
		}
		if told := s.abandons[e.name]; told != "" {
			r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventQueueAbandoned, "Delete", "%s", told)
		}
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventQueueRetained, "UntagQueue", "Queue %s is left in SQS, without ownership tags", e.name)
		return nil
	}
	if err := s.provider.Delete(ctx, e.url); err != nil {
		return err
	}
	s.deleted(e.name)
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventQueueDeleted, "DeleteQueue", "Queue %s was deleted", e.name)
	return nil
}
