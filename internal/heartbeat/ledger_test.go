package heartbeat

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// world drives a ledger by the second: beacons come back as long as the view is up.
type world struct {
	*testing.T
	*Ledger
	now     time.Time
	up      bool
	renewal int
	notices []Notice
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, Ledger: NewLedger(), now: time.Unix(1_000_000, 0), up: true}
	w.Replace(nil, w.now)
	w.pass(BeaconInterval)
	return w
}

// pass lets time go by; every second the ledger is looked at.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(time.Second)
		if w.up && w.now.Unix()%int64(BeaconInterval/time.Second) == 0 {
			w.Apply(w.lease(BeaconName, nil), w.now)
		}
		w.notices = append(w.notices, w.Tick(w.now)...)
	}
}

// lease is a Lease that was just renewed. The wall clock it bears means nothing: it runs backwards.
func (w *world) lease(name string, annotations map[string]string) *coordinationv1.Lease {
	w.renewal++
	renewed := metav1.NewMicroTime(time.Unix(int64(9_000_000-w.renewal), 0))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations, Labels: map[string]string{v1alpha1.LabelPodNamespace: "ns"}},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &renewed},
	}
}

func (w *world) beat(uid string) { w.Apply(w.lease(uid, nil), w.now) }

func (w *world) expectPod(uid string, interval, retention time.Duration) {
	w.Expect(types.UID(uid), Expectation{
		Pod: types.NamespacedName{Namespace: "ns", Name: uid}, Host: "h",
		Interval: interval, Retention: retention, Counting: true, Started: w.now,
	})
}

func (w *world) silence(uid string) time.Duration {
	return w.now.Sub(w.Hear(types.UID(uid), w.now).Since)
}

func (w *world) noticed(uid string) int {
	n := 0
	for _, notice := range w.notices {
		if notice.UID == types.UID(uid) {
			n++
		}
	}
	return n
}

func TestSilenceCountsFromTheLastRenewalSeen(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.beat("a")
	w.pass(30 * time.Second)
	if got := w.silence("a"); got != 30*time.Second {
		t.Errorf("silence %s, want 30s", got)
	}
	// The same renewal again, as a relabelling or a bookmark would bring it, is no heartbeat.
	again := w.lease("a", nil)
	w.Apply(again, w.now)
	w.pass(20 * time.Second)
	again.Labels["other"] = "x"
	w.Apply(again, w.now)
	if got := w.silence("a"); got != 20*time.Second {
		t.Errorf("silence %s, want 20s", got)
	}
	w.pass(41 * time.Second)
	if w.noticed("a") != 1 {
		t.Errorf("%d notices after a minute of silence, want 1", w.noticed("a"))
	}
	w.pass(time.Minute)
	if w.noticed("a") != 1 {
		t.Errorf("%d notices, want still 1: one for each silence", w.noticed("a"))
	}
	w.beat("a")
	w.pass(61 * time.Second)
	if w.noticed("a") != 2 {
		t.Errorf("%d notices after a second silence, want 2", w.noticed("a"))
	}
}

func TestNeverHeardCountsFromTheStartOfTheContainer(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Hour)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.pass(5 * time.Second)
	if got := w.silence("a"); got != 5*time.Second {
		t.Errorf("silence %s, want 5s", got)
	}
}

func TestAGapInTheViewStartsEveryCountAgain(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.beat("a")
	w.pass(40 * time.Second)
	w.up = false
	w.pass(5 * time.Minute)
	if w.Hear("a", w.now).Continuous {
		t.Error("the view is called continuous five minutes after the last beacon")
	}
	if w.noticed("a") != 0 {
		t.Error("silence was noticed while the view was broken")
	}
	w.up = true
	w.pass(2 * BeaconInterval)
	if h := w.Hear("a", w.now); !h.Continuous || w.now.Sub(h.Since) > 2*BeaconInterval {
		t.Errorf("after the gap: continuous %v, silence %s; want a count that began with it", h.Continuous, w.now.Sub(h.Since))
	}
	w.pass(45 * time.Second)
	if w.noticed("a") != 0 {
		t.Error("silence was counted over the gap")
	}
	w.pass(time.Minute)
	if w.noticed("a") != 1 {
		t.Error("silence after the gap was not noticed")
	}
}

// One fast application needs the beacon often. The others' counts do not begin anew when it is late for that one alone.
func TestAFastApplicationHoldsNoOther(t *testing.T) {
	w := newWorld(t)
	w.expectPod("slow", time.Minute, 10*time.Minute)
	w.expectPod("fast", time.Second, 5*time.Second)
	w.beat("slow")
	pause := func(seconds int) {
		for range seconds {
			w.now = w.now.Add(time.Second)
			w.notices = append(w.notices, w.Tick(w.now)...)
		}
		w.Apply(w.lease(BeaconName, nil), w.now)
		w.beat("fast")
	}
	pause(1)
	began := w.now
	for w.now.Sub(began) < 9*time.Minute {
		for range 20 {
			pause(1)
		}
		pause(4 + int(w.now.Unix())%9)
	}
	if h := w.Hear("fast", w.now); w.now.Sub(h.Since) > time.Second {
		t.Errorf("the fast one's silence is counted over a gap, since %v ago", w.now.Sub(h.Since))
	}
	if h := w.Hear("slow", w.now); !h.Continuous || w.now.Sub(h.Since) < 9*time.Minute {
		t.Errorf("the slow one's count began anew %v ago", w.now.Sub(h.Since))
	}
	for range 90 {
		pause(1)
	}
	if w.noticed("slow") != 1 || w.noticed("fast") != 0 {
		t.Errorf("%d notices of the slow one, want 1; %d of the fast one, want none", w.noticed("slow"), w.noticed("fast"))
	}
	pause(16)
	if h := w.Hear("slow", w.now); w.now.Sub(h.Since) > time.Second {
		t.Errorf("the slow one's silence is counted over a gap of 16 s, since %v ago", w.now.Sub(h.Since))
	}
}

// Of pauses that follow each other none is forgotten that is a gap for somebody.
func TestPausesThatFollowEachOther(t *testing.T) {
	gaps := []time.Duration{3 * time.Second, 4500 * time.Millisecond, 6 * time.Second, 10500 * time.Millisecond, BeaconGap}
	rapid.Check(t, func(t *rapid.T) {
		l, now := NewLedger(), time.Unix(1000, 0)
		l.viewStart, l.lastBeacon = now, now
		since := map[time.Duration]time.Time{}
		for range 30 {
			lasted := time.Duration(rapid.IntRange(1, 200).Draw(t, "tenths")) * 100 * time.Millisecond
			now = now.Add(lasted)
			l.paused(now)
			l.lastBeacon = now
			for _, gap := range gaps {
				if lasted > gap {
					since[gap] = now
				}
				if got := l.viewFrom(gap); got.Before(since[gap]) {
					t.Fatalf("with pauses of at most %v the view has no gap since %v, and there was one until %v", gap, got, since[gap])
				}
			}
			if len(l.pauses) > 20 {
				t.Fatalf("%d pauses are kept", len(l.pauses))
			}
		}
	})
}

// An outage shorter than the usual gap is longer than the retention of a fast application.
func TestTheBeaconIsFasterThanTheApplications(t *testing.T) {
	w := newWorld(t)
	if got := w.BeaconEvery(); got != BeaconInterval {
		t.Errorf("the beacon comes every %s without applications, want %s", got, BeaconInterval)
	}
	w.expectPod("slow", time.Minute, 10*time.Minute)
	w.pass(time.Second)
	if got := w.BeaconEvery(); got != BeaconInterval {
		t.Errorf("the beacon comes every %s, want %s", got, BeaconInterval)
	}
	w.expectPod("fast", time.Second, 5*time.Second)
	w.pass(time.Second)
	if got := w.BeaconEvery(); got != time.Second {
		t.Fatalf("the beacon comes every %s, want each second", got)
	}
	each := func(n int) {
		for range n {
			w.now = w.now.Add(time.Second)
			w.Apply(w.lease(BeaconName, nil), w.now)
			w.beat("fast")
			w.notices = append(w.notices, w.Tick(w.now)...)
		}
	}
	each(10)
	w.up = false
	w.pass(7 * time.Second) // two seconds more than it may be silent
	w.Apply(w.lease(BeaconName, nil), w.now)
	w.notices = append(w.notices, w.Tick(w.now)...)
	if w.noticed("fast") != 0 || w.silence("fast") != 0 {
		t.Errorf("silence of %s was counted over an outage that nobody could heartbeat in", w.silence("fast"))
	}
}

func TestARelistStartsEveryCountAgain(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	l := w.lease("a", nil)
	w.Apply(l, w.now)
	w.pass(59 * time.Second)
	w.Replace([]*coordinationv1.Lease{l}, w.now)
	if w.Hear("a", w.now).Continuous {
		t.Error("the view is called continuous before the beacon came back")
	}
	w.pass(2 * BeaconInterval)
	if got := w.silence("a"); got > 2*BeaconInterval {
		t.Errorf("silence %s was counted over a relist", got)
	}
	if !w.Hear("a", w.now).Lease {
		t.Error("a listed Lease is not known")
	}
}

func TestAVanishedLeaseIsNoticedAndCountsAnew(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.beat("a")
	w.pass(50 * time.Second)
	if n := w.Remove("a", w.now); len(n) != 1 || n[0].Pod.Name != "a" {
		t.Fatalf("notices %v, want one for a", n)
	}
	if w.Hear("a", w.now).Lease {
		t.Error("the Lease is still known")
	}
	w.pass(5 * time.Second)
	if got := w.silence("a"); got != 5*time.Second {
		t.Errorf("silence %s, want 5s", got)
	}
	// A list without it says the same.
	w.beat("a")
	if n := w.Replace(nil, w.now); len(n) != 1 {
		t.Errorf("notices %v, want one", n)
	}
}

func TestWaking(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	closing := map[string]string{injected.LeaseState: injected.LeaseStateClosing}
	l := w.lease("a", nil)
	w.Apply(l, w.now)
	closed := l.DeepCopy()
	closed.Annotations = closing
	if n := w.Apply(closed, w.now); len(n) != 1 || w.Hear("a", w.now).Woke {
		t.Errorf("of a mark that may be anybody's, %v was noticed; or it woke", n)
	}
	// After a relist nobody can say whether a renewal came before or after the closing.
	renewed := w.lease("a", closing)
	w.Replace([]*coordinationv1.Lease{renewed}, w.now)
	if w.Hear("a", w.now).Woke {
		t.Error("a renewal of unknown time woke")
	}
	if n := w.Apply(w.lease("a", closing), w.now); len(n) != 1 || !w.Hear("a", w.now).Woke {
		t.Errorf("a renewal after the closing did not wake: %v", n)
	}
	if n := w.Apply(w.lease("a", closing), w.now); len(n) != 0 {
		t.Errorf("noticed twice: %v", n)
	}
	if w.Silenced("ns", "h") != 1 {
		t.Errorf("%d silenced, want 1", w.Silenced("ns", "h"))
	}
	w.Apply(w.lease("a", nil), w.now)
	if w.Hear("a", w.now).Woke || w.Silenced("ns", "h") != 0 {
		t.Error("still woken, or silenced, with a queue that is open")
	}
}

// While their namespace is missing, Leases cannot be written; when it is back, those that are missing are asked for.
func TestLeasesAreWantedWhenTheirNamespaceIsBack(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.expectPod("b", 10*time.Second, time.Minute)
	w.beat("b")
	if n := w.setHomeless(true, w.now); len(n) != 0 || !w.Homeless() {
		t.Errorf("homeless %v, notices %v", w.Homeless(), n)
	}
	if n := w.setHomeless(false, w.now); len(n) != 1 || n[0].UID != "a" || w.Homeless() {
		t.Errorf("homeless %v, notices %v; want one, for the pod without a Lease", w.Homeless(), n)
	}
	if n := w.setHomeless(false, w.now); len(n) != 0 {
		t.Errorf("noticed twice: %v", n)
	}
}

// What a Lease says that its application was told counts until a renewal is seen.
func TestAKnownIntervalCountsUntilARenewal(t *testing.T) {
	says := func(advised, known string) map[string]string {
		return map[string]string{injected.LeaseIntervalSeconds: advised, AnnotationKnownInterval: known}
	}
	for name, c := range map[string]struct {
		annotations map[string]string
		want        time.Duration
	}{
		"longer":         {says("10", "300"), 300 * time.Second},
		"shorter":        {says("10", "5"), 10 * time.Second},
		"nonsense":       {says("10", "a while"), 10 * time.Second},
		"negative":       {says("10", "-300"), 10 * time.Second},
		"out of bounds":  {says("10", "99999999999"), time.Hour},
		"out of numbers": {says("10", "99999999999999999999"), 10 * time.Second},
	} {
		w := newWorld(t)
		lease := w.lease("a", c.annotations)
		w.Replace([]*coordinationv1.Lease{lease}, w.now)
		if h := w.Hear("a", w.now); h.Pace != c.want || h.PaceKnown {
			t.Errorf("%s: listed at a pace of %s, known %t; want %s", name, h.Pace, h.PaceKnown, c.want)
		}
		w = newWorld(t)
		w.Apply(w.lease("a", c.annotations), w.now)
		if h := w.Hear("a", w.now); h.Pace != c.want || h.PaceKnown {
			t.Errorf("%s: seen at a pace of %s, known %t; want %s", name, h.Pace, h.PaceKnown, c.want)
		}
		w.Apply(w.lease("a", c.annotations), w.now)
		if h := w.Hear("a", w.now); h.Pace != 10*time.Second || !h.PaceKnown {
			t.Errorf("%s: renewed at a pace of %s, known %t; want 10s", name, h.Pace, h.PaceKnown)
		}
	}
}

// A renewal that a list shows may be from before the interval was changed, of which its answer then said nothing: the application may
// follow the longer one until its next renewal.
func TestARenewalThatIsListedTeachesNoInterval(t *testing.T) {
	advised := func(interval time.Duration) map[string]string {
		return map[string]string{injected.LeaseIntervalSeconds: fmt.Sprint(interval.Seconds())}
	}
	for name, c := range map[string]struct{ told, now, listed time.Duration }{
		"shorter": {told: 5 * time.Minute, now: 10 * time.Second, listed: 5 * time.Minute},
		"longer":  {told: 10 * time.Second, now: 5 * time.Minute, listed: 5 * time.Minute},
	} {
		w := newWorld(t)
		for range 2 {
			w.Apply(w.lease("a", advised(c.told)), w.now)
		}
		w.Replace([]*coordinationv1.Lease{w.lease("a", advised(c.now))}, w.now)
		if h := w.Hear("a", w.now); h.Pace != c.listed || !h.PaceKnown {
			t.Errorf("%s: listed at a pace of %s, known %t; want %s", name, h.Pace, h.PaceKnown, c.listed)
		}
		w.Apply(w.lease("a", advised(c.now)), w.now)
		if h := w.Hear("a", w.now); h.Pace != c.now || !h.PaceKnown {
			t.Errorf("%s: renewed at a pace of %s, known %t; want %s", name, h.Pace, h.PaceKnown, c.now)
		}
	}
}

// Where silence is noted in steps, each calls for a reconcile, and a heartbeat for none.
func TestStepsOfASilenceAreNoticed(t *testing.T) {
	w := newWorld(t)
	w.Expect("a", Expectation{Interval: 10 * time.Second, Retention: 2 * time.Hour, Step: 10 * time.Minute, Counting: true, Started: w.now})
	for range 30 {
		w.beat("a")
		w.pass(time.Minute)
	}
	if w.noticed("a") != 0 {
		t.Errorf("%d notices while it is heard", w.noticed("a"))
	}
	for want := 1; want <= 6; want++ {
		if w.pass(10 * time.Minute); w.noticed("a") != want {
			t.Errorf("%d notices after %d steps", w.noticed("a"), want)
		}
	}
	w.beat("a")
	w.pass(9 * time.Minute)
	n := w.noticed("a")
	if w.pass(3 * time.Minute); w.noticed("a") != n+1 {
		t.Errorf("%d notices after the first step of another silence, want 1", w.noticed("a")-n)
	}
}

// A heartbeat calls for no reconcile, but for the first of an application: it tells that the application knows its pace.
func TestHeartbeatsCallForNothing(t *testing.T) {
	w := newWorld(t)
	const pods, beats = 500, 20
	for round := range beats {
		for i := range pods {
			name := fmt.Sprint(i)
			if round == 0 {
				w.expectPod(name, 10*time.Second, time.Minute)
				w.beat(name) // the Lease appears
			}
			n := len(w.Apply(w.lease(name, map[string]string{injected.LeaseIntervalSeconds: "10"}), w.now))
			if want := max(0, 1-round); n != want {
				t.Fatalf("heartbeat %d of pod %s calls for %d reconciles, want %d", round+1, name, n, want)
			}
		}
		w.pass(10 * time.Second)
	}
	if len(w.notices) != 0 {
		t.Errorf("%d notices in %d heartbeats", len(w.notices), pods*beats)
	}
}

// A leader may die when it has marked a Lease, and before it marks the record. The next may look at the record before it has its
// list of Leases, and is told by that.
func TestAClosingThatWasBegunIsNoticed(t *testing.T) {
	closing := map[string]string{injected.LeaseState: injected.LeaseStateClosing}
	for name, hear := range map[string]func(*world) []Notice{
		"in the list":  func(w *world) []Notice { return w.Replace([]*coordinationv1.Lease{w.lease("a", closing)}, w.now) },
		"by the watch": func(w *world) []Notice { return w.Apply(w.lease("a", closing), w.now) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.expectPod("a", 10*time.Second, time.Minute)
			if n := hear(w); len(n) != 1 || n[0].UID != "a" {
				t.Errorf("notices %v, want one for a", n)
			}
		})
	}
}

func TestForgetting(t *testing.T) {
	w := newWorld(t)
	w.expectPod("a", 10*time.Second, time.Minute)
	w.Forget("a")
	if len(w.entries) != 0 {
		t.Error("what was expected is still there")
	}
	l := w.lease("b", map[string]string{AnnotationPodName: "pod-b"})
	w.Apply(l, w.now)
	w.Forget("b")
	if got := w.Known(types.NamespacedName{Namespace: "ns", Name: "pod-b"}); len(got) != 1 || got[0] != "b" {
		t.Errorf("known of pod-b: %v", got)
	}
	// An idle pod's, say: nothing is expected of it, and without a Lease it could never wake.
	if n := w.Remove("b", w.now); len(n) != 1 || n[0].Pod.Name != "pod-b" {
		t.Errorf("notices %v of a Lease that is gone, want one for its pod", n)
	}
	if len(w.entries) != 0 {
		t.Error("a Lease that is gone is still there")
	}
	if n := w.Remove("b", w.now); len(n) != 0 {
		t.Errorf("notices %v of a Lease that nobody knew", n)
	}
}

func BenchmarkTick(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, now := NewLedger(), time.Unix(0, 0)
			for i := range n {
				l.Expect(types.UID(fmt.Sprint(i)), Expectation{Interval: time.Minute, Retention: 10 * time.Minute, Counting: true, Started: now})
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Tick(now)
			}
		})
	}
}
