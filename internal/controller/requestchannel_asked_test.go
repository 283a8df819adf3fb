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

// What a spec asks for, in bad moments.
var _ = ginkgo.Describe("What is asked for", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`

	ginkgo.It("that was made by half, and then unset, is taken away: a policy", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p), func(spec *v1alpha1.RequestChannelSpec) { spec.Policy = policy })
		w.apply(c)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "ListQueueTags", Count: 1}}})
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
		w.sqs.SetFaults(sqstest.Plan{})
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Policy = "" })
		w.pass(2 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.look(c, "1")
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()[0].Attributes["Policy"]).To(gomega.BeEmpty())
	})

	ginkgo.It("names no dead-letter queue of another account, though one here has its name and consents", func() {
		w.queueTagged("dead", w.consent())
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 1, ARN: "arn:aws:sqs:us-east-1:999999999999:dead"}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed))
	})

	ginkgo.It("does not name the channel's own queue for dead letters", func() {
		p := w.providerFor(allowing("orders"))
		c := channelNamed("orders", using(p), called("orders"))
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 1, ARN: c.Status.QueueARN}
		})
		w.reconciled(c)
		gomega.Expect(c).NotTo(beReady())
	})

	ginkgo.It("of tags is kept by a dead-letter queue that comes back into use", func() {
		c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"cost": "1"} })
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) { withDeadLetter(&c.Spec) })
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		q, _ := w.sqs.Queue(w.named("login_dlq"))
		gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"))
	})

	ginkgo.It("of tags is no drift while SQS does not show it yet", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.Tags = v1alpha1.Tags{"cost": "1"} })
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		w.heard()
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = v1alpha1.Tags{"cost": "2"} })
		w.reconciled(c)
		w.pass(5 * time.Second)
		w.look(c, "1")
		w.reconciled(c)
		e := w.heard()
		gomega.Expect(e).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
	})

	ginkgo.It("of ownership is no drift while SQS does not show it yet", func() {
		p := w.providerFor(allowing("orders"))
		w.queueTagged("orders", w.consent())
		w.pass(time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
		c := channelNamed("orders", using(p), called("orders"), adopting)
		w.apply(c)
		w.reconciled(c)
		w.pass(5 * time.Second)
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("may name the operator's own environment", func() {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.ProviderRef = &v1alpha1.ProviderReference{Name: "default"}
		})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("is applied while its dead-letter channel is away", func() {
		dead, c := channelNamed("dead"), channelNamed("login", deadTo("dead"))
		w.apply(dead, c)
		w.reconciled(dead)
		w.reconciled(c)
		w.pass(time.Hour)
		w.remove(dead)
		w.reconciled(dead)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](99)}
		})
		w.reconciled(c)
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes["VisibilityTimeout"]).To(gomega.Equal("99"))
	})

	ginkgo.It("by responders may name the channel with its namespace", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		for i, serves := range []string{"login", "login." + w.namespace} {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), Labels: map[string]string{v1alpha1.LabelInject: "true"}, Annotations: map[string]string{v1alpha1.AnnotationServes: serves}}}
			pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "x"}}
			w.apply(pod)
		}
		r := &controller.ResponderReconciler{Client: w.client}
		_, err := r.Reconcile(w.ctx, requestFor(c))
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.exists(c)
		gomega.Expect(*c.Status.Responders.Total).To(gomega.Equal(int32(2)))
	})

	ginkgo.It("that SQS refused is not said to stay when it is taken out", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.ExtraAttributes = map[string]string{"NextYears": "x"}
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		w.reconciled(c)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ExtraAttributes = nil })
		w.reconciled(c)
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventAttributeLeft)))
		gomega.Expect(c).To(beReady())
	})

	ginkgo.It("that was carried out and not noted is taken back", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
		c := channelNamed("login", using(p))
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Policy = policy
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		n := 0
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if n++; n >= 2 {
					return errStopped
				}
			}
			return nil
		}
		w.stopped(c)
		w.before = nil
		w.restart()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Policy, c.Spec.Queue = "", nil })
		w.reconciled(c)
		gomega.Expect(w.sqs.Queues()[0].Attributes["Policy"]).To(gomega.BeEmpty())
		gomega.Expect(w.sqs.Queues()[0].Attributes["DelaySeconds"]).To(gomega.Equal("0"))
	})

	ginkgo.It("of a Secret that the API server refuses is told", func() {
		c := channelNamed("login", bindingTo("login-sqs"))
		w.apply(c)
		w.reconciled(c)
		w.pass(time.Hour)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "login-sqs"}}
		change(w, secret, func(s *corev1.Secret) { s.Data["uri"] = []byte("x"); s.Immutable = ptr.To(true) })
		w.look(c, "1")
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonSecretRefused, "spec.binding.secretName", "immutable"))
	})
})
