package model

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
)

// mutant is one deliberate mistake, made around the operator's code rather than in it. The zero mutant makes none.
type mutant struct {
	name string
	// decide takes the place of lifecycle.Decide.
	decide func(lifecycle.Observation, time.Time) lifecycle.Decision
	// readsFromCache and listsFromCache: what is to be read from the API server comes from the cache.
	readsFromCache, listsFromCache bool
	// sweeps are the mistakes of its sweeps.
	sweeps sweepMistakes
	// noFence: nothing keeps a copy of the cluster from deleting.
	noFence bool
	// keepsCounts: a gap in the view of heartbeats does not begin the counts anew.
	keepsCounts bool
	// heardAt is when a renewal counts as heard.
	heardAt func(lease *coordinationv1.Lease, now time.Time) time.Time
	// queueName is what a reply queue is called instead.
	queueName func(w *world, computed string, tags map[string]string) string
	// cachedRecord changes what is read of a record.
	cachedRecord func(*v1alpha1.ReplyQueue)
	// create changes what is created, and beforeUpdate what is updated.
	create       func(client.Object)
	beforeUpdate func(ctx context.Context, op *operator, o client.Object)
}

// mutants are the mistakes that have to be noticed.
var mutants = []mutant{
	{name: "no conditional write: the Lease is closed over a heartbeat", beforeUpdate: func(_ context.Context, _ *operator, o client.Object) {
		if lease, ok := o.(*coordinationv1.Lease); ok {
			lease.ResourceVersion = ""
		}
	}},
	{name: "no uncached re-read", readsFromCache: true},
	{name: "names reused: queues are called by their pods", queueName: func(w *world, computed string, tags map[string]string) string {
		if tags[v1alpha1.TagKind] == v1alpha1.TagKindReply {
			w.alias[computed] = "rq_c_r_" + tags[v1alpha1.TagPodName]
		}
		if name := w.alias[computed]; name != "" {
			return name
		}
		return computed
	}},
	{name: "clocks compared: silence is counted from renewTime", heardAt: func(lease *coordinationv1.Lease, now time.Time) time.Time {
		if lease.Spec.RenewTime == nil {
			return now
		}
		return lease.Spec.RenewTime.Time
	}},
	{name: "counts kept over a gap", keepsCounts: true},
	{name: "the finalizer does not ask", cachedRecord: func(r *v1alpha1.ReplyQueue) {
		if r.DeletionTimestamp != nil && r.Status.Closing == nil {
			r.Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.ClosePodGone}
		}
	}},
	{name: "brake removed: an outage of heartbeats holds nothing", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		o.Heartbeat.Outage = false
		return lifecycle.Decide(o, now)
	}},
	{name: "brake removed: a missing policy holds nothing", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		o.Heartbeat.Guarded = true
		return lifecycle.Decide(o, now)
	}},
	{name: "no safe time after a force delete", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		if o.Pod == lifecycle.PodGone {
			o.Pod = lifecycle.PodStopped
		}
		return lifecycle.Decide(o, now)
	}},
	{name: "terminating taken for stopped", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		if o.Pod == lifecycle.PodTerminating {
			o.Pod = lifecycle.PodStopped
		}
		return lifecycle.Decide(o, now)
	}},
	{name: "unknown taken for gone", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		if o.Pod == lifecycle.PodPresent && !o.Heartbeat.Counting && o.Terms.Mode == v1alpha1.HeartbeatLease && o.Terms.Identity == v1alpha1.IdentityPod {
			o.Heartbeat.Counting = true
		}
		return lifecycle.Decide(o, now)
	}},
	{name: "sweep: cached list of records", sweeps: sweepMistakes{bare: true, cached: true}},
	{name: "sweep: records listed before queues", sweeps: sweepMistakes{bare: true, swapped: true}},
	{name: "sweep: of any kind and any cluster", sweeps: sweepMistakes{anyKind: true}},
	{name: "sweep: brake removed", sweeps: sweepMistakes{bare: true, unbraked: true}},
	{name: "fence removed: a copy of the cluster deletes what it takes for its own", noFence: true},
	{name: "records without a finalizer", create: func(o client.Object) {
		if _, ok := o.(*v1alpha1.ReplyQueue); ok {
			o.SetFinalizers(nil)
		}
	}},
	{name: "closing undone by the next reconcile", cachedRecord: func(r *v1alpha1.ReplyQueue) { r.Status.Closing = nil }},
	{name: "DeleteQueue before closing is written", beforeUpdate: func(ctx context.Context, op *operator, o client.Object) {
		deleteFirst(ctx, op, o)
	}},
}

// careless makes no mistake, but its sweeps have nothing to fall back on: that it breaks nothing shows that the order of
// the lists and the brake protect by themselves, and that the mutants which it is the ground of are noticed for their
// own mistakes.
var careless = mutant{name: "sweeps without second looks", sweeps: sweepMistakes{bare: true}}

// deleteFirst deletes the queue of the record that is about to be closed.
func deleteFirst(ctx context.Context, op *operator, o client.Object) {
	lease, ok := o.(*coordinationv1.Lease)
	if !ok {
		return
	}
	name := "rq_c_r_" + lease.Annotations[heartbeat.AnnotationRecord]
	if op.world.queues[name] != nil {
		_ = op.provider.DeleteQueueByName(ctx, name)
	}
}

func requestFor(key types.NamespacedName) reconcile.Request {
	return reconcile.Request{NamespacedName: key}
}
