package model

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

var ctx = context.Background()

// action is one thing that a script can have happen. do says whether it did; arg chooses among what it could happen to.
// One that takes steps to make itself possible, and fails, has taken steps.
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
var actions = slices.Concat(everydayActions, podActions, stableActions, objectActions, failureActions, leaderActions)

// everydayActions are the operators' work and the passing of time.
var everydayActions = []action{
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
}

func (w *world) hostNamed(arg uint64) *v1alpha1.ReplyHost {
	h, ok := w.cluster.now[hosts][types.NamespacedName{Namespace: w.namespace, Name: hostNames[arg%3]}].(*v1alpha1.ReplyHost)
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

// closingOfALiving is a write under way that would close the Lease of a process that lives.
func (w *world) closingOfALiving(arg uint64) (*call, bool) {
	return pick(w.closings(), arg, func(c *call) bool {
		p := w.byUID[c.target]
		return p != nil && p.exists() && p.process != nil && p.process.alive
	})
}

// silence stops the process of one pod that heartbeats.
func (w *world) silence(arg uint64) bool {
	p, ok := pick(w.pods, arg, func(p *pod) bool {
		return running(p) && p.mode == v1alpha1.HeartbeatLease && !p.stable && p.process.using != "" && p.reported == "running"
	})
	if ok {
		p.process.paused = true
		w.trace("pod %s: its process is stopped (SIGSTOP)", p)
	}
	return ok
}

// writeLate has the write that tells a pod's Lease of a queue arrive after that queue was closed for idleness: the pod
// wakes, and falls silent again before its answer is written.
func (w *world) writeLate(arg uint64) bool {
	asleep := func(p *pod) bool { return running(p) && w.asleep(p) }
	if w.down || w.lost || w.leader == nil {
		return false
	}
	random := rand.New(rand.NewPCG(arg, 9))
	p, ok := pick(w.pods, arg, asleep)
	if !ok {
		idle := func() bool {
			p, ok = pick(w.pods, arg, func(p *pod) bool {
				return p.process != nil && p.process.paused && w.asleep(p)
			})
			return ok
		}
		if !w.silence(arg) || !w.until(3*time.Minute, random, idle) {
			return false
		}
		p.process.paused, p.process.next = false, w.now
	}
	w.trace("pod %s: its process wakes", p)
	var late *task
	if !w.until(time.Minute, random, func() bool {
		x, ok := pick(w.possible(false), 0, func(x work) bool {
			return x.task != nil && x.task.pending.verb == "patch Lease" && x.task.pending.target == p.uid
		})
		late = x.task
		return ok
	}) || p.process == nil {
		return false
	}
	w.trace("pod %s: its process is stopped (SIGSTOP) while its Lease is about to be written", p)
	late.stalled, p.process.paused = true, true
	w.pass(p.retention()+20*time.Second, random, 0)
	late.stalled = false
	w.run(random, 0, false)
	return true
}

// asleep says that the pod's Lease says that its queue was closed.
func (w *world) asleep(p *pod) bool {
	l, ok := w.cluster.now[leases][types.NamespacedName{Namespace: v1alpha1.HeartbeatNamespace, Name: p.uid}].(*coordinationv1.Lease)
	return ok && p.exists() && p.mode == v1alpha1.HeartbeatLease && l.Annotations[injected.LeaseState] == injected.LeaseStateClosing
}

// removeHost removes a ReplyHost past its finalizer.
func (w *world) removeHost(h *v1alpha1.ReplyHost) {
	w.must(w.cluster.edit(h, func() { h.Finalizers = nil }))
	w.must(client.IgnoreNotFound(w.cluster.remove(h, nil)))
	w.trace("ReplyHost %s is removed by a person, past its finalizer", h.Name)
}
