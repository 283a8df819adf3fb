package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// indexServes finds pods by the names of the RequestChannels, in their own namespace, that they serve.
const indexServes = "replyqueue.dev/serves"

// ResponderReconciler counts the pods that serve each RequestChannel. It never asks SQS.
type ResponderReconciler struct {
	Client client.Client
}

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch

var _ reconcile.Reconciler = (*ResponderReconciler)(nil)

// SetupWithManager registers the controller. The indexes of IndexChannels are RequestChannelReconciler's to add.
func (r *ResponderReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("requestchannel-responders").
		For(&v1alpha1.RequestChannel{}, builder.WithPredicates(predicate.Funcs{
			UpdateFunc:  func(event.UpdateEvent) bool { return false },
			DeleteFunc:  func(event.DeleteEvent) bool { return false },
			GenericFunc: func(event.GenericEvent) bool { return false },
		})).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(channelsServed), builder.WithPredicates(predicate.Funcs{
			UpdateFunc: func(e event.UpdateEvent) bool {
				return !slices.Equal(served(e.ObjectOld), served(e.ObjectNew)) || standing(e.ObjectOld) != standing(e.ObjectNew)
			},
			GenericFunc: func(event.GenericEvent) bool { return false },
		})).
		Complete(r)
}

// Reconcile counts one channel's responders into its status, and writes it if the count changed. A channel that
// never had any has no count.
func (r *ResponderReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	channel := &v1alpha1.RequestChannel{}
	if err := r.Client.Get(ctx, request.NamespacedName, channel); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	total, ready, err := r.count(ctx, channel)
	if err != nil {
		return ctrl.Result{}, err
	}
	counts := &v1alpha1.ResponderCounts{Total: &total, Ready: &ready}
	if (total == 0 && channel.Status.Responders == nil) || sameStatus(channel.Status.Responders, counts) {
		return ctrl.Result{}, nil
	}
	before := channel.DeepCopy()
	channel.Status.Responders = counts
	// Only the count is in the patch: the rest of the status is RequestChannelReconciler's.
	if err := r.Client.Status().Patch(ctx, channel, client.MergeFrom(before)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("write the number of responders: %w", err))
	}
	return ctrl.Result{}, nil
}

func (r *ResponderReconciler) count(ctx context.Context, channel *v1alpha1.RequestChannel) (total, ready int32, err error) {
	var pods corev1.PodList
	err = r.Client.List(ctx, &pods, client.InNamespace(channel.Namespace), client.MatchingFields{indexServes: channel.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return 0, 0, fmt.Errorf("list responders: %w", err)
	}
	for i := range pods.Items {
		switch standing(&pods.Items[i]) {
		case podReady:
			ready++
			total++
		case podPresent:
			total++
		}
	}
	return total, ready, nil
}

func channelsServed(_ context.Context, o client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range served(o) {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}})
	}
	return requests
}

type podStanding int

const (
	podOver podStanding = iota
	podPresent
	podReady
)

// standing is what a pod counts for.
func standing(o client.Object) podStanding {
	pod := o.(*corev1.Pod)
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return podOver
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return podReady
		}
	}
	return podPresent
}

// served are the names of the channels that an opted-in pod says it serves, with or without its own namespace's name.
func served(o client.Object) []string {
	switch o.GetLabels()[v1alpha1.LabelInject] {
	case v1alpha1.InjectTrue, v1alpha1.InjectBestEffort:
	default:
		return nil
	}
	var all []string
	for reference := range strings.SplitSeq(o.GetAnnotations()[v1alpha1.AnnotationServes], ",") {
		// As references reads it: a pod answers channels of its own namespace, whichever way it names them.
		name, namespace, qualified := strings.Cut(strings.TrimSpace(reference), ".")
		if name != "" && (!qualified || namespace == o.GetNamespace()) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
