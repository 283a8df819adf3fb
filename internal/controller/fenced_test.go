package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// holding is a fence that holds everything, as long as it is closed.
type holding struct{ closed, conflict bool }

func (h *holding) MayDelete(provider string) error {
	if !h.closed {
		return nil
	}
	return &queue.Held{Provider: provider, Conflict: h.conflict, Message: "held", RetryAfter: time.Second}
}

func (*holding) AdoptsFrom(string) string { return "" }

// fence puts a fence before every deletion.
func (s *stage) fence(f queue.Fence) { s.records.Providers.(onlyProvider).Fence = f }

func TestNoReplyQueueIsDeletedWhileTheFenceHolds(t *testing.T) {
	t.Parallel()
	for _, conflict := range []bool{true, false} {
		s := newReadyStage(t)
		fence := &holding{conflict: conflict}
		s.fence(fence)
		p := s.runningCaller("web-1")
		fence.closed = true
		s.stop(p)
		s.pass(3 * time.Minute)
		if n := len(s.queues()); n != 1 {
			t.Fatalf("%d queues, want the one that is held", n)
		}
		record := s.recordsOf(p)[0]
		want := v1alpha1.ReasonIdentityUnproven
		if conflict {
			want = v1alpha1.ReasonIdentityConflict
		}
		if got := conditions.Reason(&record, v1alpha1.ConditionReady); got != want {
			t.Errorf("the record says %s, want %s", got, want)
		}
		fence.closed = false
		s.pass(10 * time.Second)
		s.expectNothingLeft(p)
	}
}

// The original of a copy would sweep the copy's queues, of which it has no record. So the copy's pods wait. While it is merely
// not known yet whether this is a copy, they do not.
func TestACopyMakesNoReplyQueues(t *testing.T) {
	t.Parallel()
	for _, conflict := range []bool{true, false} {
		s := newReadyStage(t)
		fence := &holding{closed: true, conflict: conflict}
		s.fence(fence)
		p := s.pod("web-1", caller())
		s.settle()
		s.reread(p)
		if says := strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], v1alpha1.ReasonIdentityConflict); gated(p) != conflict || says != conflict || (len(s.queues()) == 0) != conflict {
			t.Errorf("conflict %v: gated %v, waiting for %q, queues %v", conflict, gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor], s.queues())
		}
		fence.closed = false
		s.settle()
		if s.reread(p); gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] != "" || len(s.queues()) != 1 {
			t.Errorf("conflict %v, and it ends: gated %v, waiting for %q, queues %v", conflict, gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor], s.queues())
		}
	}
}

func TestAPodWhoseQueueWasDeletedGetsAnother(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	record := s.recordsOf(p)[0]
	s.signals.QueueMissing(record.UID)
	s.settle()
	if got := s.recordsOf(p); len(got) != 1 || got[0].UID != record.UID {
		t.Fatal("a record was closed whose queue is there")
	}
	url := record.Status.QueueURL
	_, err := s.sqs.Client().DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: ptr.To(url)})
	s.must(err)
	s.signals.QueueMissing(record.UID)
	s.settle()
	s.beat(p)
	s.settle()
	got := s.recordsOf(p)
	if len(got) != 1 || got[0].UID == record.UID || len(s.queues()) != 1 {
		t.Fatalf("%d records and the queues %v, want a new one", len(got), s.queues())
	}
	if n := s.heardEvent(EventReplyQueueMissing); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// A record whose queue cannot be deleted, since SQS does not tell whose it is, is let go when a cluster administrator says so, and
// not before that has lasted for longer than finding it out takes.
func TestAReplyQueueIsGivenUpByForceWhereTheFenceCannotTell(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	f, provider := s.fenced(s.identity("identity", nil))
	s.pods.Providers, s.records.Providers = provider, provider
	f.Round(s.ctx)
	p := s.runningCaller("web-1")
	record := s.recordsOf(p)[0]
	s.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied}}})
	metav1.SetMetaDataAnnotation(&record.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
	s.must(s.Update(s.ctx, &record))
	for range 10 { // What was proven before is old.
		s.clock.Step(fence.DefaultInterval)
		f.Round(s.ctx)
	}
	s.stop(p)
	compared := func(d time.Duration) {
		for range d / fence.DefaultInterval {
			s.pass(fence.DefaultInterval)
			f.Round(s.ctx)
		}
	}
	compared(time.Minute)
	if got := s.recordsOf(p); len(got) != 1 || conditions.Reason(&got[0], v1alpha1.ConditionReady) != v1alpha1.ReasonIdentityUnproven {
		t.Fatalf("it does not wait for what may pass: %+v", got)
	}
	compared(5 * time.Minute)
	s.expectGone(p)
	if n := s.heardEvent(EventQueueAbandoned); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}
