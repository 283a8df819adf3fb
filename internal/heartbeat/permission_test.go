package heartbeat

import (
	"context"
	"errors"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	testclock "k8s.io/utils/clock/testing"
)

// Beacons come back while applications may not heartbeat: nobody is silent for that, and each count begins anew when they may
// again. That the API server is there, and pods can be counted, is another thing.
func TestNobodyIsSilentWithoutPermission(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.beat("a")
	w.pass(50 * time.Second)
	w.setUnpermitted(true)
	w.pass(10 * time.Minute)
	if n := w.noticed("a"); n != 0 {
		t.Errorf("%d notices of a silence that has another cause", n)
	}
	if w.Hear("a", w.now).Continuous {
		t.Error("silence is counted without permission")
	}
	if _, continuous := w.View(w.now); !continuous {
		t.Error("the view of pods has a gap, though beacons come back")
	}
	w.setUnpermitted(false)
	if w.Hear("a", w.now).Continuous {
		t.Error("silence is counted before a beacon")
	}
	w.pass(55 * time.Second)
	if s := w.silence("a"); s > 55*time.Second {
		t.Errorf("silent for %s, of which the permission was there for 55 s", s)
	}
	if n := w.noticed("a"); n != 0 {
		t.Errorf("%d notices before the retention was over again", n)
	}
	w.pass(15 * time.Second)
	if n := w.noticed("a"); n != 1 {
		t.Errorf("%d notices of a silence longer than the retention, want 1", n)
	}
}

// An outage that seems to end because nobody is counted any more does not begin a view without permission.
func TestNoViewBeginsWithoutPermission(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.expectPod(string(rune('A'+i)), 10*time.Second, time.Hour)
	}
	w.pass(2 * time.Minute)
	if !w.Outage() {
		t.Fatal("no outage, though all are silent")
	}
	w.setUnpermitted(true)
	w.pass(time.Minute)
	if w.Outage() || w.Hear("A", w.now).Continuous {
		t.Errorf("outage %v, counted %v", w.Outage(), w.Hear("A", w.now).Continuous)
	}
}

// beaconLeases takes beacons.
type beaconLeases struct {
	coordinationclient.LeaseInterface // nil
	written                           int
}

func (b *beaconLeases) Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*coordinationv1.Lease, error) {
	b.written++
	return &coordinationv1.Lease{}, nil
}

// The listener asks with each beacon, tells of a change, and sends no beacon while nobody answers.
func TestTheListenerAsksForPermission(t *testing.T) {
	clock, leases := testclock.NewFakeClock(time.Unix(1_000_000, 0)), &beaconLeases{}
	permitted, failure, asked, told := true, error(nil), 0, 0
	l := &Listener{
		Ledger: NewLedger(), Leases: leases, Clock: clock, Guarded: func() bool { return true },
		Permitted:    func(context.Context) (bool, error) { asked++; return permitted && failure == nil, failure },
		StateChanged: func(context.Context) { told++ },
	}
	turn := func() {
		clock.Step(BeaconInterval)
		l.Renew(t.Context())
		l.Look(t.Context())
	}
	for _, step := range []struct {
		permitted, unpermitted bool
		failure                error
		asked, told, written   int
	}{
		{permitted: true, asked: 1, told: 1, written: 1},
		{permitted: true, asked: 2, told: 1, written: 2},
		{unpermitted: true, asked: 3, told: 2, written: 3},
		{unpermitted: true, permitted: true, failure: errors.New("down"), asked: 4, told: 2, written: 3},
		{permitted: true, asked: 5, told: 3, written: 4},
		{permitted: true, failure: errors.New("down"), asked: 6, told: 3, written: 4},
	} {
		permitted, failure = step.permitted, step.failure
		turn()
		if asked != step.asked || told != step.told || leases.written != step.written || l.Ledger.Unpermitted() != step.unpermitted {
			t.Errorf("after %+v: asked %d, told %d, beacons %d, unpermitted %v", step, asked, told, leases.written, l.Ledger.Unpermitted())
		}
	}
}
