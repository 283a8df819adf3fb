package lifecycle

import (
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Count is what is counted of a reply queue that nobody reads.
type Count struct {
	// Of is what is counted.
	Of v1alpha1.CountedOf
	// Since is when the present count began.
	Since time.Time
	// Enough is how much has to be counted in all, and Afresh how much of that by the present count.
	Enough, Afresh time.Duration
}

// left is what has to be counted yet.
func (c Count) left(before time.Duration, now time.Time) time.Duration {
	return c.Fresh(before) - now.Sub(c.Since)
}

// Fresh is how much the present count has to come to, where earlier ones came to before.
func (c Count) Fresh(before time.Duration) time.Duration { return max(c.Enough-before, c.Afresh) }

const (
	// notedShare of what is enough is noted at a time, but never less than notedLeast, since notes are writes, nor more than
	// notedMost, since what is not noted is lost with the leader.
	notedShare = 10
	notedLeast = 5 * time.Minute
	notedMost  = time.Hour
	// notedFrom is for how long a queue is kept of which anything is noted: a leader lives for longer than what is less.
	notedFrom = v1alpha1.DefaultIdleRetentionSeconds * time.Second
)

// NoteEvery is how much is counted from one note to the next; 0: nothing is noted.
func (c Count) NoteEvery() time.Duration {
	if c.Enough <= notedFrom {
		return 0
	}
	return min(max(c.Enough/notedShare, notedLeast), notedMost)
}

// Counting is what is counted now. ok is false where nothing is: somebody may read the queue, or nobody could tell.
func (o Observation) Counting() (c Count, ok bool) {
	switch o.Pod {
	case PodPresent:
		h := o.Heartbeat
		return Count{
			Of: v1alpha1.CountedSilence, Since: h.Since,
			Enough: o.Terms.IdleRetention, Afresh: min(o.Terms.IdleRetention, IntervalsKept*o.Terms.Interval),
		}, o.Terms.Mode == v1alpha1.HeartbeatLease && o.Terms.Identity != v1alpha1.IdentityStable && h.Counting && h.Continuous
	case PodStopped, PodGone:
		return o.absence(), o.Continuous && !o.deaf() && !(o.Successor && o.Terms.Identity == v1alpha1.IdentityStable)
	default:
		return Count{}, false
	}
}

// deaf says, of a pod that is gone and can still be heard, that whether it is heard is not known.
func (o Observation) deaf() bool {
	return o.Pod == PodGone && o.Audible && (!o.Heartbeat.Continuous || o.Heartbeat.Outage)
}

// absence is what is counted of a pod that is gone.
func (o Observation) absence() Count {
	c := Count{Of: v1alpha1.CountedAbsence, Since: o.PodSince, Enough: o.Terms.Drain}
	if o.Pod == PodGone {
		c.Enough = o.Terms.SafeTime()
		if o.Audible && o.Heartbeat.Since.After(c.Since) {
			// A process lives that nobody speaks of any more, and it is given the time of one that is spoken of.
			c.Since, c.Enough = o.Heartbeat.Since, max(c.Enough, o.Terms.IdleRetention)
		}
	}
	if o.Terms.Identity == v1alpha1.IdentityStable {
		if !o.Deleted && !o.Forsaken {
			c.Enough = max(c.Enough, o.Terms.IdleRetention)
		}
		if o.NameSince.After(c.Since) {
			c.Since = o.NameSince
		}
	}
	c.Afresh = min(c.Enough, 2*o.Terms.Interval+TokenCacheTime)
	return c
}
