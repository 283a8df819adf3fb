package controller_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// secretive is an SQS that does not tell everything.
type secretive struct {
	queue.API
	hide func(attributes map[string]string)
}

func (s secretive) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	out, err := s.API.GetQueueAttributes(ctx, in, o...)
	if err == nil {
		s.hide(out.Attributes)
	}
	return out, err
}

// What becomes of a channel's queues when it is deleted in a bad moment.
var _ = ginkgo.Describe("The end of a channel", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	there := func(name string) bool {
		_, there := w.sqs.Queue(name)
		return there
	}
	// restored puts a channel back as a backup tool does: another UID, no status, and no deletion in between.
	restored := func(c *v1alpha1.RequestChannel) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		again := channelNamed(c.Name)
		again.Spec = *c.Spec.DeepCopy()
		w.apply(again)
		w.restart()
		return again
	}
	force := func(c *v1alpha1.RequestChannel) {
		change(w, c, func(c *v1alpha1.RequestChannel) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
		})
	}
	// ends reconciles until the channel is gone, in at most that time.
	ends := func(c *v1alpha1.RequestChannel, within time.Duration) {
		ginkgo.GinkgoHelper()
		start := w.clock.Now()
		for {
			w.reconciled(c)
			if !w.exists(c) {
				return
			}
			gomega.Expect(w.clock.Since(start)).To(gomega.BeNumerically("<=", within), "%v", c.Status.Conditions)
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
			w.pass(w.result.RequeueAfter)
		}
	}

	ginkgo.It("leaves an adopted queue with its messages, though a restore lost the status and the consent was taken back", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		w.untag("orders", v1alpha1.TagAdoptableBy)
		w.sendTo("orders")
		for _, seen := range []bool{true, false} {
			c = restored(c)
			if seen {
				w.reconciled(c)
				gomega.Expect(c).To(beReady())
				gomega.Expect(c.Status.Adopted).To(gomega.HaveValue(gomega.BeTrue()))
				continue
			}
			// The status stays lost: the operator sees it again when it is being deleted already.
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = []string{v1alpha1.FinalizerRequestChannel} })
			w.remove(c)
			ends(c, time.Minute)
		}
		q, _ := w.sqs.Queue("orders")
		gomega.Expect(q.Visible).To(gomega.Equal(1))
		for key := range q.Tags {
			gomega.Expect(key).NotTo(gomega.HavePrefix("replyqueue.dev/"), "it can be adopted again")
		}
	})

	for what, lost := range map[string]bool{"": false, ", though a restore lost the status": true} {
		ginkgo.It("leaves with an adopted queue the dead-letter queue that was made beside it"+what, func() {
			p := w.providerFor(allowing("orders"))
			w.queueTagged("orders", w.consent())
			c := channelNamed("orders", using(p), called("orders"), adopting, withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			w.pass(2 * time.Hour)
			if lost {
				c = restored(c)
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = []string{v1alpha1.FinalizerRequestChannel} })
				w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "ListQueueTags", Queue: "orders"}}})
			}
			w.remove(c)
			if lost {
				w.reconciled(c)
				gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
				w.sqs.SetFaults(sqstest.Plan{})
			}
			ends(c, 2*time.Minute)
			for _, name := range []string{"orders", w.named("orders_dlq")} {
				q, there := w.sqs.Queue(name)
				gomega.Expect(there).To(gomega.BeTrue(), name)
				for key := range q.Tags {
					gomega.Expect(key).To(gomega.Or(gomega.Equal(v1alpha1.TagAdoptableBy), gomega.Not(gomega.HavePrefix("replyqueue.dev/"))), name)
				}
			}
		})
	}

	for _, full := range []string{"login", "login_dlq"} {
		ginkgo.It("that is forced leaves behind only what holds messages: "+full, func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
			w.apply(c)
			w.reconciled(c)
			w.sendTo(w.named(full))
			w.pass(time.Hour)
			w.remove(c)
			for range 20 {
				w.reconciled(c)
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2), "nothing is deleted before both are empty, or it is forced")
				w.pass(30 * time.Second)
			}
			force(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.ConsistOf(gomega.HaveField("Name", w.named(full))))
		})
	}

	ginkgo.It("keeps an empty dead-letter queue while whose the request queue is, which holds messages, is not certain", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		w.sendTo(w.named("login"))
		w.pass(time.Hour)
		w.remove(c)
		for n := range 20 {
			if n == 10 {
				w.tag(w.named("login"), map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"})
			}
			w.reconciled(c)
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
			w.pass(30 * time.Second)
		}
	})

	for fault, reason := range map[sqstest.Fault]string{sqstest.AccessDenied: v1alpha1.ReasonAccessDenied, sqstest.ServerError: v1alpha1.ReasonSQSUnavailable} {
		// tries has its time as the workqueue and the operator would.
		tries := func(c *v1alpha1.RequestChannel, n int) {
			ginkgo.GinkgoHelper()
			for range n {
				if _ = w.reconcile(c); !w.exists(c) {
					return
				}
				w.pass(30 * time.Second)
			}
		}
		ginkgo.It("that is forced leaves behind what cannot be looked at, and deletes what is empty: "+reason, func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
			w.apply(c)
			w.reconciled(c)
			w.pass(time.Hour)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: fault, Queue: w.named("login_dlq")}}})
			w.remove(c)
			tries(c, 20)
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionFalse, reason))
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
			force(c)
			w.heard()
			tries(c, 1)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting))
			tries(c, 20)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.ConsistOf(gomega.HaveField("Name", w.named("login_dlq"))))
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned), gomega.ContainSubstring("login_dlq"))))
		})

		ginkgo.It("that is forced says which queue could not be looked at, and which holds messages: "+reason, func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
			w.apply(c)
			w.reconciled(c)
			w.sendTo(w.named("login"))
			w.pass(time.Hour)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: fault, Queue: w.named("login_dlq")}}})
			force(c)
			w.remove(c)
			w.heard()
			tries(c, 6)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned),
				gomega.ContainSubstring("login_dlq"), gomega.ContainSubstring("queue "+w.named("login")+" holds about 1 messages"))))
		})
	}

	ginkgo.It("that is forced names both queues where one holds messages, and the other is offered to another cluster", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		w.sendTo(w.named("login"))
		w.tag(w.named("login_dlq"), map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"})
		w.pass(time.Hour)
		force(c)
		w.remove(c)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned),
			gomega.ContainSubstring(w.named("login_dlq")+" is offered to c2/shop"), gomega.ContainSubstring("queue "+w.named("login")+" holds about 1 messages"))))
	})

	ginkgo.It("leaves a queue that it left, though its Secret holds it longer than what told where the queue is", func() {
		c := channelNamed("login", bindingTo("login"))
		w.apply(c)
		w.reconciled(c)
		c.Status.Region = "eu-west-1" // Where the operator looks now is a queue of that name too, from when it looked there before.
		gomega.Expect(direct.Status().Update(w.ctx, c)).To(gomega.Succeed())
		force(c)
		w.remove(c)
		w.heard()
		w.before = func(write string) error {
			if write == "delete Secret" {
				return apierrors.NewInternalError(errors.New("failed calling webhook"))
			}
			return nil
		}
		for range 3 {
			_ = w.reconcile(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting, "failed calling webhook", v1alpha1.AnnotationForceDelete+" is set, and what may pass is waited for"))
			w.pass(10 * time.Second)
			w.restart()
		}
		_, writes := w.costing(func() { _ = w.reconcile(c) })
		gomega.Expect(writes).To(gomega.Equal([]string{"patch Secret"}), "which changes nothing")
		w.before = nil
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(there(w.named("login"))).To(gomega.BeTrue())
		gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned), gomega.HavePrefix("Normal "+v1alpha1.ReasonDeleting)))
	})

	ginkgo.It("that is forced at once leaves both behind, since neither was empty for long", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		w.sendTo(w.named("login"))
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
		})
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
	})

	ginkgo.It("tells that a queue was given up once it is, and once", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(direct.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(gomega.Succeed())
		w.remove(c)
		w.pass(6 * 24 * time.Hour)
		w.sendTo(w.named("login"))
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "UntagQueue"}}})
		w.heard()
		for range 3 {
			w.reconciled(c)
			w.pass(5 * time.Minute)
		}
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueAbandoned)), "it has its tags")
		w.sqs.SetFaults(sqstest.Plan{})
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.ContainSubstring(controller.EventQueueAbandoned), gomega.ContainSubstring("about 1 message"))))
	})

	ginkgo.It("deletes what was created in the place of an adopted queue", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		w.pass(20 * time.Minute)
		w.deleteQueue("orders")
		w.pass(2 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.Adopted).To(gomega.BeNil())
		w.remove(c)
		ends(c, time.Minute)
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.DescribeTable("waits for a queue that SQS does not show yet", func(fault sqstest.Fault, policy v1alpha1.DeletionPolicy, restarts bool) {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: fault, Duration: 2 * time.Second}}})
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = policy })
		w.apply(c)
		w.reconciled(c)
		if restarts {
			w.restart()
		}
		w.remove(c)
		ends(c, 2*time.Minute)
		w.sqs.SetFaults(sqstest.Plan{})
		if policy == v1alpha1.DeletionPolicyRetain {
			q, _ := w.sqs.Queue(w.named("login"))
			gomega.Expect(q.Tags).To(gomega.BeEmpty())
			return
		}
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	},
		ginkgo.Entry("after its creation", sqstest.SlowCreate, v1alpha1.DeletionPolicyDelete, false),
		ginkgo.Entry("after its creation, by another process", sqstest.SlowCreate, v1alpha1.DeletionPolicyDelete, true),
		ginkgo.Entry("after its creation, to strip it", sqstest.SlowCreate, v1alpha1.DeletionPolicyRetain, false),
		ginkgo.Entry("because reads are stale", sqstest.StaleReads, v1alpha1.DeletionPolicyDelete, false),
		ginkgo.Entry("because reads are stale, to strip it", sqstest.StaleReads, v1alpha1.DeletionPolicyRetain, true),
	)

	ginkgo.It("does not wait for what was never created", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Suspend = ptr.To(true) })
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		ends(c, 0)
	})

	ginkgo.Describe("with DeleteIfEmpty", func() {
		emptied := func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty }

		ginkgo.It("does not believe one count of zero", func() {
			c := channelNamed("login", emptied)
			w.apply(c)
			w.reconciled(c)
			w.pass(time.Hour)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 50 * time.Second}}})
			w.sendTo(w.named("login"))
			w.remove(c)
			for range 20 {
				w.reconciled(c)
				gomega.Expect(w.exists(c)).To(gomega.BeTrue())
				w.pass(w.result.RequeueAfter)
			}
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, "holds about 1 messages"))
		})

		ginkgo.It("counts anew after a message, after a pause, and in another process", func() {
			c := channelNamed("login", emptied)
			w.apply(c)
			w.reconciled(c)
			w.remove(c)
			almost := func() {
				ginkgo.GinkgoHelper()
				for range 6 {
					w.reconciled(c)
					gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting, "approximate"))
					gomega.Expect(w.exists(c)).To(gomega.BeTrue())
					w.pass(30 * time.Second)
				}
			}
			almost()
			w.sendTo(w.named("login"))
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty))
			q, _ := w.sqs.Queue(w.named("login"))
			_, err := w.sqs.Client().PurgeQueue(w.ctx, &sqs.PurgeQueueInput{QueueUrl: &q.URL})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			w.pass(time.Minute)
			almost()
			w.pass(10 * time.Minute)
			almost()
			w.restart()
			almost()
			ends(c, time.Minute)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("waits longer than messages may be delayed", func() {
			c := channelNamed("login", emptied, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](900)}
			})
			w.apply(c)
			w.reconciled(c)
			w.remove(c)
			for range 30 {
				w.reconciled(c)
				gomega.Expect(w.exists(c)).To(gomega.BeTrue())
				w.pass(30 * time.Second)
			}
			ends(c, 5*time.Minute)
		})

		for name, hide := range map[string]func(map[string]string){
			"none of its counts": func(attributes map[string]string) {
				maps.DeleteFunc(attributes, func(name, _ string) bool { return strings.HasPrefix(name, "ApproximateNumberOfMessages") })
			},
			"one of its counts": func(attributes map[string]string) { delete(attributes, "ApproximateNumberOfMessages") },
			"no number for one": func(attributes map[string]string) { attributes["ApproximateNumberOfMessages"] = "some" },
		} {
			ginkgo.It("keeps a queue of which SQS tells "+name, func() {
				c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
				w.apply(c)
				w.reconciled(c)
				w.sendTo(w.named("login"))
				w.wrap = func(api queue.API) queue.API { return secretive{api, hide} }
				w.restart()
				w.remove(c)
				for range 12 {
					w.pass(30 * time.Second)
					w.reconciled(c)
				}
				gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, "an unknown number of messages"))
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
				change(w, c, func(c *v1alpha1.RequestChannel) {
					c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
				})
				w.reconciled(c)
				gomega.Expect(w.exists(c)).To(gomega.BeFalse())
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1), "by force it is left")
			})
		}

		ginkgo.It("counts what was received and not deleted", func() {
			c := channelNamed("login", emptied, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](3600)}
			})
			w.apply(c)
			w.reconciled(c)
			w.sendTo(w.named("login"))
			got, err := w.sqs.Client().ReceiveMessage(w.ctx, &sqs.ReceiveMessageInput{QueueUrl: &c.Status.QueueURL})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			gomega.Expect(got.Messages).To(gomega.HaveLen(1))
			w.remove(c)
			for range 20 {
				w.reconciled(c)
				gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, "holds about 1 messages"))
				w.pass(30 * time.Second)
			}
		})

		ginkgo.It("holds a namespace that is being deleted no longer than its queues keep messages, though somebody goes on sending", func() {
			c := channelNamed("login", withDeadLetter, emptied, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](3600)}
				spec.DeadLetter.Queue.MessageRetentionSeconds = ptr.To[int32](7200)
			})
			w.apply(c)
			w.reconciled(c)
			w.remove(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}) // By somebody who cannot stop who sends.
			w.remove(c)
			w.heard()
			start := w.clock.Now()
			for {
				w.sendTo(w.named("login"))
				w.reconciled(c)
				if !w.exists(c) {
					break
				}
				gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, "holds about", "namespace is being deleted"))
				gomega.Expect(w.clock.Since(start)).To(gomega.BeNumerically("<", 4*time.Hour))
				w.pass(10 * time.Minute)
			}
			gomega.Expect(w.clock.Since(start)).To(gomega.BeNumerically(">=", 3*time.Hour), "what was there when the deletion began may be served until it expires")
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned), gomega.ContainSubstring("messages"))))
			for _, name := range []string{"login", "login_dlq"} {
				q, there := w.sqs.Queue(w.named(name))
				gomega.Expect(there).To(gomega.BeTrue(), "no message is lost")
				gomega.Expect(q.Tags).To(gomega.BeEmpty(), "it can be adopted")
			}
		})

		ginkgo.It("says once that messages are waited for, and once that counts are, however they go to and fro", func() {
			c := channelNamed("login", emptied)
			w.apply(c)
			w.reconciled(c)
			w.remove(c)
			w.heard()
			for i := range 40 {
				if i%2 == 0 {
					w.sendTo(w.named("login"))
				} else {
					q, _ := w.sqs.Queue(w.named("login"))
					_, err := w.sqs.Client().PurgeQueue(w.ctx, &sqs.PurgeQueueInput{QueueUrl: &q.URL})
					gomega.Expect(err).NotTo(gomega.HaveOccurred())
				}
				w.reconciled(c)
				w.pass(time.Minute + time.Second) // PurgeQueue may be asked for once a minute.
			}
			gomega.Expect(w.exists(c)).To(gomega.BeTrue())
			gomega.Expect(w.heard()).To(gomega.ConsistOf(
				gomega.HavePrefix("Warning "+v1alpha1.ReasonQueueNotEmpty), gomega.HavePrefix("Normal "+v1alpha1.ReasonDeleting)))
		})

		ginkgo.It("says each day that it is held, where somebody goes on sending", func() {
			c := channelNamed("login", emptied)
			w.apply(c)
			w.reconciled(c)
			w.remove(c)
			w.heard()
			warned := 0
			for range 3 * 24 {
				w.sendTo(w.named("login"))
				w.reconciled(c)
				w.pass(time.Hour)
				for _, e := range w.heard() {
					if strings.HasPrefix(e, "Warning "+controller.EventDeletionHeld) {
						warned++
						gomega.Expect(e).To(gomega.ContainSubstring(v1alpha1.AnnotationForceDelete))
					}
				}
			}
			gomega.Expect(warned).To(gomega.Equal(2))
		})
	})

	ginkgo.Describe("of which the dead-letter queue is no longer spoken of", func() {
		dropped := func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil }

		ginkgo.It("deletes it though a restore lost the status", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			w.pass(20 * time.Minute)
			change(w, c, dropped)
			w.reconciled(c)
			again := restored(c)
			w.reconciled(again)
			w.remove(again)
			ends(again, 2*time.Minute)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("deletes it though a crash kept the status from being written", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.before = func(write string) error {
				if write == "patch status RequestChannel" && there(w.named("login_dlq")) {
					return errStopped
				}
				return nil
			}
			w.stopped(c)
			w.before = nil
			w.restart()
			change(w, c, dropped)
			w.reconciled(c)
			w.remove(c)
			ends(c, 2*time.Minute)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("deletes it though SQS never let it be read", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "ListQueueTags", Queue: "*_dlq"}}})
			w.reconciled(c)
			gomega.Expect(there(w.named("login_dlq"))).To(gomega.BeTrue())
			w.sqs.SetFaults(sqstest.Plan{})
			change(w, c, dropped)
			w.reconciled(c)
			w.remove(c)
			ends(c, 2*time.Minute)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("leaves another's, and says nothing of it", func() {
			c := channelNamed("login")
			w.apply(c)
			w.reconciled(c)
			w.queueTagged(w.named("login_dlq"), map[string]string{"team": "theirs"})
			w.remove(c)
			w.heard()
			ends(c, 2*time.Minute)
			gomega.Expect(there(w.named("login_dlq"))).To(gomega.BeTrue())
			gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueLeft)))
		})
	})
})
