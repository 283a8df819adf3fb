package model

import (
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// podActions are what people, kubelets and the pod garbage collector do, and what becomes of processes.
var podActions = []action{
	{"pod is created", 40, func(w *world, arg uint64) bool {
		host := []string{"db", "web", "web", "slow"}[arg%4]
		name := fmt.Sprintf("%s-%d", host, arg>>8%uint64(w.size()))
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
	{"container restarts", 15, onPod((*pod).restartable, func(w *world, p *pod, _ uint64) string {
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
	{"a crash is the last that a lost node reports", 4, onPod(func(p *pod) bool { return p.exists() && reachable(p) && !p.terminating && living(p) }, func(w *world, p *pod, arg uint64) string {
		random := rand.New(rand.NewPCG(arg, 21))
		p.process.alive = false
		w.must(w.report(p, corev1.PodRunning))
		w.trace("pod %s: its container crashes, and is reported to have", p)
		if arg>>32&1 == 0 {
			w.run(random, 0, false)
		}
		if !p.exists() || w.violation != nil {
			return "is gone at once"
		}
		p.nodeLost = true
		w.trace("pod %s: its node is lost", p)
		w.pass([]time.Duration{0, 5 * time.Second, 35 * time.Second}[arg%3], random, 0)
		w.launch(p)
		w.trace("pod %s: its container is started again", p)
		if w.violation == nil && p.gone < 0 {
			w.loseNode(p)
		}
		w.pass([]time.Duration{5 * time.Second, 35 * time.Second}[arg>>8%2], random, 0)
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
		x, ok := w.closingOfALiving(arg)
		if !ok {
			if arg>>32%4 != 0 || !w.silence(arg) || !w.until(3*time.Minute, rand.New(rand.NewPCG(arg, 14)), func() bool { _, ok := w.closingOfALiving(arg); return ok }) {
				return false
			}
			x, _ = w.closingOfALiving(arg)
		}
		p := w.byUID[x.target]
		p.process.paused = false
		w.trace("pod %s: its process goes on, and heartbeats, while its Lease is about to be closed", p)
		w.beat(p)
		return true
	}},
	{"a Lease is written late", 8, func(w *world, arg uint64) bool { return w.writeLate(arg) }},
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
}
