package operator

import (
	"context"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
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
	policy := func(change ...func(*admissionv1.ValidatingAdmissionPolicy)) *admissionv1.ValidatingAdmissionPolicy {
		p := &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: HeartbeatPolicyName},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: ptr.To(admissionv1.Fail), Validations: []admissionv1.Validation{{Expression: "true"}},
			},
		}
		for _, f := range change {
			f(p)
		}
		return p
	}
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
		{"the policy fails open", policy(func(p *admissionv1.ValidatingAdmissionPolicy) { p.Spec.FailurePolicy = ptr.To(admissionv1.Ignore) }), binding(), false},
		{"the policy is empty", policy(func(p *admissionv1.ValidatingAdmissionPolicy) { p.Spec.Validations = nil }), binding(), false},
		{"the policy is being deleted", policy(func(p *admissionv1.ValidatingAdmissionPolicy) { p.DeletionTimestamp = &metav1.Time{} }), binding(), false},
		{"the binding audits", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
		}), false},
		{"the binding makes exceptions", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{}
		}), false},
		{"the binding binds another policy", policy(), binding(func(b *admissionv1.ValidatingAdmissionPolicyBinding) { b.Spec.PolicyName = "other" }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &heartbeatPolicy{log: logr.Discard()}
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
