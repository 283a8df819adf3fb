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

// TestAForgedClosingClosesNothing: without the policy that guards heartbeats any service account can mark any Lease.
func TestAForgedClosingClosesNothing(t *testing.T) {
	for _, guardedAgain := range []bool{false, true} {
		s := newReadyStage(t)
		p := s.runningCaller("web-1")
		url := s.lease(p).Annotations[injected.LeaseReplyQueueURL]
		s.guarded = false
		s.settle()
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:""}}}`, injected.LeaseState, injected.LeaseStateClosing, heartbeat.AnnotationClosingID)
		s.must(s.Patch(s.ctx, s.lease(p), client.RawPatch(types.MergePatchType, []byte(patch))))
		s.guarded = guardedAgain
		s.beat(p)
		s.settle()
		s.beatFor(p, func() { s.pass(30 * time.Second) })
		s.expectKept(p)
		if l := s.lease(p); s.leaseState(p) != injected.LeaseStateOpen || l.Annotations[injected.LeaseReplyQueueURL] != url {
			t.Errorf("the Lease is %s and names %q, want it open again for %q", s.leaseState(p), l.Annotations[injected.LeaseReplyQueueURL], url)
		}
	}
}
