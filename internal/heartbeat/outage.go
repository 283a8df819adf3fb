package heartbeat

import (
	"slices"
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
	// openShare is the share of those whose queues are open that has to be missed with others whose queues were closed.
	openShare = outageShare / 2
	// outageWindow is for how many of its intervals after an application was heard an outage can have begun that it is missed
	// for: the next heartbeat is due within one, and may have been lost by itself.
	outageWindow = 2
)

// silence is how long an application has not been heard of, and how often it is to be. If it is missing, an outage that it is
// missed for began in the window.
type silence struct {
	interval, lasts time.Duration
	window          window
}

// window is from one moment to another, both included.
type window struct{ from, until time.Time }

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

// isOutageOfAll reports whether there is one moment at which an outage can have begun that too many are missed for, the fallen
// among them: those that were missing when their queues were closed as idle, and were not heard since. Where fast applications
// are too few to be an outage by themselves, they are closed before slow ones can be missing. But those that fall idle
// one by one share no moment, however many they become. Of the others, those count that were heard since that moment. The fallen, of
// whom most are never heard again, conclude nothing by themselves: of those whose queues are open, more than openShare have to be
// missed too. Else one slow application, silent by itself, would be held for ever with all others, where some fast ones had ended together.
func isOutageOfAll(all []silence, fallen []window) bool {
	var openHeard, openFrom, openUntil []time.Time
	for _, s := range all {
		openHeard = append(openHeard, s.window.from)
		if s.missing() {
			openFrom, openUntil = append(openFrom, s.window.from), append(openUntil, s.window.until)
		}
	}
	if len(fallen) == 0 || len(openFrom) == 0 || len(openFrom)+len(fallen) <= outageCount {
		return false
	}
	heard, from, until := slices.Clone(openHeard), slices.Clone(openFrom), slices.Clone(openUntil)
	for _, w := range fallen {
		heard, from, until = append(heard, w.from), append(from, w.from), append(until, w.until)
	}
	for _, times := range [][]time.Time{heard, from, until, openHeard, openFrom, openUntil} {
		slices.SortFunc(times, time.Time.Compare)
	}
	// The later a moment, the fewer were heard since, and until a window ends only more begin: so no moment is worse than the next
	// end of one.
	for _, t := range until {
		missing, open := upTo(from, t)-before(until, t), upTo(openFrom, t)-before(openUntil, t)
		if missing > outageCount && many(missing, len(heard)-upTo(heard, t), outageShare) && many(open, len(openHeard)-upTo(openHeard, t), openShare) {
			return true
		}
	}
	return false
}

// many says that more than a share are missing, where so many others were heard.
func many(missing, heard int, share float64) bool {
	return float64(missing) > share*float64(missing+heard)
}

// before and upTo are how many of the times, in order, are earlier than t, or no later.
func before(times []time.Time, t time.Time) int {
	n, _ := slices.BinarySearchFunc(times, t, time.Time.Compare)
	return n
}

func upTo(times []time.Time, t time.Time) int {
	n, _ := slices.BinarySearchFunc(times, t, func(at, t time.Time) int {
		if at.After(t) {
			return 1
		}
		return -1
	})
	return n
}

// silence is that of an application that is to be heard at an interval. An outage that it is missed for began after it was heard,
// whatever gap in the view its count began with.
func (l *Ledger) silence(e *entry, interval time.Duration, now time.Time) silence {
	since, interval := l.unheard(e), e.missedAfter(interval)
	w := window{e.heard, since.Add(outageWindow * interval)}
	if w.from.IsZero() {
		w.from = since
	}
	return silence{interval, now.Sub(since), w}
}

// note notes whether an application is missing, for when its queue is closed.
func (e *entry) note(s silence) {
	e.fell = window{}
	if s.missing() {
		e.fell = s.window
	}
}

// fallen says that an application was missing when its queue was closed, as far as this process knows, and that its pod is
// still to be heard.
func (e *entry) fallen() bool { return e.lease && e.closing && !e.fell.from.IsZero() }

// unspoken is the silence of an application of whose record no reconcile has spoken yet: a leader's watch of records may hang
// while that of Leases does not, and whoever knows few records could not tell that most applications fell silent. Only those
// count that were heard since the leader began: of the others nobody knows how long ago they ended. ok is false where nothing
// is to be expected: of a Lease without a reply queue, or whose queue was closed, or is its name's.
func (l *Ledger) unspoken(e *entry, now time.Time) (s silence, ok bool) {
	if e.expected != nil || e.spoken || !e.lease || e.closing || !e.paceKnown || e.pace <= 0 ||
		e.said[AnnotationRecord] == "" || e.said[injected.LeaseIdentity] != "" || !l.continuous(gapOf(e), now) {
		return silence{}, false
	}
	return l.silence(e, e.pace, now), true
}

// missedAfter is how often an application is to be heard, of which that interval is known: not as seldom as a longer one says
// that came while it was silent, since it cannot know of it. Whoever lengthened an interval during an outage would hide it.
func (e *entry) missedAfter(interval time.Duration) time.Duration {
	if e.follows > 0 {
		return min(interval, e.follows)
	}
	return interval
}
