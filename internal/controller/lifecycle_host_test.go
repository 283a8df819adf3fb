package controller

import (
	"testing"
	"time"

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
