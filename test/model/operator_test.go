package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}()

func setOf(o client.Object) labels.Set { return o.GetLabels() }

// watched are the kinds that an operator watches through its cache.
var watched = []kind{pods, records, hosts, channels, providers, spaces}

// operator is one process of the operator that leads, or believes that it does: the real reconcilers with their real
// event handlers, a cache that is as old as the script wants, and a listener to heartbeats. It remembers nothing of an
// earlier process.
type operator struct {
	world   *world
	cluster *cluster
	id      int
	mutant  mutant
	ctx     context.Context
	cancel  context.CancelFunc

	views       map[kind]*view
	handlers    map[kind][]toolscache.ResourceEventHandler
	controllers []*workers
	signals     *controller.Signals
	tasks       []*task
	// deposed says that another leads: what it still does, it does without knowing.
	deposed bool
	// paused says that the process gets no time; cut that it does not reach the API server.
	paused, cut bool
	// deaf says that its watch of records hangs.
	deaf bool
	// dead says that the process is gone.
	dead bool

	// The listener: where its watch is, whether it has its list, when it renews its beacon next and whether it is at it.
	leases         *view
	listed         bool
	nextBeacon     time.Duration
	beaconing      bool
	outage, policy bool
	// The fence, when it compares next, and whether it or the sweeper is at work.
	fence     *fence.Fence
	nextCheck time.Duration
	guarding  bool
	// The sweeper: when it sweeps next, what it found, and whether its brake holds.
	provider  *queue.Provider
	nextSweep time.Duration
	found     lifecycle.Findings
	held      bool
}

// workers are one controller: its reconciler and its queue.
type workers struct {
	name  string
	do    reconcile.Reconciler
	queue *requests
}

// concurrency is that of the controllers.
const concurrency = 8

// newOperator starts a process that leads: its caches list, and every object is an event.
func (w *world) newOperator(c *cluster) *operator {
	w.operators++
	op := &operator{
		world: w, cluster: c, id: w.operators, mutant: w.mutant, views: map[kind]*view{},
		handlers: map[kind][]toolscache.ResourceEventHandler{}, leases: &view{}, nextBeacon: w.now, policy: true,
	}
	op.ctx, op.cancel = context.WithCancel(context.Background())
	for _, k := range watched {
		op.views[k] = &view{}
		op.views[k].list(c, k, optedIn)
	}
	clk := clock{now: func() time.Duration { return w.now }, skew: &w.operatorSkew}
	op.signals = &controller.Signals{
		Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Guarded: w.isGuarded, Clock: clk,
		Decide: op.mutant.decide,
	}
	provider := &queue.Provider{
		Name: v1alpha1.DefaultProviderName, Region: "us-east-1", Prefix: "rq", Cluster: "c", ClusterUID: clusterUID, API: wire{op: op},
	}
	op.newGuards(provider)
	providers := only{provider}
	k := kube{op: op}
	said := &silent{}
	m := &fakeManager{op: op}
	for _, r := range []interface{ SetupWithManager(ctrl.Manager) error }{
		&controller.PodReconciler{Client: k, Reader: reader{op}, Recorder: said, Providers: providers, Signals: op.signals},
		&controller.ReplyHostReconciler{Client: k, Recorder: said, Providers: providers, Signals: op.signals},
		&controller.ReplyQueueReconciler{Client: k, Reader: reader{op}, Recorder: said, Providers: providers, Signals: op.signals, ClusterUID: clusterUID},
	} {
		if err := r.SetupWithManager(m); err != nil {
			panic(err)
		}
	}
	for _, r := range m.added {
		w.must(r.Warmup(op.ctx))
	}
	for _, kind := range watched {
		for _, key := range op.cluster.keysOf(op.views[kind].objects) {
			for _, h := range op.handlers[kind] {
				h.OnAdd(op.views[kind].objects[key], true)
			}
		}
	}
	return op
}

// only is a queue.Providers with one provider, open to all.
type only struct{ *queue.Provider }

func (p only) Get(_ context.Context, name, _ string) (*queue.Provider, error) {
	if name != v1alpha1.DefaultProviderName {
		return nil, queue.ErrProviderNotFound
	}
	return p.Provider, nil
}

func (p only) ForDeletion(ctx context.Context, name string) (*queue.Provider, error) {
	return p.Get(ctx, name, "")
}

// silent is a recorder that keeps nothing.
type silent struct{ events.EventRecorder }

func (*silent) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// optedIn says whether the operator's cache holds an object: of pods, only those that opted in.
func optedIn(o client.Object) bool {
	pod, ok := o.(*corev1.Pod)
	return !ok || pod.Labels[v1alpha1.LabelInject] != ""
}

// indexed says whether one of the cache's indexes finds an object.
func (op *operator) indexed(o client.Object, selector fields.Selector) bool {
	r := selector.Requirements()[0]
	return slices.Contains(indexes[r.Field](o), r.Value)
}

var indexes = func() indexFunctions {
	all := indexFunctions{}
	if err := controller.IndexLifecycle(context.Background(), all); err != nil {
		panic(err)
	}
	return all
}()

type indexFunctions map[string]client.IndexerFunc

func (i indexFunctions) IndexField(_ context.Context, _ client.Object, name string, f client.IndexerFunc) error {
	i[name] = f
	return nil
}

// unreachable says that the API server does not answer this process.
func (op *operator) unreachable() bool { return op.world.down || op.cut }

// behind says that there are events of a kind that were not delivered.
func (op *operator) behind(k kind) bool {
	return !op.unreachable() && !(op.deaf && k == records) && op.views[k].at < len(op.cluster.log[k])
}

// deliver hands the next event of a kind to the cache and to the handlers.
func (op *operator) deliver(k kind) {
	v := op.views[k]
	ch := op.cluster.log[k][v.at]
	v.at++
	op.see(k, ch.object, ch.gone, false)
}

// see brings the cache to one object's new state. A pod that lost its label leaves as one that is gone does: the watch
// selects by it.
func (op *operator) see(k kind, o client.Object, gone, missed bool) {
	v, key := op.views[k], client.ObjectKeyFromObject(o)
	had := v.objects[key]
	gone = gone || !optedIn(o)
	if had != nil && (gone || had.GetUID() != o.GetUID()) {
		delete(v.objects, key)
		var last any = had
		if missed {
			last = toolscache.DeletedFinalStateUnknown{Key: key.String(), Obj: had}
		} else if o.GetUID() == had.GetUID() && optedIn(o) {
			last = o
		}
		for _, h := range op.handlers[k] {
			h.OnDelete(last)
		}
		had = nil
	}
	if gone {
		return
	}
	v.objects[key] = o
	for _, h := range op.handlers[k] {
		if had == nil {
			h.OnAdd(o, false)
		} else {
			h.OnUpdate(had, o)
		}
	}
}

// relist is a watch that broke and was replaced by a list: what happened between is never seen.
func (op *operator) relist(k kind) {
	v := op.views[k]
	for _, key := range op.cluster.keysOf(v.objects) {
		if now := op.cluster.now[k][key]; now == nil || now.GetUID() != v.objects[key].GetUID() || !optedIn(now) {
			op.see(k, v.objects[key], true, true)
		}
	}
	for _, key := range op.cluster.keysOf(op.cluster.now[k]) {
		now := op.cluster.now[k][key]
		if had := v.objects[key]; optedIn(now) && (had == nil || had.GetResourceVersion() != now.GetResourceVersion()) {
			op.see(k, now, false, false)
		}
	}
	v.at = len(op.cluster.log[k])
}

// listenable says that the listener has something to hear.
func (op *operator) listenable() bool {
	return !op.unreachable() && (!op.listed || op.leases.at < len(op.cluster.log[leases]))
}

// listen hands the ledger the next event of Leases, or the list with which it begins.
func (op *operator) listen() {
	if !op.listed {
		op.relistLeases()
		return
	}
	ch := op.cluster.log[leases][op.leases.at]
	op.leases.at++
	lease := ch.object.(*coordinationv1.Lease)
	if ch.gone {
		op.notify(op.signals.Heartbeats.Remove(types.UID(lease.Name), op.clock()))
		return
	}
	at := op.clock()
	if op.mutant.heardAt != nil && lease.Name != heartbeat.BeaconName {
		at = op.mutant.heardAt(lease, at)
	}
	op.notify(op.signals.Heartbeats.Apply(lease.DeepCopy(), at))
}

func (op *operator) relistLeases() {
	op.listed = true
	op.leases.at = len(op.cluster.log[leases])
	var all []*coordinationv1.Lease
	each(op.cluster, leases, func(l *coordinationv1.Lease) { all = append(all, l.DeepCopy()) })
	if op.mutant.keepsCounts && op.leases.objects != nil {
		for _, l := range all {
			op.notify(op.signals.Heartbeats.Apply(l, op.clock()))
		}
		return
	}
	op.leases.objects = map[types.NamespacedName]client.Object{}
	op.notify(op.signals.Heartbeats.Replace(all, op.clock()))
}

func (op *operator) clock() time.Time { return op.signals.Clock.Now() }

// notify does with notices what the operator's wiring does: it wakes the pod and the records that it reads. The ledger
// gives them in the order of a map; pods wake in the order in which they came.
func (op *operator) notify(notices []heartbeat.Notice) {
	slices.SortFunc(notices, func(a, b heartbeat.Notice) int { return op.world.rank(a.UID) - op.world.rank(b.UID) })
	for _, n := range notices {
		for _, key := range op.cluster.keysOf(op.views[records].objects) {
			if record := op.views[records].objects[key].(*v1alpha1.ReplyQueue); readerOf(record) == n.UID {
				op.queue("replyqueue").Add(reconcile.Request{NamespacedName: key})
			}
		}
		if n.Pod.Name != "" {
			op.queue("pod").Add(reconcile.Request{NamespacedName: n.Pod})
		}
	}
}

func readerOf(record *v1alpha1.ReplyQueue) types.UID {
	if record.Status.PodUID != "" {
		return types.UID(record.Status.PodUID)
	}
	return types.UID(record.Spec.PodRef.UID)
}

func (op *operator) queue(name string) *requests {
	for _, c := range op.controllers {
		if c.name == name {
			return c.queue
		}
	}
	panic("no controller " + name)
}

// tick is a second of the listener's: it looks at the counts, and renews the beacon when that is due.
func (op *operator) tick() {
	if op.paused {
		return
	}
	op.notify(op.signals.Heartbeats.Tick(op.clock()))
	if o, g := op.signals.Heartbeats.Outage(), op.world.isGuarded(); o != op.outage || g != op.policy {
		op.outage, op.policy = o, g
		for _, key := range op.cluster.keysOf(op.views[hosts].objects) {
			op.queue("replyhost").Add(reconcile.Request{NamespacedName: key})
		}
	}
	if op.mutant.keepsCounts {
		op.world.beacons++
		op.signals.Heartbeats.Apply(op.world.beacon(), op.clock())
	}
	op.guard()
	if op.beaconing || op.world.now < op.nextBeacon {
		return
	}
	op.beaconing, op.nextBeacon = true, op.world.now+heartbeat.BeaconInterval
	op.start("beacon", op.renewBeacon, func() { op.beaconing = false })
}

func (op *operator) renewBeacon(ctx context.Context) {
	op.world.beacons++
	lease := op.world.beacon()
	k := kube{op: op}
	patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, lease.Spec.RenewTime.UTC().Format(metav1.RFC3339Micro))
	target := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: lease.Namespace, Name: lease.Name}}
	if err := k.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch)); apierrors.IsNotFound(err) {
		_ = k.Create(ctx, lease)
	}
}

// beacon is the operator's own Lease, renewed.
func (w *world) beacon() *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName,
			Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator},
		},
		Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(epoch.Add(time.Duration(w.beacons) * time.Microsecond)))},
	}
}

// reconcile starts the reconcile of the nth request of a controller that is ready.
func (op *operator) reconcile(c *workers, n int) {
	request := c.queue.take(n)
	var result reconcile.Result
	var err error
	knew := false
	if c.name == "replyqueue" {
		if record, ok := op.views[records].objects[request.NamespacedName].(*v1alpha1.ReplyQueue); ok {
			knew = record.Status.QueueURL != "" && record.Status.Closing == nil
		}
	}
	op.startKnowing(c.name+" "+request.Name, knew,
		func(ctx context.Context) { result, err = c.do.Reconcile(ctx, request) },
		func() {
			switch {
			case err != nil:
				c.queue.AddRateLimited(request)
			default:
				c.queue.Forget(request)
				if result.RequeueAfter > 0 {
					c.queue.AddAfter(request, result.RequeueAfter)
				}
			}
			c.queue.Done(request)
		})
}

// running is how many reconciles of a controller are under way.
func (op *operator) running(c *workers) int { return len(c.queue.processing) }
