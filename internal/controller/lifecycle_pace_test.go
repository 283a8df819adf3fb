package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// TestAShorterIntervalWaitsUntilItIsKnown shortens a ReplyHost's times under an application that heartbeats every ten
// seconds and learns of the change with its next heartbeat.
func TestAShorterIntervalWaitsUntilItIsKnown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", nil)
	p := s.runningCaller("web-1")
	s.reread(host)
	host.Spec.Heartbeat.IntervalSeconds, host.Spec.IdleRetentionSeconds = ptr.To[int32](1), ptr.To[int32](5)
	s.must(s.Update(s.ctx, host))
	s.settle()
	if got := s.lease(p).Annotations[injected.LeaseIntervalSeconds]; got != "1" {
		t.Fatalf("the Lease advises %s s, want 1", got)
	}
	s.pass(45 * time.Second)
	if len(s.queues()) != 1 {
		t.Fatal("closed before the application could know of the shorter interval")
	}
	s.beat(p)
	s.settle()
	s.pass(15 * time.Second) // the beacon was slower than the application is now: its count begins with the next
	if len(s.queues()) != 0 {
		t.Error("kept although the application knew of the shorter interval and was silent")
	}
}

// TestTheNextLeaderKnowsThePaceThatWasTold lengthens a ReplyHost's times, and shortens them again when its application has
// learned of that. The next leader knows that the application renews as slowly as it was told, until it renews.
func TestTheNextLeaderKnowsThePaceThatWasTold(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", nil)
	edit := func(interval, retention int32) {
		t.Helper()
		s.reread(host)
		host.Spec.Heartbeat.IntervalSeconds, host.Spec.IdleRetentionSeconds = &interval, &retention
		s.must(s.Update(s.ctx, host))
		s.settle()
	}
	known := func(p *corev1.Pod) string { return s.lease(p).Annotations[heartbeat.AnnotationKnownInterval] }
	p := s.runningCaller("web-1")
	s.beat(p)
	edit(120, 600)
	if known(p) != "" {
		t.Errorf("known: %s; what is advised is the longest", known(p))
	}
	s.beat(p)
	s.settle()
	edit(10, 60)
	if known(p) != "120" || s.lease(p).Annotations[injected.LeaseIntervalSeconds] != "10" {
		t.Errorf("the Lease says %v, want 10 advised and 120 known", s.lease(p).Annotations)
	}
	for range 2 {
		s.restart()
		s.settle()
		s.pass(2 * time.Minute)
		s.expectKept(p)
	}
	writes := s.writes
	s.beat(p)
	s.settle()
	if known(p) != "" || s.writes != writes+1 {
		t.Errorf("known: %s, after %d writes; want it forgotten with one", known(p), s.writes-writes)
	}
	s.pass(65 * time.Second)
	if len(s.queues()) != 0 {
		t.Error("kept although the application knew of the shorter interval and was silent")
	}
}
