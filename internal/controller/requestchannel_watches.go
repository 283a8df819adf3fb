package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

const (
	// indexClaim finds RequestChannels by spec.queueName.
	indexClaim = "replyqueue.dev/claim"
	// indexDeadLetter finds RequestChannels by the RequestChannel, or the ARN of the queue, that takes their dead letters.
	indexDeadLetter = "replyqueue.dev/dead-letter"
	// indexARN finds RequestChannels by status.queueARN.
	indexARN = "replyqueue.dev/queue-arn"
	// indexSources finds RequestChannels by those that they take dead letters from.
	indexSources = "replyqueue.dev/dead-letters-from"
	// indexProvider finds RequestChannels and ReplyHosts by the QueueProvider they name.
	indexProvider = "replyqueue.dev/provider"
)

// IndexChannels adds the indexes that the controllers of RequestChannels and QueueProviders look things up by.
func IndexChannels(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object client.Object
		name   string
		values client.IndexerFunc
	}{
		{&corev1.Pod{}, indexServes, served},
		{&v1alpha1.RequestChannel{}, indexClaim, func(o client.Object) []string { return nonEmpty(claimOf(o.(*v1alpha1.RequestChannel))) }},
		{&v1alpha1.RequestChannel{}, indexDeadLetter, func(o client.Object) []string {
			return nonEmpty(deadLetterOf(o))
		}},
		{&v1alpha1.RequestChannel{}, indexARN, func(o client.Object) []string { return nonEmpty(arnOf(o)) }},
		{&v1alpha1.RequestChannel{}, indexSources, func(o client.Object) []string { return sourcesOf(o.(*v1alpha1.RequestChannel)) }},
		{&v1alpha1.RequestChannel{}, indexProvider, func(o client.Object) []string { return referenced(o.(*v1alpha1.RequestChannel).Spec.ProviderRef) }},
		{&v1alpha1.ReplyHost{}, indexProvider, func(o client.Object) []string { return referenced(o.(*v1alpha1.ReplyHost).Spec.ProviderRef) }},
	} {
		if err := indexer.IndexField(ctx, index.object, index.name, index.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.name, err)
		}
	}
	return nil
}

// SetupWithManager registers the controller, the indexes of IndexChannels, and the ResponderReconciler: two
// controllers, so that pods that come and go never make a channel that waits for SQS ask again.
func (r *RequestChannelReconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := IndexChannels(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	workers := r.MaxConcurrentReconciles
	if workers == 0 {
		workers = 10
	}
	if err := (&ResponderReconciler{Client: mgr.GetClient()}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the counting of responders: %w", err)
	}
	asked := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.RequestChannel{}, builder.WithPredicates(asked)).
		Watches(&v1alpha1.RequestChannel{}, handler.EnqueueRequestsFromMapFunc(r.dependents), builder.WithPredicates(predicate.Funcs{
			// One that comes may close a ring of dead letters, or be one that another takes them from.
			CreateFunc: func(event.CreateEvent) bool { return true },
			UpdateFunc: func(e event.UpdateEvent) bool {
				return takesMoved(e.ObjectOld.(*v1alpha1.RequestChannel), e.ObjectNew.(*v1alpha1.RequestChannel)) || arnOf(e.ObjectOld) != arnOf(e.ObjectNew) || deadLetterOf(e.ObjectOld) != deadLetterOf(e.ObjectNew) ||
					e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() || isLetGo(e.ObjectOld) != isLetGo(e.ObjectNew)
			},
			GenericFunc: func(event.GenericEvent) bool { return false },
		})).
		Watches(&v1alpha1.QueueProvider{}, handler.EnqueueRequestsFromMapFunc(r.channelsOfProvider),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.channelsOfNamespace), relabelled).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			// An outage of SQS is retried within a second at first and every five minutes in the end.
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](500*time.Millisecond, slowRetry),
		}).
		Complete(r)
}

// dependents are the channels that wait for this one: to be their dead-letter queue, to be one that they take dead letters from,
// or to give up a name.
func (r *RequestChannelReconciler) dependents(ctx context.Context, o client.Object) []reconcile.Request {
	channel := o.(*v1alpha1.RequestChannel)
	requests := r.upstream(ctx, channel)
	requests = append(requests, r.channels(ctx, every, client.InNamespace(channel.Namespace), client.MatchingFields{indexSources: channel.Name})...)
	if claim := claimOf(channel); claim != "" {
		requests = append(requests, r.channels(ctx, every, client.MatchingFields{indexClaim: claim})...)
	}
	return requests
}

func (r *RequestChannelReconciler) channelsOfProvider(ctx context.Context, o client.Object) []reconcile.Request {
	return r.channels(ctx, every, client.MatchingFields{indexProvider: o.GetName()})
}

func every(*v1alpha1.RequestChannel) bool { return true }

// channels are the cached channels for which wanted is true.
func (r *RequestChannelReconciler) channels(ctx context.Context, wanted func(*v1alpha1.RequestChannel) bool, options ...client.ListOption) []reconcile.Request {
	var list v1alpha1.RequestChannelList
	if err := r.Client.List(ctx, &list, options...); err != nil {
		// From the cache, only a missing index fails, and then the controller does not start.
		ctrl.LoggerFrom(ctx).Error(err, "List RequestChannels")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// claimOf is the name that a channel chose; empty when it chose none, or would not write to it.
func claimOf(channel *v1alpha1.RequestChannel) string {
	if channel.Spec.QueueName == "" || channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		return ""
	}
	return channel.Spec.QueueName
}

// isLetGo reports whether a channel is being deleted and the operator is done with it: the finalizers of others alone hold it.
func isLetGo(o client.Object) bool {
	return !o.GetDeletionTimestamp().IsZero() && !controllerutil.ContainsFinalizer(o, v1alpha1.FinalizerRequestChannel)
}

func arnOf(o client.Object) string { return o.(*v1alpha1.RequestChannel).Status.QueueARN }

func referenced(ref *v1alpha1.ProviderReference) []string {
	if ref == nil {
		return nil
	}
	return nonEmpty(ref.Name)
}

func nonEmpty(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}
