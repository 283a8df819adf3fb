package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// failureActions are what goes wrong, and right again.
var failureActions = []action{
	{"API server goes down", 3, toggle("the API server is down", func(w *world) bool { return !w.down }, func(w *world) { w.goDown() })},
	{"API server comes back", 25, toggle("the API server is back", func(w *world) bool { return w.down }, func(w *world) { w.comeBack() })},
	{"API server is down for long", 4, func(w *world, arg uint64) bool {
		if w.down || w.lost {
			return false
		}
		w.trace("the API server is down, for longer than the idle retention")
		random := rand.New(rand.NewPCG(arg, 8))
		w.goDown()
		w.pass([]time.Duration{75 * time.Second, 200 * time.Second}[arg%2], random, 0)
		w.comeBack()
		w.trace("the API server is back")
		// What failed meanwhile is tried again at once, before the applications can heartbeat; but not for ever.
		cut := slices.ContainsFunc(w.everyone(), func(op *operator) bool { return op.cut || len(op.deaf) > 0 })
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
	{"heartbeats of a crowd are lost", 2, func(w *world, arg uint64) bool {
		if w.lost || w.down || w.leader == nil || w.hostNamed(0) == nil {
			return false
		}
		random := rand.New(rand.NewPCG(arg, 19))
		fast := 0
		for _, p := range w.pods {
			if p.host == "web" && running(p) && p.mode == v1alpha1.HeartbeatLease {
				fast++
			}
		}
		w.gather(fast)
		w.pass(5*time.Second, random, 0)
		if w.violation == nil {
			w.startAll()
		}
		w.pass(20*time.Second, random, 0)
		w.lost, w.lostSince = true, w.now
		w.trace("heartbeats are lost on their way for a while")
		w.pass([]time.Duration{75 * time.Second, 130 * time.Second}[arg%2], random, 0)
		w.lost = arg>>8&1 == 0
		return true
	}},
	{"heartbeats return one by one", 4, func(w *world, arg uint64) bool {
		if w.down {
			return false
		}
		random := rand.New(rand.NewPCG(arg, 11))
		if !w.lost {
			w.lost, w.lostSince = true, w.now
			w.trace("heartbeats are lost on their way")
			w.pass([]time.Duration{40 * time.Second, 75 * time.Second, 130 * time.Second}[arg%3], random, 0)
		}
		w.lost = false
		for _, p := range w.pods {
			p.muted = true
		}
		w.trace("heartbeats arrive again, one pod's after the other's")
		for _, i := range random.Perm(len(w.pods)) {
			p := w.pods[i]
			p.muted = false
			if p.exists() && living(p) && w.violation == nil {
				w.pass(time.Duration(1+random.IntN(3))*5*time.Second, random, 0)
			}
		}
		return true
	}},
	{"Lease is forged", 12, func(w *world, arg uint64) bool {
		l, ok := pick(w.cluster.keysOf(w.cluster.now[leases]), arg, func(k types.NamespacedName) bool { return k.Name != heartbeat.BeaconName })
		if !ok {
			return false
		}
		if w.isGuarded() {
			w.unguardedSince = w.now
			w.trace("the policy that guards heartbeats is deleted")
		}
		lease := w.cluster.now[leases][l].DeepCopyObject().(*coordinationv1.Lease)
		w.trace("Lease %s is forged: %s", l.Name, w.forge(lease, arg>>16))
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
	{"watch of records hangs", 6, onOperator(func(op *operator) bool { return !op.deaf[records] }, func(_ *world, op *operator, _ uint64) string {
		op.deaf[records] = true
		return "hears nothing of records"
	})},
	{"watch of records goes on", 12, onOperator(func(op *operator) bool { return op.deaf[records] }, func(_ *world, op *operator, _ uint64) string {
		delete(op.deaf, records)
		return "hears of records again"
	})},
	{"watch of pods hangs", 4, onOperator(func(op *operator) bool { return !op.deaf[pods] }, func(_ *world, op *operator, _ uint64) string {
		op.deaf[pods] = true
		return "hears nothing of pods"
	})},
	{"watch of pods goes on", 12, onOperator(func(op *operator) bool { return op.deaf[pods] }, func(_ *world, op *operator, _ uint64) string {
		delete(op.deaf, pods)
		return "hears of pods again"
	})},
	{"lists of records are old", 4, func(w *world, arg uint64) bool {
		if w.staleLists {
			return false
		}
		w.staleLists, w.staleAt = true, w.lateBy(arg, 6)(records)
		w.trace("the API server lists records as they were %d events ago", w.cluster.present(records)-w.staleAt)
		return true
	}},
	{"lists of records are current", 4, toggle("the API server lists records as they are", func(w *world) bool { return w.staleLists }, func(w *world) { w.staleLists = false })},
	{"lists of records are old for long", 3, func(w *world, arg uint64) bool {
		if w.staleLists || w.down || w.elsewhere || w.leader == nil {
			return false
		}
		random := rand.New(rand.NewPCG(arg, 12))
		w.staleLists, w.staleAt = true, w.cluster.present(records)
		w.trace("the API server lists records as they are now, for a while")
		// A pod comes, and goes without a word when two sweeps have not seen its record.
		name := fmt.Sprintf("%s-%d", hostNames[arg%3], arg>>8%uint64(w.size()))
		if w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] == nil {
			w.must(w.create(name, hostNames[arg%3], v1alpha1.HeartbeatLease, false))
			p := w.pods[len(w.pods)-1]
			w.pass(5*time.Second, random, 0)
			if p.open && p.exists() && w.violation == nil {
				w.bind(p)
				w.must(w.report(p, corev1.PodRunning))
			}
			w.pass(85*time.Second, random, 0)
			if o := w.object(p); o != nil && w.violation == nil {
				w.trace("pod %s: is force-deleted; its process lives on", p)
				w.must(w.cluster.remove(o, nil, client.GracePeriodSeconds(0)))
			}
		}
		w.pass(35*time.Second, random, 0)
		w.staleLists = false
		return true
	}},
	{"credentials are another account's", 3, toggle("the operator gets another account's credentials", func(w *world) bool { return !w.elsewhere }, func(w *world) { w.elsewhere = true })},
	{"credentials are right again", 5, toggle("the operator gets its account's credentials", func(w *world) bool { return w.elsewhere }, func(w *world) { w.elsewhere = false })},
	{"credentials are another account's for long", 2, func(w *world, arg uint64) bool {
		if w.elsewhere || w.down {
			return false
		}
		w.elsewhere = true
		w.trace("the operator has another account's credentials for a while")
		w.pass(200*time.Second, rand.New(rand.NewPCG(arg, 13)), 0)
		w.elsewhere = false
		return true
	}},
	{"marker is removed", 4, func(w *world, arg uint64) bool { return w.removeMarker(arg%2 == 0) }},
	{"identity is confirmed", 6, func(w *world, arg uint64) bool {
		if w.conflict() {
			return w.confirm()
		}
		if w.leader == nil || w.leader.paused || w.leader.cut || w.down || w.elsewhere || len(w.copies) > 0 {
			return false
		}
		if !w.setBack(arg) && w.removeMarker(true) {
			// A process that never saw the marker finds none.
			w.kill(w.leader, 0)
			w.leader = w.newOperator(w.cluster, w.cluster.present)
			w.trace("the leader is killed, and another begins to lead")
		}
		return w.until(2*time.Minute, rand.New(rand.NewPCG(arg, 16)), w.conflict) && w.confirm()
	}},
	{"etcd is set back", 3, func(w *world, arg uint64) bool { return w.setBack(arg) }},
	{"watch breaks", 6, onOperator(func(op *operator) bool { return !op.unreachable() }, func(_ *world, op *operator, arg uint64) string {
		k := watched[arg%uint64(len(watched))]
		op.relist(k)
		return "a list replaces what was watched of " + string(k)
	})},
	{"watch of Leases breaks", 4, onOperator(func(op *operator) bool { return !op.unreachable() }, func(_ *world, op *operator, _ uint64) string {
		op.relistLeases()
		return "a list replaces what was watched of Leases"
	})},
}
