package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// stableActions are what happens to the pods of a StatefulSet, of which one follows the other under the same name.
var stableActions = []action{
	{"Stable pod is replaced", 12, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 22))
		p, ok := w.stablePod(arg, random)
		return ok && w.succeed(p, arg>>8, random)
	}},
	{"Stable pod is replaced, unseen by the next leader", 6, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 23))
		p, ok := w.stablePod(arg, random)
		if !ok || w.leader == nil {
			return false
		}
		seen := w.cluster.present(pods)
		if !w.succeed(p, arg>>8, random) || w.leader == nil || w.violation != nil {
			return false
		}
		w.pass([]time.Duration{5 * time.Second, 75 * time.Second}[arg>>4%2], random, 0)
		if w.leader == nil || w.violation != nil {
			return false
		}
		w.kill(w.leader, arg>>16)
		w.leader = w.newOperator(w.cluster, func(k kind) int {
			if k == pods {
				return max(w.oldest[k], seen)
			}
			return w.cluster.present(k)
		})
		w.leader.deaf[pods] = true
		w.trace("the leader is killed; the next lists the pods as they were before the change, and hears nothing of them for a while")
		w.pass([]time.Duration{35 * time.Second, 75 * time.Second, 130 * time.Second}[arg>>5%3], random, 0)
		for _, op := range w.everyone() {
			delete(op.deaf, pods)
		}
		return true
	}},
	{"Stable pod comes while its queue is about to be closed", 6, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 24))
		p, ok := w.stablePod(arg, random)
		if !ok || w.leader == nil || !w.end(p, arg>>8, random) {
			return false
		}
		closing := func() (t *task) {
			x, _ := pick(w.possible(false), arg, func(x work) bool {
				return x.task != nil && x.task.pending.closing && strings.HasPrefix(x.task.pending.target, p.name+"-")
			})
			return x.task
		}
		if !w.until(4*time.Minute, random, func() bool { return closing() != nil }) {
			return false
		}
		t := closing()
		t.stalled = true
		w.trace("operator %d: %s %s hangs", t.op.id, t.pending.verb, t.pending.target)
		w.follow(p.name, 15*time.Second, random)
		t.stalled = false
		w.run(random, 0, false)
		return true
	}},
	{"record of a Stable name is written late", 6, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 25))
		p, ok := w.stablePod(arg, random)
		if !ok || w.violation != nil || !w.succeed(p, arg>>8, random) {
			return false
		}
		return w.writeRecordLate(p)
	}},
}

// writeRecordLate has an earlier leader's request for the record of a pod that is gone arrive when the next pod of its name has
// one. A leader gives it that one's name, and it is refused, unless one that was closed stood there meanwhile: here it has a name of its own.
func (w *world) writeRecordLate(of *pod) bool {
	for _, key := range w.cluster.keysOf(w.cluster.now[records]) {
		record := w.cluster.now[records][key].(*v1alpha1.ReplyQueue)
		next := w.byUID[string(readerOf(record))]
		if next == nil || next == of || next.name != of.name || !next.exists() || record.Status.Closing != nil || record.DeletionTimestamp != nil {
			continue
		}
		late := record.DeepCopy()
		late.ObjectMeta = metav1.ObjectMeta{
			Namespace: record.Namespace, Name: record.Name[:strings.LastIndexByte(record.Name, '-')] + "-0",
			Finalizers: record.Finalizers, Labels: maps.Clone(record.Labels), OwnerReferences: record.OwnerReferences,
		}
		late.Labels[v1alpha1.LabelPodUID], late.Spec.PodRef.UID, late.Status = of.uid, of.uid, v1alpha1.ReplyQueueStatus{}
		if w.cluster.now[records][client.ObjectKeyFromObject(late)] != nil {
			return false
		}
		w.must(w.cluster.create(late, nil))
		w.trace("record %s: is written late, for pod %s", late.Name, of)
		return true
	}
	return false
}

// stablePod is a pod that runs under a name that a queue belongs to; where there is none, one is made.
func (w *world) stablePod(arg uint64, random *rand.Rand) (*pod, bool) {
	if w.down || w.hostNamed(1) == nil {
		return nil, false
	}
	wanted := func(p *pod) bool {
		return p.stable && p.exists() && p.bound && reachable(p) && !p.terminating && !p.unlabelled && p.process != nil
	}
	if p, ok := pick(w.pods, arg, wanted); ok {
		return p, true
	}
	name := fmt.Sprintf("db-%d", arg>>4%uint64(w.size()))
	if w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: name}] != nil {
		return nil, false
	}
	return w.follow(name, 2*time.Minute, random)
}

// follow creates a pod of a name that a queue belongs to, as a StatefulSet's controller does, and starts it when it may
// start, if that is soon.
func (w *world) follow(name string, soon time.Duration, random *rand.Rand) (*pod, bool) {
	w.must(w.create(name, "db", v1alpha1.HeartbeatLease, false))
	p := w.pods[len(w.pods)-1]
	w.trace("pod %s is created for db", p)
	if !w.until(soon, random, func() bool { return p.open || !p.exists() }) || !p.open || !p.exists() {
		return p, false
	}
	w.bind(p)
	w.must(w.report(p, corev1.PodRunning))
	w.trace("pod %s: starts, and is reported to", p)
	return p, true
}

// succeed ends a pod and has another follow under its name.
func (w *world) succeed(p *pod, arg uint64, random *rand.Rand) bool {
	if !w.end(p, arg, random) {
		return false
	}
	if arg>>4&1 == 0 {
		w.pass(time.Duration(arg>>5%8)*5*time.Second, random, 0)
	}
	if w.violation != nil || w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: p.name}] != nil {
		return false
	}
	_, started := w.follow(p.name, []time.Duration{10 * time.Second, time.Minute, 2 * time.Minute}[arg>>8%3], random)
	return started
}

// end ends a pod, in one of the ways in which pods end, and reports whether its name is free.
func (w *world) end(p *pod, arg uint64, random *rand.Rand) bool {
	switch arg % 4 {
	case 0, 1:
		w.must(w.cluster.remove(w.object(p), nil))
		w.trace("pod %s: is deleted", p)
		if arg>>2&1 == 0 {
			w.pass(5*time.Second, random, 0)
		}
		if p.gone < 0 {
			w.endPod(p)
		}
		w.trace("pod %s: is stopped by its kubelet, and gone", p)
	case 2:
		w.must(w.cluster.remove(w.object(p), nil, client.GracePeriodSeconds(0)))
		w.trace("pod %s: is force-deleted; its process lives on", p)
	case 3:
		p.nodeLost = true
		w.trace("pod %s: its node is lost", p)
		w.pass([]time.Duration{5 * time.Second, 35 * time.Second}[arg>>2%2], random, 0)
		if p.gone < 0 {
			w.loseNode(p)
		}
		w.trace("pod %s: is removed from its lost node", p)
	}
	return w.violation == nil && w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: p.name}] == nil
}
