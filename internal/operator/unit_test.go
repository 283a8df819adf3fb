package operator

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// What a leader sent to SQS has ended before another can lead.
func TestNothingOfALeaderOutlivesItsLease(t *testing.T) {
	if last := retryPeriod + renewDeadline + queue.RequestTimeout; last >= leaseDuration {
		t.Errorf("a request may end %s after the lease was last renewed, and the lease changes hands after %s", last, leaseDuration)
	}
}

func TestIdentity(t *testing.T) {
	const uid = "0a1b2c3d-1111-2222-3333-444455556666"
	pinned := func(name, clusterUID, prefix string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: IdentityConfigMapName},
			Data:       map[string]string{keyClusterName: name, keyClusterUID: clusterUID, keyPrefix: prefix},
		}
	}
	for _, c := range []struct {
		name   string
		pinned *corev1.ConfigMap
		cfg    Config
		want   Identity
		says   string
	}{
		{name: "the first start pins the defaults", want: Identity{"0a1b2c3d", "rq", uid}},
		{name: "the first start pins what is asked for", cfg: Config{ClusterName: "prod", QueueNamePrefix: "x"}, want: Identity{"prod", "x", uid}},
		{name: "later starts need no flags", pinned: pinned("prod", uid, "x"), want: Identity{"prod", "x", uid}},
		{name: "later starts may repeat them", pinned: pinned("prod", uid, "x"), cfg: Config{ClusterName: "prod", QueueNamePrefix: "x"}, want: Identity{"prod", "x", uid}},
		{name: "another prefix", pinned: pinned("prod", uid, "x"), cfg: Config{QueueNamePrefix: "y"}, says: "--queue-name-prefix=y differs from x"},
		{name: "another cluster name", pinned: pinned("prod", uid, "x"), cfg: Config{ClusterName: "dev"}, says: "--cluster-name=dev differs from prod"},
		{name: "restored into another cluster", pinned: pinned("prod", "another", "x"), says: "belongs to another cluster"},
		{name: "emptied by hand", pinned: pinned("", uid, "x"), says: "cannot be part of a queue's name"},
		{name: "no room in a queue's name", cfg: Config{ClusterName: strings.Repeat("c", 21), QueueNamePrefix: strings.Repeat("p", 20)}, says: "41 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Namespace = "ns"
			builder := fake.NewClientBuilder().WithScheme(Scheme()).
				WithObjects(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: uid}})
			if c.pinned != nil {
				builder = builder.WithObjects(c.pinned)
			}
			api := builder.Build()
			got, err := pinIdentity(t.Context(), api, c.cfg)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("got %v, want an error that says %q", err, c.says)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			if again, err := pinIdentity(t.Context(), api, Config{Namespace: "ns"}); err != nil || again != got {
				t.Errorf("the next start has %+v, %v", again, err)
			}
		})
	}
}

// Two replicas start at once: the one that is second takes what the first has pinned, or refuses.
func TestIdentityIsPinnedOnce(t *testing.T) {
	api := fake.NewClientBuilder().WithScheme(Scheme()).
		WithObjects(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "0a1b2c3d-1"}}).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			other := o.DeepCopyObject().(*corev1.ConfigMap)
			other.Data[keyPrefix] = "first"
			if err := c.Create(ctx, other, options...); err != nil {
				return err
			}
			return c.Create(ctx, o, options...)
		}}).Build()
	got, err := pinIdentity(t.Context(), api, Config{Namespace: "ns"})
	if err != nil || got.QueueNamePrefix != "first" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPolicyEnforced(t *testing.T) {
	shipped, err := shippedPolicy()
	if err != nil || len(shipped.Spec.Validations) < 4 || len(shipped.Spec.MatchConditions) == 0 || len(shipped.Spec.Variables) == 0 {
		t.Fatalf("what is shipped: %+v, %v", shipped, err)
	}
	type spec = admissionv1.ValidatingAdmissionPolicySpec
	policy := func(change ...func(*spec)) *admissionv1.ValidatingAdmissionPolicy {
		p := shipped.DeepCopy()
		for _, f := range change {
			f(&p.Spec)
		}
		return p
	}
	going := policy()
	going.DeletionTimestamp = &metav1.Time{}
	binding := func(change ...func(*admissionv1.ValidatingAdmissionPolicyBinding)) *admissionv1.ValidatingAdmissionPolicyBinding {
		b := &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: HeartbeatPolicyName},
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: HeartbeatPolicyName, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		}
		for _, f := range change {
			f(b)
		}
		return b
	}
	for _, c := range []struct {
		name    string
		policy  *admissionv1.ValidatingAdmissionPolicy
		binding *admissionv1.ValidatingAdmissionPolicyBinding
		want    bool
	}{
		{"as shipped", policy(), binding(), true},
		{"no policy", nil, binding(), false},
		{"no binding", policy(), nil, false},
		{"with the API server's defaults", policy(func(s *spec) {
			s.FailurePolicy, s.MatchConstraints.MatchPolicy = nil, ptr.To(admissionv1.Equivalent)
			s.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}
			s.MatchConstraints.ResourceRules[0].Scope = ptr.To(admissionv1.AllScopes)
		}), binding(), true},
		{"the policy checks more", policy(func(s *spec) {
			s.Validations = append(s.Validations, admissionv1.Validation{Expression: "false"})
		}), binding(), true},
		{"the policy excepts nobody", policy(func(s *spec) { s.MatchConditions = nil }), binding(), true},
		{"the policy fails open", policy(func(s *spec) { s.FailurePolicy = ptr.To(admissionv1.Ignore) }), binding(), false},
		{"the policy is empty", policy(func(s *spec) { s.Validations = nil }), binding(), false},
		{"a check is missing", policy(func(s *spec) { s.Validations = s.Validations[1:] }), binding(), false},
		{"a check is always true", policy(func(s *spec) { s.Validations[1].Expression = "true" }), binding(), false},
		{"a variable is another", policy(func(s *spec) { s.Variables[0].Expression = "['a']" }), binding(), false},
		{"it excepts someone else", policy(func(s *spec) {
			s.MatchConditions[0].Expression = "request.userInfo.username != 'system:serviceaccount:shop:app'"
		}), binding(), false},
		{"it looks at less", policy(func(s *spec) {
			s.MatchConditions = append(s.MatchConditions, admissionv1.MatchCondition{Name: "never", Expression: "false"})
		}), binding(), false},
		{"it looks at another namespace", policy(func(s *spec) {
			s.MatchConstraints.NamespaceSelector.MatchLabels = map[string]string{"kubernetes.io/metadata.name": "other"}
		}), binding(), false},
		{"it looks at some objects", policy(func(s *spec) {
			s.MatchConstraints.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		}), binding(), false},
		{"it looks at other operations", policy(func(s *spec) {
			s.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{admissionv1.Create}
		}), binding(), false},
		{"it leaves resources out", policy(func(s *spec) {
			s.MatchConstraints.ExcludeResourceRules = s.MatchConstraints.ResourceRules
		}), binding(), false},
		{"it has no constraints", policy(func(s *spec) { s.MatchConstraints = nil }), binding(), false},
		{"it takes parameters", policy(func(s *spec) { s.ParamKind = &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"} }), binding(), false},
		{"the policy is being deleted", going, binding(), false},
		{"the binding audits", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
		}), false},
		{"the binding makes exceptions", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{}
		}), false},
		{"the binding takes parameters", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.ParamRef = &admissionv1.ParamRef{Name: "a"}
		}), false},
		{"the binding binds another policy", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) { b.Spec.PolicyName = "other" }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &heartbeatPolicy{log: logr.Discard(), namespace: DefaultNamespace}
			if p.inPlace() {
				t.Error("in place before anything was seen")
			}
			if c.policy != nil {
				p.seen(c.policy, true)
			}
			if c.binding != nil {
				p.seen(c.binding, true)
			}
			if got := p.inPlace(); got != c.want {
				t.Errorf("in place: %v, want %v", got, c.want)
			}
			p.seen(binding(), false)
			if p.inPlace() {
				t.Error("in place without a binding")
			}
		})
	}
}

// TestPolicyEnforcedElsewhere has the operator run in a namespace of another name, and so as another user.
func TestPolicyEnforcedElsewhere(t *testing.T) {
	shipped, err := shippedPolicy()
	if err != nil {
		t.Fatal(err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: shipped.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny, admissionv1.Audit},
	}}
	elsewhere := shipped.DeepCopy()
	elsewhere.Spec.MatchConditions[0].Expression = "request.userInfo.username != '" + userIn("elsewhere") + "'"
	if !enforced("elsewhere", elsewhere, binding) {
		t.Error("its own user may not be excepted")
	}
	if enforced("elsewhere", shipped, binding) || enforced(DefaultNamespace, elsewhere, binding) {
		t.Error("another's user may be excepted")
	}
}

func TestStripPodKeepsWhatIsRead(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: "u", ResourceVersion: "1", Labels: map[string]string{v1alpha1.LabelInject: "true", "app": "a"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "s"}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m"}},
			Annotations: map[string]string{
				v1alpha1.AnnotationCalls: "a", "url.replyqueue.dev/a": "u", corev1.MirrorPodAnnotationKey: "h",
				lifecycle.DefaultContainerAnnotation: "side", "kubectl.kubernetes.io/last-applied-configuration": "{}", "notreplyqueue.dev/x": "y",
			},
		},
		Spec: corev1.PodSpec{
			NodeName: "n", SchedulingGates: []corev1.PodSchedulingGate{{Name: v1alpha1.SchedulingGate}},
			Volumes:        []corev1.Volume{{Name: "v"}},
			Containers:     []corev1.Container{{Name: "app", Image: "i", Env: []corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}}}},
			InitContainers: []corev1.Container{{Name: "side", Image: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1",
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", Image: "i", RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "side", Image: "i", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	want := pod.DeepCopy()
	want.ManagedFields = nil
	want.Annotations = map[string]string{v1alpha1.AnnotationCalls: "a", "url.replyqueue.dev/a": "u", corev1.MirrorPodAnnotationKey: "h", lifecycle.DefaultContainerAnnotation: "side"}
	want.Spec.Volumes, want.Spec.Containers = nil, []corev1.Container{{Name: "app"}}
	want.Spec.InitContainers[0].Image = ""
	want.Status.PodIP, want.Status.ContainerStatuses[0].Image, want.Status.InitContainerStatuses[0].Image = "", "", ""
	want.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{}

	got, err := stripPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// onlyClients is a manager of which nothing but its clients is asked.
type onlyClients struct{ ctrl.Manager }

func (onlyClients) GetClient() client.Client    { return nil }
func (onlyClients) GetAPIReader() client.Reader { return nil }

// How often drift is looked for is the administrator's to say, within what SQS can show.
func TestDriftIntervalReachesTheReconciler(t *testing.T) {
	for _, c := range []struct {
		interval time.Duration
		refused  bool
	}{{0, false}, {time.Minute, false}, {time.Minute - 1, true}, {-time.Hour, true}, {24 * time.Hour, false}} {
		cfg := Config{REST: &rest.Config{}, DriftInterval: c.interval}
		cfg.setDefaults()
		err := cfg.validate()
		if (err != nil) != c.refused || (err != nil && !strings.Contains(err.Error(), "--drift-interval")) {
			t.Errorf("%s: %v", c.interval, err)
		}
		if got := requestChannels(onlyClients{}, dependencies{Config: cfg}, nil, nil).DriftInterval; got != c.interval {
			t.Errorf("%s: the reconciler has %s", c.interval, got)
		}
	}
}
