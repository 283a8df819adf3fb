package controller

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what is written to the API server before a queue is created, since afterwards it could be lost.

// holdProvider keeps the QueueProvider from going before the queue: its own reconciler may not have seen the channel yet.
// One that is being deleted gets no new users.
func (r *RequestChannelReconciler) holdProvider(ctx context.Context, s *scope, had bool) error {
	ref := s.channel.Spec.ProviderRef
	if ref == nil {
		return nil
	}
	provider := &v1alpha1.QueueProvider{}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, provider); err != nil {
		if apierrors.IsNotFound(err) {
			return explained(fmt.Errorf("%w: %s", queue.ErrProviderNotFound, ref.Name))
		}
		return ofCluster(fmt.Errorf("get QueueProvider %s: %w", ref.Name, err))
	}
	if !provider.DeletionTimestamp.IsZero() {
		if had {
			return nil
		}
		return waiting(slowRetry, v1alpha1.ReasonWaitingForProvider, "spec.providerRef: QueueProvider %s is being deleted, and takes no new users", ref.Name)
	}
	before := provider.DeepCopy()
	if !controllerutil.AddFinalizer(provider, v1alpha1.FinalizerQueueProvider) {
		return nil
	}
	if err := r.Client.Patch(ctx, provider, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return ofCluster(fmt.Errorf("hold QueueProvider %s: %w", ref.Name, err))
	}
	return nil
}

// noteTags notes the tags that a queue is about to be created with: unlike attributes, those that the spec no longer has
// could not be told from others' when the process stops in between.
func (r *RequestChannelReconciler) noteTags(ctx context.Context, s *scope, desired queue.Desired) error {
	status := &s.channel.Status
	tags := union(status.AppliedTags, sortedKeys(desired.Tags))
	if slices.Equal(tags, union(s.written.Status.AppliedTags, nil)) {
		return nil
	}
	status.AppliedTags = tags
	conditions.Reconciling(s.channel, v1alpha1.ReasonProgressing, "The queue is being created")
	return r.save(ctx, s)
}
