package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func channelNamed(name string, edits ...func(*v1alpha1.RequestChannelSpec)) *v1alpha1.RequestChannel {
	c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.ManagementPolicy = v1alpha1.ManagementPolicyManage
	for _, edit := range edits {
		edit(&c.Spec)
	}
	return c
}

func withDeadLetter(spec *v1alpha1.RequestChannelSpec) {
	spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 5, Queue: &v1alpha1.DeadLetterQueue{}}
}

var _ = ginkgo.Describe("RequestChannel", func() {
	var w *world
	var login *v1alpha1.RequestChannel
	var name string
	ginkgo.BeforeEach(func(ctx context.Context) {
		// The context of a BeforeEach ends with it; the world's lasts for the spec.
		w = newWorld(context.WithoutCancel(ctx))
		login = channelNamed("login")
		name = w.named("login")
	})
	sqsQueue := func(name string) sqstest.QueueInfo {
		ginkgo.GinkgoHelper()
		q, there := w.sqs.Queue(name)
		gomega.Expect(there).To(gomega.BeTrue(), "queue %s is not there", name)
		return q
	}
	set := func(name string, attributes map[string]string) {
		ginkgo.GinkgoHelper()
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: ptr.To(sqsQueue(name).URL), Attributes: attributes})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}
	create := func(name string, tags map[string]string) {
		ginkgo.GinkgoHelper()
		_, err := w.sqs.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: tags})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}

	ginkgo.Describe("creation", func() {
		ginkgo.It("creates the queue with attributes and tags, in three requests", func() {
			login.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			login.Spec.Tags = v1alpha1.Tags{"team": "identity"}
			w.apply(login)
			requests, _ := w.costing(func() { w.reconciled(login) })
			gomega.Expect(requests).To(gomega.Equal(map[string]int{"CreateQueue": 1, "ListQueueTags": 1, "GetQueueAttributes": 1}))

			q := sqsQueue(name)
			gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "45"))
			gomega.Expect(q.Tags).To(gomega.HaveKey(v1alpha1.TagCreation))
			delete(q.Tags, v1alpha1.TagCreation) // It is made up.
			gomega.Expect(q.Tags).To(gomega.Equal(map[string]string{
				"team": "identity", v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest,
				v1alpha1.TagNamespace: w.namespace, v1alpha1.TagName: "login",
			}))
			gomega.Expect(login).To(beReady())
			gomega.Expect(login.Finalizers).To(gomega.ConsistOf(v1alpha1.FinalizerRequestChannel))
			gomega.Expect(login.Status).To(gomega.And(
				gomega.HaveField("QueueURL", q.URL), gomega.HaveField("QueueARN", q.ARN), gomega.HaveField("Region", "us-east-1"),
				gomega.HaveField("AccountID", "000000000000"), gomega.HaveField("AppliedAttributes", gomega.ConsistOf("VisibilityTimeout")),
				gomega.HaveField("AppliedTags", gomega.ConsistOf("team")),
			))
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.HavePrefix("Normal Available")))
		})

		ginkgo.It("asks and writes nothing when nothing changed, nor after a restart", func() {
			w.apply(login)
			w.reconciled(login)
			for range 2 {
				requests, writes := w.costing(func() { w.reconciled(login) })
				gomega.Expect(requests).To(gomega.BeEmpty())
				gomega.Expect(writes).To(gomega.BeEmpty())
				gomega.Expect(w.result.RequeueAfter).To(gomega.And(gomega.BeNumerically(">", 0), gomega.BeNumerically("<=", 66*time.Minute)))
				w.restart()
			}
			w.heard()
		})

		ginkgo.It("creates a FIFO queue", func() {
			login.Spec.FIFO = &v1alpha1.FIFO{DeduplicationScope: v1alpha1.DeduplicationScopeMessageGroup, ThroughputLimit: v1alpha1.FIFOThroughputPerMessageGroupID}
			w.apply(login)
			w.reconciled(login)
			gomega.Expect(login).To(beReady())
			gomega.Expect(sqsQueue(name + ".fifo").Attributes).To(gomega.And(
				gomega.HaveKeyWithValue("FifoQueue", "true"), gomega.HaveKeyWithValue("FifoThroughputLimit", "perMessageGroupId")))
		})

		ginkgo.It("waits out the 60 s for which SQS refuses a deleted queue's name, without blocking", func() {
			create(name, nil)
			_, err := w.sqs.Client().DeleteQueue(w.ctx, &sqs.DeleteQueueInput{QueueUrl: ptr.To(sqsQueue(name).URL)})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			w.apply(login)
			w.reconciled(login)
			gomega.Expect(login).To(beReconciling(v1alpha1.ReasonQueueDeletedRecently, "60 seconds"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
			_, writes := w.costing(func() { w.reconciled(login) })
			gomega.Expect(writes).To(gomega.BeEmpty(), "waiting is told once")
			w.pass(61 * time.Second)
			w.reconciled(login)
			gomega.Expect(login).To(beReady())
		})

		ginkgo.It("converges on its own half-created queue, and restores what was set and forgotten", func() {
			login.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
			w.apply(login)
			w.before = func(write string) error {
				if write == "patch status RequestChannel" {
					return errStopped
				}
				return nil
			}
			w.stopped(login)
			w.before = nil
			w.restart()
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](60)}
			})
			w.reconciled(login)
			gomega.Expect(login).To(beReady())
			gomega.Expect(sqsQueue(name).Attributes).To(gomega.And(
				gomega.HaveKeyWithValue("VisibilityTimeout", "60"), gomega.HaveKeyWithValue("DelaySeconds", "0")))
		})
	})

	ginkgo.Describe("a queue that is another's", func() {
		ginkgo.It("is never written to and never deleted, and its owner is named", func() {
			create(name, map[string]string{v1alpha1.TagCluster: "other-cluster", v1alpha1.TagKind: v1alpha1.TagKindRequest, v1alpha1.TagNamespace: "bank", v1alpha1.TagName: "vault"})
			before := sqsQueue(name)
			w.apply(login)
			w.reconciled(login)
			gomega.Expect(login).To(beStalled(v1alpha1.ReasonNotOwned, "RequestChannel bank/vault of cluster other-cluster", "adoptionPolicy"))
			gomega.Expect(login.Status.QueueURL).To(gomega.BeEmpty())
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", time.Minute))

			w.remove(login)
			w.reconciled(login)
			gomega.Expect(w.exists(login)).To(gomega.BeFalse())
			gomega.Expect(sqsQueue(name)).To(gomega.Equal(before))
		})

		ginkgo.It("is not taken for ours by equal attributes", func() {
			create(name, nil)
			w.apply(login)
			w.reconciled(login)
			gomega.Expect(login).To(beStalled(v1alpha1.ReasonNotOwned, "no owner"))
			gomega.Expect(sqsQueue(name).Tags).To(gomega.BeEmpty())
		})
	})

	ginkgo.Describe("update", func() {
		ginkgo.It("sends only what changed, and restores AWS's default for what was unset", func() {
			login.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
			login.Spec.Tags = v1alpha1.Tags{"team": "identity", "cost": "1"}
			w.apply(login)
			w.reconciled(login)
			w.pass(2 * time.Minute)
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), ReceiveWaitSeconds: ptr.To[int32](20)}
				c.Spec.Tags = v1alpha1.Tags{"team": "Identity"}
			})
			var sent []string
			requests, _ := w.costing(func() { w.reconciled(login) })
			for _, r := range w.sqs.RequestLog(sqstest.Action("SetQueueAttributes")) {
				sent = append(sent, r.Action)
			}
			gomega.Expect(sent).To(gomega.HaveLen(1))
			gomega.Expect(requests).To(gomega.Equal(map[string]int{"GetQueueAttributes": 1, "ListQueueTags": 1, "TagQueue": 1, "SetQueueAttributes": 1, "UntagQueue": 1}))
			q := sqsQueue(name)
			gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("VisibilityTimeout", "45"),
				gomega.HaveKeyWithValue("DelaySeconds", "0"), gomega.HaveKeyWithValue("ReceiveMessageWaitTimeSeconds", "20")))
			gomega.Expect(q.Tags).To(gomega.And(gomega.HaveKeyWithValue("team", "Identity"), gomega.Not(gomega.HaveKey("cost"))))
			gomega.Expect(login).To(beReady())
			gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)), "a change of the spec is no drift")
		})

		ginkgo.It("puts AWS's words and the field into the condition when AWS refuses a value", func() {
			w.apply(login)
			w.reconciled(login)
			change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{"NextYears": "x"} })
			w.reconciled(login)
			gomega.Expect(login).To(beStalled(v1alpha1.ReasonInvalid, "NextYears"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", time.Minute))
		})
	})

	ginkgo.Describe("drift", func() {
		ginkgo.It("is looked for at intervals, corrected and told; foreign tags and attributes stay", func() {
			login.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			w.apply(login)
			w.reconciled(login)
			w.heard()
			set(name, map[string]string{"VisibilityTimeout": "77", "DelaySeconds": "7"})
			_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &login.Status.QueueURL, Tags: map[string]string{"theirs": "x"}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			w.pass(w.result.RequeueAfter)
			w.reconciled(login)
			gomega.Expect(sqsQueue(name).Attributes).To(gomega.And(gomega.HaveKeyWithValue("VisibilityTimeout", "45"), gomega.HaveKeyWithValue("DelaySeconds", "7")))
			gomega.Expect(sqsQueue(name).Tags).To(gomega.HaveKey("theirs"))
			gomega.Expect(login.Status.LastDriftTime).NotTo(gomega.BeNil())
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.And(gomega.HavePrefix("Warning "+controller.EventDriftCorrected), gomega.ContainSubstring("spec.queue.visibilityTimeoutSeconds"))))
			gomega.Expect(login).To(beReady())
		})

		ginkgo.It("is not seen in what SQS merely does not show yet", func() {
			w.apply(login)
			w.reconciled(login)
			w.pass(2 * time.Minute)
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			})
			w.reconciled(login)
			set(name, map[string]string{"VisibilityTimeout": "30"}) // What a lagging read would show.
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "now"}
			})
			requests, _ := w.costing(func() { w.reconciled(login) })
			gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<=", time.Minute))
			w.pass(w.result.RequeueAfter)
			requests, _ = w.costing(func() { w.reconciled(login) })
			gomega.Expect(requests).To(gomega.HaveKeyWithValue("SetQueueAttributes", 1))
		})

		ginkgo.It("recreates a queue that was deleted by someone else, and says so", func() {
			w.apply(login)
			w.reconciled(login)
			w.pass(2 * time.Minute)
			_, err := w.sqs.Client().DeleteQueue(w.ctx, &sqs.DeleteQueueInput{QueueUrl: &login.Status.QueueURL})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "now"}
			})
			w.heard()
			w.reconciled(login)
			gomega.Expect(login).To(beReconciling(v1alpha1.ReasonQueueDeletedRecently))
			gomega.Expect(login).To(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand))
			w.pass(61 * time.Second)
			w.reconciled(login)
			gomega.Expect(login).To(beReady())
			gomega.Expect(login.Status.LastHandledReconcileAt).To(gomega.Equal("now"))
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueRecreated)))
			gomega.Expect(login).NotTo(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand))
			sqsQueue(name)
		})

		ginkgo.It("is left alone while suspended", func() {
			w.apply(login)
			w.reconciled(login)
			change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
			requests, _ := w.costing(func() { w.reconciled(login) })
			gomega.Expect(requests).To(gomega.BeEmpty())
			gomega.Expect(login).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
			change(w, login, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](9)}
			})
			requests, _ = w.costing(func() { w.reconciled(login) })
			gomega.Expect(requests).To(gomega.BeEmpty())
			gomega.Expect(login).To(beStalled(v1alpha1.ReasonSuspended, "not what the spec asks for now"))
			change(w, login, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = nil })
			w.reconciled(login)
			gomega.Expect(login).To(beReady())
			gomega.Expect(sqsQueue(name).Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "9"))
		})
	})
})
