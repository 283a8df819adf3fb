package model

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// A sweep of reply queues that no record covers. What becomes of each is lifecycle.Sweep's decision; this carries it out
// in the same order and with the same second looks as the operator's sweeper.

const (
	sweepInterval = 30 * time.Second
	sweepGrace    = time.Minute
)

// sweepMistakes are what a mutant's sweeps do wrong.
type sweepMistakes struct {
	// bare: nothing but the order of the lists protects. Queues are deleted when they are first found, and neither their
	// pods nor their records are asked for again.
	bare bool
	// cached reads the records from the cache, swapped lists them before the queues; anyKind and unbraked are what they say.
	cached, swapped, anyKind, unbraked bool
}

// sweep is one pass.
func (op *operator) sweep(ctx context.Context) {
	p, mistakes := op.provider, op.mutant.sweeps
	if op.fence.Check(ctx, p) != nil && !op.mutant.noFence {
		return
	}
	var recorded map[types.UID]bool
	var err error
	if mistakes.swapped {
		if recorded, err = op.recordUIDs(ctx); err != nil {
			return
		}
	}
	names, _, err := p.ListPage(ctx, p.OwnPrefix(), "")
	if err != nil {
		return
	}
	if !mistakes.swapped {
		if recorded, err = op.recordUIDs(ctx); err != nil {
			return
		}
	}
	total := 0
	var orphans []string
	for _, name := range names {
		if !p.IsReplyQueueName(name) {
			continue
		}
		total++
		if !recorded[types.UID(strings.TrimPrefix(name, p.ReplyQueuePrefix()))] {
			orphans = append(orphans, name)
		}
	}
	var doomed []lifecycle.Finding
	for _, f := range op.found.See(orphans, op.clock()) {
		if op.verdict(ctx, p, f) == lifecycle.SweepDelete {
			doomed = append(doomed, f)
		}
	}
	op.held = lifecycle.Braked(total, len(doomed), 0) && !mistakes.unbraked
	if op.held {
		return
	}
	for _, f := range doomed {
		if mistakes.bare || op.verdict(ctx, p, f) == lifecycle.SweepDelete {
			_ = p.DeleteQueueByName(ctx, f.Key) // What fails is found again.
		}
	}
}

// recordUIDs are those of all records, as the API server has them.
func (op *operator) recordUIDs(ctx context.Context) (map[types.UID]bool, error) {
	var all v1alpha1.ReplyQueueList
	if op.mutant.sweeps.cached {
		op.listCached(&all)
	} else if err := (reader{op}).List(ctx, &all); err != nil {
		return nil, err
	}
	uids := map[types.UID]bool{}
	for i := range all.Items {
		uids[all.Items[i].UID] = true
	}
	return uids, nil
}

// verdict looks at one finding: at its tags, its record and its pod.
func (op *operator) verdict(ctx context.Context, p *queue.Provider, f lifecycle.Finding) lifecycle.SweepVerdict {
	terms := lifecycle.SweepTerms{Cluster: clusterUID, Grace: sweepGrace}
	o := lifecycle.Orphan{NameComputed: p.IsReplyQueueName(f.Key), Passes: f.Passes, Unrecorded: op.signals.Clock.Since(f.Since)}
	bare := op.mutant.sweeps.bare
	if bare {
		o.Passes, o.Unrecorded = 2, sweepGrace
	}
	tags, err := p.TagsOf(ctx, f.Key)
	if err != nil {
		return lifecycle.SweepYoung
	}
	o.Kind, o.Cluster = tags[v1alpha1.TagKind], tags[v1alpha1.TagCluster]
	if op.mutant.sweeps.anyKind {
		o.Kind, o.Cluster = v1alpha1.TagKindReply, clusterUID
	}
	if v := lifecycle.Sweep(o, terms); bare || v != lifecycle.SweepDelete {
		return v
	}
	record := &v1alpha1.ReplyQueue{}
	switch err := (reader{op}).Get(ctx, types.NamespacedName{Namespace: tags[v1alpha1.TagNamespace], Name: tags[v1alpha1.TagName]}, record); {
	case err == nil:
		o.Recorded = p.ReplyQueueName(record.UID) == f.Key
	case client.IgnoreNotFound(err) != nil:
		return lifecycle.SweepYoung
	}
	pod := &corev1.Pod{}
	switch err := (reader{op}).Get(ctx, types.NamespacedName{Namespace: tags[v1alpha1.TagPodNamespace], Name: tags[v1alpha1.TagPodName]}, pod); {
	case err == nil:
		o.PodLives = string(pod.UID) == tags[v1alpha1.TagPodUID] || nameOf(pod.Annotations[v1alpha1.AnnotationReplyQueueURL]) == f.Key
	case client.IgnoreNotFound(err) != nil:
		return lifecycle.SweepYoung
	}
	return lifecycle.Sweep(o, terms)
}

// loseRecords removes every record at once, past its finalizer: the kinds were deleted by force, or etcd lost them.
func (w *world) loseRecords() bool {
	if len(w.cluster.now[records]) < 15 || len(w.queues) < 15 {
		return false
	}
	w.trace("all records vanish")
	for _, key := range w.cluster.keysOf(w.cluster.now[records]) {
		r := w.cluster.now[records][key].DeepCopyObject().(*v1alpha1.ReplyQueue)
		w.must(w.cluster.edit(r, func() { r.Finalizers = nil }))
		w.must(client.IgnoreNotFound(w.cluster.remove(r, nil)))
	}
	return true
}
