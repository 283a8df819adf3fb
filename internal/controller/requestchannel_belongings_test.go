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
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A queue, and whose it is, in bad moments.
var _ = ginkgo.Describe("A queue", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`

	ginkgo.It("is deleted by force when it is empty, rather than left behind", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.remove(c)
		w.reconciled(c)
		for i := 0; i < 20 && w.exists(c); i++ {
			w.pass(w.result.RequeueAfter)
			w.reconciled(c)
		}
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("leaves behind by force only what cannot be deleted", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue", Queue: "*_login"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		})
		w.remove(c)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		_, there := w.sqs.Queue(w.named("login_dlq"))
		gomega.Expect(there).To(gomega.BeFalse(), "the dead-letter queue could have been deleted")
	})

	ginkgo.It("that was lent and is claimed back is not handed on for dead letters", func() {
		p := w.providerFor(allowing("vault"))
		w.queueTagged("vault", w.consent())
		o := channelNamed("obs", using(p), called("vault"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
		})
		w.apply(o)
		w.reconciled(o)
		w.untag("vault", v1alpha1.TagAdoptableBy)
		w.pass(2 * time.Hour)
		w.reconciled(o)
		gomega.Expect(o).To(beStalled(v1alpha1.ReasonNotOwned))
		c := channelNamed("login", using(p), deadTo("obs"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "spec.deadLetter.channelRef"), "there is nothing to wait for")
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes["RedrivePolicy"]).To(gomega.BeEmpty())
	})

	ginkgo.It("is not made again in another region", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.sendTo(w.named("login"))
		w.pass(2 * time.Hour)
		w.heard()
		w.restart()
		old := w.registry.Connect
		w.registry.Connect = func(ctx context.Context, _, endpoint, role string) (queue.API, string, string, error) {
			a, _, e, err := old(ctx, "eu-west-1", endpoint, role)
			return a, "eu-west-1", e, err
		}
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueElsewhere, "us-east-1", "eu-west-1"))
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeTrue(), "nor deleted elsewhere")
	})

	ginkgo.It("is looked at soon again where a channel of its name was just deleted", func() {
		p := w.providerFor(allowing("orders"))
		c := channelNamed("orders", using(p), called("orders"))
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		w.pass(time.Second)
		again := channelNamed("orders", using(p), called("orders"))
		w.apply(again)
		w.reconciled(again)
		first := w.result.RequeueAfter
		w.pass(first)
		w.reconciled(again)
		gomega.Expect(first).To(gomega.BeNumerically("<", 10*time.Minute))
	})

	ginkgo.It("that is retained is not said to be another's in the same breath", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.restart()
		w.remove(c)
		w.heard()
		for i := 0; i < 30 && w.exists(c); i++ {
			w.reconciled(c)
			w.pass(w.result.RequeueAfter)
		}
		e := w.heard()
		gomega.Expect(e).NotTo(gomega.ContainElement(gomega.ContainSubstring("not this channel's")))
	})

	ginkgo.It("of the channel's own is not adopted by a consent", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.heard()
		w.tag(w.named("login"), w.consent())
		w.look(c, "1")
		w.reconciled(c)
		w.untag(w.named("login"), v1alpha1.TagAdoptableBy)
		w.look(c, "2")
		w.pass(time.Hour)
		w.reconciled(c)
		e := w.heard()
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(e).To(gomega.BeEmpty())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty(), "it was created, and is to be deleted")
	})

	ginkgo.It("of a channel that was restored without its provider, and is deleted, is told to be left behind", func() {
		p := w.providerFor()
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		// both are lost with the cluster
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Finalizers = nil })
		w.remove(p)
		again := channelNamed("login", using(p))
		w.apply(again)
		w.restart()
		w.reconciled(again)
		gomega.Expect(again).To(beReconciling(v1alpha1.ReasonWaitingForProvider))
		w.heard()
		w.remove(again)
		w.reconciled(again)
		gomega.Expect(w.exists(again)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueAbandoned)))
	})

	ginkgo.It("is the oldest claim's though another QueueProvider leads to the same place", func() {
		p := w.providerFor(allowing("orders"))
		p2 := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "p2-" + w.namespace}}
		p2.Spec = *p.Spec.DeepCopy()
		w.apply(p2)
		a, b := channelNamed("a", using(p), called("orders")), channelNamed("b", using(p2), called("orders"))
		w.apply(a)
		w.apply(b)
		w.reconciled(b)
		gomega.Expect(b).To(beStalled(v1alpha1.ReasonConflict))
	})

	ginkgo.It("that was observed and is gone is no longer handed out", func() {
		p := w.providerFor(allowing("vault"))
		w.queueTagged("vault", w.consent())
		o := channelNamed("obs", using(p), called("vault"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
		})
		w.apply(o)
		w.reconciled(o)
		w.pass(2 * time.Hour)
		w.deleteQueue("vault")
		w.reconciled(o)
	})

	ginkgo.It("of a computed name can be adopted by another channel when it was retained", func() {
		p := w.providerFor(allowing("*"))
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		w.tag(w.named("login"), w.consent())
		again := channelNamed("signin", using(p), called(w.named("login")), adopting)
		w.apply(again)
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
	})

	ginkgo.It("that somebody made in the place of ours is not handed out", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Minute)
		w.queueTagged(w.named("login"), map[string]string{"team": "theirs"})
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
	})

	ginkgo.It("is not made again where another QueueProvider of the name leads", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.Region = "us-east-1" })
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Finalizers = nil })
		w.remove(p)
		w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.Region = "eu-west-1" })
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
	})

	ginkgo.It("is adopted with its foreign tags, also those that the spec once asked for", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"team": "mine"} })
		w.queueTagged(w.named("login"), map[string]string{"team": "bank"})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		w.tag(w.named("login"), w.consent())
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Tags = nil
			c.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented
		})
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.HaveKeyWithValue("team", "bank"))
	})

	ginkgo.It("that is being adopted in a crash keeps what its owner set", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		q, _ := w.sqs.Queue("orders")
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{"DelaySeconds": "7"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.sendTo("orders")
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "TagQueue", Count: 1}}})
		w.failed(c)
		w.sqs.SetFaults(sqstest.Plan{})
		w.untag("orders", v1alpha1.TagAdoptableBy)
		// the status is lost too
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		again := channelNamed("orders", using(p), called("orders"))
		w.apply(again)
		w.restart()
		w.reconciled(again)
		q, _ = w.sqs.Queue("orders")
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "7"))
		w.remove(again)
		for i := 0; i < 30 && w.exists(again); i++ {
			w.reconciled(again)
			w.pass(w.result.RequeueAfter)
		}
		_, there := w.sqs.Queue("orders")
		gomega.Expect(there).To(gomega.BeTrue())
	})

	ginkgo.It("of a cluster of which this is a copy is not changed", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.restart() // the copy: same identity, and the fence knows it
		w.registry.Fence = conflicted{}
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Policy = policy
			c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
		})
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
	})
})

type conflicted struct{}

func (conflicted) MayDelete(string) error {
	return &queue.Held{Conflict: true, Message: "another cluster claims the marker"}
}
func (conflicted) AdoptsFrom(string) string { return "" }
