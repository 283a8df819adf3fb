package lifecycle

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

var (
	podTerms = Terms{Identity: v1alpha1.IdentityPod, Mode: v1alpha1.HeartbeatLease, Interval: time.Minute, IdleRetention: 10 * time.Minute, Drain: 30 * time.Second}
	podMode  = Terms{Identity: v1alpha1.IdentityPod, Mode: v1alpha1.HeartbeatPod, Interval: time.Minute, IdleRetention: 10 * time.Minute, Drain: 30 * time.Second}
	stable   = Terms{Identity: v1alpha1.IdentityStable, Mode: v1alpha1.HeartbeatLease, Interval: time.Minute, IdleRetention: 10 * time.Minute, Drain: 30 * time.Second}
)

// silent is a heartbeat that everything says was last heard d ago.
func silent(d time.Duration) Heartbeat {
	return Heartbeat{Continuous: true, Counting: true, Guarded: true, Since: ago(d)}
}

func with(h Heartbeat, change func(*Heartbeat)) Heartbeat {
	change(&h)
	return h
}

func TestDecide(t *testing.T) {
	const long = 11 * time.Minute
	for _, c := range []struct {
		name   string
		in     Observation
		want   Action
		reason v1alpha1.CloseReason
		again  time.Duration
	}{
		{name: "nothing is known", in: Observation{Terms: podTerms, Heartbeat: silent(long)}, want: Keep},
		{name: "pod, fresh", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: silent(time.Minute)}, want: Keep, again: 9*time.Minute + time.Millisecond},
		{name: "pod, silent for exactly the retention", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: silent(10 * time.Minute)}, want: Keep, again: time.Millisecond},
		{name: "pod, silent for longer", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: silent(long)}, want: Close, reason: v1alpha1.CloseIdle},
		{name: "pod, silent, mode Pod", in: Observation{Terms: podMode, Pod: PodPresent, Heartbeat: silent(long)}, want: Keep},
		{name: "pod, silent, Stable", in: Observation{Terms: stable, Pod: PodPresent, Heartbeat: silent(long)}, want: Keep},
		{name: "pod, silent, view broken", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: with(silent(long), func(h *Heartbeat) { h.Continuous = false })}, want: Keep},
		{name: "pod, silent, container not running", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: with(silent(long), func(h *Heartbeat) { h.Counting = false })}, want: Keep},
		{name: "pod, silent, outage", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: with(silent(long), func(h *Heartbeat) { h.Outage = true })}, want: Keep, again: HeldRecheck},
		{name: "pod, silent, policy missing", in: Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: with(silent(long), func(h *Heartbeat) { h.Guarded = false })}, want: Keep, again: HeldRecheck},
		{name: "terminating, silent", in: Observation{Terms: podTerms, Pod: PodTerminating, PodSince: ago(time.Hour), Heartbeat: silent(long)}, want: Keep},
		{name: "stopped just now", in: Observation{Terms: podTerms, Pod: PodStopped, Continuous: true, PodSince: now}, want: Drain, again: 30*time.Second + time.Millisecond},
		{name: "stopped, drained", in: Observation{Terms: podTerms, Pod: PodStopped, Continuous: true, PodSince: ago(30 * time.Second)}, want: Close, reason: v1alpha1.ClosePodStopped},
		{name: "gone, process may live", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, PodSince: ago(129 * time.Second)}, want: Drain, again: time.Second + time.Millisecond},
		{name: "gone for the safe time", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, PodSince: ago(130 * time.Second)}, want: Close, reason: v1alpha1.ClosePodGone},
		{name: "gone, its object is there, never heard since", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(130 * time.Second), Heartbeat: silent(long)}, want: Close, reason: v1alpha1.ClosePodGone},
		{name: "gone, its object is there, heard since", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(time.Hour), Heartbeat: silent(9 * time.Minute)}, want: Drain, again: time.Minute + time.Millisecond},
		{name: "gone, its object is there, heard since, and silent", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(time.Hour), Heartbeat: silent(10 * time.Minute)}, want: Close, reason: v1alpha1.ClosePodGone},
		{name: "gone, its object is there, view broken", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(time.Hour), Heartbeat: with(silent(long), func(h *Heartbeat) { h.Continuous = false })}, want: Drain, again: HeldRecheck},
		{name: "gone, its object is there, outage", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(time.Hour), Heartbeat: with(silent(long), func(h *Heartbeat) { h.Outage = true })}, want: Drain, again: HeldRecheck},
		{name: "gone, its object is there, Stable, heard since", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, Audible: true, PodSince: ago(time.Hour), Heartbeat: silent(9 * time.Minute)}, want: Drain, again: time.Minute + time.Millisecond},
		{name: "stopped, drained, but the view has a gap", in: Observation{Terms: podTerms, Pod: PodStopped, PodSince: ago(time.Hour)}, want: Drain, again: ViewRecheck},
		{name: "gone for the safe time, but the view has a gap", in: Observation{Terms: podTerms, Pod: PodGone, PodSince: ago(time.Hour)}, want: Drain, again: ViewRecheck},
		{name: "gone, Stable, name absent, but the view has a gap", in: Observation{Terms: stable, Pod: PodGone, PodSince: ago(time.Hour)}, want: Drain, again: ViewRecheck},
		{name: "stopped, Stable", in: Observation{Terms: stable, Pod: PodStopped, Continuous: true, PodSince: ago(9 * time.Minute)}, want: Drain, again: time.Minute + time.Millisecond},
		{name: "stopped, Stable, name absent", in: Observation{Terms: stable, Pod: PodStopped, Continuous: true, PodSince: ago(10 * time.Minute)}, want: Close, reason: v1alpha1.CloseNameAbsent},
		{name: "gone, Stable, name absent", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(10 * time.Minute)}, want: Close, reason: v1alpha1.CloseNameAbsent},
		{name: "stopped, Stable, a successor waits", in: Observation{Terms: stable, Pod: PodStopped, Continuous: true, PodSince: ago(time.Hour), Successor: true}, want: Keep, again: HeldRecheck},
		{name: "gone, Stable, a successor waits", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(time.Hour), Successor: true}, want: Keep, again: HeldRecheck},
		{name: "gone, Stable, the successor went just now", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(time.Hour), NameSince: ago(9 * time.Minute)}, want: Drain, again: time.Minute + time.Millisecond},
		{name: "gone, Stable, the successor went long ago", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(time.Hour), NameSince: ago(10 * time.Minute)}, want: Close, reason: v1alpha1.CloseNameAbsent},
		{name: "stopped, Stable, deleted", in: Observation{Terms: stable, Pod: PodStopped, Continuous: true, PodSince: ago(29 * time.Second), Deleted: true}, want: Drain, again: time.Second + time.Millisecond},
		{name: "stopped, Stable, deleted, drained", in: Observation{Terms: stable, Pod: PodStopped, Continuous: true, PodSince: ago(30 * time.Second), Deleted: true}, want: Close, reason: v1alpha1.ClosePodStopped},
		{name: "gone, Stable, deleted", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(129 * time.Second), Deleted: true}, want: Drain, again: time.Second + time.Millisecond},
		{name: "gone, Stable, deleted, for the safe time", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(130 * time.Second), Deleted: true}, want: Close, reason: v1alpha1.ClosePodGone},
		{name: "gone, Stable, deleted, a successor waits", in: Observation{Terms: stable, Pod: PodGone, Continuous: true, PodSince: ago(time.Hour), Deleted: true, Successor: true}, want: Keep, again: HeldRecheck},
		{name: "present, Stable, deleted", in: Observation{Terms: stable, Pod: PodPresent, Deleted: true, Heartbeat: silent(long)}, want: Keep},
		{name: "gone, a new pod has its name", in: Observation{Terms: podTerms, Pod: PodGone, Continuous: true, PodSince: ago(time.Hour), Successor: true}, want: Close, reason: v1alpha1.ClosePodGone},
		{name: "closing, pod and heartbeat fresh", in: Observation{Terms: podTerms, Closing: true, Pod: PodPresent, Heartbeat: silent(0)}, want: Delete},
		{name: "closing, nothing known", in: Observation{Terms: podTerms, Closing: true}, want: Delete},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(c.in, now)
			if got.Action != c.want || got.Reason != c.reason || got.Again != c.again {
				t.Errorf("got %s %q again %s (%s), want %s %q again %s", got.Action, got.Reason, got.Again, got.Message, c.want, c.reason, c.again)
			}
		})
	}
}

// TestDecideKeepsItsPromises puts random observations to Decide and checks what must hold for each.
func TestDecideKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, name))
		}
		o := Observation{
			Terms: Terms{
				Identity:      rapid.SampledFrom([]v1alpha1.Identity{v1alpha1.IdentityPod, v1alpha1.IdentityStable}).Draw(t, "identity"),
				Mode:          rapid.SampledFrom([]v1alpha1.HeartbeatMode{v1alpha1.HeartbeatLease, v1alpha1.HeartbeatPod}).Draw(t, "mode"),
				Interval:      duration("interval"),
				IdleRetention: duration("retention"),
				Drain:         duration("drain"),
			},
			Closing:    rapid.Bool().Draw(t, "closing"),
			Pod:        rapid.SampledFrom([]Pod{PodUnknown, PodPresent, PodTerminating, PodStopped, PodGone}).Draw(t, "pod"),
			PodSince:   ago(duration("podSince")),
			Continuous: rapid.Bool().Draw(t, "view"),
			// Only a Stable queue has one.
			Successor: rapid.Bool().Draw(t, "successor"),
			Deleted:   rapid.Bool().Draw(t, "deleted"),
			Forsaken:  rapid.Bool().Draw(t, "forsaken"),
			Before:    duration("before"),
			Audible:   rapid.Bool().Draw(t, "audible"),
			NameSince: ago(duration("nameSince")),
			Heartbeat: Heartbeat{
				Continuous: rapid.Bool().Draw(t, "continuous"),
				Counting:   rapid.Bool().Draw(t, "counting"),
				Since:      ago(duration("since")),
				Outage:     rapid.Bool().Draw(t, "outage"),
				Guarded:    rapid.Bool().Draw(t, "guarded"),
			},
		}
		d := Decide(o, now)
		if o.Closing != (d.Action == Delete) {
			t.Fatalf("closing %v: %s", o.Closing, d.Action)
		}
		if d.Action == Close {
			if d.Reason == "" || d.Message == "" {
				t.Fatalf("closed without saying why: %+v", d)
			}
			switch h := o.Heartbeat; o.Pod {
			case PodPresent:
				if o.Terms.Mode != v1alpha1.HeartbeatLease || o.Terms.Identity != v1alpha1.IdentityPod ||
					!h.Continuous || !h.Counting || h.Outage || !h.Guarded || o.Before+now.Sub(h.Since) <= o.Terms.IdleRetention ||
					now.Sub(h.Since) <= min(o.Terms.IdleRetention, IntervalsKept*o.Terms.Interval) {
					t.Fatalf("closed the queue of a living pod: %+v", o)
				}
			case PodStopped:
				if o.Before+now.Sub(o.PodSince) < o.Terms.Drain {
					t.Fatalf("closed before the drain was over: %+v", o)
				}
			case PodGone:
				if o.Before+now.Sub(o.PodSince) < o.Terms.SafeTime() || now.Sub(o.PodSince) < 2*o.Terms.Interval+TokenCacheTime {
					t.Fatalf("closed before the safe time was over: %+v", o)
				}
				if o.Audible && (!h.Continuous || h.Outage || (h.Since.After(o.PodSince) && o.Before+now.Sub(h.Since) < o.Terms.IdleRetention)) {
					t.Fatalf("closed the queue of an application that may be heard: %+v", o)
				}
			default:
				t.Fatalf("closed with the pod %s", o.Pod)
			}
			if o.Pod != PodPresent && !o.Continuous {
				t.Fatalf("closed by what was counted over a gap in the view: %+v", o)
			}
			if o.Terms.Identity == v1alpha1.IdentityStable &&
				(o.Successor || !o.Deleted && !o.Forsaken && (o.Before+now.Sub(o.PodSince) < o.Terms.IdleRetention || o.Before+now.Sub(o.NameSince) < o.Terms.IdleRetention)) {
				t.Fatalf("closed a Stable queue before its name was absent long enough: %+v", o)
			}
		}
		// Whatever is put off is decided later, without anything else happening.
		if d.Again > 0 {
			later := Decide(o, now.Add(d.Again))
			if held := later.Again == HeldRecheck || later.Again == ViewRecheck; later.Action == d.Action && later.Again > 0 && !held {
				t.Fatalf("put off by %s, and then again by %s: %+v", d.Again, later.Again, o)
			}
		}
		if d.Action == Drain && d.Again <= 0 {
			t.Fatalf("drains without an end: %+v", o)
		}
	})
}
