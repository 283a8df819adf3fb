package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// EventInUse surfaces on a ReplyHost whose deletion waits for its pods.
const EventInUse = "InUse"

// ReplyHostReconciler sums up the reply queues of a ReplyHost, and holds its deletion while pods use them, as a
// PersistentVolumeClaim is held. The queues themselves are the records' business.
type ReplyHostReconciler struct {
	client.Client
	// Reader reads from the API server what a cache may not show yet; nil: Client.
	Reader    client.Reader
	Recorder  events.EventRecorder
	Providers queue.Providers
	Signals   *Signals
	// Outages wake the reconciler for every ReplyHost when an outage of heartbeats begins or ends, or their policy goes or
	// comes.
	Outages <-chan event.TypedGenericEvent[struct{}]
}

// SetupWithManager adds the reconciler to mgr.
func (r *ReplyHostReconciler) SetupWithManager(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("replyhost").
		For(&v1alpha1.ReplyHost{}).
		Owns(&v1alpha1.ReplyQueue{}).
		Watches(&v1alpha1.QueueProvider{}, handler.EnqueueRequestsFromMapFunc(r.hostsOfProvider)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.hostsOfNamespace), relabelled).
		WithOptions(workers(1))
	if r.Outages != nil {
		b = b.WatchesRawSource(source.TypedChannel(r.Outages, handler.TypedEnqueueRequestsFromMapFunc(
			func(ctx context.Context, _ struct{}) []reconcile.Request {
				return r.hosts(ctx, func(*v1alpha1.ReplyHost) bool { return true })
			})))
	}
	return b.Complete(r)
}

// +kubebuilder:rbac:groups=replyqueue.dev,resources=replyhosts,verbs=get;list;watch;update;patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=replyhosts/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=replyhosts/finalizers,verbs=update

// Reconcile brings one ReplyHost's status up to date.
func (r *ReplyHostReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	host := &v1alpha1.ReplyHost{}
	if err := r.Get(ctx, request.NamespacedName, host); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var records v1alpha1.ReplyQueueList
	if err := r.List(ctx, &records, client.InNamespace(host.Namespace), client.MatchingFields{indexHost: host.Name}); err != nil {
		return reconcile.Result{}, err
	}
	if host.DeletionTimestamp != nil && len(records.Items) == 0 {
		if unused, err := r.noneSilent(ctx, host); err != nil {
			return reconcile.Result{}, err
		} else if unused {
			if !controllerutil.RemoveFinalizer(host, v1alpha1.FinalizerReplyHost) {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, client.IgnoreNotFound(r.Update(ctx, host))
		}
	}
	held := r.admit(ctx, host)
	if held != nil && !waitsForProvider(held) {
		return reconcile.Result{}, ignoreConflict(held)
	}
	before := host.DeepCopy()
	host.Status.Queues = r.count(host, records.Items)
	if err := r.judge(ctx, host, held); err != nil {
		return reconcile.Result{}, err
	}
	if err := patchStatus(ctx, r.Client, host, before); err != nil {
		return reconcile.Result{}, ignoreConflict(err)
	}
	if host.DeletionTimestamp != nil && !conditions.Is(before, v1alpha1.ConditionInUse, metav1.ConditionTrue) {
		r.Recorder.Eventf(host, nil, corev1.EventTypeWarning, EventInUse, "Delete",
			"The deletion waits for pods to go: %s", users(host.Status.Queues))
	}
	if !r.Signals.Heartbeats.Listed() {
		return reconcile.Result{RequeueAfter: ledgerRetry}, nil
	}
	if *host.Status.Queues.Idle > 0 || host.DeletionTimestamp != nil {
		// A silent pod has no record whose end would tell of its own.
		return reconcile.Result{RequeueAfter: idleRecount}, nil
	}
	return reconcile.Result{}, nil
}

// admit puts the finalizer on a ReplyHost, once its QueueProvider is held. The pod controller writes no record before it
// sees that finalizer.
func (r *ReplyHostReconciler) admit(ctx context.Context, host *v1alpha1.ReplyHost) error {
	if host.DeletionTimestamp != nil || controllerutil.ContainsFinalizer(host, v1alpha1.FinalizerReplyHost) {
		return nil
	}
	if err := holdProvider(ctx, r.Client, r.uncached(), providerOf(host)); err != nil {
		return err
	}
	controllerutil.AddFinalizer(host, v1alpha1.FinalizerReplyHost)
	return r.Update(ctx, host)
}

// waitsForProvider reports whether err says that there is no QueueProvider to be had, rather than that the API server failed.
func waitsForProvider(err error) bool {
	var p *pause
	return errors.As(err, &p) && p.reason == v1alpha1.ReasonWaitingForProvider
}

// idleRecount is when to count again while there are silent pods.
const idleRecount = time.Minute

// noneSilent says that no pod of the ReplyHost lives without a queue, to be given another with its next heartbeat. The API
// server is asked, since the watch of Leases may be behind that of records. Where their namespace is missing, nobody is heard.
func (r *ReplyHostReconciler) noneSilent(ctx context.Context, host *v1alpha1.ReplyHost) (bool, error) {
	if r.Signals.Heartbeats.Homeless() {
		return true, nil
	}
	var leases coordinationv1.LeaseList
	if err := r.uncached().List(ctx, &leases, client.InNamespace(v1alpha1.HeartbeatNamespace), client.MatchingLabels{v1alpha1.LabelPodNamespace: host.Namespace}); err != nil {
		return false, err
	}
	for i := range leases.Items {
		l := &leases.Items[i]
		if l.Annotations[heartbeat.AnnotationReplyHost] != host.Name || l.Annotations[injected.LeaseState] != injected.LeaseStateClosing {
			continue
		}
		pod := types.NamespacedName{Namespace: host.Namespace, Name: l.Annotations[heartbeat.AnnotationPodName]}
		if can, err := r.canWake(ctx, pod, types.UID(l.Name)); can || err != nil {
			return false, err
		}
	}
	return true, nil
}

// canWake says that an idle pod is there to be heard again. Of the end of one that had lost its label no event tells, so whom the
// cache does not show is asked for. The Lease of one that is gone is the sweeper's.
func (r *ReplyHostReconciler) canWake(ctx context.Context, pod types.NamespacedName, uid types.UID) (bool, error) {
	for _, from := range []client.Reader{r.Client, r.uncached()} {
		current := &corev1.Pod{}
		switch err := from.Get(ctx, pod, current); {
		case client.IgnoreNotFound(err) != nil:
			return false, err
		case err == nil && current.UID == uid && !ended(current):
			return true, nil
		}
	}
	return false, nil
}

func (r *ReplyHostReconciler) uncached() client.Reader {
	if r.Reader != nil {
		return r.Reader
	}
	return r.Client
}

// users says whom the deletion of a ReplyHost waits for.
func users(queues *v1alpha1.ReplyQueueCounts) string {
	return fmt.Sprintf("%d reply queues, and %d pods that are idle and can wake", ptr.Deref(queues.Total, 0), ptr.Deref(queues.Idle, 0))
}

// judge sets the conditions. held is why the QueueProvider does not take the ReplyHost; nil: it does.
func (r *ReplyHostReconciler) judge(ctx context.Context, host *v1alpha1.ReplyHost, held error) error {
	if r.Signals.Heartbeats.Outage() {
		conditions.Set(host, v1alpha1.ConditionHeartbeatOutage, metav1.ConditionTrue, v1alpha1.ReasonMassSilence,
			"Heartbeats of too many pods are missing at once. No queue is closed for idleness until they are heard again, or those are deleted that have ended their work")
	} else {
		conditions.Remove(host, v1alpha1.ConditionHeartbeatOutage)
	}
	switch {
	case r.Signals.Heartbeats.Homeless():
		conditions.Set(host, v1alpha1.ConditionHeartbeatsUnguarded, metav1.ConditionTrue, v1alpha1.ReasonNamespaceMissing,
			"The namespace "+v1alpha1.HeartbeatNamespace+", or the operator's permissions in it, are missing: install Replyqueue again over what is there. Pods start, but nothing is heard of them, and no queue is closed for idleness until then")
	case r.Signals.Heartbeats.Unpermitted():
		conditions.Set(host, v1alpha1.ConditionHeartbeatsUnguarded, metav1.ConditionTrue, v1alpha1.ReasonPermissionMissing,
			"Pods may not patch Leases in the namespace "+v1alpha1.HeartbeatNamespace+", or the operator may not ask whether they may: the Role replyqueue-renew-heartbeat, its RoleBinding to the group system:serviceaccounts, or a part of the operator's ClusterRole is missing. Install Replyqueue again over what is there. Nothing is heard of pods, and no queue is closed for idleness until then")
	case r.Signals.Guarded():
		conditions.Remove(host, v1alpha1.ConditionHeartbeatsUnguarded)
	default:
		conditions.Set(host, v1alpha1.ConditionHeartbeatsUnguarded, metav1.ConditionTrue, v1alpha1.ReasonPolicyMissing,
			"The ValidatingAdmissionPolicy replyqueue-heartbeats, or its binding, is missing, or is weaker than the one shipped with this version: apply config/policy again. No queue is closed for idleness until then")
	}
	if host.DeletionTimestamp != nil {
		message := "It goes when its pods are gone. Now it has " + users(host.Status.Queues)
		conditions.Set(host, v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonPodsUseIt, message)
		conditions.Reconciling(host, v1alpha1.ReasonDeleting, message)
		return nil
	}
	conditions.Remove(host, v1alpha1.ConditionInUse)
	if providerLeaves(held) {
		conditions.Reconciling(host, v1alpha1.ReasonWaitingForProvider, held.Error())
		return nil
	}
	switch _, err := r.Providers.Get(ctx, providerOf(host), host.Namespace); {
	case err == nil:
		conditions.Ready(host, v1alpha1.ReasonAvailable, "Pods that name this ReplyHost get a reply queue")
	case errors.Is(err, queue.ErrProviderNotFound):
		conditions.Reconciling(host, v1alpha1.ReasonWaitingForProvider, err.Error())
	case errors.Is(err, queue.ErrProviderNotAllowed):
		conditions.Stalled(host, v1alpha1.ReasonProviderNotAllowed, "spec.providerRef: "+err.Error())
	case errors.Is(err, queue.ErrProviderInvalid):
		conditions.Stalled(host, v1alpha1.ReasonProviderInvalid, "spec.providerRef: "+err.Error())
	default:
		return err
	}
	return nil
}

// count sorts the records by where they are in their lives. Idle are the pods that live without a queue.
func (r *ReplyHostReconciler) count(host *v1alpha1.ReplyHost, records []v1alpha1.ReplyQueue) *v1alpha1.ReplyQueueCounts {
	var active, draining, failed, idle int32
	switch before := host.Status.Queues; {
	case r.Signals.Heartbeats.Listed():
		idle = int32(r.Signals.Heartbeats.Silenced(host.Namespace, host.Name)) //nolint:gosec // A list of API objects is shorter than 2³¹.
	case before != nil && before.Idle != nil:
		idle = *before.Idle
	}
	for i := range records {
		switch records[i].Status.State {
		case v1alpha1.ReplyQueueActive:
			active++
		case v1alpha1.ReplyQueueDraining, v1alpha1.ReplyQueueClosing:
			draining++
		case v1alpha1.ReplyQueueFailed:
			failed++
		}
	}
	return &v1alpha1.ReplyQueueCounts{
		Total:    ptr.To(int32(len(records))), //nolint:gosec // A list of API objects is shorter than 2³¹.
		Active:   &active,
		Draining: &draining,
		Failed:   &failed,
		Idle:     &idle,
	}
}

func (r *ReplyHostReconciler) hostsOfProvider(ctx context.Context, provider client.Object) []reconcile.Request {
	return r.hosts(ctx, func(h *v1alpha1.ReplyHost) bool { return providerOf(h) == provider.GetName() })
}

// hosts are the ReplyHosts for which wanted is true.
func (r *ReplyHostReconciler) hosts(ctx context.Context, wanted func(*v1alpha1.ReplyHost) bool) []reconcile.Request {
	var hosts v1alpha1.ReplyHostList
	if err := r.List(ctx, &hosts); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list ReplyHosts in the cache")
		return nil
	}
	var requests []reconcile.Request
	for i := range hosts.Items {
		if wanted(&hosts.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&hosts.Items[i])})
		}
	}
	return requests
}
