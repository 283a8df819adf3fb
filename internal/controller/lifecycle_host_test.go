package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// A pod that fell silent uses its ReplyHost, though it has no queue: it wakes by it. It holds its deletion until it is gone.
func TestAReplyHostIsHeldForItsIdlePods(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", nil)
	p := s.runningCaller("web-1")
	s.pass(70 * time.Second)
	if n := len(s.queues()); n != 0 {
		t.Fatalf("%d queues, want none of the silent pod", n)
	}
	s.must(s.Delete(s.ctx, host))
	s.settle()
	s.restart()
	s.pass(10 * time.Second)
	if !s.exists(host) || !conditions.Is(host, v1alpha1.ConditionInUse, metav1.ConditionTrue) {
		t.Fatalf("the ReplyHost of an idle pod is let go, or is not InUse: %v", host.Status.Conditions)
	}
	s.beat(p)
	s.settle()
	s.beat(p)
	s.settle()
	s.reread(p)
	if len(s.queues()) != 1 || p.Annotations[v1alpha1.AnnotationReplyQueueURL] == "" {
		t.Fatalf("queues %v, told %v; want the woken pod to have a queue again", s.queues(), p.Annotations)
	}
	s.pass(70 * time.Second) // silent once more
	s.stop(p)
	s.pass(time.Minute)
	s.expectNothingLeft(p)
	if s.exists(host) {
		t.Errorf("the ReplyHost stays when its last pod is gone: %v", host.Status.Conditions)
	}
}

// Of the end of an idle pod that had lost its label nobody tells: its Lease is there for as long as nobody sweeps, and holds its
// ReplyHost no longer.
func TestAReplyHostIsNotHeldForIdlePodsThatAreGone(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]func(*stage, *corev1.Pod){
		"gone":                         (*stage).vanish,
		"gone, and its name is reused": func(s *stage, p *corev1.Pod) { s.vanish(p); s.pod(p.Name, nil) },
		"ended": func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodSucceeded, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.channel("login")
			host := s.host("web", nil)
			p := s.runningCaller("web-1")
			s.pass(70 * time.Second)
			s.unlabel(p)
			s.unlabelled()
			s.hosts.Client, s.hosts.Reader = withoutPods{s.Client}, s.Client
			s.must(s.Delete(s.ctx, host))
			for range 2 {
				s.reconcile(s.hosts, host.Name)
			}
			if !s.exists(host) {
				t.Fatal("the ReplyHost of an idle pod is let go, which lives without the label")
			}
			ends(s, p)
			s.reconcile(s.hosts, host.Name)
			if s.exists(host) {
				t.Errorf("the ReplyHost stays: %v", host.Status.Conditions)
			}
			if !s.leaseExists(p) {
				t.Error("the Lease is gone by itself, and shows nothing")
			}
		})
	}
}
