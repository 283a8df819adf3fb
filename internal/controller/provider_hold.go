package controller

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// errProviderLeaving: the QueueProvider is being deleted.
var errProviderLeaving = errors.New("QueueProvider is being deleted, and takes no new users")

// providerLeaves reports whether err says that the QueueProvider is being deleted.
func providerLeaves(err error) bool { return errors.Is(err, errProviderLeaving) }

// holdProvider sees to it that the QueueProvider does not go before its new user: its own reconciler may not have seen that
// one yet. What it reads is not from a cache. Whoever is let in here was in the cache already, so a deletion that comes
// later meets a reconciler that counts it; and the finalizer goes with the deletion alone.
func holdProvider(ctx context.Context, c client.Client, uncached client.Reader, name string) error {
	if name == v1alpha1.DefaultProviderName {
		return nil // the operator's own environment
	}
	provider := &v1alpha1.QueueProvider{}
	if err := uncached.Get(ctx, client.ObjectKey{Name: name}, provider); err != nil {
		if apierrors.IsNotFound(err) {
			return explained(fmt.Errorf("%w: %s", queue.ErrProviderNotFound, name))
		}
		return ofCluster(fmt.Errorf("get QueueProvider %s: %w", name, err))
	}
	if !provider.DeletionTimestamp.IsZero() {
		return &pause{
			reason: v1alpha1.ReasonWaitingForProvider, after: slowRetry, why: errProviderLeaving,
			message: fmt.Sprintf("spec.providerRef: QueueProvider %s is being deleted, and takes no new users", name),
		}
	}
	before := provider.DeepCopy()
	if !controllerutil.AddFinalizer(provider, v1alpha1.FinalizerQueueProvider) {
		return nil
	}
	if err := c.Patch(ctx, provider, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return ofCluster(fmt.Errorf("hold QueueProvider %s: %w", name, err))
	}
	return nil
}
