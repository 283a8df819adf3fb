package controller

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// However long SQS is away, what waits for it is tried again soon after it is back: an hour's failures do not have it wait
// for a quarter of an hour, behind what comes later.
func TestWhatFailedForLongIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	limiter := workers(0).RateLimiter
	if limiter == nil {
		t.Fatal("the default limiter lets up to 1000 s pass")
	}
	var waited time.Duration
	tries := 0
	for ; waited < time.Hour; tries++ {
		wait := limiter.When(reconcile.Request{})
		if wait > 30*time.Second {
			t.Fatalf("after %v of failures the next try is in %v", waited, wait)
		}
		waited += wait
	}
	if tries > 150 {
		t.Errorf("%d tries in an hour, want about two a minute", tries)
	}
}
