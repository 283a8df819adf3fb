package model

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
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
	// noFence: nothing keeps a copy of the cluster from deleting. alwaysProven: what was not compared yet, or not for long,
	// may be deleted. watchless: the fence goes by what it sees at once.
	noFence, alwaysProven, watchless bool
	// takesByCaches: a takeover follows from what the caches show. looksAway: what a Lease says that is about to be closed is
	// not compared with what was heard.
	takesByCaches, looksAway bool
	// podRead changes what is read of a pod, from the API server or by a watch.
	podRead func(*corev1.Pod)
	// unlabelledGone: a pod that lost its label is taken for one that is gone.
	unlabelledGone bool
	// keepsCounts: a gap in the view of heartbeats does not begin the counts anew; keepsCountsOverLists: a list does not.
	keepsCounts, keepsCountsOverLists bool
	// heardAt is when a renewal counts as heard.
	heardAt func(lease *coordinationv1.Lease, now time.Time) time.Time
	// queueName is what a reply queue is called instead.
	queueName func(w *world, computed string, tags map[string]string) string
	// identity changes what the fence reads of its ConfigMap.
	identity func(*corev1.ConfigMap)
	// cachedRecord changes what is read of a record.
	cachedRecord func(*operator, *v1alpha1.ReplyQueue)
	// loses says that a pod is not woken.
	loses func(*operator, reconcile.Request) bool
	// create changes what is created, and beforeUpdate what is updated.
	create       func(client.Object)
	beforePatch  func(client.Object, client.Patch) client.Patch
	beforeStatus func(client.Patch, client.Object) client.Patch
	beforeUpdate func(ctx context.Context, op *operator, o client.Object)
}

// mutants are the mistakes that have to be noticed.
var mutants = []mutant{
	{name: "no conditional write: the Lease is closed over a heartbeat", beforeUpdate: func(_ context.Context, _ *operator, o client.Object) {
		if lease, ok := o.(*coordinationv1.Lease); ok {
			lease.ResourceVersion = ""
		}
	}},
	{name: "a Lease is told of its queue whatever version it has", beforePatch: func(o client.Object, p client.Patch) client.Patch {
		if _, ok := o.(*coordinationv1.Lease); !ok {
			return p
		}
		data, err := p.Data(o)
		if err != nil {
			return p
		}
		return client.RawPatch(p.Type(), version.ReplaceAll(data, nil))
	}},
	{name: "a status is written whatever version the record has", beforeStatus: func(p client.Patch, o client.Object) client.Patch {
		data, err := p.Data(o)
		if _, ok := o.(*v1alpha1.ReplyQueue); !ok || err != nil {
			return p
		}
		return client.RawPatch(p.Type(), statusVersion.ReplaceAll(data, nil))
	}},
	{name: "no uncached re-read", readsFromCache: true},
	{name: "a heartbeat that was not delivered yet does not count: the re-read Lease is not compared", looksAway: true},
	{name: "takeover by caches", takesByCaches: true},
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
	{name: "counts kept over a list", keepsCountsOverLists: true},
	{name: "the finalizer does not ask", cachedRecord: func(_ *operator, r *v1alpha1.ReplyQueue) {
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
	{name: "pod garbage collector taken for the kubelet", podRead: func(pod *corev1.Pod) { pod.Status.Conditions = nil }},
	{name: "loss of the label taken for the end of the pod", unlabelledGone: true},
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
	{name: "a record that its name passed over is kept for the pod of that name", decide: func(o lifecycle.Observation, now time.Time) lifecycle.Decision {
		o.Successor, o.Forsaken = o.Successor || o.Forsaken, false
		return lifecycle.Decide(o, now)
	}},
	{name: "sweep: cached list of records", sweeps: sweepMistakes{cached: true}},
	{name: "sweep: records listed before queues", sweeps: sweepMistakes{swapped: true}},
	{name: "sweep: the record is not looked for again", sweeps: sweepMistakes{blind: true}},
	{name: "sweep: pods are not looked for", sweeps: sweepMistakes{podless: true}},
	{name: "sweep: successors are not looked for", sweeps: sweepMistakes{heirless: true}},
	{name: "sweep: any pod of the name keeps a queue", sweeps: sweepMistakes{namesakes: true}},
	{name: "sweep: a pod reads what its Lease names, heard or not", sweeps: sweepMistakes{hasty: true}},
	{name: "sweep: of any kind and any cluster", sweeps: sweepMistakes{anyKind: true}},
	{name: "sweep: brake removed", sweeps: sweepMistakes{unbraked: true}},
	{name: "sweep: another account's lists are believed", noFence: true, sweeps: sweepMistakes{accountless: true}},
	{name: "fence removed: a copy of the cluster deletes what it takes for its own", noFence: true},
	{name: "no watch: a copy goes by what SQS shows it first", watchless: true},
	{name: "fence: a marker that is gone is anybody's", identity: forgetful},
	{name: "fence: always proven, before the first comparison and long after the last", alwaysProven: true},
	{name: "a forged closing of a Lease is believed: its ID is not compared", cachedRecord: func(op *operator, r *v1alpha1.ReplyQueue) {
		if id := op.signals.Heartbeats.Hear(readerOf(r), op.clock()).Annotations[heartbeat.AnnotationClosingID]; id != "" && r.Status.Closing == nil {
			r.Status.ClosingIDHash = fmt.Sprintf("%x", sha256.Sum256([]byte(id)))
		}
	}},
	{name: "records without a finalizer", create: func(o client.Object) {
		if _, ok := o.(*v1alpha1.ReplyQueue); ok {
			o.SetFinalizers(nil)
		}
	}},
	{name: "closing undone by the next reconcile", cachedRecord: func(_ *operator, r *v1alpha1.ReplyQueue) { r.Status.Closing = nil }},
	{name: "a pod at its gate is not woken by its queue", loses: func(op *operator, r reconcile.Request) bool {
		pod, ok := op.views[pods].objects[r.NamespacedName].(*corev1.Pod)
		return ok && len(pod.Spec.SchedulingGates) > 0 && op.hasQueue(pod)
	}},
	{name: "pods that lost their label unseen are not looked for", loses: func(_ *operator, r reconcile.Request) bool { return r.Name == "" }},
	{name: "DeleteQueue before closing is written", beforeUpdate: func(ctx context.Context, op *operator, o client.Object) {
		deleteFirst(ctx, op, o)
	}},
}

// version is the version that a patch is made over, and statusVersion that of a status.
var (
	version       = regexp.MustCompile(`,"resourceVersion":"[0-9]*"`)
	statusVersion = regexp.MustCompile(`"metadata":{"resourceVersion":"[0-9]*"},?`)
)

// calledFrom says that a function of that name is being executed: some mistakes are those of one function alone. A name
// that there is none of makes no mistake, which is then not noticed, and that is.
func calledFrom(name string) bool {
	callers := make([]uintptr, 12)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "."+name) {
			return true
		}
		if !more {
			return false
		}
	}
}

// asHeard is a Lease with the renewal that the listener heard of last.
func (op *operator) asHeard(lease *coordinationv1.Lease) {
	for _, ch := range slices.Backward(op.cluster.log[leases][:min(op.leases.at, len(op.cluster.log[leases]))]) {
		if heard := ch.object.(*coordinationv1.Lease); heard.Name == lease.Name && !ch.gone {
			lease.Spec = *heard.Spec.DeepCopy()
			return
		}
	}
}

// hasQueue says that the cache shows a queue that the pod reads.
func (op *operator) hasQueue(pod *corev1.Pod) bool {
	for _, o := range op.views[records].objects {
		if r := o.(*v1alpha1.ReplyQueue); readerOf(r) == pod.UID && r.Status.QueueURL != "" {
			return true
		}
	}
	return false
}

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
