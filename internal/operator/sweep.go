package operator

import (
	"context"
	"sync"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
)

// sweepMetrics are registered once for a process, however often Run is called in it.
var sweepMetrics = sync.OnceValue(func() *sweep.Metrics { return sweep.NewMetrics(metrics.Registry) })

func newSweeper(mgr ctrl.Manager, shared dependencies, providers queue.Providers, guard *fence.Fence) *sweep.Sweeper {
	return &sweep.Sweeper{
		Client:     mgr.GetClient(),
		Reader:     mgr.GetAPIReader(),
		Providers:  providers,
		InUse:      func(ctx context.Context) ([]string, error) { return providersInUse(ctx, mgr.GetClient()) },
		Fence:      guard,
		ClusterUID: shared.Identity.ClusterUID,
		Clock:      clock.RealClock{},
		Interval:   shared.Config.SweepInterval,
		Grace:      shared.Config.SweepGrace,
		DryRun:     shared.Config.SweepDryRun,
		Metrics:    sweepMetrics(),
	}
}
