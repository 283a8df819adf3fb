package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// The brake of a sweep: one that would delete more than this share of the reply queues there are, and more than this
// many, deletes none until a human allows it. As many records do not get lost at once unless something is wrong with
// the view of them.
const (
	sweepShare = 0.2
	sweepCount = 10
)

// Braked says whether a sweep that found total reply queues, and would delete orphans of them, has to be held.
// allowed is how many a human has allowed for this once; 0: none.
func Braked(total, orphans, allowed int) bool {
	return orphans > sweepCount && float64(orphans) > sweepShare*float64(total) && orphans > allowed
}

// Orphan is everything that a decision about one reply queue without a record depends on.
type Orphan struct {
	// NameComputed says that its name has the form that only reply queues of this cluster have.
	NameComputed bool
	// Kind and Cluster are what its ownership tags say now (v1alpha1.TagKind, v1alpha1.TagCluster).
	Kind, Cluster string
	// Recorded says that a record stands for it: in the list of records, read from the API server after the queues had
	// been listed, or in the reading right before the deletion.
	Recorded bool
	// PodLives says that the API server knows the pod that the queue was made for, or another that was told of it, or, of a
	// queue with identity Stable, any pod of that name that is not known to read another; and that this pod has not ended.
	PodLives bool
	// Unread is the time, by the operator's own clock, since a sweep last found such a pod; since the first sweep that found
	// the queue without a record, where none was found.
	Unread time.Duration
	// Passes is how many sweeps in a row have found it without a record, and Unrecorded the time from the first of them
	// to the last, by the operator's own clock. A restart begins anew.
	Passes     int
	Unrecorded time.Duration
}

// SweepTerms are what a sweep goes by.
type SweepTerms struct {
	// Cluster is the UID of the kube-system namespace. Former is that of a cluster which is gone for good and whose
	// queues a human has left to this one; empty: none.
	Cluster, Former string
	// Grace is for how long a queue is found without a record, and without a pod that may read it, before it is deleted: a
	// process may live on when its pod is gone.
	Grace time.Duration
}

// sweepPasses is how many sweeps have to find a queue without a record.
const sweepPasses = 2

// SweepVerdict is what becomes of a reply queue that a sweep found.
type SweepVerdict string

const (
	// SweepDelete: nobody owns it and nobody reads it.
	SweepDelete SweepVerdict = "Delete"
	// SweepNotOurs: name or tags say that it is not a reply queue of this cluster.
	SweepNotOurs SweepVerdict = "NotOurs"
	// SweepRecorded: a record stands for it, and the record's life decides (Decide).
	SweepRecorded SweepVerdict = "Recorded"
	// SweepPodLives: no record stands for it, but the pod that may read it exists.
	SweepPodLives SweepVerdict = "PodLives"
	// SweepYoung: it has not been found so for long enough.
	SweepYoung SweepVerdict = "Young"
)

// Sweep says what becomes of one reply queue that was found in SQS. It is total, and only SweepDelete deletes.
//
//	name or tags not of a reply queue of this cluster   never touched
//	a record stands for it                              the record decides
//	its pod exists, and has not ended                   kept until the pod is gone
//	found so for less than the grace, or only once      kept
//	its pod was there less than the grace ago           kept: its process may live
//	otherwise                                           deleted
//
// That no record stands for it proves that none ever will: a record is written before its queue is created, its UID is
// never used again, and the queue was listed before the records were.
func Sweep(o Orphan, t SweepTerms) SweepVerdict {
	switch {
	case !o.NameComputed, o.Kind != v1alpha1.TagKindReply:
		return SweepNotOurs
	case o.Cluster == "", o.Cluster != t.Cluster && o.Cluster != t.Former:
		return SweepNotOurs
	case o.Recorded:
		return SweepRecorded
	case o.PodLives:
		return SweepPodLives
	case o.Passes < sweepPasses, o.Unrecorded < t.Grace, o.Unread < t.Grace:
		return SweepYoung
	default:
		return SweepDelete
	}
}

// Finding is one thing that sweeps have found in a row.
type Finding struct {
	// Key names it.
	Key string
	// Passes is how many sweeps in a row found it, and Since when the first did, by the operator's own clock.
	Passes int
	Since  time.Time
}

// Findings remembers what each sweep found, as long as the next one finds it too. Its only time is what it is given;
// it is memory and nothing more, and after a restart everything is found anew. The zero value is ready.
type Findings struct {
	mu    sync.Mutex
	found map[string]*Finding
}

// See takes in everything that one complete sweep found, and returns it with how long it has been found, longest first.
// What is not in found is forgotten.
func (f *Findings) See(found []string, now time.Time) []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := make(map[string]*Finding, len(found))
	for _, key := range found {
		was := f.found[key]
		if was == nil {
			was = &Finding{Key: key, Since: now}
		}
		if next[key] == nil {
			was.Passes++
			next[key] = was
		}
	}
	f.found = next
	all := make([]Finding, 0, len(next))
	for _, one := range next {
		all = append(all, *one)
	}
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// BrakeMessage says in words why a sweep is held.
func BrakeMessage(total, orphans int) string {
	return fmt.Sprintf("%d of %d reply queues have no record, more than a sweep deletes by itself (%d, or %.0f %%)",
		orphans, total, sweepCount, sweepShare*100)
}
