package operator

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// HeartbeatPolicyName names the ValidatingAdmissionPolicy, and its binding, that let a pod renew its own
// Lease only.
const HeartbeatPolicyName = "replyqueue-heartbeats"

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingadmissionpolicies;validatingadmissionpolicybindings,resourceNames=replyqueue-heartbeats,verbs=get;list;watch

var policyInPlace = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "replyqueue_heartbeat_policy_in_place",
	Help: "1 while the admission policy that protects heartbeats is there, as strict as shipped, and enforced. While 0, no reply queue is closed as idle; apply config/policy again.",
})

func init() { metrics.Registry.MustRegister(policyInPlace) }

// heartbeatPolicy watches the policy on heartbeats. Without it any pod could renew, or fall silent for,
// any other, so nothing may then be concluded from heartbeats.
type heartbeatPolicy struct {
	log logr.Logger
	// namespace is the operator's own.
	namespace string
	// looked are true once what was there at the start has been seen.
	looked []toolscache.InformerSynced

	mu      sync.Mutex
	policy  *admissionv1.ValidatingAdmissionPolicy
	binding *admissionv1.ValidatingAdmissionPolicyBinding
	guards  bool  // by the last sight of either
	synced  bool  // until then an object may just not have been seen yet
	said    *bool // what was logged last
}

// inPlace reports whether the policy is there, as strict as shipped, and enforced. It does not block; before the first sight of
// both objects it is false.
func (p *heartbeatPolicy) inPlace() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guards
}

// Start says what the first look has found, which may be nothing at all. Every replica runs it.
func (p *heartbeatPolicy) Start(ctx context.Context) error {
	if toolscache.WaitForCacheSync(ctx.Done(), p.looked...) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.synced = true
		p.say()
	}
	return nil
}

// NeedLeaderElection makes followers watch too, so that a new leader knows at once.
func (*heartbeatPolicy) NeedLeaderElection() bool { return false }

// setup keeps the answer up to date from informers of the manager's cache (which holds these two objects
// alone, see cacheOptions).
func (p *heartbeatPolicy) setup(ctx context.Context, mgr manager.Manager) error {
	for _, object := range []client.Object{&admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{}} {
		informer, err := mgr.GetCache().GetInformer(ctx, object)
		if err != nil {
			return fmt.Errorf("watch the policy on heartbeats: %w", err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { p.seen(o, true) },
			UpdateFunc: func(_, o any) { p.seen(o, true) },
			DeleteFunc: func(o any) {
				if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = last.Obj
				}
				p.seen(o, false)
			},
		})
		if err != nil {
			return fmt.Errorf("watch the policy on heartbeats: %w", err)
		}
		p.looked = append(p.looked, registration.HasSynced)
	}
	return mgr.Add(p)
}

func (p *heartbeatPolicy) seen(object any, exists bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch o := object.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		if o.Name != HeartbeatPolicyName {
			return
		}
		if p.policy = o; !exists {
			p.policy = nil
		}
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		if o.Name != HeartbeatPolicyName {
			return
		}
		if p.binding = o; !exists {
			p.binding = nil
		}
	}
	p.guards = enforced(p.namespace, p.policy, p.binding)
	p.say()
}

// say logs and measures the answer when it has changed.
func (p *heartbeatPolicy) say() {
	now := p.guards
	if !p.synced || p.said != nil && *p.said == now {
		return
	}
	p.said = &now
	if now {
		policyInPlace.Set(1)
		p.log.Info("The policy on heartbeats is in place")
	} else {
		policyInPlace.Set(0)
		p.log.Info("The policy on heartbeats, or its binding, is missing, or weaker than the one that is shipped: no reply queue is closed as idle", "policy", HeartbeatPolicyName)
	}
}
