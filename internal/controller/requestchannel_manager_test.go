package controller_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The one place in the suite where the real watches, caches and workers run, and where something is waited for.
var _ = ginkgo.Describe("Channels under a manager", func() {
	const patience = 60 * time.Second
	var w *world
	var clock *shiftedClock
	ginkgo.BeforeEach(func(ctx context.Context) {
		w, clock = newWorld(context.WithoutCancel(ctx)), &shiftedClock{}
	})

	// operate runs the controllers until the returned function is called.
	operate := func() (stop func()) {
		ginkgo.GinkgoHelper()
		mgr, err := ctrl.NewManager(environment.Config, ctrl.Options{
			Scheme: direct.Scheme(), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)},
			Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{w.namespace: {}}},
		})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		w.restart()
		w.registry.Reader = mgr.GetClient()
		channels := &controller.RequestChannelReconciler{Client: mgr.GetClient(), Providers: w.registry, Recorder: w.recorder, Clock: clock}
		gomega.Expect(channels.SetupWithManager(mgr)).To(gomega.Succeed())
		providers := &controller.QueueProviderReconciler{Client: mgr.GetClient(), Clients: w.registry, Recorder: w.recorder}
		gomega.Expect(providers.SetupWithManager(mgr)).To(gomega.Succeed())
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error)
		go func() { done <- mgr.Start(ctx) }()
		stop = func() {
			cancel()
			gomega.Expect(<-done).To(gomega.Succeed())
		}
		return stop
	}
	ready := func(g gomega.Gomega, n int) {
		var list v1alpha1.RequestChannelList
		g.Expect(direct.List(w.ctx, &list, client.InNamespace(w.namespace))).To(gomega.Succeed())
		g.Expect(list.Items).To(gomega.HaveLen(n))
		for i := range list.Items {
			g.Expect(&list.Items[i]).To(beReady())
		}
	}

	ginkgo.It("cost three requests each, none after a restart, and go when they are deleted", func() {
		const n = 40
		stop := operate()
		for i := range n {
			w.apply(channelNamed(fmt.Sprintf("c%d", i)))
		}
		gomega.Eventually(func(g gomega.Gomega) { ready(g, n) }).WithTimeout(patience).Should(gomega.Succeed())
		stop()
		gomega.Expect(w.sqs.Requests()).To(gomega.Equal(3 * n))

		stop = operate()
		defer func() { stop() }()
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "responder", Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue}, Annotations: map[string]string{v1alpha1.AnnotationServes: "c0"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}
		w.apply(pod)
		counted := channelNamed("c0")
		counted.Namespace = w.namespace
		gomega.Eventually(func(g gomega.Gomega) {
			g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(counted), counted)).To(gomega.Succeed())
			g.Expect(counted.Status.Responders).To(gomega.HaveValue(gomega.HaveField("Total", gomega.HaveValue(gomega.BeEquivalentTo(1)))))
		}).WithTimeout(patience).Should(gomega.Succeed())
		gomega.Expect(w.sqs.Requests()).To(gomega.Equal(3*n), "a restart, and a responder, cost no request")

		gomega.Expect(direct.DeleteAllOf(w.ctx, &v1alpha1.RequestChannel{}, client.InNamespace(w.namespace))).To(gomega.Succeed())
		gomega.Eventually(func(g gomega.Gomega) {
			// A process that has just begun thinks for a minute that its predecessor's dead-letter queue may yet appear.
			clock.ahead.Add(int64(time.Minute))
			ready(g, 0)
		}).WithTimeout(patience).Should(gomega.Succeed())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		gomega.Expect(w.sqs.Requests(sqstest.Action("DeleteQueue"))).To(gomega.Equal(n))
	})

	ginkgo.It("are all woken by what closes a ring of dead letters, and by what opens it", func() {
		stop := operate()
		defer func() { stop() }()
		a, b, c := channelNamed("a", deadTo("b")), channelNamed("b", deadTo("c")), channelNamed("c")
		w.apply(a, b, c)
		gomega.Eventually(func(g gomega.Gomega) { ready(g, 3) }).WithTimeout(patience).Should(gomega.Succeed())
		for _, byARN := range []bool{false, true} {
			if byARN {
				gomega.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(c), c)).To(gomega.Succeed())
				_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &c.Status.QueueURL, Tags: map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace}})
				gomega.Expect(err).NotTo(gomega.HaveOccurred())
				change(w, b, func(b *v1alpha1.RequestChannel) { deadToARN(c)(&b.Spec) })
				gomega.Eventually(func(g gomega.Gomega) { ready(g, 3) }).WithTimeout(patience).Should(gomega.Succeed())
			}
			change(w, c, func(c *v1alpha1.RequestChannel) { deadTo("a")(&c.Spec) })
			gomega.Eventually(func(g gomega.Gomega) {
				for _, channel := range []*v1alpha1.RequestChannel{a, b, c} {
					g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(channel), channel)).To(gomega.Succeed())
					g.Expect(channel).To(beStalled(v1alpha1.ReasonDeadLetterNotAllowed, "round for ever"))
				}
			}).WithTimeout(patience).Should(gomega.Succeed())
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter = nil })
			gomega.Eventually(func(g gomega.Gomega) { ready(g, 3) }).WithTimeout(patience).Should(gomega.Succeed())
		}
	})

	ginkgo.It("are woken by what they wait for: a provider, a dead-letter channel", func() {
		stop := operate()
		defer func() { stop() }()
		p := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "p-" + w.namespace}}
		waits := channelNamed("waits", using(p))
		mourns := channelNamed("mourns", func(spec *v1alpha1.RequestChannelSpec) {
			spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, ChannelRef: &v1alpha1.ChannelReference{Name: "morgue"}}
		})
		w.apply(waits, mourns)
		gomega.Eventually(func(g gomega.Gomega) {
			g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(waits), waits)).To(gomega.Succeed())
			g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(mourns), mourns)).To(gomega.Succeed())
			g.Expect(waits).To(beReconciling(v1alpha1.ReasonWaitingForProvider))
			g.Expect(mourns).To(beReconciling(v1alpha1.ReasonWaitingForDeadLetter))
		}).WithTimeout(patience).Should(gomega.Succeed())
		w.providerFor()
		w.apply(channelNamed("morgue"))
		gomega.Eventually(func(g gomega.Gomega) { ready(g, 3) }).WithTimeout(patience).Should(gomega.Succeed())

		w.remove(p)
		gomega.Eventually(func(g gomega.Gomega) {
			g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(p), p)).To(gomega.Succeed())
			g.Expect(p).To(haveCondition(v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonObjectsUseIt))
		}).WithTimeout(patience).Should(gomega.Succeed())
		w.remove(waits)
		gomega.Eventually(func() bool {
			return apierrors.IsNotFound(direct.Get(w.ctx, client.ObjectKeyFromObject(p), p))
		}).WithTimeout(patience).Should(gomega.BeTrue(), "the provider goes when its last user is gone")
	})

	ginkgo.It("are woken by the end of whoever claims their name, though others hold that still", func() {
		stop := operate()
		defer func() { stop() }()
		p := w.providerFor(allowing("orders"))
		a, b := channelNamed("a", using(p), called("orders")), channelNamed("b", using(p), called("orders"))
		a.Finalizers = []string{"example.com/held"}
		w.apply(a)
		gomega.Eventually(func(g gomega.Gomega) { ready(g, 1) }).WithTimeout(patience).Should(gomega.Succeed())
		clock.ahead.Add(int64(2 * time.Minute))
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "DeleteQueue"}}})
		w.remove(a)
		w.apply(b)
		eventually := func(channel *v1alpha1.RequestChannel, is gomega.OmegaMatcher) {
			ginkgo.GinkgoHelper()
			gomega.Eventually(func(g gomega.Gomega) {
				g.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(channel), channel)).To(gomega.Succeed())
				g.Expect(channel).To(is)
			}).WithTimeout(patience).Should(gomega.Succeed())
		}
		eventually(a, beStalled(v1alpha1.ReasonAccessDenied))
		eventually(b, beStalled(v1alpha1.ReasonNotOwned))
		w.sqs.SetFaults(sqstest.Plan{})
		change(w, a, func(a *v1alpha1.RequestChannel) {
			a.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
		})
		eventually(b, beReconciling(v1alpha1.ReasonQueueDeletedRecently))
		gomega.Expect(w.exists(a)).To(gomega.BeTrue())
		change(w, a, func(a *v1alpha1.RequestChannel) { a.Finalizers = nil })
	})
})

// shiftedClock is the system's, ahead by a time that a test chooses.
type shiftedClock struct{ ahead atomic.Int64 }

func (c *shiftedClock) Now() time.Time                  { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *shiftedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
