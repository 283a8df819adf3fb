package heartbeat

import (
	"slices"
	"time"
)

// How long the beacon may stay away depends on whose silence is counted: an outage must be seen before it has lasted as
// long as the retention of that application, and nobody else's count is to begin anew for it. So the view has no gap, or
// one, for each application by itself.

// pause is a time for which the beacon stayed away, longer than the fastest application suffers.
type pause struct {
	ended  time.Time
	lasted time.Duration
}

// gapOf is how long the beacon may stay away for one application: longer for whom it need not come so fast.
func gapOf(e *entry) time.Duration {
	if e.expected == nil {
		return BeaconGap
	}
	return gapBeacons * beaconFor(e.expected.Interval)
}

// beaconFor is how often the beacon has to come for an application that heartbeats at that interval.
func beaconFor(interval time.Duration) time.Duration {
	return min(BeaconInterval, max(fastestBeacon, interval/2))
}

// paused notes how long the beacon stayed away. Of several pauses those count that no later one was as long as. Those that
// begin with the same second are taken for the longest of them and the last, which keeps them few and does no count too
// soon.
func (l *Ledger) paused(now time.Time) {
	lasted := now.Sub(l.lastBeacon)
	if lasted <= gapBeacons*fastestBeacon {
		return
	}
	longest := lasted
	l.pauses = slices.DeleteFunc(l.pauses, func(p pause) bool {
		over := p.lasted.Truncate(time.Second) <= lasted
		if over {
			longest = max(longest, p.lasted)
		}
		return over
	})
	l.pauses = append(l.pauses, pause{now, longest})
}

// continuous says that the view has no gap up to now, for an application before which the beacon may stay away for so long.
func (l *Ledger) continuous(gap time.Duration, now time.Time) bool {
	return !l.viewStart.IsZero() && !l.unpermitted && now.Sub(l.lastBeacon) <= gap
}

// viewFrom is since when that view has no gap.
func (l *Ledger) viewFrom(gap time.Duration) time.Time {
	since := l.viewStart
	for _, p := range l.pauses {
		if p.lasted > gap && p.ended.After(since) {
			since = p.ended
		}
	}
	return since
}
