// Package fence keeps a cluster that was cloned, or restored from a backup, from deleting the queues of its original.
// Both have the same identity, and so the same queue names and the same ownership tags. What tells them apart is a
// nonce, kept in the cluster and, as a tag, on a marker queue in SQS, and changed in both all the time: the copy's is old.
package fence

import "slices"

// Pinned is what the cluster itself knows.
type Pinned struct {
	// Cluster is the UID of the kube-system namespace.
	Cluster string
	// Nonces are those that this cluster has put, or was about to put, on the marker, newest first. There are several
	// because a read may show an older one, and because a request of an earlier leader may arrive late.
	Nonces []string
	// Confirmed are nonces of others that a human has declared void; AdoptFrom is the UID of a cluster whose queues a
	// human has given to this one.
	Confirmed []string
	AdoptFrom string
	// Seen says that the marker once bore a nonce of this cluster. Without it, a marker that is not there was never made.
	Seen bool
	// Held says that this very process found it to be this cluster's. Nothing of this is in a backup or in a copy.
	Held bool
	// Contested says that another had claimed the marker, and that no human has spoken since. Spoken are the nonces of
	// others that one declares void now, and ClaimAbandoned says that a marker that nobody claims is this cluster's.
	Contested      bool
	Spoken         []string
	ClaimAbandoned bool
	// Account holds the queues of this cluster; empty: not known yet.
	Account string
	// Beside says that the cluster has claimed the marker for another provider, of which nothing is there to see, and that this
	// process has not found out that it is the cluster's.
	Beside bool
}

// Marker is what the marker queue says.
type Marker struct {
	// Exists is false when there is no such queue; the rest is empty then.
	Exists bool
	// Cluster and Nonce are its tags; empty: no such tag.
	Cluster, Nonce string
	// Strange are nonces that it bears, or bore when it was seen last, for other providers, whose marker it is too, and that this
	// cluster does not know.
	Strange []string
	// Account holds it, or, when it does not exist, is the one that was looked into; empty: not known.
	Account string
}

// Verdict is what comparing the two says.
type Verdict string

const (
	// Held: the marker bears the nonce that was written last. Queues may be deleted, and the nonce is changed.
	Held Verdict = "Held"
	// Behind: the marker bears an earlier nonce of this cluster: the last write did not arrive, or is not shown yet.
	// Queues may be deleted, and the last nonce is written again.
	Behind Verdict = "Behind"
	// Unclaimed: nobody has claimed the marker, and this cluster never has. It is claimed.
	Unclaimed Verdict = "Unclaimed"
	// Lost: this process had seen the marker as its own, and it is gone. It is claimed again, and nothing is deleted until
	// it is seen.
	Lost Verdict = "Lost"
	// Abandoned: this cluster had claimed the marker, and a process that never saw it finds none. It may be a copy, whose
	// original will make the marker again, or look into another account. Nothing is deleted, and nothing written.
	Abandoned Verdict = "Abandoned"
	// Beside: nobody has claimed the marker for this provider, and for another that shares it this cluster is where Abandoned says.
	// Nothing is deleted, and nothing written.
	Beside Verdict = "Beside"
	// Given: another cluster claims the marker, or none does, and a human has given it to this one. It is claimed.
	Given Verdict = "Given"
	// Conflict: another cluster claims the marker, or did, and no human has spoken since. Nothing is deleted, and nothing
	// written.
	Conflict Verdict = "Conflict"
	// Rival: another cluster claims the marker, or did, for another provider that shares it, and no human has spoken since. Whose the
	// queues are is the same for both. Nothing is deleted, and nothing written.
	Rival Verdict = "Rival"
	// Elsewhere: the operator looks into another account than that of this cluster's queues. Nothing is deleted, and nothing written.
	Elsewhere Verdict = "Elsewhere"
)

// MayDelete says whether queues may be deleted on that verdict.
func (v Verdict) MayDelete() bool { return v == Held || v == Behind }

// Judge compares what the cluster knows with what the marker says. It is pure and total, and where it cannot be sure it
// says Conflict.
func Judge(p Pinned, m Marker) Verdict {
	verdict := judgeOwn(p, m)
	switch {
	case verdict == Conflict || verdict == Elsewhere:
		return verdict
	case verdict == Given && m.Exists && m.Cluster != p.Cluster:
		return verdict // What it bears for all providers is given.
	case slices.ContainsFunc(m.Strange, func(nonce string) bool { return !slices.Contains(p.Spoken, nonce) }):
		return Rival
	}
	return verdict
}

// judgeOwn is Judge, as if no other provider shared the marker.
func judgeOwn(p Pinned, m Marker) Verdict {
	switch {
	case m.Exists && p.Account != "" && m.Account != "" && m.Account != p.Account:
		return Elsewhere
	case m.Exists && m.Cluster != p.Cluster:
		if m.Cluster != "" && m.Cluster == p.AdoptFrom {
			return Given
		}
		return Conflict // A queue that is another's, or nobody's, is never written to.
	case m.Nonce == "":
		return judgeUnclaimed(p, m)
	case slices.Contains(p.Spoken, m.Nonce):
		return Given
	case p.Contested:
		return Conflict
	case len(p.Nonces) > 0 && m.Nonce == p.Nonces[0]:
		return Held
	case slices.Contains(p.Nonces, m.Nonce):
		return Behind
	case slices.Contains(p.Confirmed, m.Nonce):
		return Given
	default:
		return Conflict
	}
}

// judgeUnclaimed is for a marker that is not there, or bears no nonce of this provider.
func judgeUnclaimed(p Pinned, m Marker) Verdict {
	switch {
	case p.ClaimAbandoned:
		return Given
	case p.Account != "" && m.Account != "" && m.Account != p.Account:
		return Elsewhere
	case p.Contested:
		return Conflict
	case !p.Seen && p.Beside:
		return Beside
	case !p.Seen:
		return Unclaimed // Never made, or another provider with the same account made it.
	case p.Held:
		return Lost
	default:
		return Abandoned
	}
}

// nonceHistory is how many nonces are kept. With one every ten seconds it is more than SQS takes to show a change (60 s),
// and than a request can be late.
const nonceHistory = 12

// Next are the nonces to keep when fresh is about to be written.
func Next(nonces []string, fresh string) []string {
	next := append([]string{fresh}, nonces...)
	return next[:min(len(next), nonceHistory)]
}
