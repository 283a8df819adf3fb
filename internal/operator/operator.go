// Package operator puts the operator together: one manager with the controllers, the pod webhook, its
// certificates and the probes. cmd/main.go, the tests and the demo all start it by Run.
package operator

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/webhook"
)

// leaderLease is the name of the Lease that the leader holds, in the operator's namespace.
const leaderLease = "replyqueue-leader"

// When leadership changes hands. A leader that cannot renew its lease stops at the latest retryPeriod + renewDeadline
// after it last did, and a request to SQS that it sent just before ends queue.RequestTimeout later: together less than
// leaseDuration, before which nobody else may lead. One that stops in order gives the lease back, and the next leader
// begins within retryPeriod.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 8 * time.Second
	retryPeriod   = 2 * time.Second
)

// eventSource is who events say they come from.
const eventSource = "replyqueue"

// Events (of leader election: the older kind), the heartbeats, and what every replica needs to become the
// leader.
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",namespace=replyqueue-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=replyqueue-heartbeats,resources=leases,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=replyqueue-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=replyqueue-system,resources=leases,resourceNames=replyqueue-leader,verbs=get;update;patch

// Scheme knows every kind the operator reads or writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// Run runs the operator until ctx is done, and then returns nil when everything stopped in order. It may
// be called several times in a process, one after the other or at once on different ports.
//
// While one of its kinds is missing it serves the webhook alone, and waits for them.
//
// Reconcilers run on the leader alone and do not wait for the webhook's certificates: a webhook that
// cannot be set up must not keep queues from being deleted. Readiness does wait for them.
func Run(ctx context.Context, cfg Config) error {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := awaitKinds(ctx, cfg); err != nil || ctx.Err() != nil {
		return err
	}
	mgr, certs, err := newManager(cfg)
	if err != nil {
		return err
	}
	if certs != nil {
		defer certs.cleanUp()
	}
	// The manager's client reads ConfigMaps uncached, but Namespaces from a cache that does not run yet.
	direct, err := client.New(cfg.REST, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("set up a client: %w", err)
	}
	identity, err := pinIdentity(ctx, direct, cfg)
	if err != nil {
		return err
	}
	cfg.Log.Info("Starting", "clusterName", identity.ClusterName, "queueNamePrefix", identity.QueueNamePrefix, "clusterUID", identity.ClusterUID)

	ready := mgr.GetWebhookServer().StartedChecker()
	if certs != nil {
		if err := certs.setup(ctx, mgr, cfg); err != nil {
			return err
		}
		ready = certs.check(ready)
	}
	policy := &heartbeatPolicy{log: cfg.Log.WithName("policy"), namespace: cfg.Namespace}
	if err := policy.setup(ctx, mgr); err != nil {
		return err
	}
	if err := (webhook.PodInjector{}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the pod webhook: %w", err)
	}
	if err := setupControllers(ctx, mgr, dependencies{Config: cfg, Identity: identity, PolicyInPlace: policy.inPlace}); err != nil {
		return err
	}
	if err := mgr.Add(newRevisionWatch(direct, cfg)); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhook", ready); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(cfg Config) (ctrl.Manager, *certificate, error) {
	caching, err := cacheOptions(cfg)
	if err != nil {
		return nil, nil, err
	}
	server, certs, err := newWebhookServer(cfg)
	if err != nil {
		return nil, nil, err
	}
	metrics := metricsserver.Options{BindAddress: cfg.MetricsBindAddress, TLSOpts: []func(*tls.Config){http1Only}}
	if !cfg.MetricsInsecure {
		metrics.SecureServing = true
		metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	mgr, err := ctrl.NewManager(cfg.REST, ctrl.Options{
		Scheme:                  Scheme(),
		Logger:                  cfg.Log,
		Cache:                   caching,
		NewCache:                newCache,
		Client:                  client.Options{Cache: &client.CacheOptions{DisableFor: uncached()}},
		Metrics:                 metrics,
		HealthProbeBindAddress:  cfg.HealthProbeBindAddress,
		WebhookServer:           server,
		LeaderElection:          cfg.LeaderElect,
		LeaderElectionID:        leaderLease,
		LeaderElectionNamespace: cfg.Namespace,
		// Safe because Run returns, and with it the process ends, as soon as the manager has stopped.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 ptr.To(leaseDuration),
		RenewDeadline:                 ptr.To(renewDeadline),
		RetryPeriod:                   ptr.To(retryPeriod),
		GracefulShutdownTimeout:       ptr.To(20 * time.Second),
		// Names label metrics; that they repeat when Run is called twice in a process harms nobody.
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("set up the manager: %w", err)
	}
	return mgr, certs, nil
}
