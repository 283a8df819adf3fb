package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What is written down before it is done, and what is concluded from it afterwards.
var _ = ginkgo.Describe("What is written down", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.DescribeTable("of a drift survives the loss of what is written after its correction", func(harm func(*v1alpha1.RequestChannel), writes int) {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
		})
		w.apply(c)
		w.reconciled(c)
		w.pass(20 * time.Minute)
		harm(c)
		w.pass(2 * time.Minute)
		w.look(c, "1")
		n := 0
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if n++; n > writes {
					return errStopped
				}
			}
			return nil
		}
		w.stopped(c)
		w.before = nil
		w.restart()
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.LastDriftTime).NotTo(gomega.BeNil())
		gomega.Expect(c).NotTo(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonAttributesDiffer))
		for _, q := range w.sqs.Queues() {
			gomega.Expect(q.Attributes["VisibilityTimeout"]).NotTo(gomega.Equal("77"))
		}
	},
		ginkgo.Entry("of the request queue", func(*v1alpha1.RequestChannel) { w.tamper(w.named("login")) }, 1),
		ginkgo.Entry("of a queue that was deleted", func(*v1alpha1.RequestChannel) { w.deleteQueue(w.named("login")) }, 1),
		ginkgo.Entry("of a dead-letter queue that was deleted", func(*v1alpha1.RequestChannel) { w.deleteQueue(w.named("login_dlq")) }, 1),
	)

	ginkgo.DescribeTable("lets a channel go at once in a new process, though SQS shows no queue", func(edits ...func(*v1alpha1.RequestChannelSpec)) {
		c := channelNamed("login", edits...)
		w.apply(c)
		w.reconciled(c)
		w.pass(20 * time.Minute)
		w.restart()
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	},
		ginkgo.Entry("of dead letters, which it never named"),
		ginkgo.Entry("any more, and both were noted", withDeadLetter),
	)

	ginkgo.It("of a dead-letter queue that is about to be made has a deletion wait for it", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		n := 0
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if n++; n > 1 {
					return errStopped
				}
			}
			return nil
		}
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.SlowCreate, Queue: "*_dlq", Duration: 10 * time.Second}}})
		_ = w.reconcile(c)
		w.before = nil
		w.restart()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
		w.remove(c)
		for range 20 {
			w.reconciled(c)
			if !w.exists(c) {
				break
			}
			w.pass(w.result.RequeueAfter)
		}
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("of who uses a QueueProvider comes before a queue, and is written over what was read alone", func() {
		p := w.providerFor()
		c := channelNamed("login", using(p))
		w.apply(c)
		w.before = func(write string) error {
			if write == "patch QueueProvider" {
				w.before = nil
				change(w, p, func(p *v1alpha1.QueueProvider) { p.Labels = map[string]string{"edited": "meanwhile"} })
			}
			return nil
		}
		_, err := w.channels.Reconcile(w.ctx, requestFor(c))
		gomega.Expect(apierrors.IsConflict(err)).To(gomega.BeTrue(), "%v", err)
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty(), "no queue is made with a provider that may go")
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.exists(p)).To(gomega.BeTrue())
		gomega.Expect(p.Finalizers).To(gomega.ConsistOf(v1alpha1.FinalizerQueueProvider))
		gomega.Expect(p.Labels).To(gomega.HaveKey("edited"))
	})

	ginkgo.It("of who uses a QueueProvider stays until that is deleted, whatever is seen meanwhile", func() {
		p := w.providerFor()
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.reconciled(c)
		w.reconciled(p)
		gomega.Expect(p.Finalizers).To(gomega.ConsistOf(v1alpha1.FinalizerQueueProvider))
		w.remove(p)
		w.reconciled(p)
		gomega.Expect(w.exists(p)).To(gomega.BeFalse())
	})

	ginkgo.It("holds a namespace that is being deleted no longer than messages are kept that were there", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(direct.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(gomega.Succeed())
		w.remove(c) // as the namespace controller does
		began := w.clock.Now()
		for range 5 * 24 {
			w.sendTo(w.named("login"))
			w.reconciled(c)
			if !w.exists(c) {
				break
			}
			w.pass(time.Hour)
		}
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.clock.Since(began)).To(gomega.BeNumerically("~", 4*24*time.Hour, 2*time.Hour), "AWS's default retention")
		q, there := w.sqs.Queue(w.named("login"))
		gomega.Expect(there).To(gomega.BeTrue())
		gomega.Expect(q.Visible).To(gomega.BeNumerically(">", 0), "what was sent since is not thrown away")
		gomega.Expect(q.Tags).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueAbandoned)))
	})

	ginkgo.It("names everybody in a ring of dead letters, and holds nobody's deletion", func() {
		a, b, c := channelNamed("a", deadTo("b")), channelNamed("b", deadTo("c")), channelNamed("c")
		w.apply(a, b, c)
		for _, channel := range []*v1alpha1.RequestChannel{c, b, a} {
			w.reconciled(channel)
			gomega.Expect(channel).To(beReady())
		}
		w.pass(20 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) { deadTo("a")(&c.Spec) })
		for _, channel := range []*v1alpha1.RequestChannel{c, b, a} {
			w.reconciled(channel)
			gomega.Expect(channel).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "round for ever"))
		}
		gomega.Expect(a).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "a to b to c to a"))
		outside := channelNamed("outside", deadTo("a"))
		w.apply(outside)
		w.reconciled(outside)
		gomega.Expect(outside).To(beReady(), "it is in no ring, and walking one ends")
		for _, channel := range []*v1alpha1.RequestChannel{b, a, c, outside} {
			w.remove(channel)
			w.reconciled(channel)
			gomega.Expect(w.exists(channel)).To(gomega.BeFalse())
		}
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})
})
