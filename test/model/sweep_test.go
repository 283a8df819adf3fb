package model

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
)

// The sweeper is the operator's own, put on the model's API server and SQS. What it does wrong in a mutant, it is given
// wrong answers for.

const (
	sweepInterval = 30 * time.Second
	sweepGrace    = time.Minute
)

// sweepMistakes are what a mutant's sweeps do wrong.
type sweepMistakes struct {
	// cached reads the records from the cache; swapped knows them from before the queues were listed.
	cached, swapped bool
	// blind does not find the record that a queue's tags name, and podless not the pod. heirless finds that pod alone, and
	// namesakes takes any pod of its name for it.
	blind, podless, heirless, namesakes bool
	// hasty takes every application for one that has heartbeated since the last sweep.
	hasty bool
	// anyKind, unbraked and accountless (the account of what is missing is not compared) are what they say.
	anyKind, unbraked, accountless bool
}

// pass is one sweep, as the world saw it.
type pass struct {
	// before are the records when it began.
	before client.ObjectList
	// listed are the names of reply queues that SQS told it of, and deleted how many of them it has deleted.
	listed  []string
	deleted int
	// stale says that it was given an old list of records.
	stale bool
}

// newSweeper gives the process its sweeper.
func (op *operator) newSweeper() {
	op.swept = prometheus.NewRegistry()
	op.sweeper = &sweep.Sweeper{
		Client: sweepersClient{kube{op: op}}, Reader: sweepersReader{reader{op}}, Providers: only{op.provider}, InUse: inUse,
		Fence: sweepersFence{op.fence, op}, ClusterUID: clusterUID, Clock: timeless{clock: op.signals.Clock.(clock)},
		Interval: sweepInterval, Grace: sweepGrace, Metrics: sweep.NewMetrics(op.swept),
		Missing: func(_ context.Context, record types.NamespacedName, uid types.UID) {
			op.doubted[string(uid)]++
			op.signals.QueueMissing(uid)
			op.queue("replyqueue").Add(reconcile.Request{NamespacedName: record})
		},
	}
}

func inUse(context.Context) ([]string, error) { return []string{v1alpha1.DefaultProviderName}, nil }

// sweep is one pass. The first list of queues that every pass begins with is the list that it is judged by.
func (op *operator) sweep(ctx context.Context) {
	p := &pass{}
	if op.mutant.sweeps.swapped {
		p.before = &v1alpha1.ReplyQueueList{}
		op.must(op.cluster.server.List(context.Background(), p.before))
	}
	err := op.sweeper.Pass(context.WithValue(ctx, passKey{}, p))
	if err == nil && op.cluster == op.world.cluster {
		op.world.judgePass(op, p)
	}
}

type passKey struct{}

func passOf(ctx context.Context) *pass {
	p, _ := ctx.Value(passKey{}).(*pass)
	return p
}

// judgePass holds a sweep to what it says, that so many reply queues have no record. A record's UID never comes again, so
// a queue that has one now had one, or was none yet, when it was listed; unless etcd was set back meanwhile.
func (w *world) judgePass(op *operator, p *pass) {
	bare := 0
	for _, name := range p.listed {
		if !w.recordedName(name) {
			bare++
		}
	}
	if said := op.orphans(); said > bare && !w.setBackSince(op.sweepBegan) && !p.stale {
		w.violate("P2", "a sweep takes %d reply queues for orphans, and %d of those that it listed have no record", said, bare)
	}
}

// orphans are the reply queues without a record that the last sweep says there are.
func (op *operator) orphans() int {
	families, err := op.swept.Gather()
	op.must(err)
	for _, f := range families {
		if f.GetName() == "replyqueue_sweep_orphans" {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	return 0
}

// sweptAway judges the brake: a sweep that deletes more than ten reply queues, and more than a fifth of those there are, was
// allowed to by a person.
func (w *world) sweptAway(p *pass) {
	p.deleted++
	w.happened["swept away"]++
	if p.deleted > 10 && p.deleted*5 > len(p.listed) && p.deleted > w.allowed {
		w.violate("P3", "a sweep deletes %d of %d reply queues, and nobody allowed it", p.deleted, len(p.listed))
	}
}

// sweepersReader reads from the API server.
type sweepersReader struct{ reader }

func (r sweepersReader) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if all, ok := into.(*v1alpha1.ReplyQueueList); ok {
		mistakes, world := r.op.mutant.sweeps, r.op.world
		switch {
		case mistakes.cached:
			r.op.listCached(into, options...)
			return nil
		case mistakes.swapped:
			passOf(ctx).before.(*v1alpha1.ReplyQueueList).DeepCopyInto(all)
			return nil
		case world.staleLists && r.op.cluster == world.cluster:
			old := world.cluster.asOf(records, world.staleAt, func(client.Object) bool { return true })
			_, err := ask(ctx, r.op, &call{verb: "list ReplyQueue"}, func(*call) (struct{}, error) {
				if r.op.unreachable() {
					return struct{}{}, errUnreachable
				}
				passOf(ctx).stale = true
				list(into, old.objects, func(client.Object) bool { return true })
				return struct{}{}, nil
			})
			return err
		}
	}
	err := r.reader.List(ctx, into, options...)
	if all, ok := into.(*coordinationv1.LeaseList); ok && r.op.mutant.sweeps.hasty {
		for i := range all.Items {
			all.Items[i].Spec.RenewTime = ptr.To(metav1.NewMicroTime(epoch.Add(r.op.world.now)))
		}
	}
	return err
}

func (r sweepersReader) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if r.op.hides(into) {
		return apierrors.NewNotFound(resourceOf(kindOf(into)), key.Name)
	}
	return r.op.mistaken(r.reader.Get(ctx, key, into, options...), into)
}

// sweepersClient reads from the cache, and writes.
type sweepersClient struct{ kube }

func (c sweepersClient) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if c.op.hides(into) {
		return apierrors.NewNotFound(resourceOf(kindOf(into)), key.Name)
	}
	return c.op.mistaken(c.kube.Get(ctx, key, into, options...), into)
}

// mistaken is a pod as a mutant's sweeper sees it.
func (op *operator) mistaken(err error, o client.Object) error {
	pod, ok := o.(*corev1.Pod)
	if !ok || err != nil {
		return err
	}
	for _, q := range op.world.queues {
		if q.podName != pod.Name || op.world.recorded(q) {
			continue
		}
		switch {
		case op.mutant.sweeps.heirless && q.stable && q.pod != string(pod.UID):
			return apierrors.NewNotFound(resourceOf(pods), pod.Name)
		case op.mutant.sweeps.namesakes && !q.stable && q.pod != string(pod.UID):
			pod.UID = types.UID(q.pod)
			return nil
		}
	}
	return nil
}

// hides says that a mutant's sweeper does not look for such an object.
func (op *operator) hides(o client.Object) bool {
	switch o.(type) {
	case *v1alpha1.ReplyQueue:
		return op.mutant.sweeps.blind
	case *corev1.Pod:
		return op.mutant.sweeps.podless
	}
	return false
}

// sweepersFence is the fence, unless a mutant has none or no brake.
type sweepersFence struct {
	sweep.Fence
	op *operator
}

func (f sweepersFence) Check(ctx context.Context, p *queue.Provider) error {
	if f.op.mutant.noFence {
		return nil
	}
	return f.Fence.Check(ctx, p)
}

func (f sweepersFence) Allowance(ctx context.Context, provider string) (int, error) {
	if f.op.mutant.sweeps.unbraked {
		return 1000, nil
	}
	return f.Fence.Allowance(ctx, provider)
}

// tagsFor are a queue's tags as a sweep is told them.
func (op *operator) tagsFor(ctx context.Context, out *sqs.ListQueueTagsOutput) *sqs.ListQueueTagsOutput {
	if out == nil || passOf(ctx) == nil || !op.mutant.sweeps.anyKind {
		return out
	}
	changed := *out
	changed.Tags = map[string]string{}
	maps.Copy(changed.Tags, out.Tags)
	changed.Tags[v1alpha1.TagKind], changed.Tags[v1alpha1.TagCluster] = v1alpha1.TagKindReply, clusterUID
	return &changed
}

// listedTo notes what a sweep is told of queues.
func (op *operator) listedTo(ctx context.Context, out *sqs.ListQueuesOutput) {
	p := passOf(ctx)
	if p == nil || out == nil {
		return
	}
	for _, url := range out.QueueUrls {
		if name := nameOf(url); op.provider.IsReplyQueueName(name) {
			p.listed = append(p.listed, name)
		}
	}
}

// loseRecord removes a record past its finalizer.
func (w *world) loseRecord(r *v1alpha1.ReplyQueue) {
	w.must(w.cluster.edit(r, func() { r.Finalizers = nil }))
	w.must(client.IgnoreNotFound(w.cluster.remove(r, nil)))
}

// crowd is how many pods there are at least when what happens is to happen to many: more than a brake lets a sweep delete,
// and than may fall silent at once.
const crowd = 16

// loseEverything removes by force what more than a brake lets a sweep delete: all records past their finalizers, and all
// pods.
func (w *world) loseEverything(random *rand.Rand) bool {
	if w.down || w.elsewhere || w.leader == nil || w.hostNamed(0) == nil {
		return false
	}
	w.gather(len(w.cluster.now[pods]))
	all := func() bool { return len(w.cluster.now[records]) >= crowd-1 && len(w.queues) >= crowd-1 }
	if !w.until(time.Minute, random, all) {
		return false
	}
	w.trace("all records and pods are removed by force")
	for _, key := range w.cluster.keysOf(w.cluster.now[records]) {
		w.loseRecord(w.cluster.now[records][key].DeepCopyObject().(*v1alpha1.ReplyQueue))
	}
	for _, p := range w.pods {
		if o := w.object(p); o != nil {
			w.must(w.cluster.remove(o, nil, client.GracePeriodSeconds(0)))
		}
	}
	return true
}

// gather creates pods until there is a crowd, of which so many are there already.
func (w *world) gather(there int) {
	for i := 0; there < crowd; i++ {
		if name := fmt.Sprintf("web-%d", i); w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] == nil {
			w.must(w.create(name, "web", v1alpha1.HeartbeatLease, false))
			w.trace("pod %s is created in a crowd", w.pods[len(w.pods)-1])
			there++
		}
	}
}

// startAll starts what may start, and has kubelets report it.
func (w *world) startAll() {
	for _, p := range w.pods {
		if p.exists() && p.open && !p.bound && !p.terminating {
			w.bind(p)
		}
		if p.exists() && reachable(p) && p.process != nil && p.process.alive && p.reported != "running" {
			w.must(w.report(p, corev1.PodRunning))
		}
	}
}

// recordedName says that a record stands for the queue of that name.
func (w *world) recordedName(name string) bool {
	for _, o := range w.cluster.now[records] {
		if strings.HasSuffix(name, "_"+string(o.GetUID())) {
			return true
		}
	}
	return false
}
