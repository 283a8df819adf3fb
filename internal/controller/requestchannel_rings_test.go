package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// deadToARN sends dead letters to the queue that a channel has.
func deadToARN(c *v1alpha1.RequestChannel) func(*v1alpha1.RequestChannelSpec) {
	return func(s *v1alpha1.RequestChannelSpec) {
		s.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: c.Status.QueueARN}
	}
}

var _ = ginkgo.Describe("Dead letters that would go round by ARN", func() {
	var (
		w    *world
		a, b *v1alpha1.RequestChannel
	)
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		p := w.providerFor(allowing("orders", "bills"))
		a, b = channelNamed("a", using(p), called("orders")), channelNamed("b", using(p), called("bills"))
		w.apply(a, b)
		w.reconciled(a)
		w.reconciled(b)
		change(w, a, func(c *v1alpha1.RequestChannel) { deadToARN(b)(&c.Spec) })
		w.pass(2 * time.Minute)
		w.reconciled(a)
		gomega.Expect(a).To(beReady())
	})

	for what, back := range map[string]func(*v1alpha1.RequestChannel) func(*v1alpha1.RequestChannelSpec){
		"each by ARN":          deadToARN,
		"and back by its name": func(c *v1alpha1.RequestChannel) func(*v1alpha1.RequestChannelSpec) { return deadTo(c.Name) },
	} {
		ginkgo.It("are refused to all in the ring, and sent nowhere: "+what, func() {
			change(w, b, func(c *v1alpha1.RequestChannel) { back(a)(&c.Spec) })
			w.reconciled(b)
			gomega.Expect(b).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "b to a to b"))
			w.reconciled(a)
			gomega.Expect(a).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "a to b to a"))
			for _, name := range []string{"orders", "bills"} {
				q, _ := w.sqs.Queue(name)
				gomega.Expect(q.Attributes["RedrivePolicy"]).To(gomega.BeEmpty(), name)
			}
			change(w, b, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
			w.pass(10 * time.Minute)
			w.reconciled(b)
			gomega.Expect(b).To(beReady())
			w.reconciled(a)
			gomega.Expect(a).To(beReady())
		})
	}

	ginkgo.It("go to a queue of a channel that only observes, which sends none on", func() {
		change(w, b, func(c *v1alpha1.RequestChannel) {
			deadToARN(a)(&c.Spec)
			observing(&c.Spec)
		})
		w.pass(2 * time.Hour)
		w.reconciled(a)
		gomega.Expect(a).To(beReady())
	})
})
