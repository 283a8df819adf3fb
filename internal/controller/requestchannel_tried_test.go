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
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What a namespace's user tries to get a queue that is not theirs, with a pattern that matches every name.
var _ = ginkgo.Describe("Another namespace's queue", func() {
	var w *world
	var p *v1alpha1.QueueProvider
	var bank, name string // the other namespace, and the name of its queue
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		p = w.providerFor(allowing("*"))
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bank-"}}
		gomega.Expect(direct.Create(w.ctx, ns)).To(gomega.Succeed())
		bank = ns.Name
		name = "rq_" + clusterName + "_" + bank + "_login"
	})
	create := func(queueName string, edits ...func(*v1alpha1.RequestChannelSpec)) (c *v1alpha1.RequestChannel, requests map[string]int) {
		ginkgo.GinkgoHelper()
		c = channelNamed("mine", append(edits, using(p), called(queueName))...)
		w.apply(c)
		requests, _ = w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).NotTo(gomega.HaveKey("CreateQueue"))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
		return c, requests
	}

	ginkgo.It("is not made for whoever names it first", func() {
		c, requests := create(name)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, name))
		gomega.Expect(requests).To(gomega.BeEmpty(), "it is not even looked for")
	})

	ginkgo.It("is not made for who would adopt it, or the dead-letter queue beside it, or only look", func() {
		for _, tried := range []string{name, name + "_dlq"} {
			c, _ := create(tried, adopting)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, "is not created"))
			w.remove(c)
			w.reconciled(c)
			c, _ = create(tried, observing)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonObservedQueueMissing))
			w.remove(c)
			w.reconciled(c)
		}
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("is neither handed out, nor observed, nor sent to, while it is in use", func() {
		theirs := channelNamed("login")
		theirs.Namespace = bank
		gomega.Expect(direct.Create(w.ctx, theirs)).To(gomega.Succeed())
		w.reconciled(theirs)
		gomega.Expect(theirs).To(beReady())
		w.pass(time.Hour)
		before, there := w.sqs.Queue(name)
		gomega.Expect(there).To(gomega.BeTrue())
		for what, try := range map[string]struct {
			reason string
			edit   func(*v1alpha1.RequestChannelSpec)
		}{
			"create":  {v1alpha1.ReasonQueueNameNotAllowed, called(name)},
			"adopt":   {v1alpha1.ReasonNotOwned, func(spec *v1alpha1.RequestChannelSpec) { called(name)(spec); adopting(spec) }},
			"observe": {v1alpha1.ReasonNotOwned, func(spec *v1alpha1.RequestChannelSpec) { called(name)(spec); observing(spec) }},
			"send to": {v1alpha1.ReasonDeadLetterNotAllowed, func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: before.ARN}
			}},
		} {
			c := channelNamed("mine", using(p), try.edit)
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(try.reason), what)
			gomega.Expect(c.Status.QueueARN).NotTo(gomega.Equal(before.ARN), what)
			gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty(), what)
			w.remove(c)
			w.reconciled(c)
			w.pass(2 * time.Minute)
			after, _ := w.sqs.Queue(name)
			gomega.Expect(after).To(gomega.Equal(before), what)
		}
	})

	ginkgo.It("is nobody's to have by consent where it is a reply queue or the cluster's marker", func() {
		for _, tried := range []string{"rq_" + clusterName + "_r_4a7f0c0e-8d5b-4a58-9c57-0d5b0c3f7a11", "rq_" + clusterName + "_identity"} {
			w.queueTagged(tried, w.consent())
			for _, edit := range []func(*v1alpha1.RequestChannelSpec){adopting, observing} {
				c, requests := create(tried, edit)
				gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, tried))
				gomega.Expect(requests).To(gomega.BeEmpty())
				w.remove(c)
				w.reconciled(c)
			}
		}
	})

	ginkgo.It("is not told of to who may not have its name any more, and has none", func() {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "CreateQueue"}}})
		c := channelNamed("mine", using(p), called("secret-project"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		w.sqs.SetFaults(sqstest.Plan{})
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.AllowedQueueNames = nil })
		w.queueTagged("secret-project", nil)
		w.pass(time.Hour)
		w.remove(c)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring("secret-project")))
	})
})

// What is left alone, and what is remembered, at the edge of what a channel may change.
var _ = ginkgo.Describe("A channel leaves", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.It("a dead-letter queue to the channel that took it over since, though its owner's consent stands", func() {
		p := w.providerFor(allowing("*"))
		c := channelNamed("login", using(p), withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		consent := w.consent()
		w.tag(w.named("login"), consent)
		w.tag(w.named("login_dlq"), consent)
		w.pass(2 * time.Minute)
		taker := channelNamed("morgue", using(p), called(w.named("login_dlq")), adopting)
		w.apply(taker)
		w.reconciled(taker)
		gomega.Expect(taker).To(beReady())
		before, _ := w.sqs.Queue(w.named("login_dlq"))
		w.pass(2 * time.Minute)
		again := channelNamed("login", using(p), withDeadLetter, adopting)
		w.apply(again)
		w.reconciled(again)
		gomega.Expect(again).To(beStalled(v1alpha1.ReasonNotOwned, w.namespace+"/morgue"))
		after, _ := w.sqs.Queue(w.named("login_dlq"))
		gomega.Expect(after).To(gomega.Equal(before))
		gomega.Expect(again.Status.DeadLetterQueueURL).To(gomega.BeEmpty())
	})

	for whose, owner := range map[string]map[string]string{"another's": {v1alpha1.TagName: "other"}, "its own": nil} {
		ginkgo.It("the tags that it once set on a dead-letter queue out of use as they are where that is another's by now: "+whose, func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Tags = v1alpha1.Tags{"cost": "1", "urgent": ""}
			})
			w.apply(c)
			w.reconciled(c)
			w.pass(2 * time.Minute)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			w.pass(2 * time.Minute)
			if owner != nil {
				w.tag(w.named("login_dlq"), owner)
			}
			w.pass(2 * time.Minute)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
			w.reconciled(c)
			q, _ := w.sqs.Queue(w.named("login_dlq"))
			has := gomega.Or(gomega.HaveKey("cost"), gomega.HaveKey("urgent"))
			if owner != nil {
				has = gomega.And(gomega.HaveKeyWithValue("cost", "1"), gomega.HaveKeyWithValue("urgent", ""))
				gomega.Expect(q.Tags).To(has)
			} else {
				gomega.Expect(q.Tags).NotTo(has)
			}
		})
	}

	ginkgo.It("a dead-letter queue that another cluster took, and has no more requests moved there, until it is its own again", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		d, _ := w.sqs.Queue(w.named("login_dlq"))
		redrive := func() string {
			q, _ := w.sqs.Queue(w.named("login"))
			return q.Attributes["RedrivePolicy"]
		}
		own := map[string]string{}
		for _, key := range []string{v1alpha1.TagCluster, v1alpha1.TagKind, v1alpha1.TagNamespace, v1alpha1.TagName} {
			own[key] = d.Tags[key]
		}
		_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &d.URL, TagKeys: []string{v1alpha1.TagCluster, v1alpha1.TagKind, v1alpha1.TagNamespace, v1alpha1.TagName}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "give it back its tags", v1alpha1.TagName+"=login", v1alpha1.TagCluster+"="+clusterUID))
		gomega.Expect(redrive()).To(gomega.ContainSubstring(d.ARN), "nobody else has it")

		w.tag(w.named("login_dlq"), map[string]string{v1alpha1.TagCluster: "another", v1alpha1.TagKind: v1alpha1.TagKindRequest, v1alpha1.TagNamespace: "shop", v1alpha1.TagName: "vault"})
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "shop/vault of cluster another", "give it back its tags"))
		gomega.Expect(redrive()).To(gomega.BeEmpty())
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty())

		w.tag(w.named("login_dlq"), own)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(redrive()).To(gomega.ContainSubstring(d.ARN))
	})

	ginkgo.It("a queue to the channel that made it, and says to an observer how its owner can lend it", func() {
		p := w.providerFor(allowing("orders"))
		maker, observer, second := channelNamed("maker", using(p), called("orders")), channelNamed("observer", using(p), called("orders"), observing), channelNamed("second", using(p), called("orders"))
		w.apply(maker)
		w.reconciled(maker)
		w.apply(observer, second)
		w.reconciled(observer)
		gomega.Expect(observer).To(beStalled(v1alpha1.ReasonNotOwned, w.namespace+"/maker", "tag it "+v1alpha1.TagSharedWith+"="+clusterName+"/"+w.namespace))
		gomega.Expect(observer.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Message", gomega.ContainSubstring("elete"))), "the queue with its messages, that is")
		w.reconciled(second)
		gomega.Expect(second).To(beStalled(v1alpha1.ReasonNotOwned, "delete that one first", "new RequestChannel, since spec.queueName is immutable"))
		w.tag("orders", w.share())
		w.pass(10 * time.Minute)
		w.reconciled(observer)
		gomega.Expect(observer).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved))

		// Suspended, it goes by the consent alone.
		change(w, observer, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(observer)
		w.pass(2 * time.Hour)
		w.reconciled(observer)
		gomega.Expect(observer.Status.QueueURL).NotTo(gomega.BeEmpty())
		w.untag("orders", v1alpha1.TagSharedWith)
		w.pass(2 * time.Hour)
		w.reconciled(observer)
		gomega.Expect(observer.Status.QueueURL).To(gomega.BeEmpty())
	})

	ginkgo.It("a queue that is shared to its own channel to change, and to nobody to take over", func() {
		p := w.providerFor(allowing("orders"))
		maker, second := channelNamed("maker", using(p), called("orders")), channelNamed("second", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented
		})
		w.apply(maker)
		w.reconciled(maker)
		w.tag("orders", w.share())
		change(w, maker, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
		})
		w.reconciled(maker)
		gomega.Expect(maker).To(beReady())
		gomega.Expect(w.there("orders").Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "60"))

		w.tag("orders", map[string]string{v1alpha1.TagCluster: "another"}) // Elsewhere it goes on being shared.
		w.apply(second)
		for range 3 {
			w.reconciled(second)
			w.pass(10 * time.Minute)
		}
		gomega.Expect(second).To(beStalled(v1alpha1.ReasonNotOwned, v1alpha1.TagAdoptableBy))
		gomega.Expect(w.there("orders").Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagCluster, "another"))
	})

	ginkgo.It("a queue that has the name that its own would have, and advises no other name", func() {
		w.queueTagged(w.named("login"), nil)
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "Delete it, or let its owner tag it "+v1alpha1.TagAdoptableBy))
		gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Message", gomega.ContainSubstring("queueName"))))
	})

	ginkgo.It("a queue that is gone to its original to make again, until it is known which of two clusters this is", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.queueTagged("rq_"+clusterName+"_identity", nil) // by which the account is known to be the same
		w.pass(2 * time.Hour)
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Minute)
		w.restart()
		w.registry.Fence = answering{&queue.Held{Provider: "default", Message: "being found out", RetryAfter: time.Second}}
		w.look(c, "1")
		w.heard()
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.And(gomega.Not(gomega.BeEmpty()), gomega.Not(gomega.HaveKey("CreateQueue"))))
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring("deleted by someone else")))
		w.registry.Fence = answering{}
		w.restart()
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
	})

	ginkgo.It("no redrive policy behind that it set before its dead-letter channel went", func() {
		dead, c := channelNamed("dead"), channelNamed("login", deadTo("dead"))
		w.apply(dead, c)
		w.reconciled(dead)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.remove(dead)
		w.reconciled(dead)
		w.pass(2 * time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonWaitingForDeadLetter))
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("DelaySeconds", "5"), gomega.HaveKey("RedrivePolicy")))

		w.pass(10 * time.Second) // SQS may still show what was before.
		w.restart()
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(w.result.RequeueAfter).To(gomega.And(gomega.BeNumerically(">", 0), gomega.BeNumerically("<=", 50*time.Second)),
			"what SQS does not show yet is looked at when it surely does, and not when the other channel may be there")

		w.pass(2 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		q, _ = w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes["RedrivePolicy"]).To(gomega.BeEmpty())
	})
})
