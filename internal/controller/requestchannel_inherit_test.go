package controller_test

import (
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// giver is a fence that lets everything through, and gives this cluster the queues of another.
type giver struct{ from string }

func (*giver) MayDelete(string) error { return nil }

func (g *giver) AdoptsFrom(string) string { return g.from }

var _ = ginkgo.Describe("Queues of a cluster that a human gave to this one", func() {
	ginkgo.It("are taken over with what is in them, and nothing else is", func(ctx ginkgo.SpecContext) {
		w := newWorld(ctx)
		fence := &giver{}
		w.registry.Fence = fence
		owned := func(name, kind, object, cluster string) {
			_, err := w.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: map[string]string{
				v1alpha1.TagCluster: cluster, v1alpha1.TagKind: kind, v1alpha1.TagNamespace: w.namespace, v1alpha1.TagName: object, "team": "identity",
			}})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		name := w.named("login")
		owned(name, v1alpha1.TagKindRequest, "login", "former")
		owned(name+"_dlq", v1alpha1.TagKindDeadLetter, "login", "former")
		clusterOf := func(name string) string {
			q, _ := w.sqs.Queue(name)
			return q.Tags[v1alpha1.TagCluster]
		}

		c := channelNamed("login", withDeadLetter)
		w.apply(c)
		for _, from := range []string{"", "third"} {
			fence.from = from
			w.reconciled(c)
			gomega.Expect(c).To(beStalled(v1alpha1.ReasonNotOwned))
			gomega.Expect(clusterOf(name)).To(gomega.Equal("former"))
		}
		fence.from = "former"
		w.reconciled(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		for _, q := range []string{name, name + "_dlq"} {
			gomega.Expect(clusterOf(q)).To(gomega.Equal(clusterUID))
		}
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.ContainSubstring("taken over from the cluster with the UID former")))
		fence.from = ""
		w.reconciled(c)
		gomega.Expect(c).To(beReady())

		ginkgo.By("another object's queue is not inherited")
		other := w.named("other")
		owned(other, v1alpha1.TagKindRequest, "else", "former")
		fence.from = "former"
		o := channelNamed("other")
		w.apply(o)
		w.reconciled(o)
		gomega.Expect(o).To(beStalled(v1alpha1.ReasonNotOwned))
		gomega.Expect(clusterOf(other)).To(gomega.Equal("former"))
	})
})
