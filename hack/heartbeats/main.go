// The command heartbeats measures what it costs the operator, and the API server, to know of 10,000 applications'
// heartbeats: by the watch that internal/heartbeat uses, and by listing all Leases again and again.
//
//	go run ./hack/heartbeats -leases 10000 -for 60s
//
// Leases are as the operator writes them, in a real API server with etcd, and renewed as applications renew them, every
// -every of them once. Each way runs in a process of its own, for the same time, on the same Leases; a run without any
// tells what the renewals alone cost. The watch's process runs heartbeat.Listener itself, beacon and all.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

func main() {
	process.ReapIfAsked()
	leases := flag.Int("leases", 10_000, "how many applications")
	every := flag.Duration("every", time.Minute, "how often each renews its Lease")
	length := flag.Duration("for", time.Minute, "how long to measure each way")
	programs := flag.String("programs", filepath.Join("bin", "k8s"), "the folder with etcd and kube-apiserver")
	way := flag.String("way", "", "what a process of our own does: watch, or list=DURATION")
	kubeconfig := flag.String("to", "", "the kubeconfig of such a process")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *way != "" {
		err = listen(ctx, *way, *kubeconfig)
	} else {
		err = measure(ctx, *leases, *every, *length, *programs)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// heard is what a process says of itself at its end.
type heard struct {
	// Bytes came over the network; Notices were given, each of which would have been a reconcile.
	Bytes, Notices int64
}

// listen follows the heartbeats one way or the other, until its input ends.
func listen(ctx context.Context, way, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	// What controller-runtime chooses for built-in kinds.
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	var got heard
	count(config, &got.Bytes)
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	api := clients.CoordinationV1().Leases(v1alpha1.HeartbeatNamespace)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // Closed by who measures.
		cancel()
	}()
	ledger := heartbeat.NewLedger()
	if pause, ok := strings.CutPrefix(way, "list="); ok {
		err = list(ctx, pause, func() error {
			all, err := api.List(ctx, metav1.ListOptions{ResourceVersion: "0"}) // from the API server's cache
			if err != nil {
				return err
			}
			for i := range all.Items {
				got.Notices += int64(len(ledger.Apply(&all.Items[i], time.Now())))
			}
			return nil
		})
	} else {
		err = (&heartbeat.Listener{
			Ledger: ledger, Leases: api, Clock: clock.RealClock{}, Guarded: func() bool { return true },
			Notify:       func(context.Context, heartbeat.Notice) { atomic.AddInt64(&got.Notices, 1) },
			StateChanged: func(context.Context) {},
		}).Start(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(heard{Bytes: atomic.LoadInt64(&got.Bytes), Notices: atomic.LoadInt64(&got.Notices)})
}

func list(ctx context.Context, pause string, once func() error) error {
	every, err := time.ParseDuration(pause)
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := once(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// count has a client count what it reads.
func count(config *rest.Config, bytes *int64) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		return &counted{conn, bytes}, err
	}
}

type counted struct {
	net.Conn
	bytes *int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	atomic.AddInt64(c.bytes, int64(n))
	return n, err
}

// bench is one measurement.
type bench struct {
	cluster    *cluster.Cluster
	clients    kubernetes.Interface
	kubeconfig string
	transport  http.RoundTripper
	leases     int
	every      time.Duration
	renewed    atomic.Int64
}

func measure(ctx context.Context, leases int, every, length time.Duration, programs string) error {
	dir, err := os.MkdirTemp("", "replyqueue-heartbeats-")
	if err != nil {
		return err
	}
	end, err := process.StartReaper(dir)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	bin, err := filepath.Abs(programs)
	if err != nil {
		return err
	}
	b := &bench{leases: leases, every: every, kubeconfig: filepath.Join(dir, "kubeconfig")}
	if b.cluster, err = cluster.Start(ctx, cluster.Config{Bin: bin, Dir: dir, APIServerOnly: true}); err != nil {
		return err
	}
	defer b.cluster.Stop()
	if err := b.cluster.Kubeconfig(b.kubeconfig, "operator", "system:masters"); err != nil {
		return err
	}
	config, err := b.cluster.Admin()
	if err != nil {
		return err
	}
	if b.transport, err = rest.TransportFor(config); err != nil {
		return err
	}
	if b.clients, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	fmt.Printf("%d Leases, each renewed every %s; each way for %s\n\n", leases, every, length)
	fmt.Printf("%-10s %10s %14s %14s %14s %12s %8s\n", "way", "renewals", "API server CPU", "operator CPU", "received", "memory", "notices")
	for _, way := range []string{"none", "watch", "list=10s", "list=30s", "list=1m"} {
		if err := b.one(ctx, way, length); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
	}
	return nil
}

// fill writes the Leases, as the operator does for pods with a few channels.
func (b *bench) fill(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.HeartbeatNamespace}}
	if _, err := b.clients.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	channels := injected.Channels{}
	for _, name := range []string{"login", "pricing.shop", "audit"} {
		channels[name] = injected.Channel{URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_0a1b2c3d_shop_" + name, Role: injected.RoleCall, TimeoutSeconds: 30}
	}
	return b.each(ctx, 16, func(i int) error {
		_, err := b.clients.CoordinationV1().Leases(v1alpha1.HeartbeatNamespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: leaseName(i),
			Labels: map[string]string{
				v1alpha1.LabelPodUID: leaseName(i), v1alpha1.LabelPodNamespace: "shop", v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator,
			},
			Annotations: map[string]string{
				heartbeat.AnnotationPodName: fmt.Sprintf("web-6d4cf56db6-%05d", i), heartbeat.AnnotationReplyHost: "web", heartbeat.AnnotationRecord: leaseName(i),
				injected.LeaseIntervalSeconds: "60", injected.LeaseState: injected.LeaseStateOpen, injected.LeaseRegion: "eu-west-1",
				injected.LeaseReplyQueueURL: "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_0a1b2c3d_r_" + leaseName(i),
				injected.LeaseChannels:      injected.Encode(channels),
			},
		}}, metav1.CreateOptions{})
		return err
	})
}

func leaseName(i int) string { return fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", i) }

// each calls do for each Lease, with so many at once.
func (b *bench) each(ctx context.Context, workers int, do func(i int) error) error {
	var all sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, workers)
	for range workers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.leases) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return errors.Join(<-failed, ctx.Err())
}

// one measures one way, and prints a line.
func (b *bench) one(ctx context.Context, way string, length time.Duration) error {
	var command *exec.Cmd
	var said strings.Builder
	ended := func() error { return nil }
	if way != "none" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		command = exec.CommandContext(ctx, self, "-way", way, "-to", b.kubeconfig)
		command.Stdout, command.Stderr = &said, os.Stderr
		input, err := command.StdinPipe()
		if err != nil {
			return err
		}
		if err := command.Start(); err != nil {
			return err
		}
		ended = func() error { return errors.Join(input.Close(), command.Wait()) }
	}
	before, err := b.serverCPU(ctx)
	if err != nil {
		return err
	}
	b.renewed.Store(0)
	renewing, stop := context.WithTimeout(ctx, length)
	b.renew(renewing)
	stop()
	after, err := b.serverCPU(ctx)
	if err := errors.Join(err, ended(), ctx.Err()); err != nil {
		return err
	}
	if command == nil {
		fmt.Printf("%-10s %10d %12.1f s\n", way, b.renewed.Load(), after-before)
		return nil
	}
	var got heard
	if err := json.Unmarshal([]byte(said.String()), &got); err != nil {
		return err
	}
	usage := command.ProcessState.SysUsage().(*syscall.Rusage)
	fmt.Printf("%-10s %10d %12.1f s %12.1f s %11.1f MB %9d MB %8d\n", way, b.renewed.Load(), after-before,
		(command.ProcessState.UserTime() + command.ProcessState.SystemTime()).Seconds(), float64(got.Bytes)/1e6, usage.Maxrss>>10, got.Notices)
	return nil
}

// renew renews each Lease once in b.every, evenly spread, until ctx ends.
func (b *bench) renew(ctx context.Context) {
	pace := time.NewTicker(b.every / time.Duration(b.leases))
	defer pace.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, 64)
	for i := 0; ; i = (i + 1) % b.leases {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q,"holderIdentity":"web-6d4cf56db6-%05d"}}`, time.Now().UTC().Format(metav1.RFC3339Micro), i)
			if _, err := b.clients.CoordinationV1().Leases(v1alpha1.HeartbeatNamespace).Patch(ctx, leaseName(i), types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
				b.renewed.Add(1)
			}
		})
	}
}

// serverCPU is how many seconds of CPU the API server has used.
func (b *bench) serverCPU(ctx context.Context) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.cluster.URL()+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := (&http.Client{Transport: b.transport}).Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("the API server does not say how much CPU it has used")
}
