package controller_test

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// usedLater is an SQS that takes no queue for dead letters in the first second after its creation.
type usedLater struct {
	queue.API
	w     *world
	since map[string]time.Time
	// never: nor later.
	never *bool
}

func (u usedLater) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	out, err := u.API.CreateQueue(ctx, in, o...)
	if err == nil {
		u.since[*in.QueueName] = u.w.clock.Now()
	}
	return out, err
}

func (u usedLater) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	target := queue.DeadLetterTarget(in.Attributes)
	if at, there := u.since[target[strings.LastIndexByte(target, ':')+1:]]; there && (*u.never || u.w.clock.Now().Sub(at) < time.Second) {
		return nil, &smithy.GenericAPIError{Code: "InvalidParameterValue", Message: "Value for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist."}
	}
	return u.API.SetQueueAttributes(ctx, in, o...)
}

var _ = ginkgo.Describe("What comes right when it is tried again", func() {
	var w *world
	var never bool
	ginkgo.BeforeEach(func(ctx context.Context) {
		w, never = newWorld(context.WithoutCancel(ctx)), false
		w.wrap = func(api queue.API) queue.API { return usedLater{api, w, map[string]time.Time{}, &never} }
		w.restart()
	})
	ginkgo.It("is a dead-letter queue that SQS does not know in its first second", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, "does not know the dead-letter queue yet"))
		gomega.Expect(w.heard()).To(gomega.BeEmpty())
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})
	ginkgo.It("is not a dead-letter queue that SQS never comes to know: after a minute that is said, in SQS's words", func() {
		never = true
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		for range 29 {
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing))
			w.pass(w.result.RequeueAfter)
		}
		w.pass(2 * time.Second)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonInvalid, "spec.deadLetter", "Dead letter target does not exist"))
	})
	ginkgo.It("is what a spec restored from a backup no longer has, though the channel observed its queue first", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.apply(c)
		w.reconciled(c)
		w.set(w.named("login"), map[string]string{queue.Policy: `{"Version":"2012-10-17","Statement":[]}`})
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		w.restart()
		w.pass(2 * time.Hour)
		c = channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve })
		w.apply(c)
		w.reconciled(c)
		w.set(w.named("login"), map[string]string{queue.MessageRetentionPeriod: "1209600"}) // Whose that is while it is observed.
		w.pass(2 * time.Hour)
		w.restart()
		w.heard()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ManagementPolicy = v1alpha1.ManagementPolicyManage })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.And(
			gomega.HaveKeyWithValue(queue.DelaySeconds, "0"), gomega.HaveKeyWithValue(queue.MessageRetentionPeriod, "1209600")))
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventAttributeLeft), gomega.ContainSubstring("spec.policy"))))
	})
	ginkgo.It("is a FIFO queue whose high throughput somebody turned on, though the spec names the scope alone", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.FIFO = &v1alpha1.FIFO{DeduplicationScope: v1alpha1.DeduplicationScopeQueue}
		})
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		w.set(w.named("login.fifo"), map[string]string{queue.DeduplicationScope: "messageGroup", queue.FIFOThroughputLimit: "perMessageGroupId"})
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there(w.named("login.fifo")).Attributes).To(gomega.And(
			gomega.HaveKeyWithValue(queue.DeduplicationScope, "queue"), gomega.HaveKeyWithValue(queue.FIFOThroughputLimit, "perQueue")))
	})
})
