package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// answering is a fence that always answers the same.
type answering struct{ held *queue.Held }

func (a answering) MayDelete(string) error {
	if a.held == nil {
		return nil
	}
	return a.held
}

func (answering) AdoptsFrom(string) string { return "" }

var _ = ginkgo.Describe("A channel whose queue may be another cluster's", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	// edited changes all there is to change, with a fence that answers like that.
	edited := func(held *queue.Held) (c *v1alpha1.RequestChannel, requests map[string]int) {
		ginkgo.GinkgoHelper()
		c = channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.restart()
		w.registry.Fence = answering{held}
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
			c.Spec.Tags = v1alpha1.Tags{"cost": "1"}
		})
		requests, _ = w.costing(func() { w.reconciled(c) })
		return c, requests
	}

	ginkgo.It("leaves it as it is while this cluster is known to be a copy", func() {
		c, requests := edited(&queue.Held{Provider: "default", Conflict: true, Message: "another cluster claims the queues", RetryAfter: time.Second})
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonIdentityConflict, "another cluster claims the queues"))
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", time.Minute))
		gomega.Expect(requests).NotTo(gomega.Or(gomega.HaveKey("SetQueueAttributes"), gomega.HaveKey("TagQueue"), gomega.HaveKey("UntagQueue"), gomega.HaveKey("CreateQueue")))
		gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty(), "calls go on")

		fresh := channelNamed("fresh")
		w.apply(fresh)
		requests, _ = w.costing(func() { w.reconciled(fresh) })
		gomega.Expect(fresh).To(beStalled(v1alpha1.ReasonIdentityConflict))
		gomega.Expect(requests).To(gomega.BeEmpty(), "CreateQueue would hand out the original's")
	})

	ginkgo.It("brings it to its spec while that is merely not proven", func() {
		c, requests := edited(&queue.Held{Provider: "default", Message: "not compared lately", RetryAfter: time.Second})
		gomega.Expect(c).To(beReady())
		gomega.Expect(requests).To(gomega.HaveKey("SetQueueAttributes"))
	})

	ginkgo.It("brings it to its spec while that is proven", func() {
		c, requests := edited(nil)
		gomega.Expect(c).To(beReady())
		gomega.Expect(requests).To(gomega.HaveKey("SetQueueAttributes"))
	})
})
