package controller_test

import (
	"context"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
)

var _ = ginkgo.Describe("Responders", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	pod := func(name, serves string, ready bool) *corev1.Pod {
		ginkgo.GinkgoHelper()
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: w.namespace,
			Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue}, Annotations: map[string]string{v1alpha1.AnnotationServes: serves},
		}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
		w.apply(p)
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			gomega.Expect(direct.Status().Update(w.ctx, p)).To(gomega.Succeed())
		}
		return p
	}
	// counted counts once, and returns what that cost.
	counted := func(c *v1alpha1.RequestChannel) (requests map[string]int, writes []string) {
		ginkgo.GinkgoHelper()
		return w.costing(func() {
			_, err := (&controller.ResponderReconciler{Client: w.client}).Reconcile(w.ctx, requestFor(c))
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			gomega.Expect(w.exists(c)).To(gomega.BeTrue())
		})
	}

	ginkgo.It("are counted from the pods that serve the channel, without a request to SQS", func() {
		c := channelNamed("login")
		w.apply(c)
		_, writes := counted(c)
		gomega.Expect(writes).To(gomega.BeEmpty(), "there never were any")

		pod("a", "login", true)
		pod("b", "pricing, login", false)
		pod("c", "pricing", true)
		stranger := pod("d", "login", true)
		change(w, stranger, func(p *corev1.Pod) { delete(p.Labels, v1alpha1.LabelInject) })
		over := pod("e", "login", true)
		over.Status.Phase = corev1.PodSucceeded
		gomega.Expect(direct.Status().Update(w.ctx, over)).To(gomega.Succeed())
		leaving := pod("h", "login", true)
		change(w, leaving, func(p *corev1.Pod) { p.Finalizers = []string{"example.com/held"} })
		w.remove(leaving)
		gomega.Expect(w.exists(leaving)).To(gomega.BeTrue())
		requests, writes := counted(c)
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(writes).To(gomega.ConsistOf("patch status RequestChannel"))
		gomega.Expect(c.Status.Responders).To(gomega.HaveValue(gomega.Equal(v1alpha1.ResponderCounts{Total: ptr.To[int32](2), Ready: ptr.To[int32](1)})))

		pod("f", "login."+w.namespace+",login", true)
		pod("g", "login.elsewhere", true)
		_, writes = counted(c)
		gomega.Expect(writes).To(gomega.ConsistOf("patch status RequestChannel"))
		gomega.Expect(c.Status.Responders).To(gomega.HaveValue(gomega.Equal(v1alpha1.ResponderCounts{Total: ptr.To[int32](3), Ready: ptr.To[int32](2)})),
			"a pod may name its own namespace, and answers no other's channels")

		_, writes = counted(c)
		gomega.Expect(writes).To(gomega.BeEmpty(), "nothing changed")
		w.reconciled(c)
		gomega.Expect(c.Status.Responders.Total).To(gomega.HaveValue(gomega.BeEquivalentTo(3)), "the channel's own reconciler leaves the count alone")
	})
})
