package operator_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// Real pods through the real API server and the running operator's webhook, over its rotated certificate.
var _ = Describe("Admission", func() {
	opted := func(ctx SpecContext, mode string) *corev1.Pod {
		GinkgoHelper()
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: mode}
		pod.Annotations = map[string]string{v1alpha1.AnnotationCalls: "sum", v1alpha1.AnnotationReplyHost: "web"}
		return pod
	}
	marker := HaveKey(v1alpha1.AnnotationInjected)
	gate := corev1.PodSchedulingGate{Name: v1alpha1.SchedulingGate}

	It("gates and injects a pod, with the token that Kubernetes mounted", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationInjected, "lease"))
		Expect(pod.Spec.SchedulingGates).To(ConsistOf(gate))
		Expect(pod.Spec.Containers[0].Env).To(ContainElements(
			HaveField("Name", injected.EnvReplyQueueURL), HaveField("Name", "REPLYQUEUE_CHANNEL_SUM_URL"), HaveField("Name", injected.EnvHeartbeat)))
		Expect(pod.Spec.Volumes).To(HaveLen(1), "the usual token suffices")
	})

	It("gives a pod without a token one of its own when it asks for Lease heartbeats", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		pod.Spec.AutomountServiceAccountToken = ptr.To(false)
		pod.Annotations[v1alpha1.AnnotationHeartbeat] = "lease"
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Spec.Containers[0].VolumeMounts).To(ConsistOf(And(
			HaveField("MountPath", injected.ProjectedServiceAccountDir), HaveField("ReadOnly", true))))
	})

	It("gives a pod that serves a file with what it may answer now", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		pod.Annotations[v1alpha1.AnnotationServes] = "audit"
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Spec.Containers[0].Env).To(ContainElement(HaveField("Name", injected.EnvReturnAddressesFile)))
		Expect(pod.Spec.Containers[0].VolumeMounts).To(ContainElement(HaveField("MountPath", injected.ReturnAddressesDir)))
		Expect(pod.Spec.Volumes).To(ContainElement(HaveField("DownwardAPI.Items", ConsistOf(
			HaveField("FieldRef.FieldPath", "metadata.annotations['"+v1alpha1.AnnotationReturnAddresses+"']")))))
	})

	It("starts a best-effort pod at once", func(ctx SpecContext) {
		pod := opted(ctx, "best-effort")
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).To(marker)
		Expect(pod.Spec.SchedulingGates).To(BeEmpty())
	})

	It("strips what a template preset", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		pod.Annotations[v1alpha1.AnnotationReplyQueueURL] = "https://another.team/queue"
		pod.Annotations["url.replyqueue.dev/sum"] = "https://another.team/queue"
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).NotTo(Or(HaveKey(v1alpha1.AnnotationReplyQueueURL), HaveKey("url.replyqueue.dev/sum")))
	})

	It("admits a pod with the longest reference, whose annotation is a hash", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		label := fmt.Sprintf("%063d", 7)
		pod.Annotations[v1alpha1.AnnotationCalls] = label + "." + label
		Expect(admin.Create(ctx, pod)).To(Succeed())
	})

	DescribeTable("refuses what cannot be meant, naming it", func(ctx SpecContext, label, key, value string, parts ...string) {
		pod := opted(ctx, label)
		pod.Annotations[key] = value
		err := admin.Create(ctx, pod)
		Expect(err).To(beForbidden(append(parts, key)...))
		Expect(without(err.Error(), `admission webhook "pods.replyqueue.dev" denied the request`)).To(BeEmpty())
	},
		Entry("a channel", "true", v1alpha1.AnnotationCalls, "Sum", "DNS label"),
		Entry("a host", "true", v1alpha1.AnnotationReplyHost, "a.b", "DNS label"),
		Entry("a heartbeat", "true", v1alpha1.AnnotationHeartbeat, "always", `"lease" and "pod"`),
		Entry("a container", "true", v1alpha1.AnnotationCallerContainer, "web", "it has app"),
	)

	It("refuses a misspelt label rather than ignore it", func(ctx SpecContext) {
		Expect(admin.Create(ctx, opted(ctx, "yes"))).To(beForbidden(v1alpha1.LabelInject, `"best-effort"`))
	})

	It("never touches pods that did not opt in", func(ctx SpecContext) {
		for _, labels := range []map[string]string{nil, {v1alpha1.LabelInject: "false"}} {
			pod := opted(ctx, "")
			pod.Labels = labels
			Expect(admin.Create(ctx, pod)).To(Succeed())
			Expect(pod.Annotations).NotTo(marker)
			Expect(pod.Spec.Containers[0].Env).To(BeEmpty())
		}
	})

	It("never touches the pods it depends on itself", func(ctx SpecContext) {
		for _, ns := range []string{metav1.NamespaceSystem, operator.DefaultNamespace} {
			pod := opted(ctx, "true")
			pod.Namespace = ns
			pod.Spec.ServiceAccountName = operator.ServiceAccountName
			if ns == metav1.NamespaceSystem {
				pod.Spec.ServiceAccountName = "default"
				err := admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}})
				Expect(client.IgnoreAlreadyExists(err)).To(Succeed())
			}
			restricted(pod)
			Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
			Expect(pod.Annotations).NotTo(marker)
		}
	})

	It("honours a dry run", func(ctx SpecContext) {
		pod := opted(ctx, "true")
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		Expect(pod.Annotations).To(marker)
		err := admin.Get(ctx, client.ObjectKeyFromObject(pod), &corev1.Pod{})
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	})
})

// restricted makes a pod one that the Pod Security level of the operator's namespace takes.
func restricted(pod *corev1.Pod) {
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}
