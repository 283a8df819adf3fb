package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// Reasons of events on pods.
const (
	// EventQueuesReady surfaces when a pod's queues exist and its gate opens.
	EventQueuesReady = "QueuesReady"
	// EventWaiting surfaces when a pod waits for something a person has to mend.
	EventWaiting = "WaitingForQueues"
	// EventNotInjected surfaces on a pod that was opted in after it was created.
	EventNotInjected = "NotInjected"
	// EventOptedOut surfaces on a pod that lost the opt-in label at its gate, and starts without what it waited for.
	EventOptedOut = "OptedOut"
	// EventReplyQueueWoken surfaces when a pod whose application had fallen silent has a reply queue again.
	EventReplyQueueWoken = "ReplyQueueWoken"
	// EventReplyQueueIdle surfaces when a pod's reply queue is closed because its application fell silent.
	EventReplyQueueIdle = "ReplyQueueIdle"
)

// PodReconciler gives opted-in pods their addresses: it resolves the names in their annotations, has a reply queue
// recorded for those that call, tells pod and Lease the URLs, and opens the gate.
type PodReconciler struct {
	// Client reads from the cache, which holds opted-in pods only, and writes.
	client.Client
	// Reader reads from the API server.
	Reader    client.Reader
	Recorder  events.EventRecorder
	Providers queue.Providers
	Signals   *Signals
	// Notices wake the reconciler when something happened to a pod's heartbeats.
	Notices <-chan event.TypedGenericEvent[heartbeat.Notice]
	// Concurrency is how many pods are worked on at once; 0: 8.
	Concurrency int

	places      sync.Map // types.NamespacedName of a ReplyHost → *sync.Mutex (place)
	notInjected sync.Map // types.NamespacedName → types.UID of the pod that was told
	held        sync.Map // types.NamespacedName of pods that left the cache at their gate
}

// SetupWithManager adds the reconciler to mgr.
func (r *PodReconciler) SetupWithManager(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("pod").
		Watches(&corev1.Pod{}, r.podEvents()).
		WatchesRawSource(source.Func(lookForHeld)).
		Watches(&v1alpha1.RequestChannel{}, handler.EnqueueRequestsFromMapFunc(r.podsNamingChannel)).
		Watches(&v1alpha1.ReplyHost{}, handler.EnqueueRequestsFromMapFunc(r.podsNamingHost),
			builder.WithPredicates(predicate.Funcs{UpdateFunc: hostMatters})).
		Watches(&v1alpha1.ReplyQueue{}, r.recordEvents()).
		Watches(&v1alpha1.QueueProvider{}, handler.EnqueueRequestsFromMapFunc(r.podsServing), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.podsCallingOut), relabelled).
		WithOptions(workers(r.Concurrency))
	if r.Notices != nil {
		b = b.WatchesRawSource(source.TypedChannel(r.Notices, handler.TypedEnqueueRequestsFromMapFunc(
			func(_ context.Context, n heartbeat.Notice) []reconcile.Request {
				if n.Pod.Name == "" {
					return nil
				}
				return []reconcile.Request{{NamespacedName: n.Pod}}
			})))
	}
	return b.Complete(r)
}

// outageRetry is how long what failed waits at the most before it is tried again: how much later than SQS, or the API server,
// everything that waits is back, however long they were away. What it adds to their load is bounded by the limits on requests.
const outageRetry = 30 * time.Second

// workers are the options of a controller of the lifecycle, with that many workers; 0: 8.
func workers(configured int) controller.Options {
	if configured <= 0 {
		configured = 8
	}
	return controller.Options{
		MaxConcurrentReconciles: configured,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](500*time.Millisecond, outageRetry),
	}
}

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=requestchannels;replyhosts;queueproviders,verbs=get;list;watch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=replyqueues,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=replyqueue.dev,resources=replyqueues/status,verbs=get;update;patch

// Reconcile brings one pod, and its Lease, to what its annotations ask for.
func (r *PodReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if request == heldUnseen {
		return r.letGoUnseen(ctx)
	}
	pod := &corev1.Pod{}
	if err := r.Get(ctx, request.NamespacedName, pod); apierrors.IsNotFound(err) {
		r.notInjected.Delete(request.NamespacedName)
		if err := r.letGo(ctx, request.NamespacedName); apierrors.IsConflict(err) {
			return reconcile.Result{RequeueAfter: staleRetry}, nil
		} else if err != nil {
			return reconcile.Result{}, err
		}
		if err := r.tidyLeases(ctx, request.NamespacedName, ""); err != nil {
			return reconcile.Result{}, err
		}
		woken, err := r.wokenUnseen(ctx, request.NamespacedName)
		if woken == nil || err != nil {
			return reconcile.Result{}, err
		}
		return r.resolve(ctx, woken)
	} else if err != nil {
		return reconcile.Result{}, err
	}
	living := pod.UID
	if ended(pod) {
		living = ""
	}
	if err := r.tidyLeases(ctx, request.NamespacedName, living); err != nil {
		return reconcile.Result{}, err
	}
	if !optedIn(pod) || pod.DeletionTimestamp != nil || ended(pod) {
		return reconcile.Result{}, nil
	}
	if pod.Annotations[v1alpha1.AnnotationInjected] == "" {
		if told, ok := r.notInjected.Swap(request.NamespacedName, pod.UID); !ok || told != pod.UID {
			r.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, EventNotInjected, "Inject",
				"The label %s was not on this pod when it was created, so nothing was injected. Put the label on the pod template and let the pod be replaced.",
				v1alpha1.LabelInject)
		}
		return reconcile.Result{}, nil
	}
	return r.resolve(ctx, pod)
}

// resolve brings a pod that was injected to what its annotations ask for.
func (r *PodReconciler) resolve(ctx context.Context, pod *corev1.Pod) (reconcile.Result, error) {
	s := &podScope{PodReconciler: r, pod: pod, lease: pod.Annotations[v1alpha1.AnnotationInjected] == v1alpha1.HeartbeatAnnotationLease}
	err := s.run(ctx)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// What was read is older than what is there; the newer state arrives by the watch.
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: s.again}, err
}

// staleRetry is when a write is tried again that a newer version of the object refused: about what a watch event
// takes to arrive.
const staleRetry = 200 * time.Millisecond

// podScope is one reconcile of one pod.
type podScope struct {
	*PodReconciler
	pod *corev1.Pod
	// lease says that the pod's heartbeat is a Lease.
	lease bool

	host   *v1alpha1.ReplyHost
	record *v1alpha1.ReplyQueue
	told   addresses
	// first is the place of the first thing that the pod names; nil before.
	first   *place
	waiting []string
	// trouble says that a person may have to mend what the pod waits for.
	trouble bool
	// partial says that the channels of a running pod cannot all be resolved: what it was told of them stays as it is.
	partial bool
	again   time.Duration
}

// waitFor notes something that the pod waits for and a person may have to mend.
func (s *podScope) waitFor(format string, args ...any) {
	s.trouble = true
	s.waiting = append(s.waiting, fmt.Sprintf(format, args...))
}

// waitABit notes something that the pod waits for and that is on its way.
func (s *podScope) waitABit(format string, args ...any) {
	s.waiting = append(s.waiting, fmt.Sprintf(format, args...))
}

func (s *podScope) look(again time.Duration) { s.again = soonest(s.again, again) }

func (s *podScope) run(ctx context.Context) error {
	refs, err := references(s.pod)
	if err != nil {
		s.waitFor("%s", err)
	}
	if err := s.resolveChannels(ctx, refs); err != nil {
		return err
	}
	channelsReady := len(s.waiting) == 0
	ready := channelsReady
	// A gated pod gets its reply queue once its channels are there, so that a misspelt name makes no queue. A pod that
	// runs keeps its reply queue whatever becomes of its channels.
	if channelsReady || !gated(s.pod) {
		replyReady, err := s.resolveReplyQueue(ctx)
		if err != nil {
			return err
		}
		ready = ready && replyReady
	}
	if len(s.waiting) > 0 && !gated(s.pod) {
		s.leaveRest(channelsReady)
	}
	if err := s.publishLease(ctx); err != nil {
		return err
	}
	return s.publish(ctx, ready && len(s.waiting) == 0)
}

// leaveRest leaves a running pod, of which something cannot be resolved, with what it was told of that. One that was
// told of no channel yet is told of those there are.
func (s *podScope) leaveRest(channelsReady bool) {
	s.partial = true
	if !channelsReady && s.pod.Annotations[v1alpha1.AnnotationChannels] != "" {
		s.told.channels, s.told.returns = nil, nil
		if s.record == nil {
			s.told.region, s.told.endpoint = "", ""
		}
	}
}

// publish writes what the pod is told, or what it waits for, in one patch, if anything changed.
func (s *podScope) publish(ctx context.Context, ready bool) error {
	wasGated := gated(s.pod)
	var changes map[string]any
	switch {
	case ready || !wasGated:
		changes = annotationChanges(s.pod, s.told.outputs(), s.partial)
	default:
		changes = map[string]any{}
	}
	waiting := strings.Join(s.waiting, "; ")
	had := s.pod.Annotations[v1alpha1.AnnotationWaitingFor]
	switch {
	case waiting != "" && waiting != had:
		changes[v1alpha1.AnnotationWaitingFor] = waiting
	case waiting == "" && had != "":
		changes[v1alpha1.AnnotationWaitingFor] = nil
	}
	openGate := ready && wasGated
	if len(changes) == 0 && !openGate {
		return nil
	}
	patch, err := podPatch(s.pod, changes, openGate)
	if err != nil {
		return err
	}
	if err := s.Patch(ctx, s.pod, patch); err != nil {
		return client.IgnoreNotFound(err)
	}
	switch {
	case waiting != "" && waiting != had:
		s.Recorder.Eventf(s.pod, nil, s.eventType(), EventWaiting, "Resolve", "Waiting: %s", waiting)
	case openGate:
		s.Recorder.Eventf(s.pod, nil, corev1.EventTypeNormal, EventQueuesReady, "OpenGate", "%s", s.summary())
	}
	return nil
}

// eventType is that of an event about what the pod waits for.
func (s *podScope) eventType() string {
	if s.trouble {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// summary says what a pod was given.
func (s *podScope) summary() string {
	var parts []string
	if s.record != nil {
		parts = append(parts, "reply queue "+s.record.Name)
	}
	switch n := len(s.told.channels); n {
	case 0:
	case 1:
		parts = append(parts, "1 channel")
	default:
		parts = append(parts, fmt.Sprintf("%d channels", n))
	}
	if len(parts) == 0 {
		return "Nothing to wait for"
	}
	return "Ready: " + strings.Join(parts, " and ")
}

func (r *PodReconciler) podsNamingChannel(ctx context.Context, channel client.Object) []reconcile.Request {
	return r.podsBy(ctx, everyPod, client.MatchingFields{indexChannels: client.ObjectKeyFromObject(channel).String()})
}

// hostMatters says whether a ReplyHost's update can change anything for its pods: its counts alone do not. Ten thousand pods
// that start need not wake each other.
func hostMatters(e event.UpdateEvent) bool {
	old, now := e.ObjectOld.(*v1alpha1.ReplyHost), e.ObjectNew.(*v1alpha1.ReplyHost)
	return old.Generation != now.Generation || len(old.Finalizers) != len(now.Finalizers)
}

// place is held while a place among a ReplyHost's spec.maxQueues is looked for and taken. One for each: the pods of one
// ReplyHost do not wait for those of another.
func (r *PodReconciler) place(host *v1alpha1.ReplyHost) *sync.Mutex {
	place, _ := r.places.LoadOrStore(client.ObjectKeyFromObject(host), &sync.Mutex{})
	return place.(*sync.Mutex)
}

// recordEvents wake the pod of a record and, when one is closed, those that wait for a place among its ReplyHost's
// spec.maxQueues. That place is free before the queue is deleted, which may have to wait for SQS or for a human.
func (r *PodReconciler) recordEvents() handler.Funcs {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q requestQueue) { add(q, podOfRecord(e.Object)) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q requestQueue) {
			add(q, podOfRecord(e.ObjectNew))
			if open(e.ObjectOld.(*v1alpha1.ReplyQueue)) && !open(e.ObjectNew.(*v1alpha1.ReplyQueue)) {
				add(q, r.podsWaitingForPlace(ctx, e.ObjectNew))
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q requestQueue) {
			add(q, podOfRecord(e.Object))
			if open(e.Object.(*v1alpha1.ReplyQueue)) { // removed by force, or its closing was not seen
				add(q, r.podsWaitingForPlace(ctx, e.Object))
			}
		},
	}
}

// podsWaitingForPlace are the pods that wait, where the record's ReplyHost has a spec.maxQueues, as they came.
func (r *PodReconciler) podsWaitingForPlace(ctx context.Context, o client.Object) []reconcile.Request {
	name := o.(*v1alpha1.ReplyQueue).Spec.HostRef.Name
	host := &v1alpha1.ReplyHost{}
	if err := r.Get(ctx, client.ObjectKey{Namespace: o.GetNamespace(), Name: name}, host); err != nil || host.Spec.MaxQueues == nil {
		return nil
	}
	waits := func(pod *corev1.Pod) bool { return pod.Annotations[v1alpha1.AnnotationWaitingFor] != "" }
	return r.podsBy(ctx, waits, client.InNamespace(host.Namespace), client.MatchingFields{indexPodHost: host.Name})
}

func (r *PodReconciler) podsNamingHost(ctx context.Context, host client.Object) []reconcile.Request {
	return r.podsBy(ctx, everyPod, client.InNamespace(host.GetNamespace()), client.MatchingFields{indexPodHost: host.GetName()})
}

func everyPod(*corev1.Pod) bool { return true }

// podsBy are the cached pods for which wanted is true, the oldest first. They are not copied: wanted must not change them.
func (r *PodReconciler) podsBy(ctx context.Context, wanted func(*corev1.Pod) bool, options ...client.ListOption) []reconcile.Request {
	var pods corev1.PodList
	if err := r.List(ctx, &pods, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list pods in the cache")
		return nil
	}
	slices.SortStableFunc(pods.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var requests []reconcile.Request
	for i := range pods.Items {
		if wanted(&pods.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&pods.Items[i])})
		}
	}
	return requests
}

func podOfRecord(o client.Object) []reconcile.Request {
	record := o.(*v1alpha1.ReplyQueue)
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: record.Namespace, Name: record.Spec.PodRef.Name}}}
}

// explainProvider says in words why a provider cannot be used, and whether that is all there is to it.
func explainProvider(err error) (string, bool) {
	for _, known := range []error{queue.ErrProviderNotFound, queue.ErrProviderNotAllowed, queue.ErrProviderInvalid} {
		if errors.Is(err, known) {
			return err.Error(), true
		}
	}
	return "", false
}
