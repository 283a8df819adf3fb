package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Who has a name, and who only says so.
var _ = ginkgo.Describe("A claim to a queue", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	// elsewhere is another namespace.
	elsewhere := func(name string) string {
		ginkgo.GinkgoHelper()
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "else-", Name: name}}
		gomega.Expect(direct.Create(w.ctx, ns)).To(gomega.Succeed())
		return ns.Name
	}
	forAll := func(spec *v1alpha1.QueueProviderSpec) {
		spec.Namespaces = v1alpha1.ProviderNamespaces{From: v1alpha1.NamespacesFromAll}
	}
	// first applies a channel that is surely older than what comes after: of those of one second, names decide.
	first := func(namespace string, edits ...func(*v1alpha1.RequestChannelSpec)) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		squatter := channelNamed("a", edits...)
		squatter.Namespace = namespace
		w.apply(squatter)
		w.reconciled(squatter)
		return squatter
	}

	ginkgo.It("is none when the provider is not given to its namespace", func() {
		p := w.providerFor(allowing("orders"))
		squatter := first(elsewhere(""), using(p), called("orders"))
		gomega.Expect(squatter).To(beStalled(v1alpha1.ReasonProviderNotAllowed))
		c := channelNamed("orders", using(p), called("orders"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is none when its namespace may not have the name", func() {
		p := w.providerFor(allowing(w.namespace+"_orders"), forAll)
		// The pattern that allows it to one does not name the other.
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.AllowedQueueNames = []string{"${namespace}_*"} })
		squatter := first(elsewhere(""), using(p), called(w.namespace+"_orders"))
		gomega.Expect(squatter).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed))
		c := channelNamed("orders", using(p), called(w.namespace+"_orders"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is none while it is suspended and never had the queue, and is one as soon as it may be served", func() {
		p := w.providerFor(allowing("orders"))
		squatter := first(w.namespace, using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) { spec.Suspend = ptr.To(true) })
		c := channelNamed("orders", using(p), called("orders"))
		w.apply(c)
		change(w, squatter, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = nil })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonConflict, "/a"))
		change(w, squatter, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		change(w, squatter, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = nil })
		w.reconciled(squatter)
		gomega.Expect(squatter).To(beStalled(v1alpha1.ReasonNotOwned))
	})

	ginkgo.DescribeTable("by the ARN of dead letters is refused for what is another namespace's, whatever the pattern", func(pattern, suffix string) {
		p := w.providerFor(allowing(pattern), forAll)
		bank := elsewhere(w.namespace + "-a")
		victim := first(bank, using(p), called(bank+suffix))
		gomega.Expect(victim).To(beReady())
		c := channelNamed("evil", using(p), func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 1, ARN: victim.Status.QueueARN}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, bank+suffix))
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &victim.Status.QueueURL, Tags: w.consent()})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	},
		ginkgo.Entry("of everything", "*", "_orders"),
		ginkgo.Entry("of names that end alike", "*_orders", "_orders"),
	)

	ginkgo.It("by the ARN of dead letters is good for a channel of the same namespace", func() {
		p := w.providerFor(allowing("dead"))
		dead := first(w.namespace, using(p), called("dead"))
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 1, ARN: dead.Status.QueueARN}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("ends with its queue, though permission was withdrawn and the status lost", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = `{"Version":"2012-10-17","Statement":[]}` })
		w.apply(c)
		w.reconciled(c)
		before := c.DeepCopy()
		c.Status = v1alpha1.RequestChannelStatus{}
		gomega.Expect(direct.Status().Patch(w.ctx, c, mergeFrom(before))).To(gomega.Succeed())
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.AllowPolicies = nil })
		w.remove(c)
		w.pass(2 * time.Minute)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Normal " + controller.EventQueueDeleted)))
	})

	ginkgo.It("is not given up by force for one failure of SQS", func() {
		c := channelNamed("login")
		c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Minute)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ServerError}}})
		w.remove(c)
		for range 2 {
			w.failed(c)
			gomega.Expect(w.exists(c)).To(gomega.BeTrue())
			w.pass(time.Minute)
		}
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse(), "but for an outage it is")
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
	})

	ginkgo.It("is told of when a channel ends in Observe", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve })
		w.remove(c)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElements(
			gomega.And(gomega.HavePrefix("Normal "+controller.EventQueueLeft), gomega.ContainSubstring("queue "+w.named("login")+" is left")),
			gomega.And(gomega.HavePrefix("Normal "+controller.EventQueueLeft), gomega.ContainSubstring("queue "+w.named("login_dlq")+" is left"))))
	})

	ginkgo.It("that lies beside a deletion is told of once", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
		w.apply(c)
		w.reconciled(c)
		_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &c.Status.DeadLetterQueueURL, TagKeys: []string{v1alpha1.TagName}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.sendTo(w.named("login"))
		w.remove(c)
		w.heard()
		for range 4 {
			w.reconciled(c)
			w.pass(30 * time.Second)
		}
		left := 0
		for _, e := range w.heard() {
			if matched, _ := gomega.HavePrefix("Normal " + controller.EventQueueLeft).Match(e); matched {
				left++
			}
		}
		gomega.Expect(left).To(gomega.Equal(1))
	})

	ginkgo.It("is free once the operator is done with who claimed it, whoever else's finalizer holds that", func() {
		p := w.providerFor(allowing("orders"))
		a := channelNamed("a", using(p), called("orders"))
		a.Finalizers = []string{"example.com/held"}
		w.apply(a)
		w.reconciled(a)
		w.pass(2 * time.Minute)
		b := channelNamed("b", using(p), called("orders"))
		w.apply(b)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		w.remove(a)
		w.reconciled(a)
		w.reconciled(b)
		gomega.Expect(b).NotTo(beReady(), "it is not deleted yet")
		w.sqs.SetFaults(sqstest.Plan{})
		w.reconciled(a)
		gomega.Expect(w.exists(a)).To(gomega.BeTrue())
		gomega.Expect(a.Finalizers).To(gomega.ConsistOf("example.com/held"))
		w.pass(2 * time.Minute)
		w.reconciled(b)
		gomega.Expect(b).To(beReady())
		change(w, a, func(a *v1alpha1.RequestChannel) { a.Finalizers = nil })
	})

	ginkgo.It("that was given up with its dead-letter queue can be made again, with consent to both", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.apply(c)
		w.reconciled(c)
		w.sendTo(w.named("login_dlq"))
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		consented := func(name string) {
			ginkgo.GinkgoHelper()
			q, _ := w.sqs.Queue(name)
			_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: w.consent()})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		consented(w.named("login"))
		again := channelNamed("login", withDeadLetter, adopting)
		w.apply(again)
		w.reconciled(again)
		gomega.Expect(again).To(beStalled(v1alpha1.ReasonNotOwned, "_dlq"))
		consented(w.named("login_dlq"))
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
		w.remove(again)
		w.pass(2 * time.Minute)
		w.reconciled(again)
		gomega.Expect(w.exists(again)).To(gomega.BeFalse())
		q, _ := w.sqs.Queue(w.named("login_dlq"))
		gomega.Expect(q.Visible).To(gomega.Equal(1), "what was adopted is not deleted")
	})

	ginkgo.DescribeTable("that was carried out by half is remembered: what is unset afterwards is restored", func(name string) {
		p := w.providerFor(allowing("orders"))
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) {
			spec.QueueName = name
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			spec.Tags = v1alpha1.Tags{"cost": "1"}
		})
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "ListQueueTags", Count: 1}}})
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
		w.sqs.SetFaults(sqstest.Plan{})
		w.restart()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue, c.Spec.Tags = nil, nil })
		w.pass(2 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		q := w.sqs.Queues()[0]
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "30"))
		gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"))
	}, ginkgo.Entry("under a name of its own", "orders"), ginkgo.Entry("under a computed name", ""))

	ginkgo.It("holds its provider before there is a queue, and a provider that goes takes no new ones", func() {
		p := w.providerFor()
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.remove(p)
		gomega.Expect(w.exists(p)).To(gomega.BeTrue())
		late := channelNamed("late", using(p))
		w.apply(late)
		w.reconciled(late)
		gomega.Expect(late).To(beReconciling(v1alpha1.ReasonWaitingForProvider, "is being deleted"))
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		for _, o := range []*v1alpha1.RequestChannel{late, c} {
			w.remove(o)
			w.reconciled(o)
			gomega.Expect(w.exists(o)).To(gomega.BeFalse())
		}
		w.reconciled(p)
		gomega.Expect(w.exists(p)).To(gomega.BeFalse())
	})

	ginkgo.It("is none of a channel that left its queue by force, and that only another's finalizer holds", func() {
		p := w.providerFor(allowing("orders"))
		before := channelNamed("before", using(p), called("orders"))
		before.Finalizers = []string{"example.com/held"}
		before.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		w.apply(before)
		w.reconciled(before)
		w.pass(2 * time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		w.remove(before)
		w.reconciled(before)
		gomega.Expect(w.exists(before)).To(gomega.BeTrue())
		c := channelNamed("login", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "was left behind by RequestChannel"))
		w.tag("orders", w.consent())
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("to a computed name that was adopted ends with the queue: it is not made again, and nobody is sent there", func() {
		p := w.providerFor(allowing("*"))
		left := w.named("old")
		consent := w.consent()
		w.queueTagged(left, consent)
		c := channelNamed("login", using(p), called(left), adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(2 * time.Hour)
		w.deleteQueue(left)
		w.heard()
		w.pass(2 * time.Hour)
		for range 2 {
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, "is not created", "delete this channel"))
			gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Type", v1alpha1.ConditionDrifted)))
			gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
			gomega.Expect(c.Status.QueueARN).To(gomega.BeEmpty())
			w.pass(2 * time.Hour)
		}
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring("created again")))
		w.queueTagged(left, consent)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty())
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1), "it is adopted, and left")
	})
})
