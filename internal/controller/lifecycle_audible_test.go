package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// TestAnEndedPodThatHeartbeatsKeepsItsQueue has a pod evicted whose kubelet never reports its containers' end, and whose
// process goes on reading and heartbeating: its token works for as long as its object is there.
func TestAnEndedPodThatHeartbeatsKeepsItsQueue(t *testing.T) {
	t.Parallel()
	for name, identity := range map[string]v1alpha1.Identity{"Pod": v1alpha1.IdentityPod, "Stable": v1alpha1.IdentityStable} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.channel("login")
			s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = identity })
			p := s.pod("web-0", caller(), ofSet)
			s.settle()
			s.run(p)
			s.settle()
			s.beat(p)
			s.settle()
			s.report(p, corev1.PodFailed, runningNow)
			s.settle()
			s.beatFor(p, func() { s.pass(4 * time.Minute) })
			if len(s.recordsOf(p)) != 1 || len(s.queues()) != 1 {
				t.Fatalf("%d records and queues %v of a process that heartbeats", len(s.recordsOf(p)), s.queues())
			}
			s.pass(4 * time.Minute)
			if len(s.recordsOf(p)) != 0 || len(s.queues()) != 0 {
				t.Errorf("%d records and queues %v of one that fell silent", len(s.recordsOf(p)), s.queues())
			}
		})
	}
}
