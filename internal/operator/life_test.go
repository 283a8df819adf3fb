package operator_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The whole operator, leading, under the shipped permissions: what it lacks shows as a step that is never
// reached, and as "forbidden" in its log.
var _ = Describe("The life of a requester", Serial, func() {
	It("runs its course under the shipped permissions", func(ctx SpecContext) {
		sqs, log := leading(ctx)
		queues := func() (names []string) {
			for _, q := range sqs.Queues() {
				names = append(names, q.Name)
			}
			return names
		}

		By("a pod that comes first waits for its channel and its host")
		ns := namespace(ctx)
		pod := plainPod(ns)
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationCalls: "sum", v1alpha1.AnnotationReplyHost: "web"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		get := func(g Gomega) *corev1.Pod {
			var now corev1.Pod
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), &now)).To(Succeed())
			return &now
		}
		Eventually(ctx, func(g Gomega) {
			now := get(g)
			g.Expect(now.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationWaitingFor, ContainSubstring("sum")))
			g.Expect(now.Spec.SchedulingGates).To(HaveLen(1))
		}).Should(Succeed())

		By("the channel and the host arrive, and with them the addresses")
		channel := &v1alpha1.RequestChannel{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sum"},
			Spec:       v1alpha1.RequestChannelSpec{DeadLetter: &v1alpha1.DeadLetter{MaxReceiveCount: 5, Queue: &v1alpha1.DeadLetterQueue{}}},
		}
		host := &v1alpha1.ReplyHost{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
			Spec:       v1alpha1.ReplyHostSpec{Identity: v1alpha1.IdentityPod, DrainSeconds: ptr.To[int32](0)},
		}
		Expect(admin.Create(ctx, channel)).To(Succeed())
		Expect(admin.Create(ctx, host)).To(Succeed())
		var url string
		Eventually(ctx, func(g Gomega) {
			now := get(g)
			g.Expect(now.Spec.SchedulingGates).To(BeEmpty())
			g.Expect(now.Annotations).To(And(HaveKey("url.replyqueue.dev/sum"), Not(HaveKey(v1alpha1.AnnotationWaitingFor))))
			url = now.Annotations[v1alpha1.AnnotationReplyQueueURL]
		}).Should(Succeed())
		Eventually(ctx, queues).Should(ConsistOf(HaveSuffix("_sum"), HaveSuffix("_sum_dlq"), ContainSubstring("_r_"), HaveSuffix("_identity")))
		Expect(queues()).To(ContainElement(And(ContainSubstring("_r_"), HaveSuffix(url[strings.LastIndex(url, "/")+1:]))))

		By("the application renews its heartbeat with the pod's own token, and is told its queue")
		bearer, err := client.New(as(token(ctx, ns, "default", pod)), client.Options{Scheme: operator.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(pod.UID)}}
		Expect(bearer.Patch(ctx, lease, client.RawPatch(types.MergePatchType,
			fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, metav1.NowMicro().UTC().Format(metav1.RFC3339Micro))))).To(Succeed())
		Expect(lease.Annotations).To(HaveKeyWithValue(injected.LeaseReplyQueueURL, url))

		By("the kubelet reports the end of the pod, and the reply queue, its record and its Lease go")
		now := get(Default)
		now.Status.Phase = corev1.PodSucceeded
		now.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", Image: "i", ImageID: "i", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: metav1.Now()}}}}
		Expect(admin.Status().Update(ctx, now)).To(Succeed())
		Expect(admin.Delete(ctx, now, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(ctx, queues).ShouldNot(ContainElement(ContainSubstring("_r_")))
		Eventually(ctx, func(g Gomega) {
			var records v1alpha1.ReplyQueueList
			g.Expect(admin.List(ctx, &records, client.InNamespace(ns))).To(Succeed())
			g.Expect(records.Items).To(BeEmpty())
			g.Expect(apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(lease), lease))).To(BeTrue())
		}).Should(Succeed())

		By("the channel and the host are deleted, and nothing is left but the marker, which other specs' channels may need")
		Expect(admin.Delete(ctx, channel)).To(Succeed())
		Expect(admin.Delete(ctx, host)).To(Succeed())
		Eventually(ctx, queues).Should(HaveEach(HaveSuffix("_identity")))
		for _, object := range []client.Object{channel, host} {
			Eventually(ctx, func() bool {
				return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(object), object))
			}).Should(BeTrue())
		}
		Expect(log.seen()).To(BeEmpty())
	}, SpecTimeout(time.Minute))

	It("ends at the gate for pods that lose their label there, whether an operator leads or not", func(ctx SpecContext) {
		ns := namespace(ctx)
		before := plainPod(ns)
		before.Annotations = map[string]string{v1alpha1.AnnotationInjected: v1alpha1.HeartbeatAnnotationLease}
		before.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.SchedulingGate}}
		Expect(admin.Create(ctx, before)).To(Succeed())
		_, log := leading(ctx)
		pod := plainPod(ns)
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationReplyHost: "none"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Spec.SchedulingGates).To(HaveLen(1))
		Expect(admin.Patch(ctx, pod, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, v1alpha1.LabelInject)))).To(Succeed())
		for _, p := range []*corev1.Pod{before, pod} {
			Eventually(ctx, func(g Gomega) {
				var now corev1.Pod
				g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(p), &now)).To(Succeed())
				g.Expect(now.Spec.SchedulingGates).To(BeEmpty())
				g.Expect(now.Annotations).NotTo(HaveKey(v1alpha1.AnnotationWaitingFor))
			}).Should(Succeed())
		}
		Expect(log.seen()).To(BeEmpty())
	}, SpecTimeout(time.Minute))
})

var _ = Describe("A replica that does not lead", Serial, func() {
	It("finds out whose the queues are, and changes nothing", func(ctx SpecContext) {
		sqs := sqstest.New()
		DeferCleanup(sqs.Close)
		cfg := operatorConfig(ctx)
		cfg.FenceInterval = time.Second
		cfg.Connect = func(context.Context, string, string, string) (queue.API, string, string, error) {
			return sqs.Client(), "us-east-1", "", nil
		}
		Expect(running.stop()).To(Succeed())
		lead(ctx, "a replica elsewhere")
		var identity corev1.ConfigMap
		key := client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.IdentityConfigMapName}
		Expect(admin.Get(ctx, key, &identity)).To(Succeed())
		was := identity.Data["fence"]
		DeferCleanup(func(ctx SpecContext) {
			Expect(running.stop()).To(Succeed())
			Expect(admin.Patch(ctx, &identity, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"data":{"fence":%q}}`, was)))).To(Succeed())
			running = start(operatorConfig(ctx))
			Eventually(ctx, running.ready).Should(Succeed())
		})
		name := identity.Data["queueNamePrefix"] + "_" + identity.Data["clusterName"] + "_identity"
		_, err := sqs.Client().CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &name})
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Patch(ctx, &identity, client.RawPatch(types.MergePatchType, []byte(`{"data":{"fence":"{\"default\":{\"nonces\":[\"a\"],\"seen\":true}}"}}`)))).To(Succeed())
		sqs.ResetRequests()
		running = start(cfg)
		Eventually(ctx, running.ready).Should(Succeed())
		Eventually(ctx, func() int { return sqs.Requests(sqstest.Action("ListQueueTags")) }).Should(BeNumerically(">", 1))
		Expect(sqs.RequestsByAction()).To(And(HaveLen(2), HaveKey("GetQueueUrl")))
		Expect(admin.Get(ctx, key, &identity)).To(Succeed())
		Expect(identity.Data["fence"]).To(Equal(`{"default":{"nonces":["a"],"seen":true}}`))
	}, SpecTimeout(time.Minute))
})

// leading lets an operator lead for the rest of the spec, with an SQS server of its own, and what is shipped for IAM.
func leading(ctx context.Context) (*sqstest.Server, *denials) {
	GinkgoHelper()
	sqs, log := sqstest.New(), &denials{}
	cfg := operatorConfig(ctx)
	cfg.Log = funcr.New(log.line, funcr.Options{})
	cfg.FenceInterval, cfg.SweepInterval = time.Second, time.Second
	cfg.Connect = func(context.Context, string, string, string) (queue.API, string, string, error) {
		return sqs.Client(asOperator), "us-east-1", "", nil
	}
	access, err := operatorsAccess()
	Expect(err).NotTo(HaveOccurred())
	sqs.SetAccess(access...)
	Expect(running.stop()).To(Succeed())
	// What was claimed at the last server is none of this one's: its marker would be missed.
	identity := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operator.DefaultNamespace, Name: operator.IdentityConfigMapName}}
	Expect(admin.Patch(ctx, identity, client.RawPatch(types.MergePatchType, []byte(`{"data":{"fence":null,"status":null}}`)))).To(Succeed())
	running = start(cfg)
	DeferCleanup(func(ctx SpecContext) {
		Expect(running.stop()).To(Succeed())
		lead(ctx, "a replica elsewhere")
		running = start(operatorConfig(ctx))
		Eventually(ctx, running.ready).Should(Succeed())
	})
	lead(ctx, "")
	Eventually(ctx, running.ready).Should(Succeed())
	return sqs, log
}

// denials keeps the lines of a log that speak of a missing permission.
type denials struct {
	mu    sync.Mutex
	lines []string
}

func (d *denials) line(prefix, args string) {
	if strings.Contains(args, "forbidden") || strings.Contains(args, "Forbidden") || strings.Contains(args, "not authorized") {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lines = append(d.lines, prefix+args)
	}
	fmt.Fprintln(GinkgoWriter, prefix, args)
}

func (d *denials) seen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lines
}
