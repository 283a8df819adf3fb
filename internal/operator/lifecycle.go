package operator

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	controllers "github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// noticeBuffer is how many notices wait for a controller that is busy. A full buffer makes the listener wait, never
// lose one.
const noticeBuffer = 1024

// lifecycleControllers are the controllers of pods, ReplyHosts and ReplyQueues, with the listener that they share.
func lifecycleControllers(ctx context.Context, mgr ctrl.Manager, shared dependencies, providers queue.Providers, guard *fence.Fence) ([]controller, error) {
	if err := controllers.IndexLifecycle(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, fmt.Errorf("index the cache: %w", err)
	}
	clientset, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("set up a client for Leases: %w", err)
	}
	toPods := make(chan event.TypedGenericEvent[heartbeat.Notice], noticeBuffer)
	toRecords := make(chan event.TypedGenericEvent[heartbeat.Notice], noticeBuffer)
	outages := make(chan event.TypedGenericEvent[struct{}], 1)
	signals := &controllers.Signals{
		Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Guarded: shared.PolicyInPlace, Clock: clock.RealClock{},
	}
	err = mgr.Add(&heartbeat.Listener{
		Ledger: signals.Heartbeats,
		Leases: clientset.CoordinationV1().Leases(v1alpha1.HeartbeatNamespace),
		Clock:  clock.RealClock{},
		Notify: func(ctx context.Context, n heartbeat.Notice) {
			for _, to := range []chan<- event.TypedGenericEvent[heartbeat.Notice]{toRecords, toPods} {
				select {
				case to <- event.TypedGenericEvent[heartbeat.Notice]{Object: n}:
				case <-ctx.Done():
				}
			}
		},
		Guarded:   shared.PolicyInPlace,
		Permitted: heartbeatsPermitted(clientset.AuthorizationV1().SubjectAccessReviews()),
		StateChanged: func(ctx context.Context) {
			select {
			case outages <- event.TypedGenericEvent[struct{}]{}:
			case <-ctx.Done():
			}
		},
	})
	if err != nil {
		return nil, err
	}
	missing := make(chan event.TypedGenericEvent[types.NamespacedName], 1)
	if shared.Config.SweepInterval >= 0 {
		sweeper := newSweeper(mgr, shared, providers, guard)
		sweeper.Missing = func(ctx context.Context, record types.NamespacedName, uid types.UID) {
			signals.QueueMissing(uid)
			select {
			case missing <- event.TypedGenericEvent[types.NamespacedName]{Object: record}:
			case <-ctx.Done():
			}
		}
		if err := mgr.Add(sweeper); err != nil {
			return nil, err
		}
	}
	recorder := controllers.ShortNotes(mgr.GetEventRecorder(eventSource))
	return []controller{
		&controllers.PodReconciler{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Recorder: recorder, Providers: providers,
			Signals: signals, Notices: toPods,
		},
		&controllers.ReplyHostReconciler{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Recorder: recorder, Providers: providers, Signals: signals,
			Outages: outages,
		},
		&controllers.ReplyQueueReconciler{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Recorder: recorder, Providers: providers,
			Signals: signals, ClusterUID: shared.Identity.ClusterUID, Notices: toRecords, Missing: missing,
		},
	}, nil
}
