package controller_test

import (
	"context"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What a consent to adopt means to whom it is given by, and to whom it is given. The two together: requestchannel_handover_test.go.
var _ = ginkgo.Describe("A queue that is offered to another cluster", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	offer := map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"}
	late := func() {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 59 * time.Second, Action: "ListQueueTags"}}})
	}
	// takes has c2's operator take a queue over, and bring it to a spec of its own.
	takes := func(name string) {
		ginkgo.GinkgoHelper()
		w.tag(name, map[string]string{v1alpha1.TagCluster: "uid2", v1alpha1.TagNamespace: "shop", v1alpha1.TagName: "taken", v1alpha1.TagAdopted: "true"})
		w.set(name, map[string]string{"MessageRetentionPeriod": "1209600"})
	}
	// given makes a channel with a dead-letter queue, and offers that queue of the two some time ago.
	given := func(suffix string, edits ...func(*v1alpha1.RequestChannelSpec)) (*v1alpha1.RequestChannel, string) {
		ginkgo.GinkgoHelper()
		c := channelNamed("login", append(edits, withDeadLetter)...)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		name := w.named("login") + suffix
		w.tag(name, offer)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		return c, name
	}
	edited := func(c *v1alpha1.RequestChannel) {
		c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
		c.Spec.DeadLetter.Queue.MessageRetentionSeconds = ptr.To[int32](60)
		c.Spec.Tags = v1alpha1.Tags{"team": "identity"}
	}
	// writesTo are the requests that changed a queue.
	writesTo := func(name string) (all []string) {
		for _, action := range []string{"SetQueueAttributes", "TagQueue", "UntagQueue", "DeleteQueue"} {
			for _, r := range w.sqs.RequestLog(sqstest.Action(action)) {
				if r.Queue == name {
					all = append(all, action)
				}
			}
		}
		return all
	}
	steps := func(c *v1alpha1.RequestChannel, n int) {
		ginkgo.GinkgoHelper()
		for range n {
			if w.reconciled(c); !w.exists(c) {
				return
			}
			w.pass(w.result.RequeueAfter)
		}
	}

	for part, suffix := range map[string]string{v1alpha1.ConditionQueueReady: "", v1alpha1.ConditionDeadLetterReady: "_dlq"} {
		ginkgo.It("is as it is until the offer is withdrawn, and nobody can have used it: "+part, func() {
			c, name := given(suffix)
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonOffered, name+" is offered to c2/shop by its tag "+v1alpha1.TagAdoptableBy))
			gomega.Expect(c.Status.Offered).To(gomega.ConsistOf(v1alpha1.OfferedQueue{Name: name, To: "c2/shop"}))
			w.heard()
			w.sqs.ResetRequests()
			change(w, c, edited)
			steps(c, 3)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered, name+" is offered to c2/shop", "essageRetentionSeconds", "tag team"))
			gomega.Expect(c).To(haveCondition(part, metav1.ConditionFalse, v1alpha1.ReasonOffered))
			gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty(), "it is the channel's as yet")
			w.restart()
			steps(c, 2)
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.BeEmpty(), "it is told once")
			w.untag(name, v1alpha1.TagAdoptableBy)
			w.sqs.ResetRequests()
			w.reconciled(c)
			gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, name+" was offered to c2/shop until a moment ago"))
			w.restart() // The next process knows by the status.
			w.pass(2 * time.Minute)
			w.reconciled(c)
			gomega.Expect(writesTo(name)).To(gomega.BeEmpty())
			w.pass(w.result.RequeueAfter)
			steps(c, 3)
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
			gomega.Expect(w.there(name).Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "60"))
			gomega.Expect(w.there(name).Tags).To(gomega.HaveKeyWithValue("team", "identity"))
		})

		ginkgo.It("has its drift told and not corrected: "+part, func() {
			c, name := given(suffix)
			w.set(name, map[string]string{"MessageRetentionPeriod": "777", "RedriveAllowPolicy": `{"redrivePermission":"denyAll"}`, "RedrivePolicy": ""})
			w.sqs.ResetRequests()
			w.pass(2 * time.Hour)
			steps(c, 3)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered))
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonAttributesDiffer, name))
			gomega.Expect(writesTo(name)).To(gomega.BeEmpty())
			w.untag(name, v1alpha1.TagAdoptableBy)
			steps(c, 4)
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventDriftCorrected)))
		})

		for _, policy := range []v1alpha1.DeletionPolicy{"", v1alpha1.DeletionPolicyDeleteIfEmpty} {
			ginkgo.It("holds a deletion until it is withdrawn: "+part+" "+string(policy), func() {
				c, name := given(suffix, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = policy })
				w.sqs.ResetRequests()
				w.remove(c)
				steps(c, 6)
				gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered, name+" is offered to c2/shop", "neither deleted nor given up", v1alpha1.AnnotationForceDelete))
				if suffix == "" {
					gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2), "the request queue names the other, and may be another's tomorrow")
				}
				w.restart()
				w.untag(name, v1alpha1.TagAdoptableBy)
				w.sqs.ResetRequests()
				w.reconciled(c)
				gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, "until a moment ago"))
				w.restart()
				w.pass(2 * time.Minute)
				w.reconciled(c)
				gomega.Expect(writesTo(name)).To(gomega.BeEmpty())
				steps(c, 12)
				gomega.Expect(w.exists(c)).To(gomega.BeFalse())
				gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
			})
		}

		ginkgo.It("is left behind by a deletion that is forced: "+part, func() {
			c, name := given(suffix)
			before := w.there(name)
			change(w, c, func(c *v1alpha1.RequestChannel) {
				metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
			})
			w.remove(c)
			w.heard()
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventQueueAbandoned), gomega.ContainSubstring(name+" is offered to c2/shop"))))
			gomega.Expect(w.there(name).Tags).To(gomega.Equal(before.Tags))
			if suffix != "" {
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1), "and only it")
				return
			}
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2), "with the one that it names")
		})

		ginkgo.It("holds a namespace for no longer than messages would: "+part, func() {
			c, name := given(suffix, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
			before := w.there(name)
			gomega.Expect(direct.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(gomega.Succeed())
			w.remove(c)
			w.heard()
			for _, days := range []int{0, 2, 15} { // Messages are kept for four days, and then for fourteen.
				w.pass(time.Duration(days) * 24 * time.Hour)
				if days == 2 && suffix == "" { // For how long the other keeps them may not be read.
					w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Queue: name + "_dlq", Action: "GetQueueAttributes"}}})
				}
				w.reconciled(c)
				w.sqs.SetFaults(sqstest.Plan{})
				gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered, name))
			}
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventDeletionHeld), gomega.ContainSubstring(name+" to be taken over by c2/shop"))))
			w.pass(2 * 24 * time.Hour)
			if suffix == "" { // Nor may it be counted what the other holds, which is left with the one that names it.
				w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Queue: name + "_dlq", Action: "GetQueueAttributes"}}})
			}
			steps(c, 12)
			w.sqs.SetFaults(sqstest.Plan{})
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.there(name).Tags).To(gomega.Equal(before.Tags))
			if suffix == "" {
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2), "with the one that it names")
				gomega.Expect(w.there(name+"_dlq").Tags).NotTo(gomega.HaveKey(v1alpha1.TagCluster), "that is offered to nobody")
			} else {
				gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1), "the request queue is offered to nobody")
			}
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Normal "+controller.EventQueueLeft), gomega.ContainSubstring(name))))
		})

		ginkgo.It("is left as it is by Retain, and nothing waits: "+part, func() {
			c, name := given(suffix, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			before := w.there(name)
			w.remove(c)
			w.heard()
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Normal "+controller.EventQueueLeft), gomega.ContainSubstring(name+" is left in SQS as it is"))))
			gomega.Expect(w.there(name).Tags).To(gomega.Equal(before.Tags))
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(2))
		})
	}

	for _, policy := range []v1alpha1.DeletionPolicy{"", v1alpha1.DeletionPolicyDeleteIfEmpty} {
		ginkgo.It("holds no deletion, nor the dead-letter queue, once its ownership tags are gone: "+string(policy), func() {
			c, name := given("", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = policy })
			w.remove(c)
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered))
			w.untag(name, v1alpha1.TagCluster, v1alpha1.TagKind, v1alpha1.TagNamespace, v1alpha1.TagName)
			w.pass(2 * time.Minute)
			steps(c, 12)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
			gomega.Expect(w.there(name).Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagAdoptableBy, "c2/shop"))
		})
	}

	ginkgo.It("is the other's when that took it over while a deletion waited, or was denied for long", func() {
		c, name := given("")
		w.sendTo(name)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		w.remove(c)
		steps(c, 4)
		late()
		takes(name)
		before := w.there(name)
		w.pass(5 * time.Second)
		steps(c, 4)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.there(name).Tags).To(gomega.Equal(before.Tags))
	})

	for how, act := range map[string]func(*v1alpha1.RequestChannel){
		"edited": func(c *v1alpha1.RequestChannel) { change(w, c, edited) },
		"looked at for drift": func(c *v1alpha1.RequestChannel) {
			w.look(c, "now")
		},
		"deleted": func(c *v1alpha1.RequestChannel) { w.remove(c) },
		"given up": func(c *v1alpha1.RequestChannel) {
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
			w.remove(c)
		},
	} {
		for when, withdrawn := range map[string]bool{"an offer of long ago": false, "an offer that was withdrawn meanwhile, and that it still saw": true} {
			ginkgo.It("is the other's where it took it over a moment ago, by "+when+", and is not touched by its former channel that is "+how, func() {
				c, name := given("")
				if withdrawn {
					w.untag(name, v1alpha1.TagAdoptableBy)
					w.pass(time.Second)
					w.look(c, "withdrawn")
					w.reconciled(c)
					w.pass(55 * time.Second)
				}
				late()
				takes(name)
				before := w.there(name)
				w.pass(5 * time.Second)
				act(c)
				for range 12 {
					_ = w.reconcile(c)
					w.pass(10 * time.Second)
				}
				after := w.there(name)
				gomega.Expect(after.Attributes).To(gomega.Equal(before.Attributes))
				gomega.Expect(after.Tags).To(gomega.Equal(before.Tags))
			})
		}
	}

	ginkgo.It("is none where the consent is for this cluster, in which nobody can take the queue while the channel is there", func() {
		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.tag(w.named("login"), map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/elsewhere"})
		change(w, c, edited)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "60"))
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
	})

	ginkgo.It("keeps its tags that the spec has no more while it is a dead-letter queue out of use", func() {
		c, name := given("_dlq", func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"team": "identity"} })
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter, c.Spec.Tags = nil, nil })
		steps(c, 3)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered, name, "tag team"))
		gomega.Expect(w.there(name).Tags).To(gomega.HaveKey("team"))
		w.untag(name, v1alpha1.TagAdoptableBy)
		steps(c, 4)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.there(name).Tags).NotTo(gomega.HaveKey("team"))
		gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
	})

	ginkgo.It("is followed while it is a dead-letter queue out of use", func() {
		c, name := given("_dlq")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
		steps(c, 2)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.Offered).To(gomega.HaveLen(1))
		w.untag(name, v1alpha1.TagAdoptableBy)
		w.pass(2 * time.Hour)
		steps(c, 2)
		gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
		requests, _ := w.costing(func() { w.look(c, "again"); w.reconciled(c) })
		gomega.Expect(requests).To(gomega.Equal(map[string]int{"GetQueueAttributes": 1, "ListQueueTags": 1}), "it is not looked at any more")
	})

	ginkgo.It("is taken over once its owner surely sees the offer, and not by what was offered once before", func() {
		w.considerate = true
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beConsidering())
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", time.Minute))
		w.pass(time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beConsidering())
		w.untag("orders", v1alpha1.TagAdoptableBy)
		w.pass(time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		w.tag("orders", w.consent())
		w.reconciled(c)
		gomega.Expect(c).To(beConsidering())
		w.restart()
		w.pass(time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beConsidering(), "another process has not seen it before")
		gomega.Expect(w.there("orders").Tags).To(gomega.Equal(w.consent()))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())

		takes("orders")
		w.untag("orders", v1alpha1.TagAdoptableBy)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(c.Status.Adopted).To(gomega.BeNil())
		w.tag("orders", w.consent())
		before := w.there("orders").Tags
		w.restart()
		w.reconciled(c)
		gomega.Expect(c).To(beConsidering(), "what was adopted once is no queue that was adopted a moment ago")
		gomega.Expect(w.there("orders").Tags).To(gomega.Equal(before))
	})

	ginkgo.It("is taken over no later, as a dead-letter queue, where AWS denies what the request queue beside it is to get", func() {
		w.considerate = true
		c := channelNamed("login", adopting)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(time.Hour)
		name := w.named("login")
		dead := name + "_dlq"
		w.queueTagged(dead, w.consent())
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Queue: name, Action: "SetQueueAttributes"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			withDeadLetter(&c.Spec)
			c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](777)}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		gomega.Expect(w.there(dead).Tags).To(gomega.Equal(w.consent()))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(w.there(dead).Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagName, "login"))
		w.sqs.SetFaults(sqstest.Plan{})
		steps(c, 3)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is known to its channel that only observes, and written to no sooner when that manages it again", func() {
		c, name := given("")
		observe := func(policy v1alpha1.ManagementPolicy) {
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ManagementPolicy = policy })
			w.reconciled(c)
		}
		w.untag(name, v1alpha1.TagAdoptableBy)
		observe(v1alpha1.ManagementPolicyObserve)
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<", 3*time.Minute))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
		w.tag(name, offer)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c.Status.Offered).To(gomega.ConsistOf(v1alpha1.OfferedQueue{Name: name, To: "c2/shop"}))
		w.untag(name, v1alpha1.TagAdoptableBy)
		w.sqs.ResetRequests()
		change(w, c, edited)
		observe("")
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, name+" was offered to c2/shop until a moment ago"))
		gomega.Expect(writesTo(name)).To(gomega.BeEmpty())
	})

	ginkgo.It("is no offer of the channel's once it is another's, or where it never was the channel's", func() {
		c, name := given("")
		takes(name)
		w.look(c, "taken")
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
		w.pass(w.result.RequeueAfter)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		w.queueTagged(w.named("logout_dlq"), offer)
		c = channelNamed("logout", withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(c.Status.Offered).To(gomega.BeEmpty())
	})

	ginkgo.It("is waited for by a channel that it does not let in yet, and that is brought to the rest of its spec", func() {
		from := func(names ...string) *v1alpha1.DeadLettersFrom {
			all := &v1alpha1.DeadLettersFrom{Permission: v1alpha1.DeadLetterPermissionChannels}
			for _, name := range names {
				all.Channels = append(all.Channels, v1alpha1.ChannelReference{Name: name})
			}
			return all
		}
		c, name := given("", func(spec *v1alpha1.RequestChannelSpec) { spec.DeadLettersFrom = from("a") })
		sources := map[string]*v1alpha1.RequestChannel{}
		for _, source := range []string{"a", "b"} {
			sources[source] = channelNamed(source)
			w.apply(sources[source])
			w.reconciled(sources[source])
		}
		w.pass(2 * time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLettersFrom = from("a", "b") })
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonOffered, "spec.deadLettersFrom"))
		for source, let := range map[string]bool{"a": true, "b": false} {
			s := sources[source]
			change(w, s, func(c *v1alpha1.RequestChannel) {
				deadTo("login")(&c.Spec)
				c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](77)}
			})
			w.reconciled(s)
			gomega.Expect(w.there(w.named(source)).Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "77"))
			if let {
				gomega.Expect(s).To(beReady())
				continue
			}
			gomega.Expect(s).To(beReconciling(v1alpha1.ReasonWaitingForDeadLetter, "does not take dead letters from this channel's yet"))
		}
		w.untag(name, v1alpha1.TagAdoptableBy)
		steps(c, 3)
		gomega.Expect(c).To(beReady())
		w.reconciled(sources["b"])
		gomega.Expect(sources["b"]).To(beReady())
	})

	ginkgo.It("is not taken over at once by a channel that saw an earlier offer, and has not looked since", func() {
		w.considerate = true
		p := w.providerFor(allowing("orders0", "orders1", "orders2"))
		for i, suspended := range []time.Duration{24 * time.Hour, 9 * time.Minute, 100 * time.Second} { // in which the offer is withdrawn, and made again
			name := fmt.Sprint("orders", i)
			w.queueTagged(name, w.consent())
			c := channelNamed(name, using(p), called(name), adopting)
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(c).To(beConsidering())
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
			w.reconciled(c)
			w.pass(suspended)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = nil })
			w.reconciled(c)
			gomega.Expect(c).To(beConsidering(), "%v", suspended)
			gomega.Expect(w.there(name).Tags).To(gomega.Equal(w.consent()))
			w.pass(w.result.RequeueAfter)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
		}
	})

	ginkgo.It("is not taken over at once by a channel that had it before, lost it, and did not see that", func() {
		w.considerate = true
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		c := channelNamed("orders", using(p), called("orders"), adopting, withDeadLetter)
		w.apply(c)
		w.reconciled(c)
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		for i, name := range []string{"orders", w.named("orders") + "_dlq"} {
			takes(name)
			w.tag(name, w.consent())
			before := w.there(name).Tags
			w.pass(2 * time.Hour)
			w.look(c, fmt.Sprint(i))
			for range 2 {
				w.restart()
				w.reconciled(c)
				gomega.Expect(c).To(beConsidering(), name)
				gomega.Expect(w.there(name).Tags).To(gomega.Equal(before))
			}
			w.pass(w.result.RequeueAfter)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.there(name).Tags).To(gomega.HaveKeyWithValue(v1alpha1.TagCluster, clusterUID))
		}
	})
})
