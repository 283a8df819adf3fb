package controller

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// A pod that waits for a place is told of the limit once, and not of each other pod that goes.
func TestThoseWhoWaitForAPlaceAreToldOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", func(h *v1alpha1.ReplyHostSpec) {
		h.MaxQueues, h.DrainSeconds = ptr.To[int32](3), ptr.To[int32](0)
	})
	s.settle()
	var run []*corev1.Pod
	for i := range 3 {
		run = append(run, s.runningCaller(fmt.Sprint("runs-", i)))
	}
	s.reread(host)
	host.Spec.MaxQueues = ptr.To[int32](1)
	s.must(s.Update(s.ctx, host))
	waits := s.pod("waits", caller())
	s.settle()
	for _, p := range run[:2] {
		s.stop(p)
		s.pass(5 * time.Second)
	}
	if s.reread(waits); !gated(waits) || len(s.queues()) != 1 {
		t.Fatalf("gated %v, queues %v; want it to wait for the last", gated(waits), s.queues())
	}
	if n := s.heardEvent("spec.maxQueues is 1"); n != 1 {
		t.Errorf("%d events, want 1: %v", n, s.said)
	}
}

// Who takes a place keeps neither the pods of other ReplyHosts waiting, nor those for which there is none.
func TestAPlaceIsTakenBesideOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	one := func(h *v1alpha1.ReplyHostSpec) { h.MaxQueues = ptr.To[int32](1) }
	host := s.host("web", one)
	s.host("other", one)
	s.settle()
	s.runningCaller("runs")
	place := s.pods.place(host)
	place.Lock()
	defer place.Unlock()
	waits := s.pod("waits", caller())
	starts := s.pod("starts", map[string]string{v1alpha1.AnnotationReplyHost: "other"})
	s.settle()
	s.reread(waits)
	s.reread(starts)
	if !gated(waits) || waits.Annotations[v1alpha1.AnnotationWaitingFor] == "" || gated(starts) {
		t.Errorf("gated %v and %v; want the first to wait, and say so, and the other to start", gated(waits), gated(starts))
	}
}
