package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// resolveChannels finds the queues of the channels a pod names, and what its responders may answer.
func (s *podScope) resolveChannels(ctx context.Context, refs []reference) error {
	s.told.channels = injected.Channels{}
	for _, ref := range refs {
		channel := &v1alpha1.RequestChannel{}
		if err := s.Get(ctx, ref.key, channel); apierrors.IsNotFound(err) {
			s.missing(ref)
			continue
		} else if err != nil {
			return err
		}
		allowed, err := s.mayCall(ctx, channel)
		switch {
		case err != nil:
			return err
		case ref.role.Calls() && !allowed:
			s.missing(ref)
			continue
		case channel.DeletionTimestamp != nil:
			s.waitFor("RequestChannel %s is being deleted", ref.key)
			continue
		case channel.Status.QueueURL == "":
			wait := s.waitABit
			if meta.IsStatusConditionTrue(channel.Status.Conditions, v1alpha1.ConditionStalled) {
				wait = s.waitFor
			}
			wait("RequestChannel %s is not ready%s", ref.key, because(channel.Status.Conditions))
			continue
		}
		s.told.channels[ref.name] = describe(channel, ref.role)
		if err := s.tellProvider(ctx, channel, ref); err != nil {
			return err
		}
	}
	return nil
}

// missing notes that a channel is not there for the pod. Whether a channel of another namespace does not exist or does
// not allow its calls is not the pod's to know.
func (s *podScope) missing(ref reference) {
	if ref.key.Namespace == s.pod.Namespace {
		s.waitFor("RequestChannel %s does not exist", ref.key)
		return
	}
	s.waitFor("RequestChannel %s does not exist, or does not allow calls from namespace %s (spec.allowedCallers, which the team of namespace %s sets)",
		ref.key, s.pod.Namespace, ref.key.Namespace)
}

// describe is what a pod is told of one channel.
func describe(channel *v1alpha1.RequestChannel, role injected.Role) injected.Channel {
	c := injected.Channel{
		URL:        channel.Status.QueueURL,
		Role:       role,
		FIFO:       channel.Spec.FIFO != nil,
		DeadLetter: channel.Status.DeadLetterTargetARN != "", // What the queue has, and not what the spec wants.
	}
	if d := channel.Spec.DeadLetter; d != nil && c.DeadLetter && channel.Spec.ManagementPolicy != v1alpha1.ManagementPolicyObserve {
		c.MaxReceiveCount = d.MaxReceiveCount
	}
	if call := channel.Spec.Call; call != nil {
		c.TimeoutSeconds, c.MaxAttempts = ptr.Deref(call.TimeoutSeconds, 0), ptr.Deref(call.MaxAttempts, 0)
	}
	if q := channel.Spec.Queue; q != nil {
		c.VisibilityTimeoutSeconds, c.MaximumMessageBytes = ptr.Deref(q.VisibilityTimeoutSeconds, 0), ptr.Deref(q.MaximumMessageBytes, 0)
	}
	return c
}

// tellProvider adds what the channel's provider says of region, endpoint and, for responders, return addresses. A channel
// whose queue is elsewhere than those before it is not told.
func (s *podScope) tellProvider(ctx context.Context, channel *v1alpha1.RequestChannel, ref reference) error {
	name := v1alpha1.DefaultProviderName
	if channel.Spec.ProviderRef != nil {
		name = channel.Spec.ProviderRef.Name
	}
	provider, err := s.Providers.Get(ctx, name, channel.Namespace)
	if err != nil {
		if said, ok := explainProvider(err); ok {
			s.waitFor("RequestChannel %s/%s: %s", channel.Namespace, channel.Name, said)
			return nil
		}
		return err
	}
	at := placeOf("RequestChannel "+ref.key.String(), provider, channel.Status.QueueURL)
	if !s.fits(at) {
		delete(s.told.channels, ref.name)
		return nil
	}
	if s.told.region == "" {
		s.told.region, s.told.endpoint = provider.Region, provider.Endpoint
	}
	if ref.role.Serves() && s.told.returns == nil {
		prefixes, err := s.replyPrefixes(ctx, provider, at)
		if err != nil {
			return err
		}
		s.told.returns = &injected.ReturnAddresses{
			AccountID: channel.Status.AccountID,
			Region:    provider.Region,
			Endpoint:  provider.Endpoint,
			Prefixes:  prefixes,
		}
	}
	return nil
}

// mayCall says whether the pod's namespace may call the channel.
func (s *podScope) mayCall(ctx context.Context, channel *v1alpha1.RequestChannel) (bool, error) {
	if channel.Namespace == s.pod.Namespace {
		return true, nil
	}
	callers := channel.Spec.AllowedCallers
	if callers == nil {
		return false, nil
	}
	switch callers.From {
	case v1alpha1.NamespacesFromAll:
		return true, nil
	case v1alpha1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(callers.Selector)
		if err != nil {
			return false, nil //nolint:nilerr // A selector that means nothing allows nobody.
		}
		namespace := &corev1.Namespace{}
		if err := s.Get(ctx, client.ObjectKey{Name: s.pod.Namespace}, namespace); err != nil {
			return false, err
		}
		return selector.Matches(labels.Set(namespace.Labels)), nil
	default:
		return false, nil
	}
}

// because is what an object's Ready condition says, as the end of a sentence.
func because(conditions []metav1.Condition) string {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	if c == nil || c.Status == metav1.ConditionTrue {
		return " yet"
	}
	return fmt.Sprintf(": %s: %s", c.Reason, c.Message)
}

// ledgerRetry is when to look again while the list of Leases has not arrived after a start.
const ledgerRetry = time.Second
