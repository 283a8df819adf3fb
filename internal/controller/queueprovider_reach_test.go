package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var _ = ginkgo.Describe("A QueueProvider about which SQS does not answer", func() {
	var (
		w *world
		f *fence.Fence
		p *v1alpha1.QueueProvider
		c *v1alpha1.RequestChannel
	)
	// asked is a new process' fence, which asks about the provider as long as a channel names it.
	asked := func() {
		f = w.fenced("identity")
		f.InUse = func(context.Context) ([]string, error) {
			if !w.exists(c) {
				return nil, nil
			}
			return []string{p.Name}, nil
		}
		w.providers.Reach = f.Reach
	}
	faulty := func(fault sqstest.Fault, d time.Duration) {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: fault}}})
		w.compared(f, 1+int(d/fence.DefaultInterval))
		w.reconciled(p)
	}
	answered := func() {
		w.sqs.SetFaults(sqstest.Plan{})
		w.compared(f, 1)
		w.reconciled(p)
	}
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		p = w.providerFor()
		c = channelNamed("login", using(p))
		asked()
		w.reconciled(p)
		gomega.Expect(p).To(beReady())
		gomega.Expect(readyOf(p).Message).To(gomega.ContainSubstring("without asking AWS"))
		w.apply(c)
		w.reconciled(p)
		gomega.Expect(readyOf(p).Message).To(gomega.Equal("Queues can be made here"))
	})

	ginkgo.It("is not Ready while AWS denies the operator, and fails who waits for it, with AWS's words", func() {
		faulty(sqstest.AccessDenied, 30*time.Second)
		gomega.Expect(p).To(beReady(), "IAM may not know the role yet")
		faulty(sqstest.AccessDenied, time.Minute)
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonAccessDenied, "AWS has denied the operator", "AccessDenied"))
		gomega.Expect(p).To(haveCondition(v1alpha1.ConditionUnreachable, metav1.ConditionTrue, v1alpha1.ReasonAccessDenied, "AccessDenied"))
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning AccessDenied ")))
		_, writes := w.costing(func() {
			w.compared(f, 30)
			w.reconciled(p)
		})
		gomega.Expect(writes).To(gomega.BeEmpty())
		answered()
		gomega.Expect(p).To(beReady())
		gomega.Expect(p).NotTo(haveCondition(v1alpha1.ConditionUnreachable, metav1.ConditionTrue, v1alpha1.ReasonAccessDenied))
	})

	ginkgo.It("is waited for while SQS is away, and for ten minutes at most", func() {
		faulty(sqstest.ServerError, time.Minute)
		gomega.Expect(p).To(beReconciling(v1alpha1.ReasonSQSUnavailable))
		faulty(sqstest.ServerError, 8*time.Minute)
		gomega.Expect(p).To(beReconciling(v1alpha1.ReasonSQSUnavailable))
		faulty(sqstest.ServerError, time.Minute)
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonSQSUnavailable))
		answered()
		gomega.Expect(p).To(beReady())
	})

	ginkgo.It("stays so when the operator restarts, and is as new when nothing uses it", func() {
		faulty(sqstest.AccessDenied, time.Minute)
		w.restart()
		asked()
		_, writes := w.costing(func() { w.reconciled(p) })
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonAccessDenied))
		gomega.Expect(writes).To(gomega.BeEmpty())
		w.remove(c)
		w.compared(f, 1)
		w.reconciled(p)
		gomega.Expect(p).To(beReady(), "whoever creates channels once it is Ready would wait for ever")
	})

	ginkgo.It("says so while its deletion waits for its users, too", func() {
		w.remove(p)
		faulty(sqstest.AccessDenied, time.Minute)
		gomega.Expect(p).To(haveCondition(v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonObjectsUseIt))
		gomega.Expect(p).To(haveCondition(v1alpha1.ConditionUnreachable, metav1.ConditionTrue, v1alpha1.ReasonAccessDenied))
	})

	ginkgo.It("is not Ready either while its queues may be another cluster's", func() {
		conflict := "a copy"
		w.providers.Trouble = func(_, what string) string {
			if what == v1alpha1.ConditionIdentityConflict {
				return conflict
			}
			return ""
		}
		w.reconciled(p)
		gomega.Expect(p).To(beStalled(v1alpha1.ReasonIdentityConflict, "a copy"))
		conflict = ""
		w.reconciled(p)
		gomega.Expect(p).To(beReady())
	})
})

func readyOf(p *v1alpha1.QueueProvider) (ready metav1.Condition) {
	for _, condition := range p.Status.Conditions {
		if condition.Type == v1alpha1.ConditionReady {
			ready = condition
		}
	}
	return ready
}
