package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Whoever only observes judges nothing of the spec, and goes on telling of nothing that was judged before.
var _ = ginkgo.Describe("A channel that only observes from now on", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	observes := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		w.sqs.SetFaults(sqstest.Plan{})
		change(w, c, func(c *v1alpha1.RequestChannel) { observing(&c.Spec) })
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved))
		for _, condition := range []string{v1alpha1.ConditionDeadLetterReady, v1alpha1.ConditionDrifted} {
			gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Type", condition)))
		}
		requests, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.BeEmpty(), "nothing has it looked at before its time")
		gomega.Expect(writes).To(gomega.BeEmpty())
	}

	ginkgo.It("waits for no dead-letter channel", func() {
		dead := channelNamed("dead")
		c := channelNamed("login", deadTo("dead"))
		w.apply(dead, c)
		w.reconciled(dead)
		w.reconciled(c)
		w.remove(dead)
		w.reconciled(dead)
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonWaitingForDeadLetter))
		target := c.Status.DeadLetterTargetARN
		observes(c)
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.Equal(target), "the queue has its redrive policy still")
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonObservedQueueMissing))
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty())
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty(), "nobody is sent to a queue that is not there")
		gomega.Expect(c.Status.QueueARN).To(gomega.BeEmpty())
	})

	ginkgo.It("has not drifted", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](3)}
		})
		w.apply(c)
		w.reconciled(c)
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{"DelaySeconds": "7"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "SetQueueAttributes"}}})
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonAttributesDiffer))
		observes(c)
	})
})
