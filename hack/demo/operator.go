package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/hack/demo/agent"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// operatorProcess runs the operator's program as the cluster would run its Deployment's one pod.
type operatorProcess struct {
	stage       *stage
	webhookPort int
	probePort   int

	mu      sync.Mutex
	proc    *process.Process
	stopped bool
}

const operatorToken = "operator.token"

// prepare writes the token and kubeconfig.
func (o *operatorProcess) prepare(ctx context.Context) error {
	var err error
	if o.probePort, err = freeport.Loopback(); err != nil {
		return err
	}
	if _, err := o.writeToken(ctx); err != nil {
		return err
	}
	return o.stage.cluster.TokenKubeconfig(o.file("operator.kubeconfig"), operator.ServiceAccountName, o.file(operatorToken))
}

func (o *operatorProcess) file(name string) string { return filepath.Join(o.stage.dir, name) }

// writeToken gets a token of the operator's own service account and returns its life.
func (o *operatorProcess) writeToken(ctx context.Context) (time.Duration, error) {
	got, err := o.stage.clients.CoreV1().ServiceAccounts(operator.DefaultNamespace).
		CreateToken(ctx, operator.ServiceAccountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("token of the operator: %w", err)
	}
	temporary := o.file(operatorToken + ".new")
	if err := os.WriteFile(temporary, []byte(got.Status.Token), 0o600); err != nil {
		return 0, err
	}
	return time.Until(got.Status.ExpirationTimestamp.Time), os.Rename(temporary, o.file(operatorToken))
}

// renewToken replaces the token as a kubelet would. It blocks until ctx ends.
func (o *operatorProcess) renewToken(ctx context.Context) {
	pause := 45 * time.Minute // of the hour that the first one has
	for {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		life, err := o.writeToken(ctx)
		if pause = life * 3 / 4; err != nil {
			pause = 10 * time.Second
		}
	}
}

// start starts the program and waits until its webhook can be called.
func (o *operatorProcess) start(ctx context.Context) error {
	began := time.Now()
	if err := o.launch(); err != nil {
		return err
	}
	client := &http.Client{Timeout: 2 * time.Second}
	err := poll(ctx, time.Minute, func() (bool, error) {
		if p := o.process(); !p.Running() {
			return false, fmt.Errorf("the operator ended (%s); its last words:\n%s", p.Exit(), process.Tail(p.Log(), 10))
		}
		return answersOK(ctx, client, fmt.Sprintf("http://%s/readyz", o.probeAddress())), nil
	})
	if err != nil {
		return fmt.Errorf("the operator did not become ready: %w\n%s", err, process.Tail(o.file("operator.log"), 10))
	}
	o.stage.out.say("operator ready after %.1f s (process %d)", time.Since(began).Seconds(), o.process().PID())
	return nil
}

func answersOK(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (o *operatorProcess) probeAddress() string {
	return net.JoinHostPort(cluster.Host, strconv.Itoa(o.probePort))
}

func (o *operatorProcess) launch() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return context.Canceled
	}
	p, err := process.Start(process.Spec{
		Name: "operator", Path: filepath.Join(o.stage.bin, "operator"), Dir: o.stage.dir, Log: o.file("operator.log"),
		Args: []string{
			"--leader-elect",
			"--fence-watch=20s", // The demo's SQS shows changes at once.
			"--webhook-host=localhost", "--webhook-port=" + strconv.Itoa(o.webhookPort),
			"--health-probe-bind-address=" + o.probeAddress(),
			"--zap-encoder=console", "--zap-time-encoding=iso8601", "--zap-stacktrace-level=panic",
		},
		Env: append(assignments(o.stage.sqs.awsEnvironment()),
			"KUBECONFIG="+o.file("operator.kubeconfig"), "HOME="+o.stage.dir, "TMPDIR="+o.stage.dir, "PATH="),
	})
	if err == nil {
		o.proc = p
	}
	return err
}

func (o *operatorProcess) process() *process.Process {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.proc
}

// keepRunning starts the operator again when it ends, with a growing pause, as its Deployment would. It blocks
// until ctx ends.
func (o *operatorProcess) keepRunning(ctx context.Context) {
	var restarts agent.Backoff
	for {
		p := o.process()
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if ctx.Err() != nil {
			return
		}
		pause := restarts.After(p.Exit().At.Sub(p.Began()))
		o.stage.out.line("the operator ended (%s) and is started again in %s; its log: %s", p.Exit(), pause, o.stage.relative(p.Log()))
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if err := o.launch(); err != nil {
			return
		}
	}
}

func (o *operatorProcess) stop() {
	o.mu.Lock()
	o.stopped = true
	p := o.proc
	o.mu.Unlock()
	if p != nil {
		p.Stop(0)
	}
}
