package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// Clients makes and drops the clients of QueueProviders; *queue.Registry is one.
type Clients interface {
	// Check makes the provider's client without calling AWS, or says why it cannot.
	Check(ctx context.Context, provider *v1alpha1.QueueProvider) (*queue.Provider, error)
	// Forget drops the client of a provider that is gone.
	Forget(name string)
}

// QueueProviderReconciler says whether QueueProviders can be used and by how many, and holds the deletion of those
// that are: their queues could not be deleted any more.
type QueueProviderReconciler struct {
	Client   client.Client
	Clients  Clients
	Recorder events.EventRecorder
	// Trouble says what keeps queues of a provider from being deleted or swept (v1alpha1.ConditionIdentityConflict,
	// v1alpha1.ConditionSweepHeld); empty: nothing. nil: nothing ever does. Troubled wakes the reconciler when that
	// changed, by the provider's name.
	Trouble  func(provider, condition string) string
	Troubled <-chan event.TypedGenericEvent[string]
	// Reach says whether SQS answers about a provider's queues; nil: it is taken to. Troubled tells of its changes too.
	Reach func(provider string) fence.Reach
}

// +kubebuilder:rbac:groups=replyqueue.dev,resources=queueproviders,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=queueproviders/status,verbs=patch
// +kubebuilder:rbac:groups=replyqueue.dev,resources=requestchannels;replyhosts,verbs=get;list;watch

var _ reconcile.Reconciler = (*QueueProviderReconciler)(nil)

// SetupWithManager registers the controller. The indexes of IndexChannels are RequestChannelReconciler's to add.
func (r *QueueProviderReconciler) SetupWithManager(mgr ctrl.Manager) error {
	// Users come and go; what they name never changes.
	comings := builder.WithPredicates(predicate.Funcs{
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	})
	b := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.QueueProvider{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.RequestChannel{}, handler.EnqueueRequestsFromMapFunc(providerNamed), comings).
		Watches(&v1alpha1.ReplyHost{}, handler.EnqueueRequestsFromMapFunc(providerNamed), comings)
	if r.Troubled != nil {
		b = b.WatchesRawSource(source.TypedChannel(r.Troubled, handler.TypedEnqueueRequestsFromMapFunc(
			func(_ context.Context, name string) []reconcile.Request {
				return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: name}}}
			})))
	}
	return b.Complete(r)
}

// providerNamed is the QueueProvider that a channel or a host names.
func providerNamed(_ context.Context, o client.Object) []reconcile.Request {
	var ref *v1alpha1.ProviderReference
	switch o := o.(type) {
	case *v1alpha1.RequestChannel:
		ref = o.Spec.ProviderRef
	case *v1alpha1.ReplyHost:
		ref = o.Spec.ProviderRef
	}
	if ref == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: ref.Name}}}
}

// Reconcile counts a QueueProvider's users, holds it while there are any, and says whether it can be used.
func (r *QueueProviderReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	provider := &v1alpha1.QueueProvider{}
	if err := r.Client.Get(ctx, request.NamespacedName, provider); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.Clients.Forget(request.Name)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	users, err := r.users(ctx, provider.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.hold(ctx, provider, users > 0); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !provider.DeletionTimestamp.IsZero() && users == 0 {
		return ctrl.Result{}, nil
	}
	before := provider.DeepCopy()
	r.judge(ctx, provider, users)
	if err := r.writeStatus(ctx, before, provider); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if conditions.Is(provider, v1alpha1.ConditionStalled, metav1.ConditionTrue) {
		return ctrl.Result{RequeueAfter: slowRetry}, nil // The operator's environment may be what has to heal.
	}
	return ctrl.Result{}, nil
}

func (r *QueueProviderReconciler) users(ctx context.Context, name string) (int32, error) {
	named := client.MatchingFields{indexProvider: name}
	var channels v1alpha1.RequestChannelList
	if err := r.Client.List(ctx, &channels, named, client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list RequestChannels of QueueProvider %s: %w", name, err)
	}
	var hosts v1alpha1.ReplyHostList
	if err := r.Client.List(ctx, &hosts, named, client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list ReplyHosts of QueueProvider %s: %w", name, err)
	}
	return int32(len(channels.Items) + len(hosts.Items)), nil //nolint:gosec // A cluster does not hold 2^31 objects.
}

// hold puts the finalizer on a provider that is used, and takes it off one that is being deleted and no longer is. Taken off
// any earlier, it could be missing in the moment in which a new user has seen it and the provider is deleted (holdProvider).
func (r *QueueProviderReconciler) hold(ctx context.Context, provider *v1alpha1.QueueProvider, used bool) error {
	before := provider.DeepCopy()
	changed := false
	switch {
	case !provider.DeletionTimestamp.IsZero():
		changed = !used && controllerutil.RemoveFinalizer(provider, v1alpha1.FinalizerQueueProvider)
	case used:
		changed = controllerutil.AddFinalizer(provider, v1alpha1.FinalizerQueueProvider)
	}
	if !changed {
		return nil
	}
	if err := r.Client.Patch(ctx, provider, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("hold QueueProvider %s while used: %w", provider.Name, err)
	}
	return nil
}

func (r *QueueProviderReconciler) judge(ctx context.Context, provider *v1alpha1.QueueProvider, users int32) {
	provider.Status.Users = &users
	r.showTrouble(provider)
	reach := r.showReach(provider, users)
	if !provider.DeletionTimestamp.IsZero() {
		message := fmt.Sprintf("%d RequestChannels and ReplyHosts still name it; it goes when they are gone", users)
		conditions.Set(provider, v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonObjectsUseIt, message)
		conditions.Reconciling(provider, v1alpha1.ReasonObjectsUseIt, message)
		return
	}
	conditions.Remove(provider, v1alpha1.ConditionInUse)
	if provider.Name == v1alpha1.DefaultProviderName {
		conditions.Stalled(provider, v1alpha1.ReasonProviderInvalid, `the name "default" is reserved: it stands for the operator's own environment: use another name`)
		return
	}
	built, err := r.Clients.Check(ctx, provider)
	if err != nil {
		conditions.Stalled(provider, v1alpha1.ReasonProviderInvalid, err.Error())
		return
	}
	if selector := provider.Spec.Namespaces.Selector; selector != nil {
		if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
			conditions.Stalled(provider, v1alpha1.ReasonProviderInvalid, "spec.namespaces.selector: "+err.Error())
			return
		}
	}
	provider.Status.Region = built.Region
	switch conflict := conditions.Message(provider, v1alpha1.ConditionIdentityConflict); {
	case reach.Reason != "" && reach.Stuck:
		conditions.Stalled(provider, reach.Reason, reach.Message)
	case reach.Reason != "":
		conditions.Reconciling(provider, reach.Reason, reach.Message)
	case conflict != "":
		conditions.Stalled(provider, v1alpha1.ReasonIdentityConflict, conflict)
	case users == 0:
		conditions.Ready(provider, v1alpha1.ReasonAvailable, "Nothing is wrong with it that can be told without asking AWS, which the first RequestChannel or ReplyHost that names it does")
	default:
		conditions.Ready(provider, v1alpha1.ReasonAvailable, "Queues can be made here")
	}
}

// showReach shows whether SQS answers, and returns it. A process that does not know it yet goes by what the one before it found,
// while anything uses the provider: whoever is not used is not asked about, and would be called unreachable for ever.
func (r *QueueProviderReconciler) showReach(provider *v1alpha1.QueueProvider, users int32) fence.Reach {
	if r.Reach == nil {
		return fence.Reach{}
	}
	reach := r.Reach(provider.Name)
	if !reach.Known && users > 0 && conditions.Is(provider, v1alpha1.ConditionUnreachable, metav1.ConditionTrue) {
		return fence.Reach{
			Reason: conditions.Reason(provider, v1alpha1.ConditionUnreachable), Message: conditions.Message(provider, v1alpha1.ConditionUnreachable),
			Stuck: conditions.Is(provider, v1alpha1.ConditionStalled, metav1.ConditionTrue),
		}
	}
	if reach.Reason == "" {
		conditions.Remove(provider, v1alpha1.ConditionUnreachable)
	} else {
		conditions.Set(provider, v1alpha1.ConditionUnreachable, metav1.ConditionTrue, reach.Reason, reach.Message)
	}
	return reach
}

// showTrouble shows what the fence and the sweeper found. What holds sweeps alone leaves Ready as it is.
func (r *QueueProviderReconciler) showTrouble(provider *v1alpha1.QueueProvider) {
	if r.Trouble == nil {
		return
	}
	for condition, reason := range map[string]string{
		v1alpha1.ConditionIdentityConflict: v1alpha1.ReasonIdentityConflict,
		v1alpha1.ConditionSweepHeld:        v1alpha1.ReasonTooManyOrphans,
		v1alpha1.ConditionForeignSweepHeld: v1alpha1.ReasonTooManyOrphans,
		v1alpha1.ConditionQueuesMissing:    v1alpha1.ReasonTooManyMissing,
		v1alpha1.ConditionSweepIncomplete:  v1alpha1.ReasonQueuesNotJudged,
	} {
		if message := r.Trouble(provider.Name, condition); message != "" {
			conditions.Set(provider, condition, metav1.ConditionTrue, reason, message)
		} else {
			conditions.Remove(provider, condition)
		}
	}
}

func (r *QueueProviderReconciler) writeStatus(ctx context.Context, before, provider *v1alpha1.QueueProvider) error {
	if sameStatus(before.Status, provider.Status) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, provider, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("write status of QueueProvider %s: %w", provider.Name, err)
	}
	was, is := readiness(before), readiness(provider)
	if was.Status != is.Status || was.Reason != is.Reason {
		kind := corev1.EventTypeNormal
		if is.Status != metav1.ConditionTrue && is.Reason != v1alpha1.ReasonObjectsUseIt {
			kind = corev1.EventTypeWarning
		}
		r.Recorder.Eventf(provider, nil, kind, is.Reason, "Reconcile", "%s", is.Message)
	}
	return nil
}
