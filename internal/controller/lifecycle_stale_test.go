package controller

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

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
		if selector := (&client.ListOptions{}).ApplyOptions(opts).FieldSelector; selector != nil {
			return filter(l, selector.Requirements()[0].Field, selector.Requirements()[0].Value)
		}
		return nil
	}
	return h.Client.List(ctx, l, opts...)
}

func (h hungRecords) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if record, ok := o.(*v1alpha1.ReplyQueue); ok {
		for i := range h.records {
			if client.ObjectKeyFromObject(&h.records[i]) == key {
				h.records[i].DeepCopyInto(record)
				return nil
			}
		}
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("replyqueues").GroupResource(), key.Name)
	}
	return h.Client.Get(ctx, key, o, opts...)
}

// TestAClosingThatWasUndoneIsNotFinished: etcd was set back to before a record was closed, while the watch of records hangs.
func TestAClosingThatWasUndoneIsNotFinished(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	closed := s.recordsOf(p)
	closed[0].Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseIdle, Message: "silent", Time: metav1.Now()}
	closed[0].Status.State = v1alpha1.ReplyQueueClosing
	caught := s.Client
	s.records.Client = hungRecords{caught, closed}
	for range 3 {
		s.reconcile(s.records, closed[0].Name)
	}
	if n := len(s.queues()); n != 1 {
		t.Fatalf("%d queues of a pod that lives, and whose record is open, want 1", n)
	}
	s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(0)))
	s.records.Client = caught
	s.pass(3 * time.Minute)
	s.expectNothingLeft(p)
}

// TestAClosingIsFinishedByWhoeverComes: a closing that was interrupted is finished at the cost of one more reading, and not
// where its record is gone: what is left then has no record, and is for the sweeper to judge.
func TestAClosingIsFinishedByWhoeverComes(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		s := newReadyStage(t)
		p := s.runningCaller("web-1")
		closed := s.recordsOf(p)
		before := closed[0].DeepCopy()
		closed[0].Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseIdle, Message: "silent", Time: metav1.Now()}
		closed[0].Status.State = v1alpha1.ReplyQueueClosing
		s.must(s.Status().Patch(s.ctx, &closed[0], client.MergeFrom(before)))
		want := 0
		if gone {
			removed := closed[0].DeepCopy()
			removed.Finalizers = nil
			s.must(s.Patch(s.ctx, removed, client.MergeFrom(&closed[0])))
			s.must(s.Delete(s.ctx, removed))
			want = 1
		}
		reads := 0
		s.records.Client = hungRecords{s.Client, closed}
		s.records.Reader = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if _, ok := o.(*v1alpha1.ReplyQueue); ok {
					reads++
				}
				return c.Get(ctx, key, o, opts...)
			},
		})
		s.reconcile(s.records, closed[0].Name)
		if n := len(s.queues()); n != want || reads != 1 {
			t.Errorf("record gone: %t; %d queues after %d readings of the record, want %d after one", gone, n, reads, want)
		}
	}
}

// TestARecordThatCameBackIsNotDeleted: etcd was set back to when a record was open, before the operator's deletion of what was
// left of it arrived, or while its watch of records hangs.
func TestARecordThatCameBackIsNotDeleted(t *testing.T) {
	t.Parallel()
	for name, removed := range map[string]func(*stage, *v1alpha1.ReplyQueue){
		"before the deletion arrived": func(s *stage, record *v1alpha1.ReplyQueue) {
			back := record.DeepCopy()
			s.intercept = func(verb string, o client.Object) error {
				if now, ok := o.(*v1alpha1.ReplyQueue); ok && verb == "delete" {
					s.intercept = nil
					before := now.DeepCopy()
					before.Finalizers = nil
					now = before.DeepCopy()
					now.Finalizers = back.Finalizers
					s.must(s.Patch(s.ctx, now, client.MergeFrom(before)))
				}
				return nil
			}
			before := record.DeepCopy()
			record.Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseIdle, Message: "silent", Time: metav1.Now()}
			s.must(s.Status().Patch(s.ctx, record, client.MergeFrom(before)))
			s.reconcile(s.records, record.Name)
		},
		"while the watch hangs": func(s *stage, record *v1alpha1.ReplyQueue) {
			seen := record.DeepCopy()
			seen.Finalizers, seen.ResourceVersion = nil, "1"
			s.records.Client = hungRecords{s.Client, []v1alpha1.ReplyQueue{*seen}}
			s.reconcile(s.records, record.Name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			removed(s, &s.recordsOf(p)[0])
			records := s.recordsOf(p)
			if len(records) != 1 || records[0].DeletionTimestamp != nil || len(records[0].Finalizers) == 0 {
				t.Errorf("records %v, want the one that came back, and nobody's wish that it goes", records)
			}
		})
	}
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

// TestNobodyTakesOverAClosedRecord: the cache shows it from before it was closed. The successor would be told of a queue that is being
// deleted.
func TestNobodyTakesOverAClosedRecord(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	s.stop(p)
	s.settle()
	cached := s.recordsOf(p)
	closed := cached[0].DeepCopy()
	closed.Status.State = v1alpha1.ReplyQueueClosing
	closed.Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseNameAbsent, Message: "absent", Time: metav1.Now()}
	s.must(s.Status().Patch(s.ctx, closed, client.MergeFrom(&cached[0])))
	successor := s.pod("web-0", caller(), ofSet)
	s.pods.Client = hungRecords{s.Client, cached}
	for range 3 {
		s.reconcile(s.pods, successor.Name)
	}
	s.reread(successor)
	if url := successor.Annotations[v1alpha1.AnnotationReplyQueueURL]; len(s.recordsOf(successor)) != 0 || url != "" || !gated(successor) {
		t.Errorf("it has taken over a record that was closed, and is told %q", url)
	}
}

// TestNobodySucceedsItself: the cache shows a record from before the pod took it over. It would count itself as its predecessor, and
// delete its own Lease.
func TestNobodySucceedsItself(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	s.stop(p)
	s.settle()
	cached := s.recordsOf(p)
	successor := s.member("web-0")
	lease := s.lease(successor)
	s.pods.Client = hungRecords{s.Client, cached}
	for range 4 {
		s.reconcile(s.pods, successor.Name)
		s.undisturbed(time.Minute)
	}
	if now := s.lease(successor); now.UID != lease.UID || now.Annotations[injected.LeaseReplyQueueURL] != lease.Annotations[injected.LeaseReplyQueueURL] {
		t.Errorf("its Lease was written anew, or says %v", now.Annotations)
	}
}
