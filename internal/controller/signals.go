package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// Signals is what the controllers of the lifecycle share: what they have seen of pods over time, and of heartbeats.
type Signals struct {
	// Pods remembers pods by the operator's own clock.
	Pods *lifecycle.Sightings
	// Heartbeats counts silence.
	Heartbeats *heartbeat.Ledger
	// Guarded says that the admission policy which guards heartbeats is in place.
	Guarded func() bool
	// Clock is the operator's own.
	Clock clock.PassiveClock
	// Decide says what becomes of a reply queue; nil: lifecycle.Decide. The model test puts mistakes in its place, and
	// expects to see them noticed.
	Decide func(lifecycle.Observation, time.Time) lifecycle.Decision

	missing sync.Map // types.UID of records whose queue a sweep did not find
}

func (s *Signals) decide(o lifecycle.Observation, now time.Time) lifecycle.Decision {
	if s.Decide != nil {
		return s.Decide(o, now)
	}
	return lifecycle.Decide(o, now)
}

// Indexes of the manager's cache.
const (
	// indexReader finds ReplyQueues by the UID of the pod that reads them.
	indexReader = "replyqueue.dev/reader"
	// indexHost finds ReplyQueues by their ReplyHost.
	indexHost = "replyqueue.dev/host"
	// indexChannels finds pods by the RequestChannels they name, as "namespace/name".
	indexChannels = "replyqueue.dev/channels-named"
	// indexPodHost finds pods by the ReplyHost they name.
	indexPodHost = "replyqueue.dev/host-named"
)

// IndexLifecycle adds the indexes that the controllers of pods, ReplyHosts and ReplyQueues look things up by.
func IndexLifecycle(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		object client.Object
		name   string
		values client.IndexerFunc
	}{
		{&v1alpha1.ReplyQueue{}, indexReader, func(o client.Object) []string {
			return []string{string(readerOf(o.(*v1alpha1.ReplyQueue)))}
		}},
		{&v1alpha1.ReplyQueue{}, indexHost, func(o client.Object) []string {
			return []string{o.(*v1alpha1.ReplyQueue).Spec.HostRef.Name}
		}},
		{&corev1.Pod{}, indexChannels, func(o client.Object) []string { return channelsNamedBy(o.(*corev1.Pod)) }},
		{&corev1.Pod{}, indexPodHost, func(o client.Object) []string {
			if host := o.GetAnnotations()[v1alpha1.AnnotationReplyHost]; host != "" {
				return []string{host}
			}
			return nil
		}},
	} {
		if err := indexer.IndexField(ctx, index.object, index.name, index.values); err != nil {
			return err
		}
	}
	return nil
}

// readerOf is the UID of the pod that reads a reply queue now.
func readerOf(record *v1alpha1.ReplyQueue) types.UID {
	if record.Status.PodUID != "" {
		return types.UID(record.Status.PodUID)
	}
	return types.UID(record.Spec.PodRef.UID)
}

// terms are the times a record lives by now: its ReplyHost's, but none shorter than what its reader can know of.
func (s *Signals) terms(record *v1alpha1.ReplyQueue, host *v1alpha1.ReplyHost, now time.Time) lifecycle.Terms {
	heard := s.Heartbeats.Hear(readerOf(record), now)
	pace := heard.Pace
	if !heard.PaceKnown {
		pace = max(pace, lifecycle.TermsOf(record, nil).Interval)
	}
	return lifecycle.TermsOf(record, host).NoFasterThan(pace)
}

// view is the operator's view of the cluster: the one that heartbeats are counted in, since their watch shows that the API
// server is there and is what it was.
func (s *Signals) view(now time.Time) lifecycle.View {
	since, continuous := s.Heartbeats.View(now)
	return lifecycle.View{Since: since, Continuous: continuous}
}

// open says that a record may still be read: it is not closed.
func open(record *v1alpha1.ReplyQueue) bool { return record.Status.Closing == nil }

// closedByLease says that a Lease with these annotations was marked closing for this record, by an operator that had
// announced it on the record: the first half of closing it, after which the second has to follow. Another's mark proves
// nothing: where the policy that guards heartbeats is missing, or was, any pod can have set it.
func closedByLease(record *v1alpha1.ReplyQueue, annotations map[string]string) bool {
	return annotations[injected.LeaseState] == injected.LeaseStateClosing &&
		annotations[heartbeat.AnnotationRecord] == string(record.UID) &&
		hashOfID(annotations[heartbeat.AnnotationClosingID]) == record.Status.ClosingIDHash
}

// hashOfID is what a record announces of an ID.
func hashOfID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// soonest is the earlier of two times to look again; 0 is never.
func soonest(a, b time.Duration) time.Duration {
	switch {
	case a <= 0:
		return b
	case b <= 0:
		return a
	default:
		return min(a, b)
	}
}

// ignoreConflict treats a write refused by a newer version as done: the newer version is on its way to the cache, and
// brings the object back.
func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}
