package controller_test

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
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

// nextYear is an SQS with an attribute that is not known yet, whose default is 7.
type nextYear struct {
	queue.API
	value *string
	// shows, if set, is what it makes of a value, and sets how often one was set.
	shows func(value string) string
	sets  *int
}

const newAttribute = "AttributeOfNextYear"

func (n nextYear) take(attributes map[string]string) map[string]string {
	kept := maps.Clone(attributes)
	if value, set := kept[newAttribute]; set {
		if n.sets != nil {
			*n.sets++
		}
		*n.value = value
		delete(kept, newAttribute)
	}
	return kept
}

func (n nextYear) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	without := *in
	without.Attributes = n.take(in.Attributes)
	return n.API.CreateQueue(ctx, &without, o...)
}

func (n nextYear) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	without := *in
	if without.Attributes = n.take(in.Attributes); len(without.Attributes) == 0 {
		return &sqs.SetQueueAttributesOutput{}, nil
	}
	return n.API.SetQueueAttributes(ctx, &without, o...)
}

func (n nextYear) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	out, err := n.API.GetQueueAttributes(ctx, in, o...)
	if err == nil {
		shown := *n.value
		if n.shows != nil {
			shown = n.shows(shown)
		}
		if out.Attributes[newAttribute] = shown; shown == "" {
			delete(out.Attributes, newAttribute)
		}
	}
	return out, err
}

var _ = ginkgo.Describe("Attributes that no field knows yet", func() {
	var w *world
	var value string
	ginkgo.BeforeEach(func(ctx context.Context) {
		w, value = newWorld(context.WithoutCancel(ctx)), "7"
		w.wrap = func(api queue.API) queue.API { return nextYear{API: api, value: &value} }
	})
	extra := func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{newAttribute: "42"} }
	unset := func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = nil }
	step := func(c *v1alpha1.RequestChannel, edit func(*v1alpha1.RequestChannel)) {
		ginkgo.GinkgoHelper()
		w.pass(2 * time.Minute)
		change(w, c, edit)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	}

	ginkgo.It("are set, kept against drift, and restored to what they were when they are unset", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		step(c, extra)
		gomega.Expect(value).To(gomega.Equal("42"))
		gomega.Expect(c.Status.OriginalAttributes).To(gomega.ConsistOf(v1alpha1.OriginalAttribute{Name: newAttribute, Value: "7"}))
		value = "1"
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(value).To(gomega.Equal("42"))
		w.restart()
		step(c, unset)
		gomega.Expect(value).To(gomega.Equal("7"))
		gomega.Expect(c.Status.OriginalAttributes).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventAttributeLeft)))
	})

	ginkgo.It("stay when there is nothing to restore, and an event says so", func() {
		c := channelNamed("login")
		extra(c)
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(value).To(gomega.Equal("42"))
		step(c, unset)
		gomega.Expect(value).To(gomega.Equal("42"))
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventAttributeLeft), gomega.ContainSubstring(newAttribute))))
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.BeEmpty(), "it is told once")
	})

	for form, shows := range map[string]func(string) string{
		"in another form": strings.ToUpper, "not at all": func(string) string { return "" },
	} {
		ginkgo.Describe("and that SQS shows "+form, func() {
			var c *v1alpha1.RequestChannel
			var set int
			told := gomega.ContainElement(gomega.HavePrefix("Normal " + controller.EventShownOtherwise))
			drift := gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventDriftCorrected))
			// hours are what goes on for some: how often attributes are set, and the events.
			hours := func() (sets int, events []string) {
				ginkgo.GinkgoHelper()
				w.heard()
				before := set
				for range 12 {
					w.pass(w.result.RequeueAfter)
					w.reconciled(c)
					gomega.Expect(c).To(beReady())
				}
				return set - before, w.heard()
			}
			ginkgo.BeforeEach(func() {
				w.wrap = func(api queue.API) queue.API { return nextYear{api, &value, shows, &set} }
				w.restart()
				c = channelNamed("login")
				w.apply(c)
				w.reconciled(c)
				w.pass(2 * time.Minute)
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{newAttribute: "slow"} })
				w.reconciled(c)
			})

			ginkgo.It("are set twice, told once, and left alone, also by another process", func() {
				sets, events := hours()
				gomega.Expect(sets).To(gomega.Equal(1))
				gomega.Expect(events).To(gomega.And(told, gomega.HaveLen(1)))
				w.restart()
				sets, events = hours()
				gomega.Expect(sets).To(gomega.BeZero())
				gomega.Expect(events).To(gomega.BeEmpty())
				step(c, unset)
				gomega.Expect(c.Status.ShownAttributes).To(gomega.BeEmpty())
			})

			ginkgo.It("are told to have drifted once where it is not known who set them, and settle", func() {
				w.restart()
				sets, events := hours()
				gomega.Expect(sets).To(gomega.Equal(1))
				gomega.Expect(events).To(gomega.And(told, drift, gomega.HaveLen(2)))
			})

			if form == "not at all" {
				return // What somebody else sets is not shown either.
			}
			ginkgo.It("are kept against drift", func() {
				hours()
				value = "theirs"
				sets, events := hours()
				gomega.Expect(value).To(gomega.Equal("slow"))
				gomega.Expect(sets).To(gomega.Equal(1))
				gomega.Expect(events).To(gomega.And(drift, gomega.HaveLen(1)))
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes[newAttribute] = "slower" })
				w.reconciled(c)
				gomega.Expect(value).To(gomega.Equal("slower"))
			})

			ginkgo.It("are kept against what is changed in the minute after", func() {
				w.pass(30 * time.Second)
				value = "theirs"
				hours()
				gomega.Expect(value).To(gomega.Equal("slow"))
				gomega.Expect(c.Status.ShownAttributes).To(gomega.ConsistOf(v1alpha1.ShownAttribute{Name: newAttribute, Value: "slow", Shown: "SLOW"}))
			})
		})
	}

	for name, fault := range map[string]sqstest.Fault{"denied": sqstest.AccessDenied, "lost on the way": sqstest.DropBefore} {
		ginkgo.It("are set after a restore, though that was "+name+" at first, and restored to what they were", func() {
			p := w.providerFor(allowing("orders"))
			c := channelNamed("login", using(p), called("orders"))
			w.apply(c)
			w.reconciled(c)
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
			w.remove(c)
			w.restart()
			w.pass(2 * time.Hour)
			c = channelNamed("login", using(p), called("orders"))
			extra(c)
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](1)}
			w.apply(c)
			w.wrap = func(api queue.API) queue.API { return takesBoth{nextYear{API: api, value: &value}} }
			w.restart()
			w.pass(2 * time.Minute)
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: fault, Action: "SetQueueAttributes"}}})
			for range 3 {
				_ = w.reconcile(c)
				gomega.Expect(c).NotTo(haveCondition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonStatusRefused))
				w.pass(10 * time.Minute)
			}
			gomega.Expect(value).To(gomega.Equal("7"))
			w.sqs.SetFaults(sqstest.Plan{})
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(value).To(gomega.Equal("42"))
			gomega.Expect(c.Status.OriginalAttributes).To(gomega.ConsistOf(v1alpha1.OriginalAttribute{Name: newAttribute, Value: "7"}))
			step(c, unset)
			gomega.Expect(value).To(gomega.Equal("7"))
		})
	}
})

// takesBoth is that SQS where the new attribute is set only if the rest is.
type takesBoth struct{ nextYear }

func (n takesBoth) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	without := *in
	without.Attributes = maps.Clone(in.Attributes)
	delete(without.Attributes, newAttribute)
	if len(without.Attributes) == 0 {
		return n.nextYear.SetQueueAttributes(ctx, in, o...)
	}
	out, err := n.API.SetQueueAttributes(ctx, &without, o...)
	if err == nil {
		n.take(in.Attributes)
	}
	return out, err
}

// picky is an SQS that does not take a value in the form in which it shows it.
type picky struct{ queue.API }

func (p picky) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	if strings.HasSuffix(in.Attributes[newAttribute], ".0") {
		return nil, &smithy.GenericAPIError{Code: "InvalidAttributeValue", Message: "Invalid value for the parameter " + newAttribute + "."}
	}
	return p.API.SetQueueAttributes(ctx, in, o...)
}

var _ = ginkgo.Describe("An extra attribute whose original SQS does not take", func() {
	ginkgo.It("stays as it is when it is taken out, which is told, and keeps nothing else from being applied", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		value := "7"
		w.wrap = func(api queue.API) queue.API {
			return picky{nextYear{API: api, value: &value, shows: func(v string) string { return v + ".0" }}}
		}
		w.restart()
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{newAttribute: "42"} })
		for range 4 {
			w.reconciled(c)
			w.pass(w.result.RequeueAfter)
		}
		gomega.Expect(c).To(beReady())
		w.heard()
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.ExtraAttributes, c.Spec.Queue = nil, &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](77)}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing))
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventAttributeLeft), gomega.ContainSubstring(newAttribute))))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(value).To(gomega.Equal("42"))
		gomega.Expect(c.Status.OriginalAttributes).To(gomega.BeEmpty())
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.HaveKeyWithValue(queue.VisibilityTimeout, "77"))
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.HavePrefix("Warning "+controller.EventAttributeLeft)), "it is told once")
	})
})
