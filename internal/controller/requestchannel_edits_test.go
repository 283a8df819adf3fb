package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// An edit that arrives between the read and a write of the channel comes back with the write. Nothing else of the edit is
// ever seen by the reconcile, so an edit before a request to SQS is one before the next write.
var _ = ginkgo.Describe("An edit while a reconcile goes on", func() {
	created := func(w *world) *v1alpha1.RequestChannel {
		c := channelNamed("login", withDeadLetter, bindingTo("login"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
			spec.Tags = v1alpha1.Tags{"team": "identity"}
		})
		w.apply(c)
		return c
	}
	changed := func(w *world) *v1alpha1.RequestChannel {
		c := created(w)
		w.settle(c)
		w.pass(20 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
			c.Spec.Tags = v1alpha1.Tags{"cost": "5"}
		})
		return c
	}
	edited := func(w *world, c *v1alpha1.RequestChannel) {
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](9)}
			c.Spec.Tags = v1alpha1.Tags{"cost": "9"}
			c.Spec.DeadLetter.MaxReceiveCount = 9
			c.Spec.Binding = &v1alpha1.Binding{SecretName: "login-9"}
		})
	}
	removed := func(w *world, c *v1alpha1.RequestChannel) { w.remove(c) }

	// lived is what there is in the end when the edit comes before write at of what begin gives to do; 0: after all of it.
	lived := func(ctx context.Context, begin func(*world) *v1alpha1.RequestChannel, edit func(*world, *v1alpha1.RequestChannel), at int) (end []string, writes int) {
		ginkgo.GinkgoHelper()
		w := newWorld(ctx)
		c := begin(w)
		w.before = func(write string) error {
			if strings.HasSuffix(write, "RequestChannel") {
				if writes++; writes == at {
					edit(w, c.DeepCopy())
				}
			}
			return nil
		}
		for done := false; !done; {
			alive, err := w.survives(c)
			gomega.Expect(alive).To(gomega.BeTrue())
			if err == nil {
				w.pass(min(w.result.RequeueAfter, time.Minute))
			}
			done = err == nil && (w.result.RequeueAfter > 30*time.Minute || writes >= at && at > 0)
		}
		w.before = nil
		if at == 0 {
			edit(w, c.DeepCopy())
		}
		w.settle(c)
		gomega.Expect(w.heard()).NotTo(gomega.ContainElement(gomega.ContainSubstring(controller.EventDriftCorrected)))
		end = w.state(c)
		if !w.exists(c) {
			// Kubernetes removes the Secret.
			return slices.DeleteFunc(end, func(line string) bool { return strings.HasPrefix(line, "secret ") }), writes
		}
		gomega.Expect(c).To(beReady())
		gomega.Expect(conditions.ObservedGeneration(c)).To(gomega.Equal(c.Generation))
		return end, writes
	}
	always := func(begin func(*world) *v1alpha1.RequestChannel, edit func(*world, *v1alpha1.RequestChannel)) func(context.Context) {
		return func(ctx context.Context) {
			ctx = context.WithoutCancel(ctx)
			want, writes := lived(ctx, begin, edit, 0)
			gomega.Expect(writes).To(gomega.BeNumerically(">=", 2))
			for at := 1; at <= writes; at++ {
				got, _ := lived(ctx, begin, edit, at)
				gomega.Expect(got).To(gomega.ConsistOf(want), fmt.Sprintf("before write %d of %d", at, writes))
			}
		}
	}
	ginkgo.It("of a new channel's spec is carried out, whichever write it comes before", always(created, edited))
	ginkgo.It("of a changed spec is carried out, whichever write it comes before", always(changed, edited))
	ginkgo.It("that deletes a new channel is carried out, whichever write it comes before", always(created, removed))

	ginkgo.It("that asks for a look is not taken for done by the look before", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		c := channelNamed("login", bindingTo("login"))
		w.apply(c)
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				w.before = nil
				change(w, c.DeepCopy(), func(c *v1alpha1.RequestChannel) {
					c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
				})
			}
			return nil
		}
		w.reconciled(c)
		gomega.Expect(c.Status.LastHandledReconcileAt).To(gomega.BeEmpty())
		requests, _ := w.costing(func() { w.reconciled(c) })
		gomega.Expect(requests).To(gomega.HaveKey("GetQueueAttributes"))
		gomega.Expect(c.Status.LastHandledReconcileAt).To(gomega.Equal("1"))
	})

	ginkgo.It("is waited for together with what was written after it, where the cache shows the edit alone", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.pass(20 * time.Minute)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		cached := c.DeepCopy()
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				w.before = nil
				change(w, cached, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
			}
			return nil
		}
		gomega.Expect(w.survives(c)).To(gomega.BeTrue())
		w.channels.Client = behind{w.client, cached}
		requests, writes := w.costing(func() { gomega.Expect(w.survives(c)).To(gomega.BeTrue()) })
		gomega.Expect(requests).To(gomega.BeEmpty())
		gomega.Expect(writes).To(gomega.BeEmpty())
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("~", time.Second, time.Second))
		w.channels.Client = w.client
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(w.sqs.Queues()[0].Attributes).To(gomega.HaveKeyWithValue("DelaySeconds", "0"))
	})

	ginkgo.It("is not waited for for ever, by an API server whose versions went back to a backup's", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		cached := c.DeepCopy()
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
		})
		w.reconciled(c)
		w.channels.Client = behind{w.client, cached}
		_, _ = w.survives(c)
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically("<", time.Second))
		w.pass(15 * time.Minute)
		_, _ = w.survives(c)
		gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", time.Second))
	})
})

// behind is a cache that shows a channel as it once was.
type behind struct {
	client.Client
	channel *v1alpha1.RequestChannel
}

func (b behind) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if c, ok := o.(*v1alpha1.RequestChannel); ok {
		b.channel.DeepCopyInto(c)
		return nil
	}
	return b.Client.Get(ctx, key, o, opts...)
}
