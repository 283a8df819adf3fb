package controller_test

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// denying answers that a queue is not there, as often as it was told to.
type denying struct {
	queue.API
	suffix string
	times  *int
}

func (d denying) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	if strings.HasSuffix(*in.QueueUrl, d.suffix) && *d.times > 0 {
		*d.times--
		return nil, &sqstypes.QueueDoesNotExist{}
	}
	return d.API.GetQueueAttributes(ctx, in, o...)
}

// What may be mistaken: a queue for one that is gone, an owner for one that is there, a channel for another.
var _ = ginkgo.Describe("What is mistaken for something else", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`

	ginkgo.DescribeTable("by one wrong answer is not told to have been deleted, and nothing of it is forgotten", func(suffix string, crashes bool) {
		times := 0
		w.wrap = func(api queue.API) queue.API { return denying{api, suffix, &times} }
		w.restart()
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			spec.Policy, spec.Tags = policy, v1alpha1.Tags{"cost": "1"}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.sendTo(w.named("login"))
		w.pass(2 * time.Hour)
		w.heard()
		times = 1
		w.look(c, "1")
		if crashes {
			n := 0
			w.before = func(write string) error {
				if write == "patch status RequestChannel" {
					if n++; n > 1 {
						return errStopped
					}
				}
				return nil
			}
			w.stopped(c)
			w.before = nil
			w.restart()
			w.pass(time.Minute)
			// What was ours must still be known to be.
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Policy, c.Spec.Tags, c.Spec.Queue = "", nil, nil })
		}
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(times).To(gomega.BeZero())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring("had been deleted")))
		gomega.Expect(meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionDrifted)).To(gomega.BeNil())
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Visible).To(gomega.Equal(1))
		if crashes {
			gomega.Expect(q.Attributes["Policy"]).To(gomega.BeEmpty())
			gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "30"))
			gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"))
		}
	},
		ginkgo.Entry("a request queue", "_login", false),
		ginkgo.Entry("a request queue, by a process that stops", "_login", true),
		ginkgo.Entry("a dead-letter queue", "_login_dlq", false),
		ginkgo.Entry("a dead-letter queue, by a process that stops", "_login_dlq", true),
	)

	ginkgo.It("a queue whose creation was not answered, that was shown once, for one that somebody deleted", func() {
		hidden := false
		w.wrap = func(api queue.API) queue.API { return hiding{api, w.named("login"), &hidden} }
		w.restart()
		c := channelNamed("login")
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "CreateQueue"}}})
		w.failed(c)
		w.sqs.SetFaults(sqstest.Plan{})
		change(w, c, func(c *v1alpha1.RequestChannel) { observing(&c.Spec) })
		w.reconciled(c)
		gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty())
		w.pass(15 * time.Second)
		hidden = true
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ManagementPolicy = v1alpha1.ManagementPolicyManage })
		w.reconciled(c)
		gomega.Expect(meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionDrifted)).To(gomega.BeNil())
		gomega.Expect(c.Status.LastDriftTime).To(gomega.BeNil())
		hidden = false
		w.pass(time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c.Status.LastDriftTime).NotTo(gomega.BeNil(), "of one that really was")
	})

	ginkgo.It("a channel for one that was made in its place: it does not get the status of the one before", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		again := channelNamed("login")
		again.Namespace = w.namespace
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				w.before = nil
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
				w.remove(c)
				gomega.Expect(direct.Create(w.ctx, again)).To(gomega.Succeed())
			}
			return nil
		}
		_, err := w.channels.Reconcile(w.ctx, requestFor(c))
		gomega.Expect(err).To(gomega.HaveOccurred())
		gomega.Expect(w.exists(again)).To(gomega.BeTrue())
		gomega.Expect(again.Status.Conditions).To(gomega.BeEmpty())
		gomega.Expect(again.Status.QueueURL).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(v1alpha1.ReasonStatusRefused)))
		w.reconciled(again)
		gomega.Expect(again).To(beReady())
	})

	ginkgo.It("a status for one that is refused: what somebody else took out of it meanwhile is no fault of it", func() {
		c := channelNamed("login", bindingTo("login"))
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
		w.heard()
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				w.before = nil
				gomega.Expect(direct.Status().Patch(w.ctx, c.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"binding":null}}`)))).To(gomega.Succeed())
			}
			return nil
		}
		_, err := w.channels.Reconcile(w.ctx, requestFor(c))
		gomega.Expect(err).To(gomega.HaveOccurred())
		w.pass(time.Second)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.Binding).To(gomega.BeNil())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(v1alpha1.ReasonStatusRefused)))
	})

	ginkgo.It("a channel for one that is there still: nothing is remembered of those that are gone, however they went", func() {
		forced, ended := channelNamed("forced"), channelNamed("ended")
		w.apply(forced, ended)
		w.reconciled(forced)
		w.reconciled(ended)
		change(w, forced, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(forced)
		again := channelNamed("forced")
		w.apply(again)
		w.reconciled(again)
		gomega.Expect(w.channels.Remembers()).To(gomega.Equal(2), "not the one before")
		change(w, again, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(again)
		w.remove(ended)
		w.pass(2 * time.Minute)
		w.reconciled(ended)
		for _, c := range []*v1alpha1.RequestChannel{again, ended} {
			_, err := w.channels.Reconcile(w.ctx, requestFor(c))
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		gomega.Expect(w.channels.Remembers()).To(gomega.BeZero())
	})

	ginkgo.It("an owner that is gone: a queue that it left behind by force is to be had by consent, and by no less", func() {
		p := w.providerFor(allowing("orders"))
		old := channelNamed("old", using(p), called("orders"), withDeadLetter)
		w.apply(old)
		w.reconciled(old)
		w.pass(time.Hour)
		w.tag("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "belongs to RequestChannel "+w.namespace+"/old", "delete that one first"))

		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		change(w, old, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		})
		w.remove(old)
		w.reconciled(old)
		gomega.Expect(w.exists(old)).To(gomega.BeFalse())
		w.sqs.SetFaults(sqstest.Plan{})

		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyNever })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "was left behind by RequestChannel "+w.namespace+"/old, which exists no more", v1alpha1.TagAdoptableBy))
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.Adopted).To(gomega.HaveValue(gomega.BeTrue()))
		q, _ := w.sqs.Queue("orders")
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagName, "orders"))
	})

	ginkgo.It("an owner that is gone, of which the finalizers of others hold what is left: the same", func() {
		p := w.providerFor(allowing("orders"))
		old := channelNamed("old", using(p), called("orders"))
		old.Finalizers = []string{"example.com/held"}
		w.apply(old)
		w.reconciled(old)
		w.pass(time.Hour)
		w.tag("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		w.remove(old)
		w.pass(2 * time.Minute)
		w.reconciled(old)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "belongs to RequestChannel "+w.namespace+"/old"), "as long as it may be deleted yet")

		change(w, old, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		})
		w.reconciled(old)
		gomega.Expect(old.Finalizers).To(gomega.ConsistOf("example.com/held"))
		w.pass(5 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there("orders").Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagName, "orders"))
	})

	ginkgo.It("an owner that is gone, of dead letters: the same", func() {
		c := channelNamed("login", withDeadLetter, adopting)
		w.queueTagged(w.named("login_dlq"), map[string]string{
			v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindDeadLetter, v1alpha1.TagNamespace: w.namespace, v1alpha1.TagName: "gone",
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "was left behind by the dead letters of RequestChannel "+w.namespace+"/gone"))
		w.tag(w.named("login_dlq"), w.consent())
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("an older claim for one that could be served: who may not take a queue over does not keep it from who may", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		older, younger := channelNamed("a", using(p), called("orders")), channelNamed("b", using(p), called("orders"), adopting)
		w.apply(older, younger)
		w.reconciled(older)
		gomega.Expect(older).To(beStalled(v1alpha1.ReasonNotOwned))
		w.reconciled(younger)
		gomega.Expect(younger).To(beReady())
		// And it stays so, whatever the other wants since.
		change(w, older, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented })
		for range 3 {
			w.reconciled(older)
			gomega.Expect(older).To(beStalled(v1alpha1.ReasonNotOwned, "/b"))
			w.pass(2 * time.Hour)
			w.reconciled(younger)
			gomega.Expect(younger).To(beReady())
		}
	})

	ginkgo.It("an older claim for none: who may take a queue over comes before who is younger", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		older, younger := channelNamed("a", using(p), called("orders"), adopting), channelNamed("b", using(p), called("orders"), adopting)
		w.apply(older, younger)
		w.reconciled(younger)
		gomega.Expect(younger).To(beStalled(v1alpha1.ReasonConflict, "/a"))
		// Where there is no queue, the older is served whatever its adoptionPolicy.
		change(w, older, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = v1alpha1.AdoptionPolicyNever })
		w.deleteQueue("orders")
		w.pass(2 * time.Minute)
		w.reconciled(younger)
		gomega.Expect(younger).To(beStalled(v1alpha1.ReasonConflict, "/a"))
	})

	ginkgo.It("a take-over for a creation: that of a dead-letter queue is told, with what it was", func() {
		w.queueTagged(w.named("login_dlq"), w.consent())
		w.set(w.named("login_dlq"), map[string]string{"MessageRetentionPeriod": "777"})
		c := channelNamed("login", withDeadLetter, adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(
			gomega.HavePrefix("Normal "+controller.EventQueueAdopted), gomega.ContainSubstring("Queue "+w.named("login_dlq")+" existed"),
			gomega.ContainSubstring(`MessageRetentionPeriod was "777" and is "1209600" now`), gomega.ContainSubstring("RedriveAllowPolicy was"),
		)))
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueAdopted)), "once")
	})

	ginkgo.It("a policy of before a restore for somebody's: that it is left is told", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = policy })
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(c)
		again := channelNamed("login", using(p))
		w.apply(again)
		w.restart()
		w.heard()
		for range 3 {
			w.pass(2 * time.Hour)
			w.reconciled(again)
			gomega.Expect(again).To(beReady())
		}
		told := 0
		for _, e := range w.heard() {
			if strings.HasPrefix(e, "Warning "+controller.EventAttributeLeft) && strings.Contains(e, "access policy") {
				told++
			}
		}
		gomega.Expect(told).To(gomega.Equal(1))
		gomega.Expect(w.sqs.Queues()[0].Attributes["Policy"]).NotTo(gomega.BeEmpty(), "whoever wrote it may have meant it")
	})

	ginkgo.It("a condition for one of the spec as it is: what nobody judged keeps its generation", func() {
		dead, c := channelNamed("dead"), channelNamed("login", deadTo("dead"), bindingTo("login"))
		w.apply(dead, c)
		w.reconciled(dead)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "GetQueueAttributes"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		judged := func(condition string) int64 {
			return meta.FindStatusCondition(c.Status.Conditions, condition).ObservedGeneration
		}
		for condition, generation := range map[string]int64{
			v1alpha1.ConditionReady: 2, v1alpha1.ConditionStalled: 2, v1alpha1.ConditionQueueReady: 2,
			v1alpha1.ConditionDeadLetterReady: 1, v1alpha1.ConditionBindingReady: 1,
		} {
			gomega.Expect(judged(condition)).To(gomega.Equal(generation), condition)
		}
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable))
		w.sqs.SetFaults(sqstest.Plan{})
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		for _, condition := range c.Status.Conditions {
			gomega.Expect(condition.ObservedGeneration).To(gomega.BeEquivalentTo(2), condition.Type)
		}
	})
})
