package model

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
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
	// deaf are the kinds of which its watch hangs.
	deaf map[kind]bool
	// markerLate is by how much SQS shows it the marker late.
	markerLate time.Duration
	// dead says that the process is gone.
	dead bool

	// massUntil is when heartbeats were last lost on such a scale that the silence of no pod means anything to it.
	massUntil time.Duration
	// doubted are the records whose queue the sweeper did not find: how often it said so, and nobody has asked since.
	doubted map[string]int

	// broken are the kinds whose watch has to be replaced by a list.
	broken map[kind]bool

	// The listener of heartbeats: where its watch is, whether it has its list, and since when its view has no gap. It runs
	// one second at a time; beacon is the renewal that it is at, and beaconSince since when. notices are to be passed on.
	listener   *heartbeat.Listener
	store      toolscache.ReflectorStore
	leases     *view
	listed     bool
	listedAt   time.Duration
	listedStep int
	// beaconAt is when its own renewal reached it last, and wholeSince since when none was missing for too long, nor a list
	// replaced what it knew.
	beaconAt, wholeSince time.Duration
	heardBy              *listenerClock
	beacon               *task
	beaconSince          time.Duration
	notices              []heartbeat.Notice
	// renewed are the Leases, by their pods' UIDs, of which it saw a renewal: the last one, or an empty text where a list
	// showed another since, so that it cannot know what that was answered.
	renewed map[string]string
	// The fence, when it compares next, and whether it or the sweeper is at work.
	fence     *fence.Fence
	nextCheck time.Duration
	guarding  bool
	// The sweeper, when it sweeps next, and what it counts.
	provider  *queue.Provider
	sweeper   *sweep.Sweeper
	swept     *prometheus.Registry
	nextSweep time.Duration
	// sweepBegan is when the last sweep did.
	sweepBegan time.Duration
}

// workers are one controller: its reconciler and its queue.
type workers struct {
	name  string
	do    reconcile.Reconciler
	queue *requests
}

// concurrency is that of the controllers.
const concurrency = 8

// newProcess starts a process of the cluster's operator that does not lead.
func (w *world) newProcess(c *cluster) *operator {
	w.operators++
	op := &operator{
		world: w, cluster: c, id: w.operators, mutant: w.mutant, views: map[kind]*view{},
		handlers: map[kind][]toolscache.ResourceEventHandler{}, leases: &view{}, deaf: map[kind]bool{}, broken: map[kind]bool{}, doubted: map[string]int{}, massUntil: never,
		renewed: map[string]string{},
	}
	op.ctx, op.cancel = context.WithCancel(context.Background())
	clk := clock{now: func() time.Duration { return w.now }, skew: &w.operatorSkew}
	op.signals = &controller.Signals{
		Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Guarded: w.isGuarded, Clock: clk,
		Decide: op.mutant.decide,
	}
	op.newGuards(&queue.Provider{
		Name: v1alpha1.DefaultProviderName, Region: "us-east-1", Prefix: "rq", Cluster: "c", ClusterUID: clusterUID, API: wire{op: op},
	})
	return op
}

// newOperator starts a process that leads at once.
func (w *world) newOperator(c *cluster, late func(kind) int) *operator {
	return w.lead(w.newProcess(c), late)
}

// lead has a process lead: its caches list, and every object is an event. An API server may answer a watch's first list
// from a cache that is behind; late says by how many events, for each kind.
func (w *world) lead(op *operator, late func(kind) int) *operator {
	c := op.cluster
	for _, k := range watched {
		op.views[k] = c.asOf(k, late(k), optedIn)
	}
	op.leases.at, op.listedAt = late(leases), w.now
	op.nextCheck, op.nextSweep = w.now, w.now+sweepInterval
	if c == w.cluster {
		if w.standby != nil && w.standby != op {
			w.standby.cancel()
		}
		w.standby = w.newProcess(c)
	}
	op.newListener()
	providers := only{op.provider}
	k := kube{op: op}
	said := &silent{}
	m := &fakeManager{op: op}
	for _, r := range []interface{ SetupWithManager(ctrl.Manager) error }{
		&controller.PodReconciler{Client: k, Reader: reader{op}, Recorder: said, Providers: providers, Signals: op.signals},
		&controller.ReplyHostReconciler{Client: k, Reader: reader{op}, Recorder: said, Providers: providers, Signals: op.signals},
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
	return !op.unreachable() && !op.deaf[k] && (op.broken[k] || op.views[k].at < len(op.cluster.log[k]))
}

// deliver hands the next event of a kind to the cache and to the handlers.
func (op *operator) deliver(k kind) {
	if op.broken[k] {
		op.relist(k)
		return
	}
	v := op.views[k]
	ch := op.cluster.log[k][v.at]
	v.at++
	op.see(k, ch.object, ch.gone, false)
}

// see brings the cache to one object's new state. A pod that lost its label leaves as one that is gone does: the watch
// selects by it.
func (op *operator) see(k kind, o client.Object, gone, missed bool) {
	v, key := op.views[k], client.ObjectKeyFromObject(o)
	if pod, ok := o.(*corev1.Pod); ok && op.mutant.podRead != nil {
		pod = pod.DeepCopy()
		op.mutant.podRead(pod)
		o = pod
	}
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

// relist is a watch that broke and was replaced by a list: what happened between is never seen. An object that another replaced
// is told as gone, as the operator's cache tells it.
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
	v.at, op.broken[k] = len(op.cluster.log[k]), false
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
