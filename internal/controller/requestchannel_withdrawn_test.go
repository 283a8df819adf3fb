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

func observing(spec *v1alpha1.RequestChannelSpec) {
	spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
}

// What is taken back, and what was only wished for, is handed out to nobody.
var _ = ginkgo.Describe("What was given and is taken back", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	secret := func(name string) bool {
		return w.exists(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
	}
	redrive := func(name string) string {
		q, _ := w.sqs.Queue(w.named(name))
		return q.Attributes["RedrivePolicy"]
	}

	ginkgo.It("leaves the binding's Secret at once, and comes back to it with the consent", func() {
		p := w.providerFor(allowing("vault"))
		w.queueTagged("vault", w.consent())
		c := channelNamed("vault", using(p), called("vault"), observing, bindingTo("vault"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(secret("vault")).To(gomega.BeTrue())
		w.untag("vault", v1alpha1.TagAdoptableBy)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(secret("vault")).To(gomega.BeFalse())
		gomega.Expect(c.Status.Binding).To(gomega.BeNil())
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing))
		q, _ := w.sqs.Queue("vault")
		_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: w.consent()})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved))
		gomega.Expect(secret("vault")).To(gomega.BeTrue())
	})

	for _, suspended := range []bool{false, true} {
		ginkgo.It("leaves the status and the Secret though the provider was taken from the namespace too"+map[bool]string{true: ", of a suspended channel"}[suspended], func() {
			p := w.providerFor(allowing("vault"))
			w.queueTagged("vault", w.consent())
			c := channelNamed("vault", using(p), called("vault"), observing, bindingTo("vault"))
			own := channelNamed("login", using(p), bindingTo("login"))
			w.apply(c, own)
			w.reconciled(c)
			w.reconciled(own)
			for _, each := range []*v1alpha1.RequestChannel{c, own} {
				change(w, each, func(each *v1alpha1.RequestChannel) { each.Spec.Suspend = ptr.To(suspended) })
				w.reconciled(each)
			}
			change(w, p, func(p *v1alpha1.QueueProvider) {
				p.Spec.Namespaces.Selector.MatchLabels = map[string]string{"nobody": "x"}
			})
			w.pass(2 * time.Hour)
			for _, each := range []*v1alpha1.RequestChannel{c, own} {
				w.reconciled(each)
				gomega.Expect(each).To(beStalled(v1alpha1.ReasonProviderNotAllowed))
				gomega.Expect(each.Status.QueueURL).NotTo(gomega.BeEmpty(), "the consent stands")
			}
			w.untag("vault", v1alpha1.TagAdoptableBy)
			w.pass(2 * time.Hour)
			w.reconciled(c)
			gomega.Expect(c.Status.QueueURL + c.Status.QueueARN).To(gomega.BeEmpty())
			gomega.Expect(secret("vault")).To(gomega.BeFalse())
			w.reconciled(own)
			gomega.Expect(own.Status.QueueURL).NotTo(gomega.BeEmpty())
			gomega.Expect(secret("login")).To(gomega.BeTrue())
			requests, writes := w.costing(func() {
				w.reconciled(c)
				w.reconciled(own)
			})
			gomega.Expect(requests).To(gomega.BeEmpty())
			gomega.Expect(writes).NotTo(gomega.ContainElement("patch status RequestChannel"))
		})
	}

	ginkgo.It("is taken out of the spec, also of a channel that is stalled or suspended", func() {
		for name, edit := range map[string]func(*v1alpha1.RequestChannelSpec){
			"stalled":   func(*v1alpha1.RequestChannelSpec) {},
			"suspended": func(s *v1alpha1.RequestChannelSpec) { s.Suspend = ptr.To(true) },
		} {
			c := channelNamed(name, bindingTo(name))
			w.apply(c)
			w.reconciled(c)
			if name == "stalled" {
				w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied}}})
			}
			change(w, c, func(c *v1alpha1.RequestChannel) {
				edit(&c.Spec)
				c.Spec.Binding = nil
			})
			w.reconciled(c)
			w.sqs.SetFaults(sqstest.Plan{})
			gomega.Expect(secret(name)).To(gomega.BeFalse(), name)
			gomega.Expect(c.Status.Binding).To(gomega.BeNil(), name)
			gomega.Expect(c).NotTo(gomega.Or(
				haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable),
				haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)), name)
		}
	})

	ginkgo.It("is written for a channel that is suspended, without a look at the queue", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Suspend = ptr.To(true)
			bindingTo("login")(&c.Spec)
		})
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(secret("login")).To(gomega.BeTrue())
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
	})

	ginkgo.It("gets no dead letters any more", func() {
		w.queueTagged("vault", w.consent())
		q, _ := w.sqs.Queue("vault")
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: q.ARN}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(redrive("login")).NotTo(gomega.BeEmpty())
		w.untag("vault", v1alpha1.TagAdoptableBy)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed))
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonDeadLetterNotAllowed))
		gomega.Expect(redrive("login")).To(gomega.BeEmpty())
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty())
	})

	ginkgo.It("gets no dead letters before it is given, while AWS denies to look whether it is", func() {
		w.queueTagged("vault", nil)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Queue: "vault"}}})
		q, _ := w.sqs.Queue("vault")
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: q.ARN}
			c.Spec.Tags = v1alpha1.Tags{"cost": "1"}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		gomega.Expect(redrive("login")).To(gomega.BeEmpty())
		is, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(is.Tags).To(gomega.HaveKeyWithValue("cost", "1"), "the rest of its spec is applied")
	})

	for name, edit := range map[string]func(*v1alpha1.RequestChannelSpec){
		"is suspended": func(spec *v1alpha1.RequestChannelSpec) { spec.Suspend = ptr.To(true) },
		"is suspended, and would manage it": func(spec *v1alpha1.RequestChannelSpec) {
			spec.Suspend, spec.ManagementPolicy = ptr.To(true), v1alpha1.ManagementPolicyManage
		},
		"asks for a policy that it may not have": func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = `{}` },
		"would manage it, and asks for such a policy": func(spec *v1alpha1.RequestChannelSpec) {
			spec.Policy, spec.ManagementPolicy = `{}`, v1alpha1.ManagementPolicyManage
		},
		"lets callers in that mean nothing": func(spec *v1alpha1.RequestChannelSpec) {
			spec.AllowedCallers = &v1alpha1.AllowedCallers{From: "Selector", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "not a value!"}}}
		},
	} {
		ginkgo.It("is not kept by a channel that "+name, func() {
			p := w.providerFor(allowing("vault"))
			w.queueTagged("vault", w.consent())
			c := channelNamed("vault", using(p), called("vault"), observing, bindingTo("vault"))
			w.apply(c)
			w.reconciled(c)
			w.pass(2 * time.Minute)
			change(w, c, func(c *v1alpha1.RequestChannel) { edit(&c.Spec) })
			w.reconciled(c)
			gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty(), "the consent stands")
			gomega.Expect(secret("vault")).To(gomega.BeTrue())
			user := channelNamed("user", using(p), deadTo("vault"))
			w.apply(user)
			w.reconciled(user)
			gomega.Expect(redrive("user")).NotTo(gomega.BeEmpty())
			requests, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.BeEmpty(), "it was asked a moment ago")
			gomega.Expect(writes).NotTo(gomega.ContainElement(gomega.HavePrefix("patch status")))

			w.untag("vault", v1alpha1.TagAdoptableBy)
			late := channelNamed("late", using(p), deadTo("vault"))
			w.apply(late)
			w.reconciled(late)
			gomega.Expect(late).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "does not consent"))
			gomega.Expect(redrive("late")).To(gomega.BeEmpty())

			w.pass(2 * time.Hour)
			w.reconciled(c)
			for range 2 {
				gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
				gomega.Expect(c.Status.QueueARN).To(gomega.BeEmpty())
				gomega.Expect(c).To(haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionFalse, v1alpha1.ReasonNotOwned))
				gomega.Expect(c).NotTo(beReady())
				gomega.Expect(secret("vault")).To(gomega.BeFalse())
				w.pass(10 * time.Minute)
				w.restart()
				_, writes := w.costing(func() { w.reconciled(c) })
				gomega.Expect(writes).To(gomega.BeEmpty(), "it stays so")
			}
			w.reconciled(user)
			gomega.Expect(user).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed))
			gomega.Expect(redrive("user")).To(gomega.BeEmpty())
		})
	}

	ginkgo.It("is asked for before dead letters go there, also of a channel whose queue was taken from it unseen", func() {
		p := w.providerFor(allowing("vault"))
		w.queueTagged("vault", w.consent())
		c := channelNamed("vault", using(p), called("vault"), adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(c)
		user := channelNamed("user", using(p), deadTo("vault"))
		w.apply(user)
		w.reconciled(user)
		gomega.Expect(user).To(beReady())
		w.untag("vault", v1alpha1.TagAdoptableBy)
		q, _ := w.sqs.Queue("vault")
		_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: queue.OwnTags()})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.reconciled(user)
		gomega.Expect(user).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed))
		gomega.Expect(redrive("user")).To(gomega.BeEmpty())
	})

	ginkgo.It("stays on the queue where it is a policy, and that is said", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = `{"Version":"2012-10-17","Statement":[]}` })
		w.apply(c)
		w.reconciled(c)
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.AllowPolicies = nil })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonPolicyNotAllowed, "stays on the queue until spec.policy is taken out"))
	})

	ginkgo.It("is told to responders as the queue has it, also of a queue that is only observed", func() {
		p := w.providerFor(allowing("vault"))
		q := channelNamed("dead", using(p))
		w.apply(q)
		w.reconciled(q)
		w.queueTagged("vault", w.consent())
		c := channelNamed("vault", using(p), called("vault"), observing, deadTo("dead"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty())
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{
			"RedrivePolicy": `{"deadLetterTargetArn":"` + q.Status.QueueARN + `","maxReceiveCount":3}`,
		}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.Equal(q.Status.QueueARN))
	})

	for name, how := range map[string]func(*v1alpha1.RequestChannelSpec){"takes over": adopting, "observes": observing} {
		ginkgo.It("is a provider: one that goes is not given to a channel that "+name+" a queue, and one that stays is held", func() {
			p := w.providerFor(allowing("orders", "others"))
			first := channelNamed("first", using(p), called("orders"), how)
			w.queueTagged("orders", w.consent())
			w.queueTagged("others", w.consent())
			w.apply(first)
			w.reconciled(first)
			gomega.Expect(first.Status.QueueURL).NotTo(gomega.BeEmpty())
			gomega.Expect(w.exists(p)).To(gomega.BeTrue())
			gomega.Expect(p.Finalizers).To(gomega.ContainElement(v1alpha1.FinalizerQueueProvider))
			w.remove(p)
			second := channelNamed("second", using(p), called("others"), how)
			w.apply(second)
			w.reconciled(second)
			gomega.Expect(second).To(beReconciling(v1alpha1.ReasonWaitingForProvider, "takes no new users"))
			q, _ := w.sqs.Queue("others")
			gomega.Expect(q.Tags).To(gomega.Equal(w.consent()))
		})
	}

	ginkgo.It("is a provider: a channel that is suspended is not Ready for a spec that cannot be carried out", func() {
		p := w.providerFor(allowing("*"))
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
		namespaces := p.Spec.Namespaces
		change(w, p, func(p *v1alpha1.QueueProvider) {
			p.Spec.Namespaces = v1alpha1.ProviderNamespaces{From: "Selector", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "bank"}}}
		})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonProviderNotAllowed, "spec.suspend is true", "spec.providerRef"))
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.Namespaces = namespaces })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonSuspended, "not what the spec asks for now"))
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
		w.reconciled(c)
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
	})

	ginkgo.It("is no reason to advise a pattern for a name that no pattern allows", func() {
		p := w.providerFor(allowing("*"))
		a := channelNamed("a", using(p))
		w.apply(a)
		w.reconciled(a)
		b := channelNamed("b", using(p), func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: a.Status.QueueARN}
		})
		w.apply(b)
		w.reconciled(b)
		gomega.Expect(b).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "RequestChannel a in spec.deadLetter.channelRef"))
		gomega.Expect(b).NotTo(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "allowedQueueNames"))
	})
})
