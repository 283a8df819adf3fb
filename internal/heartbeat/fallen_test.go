package heartbeat

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// crowd are applications of two speeds, of either too few to be an outage by themselves.
type crowd struct {
	*world
	fast, slow []string
	closing    map[string]bool
	intervals  map[string]time.Duration
}

const fastInterval, slowInterval = 10 * time.Second, time.Minute

func newCrowd(t *testing.T, fast, slow int) *crowd {
	c := &crowd{world: newWorld(t), closing: map[string]bool{}, intervals: map[string]time.Duration{}}
	for i := range fast {
		c.fast = append(c.fast, fmt.Sprint("fast-", i))
	}
	for i := range slow {
		c.slow = append(c.slow, fmt.Sprint("slow-", i))
	}
	c.expect()
	for range 3 {
		c.beats(c.slow...)
		for range slowInterval / fastInterval {
			c.beats(c.fast...)
			c.pass(fastInterval)
		}
	}
	return c
}

func (c *crowd) expect() {
	for _, uid := range c.fast {
		c.start(uid, fastInterval)
	}
	for _, uid := range c.slow {
		c.start(uid, slowInterval)
	}
}

func (c *crowd) start(uid string, interval time.Duration) {
	c.intervals[uid] = interval
	c.expectPod(uid, interval, 5*interval)
}

func (c *crowd) beats(uids ...string) {
	for _, uid := range uids {
		c.mark(uid, c.closing[uid], true)
	}
}

// mark writes a Lease, with another renewal or the one before.
func (c *crowd) mark(uid string, closing, renewed bool) {
	state := injected.LeaseStateOpen
	if closing {
		state = injected.LeaseStateClosing
	}
	lease := c.lease(uid, told(injected.LeaseState, state, injected.LeaseIntervalSeconds, fmt.Sprint(c.intervals[uid].Seconds())))
	if e := c.entries[types.UID(uid)]; !renewed && e != nil {
		lease.Spec.RenewTime = nil
		e.renewal = ""
	}
	c.Apply(lease, c.now)
	c.closing[uid] = closing
}

// closeIdle closes the queues of those that are silent for longer than their retention, unless that is held.
func (c *crowd) closeIdle() {
	for uid, e := range c.entries {
		if !c.Outage() && e.expected != nil && e.lease && !e.closing && c.now.Sub(c.since(e)) > e.expected.Retention {
			c.mark(string(uid), true, false)
		}
	}
}

// lives lets time go by, in which those are heard that are named.
func (c *crowd) lives(d time.Duration, fast, slow []string) (outage bool) {
	for at := time.Duration(0); at < d; at += fastInterval {
		c.beats(fast...)
		for i, uid := range slow {
			if (at+time.Duration(i)*fastInterval)%slowInterval == 0 {
				c.beats(uid)
			}
		}
		c.pass(fastInterval)
		c.closeIdle()
		outage = outage || c.Outage()
	}
	return outage
}

// An outage begins with fast applications, too few to be one, and they are closed before slow ones can be missing.
func TestWhoWasClosedIsMissedWithTheSlow(t *testing.T) {
	for name, test := range map[string]struct {
		fast, slow int
		between    func(*crowd)
		heard      int // of the slow
		want       bool
	}{
		"nobody is heard":                         {10, 10, nil, 0, true},
		"most of the slow are heard":              {9, 60, nil, 58, false},
		"of the slow, a few more are missing":     {9, 60, nil, 50, true},
		"two that are missing":                    {1, 1, nil, 0, false},
		"the fast were told, and wake":            {10, 10, func(c *crowd) { c.beats(c.fast...) }, 0, false},
		"the pods of the fast are gone":           {10, 10, func(c *crowd) { c.each(func(uid types.UID) { c.Remove(uid, c.now); c.Forget(uid) }) }, 0, false},
		"the pods of the fast have ended":         {10, 10, func(c *crowd) { c.each(func(uid types.UID) { c.Excuse(uid, types.NamespacedName{}) }) }, 0, false},
		"records are forgotten, and Leases there": {10, 10, func(c *crowd) { c.each(c.Forget) }, 0, true},
		"the view breaks":                         {10, 10, func(c *crowd) { c.up = false; c.pass(20 * time.Second); c.up = true; c.pass(BeaconInterval) }, 0, true},
		"the slow are heard after":                {10, 10, func(c *crowd) { c.lives(2*slowInterval, nil, c.slow) }, 0, false},
		"the next leader knows nothing of before": {10, 10, func(c *crowd) { c.follow() }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, test.fast, test.slow)
			c.lives(80*time.Second, nil, c.slow[:test.heard])
			if c.Outage() || !c.entries["fast-0"].closing {
				t.Fatalf("outage %t; the fast are to be closed as idle, as they are too few", c.Outage())
			}
			if test.between != nil {
				test.between(c)
			}
			if got := c.lives(4*slowInterval, nil, c.slow[:test.heard]); got != test.want {
				t.Errorf("outage %t, want %t", got, test.want)
			}
			closed := 0
			for _, uid := range c.slow {
				if c.entries[types.UID(uid)].closing {
					closed++
				}
			}
			if test.want && closed != 0 {
				t.Errorf("%d of the slow were closed", closed)
			}
		})
	}
}

// The view breaks in an outage that is held: it is not seen for a while, and has not ended.
func TestAGapInAnOutage(t *testing.T) {
	for _, gap := range []time.Duration{20 * time.Second, time.Minute} {
		c := newCrowd(t, 10, 10)
		c.lives(80*time.Second, nil, nil)
		for range 60 {
			c.lives(fastInterval, nil, nil)
		}
		if !c.Outage() {
			t.Fatal("no outage when nobody is heard")
		}
		c.up = false
		c.pass(gap)
		c.up = true
		c.pass(BeaconInterval)
		if !c.lives(10*slowInterval, nil, nil) {
			t.Errorf("after %v without a view: no outage when nobody is heard", gap)
		}
		for _, uid := range c.slow {
			if c.closing[uid] {
				t.Errorf("after %v without a view: %s was closed", gap, uid)
			}
		}
	}
}

// Ten that began together end their work together, and their pods stay; a slow one fell silent by itself with them.
func TestWhoEndsTogetherHoldsNobodyForEver(t *testing.T) {
	c := newCrowd(t, 10, 30)
	c.lives(10*slowInterval, nil, c.slow[1:])
	if !c.closing["fast-0"] {
		t.Fatal("10 of 40 are held as an outage")
	}
	if c.Outage() || !c.closing["slow-0"] {
		t.Errorf("outage %t, the slow one is closed: %t", c.Outage(), c.closing["slow-0"])
	}
	c.lives(10*slowInterval, nil, c.slow[2:])
	if c.Outage() || !c.closing["slow-1"] {
		t.Errorf("outage %t, the next slow one is closed: %t", c.Outage(), c.closing["slow-1"])
	}
}

// leave is a pod that is deleted.
func (c *crowd) leave(uid string) {
	c.Remove(types.UID(uid), c.now)
	c.Forget(types.UID(uid))
}

// Some fall silent at once, too few of all, and are closed. Then most of the others leave, and another falls silent by itself.
func TestWhoWasClosedHoldsNothingLater(t *testing.T) {
	c := newCrowd(t, 12, 120)
	c.lives(slowInterval, c.fast, c.slow)
	if c.lives(5*slowInterval, nil, c.slow) || !c.entries["fast-0"].closing {
		t.Fatal("12 of 132 are an outage, or are not closed")
	}
	for _, uid := range c.slow[:100] {
		c.leave(uid)
	}
	if c.lives(7*slowInterval, nil, c.slow[100:119]) {
		t.Error("an outage, though those that are missed at one moment were closed before")
	}
	if !c.entries["slow-119"].closing {
		t.Error("who fell silent by itself is not closed")
	}
}

func (c *crowd) each(do func(types.UID)) {
	for _, uid := range c.fast {
		do(types.UID(uid))
	}
}

// follow is a leader that begins: all it knows is a list.
func (c *crowd) follow() {
	c.Ledger = NewLedger()
	c.Replace(nil, c.now)
	for _, uid := range append(c.fast, c.slow...) {
		c.mark(uid, c.closing[uid], false)
	}
	for _, uid := range c.slow {
		c.expectPod(uid, slowInterval, 5*slowInterval)
	}
	c.pass(BeaconInterval)
}

// When most are heard again the outage is over, and those that stay silent are closed as ever.
func TestAnOutageOfAllEnds(t *testing.T) {
	c := newCrowd(t, 10, 60)
	if !c.lives(5*slowInterval, nil, nil) {
		t.Fatal("no outage when nobody is heard")
	}
	heard := c.slow[:58]
	c.lives(2*slowInterval, nil, heard)
	if c.Outage() {
		t.Fatal("an outage when 58 of 60 open queues' applications are heard")
	}
	for _, uid := range heard[:40] { // Of whom are left, many are silent; but not since one moment that is not over.
		c.leave(uid)
	}
	if c.lives(7*slowInterval, nil, heard[40:]) {
		t.Error("another outage, of those that were in the first")
	}
	for i, uid := range c.slow[40:] {
		i += 40
		if closing := c.entries[types.UID(uid)].closing; closing != (i >= len(heard)) {
			t.Errorf("%s closed: %t", uid, closing)
		}
	}
}

// Of an outage of all, two of the fast are heard again. The others are too few to be one by themselves, until the slow are missed,
// which begins with their last heartbeats.
func TestTheRestOfAnOutageIsOne(t *testing.T) {
	c := newCrowd(t, 12, 12)
	if !c.lives(90*time.Second, nil, nil) {
		t.Fatal("no outage when nobody is heard")
	}
	c.lives(fastInterval, c.fast[:2], nil)
	if c.Outage() {
		t.Fatal("an outage of ten, when no other can be missed")
	}
	c.lives(6*slowInterval, c.fast[:2], nil)
	if !c.Outage() {
		t.Error("no outage when 22 of 24 are not heard")
	}
	for uid, closing := range c.closing {
		if closing {
			t.Errorf("%s was closed", uid)
		}
	}
	c.lives(2*slowInterval, c.fast[:10], c.slow)
	if c.Outage() {
		t.Error("an outage when 22 of 24 are heard")
	}
	c.lives(slowInterval, c.fast[:10], c.slow)
	if !c.entries["fast-10"].closing {
		t.Error("who is silent for a retention after the outage is not closed")
	}
}

// Where applications fall idle all the time, one by one, and their pods stay, that is no outage, however many they become.
func TestWhoFallsIdleByOneselfIsNoOutage(t *testing.T) {
	const lives, hours = 60, 3
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			c := newCrowd(t, 0, 0)
			next, begun := 0, 0
			var now []string
			for at := time.Duration(0); at < hours*time.Hour; at += fastInterval {
				for len(now) < lives {
					uid := fmt.Sprint(next)
					if next++; next%2 == 0 {
						c.start(uid, fastInterval)
					} else {
						c.start(uid, slowInterval)
					}
					now = append(now, uid)
				}
				if random.IntN(12) == 0 {
					i := random.IntN(len(now))
					now, begun = append(now[:i], now[i+1:]...), begun+1
				}
				for _, uid := range now {
					if e := c.entries[types.UID(uid)]; e.renewal == "" || c.now.Sub(e.heard) >= e.expected.Interval {
						c.beats(uid)
					}
				}
				c.pass(fastInterval)
				c.closeIdle()
				if c.Outage() {
					t.Fatalf("an outage after %v, when %d have fallen idle one by one", at, begun)
				}
			}
			fallen := 0
			for _, e := range c.entries {
				if e.fallen() {
					fallen++
				}
			}
			if fallen <= lives {
				t.Errorf("%d are fallen, want more than live, %d: nothing was tried", fallen, lives)
			}
		})
	}
}

// The sweep over the windows finds what looking at each second finds.
func TestAMomentIsFoundWhereThereIsOne(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	rapid.Check(t, func(t *rapid.T) {
		var all []silence
		var fallen []window
		for range rapid.IntRange(0, 40).Draw(t, "open") {
			from, missing := rapid.IntRange(0, 60).Draw(t, "heard"), rapid.IntRange(0, 2).Draw(t, "missing") == 0
			s := silence{interval: time.Second, window: window{at(from), at(from + rapid.IntRange(0, 15).Draw(t, "lasts"))}}
			if missing {
				s.lasts = 4 * time.Second
			}
			all = append(all, s)
		}
		for range rapid.IntRange(0, 30).Draw(t, "fallen") {
			from := rapid.IntRange(0, 30).Draw(t, "fell")
			fallen = append(fallen, window{at(from), at(from + rapid.IntRange(0, 15).Draw(t, "lasts"))})
		}
		holds := func(w window, t time.Time) bool { return !t.Before(w.from) && !t.After(w.until) }
		want := false
		for s := 0; s <= 80 && len(fallen) > 0; s++ {
			missing, open, heard, openHeard := 0, 0, 0, 0
			for _, one := range all {
				switch {
				case one.missing() && holds(one.window, at(s)):
					missing, open = missing+1, open+1
				case one.window.from.After(at(s)):
					heard, openHeard = heard+1, openHeard+1
				}
			}
			for _, w := range fallen {
				if holds(w, at(s)) {
					missing++
				} else if w.from.After(at(s)) {
					heard++
				}
			}
			want = want || missing > outageCount && float64(missing) > outageShare*float64(missing+heard) && float64(open) > openShare*float64(open+openHeard)
		}
		if got := isOutageOfAll(all, fallen); got != want {
			t.Fatalf("outage %t, want %t", got, want)
		}
	})
}

func BenchmarkTickWithFallen(b *testing.B) {
	all, fallen := make([]silence, 8000), make([]window, 2000)
	begin := time.Unix(1_000_000, 0)
	for i := range all {
		all[i] = silence{interval: time.Second, window: window{begin.Add(time.Duration(i*7919%8000) * time.Second), begin.Add(time.Duration(i*7919%8000+20) * time.Second)}}
		if i%10 == 0 {
			all[i].lasts = time.Minute
		}
	}
	for i := range fallen {
		fallen[i] = window{begin.Add(time.Duration(4*i) * time.Second), begin.Add(time.Duration(4*i+20) * time.Second)}
	}
	for b.Loop() {
		isOutageOfAll(all, fallen)
	}
}
