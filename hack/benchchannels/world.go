package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const region = "us-east-1"

// world is everything that runs.
type world struct {
	dir      string
	cluster  *cluster.Cluster
	clients  kubernetes.Interface
	kube     client.Client
	sqs      *sqstest.Server
	sqsURL   string
	operator *process.Process
	metrics  string // host:port of the operator's
	probes   string
	webhook  int
}

// start starts the control plane, installs the operator's objects, and starts SQS and the operator.
func start(ctx context.Context, programs, dir string) (w *world, err error) {
	programs, err = filepath.Abs(programs)
	if err != nil {
		return nil, err
	}
	made := &world{dir: dir} // Beside w, which a return with an error sets to nil.
	w = made
	defer func() {
		if err != nil {
			made.stop()
		}
	}()
	if err := command(ctx, "go", "build", "-o", filepath.Join(dir, "operator"), "./cmd"); err != nil {
		return nil, err
	}
	folder := filepath.Join(dir, "cluster")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	if w.cluster, err = cluster.Start(ctx, cluster.Config{Bin: programs, Dir: folder, APIServerOnly: true}); err != nil {
		return nil, err
	}
	admin, err := w.cluster.Admin()
	if err != nil {
		return nil, err
	}
	if w.kube, err = client.New(admin, client.Options{Scheme: operator.Scheme()}); err != nil {
		return nil, err
	}
	if w.clients, err = kubernetes.NewForConfig(admin); err != nil {
		return nil, err
	}
	if err := w.install(ctx, filepath.Join(programs, "kubectl")); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(cluster.Host, "0"))
	if err != nil {
		return nil, err
	}
	w.sqs, w.sqsURL = sqstest.New(sqstest.WithRegion(region)), "http://"+listener.Addr().String()
	w.sqs.Serve(listener)
	return w, w.startOperator(ctx)
}

// install applies what users apply, and gets the operator a token of its own service account.
func (w *world) install(ctx context.Context, kubectl string) error {
	admin, bearer := filepath.Join(w.dir, "admin.kubeconfig"), filepath.Join(w.dir, "operator.token")
	if err := w.cluster.Kubeconfig(admin, "bench-admin", "system:masters"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", "dist/install.yaml"},
		{"wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"},
	} {
		if err := command(ctx, kubectl, append([]string{"--kubeconfig", admin}, args...)...); err != nil {
			return err
		}
	}
	answer, err := w.clients.CoreV1().ServiceAccounts(operator.DefaultNamespace).CreateToken(ctx, operator.ServiceAccountName,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](6 * 3600)}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of the operator: %w", err)
	}
	if err := os.WriteFile(bearer, []byte(answer.Status.Token), 0o600); err != nil {
		return err
	}
	return w.cluster.TokenKubeconfig(filepath.Join(w.dir, "operator.kubeconfig"), operator.ServiceAccountName, bearer)
}

// startOperator starts the operator's program and waits until it is ready.
func (w *world) startOperator(ctx context.Context) error {
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = freeport.Loopback(); err != nil {
			return err
		}
	}
	w.metrics, w.probes, w.webhook = fmt.Sprintf("%s:%d", cluster.Host, ports[0]), fmt.Sprintf("%s:%d", cluster.Host, ports[1]), ports[2]
	p, err := process.Start(process.Spec{
		Name: "operator", Path: filepath.Join(w.dir, "operator"), Dir: w.dir, Log: filepath.Join(w.dir, "operator.log"),
		Args: []string{
			"--leader-elect", "--webhook-host=localhost", fmt.Sprintf("--webhook-port=%d", w.webhook),
			"--health-probe-bind-address=" + w.probes, "--metrics-bind-address=" + w.metrics, "--metrics-insecure", "--zap-stacktrace-level=panic",
		},
		Env: []string{
			"KUBECONFIG=" + filepath.Join(w.dir, "operator.kubeconfig"), "HOME=" + w.dir, "TMPDIR=" + w.dir, "PATH=",
			"AWS_REGION=" + region, "AWS_ENDPOINT_URL_SQS=" + w.sqsURL, "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench",
		},
	})
	if err != nil {
		return err
	}
	w.operator = p
	return poll(ctx, time.Minute, func() (bool, error) {
		if !p.Running() {
			return false, fmt.Errorf("the operator ended (%s); its last words:\n%s", p.Exit(), process.Tail(p.Log(), 10))
		}
		text, err := get(ctx, "http://"+w.probes+"/readyz")
		return err == nil && strings.TrimSpace(text) == "ok", nil
	})
}

// stopOperator stops it as the kubelet does, and waits for its end.
func (w *world) stopOperator() error {
	w.operator.Stop(30 * time.Second)
	if exit := w.operator.Exit(); exit.Code != 0 {
		return fmt.Errorf("the operator ended with %s; its last words:\n%s", exit, process.Tail(w.operator.Log(), 10))
	}
	return nil
}

func (w *world) stop() {
	if w.operator != nil {
		w.operator.Stop(10 * time.Second)
	}
	if w.sqs != nil {
		w.sqs.Close()
	}
	if w.cluster != nil {
		w.cluster.Stop()
	}
}

func (w *world) namespace(ctx context.Context, name string) error {
	return w.kube.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, text)
	}
	return nil
}

// poll asks until it is answered yes or with an error, at most for limit.
func poll(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not happen within %s", limit))
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
