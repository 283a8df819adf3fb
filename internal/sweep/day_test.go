package sweep_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const (
	day = 24 * time.Hour
	// perDay is what fence and sweeper ask of SQS in a day, for each provider and up to a thousand queues: two requests
	// every ten seconds, and in each sweep two for the fence and one list.
	perDay = int(day/fence.DefaultInterval)*2 + int(day/sweep.DefaultInterval)*3
)

// TestADayOfLiveQueues has heartbeats, reconcilers, fence and sweeper at work for a day as the operator runs them. What it
// costs does not depend on how many reply queues live, and no request is about any of them.
func TestADayOfLiveQueues(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			d := newDay(t, n)
			before := d.sqs.RequestsByAction()
			about := map[string]int{}
			for _, name := range d.queues() {
				about[name] = d.sqs.Requests(sqstest.OnQueue(name))
			}
			if len(about) != n+1 {
				t.Fatalf("%d queues, want %d and the marker", len(about), n)
			}
			for at := fence.DefaultInterval; at <= day; at += fence.DefaultInterval {
				d.tenSeconds(at)
			}
			total := 0
			spent := d.sqs.RequestsByAction()
			maps.DeleteFunc(spent, func(action string, n int) bool {
				total += n - before[action]
				spent[action] = n - before[action]
				return spent[action] == 0
			})
			t.Logf("a day with %d live reply queues: %d SQS requests, %v", n, total, spent)
			if total != perDay {
				t.Errorf("%d SQS requests, want %d: %v", total, perDay, spent)
			}
			for name, requests := range about {
				if more := d.sqs.Requests(sqstest.OnQueue(name)) - requests; more != 0 && name != d.provider.IdentityQueueName() {
					t.Errorf("%d SQS requests were about %s", more, name)
				}
			}
			if len(d.queues()) != n+1 {
				t.Errorf("%d queues are left", len(d.queues()))
			}
		})
	}
}

// dayStage is an operator in a cluster in memory, whose clock the test owns.
type dayStage struct {
	*testing.T
	kube     client.Client
	identity *corev1.ConfigMap
	sqs      *sqstest.Server
	clock    *testingclock.FakeClock
	provider *queue.Provider
	signals  *controller.Signals
	fence    *fence.Fence
	sweeper  *sweep.Sweeper
	pods     []*corev1.Pod
	leases   []*coordinationv1.Lease

	podReconciler    reconcile.Reconciler
	hostReconciler   reconcile.Reconciler
	recordReconciler reconcile.Reconciler
}

func newDay(t *testing.T, n int) *dayStage {
	scheme := runtime.NewScheme()
	d := &dayStage{T: t, sqs: sqstest.NewServer(t), clock: testingclock.NewFakeClock(time.Now()), identity: &corev1.ConfigMap{}}
	d.must(clientgoscheme.AddToScheme(scheme))
	d.must(v1alpha1.AddToScheme(scheme))
	const namespace = "shop"
	builder := fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&v1alpha1.ReplyQueue{}, &v1alpha1.ReplyHost{}, &corev1.Pod{}).
		WithObjects(&v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web", UID: newUID()}})
	d.must(controller.IndexLifecycle(t.Context(), indexer{builder}))
	d.kube = interceptor.NewClient(builder.Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			o.SetUID(newUID())
			return c.Create(ctx, o, opts...)
		},
		// The ConfigMap is written 8,640 times a day, for which the client in memory takes half a minute.
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if identity, ok := o.(*corev1.ConfigMap); ok {
				d.identity.DeepCopyInto(identity)
				return nil
			}
			return c.Get(ctx, key, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if identity, ok := o.(*corev1.ConfigMap); ok {
				d.identity = identity.DeepCopy()
				return nil
			}
			return c.Update(ctx, o, opts...)
		},
	})

	d.provider = &queue.Provider{Name: v1alpha1.DefaultProviderName, Prefix: "rq", Cluster: "c", ClusterUID: clusterUID, API: d.sqs.Client()}
	inUse := func(context.Context) ([]string, error) { return []string{d.provider.Name}, nil }
	recorder := &events.FakeRecorder{}
	d.fence = &fence.Fence{
		Client: d.kube, Identity: client.ObjectKey{Namespace: "replyqueue-system", Name: "replyqueue-identity"}, ClusterUID: clusterUID,
		Providers: d, InUse: inUse, Recorder: recorder, Clock: d.clock,
	}
	d.provider.Fence = d.fence
	d.signals = &controller.Signals{
		Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Clock: d.clock, Guarded: func() bool { return true },
	}
	d.sweeper = &sweep.Sweeper{
		Client: d.kube, Reader: d.kube, Providers: d, InUse: inUse, Fence: d.fence, ClusterUID: clusterUID, Clock: d.clock,
		Missing: func(_ context.Context, record types.NamespacedName, _ types.UID) {
			d.Errorf("the queue of %s is missed", record)
		},
	}
	d.podReconciler = &controller.PodReconciler{Client: d.kube, Reader: d.kube, Recorder: recorder, Providers: d, Signals: d.signals}
	d.hostReconciler = &controller.ReplyHostReconciler{Client: d.kube, Recorder: recorder, Providers: d, Signals: d.signals}
	d.recordReconciler = &controller.ReplyQueueReconciler{Client: d.kube, Reader: d.kube, Recorder: recorder, Providers: d, Signals: d.signals, ClusterUID: clusterUID}

	d.signals.Heartbeats.Replace(nil, d.clock.Now())
	d.beacon()
	for i := range n {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: fmt.Sprintf("web-%d", i), Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
				Annotations: map[string]string{v1alpha1.AnnotationInjected: v1alpha1.HeartbeatAnnotationLease, v1alpha1.AnnotationReplyHost: "web"},
			},
			Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}
		d.must(d.kube.Create(t.Context(), p))
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", ContainerID: "x://1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
		d.must(d.kube.Status().Update(t.Context(), p))
		d.pods = append(d.pods, p)
	}
	d.fence.Round(t.Context())
	for range 6 {
		d.reconcile()
	}
	for _, p := range d.pods {
		l := &coordinationv1.Lease{}
		d.must(d.kube.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}, l))
		d.leases = append(d.leases, l)
		d.signals.Heartbeats.Apply(l, d.clock.Now())
		d.beat(l) // and so all are told of the interval, which is the first heartbeat's notice
	}
	d.reconcile()
	return d
}

// tenSeconds lets that time go by: beacons and heartbeats arrive, counts are looked at, the nonce changes, and every five
// minutes there is a sweep. Once an hour everything is reconciled, as if for another reason.
func (d *dayStage) tenSeconds(at time.Duration) {
	d.clock.Step(fence.DefaultInterval)
	d.beacon()
	if at%time.Minute == 0 {
		for _, l := range d.leases {
			if notices := d.beat(l); len(notices) > 0 {
				d.Fatalf("after %s a heartbeat calls for a reconcile", at)
			}
		}
	}
	if notices := d.signals.Heartbeats.Tick(d.clock.Now()); len(notices) > 0 {
		d.Fatalf("after %s somebody is silent: %v", at, notices)
	}
	d.fence.Round(d.Context())
	if at%sweep.DefaultInterval == 0 {
		d.must(d.sweeper.Pass(d.Context()))
	}
	if at%time.Hour == 0 {
		d.reconcile()
	}
}

func (d *dayStage) beacon() {
	for range 2 {
		d.signals.Heartbeats.Apply(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: heartbeat.BeaconName}, Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(d.clock.Now()))},
		}, d.clock.Now())
	}
}

func (d *dayStage) beat(l *coordinationv1.Lease) []heartbeat.Notice {
	l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(d.clock.Now()))
	return d.signals.Heartbeats.Apply(l, d.clock.Now())
}

func (d *dayStage) reconcile() {
	d.Helper()
	one := func(r reconcile.Reconciler, key client.ObjectKey) {
		d.Helper()
		_, err := r.Reconcile(d.Context(), reconcile.Request{NamespacedName: key})
		d.must(err)
	}
	one(d.hostReconciler, client.ObjectKey{Namespace: "shop", Name: "web"})
	for _, p := range d.pods {
		one(d.podReconciler, client.ObjectKeyFromObject(p))
	}
	var records v1alpha1.ReplyQueueList
	d.must(d.kube.List(d.Context(), &records))
	for i := range records.Items {
		one(d.recordReconciler, client.ObjectKeyFromObject(&records.Items[i]))
	}
}

func (d *dayStage) queues() (names []string) {
	for _, q := range d.sqs.Queues() {
		names = append(names, q.Name)
	}
	return names
}

func (d *dayStage) Get(context.Context, string, string) (*queue.Provider, error) {
	return d.provider, nil
}

func (d *dayStage) ForDeletion(context.Context, string) (*queue.Provider, error) {
	return d.provider, nil
}

func (d *dayStage) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// indexer gives the client in memory the indexes of the operator's cache.
type indexer struct{ *fake.ClientBuilder }

func (i indexer) IndexField(_ context.Context, o client.Object, field string, values client.IndexerFunc) error {
	i.WithIndex(o, field, values)
	return nil
}
