package controller_test

import (
	"context"
	"errors"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

var _ = ginkgo.Describe("QueueProvider", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.It("says that it can be used, where, and by how many, and is held exactly while it is", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.Region = "eu-west-1" })
		w.reconciled(p)
		gomega.Expect(p).To(beReady())
		gomega.Expect(p.Status.Region).To(gomega.Equal("eu-west-1"))
		gomega.Expect(p.Status.Users).To(gomega.HaveValue(gomega.BeEquivalentTo(0)))
		gomega.Expect(p.Finalizers).To(gomega.BeEmpty())
		_, writes := w.costing(func() { w.reconciled(p) })
		gomega.Expect(writes).To(gomega.BeEmpty())

		c := channelNamed("login", using(p))
		host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: v1alpha1.ReplyHostSpec{ProviderRef: c.Spec.ProviderRef}}
		w.apply(c, host)
		w.reconciled(p)
		gomega.Expect(p.Status.Users).To(gomega.HaveValue(gomega.BeEquivalentTo(2)))
		gomega.Expect(p.Finalizers).To(gomega.ConsistOf(v1alpha1.FinalizerQueueProvider))

		w.remove(p)
		w.reconciled(p)
		gomega.Expect(p).To(haveCondition(v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonObjectsUseIt, "2 RequestChannels and ReplyHosts"))
		w.remove(c)
		w.remove(host)
		w.reconciled(p)
		gomega.Expect(w.exists(p)).To(gomega.BeFalse())
	})

	ginkgo.It("stalls when no client can be made from it", func() {
		p := w.providerFor()
		connect := w.registry.Connect
		w.registry.Connect = func(context.Context, string, string, string) (queue.API, string, string, error) {
			return nil, "", "", errors.New("no AWS region")
		}
		w.reconciled(p)
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonProviderInvalid, "no AWS region"))
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
		w.registry.Connect = connect
		w.reconciled(p)
		gomega.Expect(p).To(beReady())
	})

	ginkgo.It("refuses the name that stands for the operator's own environment", func() {
		p := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.DefaultProviderName}}
		p.Spec.Namespaces.From = v1alpha1.NamespacesFromAll
		w.apply(p)
		w.reconciled(p)
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonProviderInvalid, "reserved"))
		w.remove(p)
	})
})
