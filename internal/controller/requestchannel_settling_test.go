package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What changes while SQS still shows what was before an earlier change.
var _ = ginkgo.Describe("A channel whose queue SQS shows late", func() {
	const open = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`
	var w *world
	var c *v1alpha1.RequestChannel
	var registry *prometheus.Registry
	begin := func(edits ...func(*v1alpha1.RequestChannelSpec)) {
		ginkgo.GinkgoHelper()
		registry = prometheus.NewRegistry()
		w.channels.Metrics = controller.NewChannelMetrics(registry)
		c = channelNamed("login", edits...)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(time.Hour)
		w.heard()
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
	}
	edited := func(edit func(*v1alpha1.RequestChannelSpec)) {
		ginkgo.GinkgoHelper()
		change(w, c, func(c *v1alpha1.RequestChannel) { edit(&c.Spec) })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(5 * time.Second)
	}
	comesToRest := func() sqstest.QueueInfo {
		ginkgo.GinkgoHelper()
		for range 4 {
			w.pass(w.result.RequeueAfter)
			w.reconciled(c)
		}
		gomega.Expect(c).To(beReady())
		gomega.Expect(testutil.GatherAndCount(registry, "replyqueue_drift_total")).To(gomega.BeZero(), "nobody else changed anything")
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
		q, there := w.sqs.Queue(w.named("login"))
		gomega.Expect(there).To(gomega.BeTrue())
		return q
	}
	nothing := func() {}
	restart := func() {
		metrics := w.channels.Metrics
		w.restart()
		w.channels.Metrics = metrics
	}
	look := func(at string) map[string]int {
		ginkgo.GinkgoHelper()
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: at}
		})
		requests, _ := w.costing(func() { w.reconciled(c) })
		return requests
	}
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	for between, happens := range map[string]func(){"": nothing, ", with another process in between": restart} {
		ginkgo.It("loses what is set and taken back at once"+between, func() {
			begin()
			edited(func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5), MessageRetentionSeconds: ptr.To[int32](60)}
				spec.Tags = v1alpha1.Tags{"cost": "1"}
			})
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Queue, spec.Tags = nil, nil })
			q := comesToRest()
			gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"))
			gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("DelaySeconds", "0"), gomega.HaveKeyWithValue("MessageRetentionPeriod", "345600")))
		})

		ginkgo.It("is closed again when a policy is taken back at once"+between, func() {
			p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
			begin(using(p))
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = open })
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = "" })
			gomega.Expect(comesToRest().Attributes["Policy"]).To(gomega.BeEmpty())
		})

		ginkgo.It("moves no requests to dead letters that were taken back at once"+between, func() {
			dead := channelNamed("dead")
			w.apply(dead)
			w.reconciled(dead)
			begin()
			edited(deadTo("dead"))
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.DeadLetter = nil })
			gomega.Expect(comesToRest().Attributes["RedrivePolicy"]).To(gomega.BeEmpty())
		})

		ginkgo.It("gets back what is changed to and fro, which is nobody else's drift"+between, func() {
			begin(func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
				spec.Tags = v1alpha1.Tags{"cost": "1"}
			})
			edited(func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue.VisibilityTimeoutSeconds, spec.Tags = ptr.To[int32](60), v1alpha1.Tags{"cost": "2"}
			})
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) {
				spec.Queue.VisibilityTimeoutSeconds, spec.Tags = ptr.To[int32](45), v1alpha1.Tags{"cost": "1"}
			})
			q := comesToRest()
			gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "45"))
			gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("cost", "1"))
		})

		ginkgo.It("is encrypted as the last spec says when the key goes to and fro"+between, func() {
			begin(withDeadLetter)
			key := func(spec *v1alpha1.RequestChannelSpec) {
				spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a", DataKeyReuseSeconds: ptr.To[int32](600)}
			}
			edited(key)
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Encryption = nil })
			w.pass(2 * time.Minute)
			for _, name := range []string{w.named("login"), w.named("login_dlq")} {
				q, _ := w.sqs.Queue(name)
				gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("SqsManagedSseEnabled", "true"), name)
				gomega.Expect(q.Attributes["KmsMasterKeyId"]).To(gomega.BeEmpty(), name)
			}
			w.reconciled(c)
			edited(key)
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Encryption = nil })
			happens()
			edited(key)
			gomega.Expect(comesToRest().Attributes).To(gomega.And(gomega.HaveKeyWithValue("KmsMasterKeyId", "alias/a"), gomega.HaveKeyWithValue("KmsDataKeyReusePeriodSeconds", "600")))
		})

		ginkgo.It("is not written to twice for one change of its tags"+between, func() {
			begin()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"cost": "1"} })
			happens()
			gomega.Expect(look("1")).NotTo(gomega.HaveKey("TagQueue"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<=", time.Minute), "to see what SQS shows then")
			gomega.Expect(comesToRest().Tags).To(gomega.HaveKeyWithValue("cost", "1"))
		})

		ginkgo.It("is adopted once"+between, func() {
			p := w.providerFor(allowing("orders"))
			w.queueTagged("orders", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
			w.pass(time.Hour)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
			c = channelNamed("login", using(p), called("orders"), adopting)
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueAdopted)))
			w.pass(5 * time.Second)
			happens()
			gomega.Expect(look("1")).NotTo(gomega.HaveKey("TagQueue"))
			gomega.Expect(w.heard()).To(gomega.BeEmpty())
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("forgets nothing that a request without an answer may have set"+between, func() {
			p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
			begin(using(p))
			rules := []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}, {Fault: sqstest.DropAfter, Action: "SetQueueAttributes", Count: 1}}
			w.sqs.SetFaults(sqstest.Plan{Rules: rules})
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Policy = open })
			w.failed(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: rules[:1]})
			gomega.Expect(w.sqs.Queues()[0].Attributes).To(gomega.HaveKey("Policy"), "it was set")
			happens()
			edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = "" })
			gomega.Expect(comesToRest().Attributes["Policy"]).To(gomega.BeEmpty())
		})
	}

	ginkgo.It("is left alone when another took it over meanwhile", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
		begin(using(p), called("orders"), adopting)
		w.sqs.SetFaults(sqstest.Plan{})
		edited(func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"cost": "1"} })
		_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &c.Status.QueueURL, Tags: map[string]string{
			v1alpha1.TagCluster: "theirs", v1alpha1.TagAdoptableBy: "",
		}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		requests := look("1")
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(requests).NotTo(gomega.HaveKey("TagQueue"))
	})
})
