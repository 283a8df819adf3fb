// The command failover kills the operator's leader again and again, while pods come and go by the hundred, and checks
// that no promise is broken by it: no queue deleted under a living process, none left in the end, nobody else's touched.
//
//	go run ./hack/failover -kills 50 -pods 200
//
// Real are the API server with etcd, the operator's program in two processes with leader election and the shipped
// permissions, and kill -9. SQS is sqstest, over TCP. Kubelets and the pods' processes are played: they are what the
// operator's work is judged by (ledger.go), and there is no node here to run hundreds of containers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func main() {
	process.ReapIfAsked()
	kills := flag.Int("kills", 50, "how often to kill the leader")
	pods := flag.Int("pods", 200, "how many pods live at a time")
	handovers := flag.Int("handovers", 5, "how often to stop the leader by SIGTERM besides, which is to hand over at once")
	programs := flag.String("programs", filepath.Join("bin", "k8s"), "the folder with etcd, kube-apiserver and kubectl")
	keep := flag.String("logs", filepath.Join("bin", "failover"), "the folder for the operator's program and, after a failure, the logs")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, settings{kills: *kills, pods: *pods, handovers: *handovers, programs: *programs, keep: *keep})
	stop()
	if err != nil {
		fmt.Println("FAILOVER FAILED:", err)
		os.Exit(1)
	}
}

type settings struct {
	kills, pods, handovers int
	programs, keep         string
}

// trial is one run.
type trial struct {
	settings
	dir      string
	cluster  *cluster.Cluster
	kube     client.Client
	clients  kubernetes.Interface
	sqs      *sqstest.Server
	ledger   *ledger
	pods     *population
	replicas *replicas
	recover  times
	handover times
}

func run(ctx context.Context, s settings) (err error) {
	if err := os.MkdirAll(s.keep, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "replyqueue-failover-")
	if err != nil {
		return err
	}
	end, err := process.StartReaper(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, log := range []string{"operator-0.log", "operator-1.log"} {
				_ = os.Rename(filepath.Join(dir, log), filepath.Join(s.keep, log))
			}
		}
		err = errors.Join(err, end())
	}()
	t := &trial{settings: s, dir: dir, ledger: newLedger(idleRetention)}
	defer t.stop()
	if err := t.start(ctx); err != nil {
		return err
	}
	return t.play(ctx)
}

func (t *trial) start(ctx context.Context) error {
	program, err := filepath.Abs(filepath.Join(t.keep, "manager"))
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the operator: %w\n%s", err, text)
	}
	bin, err := filepath.Abs(t.programs)
	if err != nil {
		return err
	}
	folder := filepath.Join(t.dir, "controlplane")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	if t.cluster, err = cluster.Start(ctx, cluster.Config{Bin: bin, Dir: folder, APIServerOnly: true, Say: say}); err != nil {
		return err
	}
	admin, err := t.cluster.Admin()
	if err != nil {
		return err
	}
	if t.kube, err = client.New(admin, client.Options{Scheme: operator.Scheme()}); err != nil {
		return err
	}
	if t.clients, err = kubernetes.NewForConfig(admin); err != nil {
		return err
	}
	t.sqs = sqstest.New()
	if err := t.sqs.Listen("127.0.0.1:0"); err != nil {
		return err
	}
	if err := t.install(ctx, filepath.Join(bin, "kubectl")); err != nil {
		return err
	}
	t.replicas, err = startReplicas(ctx, t.cluster, t.clients, program, t.dir, t.sqs.URL)
	return err
}

// install applies config/default, but for what only a cluster with nodes can run, and what the pods here need.
func (t *trial) install(ctx context.Context, kubectl string) error {
	kubeconfig := filepath.Join(t.dir, "kubeconfig")
	if err := t.cluster.Kubeconfig(kubeconfig, "admin", "system:masters"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", "config/default"},
		// Pods are injected by the webhook's own function here: the API server cannot reach a Service.
		{"patch", "mutatingwebhookconfiguration", operator.WebhookConfigurationName, "--type=json", "-p",
			`[{"op":"add","path":"/webhooks/0/matchConditions","value":[{"name":"never","expression":"false"}]},
			  {"op":"add","path":"/webhooks/1/matchConditions","value":[{"name":"never","expression":"false"}]}]`},
		{"wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"},
	} {
		command := exec.CommandContext(ctx, kubectl, args...)
		command.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + t.dir, "PATH=" + os.Getenv("PATH")}
		if text, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, text)
		}
	}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}},
		&v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: channel}},
		&v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: hostName}, Spec: v1alpha1.ReplyHostSpec{
			Identity:             v1alpha1.IdentityPod,
			Heartbeat:            &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To(int32(heartbeatEvery.Seconds()))},
			IdleRetentionSeconds: ptr.To(int32(idleRetention.Seconds())),
			DrainSeconds:         ptr.To(int32(drain.Seconds())),
		}},
	} {
		if err := poll(ctx, 20*time.Second, func() (bool, error) { return t.kube.Create(ctx, o) == nil, nil }); err != nil {
			return fmt.Errorf("create %T: %w", o, err)
		}
	}
	return nil
}

func (t *trial) stop() {
	if t.replicas != nil {
		t.replicas.stop()
	}
	if t.sqs != nil {
		t.sqs.Close()
	}
	if t.cluster != nil {
		t.cluster.Stop()
	}
}

// play has pods come and go, kills the leader, and judges.
func (t *trial) play(ctx context.Context) error {
	strangers, err := t.strangers(ctx)
	if err != nil {
		return err
	}
	t.pods = &population{kube: t.kube, ledger: t.ledger, size: t.settings.pods, gates: map[string]chan string{}}
	background, halt := context.WithCancel(ctx)
	watching, judging := t.watch(background), t.judge(background, strangers)
	defer func() { halt(); <-watching; <-judging }()

	living, end := context.WithCancel(ctx)
	defer end()
	lived := make(chan error, 1)
	began := time.Now()
	go func() { lived <- t.pods.run(living) }()
	if err := t.killing(ctx); err != nil {
		end()
		return errors.Join(err, <-lived, broken(t.ledger.verdict()))
	}
	say("%d pods in %s: %d started, %d fell silent, %d woke, on %d queues; ending them all", t.pods.created.Load(),
		time.Since(began).Round(time.Second), t.pods.started.Load(), t.pods.silent.Load(), t.pods.woken.Load(), t.ledger.relied())
	end()
	if err := <-lived; err != nil {
		return err
	}
	leaked, leftErr := t.drained(ctx)
	halt()
	<-judging
	t.readLog(strangers, time.Time{})
	wrong := t.ledger.verdict()
	word := "OK"
	if len(wrong) > 0 || leaked > 0 {
		word = "BROKEN"
	}
	say("time to recover, each: %s", t.recover)
	fmt.Printf("FAILOVER %s kills=%d pods=%d wrongly_deleted=%d leaked=%d recover_p50=%.1fs recover_max=%.1fs handover_max=%.1fs\n", word, len(t.recover),
		t.pods.created.Load(), len(wrong), leaked, t.recover.quantile(0.5).Seconds(), t.recover.quantile(1).Seconds(), t.handover.quantile(1).Seconds())
	return errors.Join(broken(wrong), leftErr)
}

func broken(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d promises were broken:\n%s", len(wrong), strings.Join(wrong, "\n"))
}

// killing kills the leader, at a random moment of its work, and measures how long it takes until a pod that was created
// after the kill has started: a new leader was elected, has read the cluster, and works.
func (t *trial) killing(ctx context.Context) error {
	if _, err := t.recovered(ctx, time.Now()); err != nil {
		return err
	}
	turns := t.kills + t.handovers
	for turn := range turns {
		select {
		case <-time.After(rand.N(2 * idleRetention)): // at times long enough for a silence or a safe time to be over
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		leader, err := t.replicas.awaitLeader(ctx)
		if err != nil {
			return err
		}
		asked := t.handovers > 0 && turn%max(1, turns/t.handovers) == 0 && len(t.handover) < t.handovers
		end, into := t.replicas.kill, &t.recover
		if asked || len(t.recover) == t.kills {
			end, into = t.replicas.ask, &t.handover
		}
		at, err := end(leader)
		if err != nil {
			return err
		}
		took, err := t.recovered(ctx, at)
		if err != nil {
			return err
		}
		*into = append(*into, took)
		if wrong := t.ledger.verdict(); len(wrong) > 0 {
			return errors.New("stopped at the first broken promise")
		}
		if turn%5 == 4 {
			say("%d kills, %d handovers; %d queues in SQS; recovered after %s", len(t.recover), len(t.handover), len(t.sqs.Queues()), took.Round(100*time.Millisecond))
		}
	}
	return nil
}

// recovered waits until a pod started that was created after that time.
func (t *trial) recovered(ctx context.Context, since time.Time) (time.Duration, error) {
	var first time.Time
	err := poll(ctx, 2*time.Minute, func() (bool, error) {
		first = t.pods.startedAfter(since)
		return !first.IsZero(), nil
	})
	if err != nil {
		return 0, fmt.Errorf("no pod started after %s: %w", clock(since), err)
	}
	return first.Sub(since), nil
}

// drained waits until nothing is left of the pods, and counts what is.
func (t *trial) drained(ctx context.Context) (leaked int, err error) {
	left := func() (queues, records, leases int, err error) {
		for _, q := range t.sqs.Queues() {
			if q.Tags[v1alpha1.TagKind] == v1alpha1.TagKindReply && q.Tags[v1alpha1.TagNamespace] == namespace {
				queues++
			}
		}
		var all v1alpha1.ReplyQueueList
		var beats coordinationv1.LeaseList
		err = errors.Join(t.kube.List(ctx, &all), t.kube.List(ctx, &beats, client.InNamespace(v1alpha1.HeartbeatNamespace), client.HasLabels{v1alpha1.LabelPodUID}))
		return queues, len(all.Items), len(beats.Items), err
	}
	err = poll(ctx, 10*time.Minute, func() (bool, error) {
		queues, records, leases, err := left()
		return err == nil && queues+records+leases == 0, nil
	})
	queues, records, leases, listErr := left()
	if err != nil || listErr != nil {
		return queues + records + leases, errors.Join(fmt.Errorf("%d queues, %d records and %d Leases are left when all pods are gone", queues, records, leases), err, listErr)
	}
	return 0, nil
}

// watch tells the population of pods whose gate opened.
func (t *trial) watch(ctx context.Context) <-chan struct{} {
	list := cache.NewListWatchFromClient(t.clients.CoreV1().RESTClient(), "pods", namespace, fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: list, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { t.pods.saw(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { t.pods.saw(o.(*corev1.Pod)) },
	}})
	ended := make(chan struct{})
	go func() { defer close(ended); informer.RunWithContext(ctx) }()
	return ended
}

func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}
