package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Whose a queue is, while SQS takes its time to show it.
var _ = ginkgo.Describe("Ownership that SQS does not show yet", func() {
	const other = "example.com/other"
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	late := func() {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
	}
	ends := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		for range 30 {
			if w.reconciled(c); !w.exists(c) {
				return
			}
			w.pass(w.result.RequeueAfter)
		}
		ginkgo.Fail("the channel does not go")
	}

	for _, process := range []string{"the same", "another"} {
		ginkgo.It("is waited for by "+process+" process, so that a queue taken over a moment ago is given up", func() {
			p := w.providerFor(allowing("orders"))
			w.queueTagged("orders", w.consent())
			w.tag("orders", map[string]string{v1alpha1.TagCluster: "uid2", v1alpha1.TagKind: v1alpha1.TagKindRequest, v1alpha1.TagNamespace: "shop", v1alpha1.TagName: "taken"})
			w.pass(time.Hour)
			late()
			c := channelNamed("orders", using(p), called("orders"), adopting)
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			w.pass(5 * time.Second)
			if process == "another" {
				w.restart()
			}
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = "" })
			w.reconciled(c)
			if process == "another" { // The same knows what it wrote.
				gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, "taken over a moment ago"))
			}
			gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty())
			w.remove(c)
			ends(c)
			w.pass(time.Hour)
			q, _ := w.sqs.Queue("orders")
			gomega.Expect(q.Tags).To(gomega.Equal(w.consent()))
		})
	}

	// givenUp makes a channel of a day ago, gives its queue up by Retain, and applies another of its name a second later.
	givenUp := func(edit func(*v1alpha1.RequestChannelSpec)) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		now := func() { w.pass(time.Since(w.clock.Now())) } // Kubernetes says when a channel was made.
		w.clock.Step(-24 * time.Hour)
		w.sqsClock = sqstest.NewManualClock(w.clock.Now())
		w.sqs = sqstest.New(sqstest.WithClock(w.sqsClock))
		ginkgo.DeferCleanup(w.sqs.Close)
		w.restart()
		retained := func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain }
		c := channelNamed("login", withDeadLetter, retained)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		now()
		late()
		w.remove(c)
		ends(c)
		w.pass(time.Second)
		again := channelNamed("login", withDeadLetter, retained, edit)
		w.apply(again)
		now()
		return again
	}

	ginkgo.It("is not taken over from a channel of the same name that gave its queue up", func() {
		again := givenUp(func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
			spec.DeadLetter.Queue.MessageRetentionSeconds = ptr.To[int32](60)
		})
		before := w.sqs.Queues()
		w.reconciled(again)
		gomega.Expect(again).To(beReconciling(v1alpha1.ReasonProgressing, "existed before this channel"))
		w.pass(w.result.RequeueAfter)
		w.reconciled(again)
		gomega.Expect(again).To(beStalled(v1alpha1.ReasonNotOwned))
		for i, q := range w.sqs.Queues() {
			gomega.Expect(q.Attributes).To(gomega.Equal(before[i].Attributes))
			gomega.Expect(q.Tags).To(gomega.BeEmpty())
		}
	})

	ginkgo.It("is looked at again in time where there is nothing to write", func() {
		again := givenUp(func(*v1alpha1.RequestChannelSpec) {})
		for range 3 {
			w.reconciled(again)
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<=", 6*time.Minute))
			w.pass(w.result.RequeueAfter)
		}
		gomega.Expect(again).To(beStalled(v1alpha1.ReasonNotOwned))
	})

	for what, reconciled := range map[string]bool{"that was reconciled": true, "that never was": false} {
		ginkgo.It("keeps a queue that was given up from being deleted by a channel of the same name "+what, func() {
			again := givenUp(func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
			if reconciled {
				w.reconciled(again)
			} else {
				change(w, again, func(c *v1alpha1.RequestChannel) { c.Finalizers = []string{v1alpha1.FinalizerRequestChannel} })
			}
			w.pass(time.Second)
			w.remove(again)
			w.reconciled(again)
			gomega.Expect(again).To(beReconciling(v1alpha1.ReasonProgressing, "existed before this channel"))
			w.pass(w.result.RequeueAfter)
			ends(again)
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
		})
	}

	ginkgo.It("does not hold the deletion of a channel that has just made its queue", func() {
		w.pass(time.Since(w.clock.Now()))
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("is told once when AWS denies to write it", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting, func(spec *v1alpha1.RequestChannelSpec) {
			spec.Tags = v1alpha1.Tags{"team": "identity"}
			spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "TagQueue"}}})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		w.pass(w.result.RequeueAfter)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		w.sqs.SetFaults(sqstest.Plan{})
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is not waited for beyond its time because a write was noted by a clock that was ahead", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		before := c.DeepCopy()
		c.Status.LastWriteTime = ptr.To(metav1.NewTime(w.clock.Now().Add(3 * time.Hour)))
		gomega.Expect(direct.Status().Patch(w.ctx, c, mergeFrom(before))).To(gomega.Succeed())
		w.restart()
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		for range 60 {
			if w.reconciled(c); w.result.RequeueAfter > time.Minute {
				break
			}
			w.pass(w.result.RequeueAfter)
		}
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueRecreated)))
	})

	ginkgo.It("is not believed to have ended by a status of another deletion", func() {
		gone := channelNamed("login")
		gone.Finalizers = []string{other}
		w.apply(gone)
		w.reconciled(gone)
		w.remove(gone)
		w.reconciled(gone)
		gomega.Expect(gone).To(beReconciling(v1alpha1.ReasonDeleting, "is done with the queues"))
		change(w, gone, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.pass(2 * time.Minute)
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		c.Status = gone.Status // as a backup puts it back
		gomega.Expect(direct.Status().Update(w.ctx, c)).To(gomega.Succeed())
		w.remove(c)
		ends(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("has ended, and is told to have, for a channel that others' finalizers hold", func() {
		c := channelNamed("login", withDeadLetter, bindingTo("login"))
		c.Finalizers = []string{other}
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeTrue())
		gomega.Expect(c.Finalizers).To(gomega.ConsistOf(other))
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting, other))
		gomega.Expect(c.Status.QueueURL + c.Status.QueueARN + c.Status.DeadLetterQueueURL).To(gomega.BeEmpty())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		requests, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(writes).To(gomega.BeEmpty())
	})
})
