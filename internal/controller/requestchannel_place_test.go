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

// alike says of queues that they are in a region of no name, as a server may that is not AWS's.
type alike struct{ queue.API }

const ofAlike = "arn:aws:sqs:alike:"

func (a alike) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	out, err := a.API.GetQueueAttributes(ctx, in, o...)
	if err == nil {
		for name, value := range out.Attributes {
			out.Attributes[name] = strings.ReplaceAll(value, "arn:aws:sqs:us-east-1:", ofAlike)
		}
	}
	return out, err
}

func (a alike) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	attributes := map[string]string{}
	for name, value := range in.Attributes {
		attributes[name] = strings.ReplaceAll(value, ofAlike, "arn:aws:sqs:us-east-1:")
	}
	return a.API.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: in.QueueUrl, Attributes: attributes}, o...)
}

func (a alike) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	attributes := map[string]string{}
	for name, value := range in.Attributes {
		attributes[name] = strings.ReplaceAll(value, ofAlike, "arn:aws:sqs:us-east-1:")
	}
	return a.API.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: in.QueueName, Attributes: attributes, Tags: in.Tags}, o...)
}

var _ = ginkgo.Describe("A channel at a server that names another region in its ARNs than it is asked in", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		w.wrap = func(api queue.API) queue.API { return alike{api} }
	})
	begin := func() {
		w.restart()
		old := w.registry.Connect
		w.registry.Connect = func(ctx context.Context, region, _, role string) (queue.API, string, string, error) {
			api, region, _, err := old(ctx, region, "", role)
			return api, region, "http://sqs.example", err
		}
	}
	look := func(c *v1alpha1.RequestChannel, at string) {
		ginkgo.GinkgoHelper()
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: at}
		})
		w.reconciled(c)
	}

	ginkgo.It("stays Ready, also in another process, and is deleted", func() {
		begin()
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.QueueARN).To(gomega.HavePrefix(ofAlike))
		look(c, "1")
		gomega.Expect(c).To(beReady())
		begin()
		requests, _ := w.costing(func() { look(c, "2") })
		gomega.Expect(c).To(beReady())
		for action := range requests {
			gomega.Expect(action).To(gomega.BeElementOf(reading))
		}
		gomega.Expect(c.Status.Region).To(gomega.Equal("us-east-1"), "clients sign for it")
		gomega.Expect(c.Status.AccountID).To(gomega.Equal("000000000000"))
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("names a dead-letter queue by the ARN that this has there, and by no other", func() {
		begin()
		w.queueTagged("vault", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: ofAlike + "000000000000:vault"}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		look(c, "1")
		gomega.Expect(c).To(beReady())
		for _, arn := range []string{ofAlike + "222222222222:vault", "arn:aws:sqs:us-east-1:000000000000:vault"} {
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter.ARN = arn })
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "one account and region"), arn)
		}
	})
})

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
		w.sendTo(w.named("login"))
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
