package controller_test

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
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

	ginkgo.It("leaves it as it is until this process knows better", func() {
		c, requests := edited(&queue.Held{Provider: "default", Message: "being found out", RetryAfter: time.Second})
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonIdentityUnproven, "being found out"))
		for action := range requests {
			gomega.Expect(action).To(gomega.BeElementOf(reading))
		}
		w.registry.Fence = answering{}
		w.restart()
		requests, _ = w.costing(func() { w.reconciled(c) })
		gomega.Expect(c).To(beReady())
		gomega.Expect(requests).To(gomega.HaveKey("SetQueueAttributes"))
	})

	ginkgo.It("brings it to its spec while the proof is merely old", func() {
		c, requests := edited(&queue.Held{Provider: "default", Known: true, Message: "not compared lately", RetryAfter: time.Second})
		gomega.Expect(c).To(beReady())
		gomega.Expect(requests).To(gomega.HaveKey("SetQueueAttributes"))
	})

	ginkgo.It("creates what is new meanwhile, and writes to nothing that was there", func() {
		w.registry.Fence = answering{&queue.Held{Provider: "default", Message: "being found out", RetryAfter: time.Second}}
		c := channelNamed("fresh", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		q, _ := w.sqs.Queue(w.named("fresh"))
		gomega.Expect(q.Attributes).To(gomega.HaveKey("RedrivePolicy"))

		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		again := channelNamed("fresh", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
		})
		w.apply(again) // as out of a backup, without a status
		w.pass(time.Hour)
		requests, _ := w.costing(func() { w.reconciled(again) })
		gomega.Expect(again).To(beReconciling(v1alpha1.ReasonIdentityUnproven))
		gomega.Expect(requests).NotTo(gomega.Or(gomega.HaveKey("SetQueueAttributes"), gomega.HaveKey("TagQueue"), gomega.HaveKey("UntagQueue")))
	})

	ginkgo.It("is a copy's: it changes nothing, from its first moment on, however its original goes on", func() {
		original := w.fenced("identity")
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
		})
		w.apply(c)
		w.reconciled(c)
		w.compared(original, 2)
		taken := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "identity"}}
		gomega.Expect(w.exists(taken)).To(gomega.BeTrue())
		w.apply(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "copied"}, Data: taken.Data})
		w.compared(original, 6)
		q, _ := w.sqs.Queue(w.named("login"))
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{"MessageRetentionPeriod": "86400"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.compared(original, 100)

		w.restart()
		clone := w.fenced("copied")
		for i := range 20 {
			change(w, c, func(c *v1alpha1.RequestChannel) {
				metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationReconcileAt, strconv.Itoa(i))
			})
			w.reconciled(c)
			if i == 0 {
				gomega.Expect(c).To(beReady(), "it is no news of the queue")
			}
			w.compared(clone, 1)
			w.registry.Fence = original
			original.Round(w.ctx)
			w.registry.Fence = clone
		}
		q, _ = w.sqs.Queue(q.Name)
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "86400"))
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonIdentityConflict))
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
	})

	ginkgo.It("brings it to its spec while that is proven", func() {
		c, requests := edited(nil)
		gomega.Expect(c).To(beReady())
		gomega.Expect(requests).To(gomega.HaveKey("SetQueueAttributes"))
	})
})
