package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// ofSet makes a pod one of the StatefulSet web.
func ofSet(p *corev1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "s", Controller: ptr.To(true)}}
}

func TestStableQueueOutlivesItsPod(t *testing.T) {
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = v1alpha1.IdentityStable })
	p := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.run(p)
	s.settle()
	queues := s.queues()
	s.stop(p)
	s.settle()
	successor := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.reread(successor)
	if gated(successor) || !slices.Equal(s.queues(), queues) || successor.Annotations[v1alpha1.AnnotationReplyQueueURL] == "" {
		t.Fatalf("gated %v, queues %v, want the predecessor's %v", gated(successor), s.queues(), queues)
	}
	s.run(successor)
	s.settle()

	// One that vanished may still read: its successor waits.
	s.vanish(successor)
	third := s.pod("web-0", caller(), ofSet)
	s.pass(25 * time.Second)
	if s.reread(third); !gated(third) || !strings.Contains(third.Annotations[v1alpha1.AnnotationWaitingFor], "predecessor") {
		t.Errorf("gated %v, waiting for %q", gated(third), third.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.pass(10 * time.Second)
	if s.reread(third); gated(third) || !slices.Equal(s.queues(), queues) {
		t.Errorf("gated %v, queues %v, want the first pod's %v", gated(third), s.queues(), queues)
	}
	s.vanish(third)
	s.pass(65 * time.Second)
	s.expectNothingLeft(third)

	loner := s.pod("loner", caller())
	s.settle()
	if s.reread(loner); !strings.Contains(loner.Annotations[v1alpha1.AnnotationWaitingFor], "StatefulSet") {
		t.Errorf("waiting for %q", loner.Annotations[v1alpha1.AnnotationWaitingFor])
	}
}

// TestTakeoverWaitsForThePaceThatIsKnown shortens a Stable host's times just before its pod vanishes: the old process
// may still heartbeat, and read, at the pace it knew.
func TestTakeoverWaitsForThePaceThatIsKnown(t *testing.T) {
	s := newStage(t)
	s.channel("login")
	host := s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = v1alpha1.IdentityStable })
	p := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.run(p)
	s.settle()
	s.beat(p)
	s.reread(host)
	host.Spec.Heartbeat.IntervalSeconds, host.Spec.IdleRetentionSeconds, host.Spec.DrainSeconds = ptr.To[int32](1), ptr.To[int32](60), ptr.To[int32](0)
	s.must(s.Update(s.ctx, host))
	s.settle()
	s.vanish(p)
	successor := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.pass(25 * time.Second)
	if s.reread(successor); !gated(successor) {
		t.Error("took over within two heartbeats of the pace its predecessor knew")
	}
	s.pass(10 * time.Second)
	if s.reread(successor); gated(successor) {
		t.Errorf("still gated: %v", successor.Annotations)
	}
}
