package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what a namespace's user may not ask for: nobody can make the operator touch a queue that they
// could not touch themselves.

// provider returns the channel's provider, or why there is none.
func (r *RequestChannelReconciler) provider(ctx context.Context, channel *v1alpha1.RequestChannel) (*queue.Provider, error) {
	provider, err := r.Providers.Get(ctx, providerName(channel), channel.Namespace)
	return provider, explained(err)
}

// explained turns the errors of Providers into pauses. Providers never ask SQS, so what they do not name is the API
// server's.
func explained(err error) error {
	switch {
	case errors.Is(err, queue.ErrProviderNotFound):
		return waiting(slowRetry, v1alpha1.ReasonWaitingForProvider, "spec.providerRef: %v", err)
	case errors.Is(err, queue.ErrProviderNotAllowed):
		return stalled(v1alpha1.ReasonProviderNotAllowed, "spec.providerRef: %v; the platform team says which namespaces may in its spec.namespaces", err)
	case errors.Is(err, queue.ErrProviderInvalid):
		return stalled(v1alpha1.ReasonProviderInvalid, "%v", err)
	}
	return ofCluster(err)
}

func providerName(channel *v1alpha1.RequestChannel) string {
	if ref := channel.Spec.ProviderRef; ref != nil {
		return ref.Name
	}
	return v1alpha1.DefaultProviderName
}

// permitted refuses what the provider does not allow the channel's namespace, and what means nothing.
func (r *RequestChannelReconciler) permitted(s *scope) error {
	if callers := s.channel.Spec.AllowedCallers; callers != nil && callers.Selector != nil {
		if _, err := metav1.LabelSelectorAsSelector(callers.Selector); err != nil {
			return stalled(v1alpha1.ReasonInvalid, "spec.allowedCallers.selector: %v; until it means something, no other namespace may call", err)
		}
	}
	return permits(s.provider, s.channel)
}

func permits(provider *queue.Provider, channel *v1alpha1.RequestChannel) error {
	spec := &channel.Spec
	takes := provider.AllowsQueueName
	if spec.AdoptionPolicy == v1alpha1.AdoptionPolicyIfConsented || spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		takes = provider.AllowsExistingName
	}
	if spec.QueueName != "" && !takes(channel.Namespace, spec.QueueName) {
		remedy := fmt.Sprintf("a pattern in spec.allowedQueueNames of QueueProvider %s would allow it, which the platform team writes", provider.Name)
		if provider.Name == v1alpha1.DefaultProviderName {
			remedy = "without a QueueProvider none is. Name one that allows it in spec.providerRef of a new RequestChannel"
		}
		return stalled(v1alpha1.ReasonQueueNameNotAllowed, "spec.queueName %s is not allowed: %s, or leave spec.queueName unset", spec.QueueName, remedy)
	}
	if spec.Policy != "" && !provider.AllowPolicies {
		remedy := fmt.Sprintf("the platform team allows policies by spec.allowPolicies of QueueProvider %s", provider.Name)
		if provider.Name == v1alpha1.DefaultProviderName {
			remedy = "without a QueueProvider no policy is"
		}
		if slices.Contains(channel.Status.AppliedAttributes, queue.Policy) {
			remedy += ". The one that was set while it was allowed stays on the queue until spec.policy is taken out"
		}
		return stalled(v1alpha1.ReasonPolicyNotAllowed, "spec.policy is not allowed: %s", remedy)
	}
	return nil
}

// oldestClaim refuses a name that an older channel claims in the same place, through whichever provider. It is asked before the queue is
// created; of a queue that exists, the tags say whose it is, and who may take it over: nil where it does not.
func (r *RequestChannelReconciler) oldestClaim(ctx context.Context, s *scope, tags map[string]string) error {
	if s.channel.Spec.QueueName == "" {
		return nil // Computed names are never shared.
	}
	var claims v1alpha1.RequestChannelList
	if err := r.Client.List(ctx, &claims, client.MatchingFields{indexClaim: claimOf(s.channel)}); err != nil {
		return ofCluster(fmt.Errorf("list claims to queue %s: %w", s.channel.Spec.QueueName, err))
	}
	for i := range claims.Items {
		other := &claims.Items[i]
		if other.UID == s.channel.UID || !older(other, s.channel) {
			continue
		}
		counts, err := r.mayClaim(ctx, s, other, tags)
		if err != nil {
			return err
		}
		if counts {
			return stalled(v1alpha1.ReasonConflict, "spec.queueName %s is claimed by the older RequestChannel %s/%s", s.channel.Spec.QueueName, other.Namespace, other.Name)
		}
	}
	return nil
}

// mayClaim reports whether a channel that claims the name of another could have it: one of another account or region, one that
// its provider is not given to, or that may not have the name, or that is suspended and has no queue, or that the operator has let
// go, does not keep it from others; nor does one that may not take over a queue that exists, with those tags.
func (r *RequestChannelReconciler) mayClaim(ctx context.Context, s *scope, channel *v1alpha1.RequestChannel, tags map[string]string) (bool, error) {
	if (isTrue(channel.Spec.Suspend) && channel.Status.QueueURL == "") || isLetGo(channel) {
		return false, nil
	}
	provider, err := r.Providers.Get(ctx, providerName(channel), channel.Namespace)
	switch {
	case errors.Is(err, queue.ErrProviderNotAllowed), errors.Is(err, queue.ErrProviderNotFound), errors.Is(err, queue.ErrProviderInvalid), apierrors.IsNotFound(err):
		return false, nil // or its namespace is gone
	case err != nil:
		return false, explained(err)
	}
	other := scope{channel: channel, provider: provider}
	return provider.SamePlace(s.provider) && permits(provider, channel) == nil && (tags == nil || other.adopts(tags)), nil
}

// older orders channels by age, and those of one second by name.
func older(a, b *v1alpha1.RequestChannel) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	if a.Namespace != b.Namespace {
		return a.Namespace < b.Namespace
	}
	return a.Name < b.Name
}

// namedDeadLetter returns the ARN of a dead-letter queue that the channel names rather than has created; empty when
// it names none.
func (r *RequestChannelReconciler) namedDeadLetter(ctx context.Context, s *scope) (string, error) {
	spec := s.channel.Spec.DeadLetter
	if spec == nil || spec.Queue != nil {
		return "", nil
	}
	s.part = v1alpha1.ConditionDeadLetterReady
	if spec.ChannelRef != nil {
		other, err := r.deadLetterOfChannel(ctx, s, spec.ChannelRef.Name)
		if err != nil {
			return "", err
		}
		return other.Status.QueueARN, s.lendsQueue(ctx, other, fieldChannelRef)
	}
	return spec.ARN, r.deadLetterByARN(ctx, s, spec.ARN)
}

// deadLetterMoved reports whether the channel that is named for dead letters is gone, is going, or has another queue than
// the one that requests are moved to, or whether a queue that is named leads back here. It reads the cache.
func (r *RequestChannelReconciler) deadLetterMoved(ctx context.Context, s *scope) bool {
	link := deadLetterOf(s.channel)
	if link == "" || s.channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		return false
	}
	if s.channel.Spec.DeadLetter.ARN != "" {
		names, err := r.ring(ctx, s)
		return err == nil && names != nil
	}
	other, err := r.deadLetterOfChannel(ctx, s, link)
	var p *pause
	if errors.As(err, &p) && p.reason == "" {
		return false // The API server failed us.
	}
	return err != nil || other.Status.QueueARN != s.channel.Status.DeadLetterTargetARN
}

const fieldChannelRef = "spec.deadLetter.channelRef"

// deadLetterOfChannel returns the channel that is named for dead letters, if it has a queue for them. It reads the cache.
func (r *RequestChannelReconciler) deadLetterOfChannel(ctx context.Context, s *scope, name string) (*v1alpha1.RequestChannel, error) {
	const field = fieldChannelRef
	if name == s.channel.Name {
		return nil, stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: a channel cannot be its own dead-letter queue", field)
	}
	if err := r.goesRound(ctx, s, field); err != nil {
		return nil, err
	}
	other := &v1alpha1.RequestChannel{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.channel.Namespace, Name: name}, other)
	switch {
	case apierrors.IsNotFound(err):
		return nil, waiting(slowRetry, v1alpha1.ReasonWaitingForDeadLetter, "%s: there is no RequestChannel %s in this namespace yet", field, name)
	case err != nil:
		return nil, ofCluster(fmt.Errorf("get RequestChannel %s: %w", name, err))
	case providerName(other) != providerName(s.channel):
		return nil, stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: RequestChannel %s uses another QueueProvider; SQS wants both queues in one account and region", field, name)
	case !takesFrom(other, s.channel.Name):
		return nil, stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: RequestChannel %s takes no dead letters from this channel: its spec.deadLettersFrom says from which it does", field, name)
	case (other.Spec.FIFO != nil) != (s.channel.Spec.FIFO != nil):
		return nil, stalled(v1alpha1.ReasonInvalid, "%s: the dead-letter queue of a FIFO queue is a FIFO queue, and of a standard queue a standard queue; RequestChannel %s is not", field, name)
	case ofAnother(other):
		return nil, stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: the queue of RequestChannel %s is another's", field, name)
	case !other.DeletionTimestamp.IsZero():
		return nil, waiting(slowRetry, v1alpha1.ReasonWaitingForDeadLetter, "%s: RequestChannel %s is being deleted; requests received too often go nowhere once its queue is gone", field, name)
	case other.Status.QueueARN == "":
		return nil, waiting(slowRetry, v1alpha1.ReasonWaitingForDeadLetter, "%s: RequestChannel %s has no queue yet", field, name)
	}
	return other, nil
}

// namedByARN returns the name of the queue that an ARN names, and its tags, which are nil where SQS shows none of that name; an empty name
// where it is in another account or region. A server that is not AWS's is asked what ARN its queue of that name has.
func (r *RequestChannelReconciler) namedByARN(ctx context.Context, s *scope, arn string) (name string, tags map[string]string, err error) {
	region, account, name, ok := queue.ParseARN(arn)
	provider := s.provider
	switch {
	case !ok:
		return "", nil, nil
	case !provider.OfAWS():
		observed, err := provider.Observe(ctx, name)
		if observed.Exists && observed.ARN != arn {
			return "", nil, err
		}
		return name, observed.Tags, err
	}
	elsewhere := func() bool {
		return region != provider.Region || (provider.AccountID() != "" && account != provider.AccountID())
	}
	if elsewhere() {
		return "", nil, nil
	}
	tags, err = provider.ConsentOf(ctx, name) // By this the account is known.
	if err == nil && elsewhere() {
		return "", nil, nil
	}
	return name, tags, err
}

// deadLetterByARN lets a channel send its dead letters to a queue within the patterns that its provider allows, or
// to one whose owner consented. Of a queue that belongs to an object elsewhere, a pattern is no consent.
func (r *RequestChannelReconciler) deadLetterByARN(ctx context.Context, s *scope, arn string) error {
	const field = "spec.deadLetter.arn"
	name, tags, err := r.namedByARN(ctx, s, arn)
	switch {
	case err != nil:
		return err
	case name == "":
		return stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: SQS wants both queues in one account and region (here %s)", field, s.provider.Region)
	case name == s.provider.ChannelQueueName(s.channel):
		return stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: a channel cannot be its own dead-letter queue", field)
	}
	if err := r.goesRound(ctx, s, field); err != nil {
		return err
	}
	owner := queue.OwnerIn(tags)
	ours := owner.Cluster == s.provider.ClusterUID && owner.Namespace == s.channel.Namespace
	free := owner == (queue.Owner{}) || ours
	if s.provider.Lends(tags, s.channel.Namespace) || (free && s.provider.AllowsQueueName(s.channel.Namespace, name)) {
		return s.shown(arn, name, tags != nil)
	}
	remedy := fmt.Sprintf("its owner can tag it %s=%s/%s", v1alpha1.TagSharedWith, s.provider.Cluster, s.channel.Namespace)
	switch {
	case ours && owner.Kind == v1alpha1.TagKindRequest:
		remedy = fmt.Sprintf("name its RequestChannel %s in spec.deadLetter.channelRef instead", owner.Name)
	case free && !s.provider.IsComputedName(name):
		remedy += ", or the platform team can allow the name in spec.allowedQueueNames of the QueueProvider"
	}
	return stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: queue %s may not be used from this namespace: %s", field, name, remedy)
}

// shown is the wait for a dead-letter queue that SQS does not show: it would refuse all that is set together with it. One answer, or what was
// created a moment ago, is no verdict.
func (s *scope) shown(arn, name string, there bool) error {
	now, lately := s.reconciler.now(), false
	s.memory(func(v *visit) {
		if there {
			v.noQueue = missedTarget{}
			return
		}
		if v.noQueue.arn != arn {
			v.noQueue = missedTarget{arn, now}
		}
		lately = now.Sub(v.noQueue.since) < propagation
	})
	if there {
		return nil
	}
	p := &pause{reason: v1alpha1.ReasonWaitingForDeadLetter, after: slowRetry, passing: lately}
	p.message = fmt.Sprintf("spec.deadLetter.arn: SQS shows no queue %s in %s", name, s.provider.Region)
	if lately {
		p.after = notThereRetry
	}
	return p
}

// notThereRetry is when to look again for a dead-letter queue that SQS does not show, as long as that is no verdict.
const notThereRetry = 15 * time.Second
