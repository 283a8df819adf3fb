package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Rules that a channel at rest, or one that goes well, never comes to.
var _ = ginkgo.Describe("A channel", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })

	ginkgo.It("says at once, and asks nothing to know it, that the operator's region is another", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.restart()
		connect := w.registry.Connect
		w.registry.Connect = func(ctx context.Context, _, endpoint, role string) (queue.API, string, string, error) {
			return connect(ctx, "eu-west-1", endpoint, role)
		}
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonQueueElsewhere, "region us-east-1 (status)", "region eu-west-1 now"))
		gomega.Expect(requests).To(gomega.BeEmpty())
	})

	ginkgo.It("keeps no time of a write to a queue that is gone", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c.Status.LastWriteTime).NotTo(gomega.BeNil())
		w.pass(2 * time.Hour)
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Minute)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "CreateQueue"}}})
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonAccessDenied))
		gomega.Expect(c.Status.LastWriteTime).To(gomega.BeNil())
	})

	ginkgo.It("restores nothing that another queue of its name was", func() {
		value := "7"
		w.wrap = func(api queue.API) queue.API { return nextYear{API: api, value: &value} }
		w.restart()
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = map[string]string{newAttribute: "42"} })
		w.reconciled(c)
		gomega.Expect(c.Status.OriginalAttributes).To(gomega.HaveLen(1))
		w.pass(2 * time.Hour)
		w.deleteQueue(w.named("login"))
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.OriginalAttributes).To(gomega.BeEmpty())
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = nil })
		w.pass(2 * time.Minute)
		w.reconciled(c)
		gomega.Expect(value).To(gomega.Equal("42"), "what the new queue would be otherwise is not known")
	})

	ginkgo.It("gets the provider's terms that changed since a process before wrote to it, and is not said to have drifted", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.DefaultTags = v1alpha1.Tags{"team": "a"} })
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.pass(10 * time.Second) // SQS may still show what was before that write, which this one is not to be taken for.
		w.restart()
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = v1alpha1.Tags{"team": "b"} })
		w.heard()
		w.reconciled(c)
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("team", "b"))
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.heard()).To(gomega.BeEmpty())
	})

	ginkgo.It("tells of no deletion where what it found was deleted before it was made", func() {
		p := w.providerFor(allowing("orders"))
		first := channelNamed("orders", using(p), called("orders"))
		w.apply(first)
		w.reconciled(first)
		change(w, first, func(c *v1alpha1.RequestChannel) { c.Finalizers = nil })
		w.remove(first)
		second := channelNamed("orders", using(p), called("orders"))
		w.apply(second)
		w.pass(2 * time.Hour)
		w.reconciled(second) // What it sees is the queue of the first.
		gomega.Expect(second.Status.QueueURL).NotTo(gomega.BeEmpty())
		w.deleteQueue("orders")
		w.pass(90 * time.Second) // SQS shows it a minute late, and refuses the name for as long.
		w.heard()
		change(w, second, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.reconciled(second)
		gomega.Expect(second).To(beReady())
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring("deleted by someone else")))
	})
})

var _ = ginkgo.Describe("A binding's Secret", func() {
	var w *world
	var c *v1alpha1.RequestChannel
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		c = channelNamed("login", bindingTo("login"))
		w.apply(c)
		w.reconciled(c)
		w.pass(2 * time.Hour)
	})
	theSecret := func() *corev1.Secret {
		ginkgo.GinkgoHelper()
		s := &corev1.Secret{}
		gomega.Expect(direct.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: "login"}, s)).To(gomega.Succeed())
		return s
	}

	ginkgo.It("is not written where another took its place since it was looked at", func() {
		change(w, theSecret(), func(s *corev1.Secret) { s.Data["uri"] = []byte("https://elsewhere") })
		theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login"}, Type: "servicebinding.io/sqs", Data: map[string][]byte{"password": []byte("x")}}
		applies := 0
		w.before = func(write string) error {
			if write == "apply Secret" {
				if applies++; applies == 1 {
					w.remove(theSecret())
					w.apply(theirs)
				}
			}
			return nil
		}
		_ = w.reconcile(c)
		w.before = nil
		gomega.Expect(applies).To(gomega.BeNumerically(">", 0))
		gomega.Expect(theSecret().Data).To(gomega.Equal(theirs.Data))
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonSecretNotOwned))
	})

	ginkgo.It("gets the label back that says whose it is", func() {
		change(w, theSecret(), func(s *corev1.Secret) { delete(s.Labels, v1alpha1.LabelManagedBy) })
		w.reconciled(c)
		gomega.Expect(theSecret().Labels).To(gomega.HaveKeyWithValue(v1alpha1.LabelManagedBy, v1alpha1.ManagedByOperator))
	})
})
