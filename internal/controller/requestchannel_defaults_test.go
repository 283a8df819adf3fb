package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// ownDefault is an SQS whose queues have a largest message of 256 KiB unless another is set. takes: a larger one can be set.
type ownDefault struct {
	queue.API
	takes bool
	set   *bool
}

const largestOfAWS, largestThere = "1048576", "262144"

func (d ownDefault) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	out, err := d.API.GetQueueAttributes(ctx, in, o...)
	if err == nil && out.Attributes[queue.MaximumMessageSize] == largestOfAWS && !*d.set {
		out.Attributes[queue.MaximumMessageSize] = largestThere
	}
	return out, err
}

func (d ownDefault) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	if in.Attributes[queue.MaximumMessageSize] == largestOfAWS {
		if !d.takes {
			return nil, &types.InvalidAttributeValue{Message: ptr.To("Invalid value for the parameter MaximumMessageSize.")}
		}
		*d.set = true
	}
	return d.API.SetQueueAttributes(ctx, in, o...)
}

var _ = ginkgo.Describe("A default that is not the one that AWS documents", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
	})
	// place is where the channels are; takes: AWS's default can be set there.
	place := func(takes bool) {
		set := false
		w.wrap = func(api queue.API) queue.API { return ownDefault{api, takes, &set} }
		w.restart()
	}
	left := gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventAttributeLeft), gomega.ContainSubstring("spec.queue.maximumMessageBytes")))
	// settles holds that a channel is Ready, and stays so at no cost.
	settles := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		gomega.Expect(c).To(beReady())
		w.pass(2 * time.Hour)
		w.heard()
		requests, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
		gomega.Expect(writes).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.BeEmpty(), "it is told once")
	}

	// restored deletes a channel without the operator and makes it again, as a backup tool does.
	restored := func(c *v1alpha1.RequestChannel) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		w.restart()
		c = channelNamed("login")
		w.apply(c)
		w.heard()
		return c
	}

	for _, takes := range []bool{false, true} {
		ginkgo.It("is left on a queue that is new, in three requests, "+map[bool]string{false: "where SQS would refuse it", true: "though SQS would take it"}[takes], func() {
			place(takes)
			c := channelNamed("login")
			w.apply(c)
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.Equal(map[string]int{"CreateQueue": 1, "GetQueueAttributes": 1, "ListQueueTags": 1}))
			gomega.Expect(w.heard()).NotTo(left)
			settles(c)
		})
	}

	ginkgo.It("is left on a queue that was met after a restore, and that is said; what else is unset has its default", func() {
		place(false)
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.set(w.named("login"), map[string]string{queue.DelaySeconds: "7"})
		c = restored(c)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing))
		gomega.Expect(w.heard()).To(left)
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()[0].Attributes).To(gomega.HaveKeyWithValue(queue.DelaySeconds, "0"))
		settles(c)
	})

	ginkgo.It("is restored where SQS takes it, on a queue whose notes were lost in the moment of its creation", func() {
		place(true)
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		c = restored(c)
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.HaveKeyWithValue("SetQueueAttributes", 1), "nothing tells it from one that someone had set")
		gomega.Expect(w.heard()).NotTo(left)
		settles(c)
	})

	ginkgo.It("is refused once on a queue that was created again unseen", func() {
		place(false)
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "CreateQueue"}}})
		w.failed(c)
		w.sqs.SetFaults(sqstest.Plan{})
		w.pass(2 * time.Minute)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.heard()).To(left)
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(w.heard()).NotTo(left)
		settles(c)
	})

	ginkgo.It("cannot be set again where a field is unset, and that is said", func() {
		place(false)
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{MaximumMessageBytes: ptr.To[int32](2048), DelaySeconds: ptr.To[int32](7)}
		})
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Minute)
		w.heard()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
		w.reconciled(c)
		gomega.Expect(w.heard()).To(left)
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()[0].Attributes).To(gomega.And(gomega.HaveKeyWithValue(queue.DelaySeconds, "0"), gomega.HaveKeyWithValue(queue.MaximumMessageSize, "2048")))
		settles(c)
	})
})
