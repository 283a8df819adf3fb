package controller_test

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// hiding is an SQS that does not show one queue.
type hiding struct {
	queue.API
	name string
	on   *bool
}

func (h hiding) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, o ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	if *h.on && *in.QueueName == h.name {
		return nil, &sqstypes.QueueDoesNotExist{}
	}
	return h.API.GetQueueUrl(ctx, in, o...)
}

func (h hiding) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, o ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	if *h.on && strings.HasSuffix(*in.QueueUrl, "/"+h.name) {
		return nil, &sqstypes.QueueDoesNotExist{}
	}
	return h.API.ListQueueTags(ctx, in, o...)
}

var _ = ginkgo.Describe("A dead-letter queue by ARN that is not there", func() {
	var w *world
	var p *v1alpha1.QueueProvider
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		p = w.providerFor(allowing("graves-*"))
	})
	const target = "arn:aws:sqs:us-east-1:000000000000:graves-1"
	toGraves := &v1alpha1.DeadLetter{MaxReceiveCount: 5, ARN: target}
	// waits reconciles as often as it is asked to, for so long.
	waits := func(c *v1alpha1.RequestChannel, within time.Duration) {
		ginkgo.GinkgoHelper()
		for end := w.clock.Now().Add(within); w.clock.Now().Before(end); w.pass(w.result.RequeueAfter) {
			w.reconciled(c)
		}
		w.reconciled(c)
	}
	waiting := gomega.And(
		beReconciling(v1alpha1.ReasonWaitingForDeadLetter, "spec.deadLetter.arn", "graves-1"),
		haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonWaitingForDeadLetter))

	ginkgo.It("keeps the rest of the spec from nothing, and is used once it is there", func() {
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.DeadLetter, c.Spec.Queue = toGraves, &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](77)}
		})
		waits(c, 2*time.Minute)
		gomega.Expect(c).To(waiting)
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.HaveKeyWithValue(queue.VisibilityTimeout, "77"))
		w.set(w.named("login"), map[string]string{queue.VisibilityTimeout: "9"})
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.HaveKeyWithValue(queue.VisibilityTimeout, "77"), "drift is put right")
		gomega.Expect(c).To(waiting)
		w.pass(10 * time.Minute)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		w.queueTagged("graves-1", nil)
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there(w.named("login")).Attributes[queue.RedrivePolicy]).To(gomega.ContainSubstring(target))
	})

	ginkgo.It("keeps a queue from being made, since requests could be lost on it", func() {
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.DeadLetter = toGraves })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(waiting)
		waits(c, 2*time.Minute)
		gomega.Expect(c).To(waiting)
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		w.queueTagged("graves-1", nil)
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is told of one that was in use once SQS has not shown it for a minute", func() {
		hidden := false
		w.wrap = func(api queue.API) queue.API { return hiding{api, "graves-1", &hidden} }
		w.restart()
		w.queueTagged("graves-1", nil)
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.DeadLetter = toGraves })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(2 * time.Hour)
		hidden = true
		w.reconciled(c)
		gomega.Expect(c).To(beReady(), "one answer is no verdict")
		hidden = false
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		hidden = true
		waits(c, 2*time.Minute)
		gomega.Expect(c).To(waiting)
		gomega.Expect(w.there(w.named("login")).Attributes[queue.RedrivePolicy]).To(gomega.ContainSubstring(target), "it stays as it is")
		hidden = false
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})
})
