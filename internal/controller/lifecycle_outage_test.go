package controller

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// crowded are more pods than may fall silent at once without its being an outage.
const crowded = 12

// crowd are running pods with their queues, each heard twice.
func (s *stage) crowd(change ...func(*corev1.Pod)) []*corev1.Pod {
	s.Helper()
	all := make([]*corev1.Pod, crowded)
	for i := range all {
		all[i] = s.pod(fmt.Sprintf("web-%d", i), caller(), change...)
	}
	s.settle()
	for _, p := range all {
		s.run(p)
	}
	s.settle()
	for range 2 {
		for _, p := range all {
			s.beat(p)
		}
	}
	s.settle()
	return all
}

// TestALeaderThatKnowsFewRecordsSeesAMassSilence: its watch of records hangs, and that of Leases does not.
func TestALeaderThatKnowsFewRecordsSeesAMassSilence(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	all := s.crowd()
	known := append(s.recordsOf(all[0]), s.recordsOf(all[1])...)
	s.restart()
	s.records.Client = hungRecords{s.Client, known}
	decide := func() {
		for i := range known {
			s.reconcile(s.records, known[i].Name)
		}
	}
	for range 2 {
		for _, p := range all {
			s.beat(p)
		}
		decide()
		s.look(5 * time.Second)
	}
	if s.signals.Heartbeats.Outage() {
		t.Fatal("an outage while all are heard")
	}
	s.look(90 * time.Second)
	decide()
	if n := len(s.queues()); n != crowded || !s.signals.Heartbeats.Outage() {
		t.Errorf("%d queues are left when %d pods fell silent at once (outage: %t), want all", n, crowded, s.signals.Heartbeats.Outage())
	}
}

// TestALeaderThatKnowsRecordsOfOldSeesAMassSilence: its watch of records hangs, and shows most from before their queues were there. Their
// pods were told of those, as their Leases say.
func TestALeaderThatKnowsRecordsOfOldSeesAMassSilence(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	var known []v1alpha1.ReplyQueue
	for i, p := range s.crowd() {
		known = append(known, s.recordsOf(p)...)
		if i > 0 {
			known[i].Status, known[i].ResourceVersion = v1alpha1.ReplyQueueStatus{}, "1"
		}
	}
	s.records.Client = hungRecords{s.Client, known}
	decide := func() {
		for i := range known {
			s.reconcile(s.records, known[i].Name)
		}
	}
	decide()
	s.look(90 * time.Second)
	decide()
	if n := len(s.queues()); n != crowded || !s.signals.Heartbeats.Outage() {
		t.Errorf("%d queues are left when %d pods fell silent at once (outage: %t), want all", n, crowded, s.signals.Heartbeats.Outage())
	}
}

// TestPodsThatNeedNotHeartbeatAreNoOutage: of those that ended, and those whose queues are their names', nothing is expected,
// though their Leases are there.
func TestPodsThatNeedNotHeartbeatAreNoOutage(t *testing.T) {
	t.Parallel()
	t.Run("they ended", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.channel("login")
		s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.DrainSeconds = ptr.To[int32](300) })
		for _, p := range s.crowd() {
			s.report(p, corev1.PodSucceeded, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}})
		}
		s.settle()
		s.expectNoOutage()
	})
	t.Run("their queues are their names'", func(t *testing.T) {
		t.Parallel()
		s := stableStage(t)
		s.crowd(ofSet)
		s.expectNoOutage()
	})
}

func (s *stage) expectNoOutage() {
	s.Helper()
	s.look(45 * time.Second)
	if n := len(s.queues()); n != crowded || s.signals.Heartbeats.Outage() {
		s.Errorf("%d queues, outage %t; want %d, and none", n, s.signals.Heartbeats.Outage(), crowded)
	}
}

// look lets time go by in which the counts are looked at, and nothing is reconciled.
func (s *stage) look(d time.Duration) {
	for ; d > 0; d -= 5 * time.Second {
		s.undisturbed(5 * time.Second)
		s.signals.Heartbeats.Tick(s.clock.Now())
	}
}
