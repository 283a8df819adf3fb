package operator

import (
	"context"
	"maps"
	"slices"
	"sync"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// fenceMetrics are registered once for a process, however often Run is called in it.
var fenceMetrics = sync.OnceValue(func() *fence.Metrics { return fence.NewMetrics(metrics.Registry) })

// newFence makes the fence, which every provider asks before a queue is deleted, and the channel on which it tells of
// providers whose troubles changed.
func newFence(mgr ctrl.Manager, shared dependencies, providers *queue.Registry) (*fence.Fence, <-chan event.TypedGenericEvent[string]) {
	troubled := make(chan event.TypedGenericEvent[string], noticeBuffer)
	guard := &fence.Fence{
		Client:     mgr.GetClient(),
		Identity:   client.ObjectKey{Namespace: shared.Config.Namespace, Name: IdentityConfigMapName},
		ClusterUID: shared.Identity.ClusterUID,
		Providers:  providers,
		InUse:      func(ctx context.Context) ([]string, error) { return providersInUse(ctx, mgr.GetClient()) },
		Recorder:   mgr.GetEventRecorder(eventSource),
		Clock:      clock.RealClock{},
		Interval:   shared.Config.FenceInterval,
		Watch:      shared.Config.FenceWatch,
		Metrics:    fenceMetrics(),
		Unswept:    shared.Config.SweepInterval < 0,
		Changed: func(provider string) {
			select {
			case troubled <- event.TypedGenericEvent[string]{Object: provider}:
			default: // As many notices are waiting already.
			}
		},
	}
	if !shared.Config.LeaderElect {
		guard.Patience = leaseDuration
		if guard.Interval > 0 {
			guard.Patience = guard.Interval * 3 / 2
		}
	}
	providers.Fence = guard
	return guard, troubled
}

// providersInUse are the providers that objects in the cache name.
func providersInUse(ctx context.Context, c client.Reader) ([]string, error) {
	names := map[string]struct{}{}
	add := func(ref *v1alpha1.ProviderReference) {
		name := v1alpha1.DefaultProviderName
		if ref != nil && ref.Name != "" {
			name = ref.Name
		}
		names[name] = struct{}{}
	}
	var channels v1alpha1.RequestChannelList
	if err := c.List(ctx, &channels, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range channels.Items {
		add(channels.Items[i].Spec.ProviderRef)
	}
	var hosts v1alpha1.ReplyHostList
	if err := c.List(ctx, &hosts, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range hosts.Items {
		add(hosts.Items[i].Spec.ProviderRef)
	}
	var records v1alpha1.ReplyQueueList
	if err := c.List(ctx, &records, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range records.Items {
		add(&records.Items[i].Spec.ProviderRef)
	}
	return slices.Sorted(maps.Keys(names)), nil
}
