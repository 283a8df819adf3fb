package worlds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/webhook"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The times of the ReplyHosts here: the least that is allowed.
const (
	interval  = time.Second
	retention = 5 * interval
	// soon is how long anything may take that only has to happen. Nothing is measured by it.
	soon = 60 * time.Second
)

var (
	admin client.Client
	// control is how the administrator reaches the API server.
	control *rest.Config
	sqs     *sqstest.Server
	wire    *proxy
	root    string
	// reinstall applies config/default again.
	reinstall func() error
	// plane are etcd and the API server. boot starts a process of the operator, and current is the one that runs.
	plane   *envtest.ControlPlane
	boot    func() *instance
	current *instance
	// emptying is Kubernetes' namespace controller.
	emptying struct {
		start func() error
		end   func()
	}
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := start(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

// start sets the world up, runs the tests and takes it down.
func start(m *testing.M) (code int, err error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		return 1, errors.New("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	dir, err := os.MkdirTemp("", "replyqueue-worlds-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if root, err = filepath.Abs("../.."); err != nil {
		return 1, err
	}
	// Named, since they are to outlive a stop.
	data, certs := filepath.Join(dir, "etcd"), filepath.Join(dir, "certs")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(certs, 0o700)); err != nil {
		return 1, err
	}
	environment := &envtest.Environment{ControlPlaneStartTimeout: soon, ControlPlaneStopTimeout: soon}
	plane = &environment.ControlPlane
	plane.Etcd = &envtest.Etcd{DataDir: data}
	plane.GetAPIServer().CertDir = certs
	config, err := environment.Start()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, environment.Stop()) }()
	config.QPS = -1
	control = config
	if admin, err = client.New(config, client.Options{Scheme: operator.Scheme()}); err != nil {
		return 1, err
	}
	user, err := environment.AddUser(envtest.User{Name: "worlds", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return 1, err
	}
	text, err := user.KubeConfig()
	if err != nil {
		return 1, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
		return 1, err
	}
	reinstall = func() error { return install(assets, kubeconfig) }
	if err := reinstall(); err != nil {
		return 1, err
	}
	emptying.start = func() (err error) {
		emptying.end, err = namespaceController(assets, kubeconfig)
		return err
	}
	if err := emptying.start(); err != nil {
		return 1, err
	}
	defer func() { emptying.end() }()

	sqs = sqstest.New()
	stop, err := run(config, dir)
	if err != nil {
		return 1, err
	}
	if code = m.Run(); code != 0 {
		text, _ := os.ReadFile(filepath.Join(dir, "operator.log"))
		fmt.Fprintf(os.Stderr, "the operator's log:\n%s\n", text)
	}
	return code, stop()
}

// install applies config/default. The webhook is left out: pods are injected by its own function.
func install(assets, kubeconfig string) error {
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", filepath.Join(root, "config/default")},
		{"delete", "mutatingwebhookconfiguration", operator.WebhookConfigurationName},
		{"wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"},
	} {
		if err := kubectl(assets, kubeconfig, args...); err != nil {
			return err
		}
	}
	return nil
}

func kubectl(assets, kubeconfig string, args ...string) error {
	command := exec.CommandContext(context.Background(), filepath.Join(assets, "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// namespaceController starts the part of Kubernetes that empties namespaces.
func namespaceController(assets, kubeconfig string) (end func(), err error) {
	command := exec.CommandContext(context.Background(), filepath.Join(assets, "kube-controller-manager"), "--kubeconfig="+kubeconfig,
		"--controllers=namespace-controller", "--leader-elect=false", "--secure-port=0", "--profiling=false")
	if err := command.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}, nil
}

// run runs the operator behind a wire that can be cut.
func run(config *rest.Config, dir string) (stop func() error, err error) {
	if wire, err = newProxy(config.Host); err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	token, err := clients.CoreV1().ServiceAccounts(operator.DefaultNamespace).CreateToken(context.Background(), operator.ServiceAccountName,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	behind := rest.AnonymousClientConfig(config)
	behind.BearerToken, behind.QPS = token.Status.Token, -1
	behind.Host = "https://" + wire.listener.Addr().String()
	port, err := freeport.Loopback()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "operator.log"))
	if err != nil {
		return nil, err
	}
	said := funcr.New(func(prefix, args string) { _, _ = fmt.Fprintln(log, prefix, args) }, funcr.Options{})
	boot = func() *instance {
		ctx, cancel := context.WithCancel(context.Background())
		i := &instance{cancel: cancel, ended: make(chan struct{})}
		go func() {
			defer close(i.ended)
			i.err = operator.Run(ctx, operator.Config{
				REST: behind, WebhookHost: "localhost", WebhookPort: port, CertDir: dir, Log: said,
				// A tenth of what is shipped: who watches for whose the queues are deletes nothing until then.
				FenceInterval: time.Second, FenceWatch: 10 * time.Second,
				Connect: func(context.Context, string, string, string) (queue.API, string, string, error) {
					return sqs.Client(), "us-east-1", "", nil
				},
			})
		}()
		return i
	}
	current = boot()
	return func() error {
		current.cancel()
		<-current.ended
		return errors.Join(current.err, wire.close(), log.Close())
	}, nil
}

// instance is a process of the operator. cancel asks it to end; when ended is closed, err is how it did.
type instance struct {
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// proxy passes bytes between the operator and the API server, until it is cut.
type proxy struct {
	listener net.Listener
	to       string
	all      sync.WaitGroup

	mu    sync.Mutex
	isCut bool
	open  map[net.Conn]bool
}

func newProxy(to string) (*proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, to: strings.Trim(strings.TrimPrefix(to, "https://"), "/"), open: map[net.Conn]bool{}}
	p.all.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.pass(from) })
		}
	})
	return p, nil
}

func (p *proxy) pass(from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	p.mu.Lock()
	if p.isCut {
		p.mu.Unlock()
		return
	}
	p.open[from], p.open[to] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.open, from)
		delete(p.open, to)
		p.mu.Unlock()
	}()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
}

// cut closes what is open and refuses what comes; restore ends that.
func (p *proxy) cut() (restore func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for c := range p.open {
		_ = c.Close()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.isCut = false
	}
}

func (p *proxy) close() error {
	p.cut()
	err := p.listener.Close()
	p.all.Wait()
	return err
}

// world is a namespace with the channel sum and the ReplyHost web.
type world struct {
	*testing.T
	namespace string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "world-"}}
	w.must(admin.Create(t.Context(), ns))
	w.namespace = ns.Name
	w.must(admin.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "default"}}))
	w.must(admin.Create(t.Context(), &v1alpha1.RequestChannel{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "sum"},
		Spec:       v1alpha1.RequestChannelSpec{DeadLetter: &v1alpha1.DeadLetter{MaxReceiveCount: 5, Queue: &v1alpha1.DeadLetterQueue{}}},
	}))
	w.must(admin.Create(t.Context(), &v1alpha1.ReplyHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "web"},
		Spec: v1alpha1.ReplyHostSpec{
			Identity: v1alpha1.IdentityPod, DrainSeconds: ptr.To[int32](0),
			Heartbeat:            &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To(int32(interval.Seconds()))},
			IdleRetentionSeconds: ptr.To(int32(retention.Seconds())),
		},
	}))
	return w
}

// ends deletes the namespace, of which no pod runs any more, and waits until it has gone: what is in it is of no world to come.
func (w *world) ends() {
	w.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	w.must(admin.Delete(w.Context(), ns))
	w.eventually("the namespace goes", func() string { return w.gone(ns) })
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// eventually waits until missing says nothing any more.
func (w *world) eventually(what string, missing func() string) {
	w.Helper()
	limit := time.Now().Add(soon)
	for said := missing(); said != ""; said = missing() {
		if time.Now().After(limit) {
			w.Fatalf("%s: %s", what, said)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-w.Context().Done():
			w.Fatal(w.Context().Err())
		}
	}
}

// pod creates a pod as the webhook would leave it.
func (w *world) pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name, Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
			Annotations: map[string]string{
				v1alpha1.AnnotationCalls: "sum", v1alpha1.AnnotationReplyHost: "web", v1alpha1.AnnotationHeartbeat: v1alpha1.HeartbeatAnnotationLease,
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}, ServiceAccountName: "default", AutomountServiceAccountToken: ptr.To(false)},
	}
	for _, f := range change {
		f(p)
	}
	w.must(webhook.Inject(p))
	w.must(admin.Create(w.Context(), p))
	return p
}

// starts waits until the pod's gate opens, and runs it as scheduler and kubelet would.
func (w *world) starts(p *corev1.Pod) {
	w.Helper()
	w.eventually("pod "+p.Name+" starts", func() string {
		w.reread(p)
		if len(p.Spec.SchedulingGates) > 0 {
			return "it waits for " + p.Annotations[v1alpha1.AnnotationWaitingFor]
		}
		return ""
	})
	w.must(admin.SubResource("binding").Create(w.Context(), p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}))
	w.report(p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
}

func (w *world) report(p *corev1.Pod, phase corev1.PodPhase, state corev1.ContainerState) {
	w.Helper()
	w.reread(p)
	before := p.DeepCopy()
	p.Status.Phase = phase
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "x://1", State: state}}
	w.must(admin.Status().Patch(w.Context(), p, client.MergeFrom(before)))
}

// stops ends the pod as a kubelet would.
func (w *world) stops(p *corev1.Pod) {
	w.Helper()
	w.report(p, corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}})
	w.must(client.IgnoreNotFound(admin.Delete(w.Context(), p, client.GracePeriodSeconds(0))))
}

func (w *world) reread(o client.Object) {
	w.Helper()
	w.must(admin.Get(w.Context(), client.ObjectKeyFromObject(o), o))
}

// beats has the pod heartbeat until the returned function is called.
func (w *world) beats(p *corev1.Pod) (stop func()) { return w.beatsBy(admin, p) }

// bearer is a client with the pod's own token, and so under the permissions that applications have.
func (w *world) bearer(p *corev1.Pod) client.Client {
	w.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: p.Spec.ServiceAccountName}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	w.must(admin.SubResource("token").Create(w.Context(), account, request))
	config := rest.AnonymousClientConfig(control)
	config.BearerToken, config.QPS = request.Status.Token, -1
	c, err := client.New(config, client.Options{Scheme: operator.Scheme()})
	w.must(err)
	return c
}

func (w *world) beatsBy(c client.Client, p *corev1.Pod) (stop func()) {
	p = p.DeepCopy() // the test goes on reading its own
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			renewal := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
			// One that fails changes nothing, as in the client.
			_ = c.Patch(ctx, leaseOf(p), client.RawPatch(types.MergePatchType, renewal))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func leaseOf(p *corev1.Pod) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}}
}

// queues are the names of the queues of this world in SQS.
func (w *world) queues() []string {
	var names []string
	for _, q := range sqs.Queues() {
		if q.Tags[v1alpha1.TagNamespace] == w.namespace {
			names = append(names, q.Name)
		}
	}
	return names
}

// queueOf is the reply queue that the pod was told of.
func queueOf(p *corev1.Pod) string {
	url := p.Annotations[v1alpha1.AnnotationReplyQueueURL]
	return url[strings.LastIndex(url, "/")+1:]
}

func (w *world) kept(p *corev1.Pod) {
	w.Helper()
	if _, there := sqs.Queue(queueOf(p)); !there || queueOf(p) == "" {
		w.Errorf("the queue %q of pod %s does not exist", queueOf(p), p.Name)
	}
}

func (w *world) gone(o client.Object) string {
	w.Helper()
	err := admin.Get(w.Context(), client.ObjectKeyFromObject(o), o)
	switch {
	case apierrors.IsNotFound(err):
		return ""
	case err != nil:
		return err.Error()
	default:
		return fmt.Sprintf("%T %s is still there, with finalizers %v", o, o.GetName(), o.GetFinalizers())
	}
}
