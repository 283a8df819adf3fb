package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// This file makes a channel a Provisioned Service of servicebinding.io: a Secret with the queue's coordinates, which
// the channel controls and status.binding.name names.
//
// The operator may create, patch and delete Secrets, but not get, list or watch them, and the policy
// replyqueue-bindings lets it write those alone that a RequestChannel controls: it can read nobody's Secrets.

// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;patch;delete

const (
	// bindingSecretType is "servicebinding.io/" and the entry "type" (servicebinding.io, Provisioned Service).
	bindingSecretType = "servicebinding.io/sqs"
	// fieldOwner is who the operator is to server-side apply.
	fieldOwner = client.FieldOwner("replyqueue")
	// secretGoneRetry is when to look again for a Secret that is being deleted.
	secretGoneRetry = 10 * time.Second
)

var (
	// errSecretNotOurs: the Secret exists and the channel does not control it.
	errSecretNotOurs = errors.New("it is not this channel's")
	// errSecretOrphaned: an earlier channel of this name controlled it, so that Kubernetes removes it.
	errSecretOrphaned = errors.New("it was an earlier RequestChannel's of this name, and Kubernetes' garbage collector removes it")
)

// bind writes the Secret that the spec asks for, and removes one that it no longer asks for.
func (r *RequestChannelReconciler) bind(ctx context.Context, s *scope) error {
	wanted := s.secretWanted()
	if wanted != "" || s.channel.Status.Binding != nil {
		s.part = v1alpha1.ConditionBindingReady
	}
	if err := r.unbind(ctx, s); err != nil {
		return err
	}
	if wanted == "" {
		conditions.Remove(s.channel, v1alpha1.ConditionBindingReady)
		return nil
	}
	if err := r.provideSecret(ctx, s, wanted); err != nil {
		return err
	}
	conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable, "The Secret holds the queue's coordinates")
	return nil
}

// secretWanted is the name of the Secret that the spec asks for; empty: none.
func (s *scope) secretWanted() string {
	if b := s.channel.Spec.Binding; b != nil {
		return b.SecretName
	}
	return ""
}

// unbind removes a Secret that the spec no longer asks for, or that would go on handing out a queue which is not the channel's
// any more, whatever stands in the way of the queue itself.
func (r *RequestChannelReconciler) unbind(ctx context.Context, s *scope) error {
	status := &s.channel.Status
	if status.Binding == nil || (status.Binding.Name == s.secretWanted() && status.QueueURL != "") {
		return nil
	}
	if err := r.removeSecret(ctx, s.channel, status.Binding.Name); err != nil {
		if p := judge(s.channel, err); p.reason != "" {
			conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionFalse, p.reason, p.message)
		}
		return err
	}
	status.Binding = nil
	if s.secretWanted() == "" {
		conditions.Remove(s.channel, v1alpha1.ConditionBindingReady)
		return nil
	}
	conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "The channel has no queue now: the Secret was removed, and is written again when it has")
	return nil
}

// provideSecret brings the Secret to what it should be, and notes its name in the status: before it is written, so
// that a process that stops in between still knows what to remove.
func (r *RequestChannelReconciler) provideSecret(ctx context.Context, s *scope, name string) error {
	status := &s.channel.Status
	secret, err := r.lookAtSecret(ctx, s.channel, name)
	switch {
	case errors.Is(err, errSecretNotOurs):
		status.Binding = nil
		return stalled(v1alpha1.ReasonSecretNotOwned, "spec.binding.secretName: Secret %s exists and %v; it is left as it is. Use another name, or delete it", name, err)
	case errors.Is(err, errSecretOrphaned):
		return waiting(secretGoneRetry, v1alpha1.ReasonProgressing, "spec.binding.secretName: Secret %s exists: %v", name, err)
	case err != nil:
		return err
	case secret != nil && !secret.DeletionTimestamp.IsZero():
		return waiting(secretGoneRetry, v1alpha1.ReasonProgressing, "spec.binding.secretName: Secret %s is being deleted, and is written again when it is gone", name)
	case secret == nil && (status.Binding == nil || status.Binding.Name != name):
		status.Binding = &v1alpha1.BindingStatus{Name: name}
		conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "The Secret is being written")
		conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The Secret of spec.binding is being written")
		if err := r.save(ctx, s); err != nil {
			return err
		}
	}
	status.Binding = &v1alpha1.BindingStatus{Name: name}
	entries := bindingEntries(s.channel)
	if secret != nil && holds(secret, entries) {
		return nil
	}
	apply := ownSecret(s.channel, name).WithData(entries)
	if secret != nil {
		apply = apply.WithUID(secret.UID) // Another of that name is not the one that was looked at.
	}
	err = r.Client.Apply(ctx, apply, fieldOwner, client.ForceOwnership)
	return secretTrouble("written", name, err)
}

// secretTrouble tells why a Secret could not be looked at, written or deleted: nil stays nil. What the API server refuses, by a quota, an
// admission policy, or since the Secret was made immutable, somebody has to mend. What it fails in, as where a webhook that it has to ask is
// gone, is tried again as the workqueue says. That the Secret is another than a moment ago says nothing.
func secretTrouble(done, name string, err error) error {
	var answer apierrors.APIStatus
	message := fmt.Sprintf("spec.binding.secretName: Secret %s cannot be %s: %v", name, done, err)
	switch {
	case refusedByCluster(err):
		return &pause{stalled: true, reason: v1alpha1.ReasonSecretRefused, message: message, after: slowRetry, why: err}
	case errors.As(err, &answer) && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err):
		return &pause{reason: v1alpha1.ReasonProgressing, message: message, passing: true, cause: err}
	case err != nil:
		return ofCluster(fmt.Errorf("have Secret %s %s: %w", name, done, err))
	}
	return nil
}

// ownSecret is what the operator applies of a channel's Secret, but for its entries.
func ownSecret(channel *v1alpha1.RequestChannel, name string) *corev1apply.SecretApplyConfiguration {
	owner := metav1apply.OwnerReference().WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind("RequestChannel").
		WithName(channel.Name).WithUID(channel.UID).WithController(true)
	return corev1apply.Secret(name, channel.Namespace).WithType(bindingSecretType).
		WithLabels(map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator}).WithOwnerReferences(owner)
}

// removeSecret deletes a Secret that the channel controls; any other is left. One that the API server refuses to delete, since a policy of
// the cluster wants it kept, hands out nothing from then on, and goes with the channel, which owns it, if that may be.
func (r *RequestChannelReconciler) removeSecret(ctx context.Context, channel *v1alpha1.RequestChannel, name string) error {
	secret, err := r.lookAtSecret(ctx, channel, name)
	if errors.Is(err, errSecretNotOurs) || errors.Is(err, errSecretOrphaned) || (err == nil && secret == nil) {
		return nil
	}
	if err != nil {
		return err
	}
	err = r.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	if refusedByCluster(err) {
		emptied := r.Client.Apply(ctx, ownSecret(channel, name).WithUID(secret.UID), fieldOwner, client.ForceOwnership)
		if emptied == nil {
			r.Recorder.Eventf(channel, nil, corev1.EventTypeWarning, EventSecretLeft, "Delete",
				"Secret %s is left without the queue's coordinates, since it cannot be deleted: %s", name, err)
			return nil
		}
		if !refusedByCluster(emptied) {
			return secretTrouble("emptied", name, emptied)
		}
		err = fmt.Errorf("%w; nor can it be emptied: %w", err, emptied)
	}
	return secretTrouble("deleted", name, client.IgnoreNotFound(err))
}

// lookAtSecret returns the channel's Secret; nil when there is none of that name, and errSecretNotOurs or
// errSecretOrphaned when there is another's. It looks by a patch that changes nothing, which the API server answers with the object and does not
// store: unlike get, a patch passes the policy that keeps the operator from everybody else's Secrets.
func (r *RequestChannelReconciler) lookAtSecret(ctx context.Context, channel *v1alpha1.RequestChannel, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: channel.Namespace, Name: name}}
	err := r.Client.Patch(ctx, secret, client.RawPatch(types.MergePatchType, []byte(`{}`)), fieldOwner)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("%w: %w", errSecretNotOurs, err)
	case err != nil:
		return nil, secretTrouble("looked at", name, err)
	}
	owner := metav1.GetControllerOf(secret)
	switch {
	case secret.Type != bindingSecretType || owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || owner.Kind != "RequestChannel" || owner.Name != channel.Name:
		return nil, errSecretNotOurs
	case owner.UID != channel.UID:
		return nil, errSecretOrphaned
	}
	return secret, nil
}

func bindingEntries(channel *v1alpha1.RequestChannel) map[string][]byte {
	return map[string][]byte{
		"type":     []byte("sqs"),
		"provider": []byte("aws"),
		"uri":      []byte(channel.Status.QueueURL),
		"region":   []byte(channel.Status.Region),
		"arn":      []byte(channel.Status.QueueARN),
	}
}

// holds reports whether the Secret has every entry, and our mark. What others added is theirs.
func holds(secret *corev1.Secret, entries map[string][]byte) bool {
	for key, value := range entries {
		if !slices.Equal(secret.Data[key], value) {
			return false
		}
	}
	return secret.Labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedByOperator
}
