package operator_test

import (
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var _ = Describe("An operator that starts without one of its kinds", Serial, func() {
	It("serves the webhook, and becomes whole when the kind is there", func(ctx SpecContext) {
		const name = "queueproviders.replyqueue.dev"
		Expect(running.stop()).To(Succeed())
		restore := func(ctx SpecContext) {
			i := slices.IndexFunc(installed, func(o *unstructured.Unstructured) bool {
				return o.GetKind() == "CustomResourceDefinition" && o.GetName() == name
			})
			apply(ctx, installed[i:i+1])
		}
		DeferCleanup(func(ctx SpecContext) {
			restore(ctx)
			running = start(operatorConfig(ctx))
			Eventually(ctx, running.ready).Should(Succeed())
		})
		// What other specs left, and no operator lets go now, would hold the kind.
		var left v1alpha1.QueueProviderList
		Expect(admin.List(ctx, &left)).To(Succeed())
		for i := range left.Items {
			left.Items[i].Finalizers = nil
			Expect(admin.Update(ctx, &left.Items[i])).To(Succeed())
		}
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
		Expect(admin.Delete(ctx, crd)).To(Succeed())
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(crd), crd))
		}).Should(BeTrue())

		var mu sync.Mutex
		var lines []string
		said := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(lines)
		}
		cfg := operatorConfig(ctx)
		cfg.Log = funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, args)
		}, funcr.Options{})
		lacking := start(cfg)
		DeferCleanup(func() { Expect(lacking.stop()).To(Succeed()) })
		Eventually(ctx, lacking.ready).Should(Succeed())
		Expect(said()).To(ContainElement(ContainSubstring(`"kinds"=["QueueProvider"]`)))
		whole := ContainElement(ContainSubstring(`"msg"="Starting" "clusterName"`))
		Expect(said()).NotTo(whole)
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationServes: "sum"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).To(HaveKey(v1alpha1.AnnotationInjected))
		Expect(pod.Spec.SchedulingGates).NotTo(BeEmpty())

		restore(ctx)
		Eventually(ctx, said).WithTimeout(30 * time.Second).Should(whole)
		Eventually(ctx, lacking.ready).Should(Succeed())
		again := pod.DeepCopy()
		again.ObjectMeta = metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: "p-", Labels: pod.Labels, Annotations: map[string]string{v1alpha1.AnnotationServes: "sum"}}
		again.Spec = plainPod(pod.Namespace).Spec
		Expect(admin.Create(ctx, again)).To(Succeed())
		Expect(again.Annotations).To(HaveKey(v1alpha1.AnnotationInjected))
	})
})
