package controller

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// stage is a namespace on a real API server with the reconcilers of the lifecycle, called directly, an SQS server in
// process, and a clock that the test owns. There is no kubelet: the test says what becomes of pods.
type stage struct {
	*testing.T
	client.Client
	ctx       context.Context
	namespace string
	sqs       *sqstest.Server
	clock     *testingclock.FakeClock
	signals   *Signals
	guarded   bool
	recorder  *events.FakeRecorder
	said      []string
	pods      *PodReconciler
	hosts     *ReplyHostReconciler
	records   *ReplyQueueReconciler
	beacons   int
	beats     int
	seenPods  map[types.UID]*corev1.Pod
	seenLease map[string]*coordinationv1.Lease
	// writes counts what is written to the API server; intercept sees each, and may fail it.
	writes    int
	intercept func(verb string, object client.Object) error
	// afterWrite is called when a write, to the API server or to SQS, has had its effect.
	afterWrite func()
	// onTick is called whenever pass lets a few seconds go by.
	onTick func()
}

// apiServer is the one that all tests of this package share, with a client that remembers nothing.
var apiServer = sync.OnceValues(func() (client.WithWatch, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	environment = &envtest.Environment{CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true}
	config, err := environment.Start()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 1000, 1000
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return c, c.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.HeartbeatNamespace}})
})

// APIServer is what the specs of the package controller_test share with the stages: the API server, and a client.
func APIServer() (*envtest.Environment, client.WithWatch, error) {
	c, err := apiServer()
	return environment, c, err
}

// sharedEnvironment is the client of all stages.
var sharedEnvironment = sync.OnceValues(func() (client.WithWatch, error) {
	c, err := apiServer()
	if err != nil {
		return nil, err
	}
	return remembering(c), nil
})

var environment *envtest.Environment

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code := m.Run()
	if environment != nil {
		if err := environment.Stop(); err != nil {
			println("could not stop the API server:", err.Error())
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// crashing tells the stage of each request to SQS that writes, once it has had its effect.
type crashing struct {
	queue.API
	stage *stage
}

func (c crashing) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, opts ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	out, err := c.API.CreateQueue(ctx, in, opts...)
	return out, c.after(err)
}

func (c crashing) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, opts ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	out, err := c.API.DeleteQueue(ctx, in, opts...)
	return out, c.after(err)
}

func (c crashing) after(err error) error {
	if err == nil && c.stage.afterWrite != nil {
		c.stage.afterWrite()
	}
	return err
}

// withoutPods is a cache that holds no pods: the pods' label was removed.
type withoutPods struct{ client.Client }

func (w withoutPods) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, ok := o.(*corev1.Pod); ok {
		return apierrors.NewNotFound(corev1.Resource("pods"), key.Name)
	}
	return w.Client.Get(ctx, key, o, opts...)
}

// onlyProvider is a queue.Providers with one provider, open to all.
type onlyProvider struct{ *queue.Provider }

func (p onlyProvider) Get(_ context.Context, name, _ string) (*queue.Provider, error) {
	if name != v1alpha1.DefaultProviderName {
		return nil, queue.ErrProviderNotFound
	}
	return p.Provider, nil
}

func newStage(t *testing.T) *stage {
	t.Helper()
	direct, err := sharedEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{
		T: t, ctx: t.Context(), sqs: sqstest.New(), clock: testingclock.NewFakeClock(time.Now()), guarded: true,
		recorder: events.NewFakeRecorder(1000), seenPods: map[types.UID]*corev1.Pod{}, seenLease: map[string]*coordinationv1.Lease{},
	}
	t.Cleanup(s.sqs.Close)
	s.Client = interceptor.NewClient(direct, s.interceptors())
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "stage-"}}
	s.must(direct.Create(s.ctx, ns))
	s.namespace = ns.Name
	s.signals = &Signals{
		Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Clock: s.clock,
		Guarded: func() bool { return s.guarded },
	}
	providers := onlyProvider{&queue.Provider{Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c", ClusterUID: "uid", API: crashing{s.sqs.Client(noRetries), s}}}
	s.pods = &PodReconciler{Client: s, Reader: s, Recorder: s.recorder, Providers: providers, Signals: s.signals}
	s.hosts = &ReplyHostReconciler{Client: s, Recorder: s.recorder, Providers: providers, Signals: s.signals}
	s.records = &ReplyQueueReconciler{Client: s, Reader: s, Recorder: s.recorder, Providers: providers, Signals: s.signals, ClusterUID: "uid"}
	s.signals.Heartbeats.Replace(nil, s.clock.Now())
	s.listen()
	s.beacon()
	t.Cleanup(s.clean)
	return s
}

// noRetries makes a client as the operator's own: what failed is tried again by the workqueue alone.
func noRetries(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

// newReadyStage is a stage with the channel login and the ReplyHost web, which caller's pods name.
func newReadyStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.channel("login")
	s.host("web", nil)
	return s
}

// interceptors count writes, and answer List by our own indexes, which the API server does not know.
func (s *stage) interceptors() interceptor.Funcs {
	write := func(verb string, o client.Object) error {
		s.writes++
		if s.intercept != nil {
			return s.intercept(verb, o)
		}
		return nil
	}
	after := func(err error) error {
		if err == nil && s.afterWrite != nil {
			s.afterWrite()
		}
		return err
	}
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := write("create", o); err != nil {
				return err
			}
			return after(c.Create(ctx, o, opts...))
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if err := write("update", o); err != nil {
				return err
			}
			return after(c.Update(ctx, o, opts...))
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := write("patch", o); err != nil {
				return err
			}
			return after(c.Patch(ctx, o, p, opts...))
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if err := write("delete", o); err != nil {
				return err
			}
			return after(c.Delete(ctx, o, opts...))
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			if err := write("patch "+sub, o); err != nil {
				return err
			}
			return after(c.SubResource(sub).Patch(ctx, o, p, opts...))
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			options := (&client.ListOptions{}).ApplyOptions(opts)
			if options.FieldSelector == nil || strings.HasPrefix(options.FieldSelector.Requirements()[0].Field, "spec.") {
				return c.List(ctx, l, opts...)
			}
			requirement := options.FieldSelector.Requirements()[0]
			options.FieldSelector = nil
			if err := c.List(ctx, l, options); err != nil {
				return err
			}
			return filter(l, requirement.Field, requirement.Value)
		},
	}
}

// filter keeps the items that one of our indexes gives the value.
func filter(list client.ObjectList, index, value string) error {
	collected := &indexes{functions: map[string]client.IndexerFunc{}}
	if err := IndexLifecycle(context.Background(), collected); err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(o runtime.Object) bool {
		return !slices.Contains(collected.functions[index](o.(client.Object)), value)
	})
	return meta.SetList(list, items)
}

type indexes struct {
	functions map[string]client.IndexerFunc
}

func (i *indexes) IndexField(_ context.Context, _ client.Object, name string, f client.IndexerFunc) error {
	i.functions[name] = f
	return nil
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// listen delivers to the ledger what changed on Leases.
func (s *stage) listen() {
	s.Helper()
	var leases coordinationv1.LeaseList
	s.must(s.List(s.ctx, &leases, client.InNamespace(v1alpha1.HeartbeatNamespace), client.MatchingLabels{v1alpha1.LabelPodNamespace: s.namespace}))
	seen := map[string]*coordinationv1.Lease{}
	for i := range leases.Items {
		l := &leases.Items[i]
		seen[l.Name] = l
		if had := s.seenLease[l.Name]; had == nil || had.ResourceVersion != l.ResourceVersion {
			s.signals.Heartbeats.Apply(l, s.clock.Now())
		}
	}
	for name := range s.seenLease {
		if seen[name] == nil {
			s.signals.Heartbeats.Remove(types.UID(name), s.clock.Now())
		}
	}
	s.seenLease = seen
}

func (s *stage) beacon() { s.beaconTo(s.signals) }

// beaconTo delivers a beacon to one operator.
func (s *stage) beaconTo(signals *Signals) {
	s.beacons++
	signals.Heartbeats.Apply(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: heartbeat.BeaconName},
		Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(time.Unix(int64(s.beacons), 0)))},
	}, s.clock.Now())
}

// settle calls every reconciler for every object until nothing is written any more.
func (s *stage) settle() {
	s.Helper()
	for range 20 {
		before, requests := s.writes, s.sqs.Requests()
		s.round()
		if s.writes == before && s.sqs.Requests() == requests {
			s.drainEvents()
			s.checkStatuses()
			return
		}
	}
	s.Fatal("the reconcilers never come to rest")
}

// round calls every reconciler once for every object there is, and for every pod that went.
func (s *stage) round() {
	s.Helper()
	s.listen()
	var pods corev1.PodList
	s.must(s.List(s.ctx, &pods, client.InNamespace(s.namespace)))
	seen := map[types.UID]*corev1.Pod{}
	for i := range pods.Items {
		seen[pods.Items[i].UID] = &pods.Items[i]
	}
	for uid, last := range s.seenPods {
		if seen[uid] == nil {
			// The deletion event of a watch carries the last state, which is noted of pods that read a queue (seeLast).
			if len(s.recordsOf(last)) > 0 {
				s.signals.Pods.SeeLast(uid, lifecycle.LastStateOf(last), s.signals.view(s.clock.Now()))
			}
			s.reconcile(s.pods, last.Name)
		}
	}
	s.seenPods = seen
	for _, p := range pods.Items {
		s.reconcile(s.pods, p.Name)
	}
	var hosts v1alpha1.ReplyHostList
	s.must(s.List(s.ctx, &hosts, client.InNamespace(s.namespace)))
	for _, h := range hosts.Items {
		s.reconcile(s.hosts, h.Name)
	}
	var records v1alpha1.ReplyQueueList
	s.must(s.List(s.ctx, &records, client.InNamespace(s.namespace)))
	for _, q := range records.Items {
		s.reconcile(s.records, q.Name)
	}
}

func (s *stage) reconcile(r reconcile.Reconciler, name string) {
	s.Helper()
	_, err := r.Reconcile(s.ctx, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: s.namespace, Name: name}})
	s.must(err)
}

// pass lets time go by, with beacons, and settles every few seconds.
func (s *stage) pass(d time.Duration) {
	s.Helper()
	for d > 0 {
		step := min(d, s.signals.Heartbeats.BeaconEvery())
		d -= step
		s.clock.Step(step)
		s.beacon()
		if s.onTick != nil {
			s.onTick()
		}
		s.signals.Heartbeats.Tick(s.clock.Now())
		s.settle()
	}
}

// elapse is pass without anything being heard: no beacon, no tick.
func (s *stage) elapse(d time.Duration) { s.clock.Step(d) }

// undisturbed is pass with beacons, and nothing that is reconciled.
func (s *stage) undisturbed(d time.Duration) {
	for ; d > 0; d -= heartbeat.BeaconInterval {
		s.clock.Step(min(d, heartbeat.BeaconInterval))
		s.beacon()
	}
}

func (s *stage) drainEvents() {
	for {
		select {
		case e := <-s.recorder.Events:
			s.said = append(s.said, e)
		default:
			return
		}
	}
}

func (s *stage) heardEvent(part string) int {
	n := 0
	for _, e := range s.said {
		if strings.Contains(e, part) {
			n++
		}
	}
	return n
}

// recordsOf are the pod's records.
func (s *stage) recordsOf(p *corev1.Pod) []v1alpha1.ReplyQueue {
	s.Helper()
	var records v1alpha1.ReplyQueueList
	s.must(s.List(s.ctx, &records, client.InNamespace(s.namespace), client.MatchingFields{indexReader: string(p.UID)}))
	return records.Items
}

// queues are the names of the reply queues in SQS.
func (s *stage) queues() []string {
	var names []string
	for _, q := range s.sqs.Queues() {
		names = append(names, q.Name)
	}
	return names
}

// clean deletes what the test left behind, since all stages share one API server.
func (s *stage) clean() {
	s.ctx, s.intercept = context.Background(), nil
	var records v1alpha1.ReplyQueueList
	s.must(s.List(s.ctx, &records, client.InNamespace(s.namespace)))
	for i := range records.Items {
		q := &records.Items[i]
		before := q.DeepCopy()
		q.Finalizers = nil
		s.must(client.IgnoreNotFound(s.Patch(s.ctx, q, client.MergeFrom(before))))
	}
}

// caller are the annotations of a pod that calls login and has a reply queue of the host web.
func caller() map[string]string {
	return map[string]string{v1alpha1.AnnotationCalls: "login", v1alpha1.AnnotationReplyHost: "web"}
}

// runningCaller is a pod with its queue, running and heard once.
func (s *stage) runningCaller(name string) *corev1.Pod {
	s.Helper()
	p := s.pod(name, caller())
	s.settle()
	s.run(p)
	s.settle()
	s.beat(p)
	s.settle()
	if n := len(s.recordsOf(p)); n != 1 {
		s.Fatal("the pod has " + strconv.Itoa(n) + " records, want 1")
	}
	return p
}

func (p onlyProvider) ForDeletion(ctx context.Context, name string) (*queue.Provider, error) {
	return p.Get(ctx, name, "")
}

// expectNothingLeft is P3: no queue, no record, no Lease of the pod.
func (s *stage) expectNothingLeft(p *corev1.Pod) {
	s.Helper()
	if len(s.queues()) != 0 || len(s.recordsOf(p)) != 0 {
		s.Errorf("queues %v and %d records are left", s.queues(), len(s.recordsOf(p)))
	}
	if s.exists(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}}) {
		s.Error("the Lease is left")
	}
	if n := s.signals.Pods.Len(); n != 0 {
		s.Errorf("%d pods are still remembered", n)
	}
}

// restart is a new operator: it remembers nothing, and lists what there is.
func (s *stage) restart() {
	s.Helper()
	s.signals.Pods, s.signals.Heartbeats = &lifecycle.Sightings{}, heartbeat.NewLedger()
	var leases coordinationv1.LeaseList
	s.must(s.List(s.ctx, &leases, client.InNamespace(v1alpha1.HeartbeatNamespace), client.MatchingLabels{v1alpha1.LabelPodNamespace: s.namespace}))
	s.seenLease, s.seenPods = map[string]*coordinationv1.Lease{}, map[types.UID]*corev1.Pod{}
	var list []*coordinationv1.Lease
	for i := range leases.Items {
		list = append(list, &leases.Items[i])
		s.seenLease[leases.Items[i].Name] = &leases.Items[i]
	}
	for _, n := range s.signals.Heartbeats.Replace(list, s.clock.Now()) {
		s.reconcile(s.pods, n.Pod.Name)
	}
	s.beacon()
}

// beatFor has the pod's application heartbeat while f lets time go by.
func (s *stage) beatFor(p *corev1.Pod, f func()) {
	s.onTick = func() { s.beat(p) }
	defer func() { s.onTick = nil }()
	f()
}
