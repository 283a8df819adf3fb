package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// replicas are the operator's two processes, under the shipped service account and permissions.
type replicas struct {
	program, sqsURL string
	all             [2]*replica
}

// replica is one of them. When its process ends, another takes its place, as a Deployment would see to.
type replica struct {
	name                    string
	metrics, probe, webhook int
	process                 *process.Process
	kubeconfig, dir, log    string
}

// startReplicas starts both.
func startReplicas(ctx context.Context, c *cluster.Cluster, clients kubernetes.Interface, program, dir, sqsURL string) (*replicas, error) {
	token, err := clients.CoreV1().ServiceAccounts(operator.DefaultNamespace).CreateToken(ctx, operator.ServiceAccountName,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(tokenSeconds)}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of the operator: %w", err)
	}
	file := filepath.Join(dir, "operator.token")
	if err := os.WriteFile(file, []byte(token.Status.Token), 0o600); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "operator.kubeconfig")
	if err := c.TokenKubeconfig(kubeconfig, operator.ServiceAccountName, file); err != nil {
		return nil, err
	}
	r := &replicas{program: program, sqsURL: sqsURL}
	for i := range r.all {
		one := &replica{name: fmt.Sprintf("operator-%d", i), kubeconfig: kubeconfig, dir: dir}
		one.log = filepath.Join(dir, one.name+".log")
		for _, port := range []*int{&one.metrics, &one.probe, &one.webhook} {
			if *port, err = freeport.Loopback(); err != nil {
				return nil, err
			}
		}
		r.all[i] = one
		if err := r.launch(one); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// tokenSeconds is how long the operator's token is valid: longer than any run.
const tokenSeconds int64 = 6 * 3600

func (r *replicas) launch(one *replica) error {
	p, err := process.Start(process.Spec{
		Name: one.name, Path: r.program, Dir: one.dir, Log: one.log,
		Args: []string{
			"--leader-elect",
			"--webhook-host=localhost", "--webhook-port=" + strconv.Itoa(one.webhook),
			"--health-probe-bind-address=" + address(one.probe),
			"--metrics-bind-address=" + address(one.metrics), "--metrics-insecure",
			"--zap-encoder=console", "--zap-time-encoding=iso8601", "--zap-stacktrace-level=panic",
		},
		Env: []string{
			"KUBECONFIG=" + one.kubeconfig, "HOME=" + one.dir, "TMPDIR=" + one.dir, "PATH=",
			"AWS_ACCESS_KEY_ID=operator", "AWS_SECRET_ACCESS_KEY=not-a-secret", "AWS_EC2_METADATA_DISABLED=true",
			"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
			"AWS_REGION=us-east-1", "AWS_ENDPOINT_URL_SQS=" + r.sqsURL,
		},
	})
	one.process = p
	return err
}

func address(port int) string { return net.JoinHostPort(cluster.Host, strconv.Itoa(port)) }

// leader is the replica that leads, by its own metrics; nil: none does.
func (r *replicas) leader(ctx context.Context) (*replica, error) {
	for _, one := range r.all {
		if !one.process.Running() {
			return nil, fmt.Errorf("%s ended by itself (%s):\n%s", one.name, one.process.Exit(), process.Tail(one.log, 15))
		}
		if one.leads(ctx) {
			return one, nil
		}
	}
	return nil, nil
}

func (one *replica) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(one.metrics)+"/metrics", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = answer.Body.Close() }()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "leader_election_master_status{") {
			return strings.HasSuffix(lines.Text(), " 1")
		}
	}
	return false
}

// awaitLeader waits until a replica leads.
func (r *replicas) awaitLeader(ctx context.Context) (*replica, error) {
	var found *replica
	err := poll(ctx, time.Minute, func() (bool, error) {
		var err error
		found, err = r.leader(ctx)
		return found != nil, err
	})
	return found, err
}

// kill ends the leader's process at once, and starts another in its place.
func (r *replicas) kill(one *replica) (at time.Time, err error) {
	at = time.Now()
	one.process.Stop(0)
	return at, r.launch(one)
}

// ask asks the leader's process to end, as a rollout does, and starts another in its place when it has ended.
func (r *replicas) ask(one *replica) (at time.Time, err error) {
	at = time.Now()
	if err := one.process.Signal(syscall.SIGTERM); err != nil {
		return at, err
	}
	select {
	case <-one.process.Done():
	case <-time.After(time.Minute):
		return at, errors.New(one.name + " did not end within a minute of SIGTERM")
	}
	if e := one.process.Exit(); e.Code != 0 {
		return at, fmt.Errorf("%s ended with %s after SIGTERM:\n%s", one.name, e, process.Tail(one.log, 10))
	}
	return at, r.launch(one)
}

func (r *replicas) stop() {
	for _, one := range r.all {
		if one != nil && one.process != nil {
			one.process.Stop(0)
		}
	}
}

var errTime = errors.New("it did not happen in time")

// poll looks until look is done, at most for limit.
func poll(ctx context.Context, limit time.Duration, look func() (bool, error)) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := look(); err != nil || done {
			return err
		}
		select {
		case <-tick.C:
		case <-timer.C:
			return errTime
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
