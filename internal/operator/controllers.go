package operator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	controllers "github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// dependencies are what the controllers share.
type dependencies struct {
	Config   Config
	Identity Identity
	// PolicyInPlace reports whether heartbeats are protected; without, nothing is closed as idle.
	PolicyInPlace func() bool
}

// controller is anything that registers itself with a manager.
type controller interface {
	SetupWithManager(mgr ctrl.Manager) error
}

// Metrics are registered once for a process, however often Run is called in it.
var (
	sqsMetrics     = sync.OnceValue(func() *queue.Metrics { return queue.NewMetrics(metrics.Registry) })
	channelMetrics = sync.OnceValue(func() *controllers.ChannelMetrics { return controllers.NewChannelMetrics(metrics.Registry) })
)

// setupControllers registers every controller. Adding one is a line in one of the lists.
func setupControllers(ctx context.Context, mgr ctrl.Manager, shared dependencies) error {
	providers := &queue.Registry{
		Reader:     mgr.GetClient(),
		Prefix:     shared.Identity.QueueNamePrefix,
		Cluster:    shared.Identity.ClusterName,
		ClusterUID: shared.Identity.ClusterUID,
		Metrics:    sqsMetrics(),
		Connect:    shared.Config.Connect,

		ForeignPrefixes: shared.Config.SweepForeignPrefixes,
	}
	guard, troubled := newFence(mgr, shared, providers)
	if err := errors.Join(mgr.Add(guard), mgr.Add(fence.Standby{Fence: guard})); err != nil {
		return err
	}
	all, err := lifecycleControllers(ctx, mgr, shared, providers, guard)
	if err != nil {
		return err
	}
	for _, c := range append(all, channelControllers(mgr, shared, providers, guard, troubled)...) {
		if err := c.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up %T: %w", c, err)
		}
	}
	return nil
}

// requestChannels is the reconciler of RequestChannels.
func requestChannels(mgr ctrl.Manager, shared dependencies, providers queue.Providers, recorder events.EventRecorder) *controllers.RequestChannelReconciler {
	return &controllers.RequestChannelReconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Providers: providers, Recorder: recorder, Metrics: channelMetrics(),
		DriftInterval: shared.Config.DriftInterval,
	}
}

// channelControllers are the controllers of RequestChannels and QueueProviders, and what is measured of every kind.
func channelControllers(mgr ctrl.Manager, shared dependencies, providers *queue.Registry, guard *fence.Fence, troubled <-chan event.TypedGenericEvent[string]) []controller {
	recorder := controllers.ShortNotes(mgr.GetEventRecorder(eventSource))
	all := []controller{
		requestChannels(mgr, shared, providers, recorder),
		&controllers.QueueProviderReconciler{
			Client: mgr.GetClient(), Clients: providers, Recorder: recorder, Trouble: guard.Trouble, Troubled: troubled, Reach: guard.Reach,
		},
		&controllers.ConditionMetrics{Reader: mgr.GetClient(), Informers: mgr.GetCache(), Registry: metrics.Registry},
	}
	if shared.Config.MessageCountsInterval > 0 {
		all = append(all, &controllers.MessageCounter{
			Reader: mgr.GetClient(), Providers: providers, Metrics: channelMetrics(), Interval: shared.Config.MessageCountsInterval,
		})
	}
	return all
}
