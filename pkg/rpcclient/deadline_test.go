package rpcclient

import (
	"testing"
	"time"
	"unsafe"
)

// at builds a delivery: the message was sent at sqs time s, first received at f, its answer arrived at
// local time l; count receives.
func at(base time.Time, s, f, l time.Duration, count int) delivery {
	return delivery{sent: base.Add(s), firstReceive: base.Add(f), local: base.Add(l), count: count}
}

func TestAgeDoesNotTrustClocks(t *testing.T) {
	base := time.Unix(1_700_000_000, 0)
	const hop = 20 * time.Millisecond
	for _, tc := range []struct {
		name  string
		skew  time.Duration // of this machine's clock against SQS's
		learn bool          // a first delivery was seen before
		d     func(skew time.Duration) delivery
		now   time.Duration // by SQS's clock
		want  time.Duration
		error time.Duration
	}{
		{"first receive, clocks agree", 0, false, func(s time.Duration) delivery { return at(base, 0, 2*time.Second, 2*time.Second+hop+s, 1) }, 3 * time.Second, 3 * time.Second, hop},
		{"first receive, ours is an hour ahead", time.Hour, false, func(s time.Duration) delivery { return at(base, 0, 2*time.Second, 2*time.Second+hop+s, 1) }, 3 * time.Second, 3 * time.Second, hop},
		{"first receive, ours is an hour behind", -time.Hour, false, func(s time.Duration) delivery { return at(base, 0, 2*time.Second, 2*time.Second+hop+s, 1) }, 3 * time.Second, 3 * time.Second, hop},
		{"redelivered, clock known", time.Hour, true, func(s time.Duration) delivery { return at(base, 0, 2*time.Second, 30*time.Second+hop+s, 2) }, 31 * time.Second, 31 * time.Second, hop},
		{"stopped with the answer in the socket, clock known", time.Hour, true, func(s time.Duration) delivery { return at(base, 0, 2*time.Second, 60*time.Second+s, 1) }, 60 * time.Second, 60 * time.Second, hop},
		{"redelivered, only a Date header", time.Hour, false, func(s time.Duration) delivery {
			d := at(base, 0, 2*time.Second, 30*time.Second+hop+s, 2)
			d.serverDate = base.Add(30 * time.Second)
			return d
		}, 31 * time.Second, 31 * time.Second, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var clock sqsClock
			if tc.learn {
				clock.observe(base.Add(-time.Second), base.Add(-time.Second+tc.skew), base.Add(-time.Second+hop+tc.skew))
			}
			got := tc.d(tc.skew).age(&clock, base.Add(tc.now+tc.skew))
			if got > tc.want || got < tc.want-tc.error {
				t.Errorf("age %s, want %s to %s", got, tc.want-tc.error, tc.want)
			}
		})
	}
}

func TestSQSClockTakesTheBestSampleAndForgetsOldOnes(t *testing.T) {
	var clock sqsClock
	base := time.Unix(1_700_000_000, 0)
	observe := func(after, delay time.Duration) {
		clock.observe(base.Add(after), base.Add(after), base.Add(after+delay))
	}
	offset := func() time.Duration {
		now := base.Add(time.Hour)
		at, ok := clock.sqsTime(now, nil)
		if !ok {
			t.Fatal("nothing is known")
		}
		return at.Sub(now)
	}
	if _, ok := clock.sqsTime(base, nil); ok {
		t.Error("something is known before the first sample")
	}
	observe(0, 30*time.Millisecond)
	observe(time.Second, 5*time.Millisecond)
	observe(2*time.Second, 80*time.Millisecond)
	if got := offset(); got != -5*time.Millisecond {
		t.Errorf("offset %s, want the best, -5 ms", got)
	}
	// The local clock drifts ahead by 100 ms: two windows later the old samples are gone.
	observe(2*time.Minute, 110*time.Millisecond)
	if got := offset(); got != -5*time.Millisecond {
		t.Errorf("offset %s: the window before counts too", got)
	}
	observe(4*time.Minute, 110*time.Millisecond)
	if got := offset(); got != -110*time.Millisecond {
		t.Errorf("offset %s, want -110 ms", got)
	}
}

// One receive whose clock is ahead of the others' is not believed; answers that were late do not outvote one that was
// not.
func TestSQSClockOfSeveralHosts(t *testing.T) {
	type receive struct{ ahead, late, waited time.Duration } // SQS's clock, how late its answer came, how long it was asked for before
	const quick = 5 * time.Millisecond
	late := func(d time.Duration) receive { return receive{late: d, waited: d} }
	good, idle, bad := receive{late: quick, waited: quick}, receive{late: quick, waited: 20 * time.Second}, receive{ahead: 10 * time.Second, late: quick, waited: quick}
	for _, tc := range []struct {
		name     string
		receives []receive
		want     time.Duration
	}{
		{"one ahead, first", []receive{bad, good}, -quick},
		{"one ahead, between", []receive{good, bad, good}, -quick},
		{"one ahead, last", []receive{good, good, bad}, -quick},
		{"one ahead, idle", []receive{idle, idle, bad}, -quick},
		{"alone", []receive{bad}, 10*time.Second - quick},
		{"nobody can tell yet", []receive{bad, idle}, 10*time.Second - quick},
		{"one late", []receive{good, late(9500 * time.Millisecond)}, -quick},
		{"late, then good", []receive{late(9500 * time.Millisecond), late(4 * time.Second), good}, -quick},
		{"all but one late", []receive{late(2 * time.Second), good, late(5 * time.Second), late(9 * time.Second)}, -quick},
		{"hosts that agree by half a second", []receive{good, {ahead: 500 * time.Millisecond, late: quick, waited: quick}, good}, 500*time.Millisecond - quick},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var clock sqsClock
			base := time.Unix(1_700_000_000, 0)
			for i, r := range tc.receives {
				now := base.Add(time.Duration(i) * time.Second)
				clock.observe(now.Add(r.ahead), now.Add(r.late-r.waited), now.Add(r.late))
			}
			at, ok := clock.sqsTime(base, nil)
			if got := at.Sub(base); !ok || got != tc.want {
				t.Errorf("offset %s, want %s", got, tc.want)
			}
		})
	}
}

// suspended is t by a machine that was suspended for d since it started: by the wall clock it is later, and by the monotonic
// clock it is not. The package time offers no way to make one, so this knows how it lays out what time.Now returns.
func suspended(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	later := at
	*(*uint64)(unsafe.Pointer(&later)) += uint64(d/time.Second) << 30 //nolint:gosec // See above.
	if later.Sub(at) != 0 || later.Round(0).Sub(at.Round(0)) != d {
		t.Fatal("the package time lays out its times otherwise than it did")
	}
	return later
}

// What was learned of SQS's clock before the machine was suspended tells nothing of the time after it.
func TestSQSClockAfterSuspension(t *testing.T) {
	const hop = 5 * time.Millisecond
	for name, tc := range map[string]struct {
		slept time.Duration // how long the machine was suspended
		first bool          // the message is received for the first time
		want  time.Duration // the age's error at most
	}{
		"first receive":               {slept: 10 * time.Minute, first: true, want: hop},
		"redelivery":                  {slept: 10 * time.Minute, want: time.Second + hop},
		"redelivery, not suspended":   {want: hop},
		"wall clock a little stepped": {slept: time.Second, want: time.Second + hop},
	} {
		t.Run(name, func(t *testing.T) {
			var clock sqsClock
			now := time.Now()
			sqs := now.Round(0).Add(-time.Hour)
			for range 3 {
				clock.observe(sqs, now, now.Add(hop))
			}
			// A message is sent just then, and received when the machine runs again.
			d := delivery{sent: sqs, firstReceive: sqs.Add(tc.slept), count: 2, local: suspended(t, now.Add(hop), tc.slept)}
			d.serverDate = d.firstReceive.Truncate(time.Second)
			if tc.first {
				d.count = 1
				clock.observe(d.firstReceive, suspended(t, now, tc.slept), d.local)
			}
			if got := d.age(&clock, d.local); got > tc.slept+hop || got < tc.slept-tc.want {
				t.Errorf("age %s, want %s", got, tc.slept)
			}
			if tc.slept > time.Second && tc.first { // and it is known to what comes again
				d.count, d.serverDate = 2, time.Time{}
				if got := d.age(&clock, d.local); got > tc.slept+hop || got < tc.slept-tc.want {
					t.Errorf("redelivered: age %s, want %s", got, tc.slept)
				}
			}
		})
	}
}

// Nor does what came with an answer that may have been in the socket while the machine was suspended, or before that: such a message
// is as old as the wall clock says, and the next are told by their own receives.
func TestSQSClockOfWhatWasReceivedBeforeSuspension(t *testing.T) {
	const hop, slept = 5 * time.Millisecond, 10 * time.Minute
	var clock sqsClock
	now := time.Now()
	sqs := now.Round(0)
	for range 3 {
		clock.observe(sqs, now.Add(-hop), now)
	}
	check := func(what string, d delivery, at time.Time, want time.Duration) {
		t.Helper()
		if got := d.age(&clock, at); (got - want).Abs() > 2*hop {
			t.Errorf("%s: age %s, want %s", what, got, want)
		}
	}
	d := delivery{sent: sqs, firstReceive: sqs, count: 1, local: now}
	check("waits, before", d, now.Add(time.Second), time.Second)
	check("waits", d, suspended(t, now.Add(time.Second), slept), time.Second+slept)
	d.local = suspended(t, now.Add(time.Second), slept)
	clock.observe(time.Time{}, now, d.local)
	check("in the socket", d, d.local, time.Second+slept)
	clock.observe(sqs, now, d.local)
	check("in the socket, first receive", d, d.local, time.Second+slept)
	next := suspended(t, now.Add(2*time.Second), slept)
	clock.observe(next.Round(0).Add(-hop), next.Add(-hop), next)
	check("the next", delivery{sent: sqs, firstReceive: next.Round(0).Add(-hop), count: 1, local: next}, next, 2*time.Second+slept)
}

func TestStaleBySender(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		age    time.Duration
		budget time.Duration
		want   bool
	}{
		{time.Minute, 30 * time.Second, false},
		{staleGuard + 30*time.Second, 30 * time.Second, false},
		{staleGuard + 31*time.Second, 30 * time.Second, true},
		{-time.Hour, 0, false},
	} {
		if got := staleBySender(now.Add(-tc.age).UnixMilli(), tc.budget, now); got != tc.want {
			t.Errorf("age %s, budget %s: %t", tc.age, tc.budget, got)
		}
	}
	if staleBySender(0, 0, now) {
		t.Error("a request without a send time is stale")
	}
}
