package model

import (
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// What was: backups of etcd, and API servers that answer from the past.

// backup is what etcd held at a time.
type backup struct {
	at      time.Duration
	objects map[kind]map[types.NamespacedName]client.Object
}

const (
	// backupInterval is how often a backup is taken, and backupsKept how many there are.
	backupInterval = 30 * time.Second
	backupsKept    = 20
)

// backUp takes a backup when one is due.
func (w *world) backUp() {
	m, ok := w.cluster.server.(*memory)
	if !ok || w.now < w.nextBackup {
		return
	}
	w.nextBackup = w.now + backupInterval
	b := backup{at: w.now, objects: map[kind]map[types.NamespacedName]client.Object{}}
	for k, all := range m.objects {
		b.objects[k] = maps.Clone(all)
	}
	w.backups = append(w.backups, b)
	w.backups = w.backups[max(0, len(w.backups)-backupsKept):]
}

// setBack restores etcd from a backup. Versions go on from where they were, as they do when they are raised with the
// restore; every watch breaks. Kubelets end the containers of pods that are not theirs any more.
func (w *world) setBack(arg uint64) bool {
	m, ok := w.cluster.server.(*memory)
	if !ok || w.alone || len(w.backups) == 0 || len(w.copies) > 0 {
		return false
	}
	b := w.backups[arg%uint64(len(w.backups))]
	w.trace("etcd is set back by %v", w.now-b.at)
	w.setBackAt, w.restoring = w.now, true
	defer func() { w.restoring = false }()
	for _, k := range kinds {
		all := w.cluster.now[k]
		for _, key := range w.cluster.keysOf(all) {
			if o := all[key]; b.objects[k][key] == nil || b.objects[k][key].GetUID() != o.GetUID() {
				delete(m.objects[k], key)
				w.must(w.cluster.note(nil, o.DeepCopyObject().(client.Object), nil))
			}
		}
	}
	for _, k := range kinds {
		all := b.objects[k]
		for _, key := range w.cluster.keysOf(all) {
			m.objects[k][key] = all[key]
			w.must(w.cluster.note(nil, all[key].DeepCopyObject().(client.Object), nil))
		}
	}
	for i := range w.backups {
		if w.backups[i].at > b.at {
			w.backups = w.backups[:i]
			break
		}
	}
	// The API servers were restarted: what was under way to them is lost.
	w.flying = slices.DeleteFunc(w.flying, func(c *call) bool { return !c.sqs })
	for _, op := range w.everyone() {
		for _, t := range slices.Clone(op.tasks) {
			if !t.pending.sqs {
				t.stalled = false
				t.pending.fail(errUnreachable)
				t.resume()
			}
		}
		for _, k := range append([]kind{leases}, watched...) {
			op.broken[k] = true
		}
	}
	w.staleLists = false
	for k := range w.cluster.log {
		w.oldest[k] = len(w.cluster.log[k])
	}
	return true
}

// setBackSince says that etcd was set back since then.
func (w *world) setBackSince(t time.Duration) bool { return w.setBackAt >= 0 && w.setBackAt >= t }

// podRestored brings the truth about a pod to what etcd was set back to.
func (w *world) podRestored(p *pod, o *corev1.Pod) {
	if !p.exists() && p.relapsed < 0 && p.process != nil && !p.process.alive {
		p.relapsed = p.ended()
	}
	p.gone, p.finished, p.stopped = -1, -1, -1
	p.bound = o.Spec.NodeName != ""
	if !p.bound {
		// It waits for a node, once more. What ran is none of its containers.
		p.process, p.heard, p.answered, p.nodeLost, p.reported = nil, never, never, false, ""
		return
	}
	if p.process == nil {
		p.process = &process{interval: p.owed.Interval, next: w.now, started: w.now}
	}
	p.reported = ""
	for _, s := range o.Status.ContainerStatuses {
		if p.reported = "ended"; s.State.Running != nil {
			p.reported = "running"
		}
	}
}

// recordRestored opens a queue again whose closing was undone with etcd.
func (w *world) recordRestored(o *v1alpha1.ReplyQueue) {
	if o.Status.Closing != nil {
		return
	}
	for _, q := range w.queues {
		if q.record == string(o.UID) {
			if q.closed >= 0 {
				w.happened["a closing is undone with etcd"]++
			}
			q.closed = -1
		}
	}
}

// lateBy is how far behind an API server is that a new leader asks first: for each kind, by up to so many events.
func (w *world) lateBy(arg uint64, most int) func(kind) int {
	return func(k kind) int {
		n := 0
		if most > 0 {
			for i, known := range append([]kind{leases}, watched...) {
				if known == k {
					n = int(arg>>(4*i)&0xf) % (most + 1)
				}
			}
		}
		return max(w.oldest[k], w.cluster.present(k)-n)
	}
}

// forge is somebody who writes to another's Lease, as anybody may while the policy that guards heartbeats is missing: a
// renewal, or the mark by which the operator closes.
func (w *world) forge(lease *coordinationv1.Lease, arg uint64) string {
	if arg%3 == 0 {
		w.must(w.cluster.edit(lease, func() { lease.Spec.RenewTime = w.beacon().Spec.RenewTime; w.beacons++ }))
		return "renewed"
	}
	w.must(w.cluster.edit(lease, func() { mark(lease) }))
	return "marked as closing"
}
