package controller

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// unlabel takes the opt-in label off a pod, and returns the pod as its watch tells of that: as it was.
func (s *stage) unlabel(p *corev1.Pod) *corev1.Pod {
	s.Helper()
	s.reread(p)
	before := p.DeepCopy()
	delete(p.Labels, v1alpha1.LabelInject)
	s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
	return before
}

// leaves delivers the events of pods that leave the cache, and reconciles what is woken by them.
func (s *stage) leaves(pods ...*corev1.Pod) {
	s.Helper()
	s.unlabelled()
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer q.ShutDown()
	for _, p := range pods {
		s.pods.podEvents().Delete(s.ctx, event.DeleteEvent{Object: p}, q)
	}
	for q.Len() > 0 {
		request, _ := q.Get()
		s.reconcile(s.pods, request.Name)
		q.Done(request)
	}
	s.drainEvents()
}

// expectGate says whether a pod is to be held, and for what it is to wait.
func (s *stage) expectGate(p *corev1.Pod, held bool, why string) {
	s.Helper()
	if s.reread(p); gated(p) != held || !held && p.Annotations[v1alpha1.AnnotationWaitingFor] != "" || p.Spec.SchedulingGates[0].Name != "example.com/other" {
		s.Errorf("%s: gates %v, waiting for %q; want it held: %t, and another's gate left alone", why, p.Spec.SchedulingGates, p.Annotations[v1alpha1.AnnotationWaitingFor], held)
	}
}

// Whoever takes the opt-in label off a pod that waits at its gate wants no queues for it: it starts without, whether the operator has
// come to it before or not.
func TestAPodThatLosesItsLabelAtTheGateStarts(t *testing.T) {
	t.Parallel()
	for name, came := range map[string]bool{"after it was looked at": true, "before it was looked at": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			p, stays := s.pod("web-1", caller()), s.pod("web-2", caller())
			if came {
				s.settle()
				if s.reread(p); !gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] == "" {
					t.Fatalf("it does not wait: %v", p.Annotations)
				}
			}
			s.leaves(s.unlabel(p), stays)
			s.expectGate(p, false, "without the label")
			s.expectGate(stays, true, "with the label: that a cache does not show it is no reason")
			if n := s.heardEvent(EventOptedOut); n != 1 {
				t.Errorf("%d events, want 1: %v", n, s.said)
			}
			s.pass(10 * time.Second)
			if len(s.queues()) != 0 {
				t.Errorf("queues %v", s.queues())
			}
			s.pods.held.Range(func(key, _ any) bool { t.Errorf("%v is still remembered", key); return true })
		})
	}
}

// Of a pod that lost its label while another led, or none, or in a gap of the watch, no event tells: whoever begins to lead looks for
// it, and again now and then.
func TestAPodThatLostItsLabelUnseenStarts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	ours := s.pod("web-1", caller())
	kept := map[string]*corev1.Pod{
		"with the label":   s.pod("web-2", caller()),
		"best-effort":      s.pod("web-3", caller(), func(p *corev1.Pod) { p.Labels[v1alpha1.LabelInject] = v1alpha1.InjectBestEffort }),
		"never seen by us": s.pod("web-4", nil, func(p *corev1.Pod) { p.Labels, p.Annotations = nil, nil }),
		"being deleted":    s.pod("web-5", caller(), func(p *corev1.Pod) { p.Finalizers = []string{"example.com/held"} }),
	}
	gone := kept["being deleted"]
	s.unlabel(gone)
	s.must(s.Delete(s.ctx, gone))
	s.unlabel(ours)
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer q.ShutDown()
	s.must(lookForHeld(s.ctx, q))
	first, _ := q.Get()
	look := func() reconcile.Result {
		t.Helper()
		result, err := s.pods.Reconcile(s.ctx, first)
		s.must(err)
		s.drainEvents()
		return result
	}

	conflict := errors.New("not now")
	s.intercept = func(string, client.Object) error { return conflict }
	if _, err := s.pods.Reconcile(s.ctx, first); !errors.Is(err, conflict) {
		t.Errorf("a refusal is not tried again: %v", err)
	}
	s.intercept = func(string, client.Object) error { // Something is written between the list and the patch.
		s.intercept = nil
		s.reread(ours)
		before := ours.DeepCopy()
		ours.Annotations["example.com/note"] = "written"
		return s.Patch(s.ctx, ours, client.MergeFrom(before))
	}
	if result := look(); result.RequeueAfter != staleRetry {
		t.Errorf("after a conflict it is looked again in %s", result.RequeueAfter)
	}
	s.expectGate(ours, true, "over what was read before")
	if result := look(); result.RequeueAfter != heldRecheck {
		t.Errorf("it is looked again in %s, want %s", result.RequeueAfter, heldRecheck)
	}
	s.expectGate(ours, false, "without the label")
	for why, p := range kept {
		s.expectGate(p, true, why)
	}
	if n := s.heardEvent(EventOptedOut); n != 1 {
		t.Errorf("%d events, want 1: %v", n, s.said)
	}
	writes := s.writes
	look()
	if s.writes != writes {
		t.Errorf("%d writes when there is none left", s.writes-writes)
	}
	s.reread(gone)
	gone.Finalizers = nil
	s.must(s.Update(s.ctx, gone))
}
