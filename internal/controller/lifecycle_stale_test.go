package controller

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// hungRecords is a cache whose watch of records hangs.
type hungRecords struct {
	client.Client
	records []v1alpha1.ReplyQueue
}

func (h hungRecords) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if records, ok := l.(*v1alpha1.ReplyQueueList); ok {
		records.Items = append([]v1alpha1.ReplyQueue(nil), h.records...)
		return nil
	}
	return h.Client.List(ctx, l, opts...)
}

// TestAnOldCacheTellsNobodyOfAClosedQueue: a leader that was replaced hears Leases, but its watch of records hangs. To it the
// record that the new leader has closed and replaced is open, and the version of the Lease that it knows is the present one.
func TestAnOldCacheTellsNobodyOfAClosedQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	old := s.recordsOf(p)
	s.pass(2 * time.Minute) // silence
	if n := len(s.queues()); n != 0 {
		t.Fatalf("%d queues of a silent pod, want 0", n)
	}
	s.beat(p)
	s.settle()
	want := s.lease(p).Annotations[injected.LeaseReplyQueueURL]
	if want == "" || want == old[0].Status.QueueURL {
		t.Fatalf("the Lease names %q after the pod woke, want a new queue", want)
	}
	s.listen()
	s.pods.Client = hungRecords{s.Client, old}
	s.reconcile(s.pods, p.Name)
	s.reread(p)
	for where, got := range map[string]string{
		"Lease": s.lease(p).Annotations[injected.LeaseReplyQueueURL], "pod": p.Annotations[v1alpha1.AnnotationReplyQueueURL],
	} {
		if got != want {
			t.Errorf("the %s names %q, which was deleted; want %q", where, got, want)
		}
	}
}

// TestAnOldCacheTellsNoOtherLeaseOfAClosedQueue: the same where the Lease does not name another open record: it was
// deleted and is written anew, or says nothing, or its new queue was closed as well.
func TestAnOldCacheTellsNoOtherLeaseOfAClosedQueue(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*stage, *corev1.Pod){
		"the Lease is gone": func(s *stage, p *corev1.Pod) { s.must(s.Delete(s.ctx, s.lease(p))) },
		"the Lease names no record": func(s *stage, p *corev1.Pod) {
			l := s.lease(p)
			l.Annotations = nil
			s.must(s.Update(s.ctx, l))
		},
		"the next queue was closed": func(s *stage, _ *corev1.Pod) { s.pass(2 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			old := s.recordsOf(p)
			s.pass(2 * time.Minute)
			s.beat(p)
			s.settle()
			if n := len(s.queues()); n != 1 {
				t.Fatalf("%d queues of a pod that woke, want 1", n)
			}
			change(s, p)
			s.listen()
			s.pods.Client = hungRecords{s.Client, old}
			s.reconcile(s.pods, p.Name)
			var leases coordinationv1.LeaseList
			s.must(s.List(s.ctx, &leases, client.InNamespace(v1alpha1.HeartbeatNamespace), client.MatchingLabels{v1alpha1.LabelPodUID: string(p.UID)}))
			for _, l := range leases.Items {
				if got := l.Annotations[injected.LeaseReplyQueueURL]; got == old[0].Status.QueueURL {
					t.Errorf("the Lease names %q, which was deleted", got)
				}
			}
		})
	}
}
