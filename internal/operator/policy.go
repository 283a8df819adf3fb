package operator

import (
	"context"
	"fmt"
	"slices"
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
	Help: "1 while the admission policy that protects heartbeats is there and enforced. While 0, no reply queue is closed as idle; apply config/policy again.",
})

func init() { metrics.Registry.MustRegister(policyInPlace) }

// heartbeatPolicy watches the policy on heartbeats. Without it any pod could renew, or fall silent for,
// any other, so nothing may then be concluded from heartbeats.
type heartbeatPolicy struct {
	log logr.Logger
	// looked are true once what was there at the start has been seen.
	looked []toolscache.InformerSynced

	mu      sync.Mutex
	policy  *admissionv1.ValidatingAdmissionPolicy
	binding *admissionv1.ValidatingAdmissionPolicyBinding
	synced  bool  // until then an object may just not have been seen yet
	said    *bool // what was logged last
}

// inPlace reports whether the policy is there and enforced. It does not block; before the first sight of
// both objects it is false.
func (p *heartbeatPolicy) inPlace() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return enforced(p.policy, p.binding)
}

// enforced is true when the API server would refuse what the policy forbids: the policy fails closed, and
// a binding without exceptions denies.
func enforced(policy *admissionv1.ValidatingAdmissionPolicy, binding *admissionv1.ValidatingAdmissionPolicyBinding) bool {
	if policy == nil || policy.DeletionTimestamp != nil || len(policy.Spec.Validations) == 0 ||
		(policy.Spec.FailurePolicy != nil && *policy.Spec.FailurePolicy != admissionv1.Fail) {
		return false
	}
	return binding != nil && binding.DeletionTimestamp == nil &&
		binding.Spec.PolicyName == policy.Name &&
		binding.Spec.MatchResources == nil &&
		slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny)
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
	p.say()
}

// say logs and measures the answer when it has changed.
func (p *heartbeatPolicy) say() {
	now := enforced(p.policy, p.binding)
	if !p.synced || p.said != nil && *p.said == now {
		return
	}
	p.said = &now
	if now {
		policyInPlace.Set(1)
		p.log.Info("The policy on heartbeats is in place")
	} else {
		policyInPlace.Set(0)
		p.log.Info("The policy on heartbeats, or its binding, is missing or not enforced: no reply queue is closed as idle", "policy", HeartbeatPolicyName)
	}
}
