package heartbeat

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// told are the annotations of a Lease that names a reply queue, for one that heartbeats every ten seconds.
func told(more ...string) map[string]string {
	said := map[string]string{AnnotationPodName: "p", AnnotationRecord: "r", injected.LeaseIntervalSeconds: "10", injected.LeaseState: injected.LeaseStateOpen}
	for i := 0; i < len(more); i += 2 {
		said[more[i]] = more[i+1]
	}
	return said
}

// A watch of records that hangs shows a leader few of those that fall silent, and that of Leases all of them.
func TestWhoWasHeardIsMissedBeforeItsRecordIsKnown(t *testing.T) {
	const pods, known = 40, 5
	for name, test := range map[string]struct {
		lease  map[string]string
		beats  int
		before func(*world, string)
		want   bool
	}{
		"heard before":                       {told(), 3, nil, true},
		"heard once":                         {told(), 2, nil, true},
		"in the list, and never heard":       {told(), 1, nil, false},
		"without a reply queue":              {map[string]string{injected.LeaseIntervalSeconds: "10"}, 3, nil, false},
		"closed":                             {told(injected.LeaseState, injected.LeaseStateClosing), 3, nil, false},
		"whose queue is its name's":          {told(injected.LeaseIdentity, "{}"), 3, nil, false},
		"without an interval":                {told(injected.LeaseIntervalSeconds, ""), 3, nil, false},
		"of whom nothing is to be expected":  {told(), 3, func(w *world, uid string) { w.Excuse(types.UID(uid), types.NamespacedName{}) }, false},
		"of whom nothing is expected now":    {told(), 3, func(w *world, uid string) { w.Expect(types.UID(uid), Expectation{Interval: 10 * time.Second}) }, false},
		"excused, and forgotten, and heard":  {told(), 3, func(w *world, uid string) { w.Excuse(types.UID(uid), types.NamespacedName{}); w.Forget(types.UID(uid)) }, true},
		"expected, and forgotten, and heard": {told(), 3, func(w *world, uid string) { w.expectPod(uid, 10*time.Second, time.Minute); w.Forget(types.UID(uid)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range pods {
				switch uid := fmt.Sprint(i); {
				case i < known:
					w.expectPod(uid, 10*time.Second, time.Minute)
				case test.before != nil:
					test.before(w, uid) // A Lease may appear after its record was reconciled.
				}
			}
			for range test.beats {
				for i := range pods {
					w.Apply(w.lease(fmt.Sprint(i), test.lease), w.now)
				}
				w.pass(10 * time.Second)
			}
			if w.Outage() {
				t.Fatal("an outage while all are heard")
			}
			w.pass(35 * time.Second)
			if w.Outage() != test.want {
				t.Errorf("outage %t when %d fell silent, want %t", w.Outage(), pods, test.want)
			}
		})
	}
}

// Those who are heard count, too, though their records are not known: a few that are known and silent are no outage.
func TestWhoIsHeardIsNoOutage(t *testing.T) {
	w := newWorld(t)
	const pods, known = 80, 12
	for i := range known {
		w.expectPod(fmt.Sprint(i), 10*time.Second, time.Minute)
	}
	for round := range 10 {
		for i := range pods {
			if round < 3 || i >= known {
				w.Apply(w.lease(fmt.Sprint(i), told()), w.now)
			}
		}
		w.pass(10 * time.Second)
	}
	if w.Outage() {
		t.Error("12 silent of 80 are called an outage")
	}
}

// What was said of a pod outlives its Lease, and is forgotten with the pod.
func TestAnExcuseOutlivesTheLease(t *testing.T) {
	w := newWorld(t)
	pod := types.NamespacedName{Namespace: "ns", Name: "p"}
	w.Excuse("a", pod)
	w.Apply(w.lease("a", told()), w.now)
	if n := w.Remove("a", w.now); len(n) != 1 || n[0].Pod != pod {
		t.Errorf("notices %v, want one: the Lease may have to be written again", n)
	}
	if n := w.Replace(nil, w.now); len(n) != 0 || len(w.Known(pod)) != 1 {
		t.Errorf("notices %v, known of the pod %v; want none, and the pod", n, w.Known(pod))
	}
	w.Forget("a")
	if len(w.entries) != 0 {
		t.Errorf("%d entries are left", len(w.entries))
	}
}

// An interval that is lengthened while nobody is heard hides no outage: an application cannot follow it before it was answered.
func TestALongerIntervalHidesNoOutage(t *testing.T) {
	const pods = 40
	listed := func(w *world, lease func(string) *coordinationv1.Lease) {
		var all []*coordinationv1.Lease
		for i := range pods {
			all = append(all, lease(fmt.Sprint(i)))
		}
		w.Replace(all, w.now)
		w.Apply(w.lease(BeaconName, nil), w.now)
	}
	for name, test := range map[string]struct {
		expected bool
		between  func(w *world, last map[string]*coordinationv1.Lease)
		want     bool
	}{
		"expected":     {true, nil, true},
		"not expected": {false, nil, true},
		"listed without another renewal": {true, func(w *world, last map[string]*coordinationv1.Lease) {
			listed(w, func(uid string) *coordinationv1.Lease { return last[uid] })
		}, true},
		"listed with another, whose answer may have said so": {true, func(w *world, _ map[string]*coordinationv1.Lease) {
			listed(w, func(uid string) *coordinationv1.Lease {
				return w.lease(uid, told(injected.LeaseIntervalSeconds, "100"))
			})
		}, false},
		"answered": {true, func(w *world, _ map[string]*coordinationv1.Lease) {
			for i := range pods {
				w.Apply(w.lease(fmt.Sprint(i), told(injected.LeaseIntervalSeconds, "100")), w.now)
			}
		}, false},
		"Leases made anew": {true, func(w *world, _ map[string]*coordinationv1.Lease) {
			for i := range pods {
				w.Remove(types.UID(fmt.Sprint(i)), w.now)
				w.Apply(w.lease(fmt.Sprint(i), told(injected.LeaseIntervalSeconds, "100")), w.now)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			last := map[string]*coordinationv1.Lease{}
			for range 2 {
				for i := range pods {
					uid := fmt.Sprint(i)
					last[uid] = w.lease(uid, told())
					w.Apply(last[uid], w.now)
				}
				w.pass(10 * time.Second)
			}
			for uid, lease := range last {
				longer := lease.DeepCopy()
				longer.Annotations[injected.LeaseIntervalSeconds] = "100"
				last[uid] = longer
				w.Apply(longer, w.now)
				if test.expected {
					w.expectPod(uid, 100*time.Second, 500*time.Second)
				}
			}
			if test.between != nil {
				test.between(w, last)
			}
			w.pass(40 * time.Second)
			if w.Outage() != test.want {
				t.Errorf("outage %t after four intervals of ten seconds, want %t", w.Outage(), test.want)
			}
		})
	}
}

func TestMassSilenceIsAnOutage(t *testing.T) {
	w := newWorld(t)
	const pods = 60
	for i := range pods {
		w.expectPod(fmt.Sprint(i), 10*time.Second, 50*time.Second)
	}
	beats := func(from, to int) {
		for i := from; i < to; i++ {
			w.beat(fmt.Sprint(i))
		}
	}
	rounds := func(n, from, to int) {
		for range n {
			beats(from, to)
			w.pass(10 * time.Second)
		}
	}
	rounds(3, 0, pods)
	rounds(10, 12, pods) // twelve are exactly 20 %: not more
	if w.Outage() {
		t.Error("20 % of the pods is called an outage")
	}
	rounds(10, 13, pods)
	if !w.Outage() {
		t.Error("13 of 60 pods missing is not called an outage")
	}
	rounds(6, 0, pods)
	if w.Outage() {
		t.Error("still an outage after all were heard")
	}
	// All at once: the outage is seen before the first retention is over.
	w.notices = nil
	for i := 0; i < 49 && !w.Outage(); i++ {
		w.pass(time.Second)
	}
	if !w.Outage() || len(w.notices) != 0 {
		t.Errorf("outage %v with %d pods noticed silent, want it before any", w.Outage(), len(w.notices))
	}
	// Ten missing are too few to call it an outage, however large a share.
	few := newWorld(t)
	for i := range 10 {
		few.expectPod(fmt.Sprint(i), 10*time.Second, 50*time.Second)
	}
	few.pass(2 * time.Minute)
	if few.Outage() || len(few.notices) != 10 {
		t.Errorf("outage %v with %d noticed, want none and 10", few.Outage(), len(few.notices))
	}
}

func TestWhatAnOutageHeldIsNoticedAgainAfterIt(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.expectPod(fmt.Sprint(i), 10*time.Second, 50*time.Second)
	}
	w.pass(2 * time.Minute)
	if !w.Outage() || w.noticed("0") != 1 {
		t.Fatalf("outage %v, notices %d", w.Outage(), w.noticed("0"))
	}
	for range 7 {
		for i := 1; i < 20; i++ {
			w.beat(fmt.Sprint(i))
		}
		w.pass(10 * time.Second)
	}
	if w.Outage() || w.noticed("0") != 2 {
		t.Errorf("outage %v, %d notices for the one that stayed silent; want it decided again", w.Outage(), w.noticed("0"))
	}
}

// When an outage ends, applications are heard of again one by one, within their intervals: what they were silent for
// during it closes nobody who is about to be.
func TestNobodyIsNoticedWhenAnOutageEnds(t *testing.T) {
	w := newWorld(t)
	const pods = 100
	for i := range pods {
		w.expectPod(fmt.Sprint(i), time.Minute, 10*time.Minute)
		w.beat(fmt.Sprint(i))
	}
	w.pass(20 * time.Minute)
	if !w.Outage() || len(w.notices) == 0 {
		t.Fatalf("outage %t, %d notices; want an outage that holds what is noticed", w.Outage(), len(w.notices))
	}
	w.notices = nil
	for i := range pods - 1 { // the last is dead
		w.beat(fmt.Sprint(i))
		w.pass(600 * time.Millisecond)
	}
	if w.Outage() || len(w.notices) != 0 {
		t.Errorf("outage %t, %d notices while all come back", w.Outage(), len(w.notices))
	}
	for range 11 {
		for i := range pods - 1 {
			w.beat(fmt.Sprint(i))
		}
		w.pass(time.Minute)
	}
	if len(w.notices) != 1 || w.noticed(fmt.Sprint(pods-1)) != 1 {
		t.Errorf("%d notices, want one of the dead", len(w.notices))
	}
}

// Nothing that was counted of anybody's silence before the end of an outage counts.
func TestAnOutageForgives(t *testing.T) {
	w := newWorld(t)
	if w.Hear("nobody", w.now).Forgiven {
		t.Error("forgiven without an outage")
	}
	endOutage(w)
	w.beat("1")
	if !w.Hear("2", w.now).Forgiven {
		t.Error("who was silent in an outage is not forgiven")
	}
	w.pass(time.Second)
	w.beat("2")
	if w.Hear("2", w.now).Forgiven {
		t.Error("who was heard since needs no forgiveness")
	}
}

// Applications with short intervals are past their retention before those with long ones could be missing.
func TestAnOutageIsSeenByTheFastToo(t *testing.T) {
	for name, tc := range map[string]struct {
		slowLive bool
		want     int
	}{
		"all are silent":          {want: 0},
		"the slow are heard from": {slowLive: true, want: 100},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range 1100 {
				if i < 100 {
					w.expectPod(fmt.Sprint(i), 10*time.Second, 50*time.Second)
				} else {
					w.expectPod(fmt.Sprint(i), time.Minute, 10*time.Minute)
				}
				w.beat(fmt.Sprint(i))
			}
			held := 0
			for second := range 120 {
				if tc.slowLive {
					for i := range 1000 {
						if i%60 == second%60 {
							w.beat(fmt.Sprint(100 + i))
						}
					}
				}
				w.pass(time.Second)
				if w.Outage() {
					held++
					w.notices = nil
				}
			}
			if len(w.notices) != tc.want || (held > 0) == tc.slowLive {
				t.Errorf("%d notices without an outage, want %d; an outage for %d s", len(w.notices), tc.want, held)
			}
		})
	}
}
