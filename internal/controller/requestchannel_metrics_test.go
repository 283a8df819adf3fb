package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// inNamespace reads one namespace alone: the API server is shared with other tests.
type inNamespace struct {
	client.Reader
	namespace string
}

func (r inNamespace) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return r.Reader.List(ctx, list, append(opts, client.InNamespace(r.namespace))...)
}

var _ = ginkgo.Describe("Message counts", func() {
	var w *world
	var registry *prometheus.Registry
	var counter *controller.MessageCounter
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		registry = prometheus.NewRegistry()
		counter = &controller.MessageCounter{
			Reader: inNamespace{direct, w.namespace}, Providers: w.registry, Metrics: controller.NewChannelMetrics(registry), Interval: time.Minute, Clock: w.clock,
		}
	})
	// count counts once, and returns what that cost and how often it paused.
	count := func() (requests map[string]int, pauses int) {
		ginkgo.GinkgoHelper()
		requests, writes := w.costing(func() {
			gomega.Expect(counter.Count(w.ctx, func(context.Context, int) { pauses++ })).To(gomega.Succeed())
		})
		gomega.Expect(writes).To(gomega.BeEmpty())
		return requests, pauses
	}
	shown := func() map[string]float64 {
		ginkgo.GinkgoHelper()
		families, err := registry.Gather()
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		all := map[string]float64{}
		for _, family := range families {
			if family.GetName() != "replyqueue_queue_messages" {
				continue
			}
			for _, m := range family.Metric {
				all[m.Label[0].GetValue()+" "+m.Label[2].GetValue()+" "+m.Label[3].GetValue()] = m.Gauge.GetValue()
			}
		}
		return all
	}

	ginkgo.It("cost one request for each queue that is a channel's, and show what SQS counts", func() {
		login, stalled := channelNamed("login", withDeadLetter), channelNamed("stalled", called("not-allowed"))
		w.apply(login, stalled, channelNamed("new"))
		w.reconciled(login)
		w.reconciled(stalled)
		for range 3 {
			_, err := w.sqs.Client().SendMessage(w.ctx, &sqs.SendMessageInput{QueueUrl: &login.Status.QueueURL, MessageBody: ptr.To("x")})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		_, err := w.sqs.Client().ReceiveMessage(w.ctx, &sqs.ReceiveMessageInput{QueueUrl: &login.Status.QueueURL})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		for range 2 {
			requests, pauses := count()
			gomega.Expect(requests).To(gomega.Equal(map[string]int{"GetQueueAttributes": 2}), "one for the queue, one for the dead letters")
			gomega.Expect(pauses).To(gomega.Equal(1))
		}
		gomega.Expect(shown()).To(gomega.Equal(map[string]float64{
			"login request visible": 2, "login request in-flight": 1, "login request delayed": 0,
			"login dead-letter visible": 0, "login dead-letter in-flight": 0, "login dead-letter delayed": 0,
		}))

		w.remove(login)
		w.reconciled(login)
		requests, _ := count()
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(shown()).To(gomega.BeEmpty(), "a channel that is gone has no series")
	})

	ginkgo.It("are not asked for of a channel that is suspended", func() {
		login := channelNamed("login")
		w.apply(login)
		w.reconciled(login)
		change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		w.reconciled(login)
		requests, _ := count()
		gomega.Expect(requests).To(gomega.BeEmpty())
	})

	ginkgo.It("are not asked for where the name is another queue's, since the operator's region is not the channel's any more", func() {
		login := channelNamed("login", withDeadLetter)
		w.apply(login)
		w.reconciled(login)
		login.Status.Region = "eu-west-1"
		gomega.Expect(direct.Status().Update(w.ctx, login)).To(gomega.Succeed())
		for range 2 {
			requests, _ := count()
			gomega.Expect(requests).To(gomega.BeEmpty())
			w.pass(2 * time.Hour)
			w.reconciled(login)
			gomega.Expect(login).To(beStalled(v1alpha1.ReasonQueueElsewhere))
		}
	})

	ginkgo.It("are not asked for of a channel whose queue was not looked at since its spec changed", func() {
		login := channelNamed("login")
		w.apply(login)
		w.reconciled(login)
		change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"cost": "1"} })
		requests, _ := count()
		gomega.Expect(requests).To(gomega.BeEmpty())
		w.reconciled(login)
		requests, _ = count()
		gomega.Expect(requests).NotTo(gomega.BeEmpty())
	})

	ginkgo.It("are asked for of queues that are there where an edit is not carried out, and not of another's", func() {
		login := channelNamed("login", withDeadLetter)
		w.apply(login)
		w.reconciled(login)
		dead := w.named("login") + "_dlq"
		w.tag(w.named("login"), map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"})
		w.tag(dead, map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"})
		w.pass(2 * time.Hour)
		change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"cost": "1"} })
		w.reconciled(login)
		gomega.Expect(login).To(gomega.And(beStalled(v1alpha1.ReasonOffered), haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionFalse, v1alpha1.ReasonOffered),
			haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonOffered)))
		count()
		gomega.Expect(shown()).To(gomega.HaveLen(6))
		w.tag(dead, map[string]string{v1alpha1.TagCluster: "uid2", v1alpha1.TagNamespace: "shop"})
		w.pass(2 * time.Hour)
		w.reconciled(login)
		gomega.Expect(login).To(haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, v1alpha1.ReasonNotOwned))
		count()
		gomega.Expect(shown()).To(gomega.HaveLen(3))
		w.tag(w.named("login"), map[string]string{v1alpha1.TagCluster: "uid2", v1alpha1.TagNamespace: "shop"})
		w.pass(2 * time.Hour)
		w.reconciled(login)
		gomega.Expect(login).To(beStalled(v1alpha1.ReasonNotOwned))
		requests, _ := count()
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(shown()).To(gomega.BeEmpty())
	})

	ginkgo.It("are not shown while SQS does not tell them", func() {
		login := channelNamed("login")
		w.apply(login)
		w.reconciled(login)
		count()
		gomega.Expect(shown()).To(gomega.HaveLen(3))
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied}}})
		count()
		gomega.Expect(shown()).To(gomega.BeEmpty())
		gomega.Expect(testutil.GatherAndCount(registry, "replyqueue_message_counts_failed_total")).To(gomega.Equal(1))
	})

	ginkgo.It("are taken at once and then at each interval, and end with the process", func() {
		login := channelNamed("login")
		w.apply(login)
		w.reconciled(login)
		w.sqs.ResetRequests()
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error)
		go func() { done <- counter.Start(ctx) }()
		asked := func() int { return w.sqs.Requests() }
		gomega.Eventually(asked).Should(gomega.Equal(1))
		gomega.Eventually(w.clock.HasWaiters).Should(gomega.BeTrue())
		w.clock.Step(time.Minute)
		gomega.Eventually(asked).Should(gomega.Equal(2))
		cancel()
		gomega.Expect(<-done).To(gomega.Succeed())
		gomega.Expect(shown()).To(gomega.BeEmpty())
	})
})

var _ = ginkgo.Describe("Drift", func() {
	ginkgo.It("is counted once each time it is found", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		registry := prometheus.NewRegistry()
		w.channels.Metrics = controller.NewChannelMetrics(registry)
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.apply(c)
		w.reconciled(c)
		found := func() map[string]float64 {
			families, err := registry.Gather()
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			all := map[string]float64{}
			for _, family := range families {
				for _, m := range family.Metric {
					all[m.Label[1].GetValue()] = m.Counter.GetValue()
				}
			}
			return all
		}
		gomega.Expect(found()).To(gomega.BeEmpty())
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{"DelaySeconds": "7"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(found()).To(gomega.Equal(map[string]float64{v1alpha1.ReasonAttributesDiffer: 1}))

		_, err = w.sqs.Client().DeleteQueue(w.ctx, &sqs.DeleteQueueInput{QueueUrl: &c.Status.QueueURL})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(2 * time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "CreateQueue", Count: 3}}})
		w.reconciled(c)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty(), "waiting for the queue's return is told once")
		for range 2 {
			w.reconciled(c)
		}
		gomega.Expect(c).To(beReady())
		gomega.Expect(found()).To(gomega.Equal(map[string]float64{v1alpha1.ReasonAttributesDiffer: 1, v1alpha1.ReasonDeletedOutOfBand: 1}))

		another := channelNamed("another")
		w.apply(another)
		w.pass(time.Hour)
		for _, last := range []*v1alpha1.RequestChannel{c, another} {
			gomega.Expect(found()).To(gomega.HaveLen(2), "while a channel of the namespace is there")
			w.remove(last)
			w.reconciled(last)
			gomega.Expect(w.exists(last)).To(gomega.BeFalse())
			_, err = w.channels.Reconcile(w.ctx, requestFor(last)) // as the end of the object brings it about
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		gomega.Expect(found()).To(gomega.BeEmpty(), "namespaces come and go")
	})
})
