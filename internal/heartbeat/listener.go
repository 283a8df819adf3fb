package heartbeat

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

const (
	// BeaconName is the Lease that the operator renews itself, among those of the applications.
	BeaconName = "replyqueue-operator"
	// AnnotationPodName on a Lease is the name of the pod whose UID it bears; the namespace is a label.
	AnnotationPodName = "replyqueue.dev/pod-name"
	// AnnotationReplyHost on a Lease is the ReplyHost of that pod.
	AnnotationReplyHost = v1alpha1.AnnotationReplyHost
	// AnnotationRecord on a Lease is the UID of the ReplyQueue that its state and URL are about: a name may come again.
	AnnotationRecord = "replyqueue.dev/reply-queue-uid"
	// AnnotationKnownInterval on a Lease is a longer interval than the one it advises, in seconds: one that the application was
	// told of, and may follow until it renews. It goes with that renewal.
	AnnotationKnownInterval = "replyqueue.dev/known-interval-seconds"
	// AnnotationClosingID on a Lease that is closing is what the status.closingIDHash of that ReplyQueue is the hash of: it
	// proves that the operator closed it, since nobody else knew it before.
	AnnotationClosingID = "replyqueue.dev/closing-id"
)

// Listener keeps a Ledger: it watches the Leases of v1alpha1.HeartbeatNamespace, renews the beacon, and looks at the
// counts every second. It runs on the leader alone, so a new leader counts from nothing.
//
// It watches by itself, rather than through the manager's cache, because it has to know when a list replaced what
// it had seen.
type Listener struct {
	// Ledger to keep.
	Ledger *Ledger
	// Leases of v1alpha1.HeartbeatNamespace.
	Leases coordinationclient.LeaseInterface
	// Clock measures silence.
	Clock clock.WithTicker
	// Notify is told of each notice. It may block until ctx ends, and the watch waits meanwhile.
	Notify func(ctx context.Context, n Notice)
	// Guarded says whether the policy that guards heartbeats is in place.
	Guarded func() bool
	// Permitted asks the API server whether applications may renew Leases, with each beacon: the beacon goes by the operator's
	// own permissions, and proves nothing of theirs. It may block until ctx ends. nil: they may.
	Permitted func(ctx context.Context) (bool, error)
	// StateChanged is told when an outage of heartbeats begins or ends, and when their policy, permission or namespace goes or comes;
	// and once after the start, since whoever asked before may have asked too early.
	StateChanged func(ctx context.Context)

	// nextBeacon is when the beacon is renewed next; was is what StateChanged was told last, if told.
	nextBeacon time.Time
	was        state
	told       bool
}

// NeedLeaderElection makes the manager run it on the leader alone.
func (l *Listener) NeedLeaderElection() bool { return true }

// Start listens until ctx ends.
func (l *Listener) Start(ctx context.Context) error {
	reflector := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return l.Leases.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return l.Leases.Watch(ctx, options)
		},
	}, &coordinationv1.Lease{}, l.Store(ctx), cache.ReflectorOptions{Name: "heartbeats"})

	watching := make(chan struct{})
	go func() {
		defer close(watching)
		reflector.RunWithContext(ctx)
	}()
	defer func() { <-watching }()

	tick := l.Clock.NewTicker(time.Second)
	defer tick.Stop()
	for {
		l.Renew(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
		l.Look(ctx)
	}
}

// Renew renews the beacon if that is due. Start calls it, and Look, once a second; they are exported, like Store, for
// those who play the parts of API server and clock themselves. Renew blocks for two BeaconIntervals at most, and one call of
// the two is made at a time.
func (l *Listener) Renew(ctx context.Context) {
	if now, every := l.Clock.Now(), l.Ledger.BeaconEvery(); !now.Before(l.nextBeacon) || l.nextBeacon.Sub(now) > every {
		l.nextBeacon = now.Add(every)
		err := l.ask(ctx)
		if err == nil {
			err = l.beacon(ctx)
			l.tell(ctx, l.Ledger.setHomeless(NamespaceMissing(err), l.Clock.Now()))
		}
		if err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).WithName("heartbeats").Error(err, "Could not renew the beacon; no queue is closed for idleness meanwhile")
		}
	}
}

// Look looks at all counts, and tells Notify and StateChanged of what it finds. It makes no call to the API server.
func (l *Listener) Look(ctx context.Context) {
	l.tell(ctx, l.Ledger.Tick(l.Clock.Now()))
	is := state{outage: l.Ledger.Outage(), unguarded: !l.Guarded(), unpermitted: l.Ledger.Unpermitted(), homeless: l.Ledger.Homeless()}
	if is == l.was && l.told {
		return
	}
	if is != l.was {
		ctrl.LoggerFrom(ctx).WithName("heartbeats").Info("What idleness is judged by changed", "outageOfHeartbeats", is.outage, "policyInPlace", !is.unguarded, "permitted", !is.unpermitted, "namespaceMissing", is.homeless)
	}
	l.was, l.told = is, true
	l.StateChanged(ctx)
}

// state is what idleness is judged by, as a whole.
type state struct{ outage, unguarded, unpermitted, homeless bool }

// NamespaceMissing says whether a Lease could not be written because its namespace is not there, or is going. The
// operator's permissions go with it, so that they are what is found missing first.
func NamespaceMissing(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// ask finds out whether applications may heartbeat. Where the API server does not say, no beacon is sent either: the view has a
// gap as without the API server.
func (l *Listener) ask(ctx context.Context) error {
	if l.Permitted == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, BeaconInterval)
	defer cancel()
	permitted, err := l.Permitted(ctx)
	if err == nil {
		l.Ledger.setUnpermitted(!permitted)
	}
	return err
}

// beacon renews the operator's own Lease. It gives up after one interval, so that the next is not late.
func (l *Listener) beacon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, BeaconInterval)
	defer cancel()
	now := metav1.NowMicro().UTC().Format(metav1.RFC3339Micro)
	patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, now)
	lease, err := l.Leases.Patch(ctx, BeaconName, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = l.Leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name:   BeaconName,
				Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator},
			},
			Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NowMicro())},
		}, metav1.CreateOptions{})
	}
	if err == nil {
		l.Ledger.wrote(lease.ResourceVersion)
	}
	return err
}

func (l *Listener) tell(ctx context.Context, notices []Notice) {
	for _, n := range notices {
		l.Notify(ctx, n)
	}
}

// Store is where a reflector of Leases puts what it sees, for the run of ctx.
func (l *Listener) Store(ctx context.Context) cache.ReflectorStore { return store{l, ctx} }

// store passes what the reflector sees to the ledger. It holds the context of the run that it belongs to, since a
// reflector's store is not given one.
type store struct {
	*Listener
	ctx context.Context //nolint:containedctx // See above.
}

func (s store) Add(obj any) error {
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		s.tell(s.ctx, s.Ledger.Apply(lease, s.Clock.Now()))
	}
	return nil
}

func (s store) Update(obj any) error { return s.Add(obj) }

func (s store) Delete(obj any) error {
	if lease, ok := obj.(*coordinationv1.Lease); ok {
		s.tell(s.ctx, s.Ledger.Remove(types.UID(lease.Name), s.Clock.Now()))
	}
	return nil
}

func (s store) Replace(objs []any, _ string) error {
	leases := make([]*coordinationv1.Lease, 0, len(objs))
	for _, obj := range objs {
		if lease, ok := obj.(*coordinationv1.Lease); ok {
			leases = append(leases, lease)
		}
	}
	s.tell(s.ctx, s.Ledger.Replace(leases, s.Clock.Now()))
	return nil
}

func (s store) Resync() error { return nil }
