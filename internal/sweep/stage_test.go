package sweep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const clusterUID = "0a1b2c3d-0000-0000-0000-000000000000"

var environment *envtest.Environment

var shared = sync.OnceValues(func() (client.WithWatch, error) {
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

// stage is a namespace on a real API server, an SQS server in process, and the sweeper with its fence, whose clock the
// test owns. Nothing runs in the background.
type stage struct {
	*testing.T
	ctx context.Context
	// admin is nobody's to intercept; kube is the operator's.
	admin, kube client.WithWatch
	namespace   string
	sqs         *sqstest.Server
	clock       *testingclock.FakeClock
	provider    *queue.Provider
	identity    client.ObjectKey
	recorder    *events.FakeRecorder
	fence       *fence.Fence
	sweeper     *sweep.Sweeper
	missing     []types.NamespacedName
	dryRun      bool
	// gone says that the QueueProvider is.
	gone bool
	// after is called when a call of the operator, to the API server or to SQS, has had its effect.
	after func(call string)
}

func newStage(t *testing.T, server *sqstest.Server) *stage {
	t.Helper()
	admin, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t, ctx: t.Context(), admin: admin, sqs: server, clock: testingclock.NewFakeClock(time.Now())}
	s.kube = interceptor.NewClient(admin, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return s.called("get", c.Get(ctx, k, o, opts...))
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			return s.called("list", c.List(ctx, l, opts...))
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return s.called("update", c.Update(ctx, o, opts...))
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return s.called("delete", c.Delete(ctx, o, opts...))
		},
	})
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sweep-"}}
	s.must(admin.Create(s.ctx, ns))
	s.namespace = ns.Name
	s.identity = client.ObjectKey{Namespace: s.namespace, Name: "replyqueue-identity"}
	s.must(admin.Create(s.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.identity.Namespace, Name: s.identity.Name}}))
	// Tests share the API server, and records are listed for the whole cluster: each has a provider of its own.
	s.provider = &queue.Provider{Name: s.namespace, Prefix: "rq", Cluster: "c", ClusterUID: clusterUID}
	s.provider.API = calling{server.Client(noRetries), s}
	t.Cleanup(s.clean)
	s.restart()
	return s
}

// restart is a new leader: nothing is remembered.
func (s *stage) restart() {
	s.recorder = events.NewFakeRecorder(1000)
	inUse := func(context.Context) ([]string, error) { return []string{s.provider.Name}, nil }
	s.fence = &fence.Fence{Client: s.kube, Identity: s.identity, ClusterUID: clusterUID, Providers: s, InUse: inUse, Recorder: s.recorder, Clock: s.clock}
	s.provider.Fence = s.fence
	s.sweeper = &sweep.Sweeper{
		Client: s.kube, Reader: s.kube, Providers: s, InUse: inUse, Fence: s.fence, ClusterUID: clusterUID, Clock: s.clock, DryRun: s.dryRun,
		Missing: func(_ context.Context, record types.NamespacedName, _ types.UID) {
			s.missing = append(s.missing, record)
		},
	}
}

func (s *stage) Get(context.Context, string, string) (*queue.Provider, error) {
	return s.provider, nil
}

func (s *stage) ForDeletion(_ context.Context, name string) (*queue.Provider, error) {
	if s.gone {
		return nil, fmt.Errorf("%w: %s", queue.ErrProviderNotFound, name)
	}
	return s.provider, nil
}

func (s *stage) called(call string, err error) error {
	if err == nil && s.after != nil {
		s.after(call)
	}
	return err
}

// calling tells the stage of each request to SQS, once it has had its effect.
type calling struct {
	queue.API
	s *stage
}

func (c calling) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	out, err := c.API.CreateQueue(ctx, in, o...)
	return out, c.s.called("CreateQueue", err)
}

func (c calling) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, o ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	out, err := c.API.DeleteQueue(ctx, in, o...)
	return out, c.s.called("DeleteQueue", err)
}

func (c calling) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, o ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	out, err := c.API.GetQueueUrl(ctx, in, o...)
	return out, c.s.called("GetQueueUrl", err)
}

func (c calling) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, o ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	out, err := c.API.ListQueueTags(ctx, in, o...)
	return out, c.s.called("ListQueueTags", err)
}

func (c calling) TagQueue(ctx context.Context, in *sqs.TagQueueInput, o ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	out, err := c.API.TagQueue(ctx, in, o...)
	return out, c.s.called("TagQueue", err)
}

func (c calling) ListQueues(ctx context.Context, in *sqs.ListQueuesInput, o ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error) {
	out, err := c.API.ListQueues(ctx, in, o...)
	return out, c.s.called("ListQueues", err)
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// noRetries is how the operator's own clients are configured.
func noRetries(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

// pass sweeps, a grace after the last time, and the fence has looked often enough before it to have watched.
func (s *stage) pass() error {
	const looks = 2 // and another by the pass itself
	between := fence.WatchFor(fence.DefaultInterval) / looks
	s.clock.Step(sweep.DefaultGrace - looks*between)
	for range looks {
		s.fence.Round(s.ctx)
		s.clock.Step(between)
	}
	return s.sweeper.Pass(s.ctx)
}

func (s *stage) passes(n int) {
	s.Helper()
	for range n {
		s.must(s.pass())
	}
}

// pod is a pod as the API server knows it.
func (s *stage) pod(name string) *corev1.Pod {
	s.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "i"}}},
	}
	s.must(s.admin.Create(s.ctx, p))
	return p
}

// record is a ReplyQueue for the pod, whose queue is said to exist.
func (s *stage) record(p *corev1.Pod) *v1alpha1.ReplyQueue {
	s.Helper()
	r := &v1alpha1.ReplyQueue{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, GenerateName: p.Name + "-"},
		Spec: v1alpha1.ReplyQueueSpec{
			HostRef: v1alpha1.HostReference{Name: "web"}, PodRef: v1alpha1.PodReference{Name: p.Name, UID: string(p.UID)},
			Identity: v1alpha1.IdentityPod, Heartbeat: v1alpha1.HeartbeatLease, ProviderRef: v1alpha1.ProviderReference{Name: s.provider.Name},
			HeartbeatIntervalSeconds: 60, IdleRetentionSeconds: 600, DrainSeconds: ptr.To[int32](30),
		},
	}
	s.must(s.admin.Create(s.ctx, r))
	r.Status.QueueURL = "http://sqs/000000000000/" + s.provider.ReplyQueueName(r.UID)
	r.Status.State = v1alpha1.ReplyQueueActive
	s.must(s.admin.Status().Update(s.ctx, r))
	return r
}

// replyQueue makes a reply queue in SQS, for a record with that UID and name, and returns its name.
func (s *stage) replyQueue(uid types.UID, record string, p *corev1.Pod) string {
	s.Helper()
	tags := map[string]string{
		v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagNamespace: s.namespace, v1alpha1.TagName: record,
	}
	if p != nil {
		tags[v1alpha1.TagPodNamespace], tags[v1alpha1.TagPodName], tags[v1alpha1.TagPodUID] = s.namespace, p.Name, string(p.UID)
	}
	return s.queue(s.provider.ReplyQueueName(uid), tags)
}

func (s *stage) queue(name string, tags map[string]string) string {
	s.Helper()
	_, err := s.sqs.Client().CreateQueue(s.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: tags})
	s.must(err)
	return name
}

// orphan makes a reply queue without a record.
func (s *stage) orphan() string { return s.replyQueue(newUID(), "gone-1", nil) }

// live makes a pod, its record, its queue and its Lease.
func (s *stage) live(name string) (*v1alpha1.ReplyQueue, string) {
	s.Helper()
	p := s.pod(name)
	r := s.record(p)
	s.lease(p.UID, name)
	return r, s.replyQueue(r.UID, r.Name, p)
}

func (s *stage) lease(pod types.UID, name string) *coordinationv1.Lease {
	s.Helper()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: v1alpha1.HeartbeatNamespace, Name: string(pod), Annotations: map[string]string{heartbeat.AnnotationPodName: name},
		Labels: map[string]string{v1alpha1.LabelPodUID: string(pod), v1alpha1.LabelPodNamespace: s.namespace, v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator},
	}}
	s.must(s.admin.Create(s.ctx, l))
	return l
}

func (s *stage) exists(o client.Object) bool {
	s.Helper()
	err := s.admin.Get(s.ctx, client.ObjectKeyFromObject(o), o)
	if client.IgnoreNotFound(err) != nil {
		s.Fatal(err)
	}
	return !apierrors.IsNotFound(err)
}

func (s *stage) has(name string) bool {
	_, ok := s.sqs.Queue(name)
	return ok
}

func (s *stage) expect(name string, there bool, why string) {
	s.Helper()
	if s.has(name) != there {
		s.Errorf("%s: that queue %s is there is %v", why, name, !there)
	}
}

func (s *stage) configMap() *corev1.ConfigMap {
	s.Helper()
	c := &corev1.ConfigMap{}
	s.must(s.admin.Get(s.ctx, s.identity, c))
	return c
}

func (s *stage) annotate(annotation, value string) {
	s.Helper()
	c := s.configMap()
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, annotation, value)
	s.must(s.admin.Update(s.ctx, c))
}

func (s *stage) status() string { return s.configMap().Data["status"] }

func (s *stage) heard(part string) (n int) {
	for {
		select {
		case e := <-s.recorder.Events:
			if strings.Contains(e, part) {
				n++
			}
		default:
			return n
		}
	}
}

// clean removes what other tests would see: records and Leases are listed for the whole cluster.
func (s *stage) clean() {
	ctx := context.Background()
	for _, o := range []client.Object{&v1alpha1.ReplyQueue{}, &corev1.Pod{}} {
		if err := s.admin.DeleteAllOf(ctx, o, client.InNamespace(s.namespace), client.GracePeriodSeconds(0)); err != nil {
			s.Error(err)
		}
	}
	err := s.admin.DeleteAllOf(ctx, &coordinationv1.Lease{}, client.InNamespace(v1alpha1.HeartbeatNamespace), client.MatchingLabels{v1alpha1.LabelPodNamespace: s.namespace})
	if err != nil {
		s.Error(err)
	}
}

func newUID() types.UID { return uuid.NewUUID() }
