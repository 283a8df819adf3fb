package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
)

// takingFrom has a channel take dead letters from channels of its namespace.
func takingFrom(names ...string) func(*v1alpha1.RequestChannelSpec) {
	return func(s *v1alpha1.RequestChannelSpec) {
		s.DeadLettersFrom = &v1alpha1.DeadLettersFrom{Permission: v1alpha1.DeadLetterPermissionChannels}
		for _, name := range names {
			s.DeadLettersFrom.Channels = append(s.DeadLettersFrom.Channels, v1alpha1.ChannelReference{Name: name})
		}
	}
}

// permitting has a channel take dead letters from everybody, or from nobody.
func permitting(permission v1alpha1.DeadLetterPermission) func(*v1alpha1.RequestChannelSpec) {
	return func(s *v1alpha1.RequestChannelSpec) {
		s.DeadLettersFrom = &v1alpha1.DeadLettersFrom{Permission: permission}
	}
}

var _ = ginkgo.Describe("The sources of dead letters", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	allow := func(name string) string {
		q, _ := w.sqs.Queue(name)
		return q.Attributes["RedriveAllowPolicy"]
	}
	byQueue := func(names ...string) gomega.OmegaMatcher {
		all := ""
		for i, name := range names {
			if i > 0 {
				all += ","
			}
			all += `"arn:aws:sqs:us-east-1:000000000000:` + name + `"`
		}
		return gomega.MatchJSON(`{"redrivePermission":"byQueue","sourceQueueArns":[` + all + `]}`)
	}

	ginkgo.It("are those of the channels named, whichever comes first, and of everybody again once that is unset", func() {
		p := w.providerFor(allowing("orders"))
		dead := channelNamed("dead", using(p), takingFrom("orders", "login"))
		w.apply(dead)
		w.reconciled(dead)
		gomega.Expect(dead).To(beReady())
		gomega.Expect(allow(w.named("dead"))).To(byQueue(w.named("login"), w.named("orders")))

		login, orders := channelNamed("login", using(p), deadTo("dead")), channelNamed("orders", using(p), called("orders"), deadTo("dead"))
		w.apply(login, orders)
		w.reconciled(dead)
		gomega.Expect(allow(w.named("dead"))).To(byQueue("orders", w.named("login")))
		for _, c := range []*v1alpha1.RequestChannel{login, orders} {
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		}
		requests, _ := w.costing(func() { w.reconciled(dead) })
		gomega.Expect(requests).To(gomega.BeEmpty())

		w.pass(2 * time.Minute)
		change(w, dead, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLettersFrom = nil })
		w.restart()
		w.reconciled(dead)
		gomega.Expect(dead).To(beReady())
		gomega.Expect(allow(w.named("dead"))).To(gomega.BeEmpty())
	})

	ginkgo.It("are held to the spec, whoever it lets in", func() {
		c := channelNamed("dead", permitting(v1alpha1.DeadLetterPermissionNone))
		w.apply(c)
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
		gomega.Expect(allow(w.named("dead"))).To(gomega.MatchJSON(`{"redrivePermission":"denyAll"}`))
		w.pass(2 * time.Hour)
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{"RedriveAllowPolicy": ""}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.heard()
		w.reconciled(c)
		gomega.Expect(allow(w.named("dead"))).To(gomega.MatchJSON(`{"redrivePermission":"denyAll"}`))
		gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.And(gomega.HavePrefix("Warning "+controller.EventDriftCorrected), gomega.ContainSubstring("spec.deadLettersFrom"))))
		change(w, c, func(c *v1alpha1.RequestChannel) { permitting(v1alpha1.DeadLetterPermissionAll)(&c.Spec) })
		w.reconciled(c)
		gomega.Expect(allow(w.named("dead"))).To(gomega.MatchJSON(`{"redrivePermission":"allowAll"}`))
	})

	ginkgo.It("are brought to the spec on a queue that is adopted, and left to whoever set them where it says nothing", func() {
		p := w.providerFor(allowing("open", "theirs"))
		for _, name := range []string{"open", "theirs"} {
			_, err := w.sqs.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{
				QueueName: &name, Tags: map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace},
				Attributes: map[string]string{"RedriveAllowPolicy": `{"redrivePermission":"allowAll"}`},
			})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		open, theirs := channelNamed("open", using(p), called("open"), adopting, permitting(v1alpha1.DeadLetterPermissionNone)), channelNamed("theirs", using(p), called("theirs"), adopting)
		w.apply(open, theirs)
		w.reconciled(open)
		w.reconciled(theirs)
		gomega.Expect(allow("open")).To(gomega.MatchJSON(`{"redrivePermission":"denyAll"}`))
		gomega.Expect(allow("theirs")).To(gomega.MatchJSON(`{"redrivePermission":"allowAll"}`))
	})

	ginkgo.It("are restored by a process that did not set them, though the one that did was stopped before it noted that", func() {
		dead := channelNamed("dead", takingFrom("login"))
		w.apply(dead)
		set := false
		w.before = func(write string) error {
			if q, there := w.sqs.Queue(w.named("dead")); there && q.Attributes["RedriveAllowPolicy"] != "" {
				set = true
				return errStopped
			}
			return nil
		}
		w.failed(dead)
		gomega.Expect(set).To(gomega.BeTrue())
		w.before = nil
		w.restart()
		w.pass(2 * time.Minute)
		change(w, dead, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLettersFrom = nil })
		w.reconciled(dead)
		gomega.Expect(dead).To(beReady())
		gomega.Expect(allow(w.named("dead"))).To(gomega.BeEmpty())
	})

	ginkgo.It("leave out a channel that is not let in, which is told so and asks SQS for nothing", func() {
		dead, login := channelNamed("dead", takingFrom("other")), channelNamed("login", deadTo("dead"))
		w.apply(dead, login)
		w.reconciled(dead)
		w.reconciled(login)
		gomega.Expect(login).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "spec.deadLettersFrom"))
		_, there := w.sqs.Queue(w.named("login"))
		gomega.Expect(there).To(gomega.BeFalse())
		change(w, dead, func(c *v1alpha1.RequestChannel) { takingFrom("other", "login")(&c.Spec) })
		w.reconciled(dead)
		w.reconciled(login)
		gomega.Expect(login).To(beReady())
	})

	ginkgo.It("are no queue that the one named may not have, nor one of another provider or type", func() {
		p := w.providerFor(allowing("orders"))
		vault := channelNamed("vault", using(p), called("vault"))
		dead := channelNamed("dead", using(p), takingFrom("vault"))
		w.apply(vault, dead)
		w.reconciled(vault)
		w.reconciled(dead)
		gomega.Expect(allow(w.named("dead"))).To(gomega.MatchJSON(`{"redrivePermission":"denyAll"}`))

		elsewhere := channelNamed("elsewhere")
		fifo := channelNamed("fifo", using(p), func(s *v1alpha1.RequestChannelSpec) { s.FIFO = &v1alpha1.FIFO{} })
		w.apply(elsewhere, fifo)
		for name, words := range map[string]string{"elsewhere": "another QueueProvider", "fifo": "FIFO"} {
			change(w, dead, func(c *v1alpha1.RequestChannel) { takingFrom(name)(&c.Spec) })
			w.reconciled(dead)
			gomega.Expect(dead).To(beStalled(v1alpha1.ReasonInvalid, "spec.deadLettersFrom.channels", words))
		}
	})
})
