package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A dead-letter queue made beside, of which SQS does not show at once what it is.
var _ = ginkgo.Describe("A dead-letter queue that is shown late", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	late := func(queues string) {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Queue: queues, Duration: 30 * time.Second}}})
	}
	settles := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		for range 30 {
			_ = w.reconcile(c)
			if w.result.RequeueAfter > 30*time.Minute {
				break
			}
			w.pass(max(w.result.RequeueAfter, time.Second))
		}
		gomega.Expect(c).To(beReady())
	}

	for what, fault := range map[string]sqstest.Rule{
		"is not shown yet":                    {Fault: sqstest.StaleReads, Queue: "*_dlq", Duration: 20 * time.Second},
		"was made by a request that was lost": {Fault: sqstest.ServerErrorAfter, Queue: "*_dlq", Action: "CreateQueue", Count: 1},
	} {
		ginkgo.It("and "+what+" has no key any more that an edit took out since", func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
				spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/b"}
			})
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{fault}})
			_ = w.reconcile(c)
			w.pass(5 * time.Second)
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionNone}
			})
			for range 10 {
				if _ = w.reconcile(c); w.result.RequeueAfter > time.Minute {
					break
				}
				w.pass(max(w.result.RequeueAfter, time.Second))
			}
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.there(w.named("login_dlq")).Attributes).NotTo(gomega.HaveKey(queue.KMSMasterKeyID))
			gomega.Expect(c.Status.LastDriftTime).To(gomega.BeNil())
		})
	}

	ginkgo.It("loses a tag that is taken out together with it, though SQS does not show the tag yet", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		late("")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"cost": "1"} })
		w.reconciled(c)
		w.pass(5 * time.Second)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags, c.Spec.DeadLetter = nil, nil })
		settles(c)
		gomega.Expect(w.there(w.named("login")).Tags).NotTo(gomega.HaveKey("cost"))
		gomega.Expect(w.there(w.named("login_dlq")).Tags).NotTo(gomega.HaveKey("cost"))
	})

	for _, process := range []string{"the same", "another"} {
		ginkgo.It("loses a tag that it was made with, by "+process+" process, though it was taken out of use before SQS showed it", func() {
			c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"cost": "1"} })
			w.apply(c)
			late("*_dlq")
			w.reconciled(c)
			gomega.Expect(c.Status.DeadLetterQueueURL).To(gomega.BeEmpty())
			if process == "another" {
				w.restart()
			}
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags, c.Spec.DeadLetter = nil, nil })
			settles(c)
			gomega.Expect(w.there(w.named("login_dlq")).Tags).NotTo(gomega.HaveKey("cost"))
		})
	}
})
