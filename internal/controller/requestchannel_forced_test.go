package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// fenced puts the fence that the operator runs with before the world's queues: of a new process, by what that ConfigMap holds.
func (w *world) fenced(identity string) *fence.Fence {
	ginkgo.GinkgoHelper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: identity}}
	if !w.exists(object) {
		w.apply(object)
	}
	f := &fence.Fence{
		Client: direct, Identity: client.ObjectKeyFromObject(object), ClusterUID: clusterUID, Providers: w.registry,
		Recorder: events.NewFakeRecorder(10000), Clock: w.clock,
		InUse: func(context.Context) ([]string, error) { return []string{v1alpha1.DefaultProviderName}, nil },
	}
	w.registry.Fence = f
	return f
}

// compared lets a fence compare that often, an interval apart.
func (w *world) compared(f *fence.Fence, times int) {
	for range times {
		w.pass(fence.DefaultInterval)
		f.Round(w.ctx)
	}
}

var _ = ginkgo.Describe("A deletion that is forced, with the fence", func() {
	var (
		w *world
		f *fence.Fence
		c *v1alpha1.RequestChannel
	)
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		f = w.fenced("identity")
		c = channelNamed("login")
		w.apply(c)
		w.reconciled(c)
		w.compared(f, 2)
		gomega.Expect(f.MayDelete(v1alpha1.DefaultProviderName)).To(gomega.Succeed())
	})
	force := func() {
		change(w, c, func(c *v1alpha1.RequestChannel) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
		})
	}
	// waits reconciles as often as it is asked to, for so long or until the channel is gone, while the fence goes on comparing.
	waits := func(within time.Duration) (asked int) {
		ginkgo.GinkgoHelper()
		end, compare := w.clock.Now().Add(within), w.clock.Now()
		for w.exists(c) && w.clock.Now().Before(end) {
			err := w.reconcile(c)
			asked++
			next := w.result.RequeueAfter
			if err != nil {
				next = time.Second // The workqueue backs off.
			}
			for until := w.clock.Now().Add(next); w.clock.Now().Before(until); {
				if !compare.After(w.clock.Now()) {
					f.Round(w.ctx)
					compare = w.clock.Now().Add(fence.DefaultInterval)
				}
				w.pass(time.Second)
			}
		}
		return asked
	}

	ginkgo.DescribeTable("leaves the queue behind where it cannot be found out whose it is", func(rules ...sqstest.Rule) {
		w.sqs.SetFaults(sqstest.Plan{Rules: rules})
		w.compared(f, 10) // What was proven before is old.
		w.remove(c)
		asked := waits(30 * time.Minute)
		gomega.Expect(w.exists(c)).To(gomega.BeTrue(), "nobody said that the queue may be left")
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonIdentityUnproven, "cannot be found out", "annotate the channel with "+v1alpha1.AnnotationForceDelete))
		gomega.Expect(asked).To(gomega.BeNumerically("<", 200), "there is no point in asking each second")
		force()
		w.heard()
		waits(5 * time.Minute)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventQueueAbandoned)))
		w.sqs.SetFaults(sqstest.Plan{})
		_, left := w.sqs.Queue(w.named("login"))
		gomega.Expect(left).To(gomega.BeTrue())
	},
		ginkgo.Entry("since the credentials are gone", sqstest.Rule{Fault: sqstest.AccessDenied}),
		ginkgo.Entry("since the endpoint is gone", sqstest.Rule{Fault: sqstest.ServerError}),
		ginkgo.Entry("since the marker is not permitted", sqstest.Rule{Fault: sqstest.AccessDenied, Queue: "*_identity"}),
	)

	ginkgo.DescribeTable("deletes the queue where that is merely not found out yet", func(trouble *sqstest.Rule) {
		w.pass(time.Hour)
		w.restart()
		f = w.fenced("identity")
		if trouble != nil {
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{*trouble}})
			f.Round(w.ctx)
			w.sqs.SetFaults(sqstest.Plan{})
		}
		force()
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonIdentityUnproven, "waited for first"))
		waits(5 * time.Minute)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		_, left := w.sqs.Queue(w.named("login"))
		gomega.Expect(left).To(gomega.BeFalse())
	},
		ginkgo.Entry("by a process that has just begun", nil),
		ginkgo.Entry("since SQS failed a moment ago", &sqstest.Rule{Fault: sqstest.ServerError}),
	)
})

var _ = ginkgo.Describe("What is measured of a QueueProvider's identity", func() {
	ginkgo.It("goes with the QueueProvider", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		p := w.providerFor()
		inUse := []string{p.Name}
		f := w.fenced("identity")
		metrics := prometheus.NewRegistry()
		f.Metrics = fence.NewMetrics(metrics)
		f.InUse = func(context.Context) ([]string, error) { return inUse, nil }
		w.queueTagged("rq_"+clusterName+"_identity", map[string]string{v1alpha1.TagCluster: "another"})
		w.compared(f, 3)
		gomega.Expect(testutil.GatherAndCount(metrics)).To(gomega.Equal(2), "the conflict, and comparisons with one outcome")
		inUse = nil
		w.compared(f, 1)
		gomega.Expect(testutil.GatherAndCount(metrics)).To(gomega.Equal(2), "its marker is kept, for as long as the QueueProvider is there")
		w.remove(p)
		w.reconciled(p)
		gomega.Expect(w.exists(p)).To(gomega.BeFalse())
		w.compared(f, 1)
		gomega.Expect(testutil.GatherAndCount(metrics)).To(gomega.BeZero())
	})
})
