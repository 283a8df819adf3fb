// Package controller holds the reconcilers, one for each kind and one for pods.
package controller

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

const (
	// DefaultDriftInterval is how often a channel's queues are compared with its spec when nothing asks for it.
	DefaultDriftInterval = time.Hour
	// LeastDriftInterval is the shortest time between two looks: SQS may go on showing what was before a write for as long, and
	// no look judges what was written since.
	LeastDriftInterval = propagation
)

// RequestChannelReconciler brings request queues and their dead-letter queues to what RequestChannels say.
type RequestChannelReconciler struct {
	Client client.Client
	// Reader reads from the API server what a cache may not show yet; nil: Client.
	Reader    client.Reader
	Providers queue.Providers
	Recorder  events.EventRecorder
	// Metrics counts drift; nil: nothing is counted.
	Metrics *ChannelMetrics
	// Clock decides when drift is looked for; nil: the real one.
	Clock clock.PassiveClock
	// DriftInterval is the mean time between two looks for drift, and for a queue that someone deleted; 0: DefaultDriftInterval.
	// At least LeastDriftInterval. A look costs two SQS requests, and four where a dead-letter queue was made beside the queue.
	DriftInterval time.Duration
	// MaxConcurrentReconciles is how many channels are worked on at once; 0: 10.
	MaxConcurrentReconciles int

	mu      sync.Mutex
	visited map[types.UID]visit
	// named are the UIDs in visited, by name: of a channel that is gone nothing else is known.
	named map[types.NamespacedName]types.UID
}

// visit is what the operator's process remembers of a channel between two reconciles. Nothing depends on it but
// the number of requests: it is empty after a restart.
type visit struct {
	// provider with which the queue was last brought to its spec.
	provider *queue.Provider
	// check is when to look for drift next.
	check time.Time
	// version is the resource version of our last write, and wrote when it was: a cache that shows an older one is behind.
	version string
	wrote   time.Time
	// since is when this process first saw the channel; inherited: another process may have created queues before.
	since     time.Time
	inherited bool
	// mayHaveTaken says that a process before this one may have taken queues over just then.
	mayHaveTaken bool
	// sent is what this process wrote to each queue lately, and blind until when another may have written to them.
	sent  map[string]queue.Sent
	blind time.Time
	// consented is until when a queue that may be another's is taken for one that the channel may use.
	consented time.Time
	// refused is what the status notes because it was about to be set, and what SQS refused to set.
	refused notes
	// refusedDefaults are the attributes that SQS refused AWS's default for.
	refusedDefaults []string
	// shown is what SQS showed of each attribute without a known default before it was last set.
	shown map[string]sight
	// noTarget is the dead-letter queue that SQS does not know.
	noTarget missedTarget
	// noQueue is the dead-letter queue by ARN that SQS does not show.
	noQueue missedTarget
	// created is when this process last asked for each queue's creation, found when it first met a queue that is the channel's
	// and that the status did not know, and taken when it last wrote its ownership on each queue that was another's.
	created, found, taken map[string]time.Time
	// consents is when this process first saw, without a break, that each queue of others may be taken over, and by which tags.
	consents map[string]consent
	// secret is the binding's Secret as it was last seen to be the channel's; empty where it was seen not to be.
	secret seenSecret
	// leaving is what the process remembers of a deletion that goes on.
	leaving leaving
}

// +kubebuilder:rbac:groups=replyqueue.dev,resources=requestchannels,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=requestchannels/status,verbs=patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=queueproviders,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

var _ reconcile.Reconciler = (*RequestChannelReconciler)(nil)

const (
	// behindCache is how long to wait for a cache that does not show our last write yet.
	behindCache = 200 * time.Millisecond
	// longestBehind is for how long that is waited for. An API server that was restored from a backup never shows it.
	longestBehind = 10 * time.Minute
)

// Reconcile brings one channel's queues to its spec, or deletes them. It waits for nothing: what takes time is
// asked for again later.
func (r *RequestChannelReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	channel := &v1alpha1.RequestChannel{}
	if err := r.Client.Get(ctx, request.NamespacedName, channel); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(request.NamespacedName, "")
			err = r.forgetNamespace(ctx, request.Namespace)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	s := r.scope(channel)
	if s.behind() {
		return ctrl.Result{RequeueAfter: behindCache}, nil
	}
	s.meet()
	if !channel.DeletionTimestamp.IsZero() {
		return r.reconcileDeletion(ctx, s)
	}
	if controllerutil.AddFinalizer(channel, v1alpha1.FinalizerRequestChannel) {
		// Before anything exists outside the API server, or a crash could leak it.
		if err := r.patchMetadata(ctx, s); err != nil {
			return ctrl.Result{}, fmt.Errorf("add finalizer: %w", err)
		}
	}
	return r.reconcilePresent(ctx, s)
}

func (r *RequestChannelReconciler) reconcilePresent(ctx context.Context, s *scope) (ctrl.Result, error) {
	if isTrue(s.channel.Spec.Suspend) {
		return r.reconcileSuspended(ctx, s)
	}
	err := r.useProvider(ctx, s)
	if err == nil {
		if wait := r.untilCheck(ctx, s); wait > 0 {
			return ctrl.Result{RequeueAfter: wait}, r.finish(ctx, s)
		}
		err = r.converge(ctx, s)
	} else {
		_, _ = r.takenBackWithout(ctx, s) // Whose the queue is, is not told where its place may not be used.
	}
	bind := r.unbind
	if s.met && s.channel.Status.QueueURL != "" {
		bind = r.bind // Whatever of the spec cannot be carried out: the queue is there, and is handed out.
	}
	bound := bind(ctx, s)
	if err == nil {
		err, s.part = bound, v1alpha1.ConditionBindingReady
	}
	p := judge(s.channel, err)
	if p == nil || !p.passing || !r.onlyLooked(s) {
		r.conclude(s, p)
	}
	if err := r.finish(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	if p == nil {
		return ctrl.Result{RequeueAfter: r.scheduleCheck(s)}, nil
	}
	if b := judge(s.channel, bound); b != nil {
		if b.cause != nil {
			return b.result()
		}
		if p.cause == nil && (p.after == 0 || b.after < p.after) {
			p.after = b.after
		}
	}
	if s.settles > 0 && p.after > s.settles {
		p.after = s.settles // What was left for SQS to show is not left for longer.
	}
	return p.result()
}

// reconcileSuspended leaves the queue alone, and reads whether it may still be used where it is another's. The Secret of spec.binding is
// no part of what is left alone.
func (r *RequestChannelReconciler) reconcileSuspended(ctx context.Context, s *scope) (ctrl.Result, error) {
	again := r.lookSuspended(ctx, s)
	bind := r.bind
	if s.channel.Status.QueueURL == "" {
		bind = r.unbind
	}
	s.part = v1alpha1.ConditionBindingReady
	p := judge(s.channel, bind(ctx, s))
	if p == nil {
		if p = r.suspend(ctx, s); p == nil {
			return ctrl.Result{RequeueAfter: again}, r.finish(ctx, s)
		}
	} else {
		r.conclude(s, p)
	}
	if err := r.finish(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	return p.result()
}

// onlyLooked reports whether the queue was as asked for, and nothing was found that it is not: then trouble on the
// way to SQS is no news about the queue, and Ready stays what it was.
func (r *RequestChannelReconciler) onlyLooked(s *scope) bool {
	return (r.wasReady(s) || s.wasBrought(v1alpha1.ConditionQueueReady)) && !conditions.Is(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue)
}

// suspend leaves the queue as it is and says so. The channel is Ready when that is what its spec asks for now; what keeps it from being
// known is returned.
func (r *RequestChannelReconciler) suspend(ctx context.Context, s *scope) *pause {
	if s.channel.Status.QueueURL == "" {
		conditions.Stalled(s.channel, v1alpha1.ReasonSuspended, "spec.suspend is true, and the channel has no queue")
		return nil
	}
	const left = "spec.suspend is true: the queue is left as it is"
	p := judge(s.channel, r.useProvider(ctx, s))
	switch {
	case p == nil && s.channel.Status.AppliedTerms != s.terms():
		conditions.Stalled(s.channel, v1alpha1.ReasonSuspended, left+", which is not what the spec asks for now")
	case p == nil:
		conditions.Ready(s.channel, v1alpha1.ReasonSuspended, left)
	case p.reason == "":
		// The API server failed us: that says nothing about the queue.
	case p.stalled:
		conditions.Stalled(s.channel, p.reason, left+", and the spec cannot be carried out: "+p.message)
	default:
		conditions.Reconciling(s.channel, p.reason, left+", and the spec cannot be carried out yet: "+p.message)
	}
	return p
}

// conclude turns what became of the queues into conditions.
func (r *RequestChannelReconciler) conclude(s *scope, p *pause) {
	channel := s.channel
	if p == nil {
		channel.Status.AppliedTerms = s.terms()
	}
	if p == nil || p.stalled {
		// What was asked for was done, or cannot be until somebody changes something. Anything else is still to be done.
		channel.Status.LastHandledReconcileAt = reconcileAt(channel)
	}
	switch {
	case p == nil && channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve:
		conditions.Ready(channel, v1alpha1.ReasonObserved, "The queue exists. It is only observed")
	case p == nil:
		reason, message := v1alpha1.ReasonAvailable, "The queue exists as asked for"
		if offers := s.offers(); offers != "" {
			reason, message = v1alpha1.ReasonOffered, message+". "+offers
		}
		conditions.Ready(channel, reason, message)
	case p.reason == "":
		// The API server failed us: that says nothing about the queue.
	default:
		conditions.Set(channel, s.part, metav1.ConditionFalse, p.reason, p.message)
		if p.stalled {
			conditions.Stalled(channel, p.reason, p.message)
		} else {
			conditions.Reconciling(channel, p.reason, p.message)
		}
	}
}

// finish writes the status if it changed, and an event if Ready did, for another reason than that work goes on.
func (r *RequestChannelReconciler) finish(ctx context.Context, s *scope) error {
	s.reconsiders()
	if err := r.save(ctx, s); err != nil {
		return err
	}
	before, after := readiness(s.original), readiness(s.channel)
	changed := before.Status != after.Status || before.Reason != after.Reason
	if after.Reason != "" && after.Reason != v1alpha1.ReasonProgressing && changed && s.isNews(after.Reason) {
		kind := corev1.EventTypeWarning
		if after.Status == metav1.ConditionTrue || after.Reason == v1alpha1.ReasonDeleting {
			kind = corev1.EventTypeNormal
		}
		r.Recorder.Eventf(s.channel, nil, kind, after.Reason, "Reconcile", "%s", after.Message)
	}
	return nil
}

// save writes the status if it differs from what was last read or written.
func (r *RequestChannelReconciler) save(ctx context.Context, s *scope) error {
	if !s.changed() {
		return nil
	}
	wanted := s.channel.DeepCopy()
	err := r.Client.Status().Patch(ctx, s.channel, s.statusPatch())
	if err == nil {
		s.wrote()
		return nil
	}
	if refused(err) {
		s.channel = wanted
		err = errors.Join(err, r.tellRefused(ctx, s, err))
	}
	return ofCluster(fmt.Errorf("write status: %w", err))
}

// tellRefused tells, once, that the API server refuses the status: by an event, and by conditions on top of the status
// that stands there. Without it, a channel would show for ever what it was before.
func (r *RequestChannelReconciler) tellRefused(ctx context.Context, s *scope, refusal error) error {
	told := s.written.DeepCopy()
	if !conditions.Stalled(told, v1alpha1.ReasonStatusRefused, "the API server refuses the status of this channel: "+refusal.Error()) {
		return nil
	}
	message := readiness(told).Message
	if err := r.Client.Status().Patch(ctx, told, s.statusPatch()); err != nil {
		return fmt.Errorf("say so in the conditions: %w", err)
	}
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, v1alpha1.ReasonStatusRefused, "Reconcile", "%s", message)
	wanted := s.channel
	s.channel = told
	s.wrote()
	s.channel = wanted
	s.channel.ResourceVersion = told.ResourceVersion
	return nil
}

// patchMetadata writes finalizers. A list is replaced as a whole, so the write is conditional on what was read.
func (r *RequestChannelReconciler) patchMetadata(ctx context.Context, s *scope) error {
	status := s.channel.Status.DeepCopy()
	patch := client.MergeFromWithOptions(s.written, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, s.channel, patch); err != nil {
		return err
	}
	s.wrote()
	s.channel.Status = *status
	return nil
}

// untilCheck is how long the queue may be taken for what it was when last seen; 0: it is to be looked at now.
// Nothing is asked of SQS to know that.
func (r *RequestChannelReconciler) untilCheck(ctx context.Context, s *scope) time.Duration {
	channel, provider := s.channel, s.provider
	if conditions.ObservedGeneration(channel) != channel.Generation ||
		!conditions.Is(channel, v1alpha1.ConditionReady, metav1.ConditionTrue) ||
		conditions.Reason(channel, v1alpha1.ConditionReady) == v1alpha1.ReasonSuspended ||
		channel.Status.LastHandledReconcileAt != reconcileAt(channel) ||
		conditions.Is(channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue) ||
		channel.Status.AppliedTerms != s.terms() || r.permitted(s) != nil || r.elsewhere(s) != nil || r.deadLetterMoved(ctx, s) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v, known := r.visited[channel.UID]
	now := r.now()
	if !known || v.check.IsZero() {
		// After a restart the looks are spread over the interval, for the channels were not made at once either.
		v.provider, v.check = provider, now.Add(time.Duration(float64(r.driftInterval())*fraction(channel.UID)))
		r.remember(channel.UID, v)
	}
	if v.provider != provider {
		return 0
	}
	return max(0, v.check.Sub(now))
}

// scheduleCheck notes that the queue is as it should be, and returns when to look again: after the drift interval,
// give or take a tenth, so that channels made together are not looked at together; or when SQS has surely
// propagated a write that this reconcile could not see the effect of.
func (r *RequestChannelReconciler) scheduleCheck(s *scope) time.Duration {
	wait := time.Duration(float64(r.driftInterval()) * (0.9 + 0.2*fraction(s.channel.UID)))
	if s.settles > 0 {
		wait = min(wait, s.settles)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.visited[s.channel.UID]
	v.provider, v.check = s.provider, r.now().Add(wait)
	r.remember(s.channel.UID, v)
	return wait
}

func (r *RequestChannelReconciler) remember(uid types.UID, v visit) {
	if r.visited == nil {
		r.visited = map[types.UID]visit{}
	}
	r.visited[uid] = v
}

// forget drops what is remembered of the channel of that name, unless it is another by now; an empty uid is any.
func (r *RequestChannelReconciler) forget(name types.NamespacedName, uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.visited, uid)
	if known := r.named[name]; uid == "" || known == uid {
		delete(r.visited, known)
		delete(r.named, name)
	}
}

// forgetNamespace drops what is measured of a namespace when its last channel is gone: namespaces come and go.
func (r *RequestChannelReconciler) forgetNamespace(ctx context.Context, namespace string) error {
	var left v1alpha1.RequestChannelList
	if err := r.Client.List(ctx, &left, client.InNamespace(namespace), client.Limit(1), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list RequestChannels: %w", err)
	}
	if len(left.Items) == 0 {
		r.Metrics.forget(namespace)
	}
	return nil
}

func (r *RequestChannelReconciler) reader() client.Reader {
	if r.Reader == nil {
		return r.Client
	}
	return r.Reader
}

func (r *RequestChannelReconciler) now() time.Time {
	if r.Clock == nil {
		return time.Now()
	}
	return r.Clock.Now()
}

func (r *RequestChannelReconciler) driftInterval() time.Duration {
	if r.DriftInterval == 0 {
		return DefaultDriftInterval
	}
	return r.DriftInterval
}

// fraction spreads objects evenly over [0, 1), the same object always to the same place.
func fraction(uid types.UID) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(uid))
	return float64(h.Sum32()) / (1 << 32)
}

// reconcileAt is what the annotation asks for, cut to what the status can hold.
func reconcileAt(channel *v1alpha1.RequestChannel) string {
	const most = 256
	value := channel.Annotations[v1alpha1.AnnotationReconcileAt]
	return strings.ToValidUTF8(value[:min(len(value), most)], "")
}

func readiness(o conditions.Object) metav1.Condition {
	for _, c := range o.GetConditions() {
		if c.Type == v1alpha1.ConditionReady {
			return c
		}
	}
	return metav1.Condition{}
}

func isTrue(b *bool) bool { return b != nil && *b }
