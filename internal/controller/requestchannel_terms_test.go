package controller_test

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// providerFor is a QueueProvider that the world's namespace may use, with a name of its own.
func (w *world) providerFor(edits ...func(*v1alpha1.QueueProviderSpec)) *v1alpha1.QueueProvider {
	p := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "p-" + w.namespace}}
	p.Spec.Namespaces = v1alpha1.ProviderNamespaces{
		From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
	}
	for _, edit := range edits {
		edit(&p.Spec)
	}
	w.apply(p)
	return p
}

func using(p *v1alpha1.QueueProvider) func(*v1alpha1.RequestChannelSpec) {
	return func(spec *v1alpha1.RequestChannelSpec) { spec.ProviderRef = &v1alpha1.ProviderReference{Name: p.Name} }
}

func called(name string) func(*v1alpha1.RequestChannelSpec) {
	return func(spec *v1alpha1.RequestChannelSpec) { spec.QueueName = name }
}

func allowing(patterns ...string) func(*v1alpha1.QueueProviderSpec) {
	return func(spec *v1alpha1.QueueProviderSpec) { spec.AllowedQueueNames = patterns }
}

var _ = ginkgo.Describe("What a namespace may ask for", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	create := func(name string, tags map[string]string) {
		ginkgo.GinkgoHelper()
		_, err := w.sqs.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: tags})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}

	ginkgo.Describe("names", func() {
		ginkgo.It("allows none without a QueueProvider, and says what to do", func() {
			c := channelNamed("login", called("orders"))
			w.apply(c)
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, "orders", "spec.providerRef", "leave spec.queueName unset"))
			gomega.Expect(requests).To(gomega.BeEmpty(), "another team's queue is not even read")
			w.remove(c)
			requests, _ = w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.BeEmpty())
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		})

		ginkgo.It("allows what a pattern of the QueueProvider matches, and nothing else", func() {
			p := w.providerFor(allowing("${namespace}_*"))
			mine, theirs := channelNamed("mine", using(p), called(w.namespace+"_orders")), channelNamed("theirs", using(p), called("bank-orders"))
			w.apply(mine, theirs)
			w.reconciled(mine)
			gomega.Expect(mine).To(beReady())
			w.reconciled(theirs)
			gomega.Expect(theirs).To(beStalled(v1alpha1.ReasonQueueNameNotAllowed, p.Name, "spec.allowedQueueNames"))
		})

		ginkgo.It("lets the oldest of two claims win, and the other have the name once it is given up", func() {
			p := w.providerFor(allowing("shared"))
			a, b := channelNamed("a", using(p), called("shared")), channelNamed("b", using(p), called("shared"))
			w.apply(a, b)
			w.reconciled(b)
			gomega.Expect(b).To(beStalled(v1alpha1.ReasonConflict, w.namespace+"/a"))
			w.reconciled(a)
			gomega.Expect(a).To(beReady())
			w.reconciled(b)
			gomega.Expect(b).To(beStalled(v1alpha1.ReasonNotOwned, w.namespace+"/a"))
			w.remove(a)
			w.reconciled(a)
			w.pass(61 * time.Second)
			w.reconciled(b)
			gomega.Expect(b).To(beReady())
		})
	})

	ginkgo.Describe("policies", func() {
		const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`
		ginkgo.It("needs a QueueProvider that allows them", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = policy })
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonPolicyNotAllowed, "spec.policy"))
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("sets and removes them where it does", func() {
			p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
			c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = policy })
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.sqs.Queues()[0].Attributes["Policy"]).To(gomega.MatchJSON(policy))
			w.pass(2 * time.Minute)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Policy = "" })
			w.reconciled(c)
			gomega.Expect(w.sqs.Queues()[0].Attributes["Policy"]).To(gomega.BeEmpty())
		})
	})

	ginkgo.Describe("providers", func() {
		ginkgo.It("waits for one that is not there yet", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
				spec.ProviderRef = &v1alpha1.ProviderReference{Name: "p-" + w.namespace}
			})
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonWaitingForProvider, "p-"+w.namespace))
			w.providerFor(func(spec *v1alpha1.QueueProviderSpec) {
				spec.Region, spec.NamePrefix, spec.DefaultTags = "eu-west-1", "team", v1alpha1.Tags{"env": "test"}
			})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.Region).To(gomega.Equal("eu-west-1"))
			q := w.sqs.Queues()[0]
			gomega.Expect(q.Name).To(gomega.HavePrefix("team_" + clusterName + "_"))
			gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("env", "test"))
		})

		ginkgo.It("refuses one given to other namespaces, yet deletes what was made while it was given", func() {
			p := w.providerFor()
			c := channelNamed("login", using(p))
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			change(w, p, func(p *v1alpha1.QueueProvider) {
				p.Spec.Namespaces.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "other"}}
			})
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](9)}
			})
			requests, _ := w.costing(func() { w.reconciled(c) })
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonProviderNotAllowed, "spec.namespaces"))
			gomega.Expect(requests).To(gomega.BeEmpty())
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})
	})

	ginkgo.Describe("queues that exist", func() {
		ginkgo.It("are not adopted without consent on AWS's side, nor without being asked to", func() {
			p := w.providerFor(allowing("orders"))
			create("orders", nil)
			asked := channelNamed("asked", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) { spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented })
			w.apply(asked)
			requests, _ := w.costing(func() { w.reconciled(asked) })
			gomega.Expect(asked).To(beStalled(v1alpha1.ReasonNotOwned, v1alpha1.TagAdoptableBy+"="+clusterName+"/"+w.namespace))
			gomega.Expect(requests).NotTo(gomega.HaveKey("CreateQueue"))
			_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: ptr.To(w.sqs.Queues()[0].URL), Tags: w.consent()})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			change(w, asked, func(c *v1alpha1.RequestChannel) { c.Spec.AdoptionPolicy = "" })
			w.reconciled(asked)
			gomega.Expect(asked).To(beStalled(v1alpha1.ReasonNotOwned))
		})

		ginkgo.It("are adopted with both, changed only where asked, and retained in the end", func() {
			p := w.providerFor(allowing("orders"))
			create("orders", w.consent())
			url := w.sqs.Queues()[0].URL
			_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"DelaySeconds": "3"}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			c := channelNamed("orders", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) {
				spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented
				spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			})
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.Adopted).To(gomega.HaveValue(gomega.BeTrue()))
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Normal " + controller.EventQueueAdopted)))
			q := w.sqs.Queues()[0]
			gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("VisibilityTimeout", "45"), gomega.HaveKeyWithValue("DelaySeconds", "3")))
			gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagName, "orders"))

			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.Equal(w.consent()), "free to be adopted again")
		})

		ginkgo.It("are not taken by one channel from another, consent or not", func() {
			p := w.providerFor(allowing("orders"))
			create("orders", w.consent())
			a, b := channelNamed("a", using(p), called("orders"), adopting), channelNamed("b", using(p), called("orders"), adopting)
			w.apply(a, b)
			w.reconciled(b)
			gomega.Expect(b).To(beStalled(v1alpha1.ReasonConflict, w.namespace+"/a"))
			w.reconciled(a)
			gomega.Expect(a).To(beReady())
			before := w.sqs.Queues()[0]
			w.reconciled(b)
			gomega.Expect(b).To(beStalled(v1alpha1.ReasonNotOwned, w.namespace+"/a"))
			gomega.Expect(w.sqs.Queues()[0]).To(gomega.Equal(before))
		})

		ginkgo.It("are taken over from a cluster that is given up, where its owner consents", func() {
			p := w.providerFor(allowing("orders"))
			tags := w.consent()
			tags[v1alpha1.TagCluster], tags[v1alpha1.TagKind], tags[v1alpha1.TagNamespace], tags[v1alpha1.TagName] = "old-cluster", v1alpha1.TagKindRequest, "shop", "orders"
			create("orders", tags)
			c := channelNamed("orders", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) { spec.AdoptionPolicy = v1alpha1.AdoptionPolicyIfConsented })
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagCluster, clusterUID))
		})

		ginkgo.It("are observed with consent, and never written to", func() {
			p := w.providerFor(allowing("orders"))
			c := channelNamed("orders", using(p), called("orders"), func(spec *v1alpha1.RequestChannelSpec) {
				spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
				spec.Tags = v1alpha1.Tags{"team": "identity"}
			})
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonObservedQueueMissing, "orders"))
			create("orders", nil)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
			_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: ptr.To(w.sqs.Queues()[0].URL), Tags: w.consent()})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			before := w.sqs.Queues()[0]
			w.reconciled(c)
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved))
			gomega.Expect(c.Status.QueueURL).To(gomega.Equal(before.URL))
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()[0]).To(gomega.Equal(before))
		})
	})

	ginkgo.Describe("dead letters", func() {
		redrive := func(c *v1alpha1.RequestChannel) string {
			ginkgo.GinkgoHelper()
			for _, q := range w.sqs.Queues() {
				if q.URL == c.Status.QueueURL {
					return q.Attributes["RedrivePolicy"]
				}
			}
			ginkgo.Fail("no queue of " + c.Name)
			return ""
		}

		ginkgo.It("go to a queue made beside, in six requests, that takes them from nowhere else", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			requests, _ := w.costing(func() { w.reconciled(c) })
			total := 0
			for _, n := range requests {
				total += n
			}
			gomega.Expect(total).To(gomega.Equal(6), "%v", requests)
			gomega.Expect(c).To(gomega.And(beReady(), haveCondition(v1alpha1.ConditionDeadLetterReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)))
			gomega.Expect(redrive(c)).To(gomega.MatchJSON(`{"deadLetterTargetArn":"` + c.Status.DeadLetterQueueARN + `","maxReceiveCount":5}`))
			dlq, there := w.sqs.Queue(w.named("login_dlq"))
			gomega.Expect(there).To(gomega.BeTrue())
			gomega.Expect(dlq.URL).To(gomega.Equal(c.Status.DeadLetterQueueURL))
			gomega.Expect(dlq.Attributes["RedriveAllowPolicy"]).To(gomega.ContainSubstring(c.Status.QueueARN))
			gomega.Expect(dlq.Attributes["MessageRetentionPeriod"]).To(gomega.Equal("1209600"))
			gomega.Expect(dlq.Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagKind, v1alpha1.TagKindDeadLetter))

			w.pass(2 * time.Hour)
			requests, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(requests).To(gomega.Equal(map[string]int{"GetQueueAttributes": 2, "ListQueueTags": 2}), "a look for drift finds none")
			gomega.Expect(writes).To(gomega.BeEmpty())

			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("no longer go anywhere once that is taken out of the spec; what is in the queue stays until the channel goes", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.reconciled(c)
			w.pass(2 * time.Minute)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
			w.reconciled(c)
			gomega.Expect(redrive(c)).To(gomega.BeEmpty())
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.DeadLetterTargetARN).To(gomega.BeEmpty())
			gomega.Expect(c.Status.DeadLetterQueueARN).To(gomega.HaveSuffix("_login_dlq"), "for who moves its messages back")
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("go to another channel's queue once that is there", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ChannelRef: &v1alpha1.ChannelReference{Name: "morgue"}}
			})
			morgue := channelNamed("morgue")
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonWaitingForDeadLetter, "morgue"))
			w.apply(morgue)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonWaitingForDeadLetter, "no queue yet"))
			w.reconciled(morgue)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(redrive(c)).To(gomega.ContainSubstring(morgue.Status.QueueARN))
			gomega.Expect(c.Status.DeadLetterQueueURL).To(gomega.BeEmpty(), "it is not this channel's to delete")
		})

		ginkgo.DescribeTable("refuse a channel that cannot be it", func(reason, words string, edit func(self, other *v1alpha1.RequestChannel)) {
			self, other := channelNamed("login"), channelNamed("other")
			self.Spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ChannelRef: &v1alpha1.ChannelReference{Name: "other"}}
			edit(self, other)
			w.apply(other, self)
			w.reconciled(self)
			gomega.Expect(self).To(beStalled(reason, "spec.deadLetter.channelRef", words))
		},
			ginkgo.Entry("itself", v1alpha1.ReasonDeadLetterNotAllowed, "its own", func(self, _ *v1alpha1.RequestChannel) { self.Spec.DeadLetter.ChannelRef.Name = "login" }),
			ginkgo.Entry("of another provider", v1alpha1.ReasonDeadLetterNotAllowed, "another QueueProvider", func(_, other *v1alpha1.RequestChannel) {
				other.Spec.ProviderRef = &v1alpha1.ProviderReference{Name: "elsewhere"}
			}),
			ginkgo.Entry("of another type", v1alpha1.ReasonInvalid, "FIFO", func(_, other *v1alpha1.RequestChannel) { other.Spec.FIFO = &v1alpha1.FIFO{} }),
		)

		ginkgo.It("go to a queue named by ARN only where its owner or the platform team lets them", func() {
			create("graveyard", nil)
			arn := w.sqs.Queues()[0].ARN
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: arn}
			})
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "graveyard", v1alpha1.TagSharedWith))
			_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: ptr.To(w.sqs.Queues()[0].URL), Tags: w.share()})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			before, _ := w.sqs.Queue("graveyard")
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(redrive(c)).To(gomega.ContainSubstring(arn))
			w.remove(c)
			w.reconciled(c)
			after, _ := w.sqs.Queue("graveyard")
			gomega.Expect(after).To(gomega.Equal(before), "a queue named by ARN is never modified")

			elsewhere := channelNamed("elsewhere", func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: strings.Replace(arn, "us-east-1", "eu-west-1", 1)}
			})
			w.apply(elsewhere)
			w.reconciled(elsewhere)
			gomega.Expect(elsewhere).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "one account and region"))
		})
	})

	ginkgo.Describe("deletion", func() {
		send := func(url string) {
			ginkgo.GinkgoHelper()
			_, err := w.sqs.Client().SendMessage(w.ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: ptr.To("x")})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}

		ginkgo.It("with Retain leaves the queue, without our ownership", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
				spec.Tags = v1alpha1.Tags{"team": "identity"}
			})
			w.apply(c)
			w.reconciled(c)
			send(c.Status.QueueURL)
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.Equal(map[string]string{"team": "identity"}))
			gomega.Expect(w.sqs.Queues()[0].Visible).To(gomega.Equal(1))
		})

		ginkgo.It("with DeleteIfEmpty waits for the messages to go, and says how many", func() {
			c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
			w.apply(c)
			w.reconciled(c)
			send(c.Status.QueueURL)
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonQueueNotEmpty, "about 1 messages", v1alpha1.AnnotationForceDelete))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
			_, err := w.sqs.Client().PurgeQueue(w.ctx, &sqs.PurgeQueueInput{QueueUrl: &c.Status.QueueURL})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			for range 7 {
				gomega.Expect(w.exists(c)).To(gomega.BeTrue())
				w.reconciled(c)
				w.pass(w.result.RequeueAfter)
			}
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("deletes a queue whose URL the status lost", func() {
			c := channelNamed("login")
			w.apply(c)
			w.reconciled(c)
			before := c.DeepCopy()
			c.Status.QueueURL = ""
			gomega.Expect(direct.Status().Patch(w.ctx, c, mergeFrom(before))).To(gomega.Succeed())
			w.restart()
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		})

		ginkgo.It("is held while AWS denies it, unless forced", func() {
			c := channelNamed("login")
			w.apply(c)
			w.reconciled(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied, v1alpha1.AnnotationForceDelete))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", time.Minute))
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
			})
			w.heard()
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueAbandoned)))
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		})
	})

	ginkgo.Describe("trouble", func() {
		ginkgo.It("throttled: waits without an error, and goes on", func() {
			c := channelNamed("login")
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle}}})
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonThrottled))
			gomega.Expect(w.result.RequeueAfter).To(gomega.And(gomega.BeNumerically(">", 0), gomega.BeNumerically("<", time.Minute)))
			w.sqs.SetFaults(sqstest.Plan{})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("denied: stalls with AWS's words, retries slowly, and heals by itself", func() {
			c := channelNamed("login")
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "CreateQueue"}}})
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied, "AccessDenied: "))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">=", time.Minute))
			gomega.Expect(w.heard()).To(gomega.ConsistOf(gomega.HavePrefix("Warning AccessDenied")))
			w.reconciled(c)
			gomega.Expect(w.heard()).To(gomega.BeEmpty(), "an event for a transition, not for each try")
			w.sqs.SetFaults(sqstest.Plan{})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("unreachable: backs off by the workqueue, tells it once, and keeps what it knew", func() {
			c := channelNamed("login")
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.HTMLUnavailable}}})
			w.failed(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonSQSUnavailable))
			_, writes := w.costing(func() { w.failed(c) })
			gomega.Expect(writes).To(gomega.BeEmpty())
			w.sqs.SetFaults(sqstest.Plan{})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		})

		ginkgo.It("on the way to a queue that was Ready says nothing about the queue", func() {
			c := channelNamed("login")
			w.apply(c)
			w.reconciled(c)
			w.pass(2 * time.Hour)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.HTMLUnavailable}}})
			w.failed(c)
			gomega.Expect(c).To(beReady())
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle}}})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](9)}
			})
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonThrottled), "a change that is not carried out is news")
		})

		ginkgo.It("from our own limiter is no throttling by SQS, and no event", func() {
			w.registry.Limits = queue.Limits{Read: 100, Write: 0.01, Tag: 100}
			a, b := channelNamed("a"), channelNamed("b")
			w.apply(a, b)
			w.reconciled(a)
			w.heard()
			w.reconciled(b)
			gomega.Expect(b).To(beReconciling(v1alpha1.ReasonProgressing, "waits for its turn"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.And(gomega.BeNumerically(">", 0), gomega.BeNumerically("<=", 100*time.Second)))
			gomega.Expect(w.heard()).To(gomega.BeEmpty())
		})

		ginkgo.It("an answer lost after the effect converges on the same queue", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "CreateQueue", Count: 2}, {Fault: sqstest.ServerErrorAfter, Action: "SetQueueAttributes", Count: 1}}})
			for range 8 { // A plan counts for each queue.
				_ = w.reconcile(c)
			}
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
		})

		ginkgo.It("a queue that SQS does not show yet is waited for", func() {
			c := channelNamed("login", withDeadLetter)
			w.apply(c)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 5 * time.Second}}})
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing))
			for range 4 {
				w.pass(6 * time.Second)
				w.reconciled(c)
			}
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventQueueRecreated)))
		})

		ginkgo.It("an API server that refuses a status is told to the workqueue alone", func() {
			c := channelNamed("login")
			w.apply(c)
			w.before = func(write string) error {
				if strings.HasPrefix(write, "patch status") {
					return errors.New("the API server is away")
				}
				return nil
			}
			_, err := w.channels.Reconcile(w.ctx, requestFor(c))
			gomega.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("the API server is away")))
			gomega.Expect(w.heard()).To(gomega.BeEmpty())
			w.before = nil
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		})
	})
})
