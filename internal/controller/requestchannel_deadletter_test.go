package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// deadTo sends a channel's dead letters to another channel.
func deadTo(name string) func(*v1alpha1.RequestChannelSpec) {
	return func(s *v1alpha1.RequestChannelSpec) {
		s.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ChannelRef: &v1alpha1.ChannelReference{Name: name}}
	}
}

var _ = ginkgo.Describe("A dead-letter queue", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	redrive := func(name string) string {
		q, _ := w.sqs.Queue(w.named(name))
		return q.Attributes["RedrivePolicy"]
	}

	ginkgo.Describe("of a channel's own", func() {
		var c *v1alpha1.RequestChannel
		var registry *prometheus.Registry
		ginkgo.BeforeEach(func() {
			registry = prometheus.NewRegistry()
			w.channels.Metrics = controller.NewChannelMetrics(registry)
			c = channelNamed("login", withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			w.pass(20 * time.Minute)
			w.heard()
		})
		set := func(attributes map[string]string) {
			ginkgo.GinkgoHelper()
			_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.DeadLetterQueueURL, Attributes: attributes})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}

		ginkgo.It("that drifted is corrected and told as the request queue is, and both at once are both told", func() {
			set(map[string]string{"MessageRetentionPeriod": "60"})
			w.look(c, "1")
			w.reconciled(c)
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.And(gomega.HavePrefix("Warning "+controller.EventDriftCorrected), gomega.ContainSubstring("_login_dlq was changed"))))
			gomega.Expect(testutil.GatherAndCount(registry, "replyqueue_drift_total")).To(gomega.Equal(1))
			gomega.Expect(c.Status.LastDriftTime.Time.Equal(w.clock.Now())).To(gomega.BeTrue())
			gomega.Expect(c.Status.LastWriteTime.Time.Equal(w.clock.Now())).To(gomega.BeTrue())
			gomega.Expect(c).To(beReady())

			w.pass(20 * time.Minute)
			set(map[string]string{"MessageRetentionPeriod": "60"})
			_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{"RedrivePolicy": ""}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			w.look(c, "2")
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.HaveKeyWithValue("SetQueueAttributes", 2))
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.ContainSubstring("_login_dlq was changed"), gomega.ContainSubstring("_login was changed")))
		})

		ginkgo.It("that could not be corrected does not have the request queue's drift put right without a word", func() {
			w.tamper(w.named("login"))
			w.tamper(w.named("login_dlq"))
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ServerError, Action: "SetQueueAttributes", Queue: "*_dlq"}}})
			w.look(c, "1")
			w.failed(c)
			gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
			w.sqs.SetFaults(sqstest.Plan{})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			corrected := func(name string) gomega.OmegaMatcher {
				return gomega.And(gomega.HavePrefix("Warning "+controller.EventDriftCorrected), gomega.ContainSubstring("Queue "+w.named(name)+" was changed"))
			}
			gomega.Expect(w.heard()).To(gomega.ContainElements(corrected("login"), corrected("login_dlq")))
			drifts, err := testutil.GatherAndCount(registry, "replyqueue_drift_total")
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			gomega.Expect(drifts).To(gomega.Equal(1))
		})

		ginkgo.It("keeps what somebody else set that the spec does not name, as the request queue does, and that is no drift", func() {
			set(map[string]string{"VisibilityTimeout": "900", "DelaySeconds": "9", "Policy": `{"Version":"2012-10-17","Statement":[]}`})
			w.look(c, "1")
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
			gomega.Expect(w.heard()).To(gomega.BeEmpty())
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("that someone deleted is created again, and that is told", func() {
			w.deleteQueue(w.named("login_dlq"))
			w.pass(2 * time.Minute)
			w.look(c, "1")
			w.reconciled(c)
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueRecreated), gomega.ContainSubstring("_login_dlq "))))
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.LastDriftTime.Time.Equal(w.clock.Now())).To(gomega.BeTrue())
		})

		ginkgo.It("is not written to again on what SQS merely does not show yet", func() {
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Spec.DeadLetter.Queue.MessageRetentionSeconds = ptr.To[int32](7777)
			})
			w.reconciled(c)
			set(map[string]string{"MessageRetentionPeriod": "1209600"}) // What a lagging read would show.
			w.look(c, "1")
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
			gomega.Expect(w.heard()).To(gomega.BeEmpty())
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<=", 15*time.Minute))
		})

		ginkgo.It("is not created again because SQS does not show it yet", func() {
			d := channelNamed("new", withDeadLetter)
			w.apply(d)
			w.reconciled(d)
			w.heard()
			w.deleteQueue(w.named("new_dlq")) // What a lagging read would show.
			w.look(d, "1")
			requests, _ := w.costing(func() { w.reconciled(d) })
			gomega.Expect(requests).NotTo(gomega.HaveKey("CreateQueue"))
			gomega.Expect(d).NotTo(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand))
		})

		ginkgo.It("stays in the status with its URL and its ARN while it is there, beside the one in use", func() {
			own := c.Status.DeadLetterQueueARN
			dead := channelNamed("dead")
			w.apply(dead)
			w.reconciled(dead)
			change(w, c, func(c *v1alpha1.RequestChannel) { deadTo("dead")(&c.Spec) })
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.DeadLetterQueueARN).To(gomega.Equal(own))
			gomega.Expect(c.Status.DeadLetterQueueURL).To(gomega.HaveSuffix("_login_dlq"))
			gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.Equal(dead.Status.QueueARN))
		})

		ginkgo.It("whose name another's queue has is refused and left alone", func() {
			name := w.named("taken_dlq")
			_, err := w.sqs.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: map[string]string{"team": "bank"}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			before, _ := w.sqs.Queue(name)
			d := channelNamed("taken", withDeadLetter)
			w.apply(d)
			w.reconciled(d)
			gomega.Expect(d).To(beStalled(v1alpha1.ReasonNotOwned, "taken_dlq"))
			gomega.Expect(redrive("taken")).To(gomega.BeEmpty())
			after, _ := w.sqs.Queue(name)
			gomega.Expect(after).To(gomega.Equal(before))
		})
	})

	ginkgo.Describe("of another channel", func() {
		ginkgo.It("is followed at once when that channel is deleted, told, and when another queue takes its place", func() {
			p := w.providerFor(allowing("dead-*"))
			dead, c := channelNamed("dead", using(p), called("dead-1")), channelNamed("login", using(p), deadTo("dead"))
			w.apply(dead, c)
			w.reconciled(dead)
			w.reconciled(c)
			gomega.Expect(redrive("login")).To(gomega.ContainSubstring("dead-1"))
			w.pass(20 * time.Minute)
			change(w, dead, func(d *v1alpha1.RequestChannel) { d.Finalizers = append(d.Finalizers, "test/hold") })
			w.remove(dead)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonWaitingForDeadLetter, "dead is being deleted"))
			change(w, dead, func(d *v1alpha1.RequestChannel) { d.Finalizers = d.Finalizers[:1] })
			w.reconciled(dead)
			gomega.Expect(w.exists(dead)).To(gomega.BeFalse())

			again := channelNamed("dead", using(p), called("dead-2"))
			w.apply(again)
			w.reconciled(again)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(redrive("login")).To(gomega.ContainSubstring("dead-2"))
		})

		ginkgo.It("is followed when it was replaced unseen, by a channel that is Ready", func() {
			p := w.providerFor(allowing("dead-*"))
			dead, c := channelNamed("dead", using(p), called("dead-1")), channelNamed("login", using(p), deadTo("dead"))
			w.apply(dead, c)
			w.reconciled(dead)
			w.reconciled(c)
			w.pass(20 * time.Minute)
			w.remove(dead)
			w.reconciled(dead)
			again := channelNamed("dead", using(p), called("dead-2"))
			w.apply(again)
			w.reconciled(again)
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.HaveKeyWithValue("SetQueueAttributes", 1))
			gomega.Expect(redrive("login")).To(gomega.ContainSubstring("dead-2"))
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("that names this one for its own is refused, with both named", func() {
			a, b := channelNamed("a", deadTo("b")), channelNamed("b", deadTo("a"))
			w.apply(a, b)
			for _, c := range []*v1alpha1.RequestChannel{a, b} {
				w.reconciled(c)
				gomega.Expect(c).To(gomega.And(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, c.Name), beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "round for ever")))
			}
		})
	})
})

var _ = ginkgo.Describe("What was applied", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.It("is compared with the provider's terms at a restart, and a change of theirs is no drift", func() {
		p := w.providerFor(func(s *v1alpha1.QueueProviderSpec) { s.DefaultTags = v1alpha1.Tags{"cost": "1"} })
		c := channelNamed("login", using(p), withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.heard()
		w.pass(20 * time.Minute)
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = v1alpha1.Tags{"cost": "2"} })
		w.restart()
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		for _, q := range w.sqs.Queues() {
			gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("cost", "2"))
		}
		gomega.Expect(c.Status.LastDriftTime).To(gomega.BeNil())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
	})

	ginkgo.It("lies under spec.tags where the provider's default tags name the same", func() {
		p := w.providerFor(func(s *v1alpha1.QueueProviderSpec) { s.DefaultTags = v1alpha1.Tags{"cost": "1", "env": "test"} })
		c := channelNamed("login", using(p), func(s *v1alpha1.RequestChannelSpec) { s.Tags = v1alpha1.Tags{"cost": "mine"} })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.And(gomega.HaveKeyWithValue("cost", "mine"), gomega.HaveKeyWithValue("env", "test")))
	})

	ginkgo.It("is not what a suspended channel's spec asks for when that never was applied", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{"NextYears": "x"} })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonInvalid, "spec.extraAttributes[NextYears]: "))
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonSuspended, "not what the spec asks for now"))
	})

	ginkgo.It("is looked at again for reconcile-at when the look failed", func() {
		c := channelNamed("login", func(s *v1alpha1.RequestChannelSpec) { s.Binding = &v1alpha1.Binding{SecretName: "login-sqs"} })
		w.apply(c)
		w.reconciled(c)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "login-sqs"}}
		w.remove(secret)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.before = func(write string) error {
			if write == "apply Secret" {
				return errStopped
			}
			return nil
		}
		w.failed(c)
		gomega.Expect(c.Status.LastHandledReconcileAt).To(gomega.BeEmpty())
		w.before = nil
		w.reconciled(c)
		gomega.Expect(c.Status.LastHandledReconcileAt).To(gomega.Equal("1"))
		gomega.Expect(w.exists(secret)).To(gomega.BeTrue())
	})

	ginkgo.It("is not doubted for credentials that expired, which are renewed", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ExpiredCredentials, Count: 1}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.failed(c)
		gomega.Expect(c).To(beReady())
		w.sqs.SetFaults(sqstest.Plan{})
		w.reconciled(c)
		gomega.Expect(c.Status.LastHandledReconcileAt).To(gomega.Equal("1"))
	})
})
