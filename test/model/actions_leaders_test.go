package model

import (
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// leaderActions are operators that come and go, and what of theirs comes late.
var leaderActions = []action{
	{"operator is killed", 5, onOperator(anyOperator, func(w *world, op *operator, arg uint64) string {
		w.kill(op, arg)
		return "is killed"
	})},
	{"operator leads", 30, func(w *world, arg uint64) bool {
		if w.leader != nil {
			return false
		}
		w.leader = w.lead(w.takesOver(arg), w.cluster.present)
		w.trace("operator %d begins to lead", w.leader.id)
		return true
	}},
	{"operator leads with old lists", 20, func(w *world, arg uint64) bool {
		if w.leader != nil {
			return false
		}
		w.leader = w.lead(w.takesOver(arg>>1), w.lateBy(arg, 7))
		w.trace("an operator begins to lead; its first lists are old")
		return true
	}},
	{"leader is deposed", 5, toggle("the leader is deposed, and does not know", func(w *world) bool { return w.leader != nil && len(w.zombies) < 2 }, func(w *world) {
		w.leader.deposed = true
		w.zombies, w.leader = append(w.zombies, w.leader), nil
	})},
	{"pod comes while a sweep lists", 40, func(w *world, arg uint64) bool {
		name := fmt.Sprintf("web-%d", arg>>8%uint64(w.size()))
		if w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] != nil || w.leader == nil || w.leader.paused || w.down {
			return false
		}
		var x work
		if !w.until(sweepInterval+5*time.Second, rand.New(rand.NewPCG(arg, 17)), func() (ok bool) {
			x, ok = pick(w.possible(false), arg, func(x work) bool {
				return x.task != nil && x.task.name == "sweep" && (x.task.pending.verb == "ListQueues" || x.task.pending.verb == "list ReplyQueue")
			})
			return ok
		}) {
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
	{"cluster is copied", 3, func(w *world, arg uint64) bool { return w.copyCluster(arg, plain) }},
	{"cluster is copied, and the marker removed", 3, func(w *world, arg uint64) bool { return w.copyCluster(arg, unmarked) }},
	{"cluster is copied, and shown the marker late", 3, func(w *world, arg uint64) bool { return w.copyCluster(arg, late) }},
	{"cluster is copied while the nonce stands still", 3, func(w *world, arg uint64) bool { return w.copyCluster(arg, unwritten) }},
	{"late request arrives", 10, func(w *world, arg uint64) bool {
		if len(w.flying) == 0 {
			return false
		}
		w.arrive(int(arg % uint64(len(w.flying))))
		return true
	}},
}
