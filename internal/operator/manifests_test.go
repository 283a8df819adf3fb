package operator_test

import (
	"context"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

var _ = Describe("The manifests", func() {
	It("build, also the parts that config/default does not take", func(ctx SpecContext) {
		for _, dir := range []string{"certmanager", "network-policy", "prometheus", "samples"} {
			Expect(kustomize(ctx, "../../config/"+dir)).NotTo(BeEmpty(), dir)
		}
	})

	It("let cert-manager take over the certificate", func(ctx SpecContext) {
		for _, object := range kustomize(ctx, "../../config/certmanager") {
			switch object.GetKind() {
			case "Secret":
				Fail("the Secret is cert-manager's to make")
			case "Deployment":
				var deployment appsv1.Deployment
				Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &deployment)).To(Succeed())
				Expect(deployment.Spec.Template.Spec.Containers[0].Args).To(ContainElements(
					"--leader-elect", "--cert-management="+string(operator.CertsMounted), "--cert-dir=/certificates"))
				Expect(deployment.Spec.Template.Spec.Volumes).To(ContainElement(HaveField("VolumeSource.Secret.SecretName", operator.CertificateSecretName)))
			case "MutatingWebhookConfiguration":
				Expect(object.GetAnnotations()).To(HaveKeyWithValue("cert-manager.io/inject-ca-from", "replyqueue-system/replyqueue-webhook"))
			}
		}
	})

	It("keep the webhook to the creation of pods, for five seconds at most", func(ctx SpecContext) {
		var configuration admissionv1.MutatingWebhookConfiguration
		Expect(admin.Get(ctx, client.ObjectKey{Name: operator.WebhookConfigurationName}, &configuration)).To(Succeed())
		policies := map[string]admissionv1.FailurePolicyType{}
		for _, w := range configuration.Webhooks {
			policies[w.Name] = *w.FailurePolicy
			Expect(w.TimeoutSeconds).To(HaveValue(BeNumerically("<=", 5)))
			Expect(w.SideEffects).To(HaveValue(Equal(admissionv1.SideEffectClassNone)))
			Expect(w.ReinvocationPolicy).To(HaveValue(Equal(admissionv1.IfNeededReinvocationPolicy)))
			Expect(w.Rules).To(ConsistOf(admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: ptr.To(admissionv1.NamespacedScope),
				},
			}))
		}
		Expect(policies).To(Equal(map[string]admissionv1.FailurePolicyType{
			"pods.replyqueue.dev": admissionv1.Fail, "best-effort.pods.replyqueue.dev": admissionv1.Ignore,
		}))
	})

	It("run the operator under the restricted level, without asking the operator", func(ctx SpecContext) {
		var deployment appsv1.Deployment
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.ServiceAccountName}, &deployment)).To(Succeed())
		pod := podOf(&deployment)
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		Expect(pod.Spec.SchedulingGates).To(BeEmpty())
		Expect(deployment.Spec.Replicas).To(HaveValue(BeNumerically(">=", 2)))
	})

	It("include samples whose pods are admitted, restricted, gated and injected", func(ctx SpecContext) {
		samples := kustomize(ctx, "../../config/samples")
		apply(ctx, samples)
		DeferCleanup(func(ctx SpecContext) {
			for _, object := range samples {
				if object.GetKind() != "Namespace" { // there is no controller that would empty it
					Expect(admin.Delete(ctx, object)).To(Succeed())
				}
			}
		})
		Expect(client.IgnoreAlreadyExists(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "default"}}))).To(Succeed())
		for name, want := range map[string]struct{ mode, variable string }{
			"requester": {"lease", injected.EnvReplyQueueURL},
			"responder": {"pod", "REPLYQUEUE_CHANNEL_SUM_URL"},
		} {
			var deployment appsv1.Deployment
			Expect(admin.Get(ctx, client.ObjectKey{Namespace: "demo", Name: name}, &deployment)).To(Succeed())
			pod := podOf(&deployment)
			Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed(), name)
			Expect(pod.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationInjected, want.mode), name)
			Expect(pod.Spec.Containers[0].Env).To(ContainElement(HaveField("Name", want.variable)), name)
			Expect(pod.Spec.SchedulingGates).To(HaveLen(1), name)
		}
	})

	It("include a sample of each feature, which the API server takes", func(ctx SpecContext) {
		ns := namespace(ctx)
		files, err := filepath.Glob("../../config/samples/features/*.yaml")
		Expect(err).NotTo(HaveOccurred())
		Expect(files).NotTo(BeEmpty())
		for _, file := range files {
			objects := read(file)
			Expect(objects).NotTo(BeEmpty(), file)
			for _, object := range objects {
				if object.GetKind() != "QueueProvider" {
					Expect(object.GetNamespace()).To(BeEmpty(), "%s: features go into a namespace of the reader's choice", file)
					object.SetNamespace(ns)
				}
				Expect(admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("reader"))).To(Succeed(), "%s: %s", file, object.GetName())
				DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
			}
		}
	})

	It("include a sample of each kind that people write", func(ctx SpecContext) {
		kinds := map[string]bool{}
		for _, dir := range []string{"v1alpha1_requestchannel.yaml", "v1alpha1_replyhost.yaml", "v1alpha1_queueprovider.yaml"} {
			for _, object := range read("../../config/samples/" + dir) {
				kinds[object.GetKind()] = true
				object.SetName("sample-" + object.GetName())
				if object.GetNamespace() != "" {
					object.SetNamespace("default")
				}
				Expect(admin.Create(ctx, object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))).To(Succeed(), dir)
			}
		}
		Expect(kinds).To(HaveLen(3))
	})
})

var _ = Describe("The permissions", func() {
	type right struct{ verb, group, resource, namespace, name string }
	review := func(ctx context.Context, user string, groups []string, r right) bool {
		GinkgoHelper()
		resource, subresource, _ := strings.Cut(r.resource, "/")
		answer := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, Groups: groups,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: r.verb, Group: r.group, Resource: resource, Subresource: subresource, Namespace: r.namespace, Name: r.name,
			},
		}}
		Expect(admin.Create(ctx, answer)).To(Succeed())
		return answer.Status.Allowed
	}

	DescribeTable("of the operator cover what it does, and no more",
		func(ctx SpecContext, allowed bool, verbs []string, r right) {
			for _, verb := range verbs {
				r.verb = verb
				Expect(review(ctx, theOperator, []string{"system:serviceaccounts", "system:authenticated"}, r)).To(Equal(allowed), "%+v", r)
			}
		},
		Entry("channels", true, []string{"get", "list", "watch", "patch"}, right{group: "replyqueue.dev", resource: "requestchannels", namespace: "any"}),
		Entry("status of channels", true, []string{"patch"}, right{group: "replyqueue.dev", resource: "requestchannels/status", namespace: "any"}),
		Entry("pods", true, []string{"get", "list", "watch"}, right{resource: "pods", namespace: "any"}),
		Entry("events", true, []string{"create", "patch"}, right{group: "events.k8s.io", resource: "events", namespace: "any"}),
		Entry("heartbeats", true, []string{"get", "list", "watch", "create", "update", "patch", "delete"},
			right{group: "coordination.k8s.io", resource: "leases", namespace: v1alpha1.HeartbeatNamespace}),
		Entry("its leader lease", true, []string{"get", "update"},
			right{group: "coordination.k8s.io", resource: "leases", namespace: operator.DefaultNamespace, name: "replyqueue-leader"}),
		Entry("its certificate", true, []string{"get", "list", "watch", "update"}, right{resource: "secrets", namespace: operator.DefaultNamespace, name: operator.CertificateSecretName}),
		Entry("its webhook configuration", true, []string{"get", "list", "watch", "update"},
			right{group: "admissionregistration.k8s.io", resource: "mutatingwebhookconfigurations", name: operator.WebhookConfigurationName}),
		Entry("reviews of who reads metrics", true, []string{"create"}, right{group: "authentication.k8s.io", resource: "tokenreviews"}),
		Entry("reviews of whether pods may heartbeat", true, []string{"create"}, right{group: "authorization.k8s.io", resource: "subjectaccessreviews"}),

		Entry("not: channels made or removed", false, []string{"create", "delete"}, right{group: "replyqueue.dev", resource: "requestchannels", namespace: "any"}),
		Entry("not: people's pods made or removed", false, []string{"create", "delete", "update"}, right{resource: "pods", namespace: "any"}),
		Entry("not: exec", false, []string{"create"}, right{resource: "pods/exec", namespace: "any"}),
		Entry("secrets of bindings, which the policy replyqueue-bindings tells from others", true, []string{"create", "patch", "delete"}, right{resource: "secrets", namespace: "any"}),
		Entry("not: secrets read", false, []string{"get", "list", "watch", "update", "deletecollection"}, right{resource: "secrets", namespace: "any"}),
		Entry("not: other secrets of its namespace", false, []string{"get", "list", "watch", "update"}, right{resource: "secrets", namespace: operator.DefaultNamespace}),
		Entry("not: another secret of its namespace", false, []string{"get", "update"}, right{resource: "secrets", namespace: operator.DefaultNamespace, name: "theirs"}),
		Entry("not: tokens", false, []string{"create"}, right{resource: "serviceaccounts/token", namespace: "any"}),
		Entry("not: Leases of others", false, []string{"get", "update"}, right{group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease"}),
		Entry("not: webhooks of others", false, []string{"get", "update", "patch", "create", "delete"},
			right{group: "admissionregistration.k8s.io", resource: "mutatingwebhookconfigurations", name: "theirs"}),
		Entry("not: its own policies", false, []string{"update", "patch", "delete"},
			right{group: "admissionregistration.k8s.io", resource: "validatingadmissionpolicies", name: operator.HeartbeatPolicyName}),
		Entry("not: roles", false, []string{"create", "update", "bind", "escalate"}, right{group: "rbac.authorization.k8s.io", resource: "clusterroles"}),
	)

	DescribeTable("of people, by the roles that are aggregated to view, edit and admin",
		func(ctx SpecContext, role string, allowed, refused []right) {
			user := "somebody-who-may-" + role
			ns := namespace(ctx)
			Expect(admin.Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
			})).To(Succeed())
			for _, r := range allowed {
				r.group, r.namespace = v1alpha1.GroupVersion.Group, ns
				Eventually(ctx, func() bool { return review(ctx, user, nil, r) }).Should(BeTrue(), "%+v", r)
			}
			for _, r := range refused {
				r.group, r.namespace = v1alpha1.GroupVersion.Group, ns
				Expect(review(ctx, user, nil, r)).To(BeFalse(), "%+v", r)
			}
		},
		Entry("view", "replyqueue-view",
			[]right{{verb: "list", resource: "replyqueues"}, {verb: "get", resource: "requestchannels"}, {verb: "watch", resource: "replyhosts"}},
			[]right{{verb: "create", resource: "requestchannels"}, {verb: "delete", resource: "replyqueues"}}),
		Entry("edit", "replyqueue-edit",
			[]right{{verb: "create", resource: "requestchannels"}, {verb: "delete", resource: "replyhosts"}},
			[]right{{verb: "create", resource: "replyqueues"}, {verb: "delete", resource: "replyqueues"}, {verb: "update", resource: "requestchannels/status"}, {verb: "create", resource: "queueproviders"}}),
	)

	It("are added to Kubernetes' own roles", func(ctx SpecContext) {
		for role, targets := range map[string][]string{"replyqueue-view": {"view", "edit", "admin"}, "replyqueue-edit": {"edit", "admin"}} {
			var cr rbacv1.ClusterRole
			Expect(admin.Get(ctx, client.ObjectKey{Name: role}, &cr)).To(Succeed())
			for _, target := range targets {
				Expect(cr.Labels).To(HaveKeyWithValue("rbac.authorization.k8s.io/aggregate-to-"+target, "true"))
			}
		}
	})
})

// podOf is a pod as the ReplicaSet controller would make it of a Deployment.
func podOf(d *appsv1.Deployment) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.GenerateName = d.Namespace, d.Name+"-"
	return pod
}
