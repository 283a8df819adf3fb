package controller

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// A namespace's labels say which QueueProviders it may use and which channels its pods may call. When they change,
// what depends on that is looked at again: what was given takes effect at once, and what was taken away is noticed.

// relabelled lets a namespace wake its objects when its labels changed. That it is there, or goes, is no news to them.
var relabelled = builder.WithPredicates(predicate.And[client.Object](predicate.LabelChangedPredicate{}, predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	DeleteFunc:  func(event.DeleteEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
}))

// channelsOfNamespace are the channels of a namespace that name a QueueProvider.
func (r *RequestChannelReconciler) channelsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.channels(ctx, func(c *v1alpha1.RequestChannel) bool { return c.Spec.ProviderRef != nil }, client.InNamespace(namespace.GetName()))
}

// hostsOfNamespace are the ReplyHosts of a namespace that name a QueueProvider.
func (r *ReplyHostReconciler) hostsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.hosts(ctx, func(h *v1alpha1.ReplyHost) bool {
		return h.Namespace == namespace.GetName() && h.Spec.ProviderRef != nil
	})
}

// podsCallingOut are the pods of a namespace that call channels of others.
func (r *PodReconciler) podsCallingOut(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.podsBy(ctx, func(pod *corev1.Pod) bool {
		refs, err := references(pod)
		return err == nil && slices.ContainsFunc(refs, func(ref reference) bool { return ref.key.Namespace != pod.Namespace })
	}, client.InNamespace(namespace.GetName()))
}
