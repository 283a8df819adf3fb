package heartbeat

import (
	"context"
	"strconv"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// TestView: what is counted of pods is counted in the view that heartbeats are counted in, but for what concerns
// applications alone.
func TestView(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*world)
		// began is when the view began, before now; broken says that there is none.
		began  time.Duration
		broken bool
	}{
		"nothing":                            {func(*world) {}, 2 * time.Hour, false},
		"a gap, and it is back":              {func(w *world) { w.up = false; w.pass(20 * time.Second); w.up = true; w.pass(BeaconInterval) }, 0, false},
		"a gap":                              {func(w *world) { w.up = false; w.pass(20 * time.Second) }, 0, true},
		"less than a gap":                    {func(w *world) { w.up = false; w.pass(10 * time.Second); w.up = true; w.pass(BeaconInterval) }, 2 * time.Hour, false},
		"a list replaces the watch":          {func(w *world) { w.Replace(nil, w.now) }, 0, true},
		"a list, and the beacon after it":    {func(w *world) { w.Replace(nil, w.now); w.pass(BeaconInterval) }, 0, false},
		"versions that rise":                 {func(w *world) { w.wrote("8"); w.wrote("9"); w.wrote("10") }, 2 * time.Hour, false},
		"etcd is set back":                   {func(w *world) { w.wrote("10"); w.wrote("9") }, 0, true},
		"it is set back, and the beacon":     {func(w *world) { w.wrote("10"); w.wrote("9"); w.wrote("10"); w.pass(BeaconInterval) }, 0, false},
		"a gap that fast applications make":  {func(w *world) { w.expectPod("a", time.Second, 5*time.Second); w.pass(BeaconInterval) }, 2 * time.Hour, false},
		"an outage of heartbeats ends":       {endOutage, 2 * time.Hour, false},
		"their namespace is missing":         {func(w *world) { w.up = false; w.refused(4) }, 2 * time.Hour, false},
		"missing, and the API server is too": {func(w *world) { w.up = false; w.refused(4); w.pass(20 * time.Second) }, 0, true},
		"missing from the start":             {func(w *world) { w.Ledger, w.up = NewLedger(), false; w.refused(4) }, 15 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.pass(2*time.Hour - 2*BeaconInterval) // newWorld's view began at its first beacon
			before := w.now
			c.happens(w)
			since, continuous := w.View(w.now)
			if continuous == c.broken {
				t.Fatalf("continuous: %t", continuous)
			}
			began := before.Sub(since)
			if c.began < time.Hour {
				began = w.now.Sub(since)
			}
			if !c.broken && (began > c.began || began < c.began-BeaconGap) {
				t.Errorf("the view began %s ago, want %s", began, c.began)
			}
			if h := w.Hear("a", w.now); c.broken && h.Continuous {
				t.Error("heartbeats are counted in a view that has a gap")
			}
		})
	}
}

// refused lets n beacons be refused since their namespace is missing.
func (w *world) refused(n int) {
	for range n {
		w.pass(BeaconInterval)
		w.setHomeless(true, w.now)
	}
}

// endOutage has all of a crowd fall silent, and be heard again.
func endOutage(w *world) {
	crowd := func(each func(string)) {
		for i := range 30 {
			each(strconv.Itoa(i))
		}
	}
	crowd(func(uid string) { w.expectPod(uid, 10*time.Second, 50*time.Second); w.beat(uid) })
	w.pass(45 * time.Second)
	if !w.Outage() {
		w.Fatal("no outage")
	}
	crowd(w.beat)
	w.pass(BeaconInterval)
	if w.Outage() || w.silence("nobody") > BeaconInterval {
		w.Fatalf("an outage %t; silence is counted since %s", w.Outage(), w.silence("nobody"))
	}
}

// server is the API server, as far as a beacon needs one.
type server struct {
	coordinationclient.LeaseInterface
	version int
	err     error
}

func (s *server) Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*coordinationv1.Lease, error) {
	s.version++
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: BeaconName, ResourceVersion: strconv.Itoa(s.version)}}
	return lease, s.err
}

// TestTheBeaconTellsOfASetBack: the listener hands the ledger what its beacon is answered.
func TestTheBeaconTellsOfASetBack(t *testing.T) {
	s, clock := &server{version: 100}, testingclock.NewFakeClock(time.Unix(1_000_000, 0))
	l := &Listener{Ledger: NewLedger(), Leases: s, Clock: clock, Notify: func(context.Context, Notice) {}}
	store := l.Store(t.Context())
	beat := func() {
		t.Helper()
		clock.Step(BeaconInterval)
		renewed := metav1.NewMicroTime(clock.Now())
		if err := store.Add(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: BeaconName}, Spec: coordinationv1.LeaseSpec{RenewTime: &renewed}}); err != nil {
			t.Fatal(err)
		}
		l.Renew(t.Context())
	}
	for range 4 {
		beat()
	}
	since, continuous := l.Ledger.View(clock.Now())
	if !continuous || clock.Since(since) != 3*BeaconInterval {
		t.Fatalf("continuous %t, since %s", continuous, clock.Since(since))
	}
	s.version = 50
	beat()
	if _, continuous := l.Ledger.View(clock.Now()); continuous {
		t.Error("etcd was set back, and the view is called continuous")
	}
	beat()
	if since, continuous := l.Ledger.View(clock.Now()); !continuous || clock.Since(since) != 0 {
		t.Errorf("continuous %t, since %s; want a view that began now", continuous, clock.Since(since))
	}
	s.err = errors.NewNotFound(v1alpha1.GroupVersion.WithResource("namespaces").GroupResource(), v1alpha1.HeartbeatNamespace)
	s.LeaseInterface = refusing{err: s.err}
	for range 10 {
		clock.Step(BeaconInterval)
		l.Renew(t.Context())
	}
	if since, continuous := l.Ledger.View(clock.Now()); !continuous || clock.Since(since) != 10*BeaconInterval {
		t.Errorf("without a namespace: continuous %t, since %s", continuous, clock.Since(since))
	}
}

// refusing creates nothing.
type refusing struct {
	coordinationclient.LeaseInterface
	err error
}

func (r refusing) Create(context.Context, *coordinationv1.Lease, metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return nil, r.err
}

// The watch may tell of a set-back first: by the operator's own Lease as it was, before that is written again.
func TestAnEarlierBeaconIsASetBack(t *testing.T) {
	l, now := NewLedger(), time.Unix(1_000_000, 0)
	deliver := func(version string, renewed time.Time) {
		now = now.Add(BeaconInterval)
		l.Apply(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: BeaconName, ResourceVersion: version},
			Spec:       coordinationv1.LeaseSpec{RenewTime: new(metav1.NewMicroTime(renewed))},
		}, now)
	}
	for _, version := range []string{"9", "10", "11"} {
		deliver(version, now)
	}
	if since, continuous := l.View(now); !continuous || now.Sub(since) != 2*BeaconInterval {
		t.Fatalf("continuous %t, since %s", continuous, now.Sub(since))
	}
	deliver("10", time.Unix(1_000_000, 0).Add(BeaconInterval))
	if since, continuous := l.View(now); !continuous || !since.Equal(now) {
		t.Errorf("continuous %t, since %s; want a view that began now", continuous, now.Sub(since))
	}
}
