package controller_test

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A new process knows of no write. Of a channel that waits for something beside its request queue, that queue is as asked for, and
// there is nothing to write.
var _ = ginkgo.Describe("A restart of the operator, with a channel that is not Ready", func() {
	var w *world
	var c *v1alpha1.RequestChannel
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	full := func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](3), MessageRetentionSeconds: ptr.To[int32](600)}
		spec.Tags = v1alpha1.Tags{"cost": "1"}
	}
	// waits begins with a channel that is not Ready, and whose request queue is as asked for.
	waits := func(edits ...func(*v1alpha1.RequestChannelSpec)) {
		ginkgo.GinkgoHelper()
		w.apply(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "taken"}})
		c = channelNamed("login", edits...)
		w.apply(c)
		w.reconciled(c)
	}
	isBrought := func() {
		ginkgo.GinkgoHelper()
		gomega.Expect(c).NotTo(beReady())
		gomega.Expect(c).To(haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable))
	}

	look := func() {
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
	}
	for what, begin := range map[string]func(){
		"its binding's Secret": func() { waits(full, bindingTo("taken")) },
		"its binding's Secret, with a dead-letter queue made beside": func() { waits(full, withDeadLetter, bindingTo("taken")) },
		"its dead-letter channel": func() {
			other := channelNamed("other")
			w.apply(other)
			w.reconciled(other)
			waits(full, deadTo("other"))
			gomega.Expect(c).To(beReady())
			w.pass(20 * time.Minute)
			w.remove(other)
			w.reconciled(other)
			look()
		},
		"the dead-letter channel that it was edited to name": func() {
			waits(full)
			gomega.Expect(c).To(beReady())
			change(w, c, func(c *v1alpha1.RequestChannel) {
				deadTo("other")(&c.Spec)
				c.Spec.Queue.DelaySeconds, c.Spec.Tags = ptr.To[int32](4), v1alpha1.Tags{"cost": "2"}
			})
		},
		"the consent to its dead letters, which was taken back": func() {
			w.queueTagged("vault", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
			vault, _ := w.sqs.Queue("vault")
			waits(full, func(spec *v1alpha1.RequestChannelSpec) {
				spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ARN: vault.ARN}
			})
			gomega.Expect(c).To(beReady())
			_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &vault.URL, TagKeys: []string{v1alpha1.TagAdoptableBy}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			w.pass(time.Hour)
			look()
		},
	} {
		for _, rest := range []time.Duration{10 * time.Second, 5 * time.Minute, time.Hour} {
			ginkgo.Context(fmt.Sprintf("that waits for %s, after %s", what, rest), func() {
				ginkgo.It("costs no write while its queue is as asked for", func() {
					begin()
					w.reconciled(c)
					isBrought()
					w.pass(rest)
					w.restart()
					requests, writes := w.costing(func() {
						for range 5 {
							w.reconciled(c)
							w.pass(5 * time.Minute)
						}
					})
					isBrought()
					for action := range requests {
						gomega.Expect(action).To(gomega.BeElementOf(reading))
					}
					for _, write := range writes {
						gomega.Expect(write).To(gomega.Equal("patch Secret"), "the look at the Secret changes nothing")
					}
					q, _ := w.sqs.Queue(w.named("login"))
					gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "600"))
				})
			})
		}
	}

	ginkgo.It("tells nothing new while SQS is asked too often", func() {
		waits(full, bindingTo("taken"))
		isBrought()
		w.pass(time.Hour)
		w.restart()
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle}}})
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonSecretNotOwned))
	})

	ginkgo.It("carries out what its spec was changed to meanwhile", func() {
		waits(bindingTo("taken"))
		w.pass(time.Hour)
		w.restart()
		change(w, c, func(c *v1alpha1.RequestChannel) { full(&c.Spec) })
		w.reconciled(c)
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "3"))
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("cost", "1"))
	})

	ginkgo.It("puts right what someone else changed meanwhile", func() {
		waits(full, bindingTo("taken"))
		w.pass(time.Hour)
		w.restart()
		q, _ := w.sqs.Queue(w.named("login"))
		_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{"DelaySeconds": "7", "MessageRetentionPeriod": "60"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.reconciled(c)
		q, _ = w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("DelaySeconds", "3"), gomega.HaveKeyWithValue("MessageRetentionPeriod", "600")))
	})

	ginkgo.It("carries out at once what its provider was changed to meanwhile, also a moment after it was written to", func() {
		p := w.providerFor()
		waits(full, using(p), bindingTo("taken"))
		w.pass(10 * time.Second)
		w.restart()
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = v1alpha1.Tags{"team": "bank"} })
		w.reconciled(c)
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("team", "bank"))
	})

	ginkgo.It("corrects what a process set that stopped while it changed the queue, for a provider that was changed to and fro", func() {
		p := w.providerFor()
		waits(full, using(p), bindingTo("taken"))
		isBrought()
		w.pass(time.Hour)
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = v1alpha1.Tags{"team": "bank"} })
		noted := false
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if noted {
					return errStopped
				}
				noted = true
			}
			return nil
		}
		w.stopped(c)
		w.before = nil
		q, _ := w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Tags).To(gomega.HaveKey("team"), "it was set, and SQS does not show it")
		w.restart()
		change(w, p, func(p *v1alpha1.QueueProvider) { p.Spec.DefaultTags = nil })
		w.reconciled(c)
		q, _ = w.sqs.Queue(w.named("login"))
		gomega.Expect(q.Tags).NotTo(gomega.HaveKey("team"))
	})

	for _, edit := range []string{"edited to and fro", "edited"} {
		for what, begin := range map[string]func(*v1alpha1.RequestChannelSpec){"a Secret": bindingTo("taken"), "dead letters": deadTo("other")} {
			ginkgo.It(fmt.Sprintf("corrects what a process set that stopped before it could say so, of a channel that waits for %s and is %s", what, edit), func() {
				waits(full, begin)
				if what == "dead letters" { // which are away again
					other := channelNamed("other")
					w.apply(other)
					w.reconciled(other)
					w.reconciled(c)
					w.remove(other)
					w.reconciled(other)
					w.reconciled(c)
				}
				isBrought()
				w.pass(time.Hour)
				w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: 30 * time.Second}}})
				change(w, c, func(c *v1alpha1.RequestChannel) {
					c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](9), MessageRetentionSeconds: ptr.To[int32](60)}
					c.Spec.Tags = v1alpha1.Tags{"cost": "9"}
				})
				w.before = func(write string) error {
					if write == "patch status RequestChannel" {
						return errStopped
					}
					return nil
				}
				w.stopped(c)
				w.before = nil
				q, _ := w.sqs.Queue(w.named("login"))
				gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "60"), "it was set, and nothing says so")
				w.restart()
				if edit == "edited to and fro" {
					change(w, c, func(c *v1alpha1.RequestChannel) { full(&c.Spec) })
				} else {
					change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue, c.Spec.Tags = nil, v1alpha1.Tags{"cost": "2"} })
				}
				w.reconciled(c)
				q, _ = w.sqs.Queue(w.named("login"))
				if edit == "edited to and fro" {
					gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("DelaySeconds", "3"), gomega.HaveKeyWithValue("MessageRetentionPeriod", "600")))
					gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("cost", "1"))
				} else {
					gomega.Expect(q.Attributes).To(gomega.And(gomega.HaveKeyWithValue("DelaySeconds", "0"), gomega.HaveKeyWithValue("MessageRetentionPeriod", "345600")))
					gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("cost", "2"))
				}
			})
		}
	}
})
