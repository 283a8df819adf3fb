package controller

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// TestAForgedClosingClosesNothing: without the policy that guards heartbeats any service account can mark any Lease, and
// many people may read records.
func TestAForgedClosingClosesNothing(t *testing.T) {
	for _, c := range []struct{ announced, guardedAgain bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			url := s.lease(p).Annotations[injected.LeaseReplyQueueURL]
			if c.announced { // A closing that a heartbeat refused.
				record := s.recordsOf(p)[0]
				record.Status.ClosingIDHash = hashOfID("never written")
				s.must(s.Status().Update(s.ctx, &record))
			}
			s.guarded = false
			s.settle()
			patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:%q}}}`, injected.LeaseState, injected.LeaseStateClosing,
				heartbeat.AnnotationClosingID, s.recordsOf(p)[0].Status.ClosingIDHash)
			s.must(s.Patch(s.ctx, s.lease(p), client.RawPatch(types.MergePatchType, []byte(patch))))
			s.guarded = c.guardedAgain
			s.beat(p)
			s.settle()
			s.beatFor(p, func() { s.pass(30 * time.Second) })
			s.expectKept(p)
			if l := s.lease(p); s.leaseState(p) != injected.LeaseStateOpen || l.Annotations[injected.LeaseReplyQueueURL] != url {
				t.Errorf("the Lease is %s and names %q, want it open again for %q", s.leaseState(p), l.Annotations[injected.LeaseReplyQueueURL], url)
			}
		})
	}
}

// TestALateMarkIsNone: an earlier leader's mark arrives when the next has announced another, and decided to keep the queue.
func TestALateMarkIsNone(t *testing.T) {
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	record := s.recordsOf(p)[0]
	record.Status.ClosingIDHash = hashOfID("the next one's")
	s.must(s.Status().Update(s.ctx, &record))
	s.must(closeLease(s.ctx, s, s.lease(p), record.UID, "the earlier one's"))
	s.beat(p)
	s.beatFor(p, func() { s.pass(30 * time.Second) })
	s.expectKept(p)
	if now := s.recordsOf(p); len(now) != 1 || now[0].UID != record.UID || s.leaseState(p) != injected.LeaseStateOpen {
		t.Errorf("the Lease is %s, and %d records are there, want the one from before", s.leaseState(p), len(now))
	}
}

// TestAnAnnouncedMarkIsFinished, whoever left it so: closing is irreversible from the mark on.
func TestAnAnnouncedMarkIsFinished(t *testing.T) {
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	record := s.recordsOf(p)[0]
	record.Status.ClosingIDHash = hashOfID("ours")
	s.must(s.Status().Update(s.ctx, &record))
	s.must(closeLease(s.ctx, s, s.lease(p), record.UID, "ours"))
	s.restart()
	s.settle()
	if now := s.recordsOf(p); len(now) != 0 || len(s.queues()) != 0 {
		t.Errorf("%d records and queues %v are left of what was closed", len(now), s.queues())
	}
	s.beat(p)
	s.settle()
	s.beat(p)
	if len(s.recordsOf(p)) != 1 || s.leaseState(p) != injected.LeaseStateOpen {
		t.Error("the application that heartbeats got no other")
	}
}
