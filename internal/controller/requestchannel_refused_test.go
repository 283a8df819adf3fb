package controller_test

import (
	"context"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What is noted before it is set, and then refused, is noted for as long as the spec asks for it.
var _ = ginkgo.Describe("A note of what SQS refuses", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	refusing := func(action string) {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: action}}})
	}
	tagged := func(edit int) v1alpha1.Tags {
		tags := v1alpha1.Tags{}
		for i := range 40 {
			tags[fmt.Sprintf("e%d-%d", edit, i)] = "x"
		}
		return tags
	}
	edits := func(c *v1alpha1.RequestChannel, edit func(int, *v1alpha1.RequestChannelSpec), reason string) {
		ginkgo.GinkgoHelper()
		for n := range 6 {
			change(w, c, func(c *v1alpha1.RequestChannel) { edit(n, &c.Spec) })
			w.pass(10 * time.Minute)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(reason), fmt.Sprintf("edit %d", n))
			w.pass(10 * time.Minute)
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.BeEmpty(), "a retry has nothing to note")
		}
	}
	healed := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		w.sqs.SetFaults(sqstest.Plan{})
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	}

	for what, begin := range map[string]struct {
		action string
		made   bool
		spec   func(*v1alpha1.RequestChannelSpec)
	}{
		"a queue":                                {"TagQueue", true, func(*v1alpha1.RequestChannelSpec) {}},
		"a queue and its dead-letter queue":      {"TagQueue", true, withDeadLetter},
		"a queue that is to be made":             {"CreateQueue", false, func(*v1alpha1.RequestChannelSpec) {}},
		"a dead-letter queue that is to be made": {"CreateQueue", true, func(*v1alpha1.RequestChannelSpec) {}},
	} {
		ginkgo.It("goes with the tags of "+what, func() {
			c := channelNamed("login", begin.spec)
			c.Spec.Tags = v1alpha1.Tags{"first": "x"}
			w.apply(c)
			if begin.made {
				w.reconciled(c)
				w.pass(2 * time.Hour)
			}
			refusing(begin.action)
			edits(c, func(n int, spec *v1alpha1.RequestChannelSpec) {
				spec.Tags = tagged(n)
				if begin.action == "CreateQueue" && begin.made {
					withDeadLetter(spec)
				}
			}, v1alpha1.ReasonAccessDenied)
			healed(c)
			for _, q := range w.sqs.Queues() {
				gomega.Expect(q.Tags).To(gomega.HaveKey("e5-39"), q.Name)
				gomega.Expect(q.Tags).NotTo(gomega.HaveKey("e4-39"), q.Name)
			}
		})
	}

	ginkgo.It("does not go with what was set before, which is taken off in the end", func() {
		c := channelNamed("login", withDeadLetter)
		c.Spec.Tags = v1alpha1.Tags{"first": "x"}
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		refusing("UntagQueue")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"second": "x"} })
		w.reconciled(c)
		refusing("TagQueue")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"second": "y", "third": "x"} })
		w.pass(10 * time.Minute)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
		healed(c)
		for _, q := range w.sqs.Queues() {
			gomega.Expect(q.Tags).NotTo(gomega.Or(gomega.HaveKey("first"), gomega.HaveKey("second"), gomega.HaveKey("third")), q.Name)
		}
	})

	ginkgo.It("goes with extra attributes, and with what they were before", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		edits(c, func(n int, spec *v1alpha1.RequestChannelSpec) {
			spec.ExtraAttributes = map[string]string{}
			for i := range 15 {
				spec.ExtraAttributes[fmt.Sprintf("Unknown%dOf%d", i, n)] = "x"
			}
		}, v1alpha1.ReasonInvalid)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = nil })
		healed(c)
	})

	ginkgo.It("stays where the answer was lost, for it may have been set", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "TagQueue"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"lost": "x"} })
		w.failed(c)
		refusing("TagQueue")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"lost": "y"} })
		w.pass(10 * time.Minute)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
		healed(c)
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Tags).NotTo(gomega.HaveKey("lost"))
	})
})
