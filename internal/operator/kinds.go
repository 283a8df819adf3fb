package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/webhook"
)

// kindsInterval is how often an operator that waits for its kinds asks whether they are there.
const kindsInterval = 5 * time.Second

// ownKinds are the kinds without which no controller can start: each needs to know that it sees all objects there are.
var ownKinds = []string{"QueueProvider", "ReplyHost", "ReplyQueue", "RequestChannel"}

// missingKinds are those that the API server does not have.
func missingKinds(api discovery.ServerResourcesInterface) ([]string, error) {
	var there []string
	switch list, err := api.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String()); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, fmt.Errorf("find out which kinds there are: %w", err)
	default:
		for i := range list.APIResources {
			there = append(there, list.APIResources[i].Kind)
		}
	}
	return slices.DeleteFunc(slices.Clone(ownKinds), func(kind string) bool { return slices.Contains(there, kind) }), nil
}

// awaitKinds returns when the API server has every kind. Until then it serves the webhook, which needs none of them and without
// which no pod that opted in could be created: those wait at their gates, as they do while controllers are away. It returns
// nil too when ctx ends.
func awaitKinds(ctx context.Context, cfg Config) error {
	api, err := discovery.NewDiscoveryClientForConfig(cfg.REST)
	if err != nil {
		return fmt.Errorf("set up a client: %w", err)
	}
	missing, err := missingKinds(api)
	if err != nil || len(missing) == 0 {
		return err
	}
	cfg.Log.Info("Kinds are missing: until they are installed, only the webhook is served, pods wait at their gates, and no queue is made or deleted",
		"kinds", missing)
	cfg.LeaderElect = false // There is nothing to lead.
	mgr, certs, err := newManager(cfg)
	if err != nil {
		return err
	}
	ready := mgr.GetWebhookServer().StartedChecker()
	if certs != nil {
		defer certs.cleanUp()
		if err := certs.setup(ctx, mgr, cfg); err != nil {
			return err
		}
		ready = certs.check(ready)
	}
	if err := (webhook.PodInjector{}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the pod webhook: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhook", ready); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := mgr.Add(everyReplica(func(ctx context.Context) error {
		tick := time.NewTicker(kindsInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if missing, err := missingKinds(api); err == nil && len(missing) == 0 {
				cfg.Log.Info("All kinds are there")
				cancel()
				return nil
			}
		}
	})); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// everyReplica is something that runs on every replica.
type everyReplica func(context.Context) error

// Start implements manager.Runnable.
func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection is false.
func (everyReplica) NeedLeaderElection() bool { return false }
