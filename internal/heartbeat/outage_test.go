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
