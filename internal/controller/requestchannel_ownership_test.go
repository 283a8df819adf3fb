package controller_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What only reads.
var reading = []string{"GetQueueUrl", "GetQueueAttributes", "ListQueueTags"}

func adopting(spec *v1alpha1.RequestChannelSpec) {
	spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented
}

var _ = ginkgo.Describe("Ownership", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	// onlyRead: of all that the operator asked of SQS since the last reset, nothing writes.
	onlyRead := func() {
		ginkgo.GinkgoHelper()
		for action := range w.sqs.RequestsByAction() {
			gomega.Expect(action).To(gomega.BeElementOf(reading))
		}
	}
	// restored puts a channel back as a backup tool does: another UID, no status, and no deletion in between.
	restored := func(c *v1alpha1.RequestChannel, edits ...func(*v1alpha1.RequestChannelSpec)) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		uid := c.UID
		w.remove(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		again := channelNamed(c.Name)
		again.Spec = *c.Spec.DeepCopy()
		for _, edit := range edits {
			edit(&again.Spec)
		}
		w.apply(again)
		gomega.Expect(again.UID).NotTo(gomega.Equal(uid))
		w.restart()
		return again
	}

	ginkgo.Describe("in Observe", func() {
		ginkgo.It("never writes: not when the queue drifts, when asked to look, when suspended, nor when deleted", func() {
			p := w.providerFor(allowing("orders"))
			w.queueTagged("orders", w.consent())
			before, _ := w.sqs.Queue("orders")
			w.sqs.ResetRequests()
			c := channelNamed("orders", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) {
				spec.ManagementPolicy, spec.Tags = v1alpha1.ManagementPolicyObserve, v1alpha1.Tags{"team": "identity"}
				spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](99)}
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, Queue: &v1alpha1.DeadLetterQueue{}}
			})
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved))
			w.pass(2 * time.Hour)
			w.reconciled(c)
			w.look(c, "1")
			w.reconciled(c)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
			w.reconciled(c)
			w.restart()
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Requests()).To(gomega.BeNumerically(">", 0))
			onlyRead()
			after, _ := w.sqs.Queue("orders")
			gomega.Expect(after).To(gomega.Equal(before))
		})
	})

	ginkgo.It("lies with the name and not with the object, so that it survives a restore from a backup", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
		})
		w.apply(c)
		w.reconciled(c)
		url := c.Status.QueueURL
		w.sendTo(w.named("login"))
		// The backup was taken before the delay was set.
		again := restored(c, func(spec *v1alpha1.RequestChannelSpec) { spec.Queue.DelaySeconds = nil })
		w.sqs.ResetRequests()
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
		gomega.Expect(again.Status.QueueURL).To(gomega.Equal(url))
		gomega.Expect(again.Status.Adopted).To(gomega.BeNil(), "it is its own")
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Delayed+q.Visible).To(gomega.Equal(1), "its messages are there")
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "0"), "and what the restored spec does not say is AWS's default")
		gomega.Expect(w.sqs.Requests(sqstest.Action("DeleteQueue"))).To(gomega.BeZero())
		w.remove(again)
		w.reconciled(again)
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("of a queue that was adopted survives a restore too: it is not deleted in the end", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		again := restored(c)
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
		gomega.Expect(again.Status.Adopted).To(gomega.HaveValue(gomega.BeTrue()))
		w.remove(again)
		w.reconciled(again)
		_, there := w.sqs.Queue("orders")
		gomega.Expect(there).To(gomega.BeTrue())
	})

	ginkgo.It("is given up by Retain, and the queue can be adopted with its messages", func() {
		name := w.named("login")
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.apply(c)
		w.reconciled(c)
		w.sendTo(name)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Normal " + controller.EventQueueRetained)))
		gomega.Expect(w.there(name).Tags).To(gomega.BeEmpty())
		again := channelNamed("login", adopting)
		w.apply(again)
		w.reconciled(again)
		gomega.Expect(again).To(beStalled(v1alpha1.ReasonNotOwned), "not even its former owner has it without consent")
		q, _ := w.sqs.Queue(name)
		_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: w.consent()})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
		q, _ = w.sqs.Queue(name)
		gomega.Expect(q.Visible).To(gomega.Equal(1))
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagName, "login"))
	})

	ginkgo.Describe("DeleteIfEmpty", func() {
		emptied := func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty
		}
		ginkgo.It("counts down, and holds a namespace no longer than messages are kept", func() {
			name := w.named("login")
			c := channelNamed("login", emptied, withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			w.sendTo(name)
			w.sendTo(name)
			w.sendTo(name + "_dlq")
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, name+" holds about 2 messages"))
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.BeEmpty(), "the same count is told once")
			w.pass(4*24*time.Hour + time.Minute) // AWS's default retention.
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, name+"_dlq holds about 1 messages"))
			w.pass(10 * 24 * time.Hour)
			for range 7 { // Every count of three minutes is zero.
				gomega.Expect(w.exists(c)).To(gomega.BeTrue())
				w.reconciled(c)
				w.pass(w.result.RequeueAfter)
			}
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("is cut short by another policy, or by force by whoever may edit the channel", func() {
			c, forced := channelNamed("login", emptied), channelNamed("forced", emptied)
			for _, o := range []*v1alpha1.RequestChannel{c, forced} {
				w.apply(o)
				w.reconciled(o)
				w.sendTo(w.named(o.Name))
				w.remove(o)
				w.reconciled(o)
				gomega.Expect(o).To(beReconciling(v1alpha1.ReasonQueueNotEmpty))
			}
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			editor := w.editor()
			before := forced.DeepCopy()
			forced.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
			gomega.Expect(editor.Patch(w.ctx, forced, mergeFrom(before))).To(gomega.Succeed())
			w.heard()
			w.reconciled(forced)
			gomega.Expect(w.exists(forced)).To(gomega.BeFalse())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned), gomega.ContainSubstring("about 1 messages"))))
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1), "it is left with its message")
		})
	})

	ginkgo.Describe("suspend", func() {
		ginkgo.It("lets a deletion run", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
			w.reconciled(c)
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("creates nothing, is not got round by reconcile-at, and ends when it is taken back", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Suspend = ptr.To(true) })
			w.apply(c)
			w.reconciled(c)
			w.look(c, "now")
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonSuspended, "spec.suspend"))
			gomega.Expect(w.sqs.Requests()).To(gomega.BeZero())
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = nil })
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		})
	})

	ginkgo.It("does not let force leave behind what can be deleted", func() {
		c := channelNamed("login")
		c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		w.apply(c)
		w.reconciled(c)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})

	ginkgo.It("costs one look for each value of reconcile-at, and writes nothing when nothing changed", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) {
			spec.AllowPolicies, spec.DefaultTags = ptr.To(true), v1alpha1.Tags{"env": "test"}
		})
		all := channelNamed("all", using(p), withDeadLetter, bindingTo("all"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{
				VisibilityTimeoutSeconds: ptr.To[int32](45), MessageRetentionSeconds: ptr.To[int32](600), MaximumMessageBytes: ptr.To[int32](4096),
				ReceiveWaitSeconds: ptr.To[int32](20), DelaySeconds: ptr.To[int32](1),
			}
			spec.FIFO = &v1alpha1.FIFO{ContentBasedDeduplication: v1alpha1.ContentBasedDeduplicationEnabled, DeduplicationScope: v1alpha1.DeduplicationScopeMessageGroup}
			spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a", DataKeyReuseSeconds: ptr.To[int32](60)}
			spec.Policy = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}}`
			spec.Tags = v1alpha1.Tags{"team": "identity"}
		})
		w.apply(all)
		w.reconciled(all)
		gomega.Expect(all).To(beReady())
		for _, restart := range []bool{false, true} {
			for _, age := range []time.Duration{0, 2 * time.Minute, 2 * time.Hour} {
				w.pass(age)
				if restart {
					w.restart()
				}
				requests, writes := w.costing(func() { w.reconciled(all) })
				gomega.Expect(writes).To(gomega.BeElementOf([]string(nil), []string{"patch Secret"}), "the look at the Secret changes nothing")
				for action := range requests {
					gomega.Expect(action).To(gomega.BeElementOf(reading))
				}
			}
		}
		version := all.ResourceVersion
		w.reconciled(all)
		gomega.Expect(all.ResourceVersion).To(gomega.Equal(version))

		w.look(all, "0")
		w.reconciled(all) // and the new process learns the account's URL
		w.look(all, "1")
		requests, writes := w.costing(func() { w.reconciled(all) })
		gomega.Expect(requests).To(gomega.Equal(map[string]int{"GetQueueAttributes": 2, "ListQueueTags": 2}))
		gomega.Expect(writes).To(gomega.ContainElement("patch status RequestChannel"), "it says that it was handled")
		gomega.Expect(all.Status.LastHandledReconcileAt).To(gomega.Equal("1"))
		requests, writes = w.costing(func() { w.reconciled(all) })
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(writes).To(gomega.BeEmpty())
	})

	ginkgo.It("gives no verdict on the retention for fifteen minutes", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](600)}
		})
		w.apply(c)
		w.reconciled(c)
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &c.Status.QueueURL, Attributes: map[string]string{"MessageRetentionPeriod": "345600"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		for i := range 14 {
			w.pass(time.Minute)
			w.look(c, fmt.Sprint(i))
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).NotTo(gomega.HaveKey("SetQueueAttributes"))
			gomega.Expect(c).To(beReady())
		}
		w.pass(w.result.RequeueAfter)
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.HaveKeyWithValue("SetQueueAttributes", 1))
	})

	// Errors that the server in process does not make.
	ginkgo.DescribeTable("tells errors in AWS's own words, and retries what heals outside slowly", func(failure error, reason, words string, stalls bool, least time.Duration) {
		var broken error
		w.wrap = func(api queue.API) queue.API { return failing{api, &broken} }
		w.restart()
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}
		})
		w.apply(c)
		broken = failure
		w.reconciled(c)
		if stalls {
			gomega.Expect(c).To(beStalled(reason, words))
		} else {
			gomega.Expect(c).To(beReconciling(reason, words))
		}
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", least))
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty(), "it is told once")
		broken = nil
		w.reconciled(c)
		gomega.Expect(c).To(beReady(), "it heals by itself")
	},
		ginkgo.Entry("a key that may not be used", &sqstypes.KmsAccessDenied{Message: ptr.To("The caller may not use alias/a")}, v1alpha1.ReasonKMSError, "The caller may not use alias/a", true, time.Minute),
		ginkgo.Entry("a key that is disabled, by the query protocol's code", &smithy.GenericAPIError{Code: "KMS.DisabledException", Message: "alias/a is disabled"}, v1alpha1.ReasonKMSError, "KMS.DisabledException: alias/a is disabled", true, time.Minute),
		ginkgo.Entry("a role that lacks a permission", &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "not authorized to perform: sqs:CreateQueue"}, v1alpha1.ReasonAccessDenied, "not authorized to perform: sqs:CreateQueue", true, time.Minute),
		ginkgo.Entry("an attribute that SQS refuses", &sqstypes.InvalidAttributeValue{Message: ptr.To("Invalid value for the parameter KmsMasterKeyId")}, v1alpha1.ReasonInvalid, "spec.encryption.kmsKeyID: InvalidAttributeValue: Invalid value", true, time.Minute),
		ginkgo.Entry("the name lock", &sqstypes.QueueDeletedRecently{Message: ptr.To("You must wait 60 seconds")}, v1alpha1.ReasonQueueDeletedRecently, "60 seconds", false, time.Second),
	)
})

// failing answers CreateQueue with an error while there is one.
type failing struct {
	queue.API
	with *error
}

func (f failing) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, options ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	if *f.with != nil {
		return nil, &smithy.OperationError{ServiceID: sqs.ServiceID, OperationName: "CreateQueue", Err: errors.Join(*f.with)}
	}
	return f.API.CreateQueue(ctx, in, options...)
}
