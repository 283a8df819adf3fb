package controller

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// ReplyQueueReconciler carries out what lifecycle.Decide says of one record: it creates the queue, keeps it, closes it
// and deletes it.
type ReplyQueueReconciler struct {
	// Client reads from the cache, which holds opted-in pods only, and writes.
	client.Client
	// Reader reads from the API server: what closes a queue is never read from a cache alone.
	Reader    client.Reader
	Recorder  events.EventRecorder
	Providers queue.Providers
	Signals   *Signals
	// ClusterUID is the UID of the kube-system namespace, the owner named in tags.
	ClusterUID string
	// Notices wake the reconciler when something happened to a pod's heartbeats.
	Notices <-chan event.TypedGenericEvent[heartbeat.Notice]
	// Missing wakes the reconciler for a record of which Signals.QueueMissing was told.
	Missing <-chan event.TypedGenericEvent[types.NamespacedName]
	// Concurrency is how many records are worked on at once; 0: 8.
	Concurrency int
}

// requestQueue is what events are turned into requests for.
type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// absentRecheck is how often a pod that left the cache is looked for in the API server while it exists there: its
// label was removed, and nothing else tells of its end.
const absentRecheck = time.Minute

// SetupWithManager adds the reconciler to mgr.
func (r *ReplyQueueReconciler) SetupWithManager(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("replyqueue").
		For(&v1alpha1.ReplyQueue{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: recordChanged})).
		Watches(&corev1.Pod{}, handler.Funcs{
			CreateFunc: func(ctx context.Context, e event.CreateEvent, q requestQueue) { add(q, r.recordsOfPod(ctx, e.Object)) },
			UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q requestQueue) {
				add(q, r.recordsOfPod(ctx, e.ObjectNew))
			},
			DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q requestQueue) {
				records := r.recordsOfPod(ctx, e.Object)
				if len(records) > 0 {
					r.seeLast(e)
				}
				add(q, records)
			},
		}).
		Watches(&v1alpha1.ReplyHost{}, handler.EnqueueRequestsFromMapFunc(r.recordsOfHost),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(workers(r.Concurrency))
	if r.Notices != nil {
		b = b.WatchesRawSource(source.TypedChannel(r.Notices, handler.TypedEnqueueRequestsFromMapFunc(
			func(ctx context.Context, n heartbeat.Notice) []reconcile.Request {
				return r.recordsBy(ctx, client.MatchingFields{indexReader: string(n.UID)})
			})))
	}
	if r.Missing != nil {
		b = b.WatchesRawSource(source.TypedChannel(r.Missing, handler.TypedEnqueueRequestsFromMapFunc(
			func(_ context.Context, record types.NamespacedName) []reconcile.Request {
				return []reconcile.Request{{NamespacedName: record}}
			})))
	}
	return b.Complete(r)
}

// recordChanged says whether an update of a record was more than our own writing of its status: what SQS refused is
// tried again when its time has come, not because the refusal was written down.
func recordChanged(e event.UpdateEvent) bool {
	old, now := e.ObjectOld.(*v1alpha1.ReplyQueue), e.ObjectNew.(*v1alpha1.ReplyQueue)
	return old.Generation != now.Generation || readerOf(old) != readerOf(now) || open(old) != open(now) ||
		old.Status.ClosingIDHash != now.Status.ClosingIDHash ||
		!maps.Equal(old.Annotations, now.Annotations) || len(old.Finalizers) != len(now.Finalizers)
}

// seeLast notes what the deletion event says the containers of a pod came to, and no more: a pod that merely lost its
// label leaves the cache in the same way, so since when it is gone is counted from the API server's own word. An event
// that was missed and made up from an old state says nothing. Of pods that read no queue nothing is noted.
func (r *ReplyQueueReconciler) seeLast(e event.DeleteEvent) {
	if pod, ok := e.Object.(*corev1.Pod); ok && !e.DeleteStateUnknown {
		r.Signals.Pods.SeeLast(pod.UID, lifecycle.LastStateOf(pod), r.Signals.view(r.Signals.Clock.Now()))
	}
}

// Reconcile decides about one record and carries the decision out.
func (r *ReplyQueueReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	record := &v1alpha1.ReplyQueue{}
	if err := r.Get(ctx, request.NamespacedName, record); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	s := &recordScope{ReplyQueueReconciler: r, record: record, before: record.DeepCopy(), now: r.Signals.Clock.Now()}
	var err error
	if len(record.Finalizers) == 0 {
		err = s.remove(ctx) // Its queue is deleted; what is left is the object.
	} else {
		err = s.run(ctx)
	}
	if apierrors.IsConflict(err) {
		// A heartbeat, or another write, came in between: what was decided no longer holds, and is decided again.
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	return reconcile.Result{RequeueAfter: s.again}, err
}

// recordScope is one reconcile of one record.
type recordScope struct {
	*ReplyQueueReconciler
	record, before *v1alpha1.ReplyQueue
	now            time.Time

	host *v1alpha1.ReplyHost
	// pod is the record's reader; nil when it is gone. unseen says that the cache does not show it.
	pod    *corev1.Pod
	unseen bool
	// successor says that another pod has the reader's name and is to take a Stable queue over; forsaken, that the pod which
	// has that name has another queue.
	successor, forsaken bool
	// counted names the reader whose silence, or absence, is counted.
	counted string
	again   time.Duration
}

func (s *recordScope) look(again time.Duration) { s.again = soonest(s.again, again) }

func (s *recordScope) run(ctx context.Context) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	// An answer that was long in coming says how things are now, and not how they were when it was asked for: since when a
	// pod is gone is counted from here.
	s.now = s.Signals.Clock.Now()
	if !open(s.record) {
		return s.resume(ctx)
	}
	if _, missing := s.Signals.missing.LoadAndDelete(s.record.UID); missing {
		if replaced, err := s.replaceMissing(ctx); err != nil || replaced {
			return err
		}
	}
	reader := readerOf(s.record)
	if heard := s.Signals.Heartbeats.Hear(reader, s.now); heard.Lease && closedByLease(s.record, heard.Annotations) {
		lease, err := s.leaseOf(ctx, reader)
		if err != nil {
			return err
		}
		if s.record.Spec.Identity == v1alpha1.IdentityStable {
			// A successor never read that Lease, and knows of no closing: where there is one, it is decided anew.
			if _, err := s.reader(ctx, s.Reader); err != nil {
				return err
			}
		}
		if lease != nil && closedByLease(s.record, lease.Annotations) && !s.successor {
			return s.close(ctx, lifecycle.Decision{Reason: v1alpha1.CloseIdle, Message: "its Lease says that it is closed"}, nil)
		}
	}
	observed := s.observe(s.pod)
	decision := s.Signals.decide(observed, s.now)
	s.look(decision.Again)
	if decision.Action != lifecycle.Close {
		s.note(observed)
	}
	switch decision.Action {
	case lifecycle.Close:
		return s.confirm(ctx)
	case lifecycle.Drain:
		return s.drain(ctx, decision)
	default:
		return s.keep(ctx, decision)
	}
}

// read fetches what a decision looks at: from the cache, but for a pod that the cache does not show. It may have lost
// its label and live on.
func (s *recordScope) read(ctx context.Context) error {
	host := &v1alpha1.ReplyHost{}
	switch err := s.Get(ctx, client.ObjectKey{Namespace: s.record.Namespace, Name: s.record.Spec.HostRef.Name}, host); {
	case err == nil:
		s.host = host
	case !apierrors.IsNotFound(err):
		return err
	}
	var err error
	if s.pod, err = s.reader(ctx, s.Client); err == nil && s.pod == nil {
		s.pod, err = s.reader(ctx, s.Reader)
		s.unseen = s.pod != nil
	}
	return err
}

// reader is the pod that reads the queue, as from shows it; nil when it is not there.
func (s *recordScope) reader(ctx context.Context, from client.Reader) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	switch err := from.Get(ctx, s.podKey(), pod); {
	case apierrors.IsNotFound(err):
		s.successor, s.forsaken = false, false
		return nil, nil
	case err != nil:
		return nil, err
	case pod.UID != readerOf(s.record):
		s.successor, s.forsaken = false, false
		if s.record.Spec.Identity != v1alpha1.IdentityStable || !succeeds(pod, s.record) {
			return nil, nil
		}
		var err error
		s.forsaken, err = s.readsAnother(ctx, pod, from)
		s.successor = !s.forsaken
		return nil, err
	}
	s.successor, s.forsaken = false, false
	return pod, nil
}

// readsAnother says that the pod, which has the name of a Stable record's reader, has an open record of its own, and so will
// never take this one over. That comes of a record which an earlier leader asked for, and which was written late. The cache
// says which record that is, and from whether it is so.
func (s *recordScope) readsAnother(ctx context.Context, pod *corev1.Pod, from client.Reader) (bool, error) {
	var records v1alpha1.ReplyQueueList
	if err := s.List(ctx, &records, client.InNamespace(pod.Namespace), client.MatchingFields{indexReader: string(pod.UID)}); err != nil {
		return false, err
	}
	own := oldestOpen(records.Items)
	if own == nil {
		return false, nil
	}
	current := &v1alpha1.ReplyQueue{}
	if err := from.Get(ctx, client.ObjectKeyFromObject(own), current); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return current.UID == own.UID && open(current) && readerOf(current) == pod.UID, nil
}

// succeeds says whether a pod, which has the name of a Stable record's reader, is to read that record's queue: it was
// injected, names the same ReplyHost, and has not ended.
func succeeds(pod *corev1.Pod, record *v1alpha1.ReplyQueue) bool {
	return pod.Annotations[v1alpha1.AnnotationInjected] != "" &&
		pod.Annotations[v1alpha1.AnnotationReplyHost] == record.Spec.HostRef.Name && !ended(pod)
}

// ended says that a pod's containers will not run again.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (s *recordScope) podKey() client.ObjectKey {
	return client.ObjectKey{Namespace: s.record.Namespace, Name: s.record.Spec.PodRef.Name}
}

// observe notes one reading of the pod (nil: it is not there) and returns what a decision depends on.
func (s *recordScope) observe(pod *corev1.Pod) lifecycle.Observation {
	reader := readerOf(s.record)
	terms := s.Signals.terms(s.record, s.host, s.now)
	view := s.Signals.view(s.now)
	seen := s.Signals.Pods.See(reader, lifecycle.StateOf(pod), lifecycle.CallerOf(pod), view, s.now)
	o := lifecycle.Observation{
		Terms: terms, Closing: !open(s.record), Pod: seen.State, PodSince: seen.Since, Continuous: view.Continuous,
		Successor: s.successor, NameSince: s.Signals.Pods.SeeSuccessor(reader, s.successor, s.now),
		Deleted:  s.record.DeletionTimestamp != nil || s.host != nil && s.host.DeletionTimestamp != nil,
		Forsaken: s.forsaken,
	}
	if terms.Mode == v1alpha1.HeartbeatLease && seen.State == lifecycle.PodGone && pod != nil {
		heard := s.Signals.Heartbeats.Hear(reader, s.now)
		o.Audible = heard.Lease || !s.Signals.Heartbeats.Listed()
		o.Heartbeat = lifecycle.Heartbeat{Continuous: heard.Continuous, Since: heard.Since, Outage: heard.Outage}
	}
	if seen.State != lifecycle.PodPresent {
		s.carry(&o, pod, s.Signals.Heartbeats.Hear(reader, s.now))
	}
	if terms.Mode != v1alpha1.HeartbeatLease {
		return o // It has no Lease.
	}
	if terms.Identity != v1alpha1.IdentityPod || seen.State != lifecycle.PodPresent {
		s.Signals.Heartbeats.Excuse(reader, s.podKey())
		return o
	}
	counting := seen.Running && s.toldOfQueue(s.Signals.Heartbeats.Hear(reader, s.now))
	expected := heartbeat.Expectation{
		Pod: s.podKey(), Host: s.record.Spec.HostRef.Name,
		Interval: terms.Interval, Retention: terms.IdleRetention,
		Counting: counting, Started: seen.Started,
	}
	s.Signals.Heartbeats.Expect(reader, expected)
	heard := s.Signals.Heartbeats.Hear(reader, s.now)
	o.Heartbeat = lifecycle.Heartbeat{
		Continuous: heard.Continuous && heard.Lease,
		Counting:   counting,
		Since:      heard.Since,
		Outage:     heard.Outage,
		Guarded:    s.Signals.Guarded(),
	}
	s.carry(&o, pod, heard)
	if count, ok := o.Counting(); ok {
		expected.Retention, expected.Step = count.Fresh(o.Before), count.NoteEvery()
		s.Signals.Heartbeats.Expect(reader, expected)
	}
	return o
}

// toldOfQueue says that the pod was told of the record's queue, or could be: the cached record may be older than the Lease.
func (s *recordScope) toldOfQueue(heard heartbeat.Heard) bool {
	return s.record.Status.QueueURL != "" ||
		heard.Annotations[heartbeat.AnnotationRecord] == string(s.record.UID) && heard.Annotations[injected.LeaseReplyQueueURL] != ""
}

// keep creates the queue where it is not there yet, and says so where the deletion of the record has to wait.
func (s *recordScope) keep(ctx context.Context, decision lifecycle.Decision) error {
	if s.unseen {
		s.look(absentRecheck)
	}
	if s.record.DeletionTimestamp != nil {
		conditions.Set(s.record, v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonPodsUseIt,
			"Pod "+s.record.Spec.PodRef.Name+" still reads this queue. It goes when the pod is gone")
	} else {
		conditions.Remove(s.record, v1alpha1.ConditionInUse)
	}
	if s.record.Status.QueueURL == "" {
		return s.provision(ctx)
	}
	s.record.Status.State = v1alpha1.ReplyQueueActive
	conditions.Ready(s.record, v1alpha1.ReasonAvailable, "The queue exists, and "+decision.Message+s.shortfall())
	return s.writeStatus(ctx)
}

// shortfall says that a Stable queue, though it waits for its name for longer than it did when it was made, does not keep
// messages for as long.
func (s *recordScope) shortfall() string {
	terms, kept := lifecycle.TermsOf(s.record, s.host), messagesKept(s.record)
	if terms.Identity != v1alpha1.IdentityStable || kept >= terms.IdleRetention {
		return ""
	}
	return fmt.Sprintf(". Its messages are kept for %s, as when it was made, and not for the %s that its ReplyHost says now", kept, terms.IdleRetention)
}

// drain keeps the queue for late replies.
func (s *recordScope) drain(ctx context.Context, decision lifecycle.Decision) error {
	s.record.Status.State = v1alpha1.ReplyQueueDraining
	conditions.Remove(s.record, v1alpha1.ConditionInUse)
	conditions.Reconciling(s.record, v1alpha1.ReasonDraining, decision.Message)
	return s.writeStatus(ctx)
}

// writeStatus writes the status if it changed, and only over the version that was read.
func (s *recordScope) writeStatus(ctx context.Context) error {
	return patchStatus(ctx, s.Client, s.record, s.before)
}

func add(q requestQueue, requests []reconcile.Request) {
	for _, request := range requests {
		q.Add(request)
	}
}

// recordsOfPod are the records that a pod reads.
func (r *ReplyQueueReconciler) recordsOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	return r.recordsBy(ctx, client.InNamespace(pod.GetNamespace()), client.MatchingFields{indexReader: string(pod.GetUID())})
}

func (r *ReplyQueueReconciler) recordsOfHost(ctx context.Context, host client.Object) []reconcile.Request {
	return r.recordsBy(ctx, client.InNamespace(host.GetNamespace()), client.MatchingFields{indexHost: host.GetName()})
}

func (r *ReplyQueueReconciler) recordsBy(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var records v1alpha1.ReplyQueueList
	if err := r.List(ctx, &records, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list ReplyQueues in the cache")
		return nil
	}
	requests := make([]reconcile.Request, len(records.Items))
	for i := range records.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&records.Items[i])
	}
	return requests
}
