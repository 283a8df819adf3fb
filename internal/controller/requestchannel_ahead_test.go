package controller_test

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What is lost unless it is noted before SQS is asked to do it.
var _ = ginkgo.Describe("A note that comes first", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	// stopsAt reconciles in a process that is stopped before its status write at, if it comes to that, and starts another.
	stopsAt := func(c *v1alpha1.RequestChannel, at int) (stopped bool) {
		writes := 0
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if writes++; writes >= at {
					return errStopped
				}
			}
			return nil
		}
		_, err := w.survives(c)
		w.before = nil
		w.restart()
		return err != nil
	}

	for what, begin := range map[string]func(*v1alpha1.RequestChannelSpec){
		"was there":    withDeadLetter,
		"is made anew": func(*v1alpha1.RequestChannelSpec) {},
	} {
		ginkgo.It("has a tag taken off again from a dead-letter queue that "+what+", wherever the process stopped", func() {
			for at, stopped := 1, true; stopped; at++ {
				c := channelNamed(fmt.Sprintf("login-%d", at), begin)
				w.apply(c)
				w.reconciled(c)
				w.pass(time.Hour)
				change(w, c, func(c *v1alpha1.RequestChannel) {
					withDeadLetter(&c.Spec)
					c.Spec.Tags = v1alpha1.Tags{"cost": "1"}
				})
				stopped = stopsAt(c, at)
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
				w.settle(c)
				gomega.Expect(c).To(beReady())
				q, there := w.sqs.Queue(w.named(c.Name + "_dlq"))
				gomega.Expect(there).To(gomega.BeTrue())
				gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"), fmt.Sprintf("stopped before status write %d", at))
				gomega.Expect(at).To(gomega.BeNumerically("<", 9))
			}
		})
	}

	for _, which := range []string{"login", "login_dlq"} {
		ginkgo.It("has it told that "+which+" was created again, once, though the answer was lost, and what was set on it restored", func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
			})
			w.apply(c)
			w.reconciled(c)
			w.pass(time.Hour)
			w.deleteQueue(w.named(which))
			w.pass(2 * time.Minute)
			w.heard()
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "CreateQueue", Count: 1}}})
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
			})
			_, err := w.survives(c)
			gomega.Expect(err).To(gomega.HaveOccurred())
			w.sqs.SetFaults(sqstest.Plan{})
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
			w.pass(2 * time.Minute)
			w.settle(c)
			gomega.Expect(c).To(beReady())
			q, _ := w.sqs.Queue(w.named("login"))
			gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "0"))
			told := 0
			for _, e := range w.heard() {
				if e == "Warning "+controller.EventQueueRecreated+" Queue "+w.named(which)+" had been deleted by someone else, with its messages, and was created again" {
					told++
				}
			}
			gomega.Expect(told).To(gomega.Equal(1))
		})
	}

	ginkgo.It("of a missing dead-letter queue stands, written and counted once, while AWS denies to create it again", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.deleteQueue(w.named("login_dlq"))
		w.pass(2 * time.Minute)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "CreateQueue"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		w.heard()
		w.pass(w.result.RequeueAfter)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.BeEmpty())
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand, "login_dlq"))
		w.sqs.SetFaults(sqstest.Plan{})
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueRecreated + " Queue " + w.named("login_dlq"))))
	})

	ginkgo.It("of an adoption that failed is of nothing that its owner set", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace, "team": "bank"})
		c := channelNamed("orders", using(p), called("orders"), adopting, func(spec *v1alpha1.RequestChannelSpec) {
			spec.Tags = v1alpha1.Tags{"team": "identity"}
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
		})
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "TagQueue"}}})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		w.sqs.SetFaults(sqstest.Plan{})
		q, _ := w.sqs.Queue("orders")
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{"VisibilityTimeout": "77"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags, c.Spec.Queue = nil, nil })
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		q, _ = w.sqs.Queue("orders")
		gomega.Expect(q.Tags).To(gomega.And(gomega.HaveKeyWithValue("team", "bank"), gomega.HaveKeyWithValue(v1alpha1.TagName, "orders")))
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "77"))
	})
})
