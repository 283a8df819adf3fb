package controller

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Whoever takes the opt-in label off a pod that waits at its gate wants no queues for it: it starts without.
func TestAPodThatLosesItsLabelAtTheGateStarts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p, stays := s.pod("web-1", caller()), s.pod("web-2", caller())
	s.settle()
	s.reread(p)
	if !gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] == "" {
		t.Fatalf("it does not wait: %v", p.Annotations)
	}
	before := p.DeepCopy()
	delete(p.Labels, v1alpha1.LabelInject)
	s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
	s.unlabelled()
	s.pass(10 * time.Second)
	s.reread(p)
	if gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] != "" || len(p.Spec.SchedulingGates) != 1 {
		t.Errorf("gates %v, waiting for %q; want another's gate alone, and nothing waited for", p.Spec.SchedulingGates, p.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	if n := s.heardEvent(EventOptedOut); n != 1 {
		t.Errorf("%d events, want 1: %v", n, s.said)
	}
	// A cache that merely does not show it yet is no reason.
	if s.reread(stays); !gated(stays) {
		t.Error("a pod with the label was let go")
	}
	if len(s.queues()) != 0 {
		t.Errorf("queues %v", s.queues())
	}
}
