package model

import (
	"context"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// The listener of heartbeats is the operator's own; here are its clock, its API server and its reflector.

// newListener gives the process its listener.
func (op *operator) newListener() {
	op.heardBy = &listenerClock{timeless: timeless{clock: op.signals.Clock.(clock)}}
	op.listener = &heartbeat.Listener{
		Ledger: op.signals.Heartbeats, Leases: beacons{op: op}, Clock: op.heardBy, Guarded: op.world.isGuarded,
		Notify: func(_ context.Context, n heartbeat.Notice) { op.notices = append(op.notices, n) },
		StateChanged: func(context.Context) {
			for _, key := range op.cluster.keysOf(op.views[hosts].objects) {
				op.queue("replyhost").Add(reconcile.Request{NamespacedName: key})
			}
		},
	}
	op.store = op.listener.Store(op.ctx)
}

// listenerClock is the process's clock, unless a mutant says for an event that it is another time.
type listenerClock struct {
	timeless
	instead time.Time
}

func (c *listenerClock) Now() time.Time {
	if !c.instead.IsZero() {
		return c.instead
	}
	return c.timeless.Now()
}

// beacons are the Leases that the listener writes: its own.
type beacons struct {
	coordinationclient.LeaseInterface // nil
	op                                *operator
}

func (b beacons) Patch(ctx context.Context, name string, as types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: name}}
	return lease, kube{op: b.op}.Patch(ctx, lease, client.RawPatch(as, data))
}

func (b beacons) Create(ctx context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	lease.Namespace = v1alpha1.HeartbeatNamespace
	return lease, kube{op: b.op}.Create(ctx, lease)
}

// listenable says that the listener has something to hear.
func (op *operator) listenable() bool {
	return !op.unreachable() && (!op.listed || op.broken[leases] || op.leases.at < len(op.cluster.log[leases]))
}

// listen hands the listener the next event of Leases, or the list with which it begins.
func (op *operator) listen() {
	switch {
	case !op.listed:
		op.listLeases(op.leases.at)
		return
	case op.broken[leases]:
		op.relistLeases()
		return
	}
	ch := op.cluster.log[leases][op.leases.at]
	op.leases.at++
	lease := ch.object.(*coordinationv1.Lease).DeepCopy()
	if was, ok := ch.before.(*coordinationv1.Lease); ok && heartbeat.RenewalOf(was) != heartbeat.RenewalOf(lease) {
		op.renewed[lease.Name] = heartbeat.RenewalOf(lease)
	}
	if lease.Name == heartbeat.BeaconName {
		if op.world.now-op.beaconAt > heartbeat.BeaconGap {
			op.wholeSince = op.world.now
		}
		op.beaconAt = op.world.now
	}
	switch {
	case ch.gone:
		delete(op.renewed, lease.Name)
		op.must(op.store.Delete(lease))
	default:
		if op.mutant.heardAt != nil && lease.Name != heartbeat.BeaconName {
			op.heardBy.instead = op.mutant.heardAt(lease, op.clock())
		}
		op.must(op.store.Update(lease))
		op.heardBy.instead = time.Time{}
	}
	op.passOn()
}

// relistLeases is a watch of Leases that broke and was replaced by a list.
func (op *operator) relistLeases() { op.listLeases(len(op.cluster.log[leases])) }

// listLeases replaces what the listener knew by a list as of a place in the log.
func (op *operator) listLeases(at int) {
	v := op.cluster.asOf(leases, at, func(client.Object) bool { return true })
	gap := !op.listed || !op.mutant.keepsCounts && !op.mutant.keepsCountsOverLists
	op.listed, op.broken[leases], op.listedAt, op.listedStep = true, false, op.world.now, op.world.step
	op.beaconAt, op.wholeSince = op.world.now, op.world.now
	var all []any
	for _, key := range op.cluster.keysOf(v.objects) {
		all = append(all, v.objects[key].DeepCopyObject())
	}
	if gap {
		op.must(op.store.Replace(all, ""))
	} else {
		for _, key := range op.cluster.keysOf(op.leases.objects) {
			if v.objects[key] == nil {
				op.must(op.store.Delete(op.leases.objects[key].DeepCopyObject()))
			}
		}
		for _, lease := range all {
			op.must(op.store.Update(lease))
		}
	}
	op.leases = v
	for uid, renewal := range op.renewed {
		switch lease, ok := v.objects[leaseOf(uid)].(*coordinationv1.Lease); {
		case !ok:
			delete(op.renewed, uid)
		case heartbeat.RenewalOf(lease) != renewal:
			op.renewed[uid] = ""
		}
	}
	op.passOn()
}

func leaseOf(uid string) types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.HeartbeatNamespace, Name: uid}
}

func (op *operator) must(err error) { op.world.must(err) }

func (op *operator) clock() time.Time { return op.signals.Clock.Now() }

// passOn does with notices what the operator's wiring does: it wakes the pod and the records that it reads. The ledger
// gives them in the order of a map; pods wake in the order in which they came.
func (op *operator) passOn() {
	notices := op.notices
	op.notices = nil
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

// tick is a second of the process's: the listener's, the fence's and the sweeper's.
func (op *operator) tick() {
	if op.paused {
		return
	}
	if op.mutant.keepsCounts {
		op.world.beacons++
		op.signals.Heartbeats.Apply(op.world.beacon(), op.clock())
	}
	op.guard()
	if op.beacon != nil && op.world.now-op.beaconSince >= heartbeat.BeaconInterval {
		// The listener gives up waiting. What it sent may arrive yet.
		t := op.beacon
		if t.stalled {
			op.world.flying = append(op.world.flying, t.pending)
		}
		t.stalled = false
		t.pending.fail(context.DeadlineExceeded)
		t.resume()
	}
	if op.beacon != nil {
		return
	}
	op.listener.Look(op.ctx)
	op.passOn()
	op.beaconSince = op.world.now
	op.beacon = op.start("beacon", func(ctx context.Context) { op.listener.Renew(ctx) }, func() {
		op.beacon = nil
		op.passOn()
	})
}

// beacon is the operator's own Lease, renewed.
func (w *world) beacon() *coordinationv1.Lease {
	at := metav1.NewMicroTime(epoch.Add(time.Duration(w.beacons) * time.Microsecond))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &at},
	}
}
