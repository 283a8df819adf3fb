package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/ptr"
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
	// bindingsPolicy names the policy that keeps the operator from the Secrets that no RequestChannel controls (config/policy/bindings.yaml).
	bindingsPolicy = "replyqueue-bindings"
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

// bind writes the Secret that the spec asks for, and removes one that it no longer asks for. What keeps it from that is told on
// BindingReady.
func (r *RequestChannelReconciler) bind(ctx context.Context, s *scope) error {
	if err := r.unbind(ctx, s); err != nil {
		return err
	}
	wanted := s.secretWanted()
	if wanted == "" {
		conditions.Remove(s.channel, v1alpha1.ConditionBindingReady)
		return nil
	}
	if err := r.provideSecret(ctx, s, wanted); err != nil {
		return s.notBound(err)
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
// any more, whatever stands in the way of the queue itself. What keeps it from that is told on BindingReady.
func (r *RequestChannelReconciler) unbind(ctx context.Context, s *scope) error {
	status := &s.channel.Status
	if status.Binding == nil || (status.Binding.Name == s.secretWanted() && status.QueueURL != "") {
		return nil
	}
	if err := r.removeSecret(ctx, s, status.Binding.Name); err != nil {
		return s.notBound(err)
	}
	status.Binding = nil
	switch {
	case s.secretWanted() == "":
		conditions.Remove(s.channel, v1alpha1.ConditionBindingReady)
	case status.QueueURL == "":
		conditions.Set(s.channel, v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "The channel has no queue now: the Secret was removed, and is written again when it has")
	}
	return nil
}

// notBound tells on BindingReady why a Secret is not as asked for, and returns what is to be told of it. Trouble that passes is no news of a
// Secret that was right; nor is it anew where it is met again, in other words.
func (s *scope) notBound(err error) error {
	const part = v1alpha1.ConditionBindingReady
	p := *judge(s.channel, err)
	if p.reason == "" {
		return &p
	}
	if p.passing {
		was := s.original
		if binding := was.Status.Binding; binding != nil && s.channel.Status.QueueURL != "" && binding.Name == s.secretWanted() &&
			conditions.Is(was, part, metav1.ConditionTrue) && conditions.Judged(was, part) {
			return &p
		}
		if told := conditions.Message(was, part); conditions.Reason(was, part) == p.reason && p.about != "" && strings.HasPrefix(told, p.about) {
			p.message = told
		}
	}
	conditions.Set(s.channel, part, metav1.ConditionFalse, p.reason, p.message)
	return &p
}

// provideSecret brings the Secret to what it should be, and notes its name in the status: before it is written, so
// that a process that stops in between still knows what to remove.
func (r *RequestChannelReconciler) provideSecret(ctx context.Context, s *scope, name string) error {
	status := &s.channel.Status
	secret, err := r.lookAtSecret(ctx, s, name)
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
	if err := r.Client.Apply(ctx, apply, fieldOwner, client.ForceOwnership); err != nil {
		return secretTrouble("written", name, err)
	}
	s.sees(name, ptr.Deref(apply.UID, ""), ptr.Deref(apply.ResourceVersion, ""))
	return nil
}

// seenSecret is a Secret as it was last seen to be the channel's.
type seenSecret struct {
	name    string
	uid     types.UID
	version string
}

// sees notes that a Secret is the channel's as it is now, so that it can be deleted where it may not be looked at any more.
func (s *scope) sees(name string, uid types.UID, version string) {
	s.memory(func(v *visit) { v.secret = seenSecret{name, uid, version} })
}

// secretTrouble tells why a Secret could not be looked at, written or deleted: nil stays nil. What the API server refuses, by a quota, an
// admission policy, or since the Secret was made immutable, somebody has to mend. What it fails in, as where a webhook that it has to ask is
// gone, is tried again as the workqueue says. That the Secret is another than a moment ago says nothing.
func secretTrouble(done, name string, err error) error {
	var answer apierrors.APIStatus
	about := fmt.Sprintf("spec.binding.secretName: Secret %s cannot be %s: ", name, done)
	message := fmt.Sprintf("%s%v", about, err)
	switch {
	case refusedByCluster(err):
		return &pause{stalled: true, reason: v1alpha1.ReasonSecretRefused, message: message, after: slowRetry, why: err}
	case errors.As(err, &answer) && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err):
		return &pause{reason: v1alpha1.ReasonProgressing, message: message, about: about, passing: true, cause: err}
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

// removeSecret deletes a Secret that the channel controls; any other is left. One that may not be looked at is deleted if it is still as it was when this
// process last saw it. One that the API server refuses to delete, since a policy of
// the cluster wants it kept, hands out nothing from then on, and goes with the channel, which owns it, if that may be.
func (r *RequestChannelReconciler) removeSecret(ctx context.Context, s *scope, name string) error {
	_, unseen := r.lookAtSecret(ctx, s, name)
	if errors.Is(unseen, errSecretNotOurs) || errors.Is(unseen, errSecretOrphaned) {
		return nil
	}
	var seen seenSecret
	if s.memory(func(v *visit) { seen = v.secret }); seen.name != name {
		return unseen // nil where there is none
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.channel.Namespace, Name: name}}
	err := r.Client.Delete(ctx, secret, client.Preconditions{UID: &seen.uid, ResourceVersion: &seen.version})
	switch {
	case err == nil, apierrors.IsNotFound(err), refusedByPolicy(err):
		return nil
	case unseen != nil && apierrors.IsConflict(err):
		return unseen // Somebody wrote to it, and whose it is now is not known.
	case refusedByCluster(err):
		emptied := r.Client.Apply(ctx, ownSecret(s.channel, name).WithUID(seen.uid), fieldOwner, client.ForceOwnership)
		if emptied == nil {
			r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventSecretLeft, "Delete",
				"Secret %s is left without the queue's coordinates, since it cannot be deleted: %s", name, err)
			return nil
		}
		if !refusedByCluster(emptied) {
			return secretTrouble("emptied", name, emptied)
		}
		err = fmt.Errorf("%w; nor can it be emptied: %w", err, emptied)
	}
	return secretTrouble("deleted", name, err)
}

// refusedByPolicy reports whether it is our own policy that keeps the operator from a Secret, since no RequestChannel controls that. Whoever
// else refuses a write says nothing about whose the Secret is.
func refusedByPolicy(err error) bool {
	var answer apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &answer) || answer.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(answer.Status().Details.Causes, func(cause metav1.StatusCause) bool {
		return strings.HasPrefix(cause.Message, "ValidatingAdmissionPolicy '"+bindingsPolicy+"' ")
	})
}

// lookAtSecret returns the channel's Secret; nil when there is none of that name, and errSecretNotOurs or
// errSecretOrphaned when there is another's. It looks by a patch that changes nothing, which the API server answers with the object and does not
// store: unlike get, a patch passes the policy that keeps the operator from everybody else's Secrets. What it found is remembered, unless it could not look.
func (r *RequestChannelReconciler) lookAtSecret(ctx context.Context, s *scope, name string) (*corev1.Secret, error) {
	channel := s.channel
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: channel.Namespace, Name: name}}
	err := r.Client.Patch(ctx, secret, client.RawPatch(types.MergePatchType, []byte(`{}`)), fieldOwner)
	if err != nil && !apierrors.IsNotFound(err) && !refusedByPolicy(err) {
		return nil, secretTrouble("looked at", name, err)
	}
	s.sees("", "", "")
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errSecretNotOurs, err)
	}
	owner := metav1.GetControllerOf(secret)
	switch {
	case secret.Type != bindingSecretType || owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || owner.Kind != "RequestChannel" || owner.Name != channel.Name:
		return nil, errSecretNotOurs
	case owner.UID != channel.UID:
		return nil, errSecretOrphaned
	}
	s.sees(name, secret.UID, secret.ResourceVersion)
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
