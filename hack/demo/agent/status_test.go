package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/hack/demo/process"
)

func TestBackoff(t *testing.T) {
	var b Backoff
	for i, want := range []string{"1s", "2s", "4s", "8s", "16s", "32s", "32s"} {
		if got := b.After(time.Second); got.String() != want {
			t.Errorf("pause %d is %s, want %s", i, got, want)
		}
	}
	if got := b.After(backoffCalm); got != backoffBase {
		t.Errorf("after a calm run: %s, want %s", got, backoffBase)
	}
	if got := b.After(0); got != 2*backoffBase {
		t.Errorf("then: %s, want %s", got, 2*backoffBase)
	}
}

func TestPhase(t *testing.T) {
	var (
		running = func(k kind) *container { return &container{kind: k, proc: &process.Process{}} }
		waiting = func(k kind) *container { return &container{kind: k} }
		exited  = func(k kind, code int32) *container {
			return &container{kind: k, ended: &corev1.ContainerStateTerminated{ExitCode: code}}
		}
		all = func(c ...*container) []*container { return c }
	)
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, c := range []struct {
		what   string
		policy corev1.RestartPolicy
		all    []*container
		over   bool
		want   corev1.PodPhase
	}{
		{"nothing started", always, all(waiting(app)), false, corev1.PodPending},
		{"one of two started", always, all(running(app), waiting(app)), false, corev1.PodPending},
		{"running", always, all(running(app)), false, corev1.PodRunning},
		{"between two runs", always, all(exited(app, 0)), false, corev1.PodRunning},
		{"crashed, to be restarted", onFailure, all(exited(app, 1)), false, corev1.PodRunning},
		{"done", onFailure, all(exited(app, 0)), false, corev1.PodSucceeded},
		{"failed for good", never, all(exited(app, 1)), false, corev1.PodFailed},
		{"one done, one running", never, all(exited(app, 0), running(app)), false, corev1.PodRunning},
		{"init runs", always, all(running(initial), waiting(app)), false, corev1.PodPending},
		{"init crashed", always, all(exited(initial, 1), waiting(app)), false, corev1.PodPending},
		{"init failed for good", never, all(exited(initial, 1), waiting(app)), false, corev1.PodFailed},
		{"init done", always, all(exited(initial, 0), running(app)), false, corev1.PodRunning},
		{"a sidecar holds no job open", never, all(running(sidecar), exited(app, 0)), false, corev1.PodSucceeded},
		{"deleted after success", always, all(exited(app, 0)), true, corev1.PodSucceeded},
		{"deleted by signal", always, all(exited(app, 143)), true, corev1.PodFailed},
	} {
		if got := phase(c.policy, c.all, c.over); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
