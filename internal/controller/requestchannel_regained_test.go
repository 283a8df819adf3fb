package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// A cleaner of tags, Terraform or a human may take ownership tags off a queue, and give them back.
var _ = ginkgo.Describe("A queue that lost its ownership tags and has them again", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	// loses takes one of the tags off, and returns it.
	loses := func(c *v1alpha1.RequestChannel) map[string]string {
		ginkgo.GinkgoHelper()
		name := c.Spec.QueueName
		if name == "" {
			name = w.named("login")
		}
		lost := map[string]string{v1alpha1.TagCluster: w.there(name).Tags[v1alpha1.TagCluster]}
		w.untag(name, v1alpha1.TagCluster)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
		return lost
	}

	ginkgo.DescribeTable("keeps what people set on it, and its messages", func(observed bool, theirs map[string]string) {
		c := channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) {
			spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
		})
		w.apply(c)
		w.reconciled(c)
		w.set(w.named("login"), theirs)
		w.sendTo(w.named("login"))
		w.pass(5 * 24 * time.Hour)
		w.reconciled(c)
		before := w.there(w.named("login"))
		if observed {
			change(w, c, func(c *v1alpha1.RequestChannel) { observing(&c.Spec) })
			w.reconciled(c)
		}
		lost := loses(c)
		w.restart()
		w.tag(w.named("login"), lost)
		w.pass(10 * time.Minute)
		w.reconciled(c)
		if observed {
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.ManagementPolicy = v1alpha1.ManagementPolicyManage })
			w.reconciled(c)
		}
		w.pass(time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		after := w.there(w.named("login"))
		for name, value := range theirs {
			gomega.Expect(after.Attributes).To(gomega.HaveKeyWithValue(name, value))
		}
		gomega.Expect(after.Attributes).To(gomega.HaveKeyWithValue(queue.MessageRetentionPeriod, before.Attributes[queue.MessageRetentionPeriod]))
		gomega.Expect(after.Visible).To(gomega.Equal(before.Visible))
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
		w.reconciled(c)
		gomega.Expect(w.there(w.named("login")).Attributes).To(gomega.HaveKeyWithValue(queue.VisibilityTimeout, "30"), "which was the channel's")
	},
		ginkgo.Entry("a longer retention", false, map[string]string{queue.MessageRetentionPeriod: "1209600"}),
		ginkgo.Entry("a key of KMS", false, map[string]string{queue.KMSMasterKeyID: "alias/security"}),
		ginkgo.Entry("a longer retention, while the channel observes", true, map[string]string{queue.MessageRetentionPeriod: "1209600"}),
		ginkgo.Entry("a key of KMS, while the channel observes", true, map[string]string{queue.KMSMasterKeyID: "alias/security"}),
	)

	ginkgo.It("is told to be given them back, and not to be deleted", func() {
		c := channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		loses(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "give it back its tags", v1alpha1.TagCluster+"="+clusterUID))
		gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Message", gomega.ContainSubstring("elete"))))
		w.untag(w.named("login"), v1alpha1.TagKind, v1alpha1.TagNamespace, v1alpha1.TagName)
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "no owner", "give it back its tags", v1alpha1.TagName+"=login"))
		w.tag(w.named("login"), map[string]string{v1alpha1.TagCluster: "another", v1alpha1.TagKind: v1alpha1.TagKindRequest, v1alpha1.TagNamespace: "shop", v1alpha1.TagName: "vault"})
		w.pass(2 * time.Hour)
		w.reconciled(c)
		gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned, "shop/vault of cluster another", "let its owner tag it"))
	})

	ginkgo.It("has what was set on it meanwhile restored, though the process stopped before it was noted", func() {
		p := w.providerFor(allowing("orders"))
		c := channelNamed("login", using(p), called("orders")) // No creation notes what is set.
		w.apply(c)
		w.reconciled(c)
		lost := loses(c)
		w.tag("orders", lost)
		change(w, c, func(c *v1alpha1.RequestChannel) {
			c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](7)}
		})
		w.pass(10 * time.Minute)
		w.before = func(write string) error {
			if write == "patch status RequestChannel" && w.there("orders").Attributes[queue.DelaySeconds] == "7" {
				return errStopped
			}
			return nil
		}
		w.stopped(c)
		w.before = nil
		w.restart()
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
		w.pass(10 * time.Minute)
		w.reconciled(c)
		gomega.Expect(w.there("orders").Attributes).To(gomega.HaveKeyWithValue(queue.DelaySeconds, "0"))
	})
})
