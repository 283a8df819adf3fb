package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var ctx = context.Background()

// action is one thing that a script can have happen. do says whether it could; arg chooses among what it could happen to.
type action struct {
	name   string
	weight int
	do     func(w *world, arg uint64) bool
}

// pick chooses one of those that are wanted.
func pick[T any](all []T, arg uint64, wanted func(T) bool) (chosen T, ok bool) {
	n := uint64(0)
	for _, x := range all {
		if wanted(x) {
			n++
		}
	}
	if n == 0 {
		return chosen, false
	}
	at := arg % n
	for _, x := range all {
		if wanted(x) {
			if at == 0 {
				return x, true
			}
			at--
		}
	}
	panic("unreachable")
}

// onPod is an action on a pod for which wanted is true.
func onPod(wanted func(*pod) bool, do func(w *world, p *pod, arg uint64) string) func(*world, uint64) bool {
	return func(w *world, arg uint64) bool {
		p, ok := pick(w.pods, arg, wanted)
		if !ok {
			return false
		}
		w.trace("pod %s: %s", p, do(w, p, arg>>16))
		return true
	}
}

func onOperator(wanted func(*operator) bool, do func(w *world, op *operator, arg uint64) string) func(*world, uint64) bool {
	return func(w *world, arg uint64) bool {
		op, ok := pick(w.everyone(), arg, wanted)
		if !ok {
			return false
		}
		what := do(w, op, arg>>16)
		w.trace("operator %d: %s", op.id, what)
		return true
	}
}

// toggle is an action that is possible while wanted is true.
func toggle(name string, wanted func(w *world) bool, do func(w *world)) func(*world, uint64) bool {
	return func(w *world, _ uint64) bool {
		if !wanted(w) {
			return false
		}
		do(w)
		w.trace("%s", name)
		return true
	}
}

func living(p *pod) bool         { return p.process != nil && p.process.alive && !p.process.paused }
func running(p *pod) bool        { return p.exists() && living(p) }
func reachable(p *pod) bool      { return p.gone < 0 && !p.nodeLost }
func anyOperator(*operator) bool { return true }

// actions are everything that a script is made of.
var actions = []action{
	// The operators, one event, reconcile or call at a time.
	{"operator works", 400, func(w *world, arg uint64) bool {
		all := w.possible(false)
		if len(all) == 0 {
			return false
		}
		w.perform(all[arg%uint64(len(all))], arg>>16)
		return true
	}},
	{"operator makes a call", 150, func(w *world, arg uint64) bool {
		x, ok := pick(w.possible(false), arg, func(x work) bool { return x.task != nil })
		if ok {
			w.perform(x, 0)
		}
		return ok
	}},
	{"informer delivers", 60, func(w *world, arg uint64) bool {
		x, ok := pick(w.possible(false), arg, func(x work) bool { return x.kind != "" })
		if ok {
			w.perform(x, 0)
		}
		return ok
	}},
	{"everything is done", 20, func(w *world, arg uint64) bool {
		w.trace("operators work for a while")
		w.run(rand.New(rand.NewPCG(arg, 1)), float64(arg%4)/20, false)
		return true
	}},
	{"reconcile anything", 10, onOperator(anyOperator, func(_ *world, op *operator, arg uint64) string {
		c := op.controllers[arg%uint64(len(op.controllers))]
		k := map[string]kind{"pod": pods, "replyhost": hosts, "replyqueue": records}[c.name]
		keys := op.cluster.keysOf(op.views[k].objects)
		if len(keys) == 0 {
			return "nothing to reconcile"
		}
		key := keys[arg>>8%uint64(len(keys))]
		c.queue.Add(requestFor(key))
		return "woken for " + c.name + " " + key.Name
	})},
	{"call hangs", 12, func(w *world, arg uint64) bool {
		x, ok := pick(w.possible(false), arg, func(x work) bool { return x.task != nil })
		if ok {
			x.task.stalled = true
			w.trace("operator %d: %s %s hangs", x.op.id, x.task.pending.verb, x.task.pending.target)
		}
		return ok
	}},
	{"call goes on", 25, func(w *world, arg uint64) bool {
		for _, op := range w.everyone() {
			if t, ok := pick(op.tasks, arg, func(t *task) bool { return t.stalled }); ok {
				t.stalled = false
				w.trace("operator %d: %s %s goes on", op.id, t.pending.verb, t.pending.target)
				return true
			}
		}
		return false
	}},
	{"call fails", 8, func(w *world, arg uint64) bool {
		x, ok := pick(w.possible(false), arg, func(x work) bool { return x.task != nil })
		if !ok {
			return false
		}
		c := x.task.pending
		failure := errUnreachable
		switch throttled := c.sqs && arg>>20&1 == 1; {
		case throttled:
			failure = errThrottled
		case arg>>21&1 == 1:
			c.run() // It has its effect, and the answer is lost.
		}
		w.traceCall(c, " fails")
		c.fail(failure)
		x.task.resume()
		return true
	}},

	// Time.
	{"time passes", 60, func(w *world, arg uint64) bool {
		w.tick([]time.Duration{time.Second, 2 * time.Second, 5 * time.Second}[arg%3])
		return true
	}},
	{"time passes, with work", 35, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 2))
		total := []time.Duration{15 * time.Second, 35 * time.Second, 75 * time.Second, 130 * time.Second}[arg%4]
		w.pass(total, random, float64(arg>>8%3)/15)
		return true
	}},
	{"nobody works for long", 4, func(w *world, arg uint64) bool {
		w.tick([]time.Duration{20 * time.Second, 65 * time.Second, 5 * time.Minute}[arg%3])
		return true
	}},
	{"a wall clock jumps", 4, func(w *world, arg uint64) bool {
		by := []time.Duration{-24 * time.Hour, -time.Minute, time.Minute, 24 * time.Hour}[arg%4]
		if arg>>8&1 == 0 {
			w.operatorSkew += by
			w.trace("the operators' wall clocks jump by %v", by)
		} else {
			w.podSkew += by
			w.trace("the pods' wall clocks jump by %v", by)
		}
		return true
	}},

	// Pods, by people, kubelets and the pod garbage collector.
	{"pod is created", 40, func(w *world, arg uint64) bool {
		host, stem := "web", "web"
		if arg%4 == 0 {
			host, stem = "db", "db"
		}
		name := fmt.Sprintf("%s-%d", stem, arg>>8%uint64(w.size()))
		if w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] != nil {
			return false
		}
		mode := v1alpha1.HeartbeatLease
		if arg>>16%8 == 0 {
			mode = v1alpha1.HeartbeatPod
		}
		if err := w.create(name, host, mode, arg>>20%8 == 0); err != nil {
			panic(err)
		}
		w.trace("pod %s is created for %s, %s", w.pods[len(w.pods)-1], host, mode)
		return true
	}},
	{"pod starts", 50, onPod(func(p *pod) bool { return p.exists() && !p.bound && !p.terminating && p.open }, func(w *world, p *pod, _ uint64) string {
		w.bind(p)
		return "starts"
	})},
	{"kubelet reports", 50, onPod(func(p *pod) bool {
		return p.exists() && reachable(p) && p.process != nil && (p.process.alive != (p.reported == "running"))
	}, func(w *world, p *pod, _ uint64) string {
		w.must(w.report(p, corev1.PodRunning))
		return "is reported " + p.reported
	})},
	{"container crashes", 6, onPod(living, func(_ *world, p *pod, _ uint64) string {
		p.process.alive = false
		return "its container crashes"
	})},
	{"container restarts", 15, onPod(func(p *pod) bool { return p.exists() && reachable(p) && p.process != nil && !p.process.alive }, func(w *world, p *pod, _ uint64) string {
		w.launch(p)
		return "its container is started again"
	})},
	{"pod finishes", 5, onPod(func(p *pod) bool { return running(p) && reachable(p) }, func(w *world, p *pod, arg uint64) string {
		p.process.alive = false
		w.must(w.report(p, []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}[arg%2]))
		return "finishes, or is evicted"
	})},
	{"pod is deleted", 12, onPod(func(p *pod) bool { return p.gone < 0 && !p.terminating }, func(w *world, p *pod, _ uint64) string {
		w.must(w.cluster.remove(w.object(p), nil))
		return "is deleted"
	})},
	{"kubelet ends a pod", 15, onPod(func(p *pod) bool { return reachable(p) && p.terminating }, func(w *world, p *pod, _ uint64) string {
		w.endPod(p)
		return "is stopped by its kubelet, and gone"
	})},
	{"pod is force-deleted", 6, onPod(func(p *pod) bool { return p.gone < 0 }, func(w *world, p *pod, _ uint64) string {
		w.must(w.cluster.remove(w.object(p), nil, client.GracePeriodSeconds(0)))
		return "is force-deleted; its process lives on"
	})},
	{"orphaned process ends", 5, onPod(func(p *pod) bool { return p.gone >= 0 && p.process != nil && p.process.alive }, func(_ *world, p *pod, _ uint64) string {
		p.process.alive = false
		return "its process ends, and nobody says so"
	})},
	{"node is lost", 4, onPod(func(p *pod) bool { return p.exists() && p.bound && !p.nodeLost }, func(_ *world, p *pod, _ uint64) string {
		p.nodeLost = true
		return "its node is lost"
	})},
	{"lost node is tidied", 6, onPod(func(p *pod) bool { return p.gone < 0 && p.nodeLost }, func(w *world, p *pod, _ uint64) string {
		w.loseNode(p)
		return "is removed from its lost node"
	})},
	{"process pauses", 22, onPod(running, func(_ *world, p *pod, _ uint64) string {
		p.process.paused = true
		return "its process is stopped (SIGSTOP)"
	})},
	{"process resumes", 10, onPod(func(p *pod) bool { return p.process != nil && p.process.alive && p.process.paused }, func(w *world, p *pod, arg uint64) string {
		p.process.paused, p.process.next = false, w.now
		if arg%2 == 0 {
			w.beat(p)
			return "its process goes on, and heartbeats"
		}
		return "its process goes on"
	})},
	{"heartbeat", 25, onPod(living, func(w *world, p *pod, _ uint64) string {
		w.beat(p)
		return "heartbeats"
	})},
	{"heartbeat before a closing", 60, func(w *world, arg uint64) bool {
		x, ok := pick(w.closings(), arg, func(c *call) bool {
			p := w.byUID[c.target]
			return p != nil && p.exists() && p.process != nil && p.process.alive
		})
		if ok {
			p := w.byUID[x.target]
			p.process.paused = false
			w.trace("pod %s: its process goes on, and heartbeats, while its Lease is about to be closed", p)
			w.beat(p)
		}
		return ok
	}},
	{"label is removed", 3, onPod(func(p *pod) bool { return p.gone < 0 && !p.unlabelled }, func(w *world, p *pod, _ uint64) string {
		o := w.object(p)
		w.must(w.cluster.edit(o, func() { delete(o.Labels, v1alpha1.LabelInject) }))
		return "loses its label"
	})},
	{"label is added", 6, onPod(func(p *pod) bool { return p.gone < 0 && p.unlabelled }, func(w *world, p *pod, _ uint64) string {
		o := w.object(p)
		w.must(w.cluster.edit(o, func() {
			if o.Labels == nil {
				o.Labels = map[string]string{}
			}
			o.Labels[v1alpha1.LabelInject] = v1alpha1.InjectTrue
		}))
		return "gets its label back"
	})},

	// ReplyHosts, records and Leases, by people.
	{"ReplyHost changes", 4, func(w *world, arg uint64) bool {
		h := w.hostNamed(arg)
		if h == nil {
			return false
		}
		interval := []int32{10, 20, 30}[arg>>8%3]
		retention := interval * []int32{5, 6, 7}[arg>>16%3]
		w.must(w.cluster.edit(h, func() {
			h.Spec.Heartbeat.IntervalSeconds, h.Spec.IdleRetentionSeconds = &interval, &retention
			h.Spec.DrainSeconds = ptr.To([]int32{0, 10, 30}[arg>>24%3])
		}))
		for _, p := range w.pods {
			if p.host == h.Name {
				p.owed.Interval = min(p.owed.Interval, time.Duration(interval)*time.Second)
				p.owed.IdleRetention = min(p.owed.IdleRetention, time.Duration(retention)*time.Second)
				p.owed.Drain = min(p.owed.Drain, time.Duration(*h.Spec.DrainSeconds)*time.Second)
			}
		}
		w.trace("ReplyHost %s: a heartbeat every %d s, kept for %d s, drained for %d s", h.Name, interval, retention, *h.Spec.DrainSeconds)
		return true
	}},
	{"ReplyHost is deleted", 2, func(w *world, arg uint64) bool {
		h := w.hostNamed(arg)
		if h == nil || h.DeletionTimestamp != nil {
			return false
		}
		w.must(w.cluster.remove(h, nil))
		w.trace("ReplyHost %s is deleted", h.Name)
		return true
	}},
	{"ReplyHost is created", 8, func(w *world, arg uint64) bool {
		if w.hostNamed(arg) != nil {
			return false
		}
		identity := v1alpha1.IdentityPod
		if hostNames[arg%2] == "db" {
			identity = v1alpha1.IdentityStable
		}
		w.must(w.cluster.create(newHost(w.namespace, hostNames[arg%2], identity), nil))
		w.trace("ReplyHost %s is created", hostNames[arg%2])
		return true
	}},
	{"record is deleted", 5, func(w *world, arg uint64) bool {
		keys := w.cluster.keysOf(w.cluster.now[records])
		if len(keys) == 0 {
			return false
		}
		key := keys[arg%uint64(len(keys))]
		w.must(client.IgnoreNotFound(w.cluster.remove(w.cluster.now[records][key].DeepCopyObject().(client.Object), nil)))
		w.trace("record %s is deleted by a person", key.Name)
		return true
	}},
	{"Lease is deleted", 3, func(w *world, arg uint64) bool {
		keys := w.cluster.keysOf(w.cluster.now[leases])
		if len(keys) == 0 {
			return false
		}
		key := keys[arg%uint64(len(keys))]
		w.must(w.cluster.remove(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, nil))
		w.trace("Lease %s is deleted by a person", key.Name)
		return true
	}},
	{"garbage is collected", 4, func(w *world, _ uint64) bool {
		if !w.collect() {
			return false
		}
		w.trace("records without an owner are deleted")
		return true
	}},

	// What fails.
	{"API server goes down", 3, toggle("the API server is down", func(w *world) bool { return !w.down }, func(w *world) { w.down = true })},
	{"API server comes back", 25, toggle("the API server is back", func(w *world) bool { return w.down }, func(w *world) { w.down = false })},
	{"API server is down for long", 4, func(w *world, arg uint64) bool {
		if w.down || w.lost {
			return false
		}
		w.trace("the API server is down, for longer than the idle retention")
		random := rand.New(rand.NewPCG(arg, 8))
		w.down = true
		w.pass([]time.Duration{75 * time.Second, 200 * time.Second}[arg%2], random, 0)
		w.down = false
		w.trace("the API server is back")
		// What failed meanwhile is tried again at once, before the applications can heartbeat; but not for ever.
		cut := slices.ContainsFunc(w.everyone(), func(op *operator) bool { return op.cut })
		w.run(random, 0, arg>>8&1 == 0 && !cut)
		return true
	}},
	{"heartbeats are lost", 3, toggle("heartbeats are lost on their way", func(w *world) bool { return !w.lost }, func(w *world) { w.lost, w.lostSince = true, w.now })},
	{"heartbeats arrive again", 10, toggle("heartbeats arrive again", func(w *world) bool { return w.lost }, func(w *world) { w.lost = false })},
	{"heartbeats are lost for long", 3, func(w *world, arg uint64) bool {
		if w.lost || w.down {
			return false
		}
		w.lost, w.lostSince = true, w.now
		w.trace("heartbeats are lost on their way for a while")
		w.pass([]time.Duration{75 * time.Second, 130 * time.Second, 200 * time.Second}[arg%3], rand.New(rand.NewPCG(arg, 5)), 0)
		w.lost = false
		return true
	}},
	{"policy is deleted", 2, toggle("the policy that guards heartbeats is deleted", func(w *world) bool { return w.isGuarded() }, func(w *world) { w.unguardedSince = w.now })},
	{"policy is restored", 10, toggle("the policy that guards heartbeats is there again", func(w *world) bool { return !w.isGuarded() }, func(w *world) { w.unguardedSince = -1 })},
	{"operator is cut off", 3, onOperator(func(op *operator) bool { return !op.cut }, func(_ *world, op *operator, _ uint64) string {
		op.cut = true
		return "cannot reach the API server"
	})},
	{"operator is connected", 15, onOperator(func(op *operator) bool { return op.cut }, func(_ *world, op *operator, _ uint64) string {
		op.cut = false
		return "reaches the API server again"
	})},
	{"operator pauses", 3, onOperator(func(op *operator) bool { return !op.paused }, func(_ *world, op *operator, _ uint64) string {
		op.paused = true
		return "gets no time"
	})},
	{"operator resumes", 20, onOperator(func(op *operator) bool { return op.paused }, func(_ *world, op *operator, _ uint64) string {
		op.paused = false
		return "gets time again"
	})},
	{"watch of records hangs", 6, onOperator(func(op *operator) bool { return !op.deaf }, func(_ *world, op *operator, _ uint64) string {
		op.deaf = true
		return "hears nothing of records"
	})},
	{"watch of records goes on", 12, onOperator(func(op *operator) bool { return op.deaf }, func(_ *world, op *operator, _ uint64) string {
		op.deaf = false
		return "hears of records again"
	})},
	{"watch breaks", 6, onOperator(func(op *operator) bool { return !op.unreachable() }, func(_ *world, op *operator, arg uint64) string {
		k := watched[arg%uint64(len(watched))]
		op.relist(k)
		return "a list replaces what was watched of " + string(k)
	})},
	{"watch of Leases breaks", 4, onOperator(func(op *operator) bool { return !op.unreachable() }, func(_ *world, op *operator, _ uint64) string {
		op.relistLeases()
		return "a list replaces what was watched of Leases"
	})},

	// Operators come and go.
	{"operator is killed", 5, onOperator(anyOperator, func(w *world, op *operator, arg uint64) string {
		w.kill(op, arg)
		return "is killed"
	})},
	{"operator leads", 30, toggle("an operator begins to lead", func(w *world) bool { return w.leader == nil }, func(w *world) { w.leader = w.newOperator(w.cluster) })},
	{"leader is deposed", 5, toggle("the leader is deposed, and does not know", func(w *world) bool { return w.leader != nil && len(w.zombies) < 2 }, func(w *world) {
		w.leader.deposed = true
		w.zombies, w.leader = append(w.zombies, w.leader), nil
	})},
	{"pod comes while a sweep lists", 40, func(w *world, arg uint64) bool {
		x, ok := pick(w.possible(false), arg, func(x work) bool {
			return x.task != nil && x.task.name == "sweep" && (x.task.pending.verb == "ListQueues" || x.task.pending.verb == "list ReplyQueue")
		})
		name := fmt.Sprintf("web-%d", arg>>8%uint64(w.size()))
		if !ok || w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] != nil {
			return false
		}
		w.must(w.create(name, "web", v1alpha1.HeartbeatLease, false))
		w.trace("pod %s is created while a sweep is between its lists", w.pods[len(w.pods)-1])
		x.task.stalled = true
		w.run(rand.New(rand.NewPCG(arg, 7)), 0, false)
		x.task.stalled = false
		return true
	}},
	{"lists of queues lag", 3, toggle("SQS lists queues as they were", func(w *world) bool { return !w.lag }, func(w *world) { w.lag = true })},
	{"lists of queues are current", 6, toggle("SQS lists queues as they are", func(w *world) bool { return w.lag }, func(w *world) { w.lag = false })},
	{"all records vanish", 6, func(w *world, _ uint64) bool { return w.mutant.sweeps.bare && w.loseRecords() }},
	{"cluster is copied", 3, func(w *world, arg uint64) bool { return w.copyCluster(arg) }},
	{"late request arrives", 10, func(w *world, arg uint64) bool {
		if len(w.flying) == 0 {
			return false
		}
		w.arrive(int(arg % uint64(len(w.flying))))
		return true
	}},
}

var hostNames = []string{"web", "db"}

func (w *world) hostNamed(arg uint64) *v1alpha1.ReplyHost {
	h, ok := w.cluster.now[hosts][types.NamespacedName{Namespace: w.namespace, Name: hostNames[arg%2]}].(*v1alpha1.ReplyHost)
	if !ok {
		return nil
	}
	return h.DeepCopy()
}

// closings are the writes under way that would close a Lease.
func (w *world) closings() []*call {
	var all []*call
	for _, op := range w.everyone() {
		for _, t := range op.tasks {
			if t.pending.closes() {
				all = append(all, t.pending)
			}
		}
	}
	for _, c := range w.flying {
		if c.closes() {
			all = append(all, c)
		}
	}
	return all
}
