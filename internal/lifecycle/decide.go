// Package lifecycle decides what becomes of a reply queue. It is pure: it knows neither the API server nor SQS,
// and its only time is what it is given, so that every interleaving can be put to it in a test.
package lifecycle

import (
	"fmt"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Pod is what is known of the pod that a reply queue belongs to.
type Pod int

const (
	// PodUnknown: the API server cannot be asked, or the cache is not complete.
	PodUnknown Pod = iota
	// PodPresent: it exists, and is neither terminal nor being deleted.
	PodPresent
	// PodTerminating: it is being deleted, and its containers may still run.
	PodTerminating
	// PodStopped: it is terminal or gone, and either the kubelet reported every container terminated or no
	// container was ever started.
	PodStopped
	// PodGone: it is terminal or gone, and nobody reported the end of its containers (force-deleted, or removed
	// from a dead node). Its process may live.
	PodGone
)

// String names the state for logs and failing tests.
func (p Pod) String() string {
	switch p {
	case PodPresent:
		return "Present"
	case PodTerminating:
		return "Terminating"
	case PodStopped:
		return "Stopped"
	case PodGone:
		return "Gone"
	default:
		return "Unknown"
	}
}

// TokenCacheTime is how long an API server may go on accepting the token of a pod that is gone: kube-apiserver
// caches a successful authentication for 10 s (its authenticator's default success cache).
const TokenCacheTime = 10 * time.Second

// Terms are the times a reply queue lives by: its ReplyHost's, or the record's where that is gone.
type Terms struct {
	// Identity is what the queue belongs to.
	Identity v1alpha1.Identity
	// Mode is the pod's heartbeat mode.
	Mode v1alpha1.HeartbeatMode
	// Interval between two heartbeats.
	Interval time.Duration
	// IdleRetention is how long the queue outlives the last heartbeat (identity Pod), or the last pod of its name
	// (identity Stable).
	IdleRetention time.Duration
	// Drain is how long the queue outlives its stopped pod.
	Drain time.Duration
}

// IntervalsKept is how many heartbeats an idle retention holds at least (a rule of the ReplyHost's spec).
const IntervalsKept = 5

// NoFasterThan are the terms for an application that may renew as slowly as at that pace, because it has not been seen
// to learn of a faster one: it is given time for that.
func (t Terms) NoFasterThan(pace time.Duration) Terms {
	t.Interval = max(t.Interval, pace)
	t.IdleRetention = max(t.IdleRetention, IntervalsKept*t.Interval)
	return t
}

// SafeTime is how long a process may go on living unseen after its pod object vanished: two heartbeats that it
// could still have made, and the time its token stays cached.
func (t Terms) SafeTime() time.Duration {
	return max(t.Drain, 2*t.Interval+TokenCacheTime)
}

// ViewRecheck is when to decide again about a pod that is gone, while the operator's view of the cluster has a gap: nothing
// tells of the end of a gap.
const ViewRecheck = 5 * time.Second

// HeldRecheck is when to decide again about a silent application that something else keeps the queue for.
const HeldRecheck = time.Minute

// Heartbeat is what the operator has heard from the application, by the operator's own clock.
type Heartbeat struct {
	// Continuous says that the operator's view of heartbeats has no gap up to now. Without it, silence means nothing.
	Continuous bool
	// Counting says that the calling container runs, so that a heartbeat can be expected.
	Counting bool
	// Since is the latest of: the last heartbeat heard, the start of the continuous view, the start of the
	// container as the operator saw it.
	Since time.Time
	// Outage says that so many heartbeats are missing at once that the cause is not with the pods.
	Outage bool
	// Guarded says that the admission policy is in place which stops one pod from renewing another's Lease. Where
	// it is not, Leases prove nothing.
	Guarded bool
}

// Observation is everything a decision depends on.
type Observation struct {
	Terms Terms
	// Closing says that the record is marked Closing already.
	Closing bool
	// Pod is the state of the pod that reads the queue, and PodSince when the operator first saw it so, by its own
	// clock. A restart begins anew.
	Pod      Pod
	PodSince time.Time
	// Continuous says that the operator's view of the cluster has no gap from PodSince up to now. Without it, nothing is
	// counted of a pod that is gone.
	Continuous bool
	// Successor says, with identity Stable, that another pod of the same name exists that is to take the queue over. It
	// may still wait for something else.
	Successor bool
	// Deleted says that the record, or its ReplyHost, is being deleted: by people, or with the namespace. No pod of that name
	// is to come for whom a Stable queue would be kept.
	Deleted bool
	// Forsaken says, with identity Stable, that the pod which has the name now has another queue, by that one's record.
	Forsaken bool
	// NameSince is, with identity Stable, when the operator first found a successor gone that had been there; zero: never.
	NameSince time.Time
	// Audible says, of a pod that is PodGone, that its object is there all the same, in a terminal phase, and its Lease too:
	// a process that lives can still heartbeat.
	Audible bool
	// Before is what earlier counts of the same silence, or absence, came to: earlier leaders' counts, and this one's before
	// a gap in its view.
	Before time.Duration
	// Heartbeat is ignored with heartbeat mode Pod, and with identity Stable unless the pod is Audible.
	Heartbeat Heartbeat
}

// Action is what to do with a reply queue.
type Action int

const (
	// Keep it as it is.
	Keep Action = iota
	// Drain: keep it for late replies; no pod reads it any more.
	Drain
	// Close it for ever: mark Lease and record, then delete the queue.
	Close
	// Delete the queue in SQS: it is closed.
	Delete
)

// String names the action for logs and failing tests.
func (a Action) String() string {
	return [...]string{"Keep", "Drain", "Close", "Delete"}[a]
}

// Decision is what to do, why, and when to look again if nothing happens before.
type Decision struct {
	Action Action
	// Reason is set with Close.
	Reason v1alpha1.CloseReason
	// Message says why in words, for people.
	Message string
	// Again is when to decide again; 0: when something changes.
	Again time.Duration
}

// Decide says what becomes of one reply queue. It is total: every observation has a decision, and where nothing is
// known the decision is to keep.
//
//	pod          heartbeat                     identity Pod            identity Stable
//	-----------  ----------------------------  ----------------------  ----------------------------
//	unknown      any                           keep                    keep
//	present      mode Pod                      keep                    keep
//	present      fresh, or cannot be counted   keep                    keep
//	present      silent > idle retention       close (Idle)            keep: it is there to be durable
//	terminating  any                           keep                    keep
//	stopped      any                           drain, then close       keep while a successor exists and
//	                                           (PodStopped)            for the idle retention after, then
//	                                                                   close (NameAbsent)
//	gone         any                           keep for the safe time  the same, and for the safe time
//	                                           then close (PodGone)    at least
//	gone, but    heard since                   keep until it is silent for the idle retention, then close
//	its object   not heard since               as above
//	is there     cannot be counted, or outage  keep
//	stopped or   any, and record or ReplyHost  as without a        keep while a successor exists, then as
//	gone         is being deleted              deletion            with identity Pod
//	stopped or   any, and the pod of its name                      as with identity Pod
//	gone         has another queue
//	stopped or   any, and the operator's view  keep; what is counted begins anew when the view is whole again
//	gone         of the cluster has a gap
//
// What is counted, silence or absence, may have been counted in part by earlier leaders, or before a gap (Before). Of what is
// counted now at least five heartbeats' time is needed, and of a pod that is gone two and the time for which its token is
// cached: whoever could not be heard before can be heard now.
//
// A record that is Closing is deleted, whatever else is seen: closing is irreversible.
//
// What becomes of a pod is one of these rows:
//
//	what happens                               the row, and what follows
//	-----------------------------------------  ---------------------------------------------------------------
//	a container restarts, or crashes in a loop present; silence is not counted while the caller does not run
//	the pod finishes (a Job's)                 stopped: terminal, and the kubelet reported every container
//	evicted by the kubelet                     stopped, once its containers are reported; until then gone, but its
//	                                           object is there
//	deleted                                    terminating; then stopped, or gone where nobody reported the end
//	force-deleted                              gone: its process may live
//	its node is lost, and pod GC removes it    terminating or gone, never stopped: nobody reported the end
//	never bound to a node, and failed          stopped: it never ran
//	never bound to a node, and gone            gone: a watch tells of a pod that lost its label in the same way, and that
//	                                           one may have been bound, and run, since
//	its name is used by a new UID              gone, for the old UID; with identity Stable the new one succeeds it
//	the opt-in label is removed                present: what leaves the cache is asked for in the API server
//	the opt-in label is added late             there is no record: nothing was injected, so nothing reads a queue
//	its ReplyHost changes                      as before, by the new times; shorter ones count when they are known
//	its ReplyHost is deleted                   as before: host and record are held (InUse) until the pod is gone; then
//	                                           identity Stable keeps it no longer than identity Pod does
//	its namespace is deleted                   the same: host and record go with it, and no pod can be created there
//	it names another ReplyHost, or none, later as before: a pod keeps the queue, and the host, that it has
//	it names two ReplyHosts                    there is no record: a pod has one reply queue, and the webhook says so
//	its ReplyHost is full (spec.maxQueues)     there is no record: the pod keeps its gate until another's is closed
func Decide(o Observation, now time.Time) Decision {
	if o.Closing {
		return Decision{Action: Delete}
	}
	switch o.Pod {
	case PodPresent:
		return decidePresent(o, now)
	case PodTerminating:
		return Decision{Action: Keep, Message: "the pod is terminating"}
	case PodStopped, PodGone:
		return decideAbsent(o, now)
	default:
		return Decision{Action: Keep, Message: "the state of the pod is not known"}
	}
}

func decidePresent(o Observation, now time.Time) Decision {
	keep := Decision{Action: Keep, Message: "the pod exists"}
	count, ok := o.Counting()
	if !ok {
		return keep
	}
	if left := count.left(o.Before, now); left >= 0 {
		keep.Again = left + time.Millisecond
		return keep
	}
	switch h := o.Heartbeat; {
	case !h.Guarded:
		keep.Message = "the application is silent, but the policy that guards heartbeats is missing"
		keep.Again = HeldRecheck
		return keep
	case h.Outage:
		keep.Message = "the application is silent, but so are too many others"
		keep.Again = HeldRecheck
		return keep
	}
	return Decision{
		Action: Close,
		Reason: v1alpha1.CloseIdle,
		Message: fmt.Sprintf("no heartbeat for %s, longer than the idle retention of %s",
			(o.Before + now.Sub(count.Since)).Round(time.Second), o.Terms.IdleRetention),
	}
}

func decideAbsent(o Observation, now time.Time) Decision {
	reason, said := v1alpha1.ClosePodStopped, "the kubelet reported every container of the pod terminated"
	if o.Pod == PodGone {
		reason, said = v1alpha1.ClosePodGone, "the pod is gone and nobody reported the end of its containers"
	}
	if o.deaf() {
		return Decision{Action: Drain, Message: said + "; whether its application heartbeats is not known", Again: HeldRecheck}
	}
	if o.Terms.Identity == v1alpha1.IdentityStable {
		if o.Successor {
			// Its end wakes nobody: it never read the queue. What wakes it is the record's change: it may have found its
			// predecessor gone before the end of that one was reported.
			message := "another pod of that name is to take it over"
			if o.Pod == PodGone {
				message += " when the one before cannot run any more"
			}
			return Decision{Action: Keep, Message: message, Again: HeldRecheck}
		}
		switch {
		case o.Forsaken:
			said += ", and the pod of its name has another queue"
		case !o.Deleted:
			reason, said = v1alpha1.CloseNameAbsent, "no pod of that name exists"
		}
	}
	count := o.absence()
	drain := Decision{Action: Drain, Message: fmt.Sprintf("%s; the queue is kept for %s", said, count.Enough)}
	left := count.left(o.Before, now)
	switch {
	case !o.Continuous:
		// The API server may be away, or was set back: the pod may have been here again, or its name have had another.
		drain.Again = ViewRecheck
		return drain
	case left > 0:
		drain.Again = left + time.Millisecond
		return drain
	}
	return Decision{
		Action:  Close,
		Reason:  reason,
		Message: fmt.Sprintf("%s, and %s have passed", said, count.Enough),
	}
}
