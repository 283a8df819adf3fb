package controller_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// switching sends the requests of a client to one server or another, as a client whose credentials become another account's.
type switching struct {
	queue.API
}

var _ = ginkgo.Describe("A channel while the operator's credentials are another account's", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.DescribeTable("is not made again there", func(busy, inProcess bool, compared int) {
		here := &switching{}
		w.wrap = func(api queue.API) queue.API {
			if here.API == nil {
				here.API = api
			}
			return here
		}
		w.restart()
		f := w.fenced("identity")
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.sendTo("rq_" + clusterName + "_" + w.namespace + "_login")
		w.compared(f, 2)
		w.pass(2 * time.Hour)
		w.compared(f, 1)

		other := sqstest.New(sqstest.WithClock(w.sqsClock), sqstest.WithAccount("222222222222"))
		ginkgo.DeferCleanup(other.Close)
		if busy {
			_, err := other.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: aws.String("theirs")})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		right := here.API
		here.API = other.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
		if !inProcess {
			w.restart()
			f = w.fenced("identity")
		}
		w.compared(f, compared)
		w.heard()
		for i := range 5 {
			change(w, c, func(c *v1alpha1.RequestChannel) {
				metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationReconcileAt, fmt.Sprint(i))
			})
			_ = w.reconcile(c)
			for _, q := range other.Queues() {
				gomega.Expect(q.Name).NotTo(gomega.HaveSuffix("_login"))
			}
			gomega.Expect(c.Status.AccountID).To(gomega.Equal("000000000000"))
		}
		gomega.Expect(strings.Join(w.heard(), "\n")).NotTo(gomega.ContainSubstring("deleted by someone else"))

		here.API = right
		w.restart()
		f = w.fenced("identity")
		w.compared(f, 12)
		w.reconciled(c)
		gomega.Expect(c).To(beReady(), "it heals by itself")
	},
		ginkgo.Entry("by a new process, before it has compared", true, false, 0),
		ginkgo.Entry("by a new process that has compared once", true, false, 1),
		ginkgo.Entry("by a new process, where there is no queue by which to tell the account", false, false, 0),
		ginkgo.Entry("by a new process that has compared once, where there is none", false, false, 1),
		ginkgo.Entry("by the process that had the right ones a moment ago", true, true, 0),
		ginkgo.Entry("by that process, where there is none", false, true, 0),
		ginkgo.Entry("by that process when it has compared once, where there is none", false, true, 1),
	)
})
