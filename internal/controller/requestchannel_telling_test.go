package controller_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// manyTags are n tags whose keys begin with prefix.
func manyTags(prefix string, n int) v1alpha1.Tags {
	tags := v1alpha1.Tags{}
	for i := range n {
		tags[fmt.Sprintf("%s%d", prefix, i)] = "x"
	}
	return tags
}

var _ = ginkgo.Describe("The status", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.It("holds the old and the new tags, of the spec and of the provider, while all of them are changed", func() {
		p := w.providerFor(func(s *v1alpha1.QueueProviderSpec) { s.DefaultTags = manyTags("old-default-", 40) })
		c := channelNamed("login", using(p), func(s *v1alpha1.RequestChannelSpec) { s.Tags = manyTags("old-", 40) })
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(20 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = manyTags("new-", 40) })
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = manyTags("new-default-", 40) })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.AppliedTags).To(gomega.HaveLen(80))
		tags := w.sqs.Queues()[0].Tags
		gomega.Expect(tags).To(gomega.HaveLen(85))
		gomega.Expect(tags).To(gomega.And(gomega.HaveKey("new-39"), gomega.HaveKey("new-default-39"), gomega.Not(gomega.HaveKey("old-0"))))
	})

	ginkgo.It("that the API server refuses is told by an event and by the conditions, once, and given up when it heals", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(20 * time.Minute)
		w.heard()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"team": "identity"} })
		invalid := apierrors.NewInvalid(schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "RequestChannel"}, c.Name,
			field.ErrorList{field.TooMany(field.NewPath("status", "appliedTags"), 99, 90)})
		writes := 0
		w.before = func(write string) error {
			if write != "patch status RequestChannel" {
				return nil
			}
			if writes++; writes%2 == 1 { // The status itself, and not the conditions that tell of it.
				return invalid
			}
			return nil
		}
		w.failed(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonStatusRefused, "is invalid"))
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + v1alpha1.ReasonStatusRefused)))
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				return invalid
			}
			return nil
		}
		w.failed(c)
		gomega.Expect(w.heard()).To(gomega.BeEmpty(), "it is told once")
		w.before = nil
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})
})

var _ = ginkgo.Describe("Time", func() {
	ginkgo.It("is spread: of looks for drift, and of retries of what stalled", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		looks, retries := map[time.Duration]bool{}, map[time.Duration]bool{}
		for i := range 8 {
			c := channelNamed(fmt.Sprintf("login-%d", i))
			w.apply(c)
			w.reconciled(c)
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("~", controller.DefaultDriftInterval, controller.DefaultDriftInterval/10))
			looks[w.result.RequeueAfter] = true
			d := channelNamed(fmt.Sprintf("denied-%d", i), called("not-allowed"))
			w.apply(d)
			w.reconciled(d)
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("~", 5*time.Minute, 30*time.Second))
			retries[w.result.RequeueAfter] = true
		}
		gomega.Expect(looks).To(gomega.HaveLen(8))
		gomega.Expect(retries).To(gomega.HaveLen(8))
	})

	ginkgo.It("between two looks is as the administrator says, and what was deleted meanwhile is found then", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		w.channels.DriftInterval = 10 * time.Minute
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("~", 10*time.Minute, time.Minute))
		w.deleteQueue(w.named("login"))
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueRecreated)))
	})

	ginkgo.It("and not force is what a deletion that SQS throttles needs", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "DeleteQueue"}}})
		w.remove(c)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
		})
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeTrue())
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		w.sqs.SetFaults(sqstest.Plan{})
		w.pass(time.Minute)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
	})
})

var _ = ginkgo.Describe("Events", func() {
	ginkgo.It("are short enough for the API server, whatever they tell", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = manyTags("a-tag-of-the-usual-length-é-", 40) })
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.heard()
		_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &c.Status.QueueURL, TagKeys: slices.Collect(maps.Keys(c.Spec.Tags))})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.pass(w.result.RequeueAfter)
		w.reconciled(c)
		heard := w.heard()
		gomega.Expect(heard).To(gomega.HaveLen(1))
		words := strings.SplitN(heard[0], " ", 3)
		gomega.Expect(words[1]).To(gomega.Equal(controller.EventDriftCorrected))
		gomega.Expect(len(words[2])).To(gomega.BeNumerically(">", 900), "it is cut no shorter than need be")
		gomega.Expect(direct.Create(w.ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "drift"}, EventTime: metav1.NowMicro(),
			ReportingController: "replyqueue.dev/operator", ReportingInstance: "operator", Action: "SetQueueAttributes",
			Type: words[0], Reason: words[1], Note: words[2],
			Regarding: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RequestChannel", Namespace: w.namespace, Name: c.Name},
		})).To(gomega.Succeed())
	})
})

var _ = ginkgo.Describe("An object that the operator has not seen yet", func() {
	ginkgo.It("is in progress to whoever waits for it", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		for _, o := range []client.Object{
			channelNamed("login"), &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, w.providerFor(),
		} {
			if o.GetResourceVersion() == "" {
				w.apply(o)
			}
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			result, err := status.Compute(&unstructured.Unstructured{Object: object})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			gomega.Expect(result.Status).To(gomega.Equal(status.InProgressStatus), "%T: %s", o, result.Message)
		}
	})
})
