package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/hack/demo/agent"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// errTime says that something did not happen in time.
var errTime = errors.New("it did not happen in time")

// stage is everything that runs.
type stage struct {
	root, dir string
	out       *terminal
	// restart starts the control plane's parts again when they end, as a kubelet would. Otherwise their
	// end is the end of the demo.
	restart bool
	// fail ends the demo.
	fail context.CancelCauseFunc

	k8s, bin string // folders of programs

	cluster  *cluster.Cluster
	admin    *rest.Config
	kube     client.Client // uncached, as administrator
	clients  kubernetes.Interface
	sqs      *sqsServer
	operator *operatorProcess
	agent    *agent.Agent

	background sync.WaitGroup
	halt       context.CancelFunc
}

// programs of ours, and the packages they are made from.
var ours = []struct{ name, source string }{
	{"operator", "./cmd"},
	{"sqstest", "./cmd/sqstest"},
	{"requester", "./examples/requester"},
	{"responder", "./examples/responder"},
}

// build gets the control plane's programs and builds ours. With warm caches it takes seconds.
func (s *stage) build(ctx context.Context, controlPlane string) error {
	s.out.line("Replyqueue: request and reply over Amazon SQS, with queues that Kubernetes owns.")
	s.out.line("A requester sends to a request queue and waits for the answer on a reply queue of its own. Who makes those")
	s.out.line("queues, who knows their addresses, and who removes them when a process dies? Watch.")
	s.out.step("Programs")
	s.bin = filepath.Join(s.root, "bin", "demo")
	s.k8s = controlPlane
	if s.k8s == "" {
		s.k8s = filepath.Join(s.root, "bin", "k8s")
		if err := s.goTool(ctx, true, "run", "./hack/controlplane", "-dir", s.k8s); err != nil {
			return fmt.Errorf("get the control plane: %w", err)
		}
	}
	began := time.Now()
	if _, err := os.Stat(filepath.Join(s.bin, ours[0].name)); err != nil {
		s.out.say("building the operator and the programs of the story; the first time takes minutes")
	}
	for _, p := range ours {
		if err := s.goTool(ctx, false, "build", "-o", filepath.Join(s.bin, p.name), p.source); err != nil {
			return fmt.Errorf("build %s: %w", p.source, err)
		}
	}
	s.out.say("operator, SQS server, requester and responder built from this tree in %.1f s", time.Since(began).Seconds())
	return nil
}

// goTool runs the go command in the repository. Its output is shown at once, or only with an error.
func (s *stage) goTool(ctx context.Context, show bool, args ...string) error {
	program, err := exec.LookPath("go")
	if err != nil {
		return err
	}
	spec := process.Spec{
		Name: "go " + args[0], Path: program, Args: args, Dir: s.root,
		Env: append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off"), Log: filepath.Join(s.dir, "go.log"),
	}
	if show {
		spec.Log = ""
	}
	p, err := process.Start(spec)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(time.Second) // What it was building goes with it.
		return context.Cause(ctx)
	}
	if e := p.Exit(); e.Code != 0 {
		if show {
			return errors.New(e.String())
		}
		return fmt.Errorf("%s\n%s", e, process.Tail(spec.Log, 40))
	}
	return nil
}

// start sets the stage: control plane, SQS, Replyqueue, a node.
func (s *stage) start(ctx context.Context) error {
	ctx, s.halt = context.WithCancel(ctx)
	s.out.step("A Kubernetes control plane, as processes on 127.0.0.1")
	dir, err := s.folder("controlplane")
	if err != nil {
		return err
	}
	s.cluster, err = cluster.Start(ctx, cluster.Config{Bin: s.k8s, Dir: dir, Restart: s.restart, Say: s.out.say})
	if err != nil {
		return err
	}
	s.background.Go(func() {
		select {
		case err := <-s.cluster.Ended():
			s.fail(err)
		case <-ctx.Done():
		}
	})
	if err := s.connect(); err != nil {
		return err
	}

	s.out.step("An SQS server in memory")
	if s.sqs, err = startSQS(ctx, filepath.Join(s.bin, "sqstest"), s.dir); err != nil {
		return err
	}
	s.background.Go(func() { s.sqs.watchPeak(ctx) })
	s.out.say("sqstest speaks SQS's protocol and counts every request: %s", s.sqs.url)

	if err := s.install(ctx); err != nil {
		return err
	}
	return s.addNode(ctx)
}

func (s *stage) connect() error {
	if err := s.cluster.Kubeconfig(s.kubeconfig(), "demo-admin", "system:masters"); err != nil {
		return err
	}
	var err error
	if s.admin, err = s.cluster.Admin(); err != nil {
		return err
	}
	if s.kube, err = client.New(s.admin, client.Options{Scheme: operator.Scheme()}); err != nil {
		return err
	}
	s.clients, err = kubernetes.NewForConfig(s.admin)
	return err
}

// install applies what dist/install.yaml consists of, and starts the operator beside it.
func (s *stage) install(ctx context.Context) error {
	s.out.step("Replyqueue installed, its operator started")
	port, err := freeport.Loopback()
	if err != nil {
		return err
	}
	overlay, err := s.writeInstallation(port)
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := s.kubectl(ctx, "apply", "--server-side", "-k", overlay); err != nil {
		return err
	}
	s.out.say("kubectl apply -k config/default: kinds, RBAC, admission policies, webhook, in %.1f s", time.Since(began).Seconds())
	s.out.say("different from a real installation:")
	s.out.say("  - no kube-proxy, so the webhook configuration names a url on localhost instead of a service;")
	s.out.say("  - the operator is a process instead of the Deployment (scaled to 0), with the token of its service account:")
	s.out.say("    it may do what the shipped RBAC allows and no more.")
	s.operator = &operatorProcess{stage: s, webhookPort: port}
	if err := s.operator.prepare(ctx); err != nil {
		return err
	}
	s.background.Go(func() { s.operator.renewToken(ctx) })
	if err := s.operator.start(ctx); err != nil {
		return err
	}
	if s.restart {
		s.background.Go(func() { s.operator.keepRunning(ctx) })
	}
	return nil
}

// addNode starts the node agent.
func (s *stage) addNode(ctx context.Context) error {
	s.out.step("A node that runs containers as local processes")
	dir, err := s.folder("node")
	if err != nil {
		return err
	}
	config, err := s.cluster.Node(nodeName)
	if err != nil {
		return err
	}
	identity, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	listener, err := s.cluster.ListenAsNode()
	if err != nil {
		return err
	}
	const registry = "ghcr.io/replyqueue/"
	s.agent = agent.New(agent.Config{
		Client: identity, Name: nodeName, Dir: dir, APIServerPort: s.cluster.Port(), Env: awsIdentity("pod"),
		Listener: listener,
		Images: map[string]string{
			registry + "demo-requester": filepath.Join(s.bin, "requester"),
			registry + "demo-responder": filepath.Join(s.bin, "responder"),
		},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	ended := make(chan struct{})
	s.background.Go(func() {
		defer func() { _ = log.Close() }()
		defer close(ended)
		if err := s.agent.Run(ctx); err != nil && ctx.Err() == nil {
			s.fail(err)
		}
	})
	s.out.say("environment, tokens, restarts, signals and pod status are as a kubelet would have them. Images stand for programs")
	s.out.say("built here; nothing is mounted, so REPLYQUEUE_SERVICE_ACCOUNT_DIR tells a process where its pod's token is.")
	s.out.say("output of the containers: %s", s.relative(filepath.Join(dir, "logs")))
	return s.nodeReady(ctx)
}

// stop ends everything, in the order in which it depends on each other.
func (s *stage) stop() {
	if s.halt != nil {
		s.halt()
	}
	if s.operator != nil {
		s.operator.stop()
	}
	s.background.Wait()
	if s.sqs != nil {
		s.sqs.proc.Stop(0)
	}
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

func (s *stage) folder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

func (s *stage) kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// relative is a path as a reader in the repository would type it.
func (s *stage) relative(path string) string {
	if r, err := filepath.Rel(s.root, path); err == nil {
		return r
	}
	return path
}

// kubectl runs kubectl as administrator and returns what it printed.
func (s *stage) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.k8s, "kubectl"), args...)
	cmd.Env = []string{"KUBECONFIG=" + s.kubeconfig(), "HOME=" + s.dir, "KUBECACHEDIR=" + filepath.Join(s.dir, "kubectl-cache"), "PATH=" + os.Getenv("PATH")}
	cmd.Dir = s.root
	var errors bytes.Buffer
	cmd.Stderr = &errors
	output, err := cmd.Output()
	if err != nil {
		return string(output), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errors.String()))
	}
	return string(output), nil
}
