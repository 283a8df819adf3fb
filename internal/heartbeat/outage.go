package heartbeat

import (
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	// outageIntervals is after how many missed heartbeats an application counts as missing. It is less than the five
	// that an idle retention holds at least, so that an outage is seen before the first queue is closed for it.
	outageIntervals = 3
	// outageShare and outageCount: more than this share and more than this many missing at once is an outage.
	outageShare = 0.2
	outageCount = 10
)

// silence is how long an application has not been heard of, and how often it is to be.
type silence struct{ interval, lasts time.Duration }

func (s silence) missing() bool { return s.lasts > outageIntervals*s.interval }

// isOutage reports whether too many applications are missing at once for it to be the applications. Those with short
// intervals are missing long before the others could be. So it is asked for each interval by itself: of the applications
// that were to be heard of since the missing ones were, how many were not? One with a longer interval counts when it was
// heard, which proves that heartbeats arrive, and not when its time is yet to come.
func isOutage(all []silence) bool {
	intervals := map[time.Duration]bool{}
	for _, s := range all {
		if s.missing() {
			intervals[s.interval] = true
		}
	}
	for interval := range intervals {
		expected, missing := 0, 0
		for _, s := range all {
			switch {
			case s.interval > interval && s.lasts > outageIntervals*interval:
				continue
			case s.interval <= interval && s.missing():
				missing++
			}
			expected++
		}
		if missing > outageCount && float64(missing) > outageShare*float64(expected) {
			return true
		}
	}
	return false
}

// unspoken is the silence of an application of whose record no reconcile has spoken yet: a leader's watch of records may hang
// while that of Leases does not, and whoever knows few records could not tell that most applications fell silent. Only those
// count that were heard since the leader began: of the others nobody knows how long ago they ended. ok is false where nothing
// is to be expected: of a Lease without a reply queue, or whose queue was closed, or is its name's.
func (l *Ledger) unspoken(e *entry, now time.Time) (s silence, ok bool) {
	if e.expected != nil || e.spoken || !e.lease || e.closing || !e.paceKnown || e.pace <= 0 ||
		e.said[AnnotationRecord] == "" || e.said[injected.LeaseIdentity] != "" || !l.continuous(gapOf(e), now) {
		return silence{}, false
	}
	return silence{interval: e.missedAfter(e.pace), lasts: now.Sub(l.since(e))}, true
}

// missedAfter is how often an application is to be heard, of which that interval is known: not as seldom as a longer one says
// that came while it was silent, since it cannot know of it. Whoever lengthened an interval during an outage would hide it.
func (e *entry) missedAfter(interval time.Duration) time.Duration {
	if e.follows > 0 {
		return min(interval, e.follows)
	}
	return interval
}
