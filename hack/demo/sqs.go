package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const region = "us-east-1"

// sqsServer is the SQS server's process, and what it says of itself.
type sqsServer struct {
	url  string
	proc *process.Process

	mu   sync.Mutex
	peak int // most reply queues at once
}

// startSQS starts the server on loopback and waits until it answers.
func startSQS(ctx context.Context, program, dir string) (*sqsServer, error) {
	port, err := freeport.Loopback()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(cluster.Host, strconv.Itoa(port))
	s := &sqsServer{url: "http://" + address}
	s.proc, err = process.Start(process.Spec{
		Name: "sqstest", Path: program, Args: []string{"--listen=" + address, "--region=" + region},
		Env: []string{"HOME=" + dir}, Dir: dir, Log: filepath.Join(dir, "sqstest.log"),
	})
	if err != nil {
		return nil, err
	}
	return s, poll(ctx, 10*time.Second, func() (bool, error) {
		if !s.proc.Running() {
			return false, fmt.Errorf("sqstest ended (%s):\n%s", s.proc.Exit(), process.Tail(s.proc.Log(), 5))
		}
		_, err := s.state(ctx)
		return err == nil, nil
	})
}

// state asks the server. It costs no SQS request.
func (s *sqsServer) state(ctx context.Context) (sqstest.State, error) {
	var state sqstest.State
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/_sqstest/state", nil)
	if err != nil {
		return state, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return state, err
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(answer.Body).Decode(&state); err != nil {
		return state, fmt.Errorf("state of sqstest: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peak = max(s.peak, len(replyQueues(state)))
	return state, nil
}

// watchPeak looks often enough that no peak is missed by much. It blocks until ctx ends.
func (s *sqsServer) watchPeak(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = s.state(ctx) // One look more or less changes nothing.
		}
	}
}

func (s *sqsServer) peakReplyQueues() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak
}

// replyQueues are the URLs of the queues that are tagged as reply queues.
func replyQueues(state sqstest.State) map[string]bool {
	urls := map[string]bool{}
	for _, q := range state.Queues {
		if q.Tags[v1alpha1.TagKind] == v1alpha1.TagKindReply {
			urls[q.URL] = true
		}
	}
	return urls
}

// left are the queues but the cluster's marker (internal/fence): that one stays as long as the cluster does.
func left(state sqstest.State) (queues []sqstest.QueueInfo) {
	for _, q := range state.Queues {
		if q.Tags[v1alpha1.TagKind] != v1alpha1.TagKindIdentity {
			queues = append(queues, q)
		}
	}
	return queues
}

func requests(state sqstest.State) (n int) {
	for _, r := range state.Requests {
		n += r
	}
	return n
}

// awsEnvironment is what makes an AWS SDK talk to the server, and to nobody else, as the operator.
func (s *sqsServer) awsEnvironment() []corev1.EnvVar {
	return append(awsIdentity("operator"),
		corev1.EnvVar{Name: "AWS_REGION", Value: region},
		corev1.EnvVar{Name: "AWS_ENDPOINT_URL_SQS", Value: s.url},
	)
}

// awsIdentity is who an AWS SDK is, and not where it is to go: containers learn region and endpoint from the
// operator, or make no call.
func awsIdentity(user string) []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: "AWS_ACCESS_KEY_ID", Value: user}, // sqstest takes any key
		{Name: "AWS_SECRET_ACCESS_KEY", Value: "not-a-secret"},
		{Name: "AWS_EC2_METADATA_DISABLED", Value: "true"},
		{Name: "AWS_CONFIG_FILE", Value: os.DevNull},
		{Name: "AWS_SHARED_CREDENTIALS_FILE", Value: os.DevNull},
	}
}

func assignments(env []corev1.EnvVar) []string {
	out := make([]string, 0, len(env))
	for _, e := range env {
		out = append(out, e.Name+"="+e.Value)
	}
	return out
}

// queueName is the last part of a queue's URL.
func queueName(url string) string { return url[strings.LastIndex(url, "/")+1:] }

// poll calls look until it says done, at most for limit. It returns errTime when the time is up.
func poll(ctx context.Context, limit time.Duration, look func() (done bool, err error)) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
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
