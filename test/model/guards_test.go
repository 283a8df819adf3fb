package model

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	k8sclock "k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// What stands guard over deletions: the fence against copies of the cluster, as each leading process runs it.

// identity is the ConfigMap that pins the cluster's identity.
var identity = types.NamespacedName{Namespace: "replyqueue-system", Name: "replyqueue-identity"}

// timeless is a clock for what never waits by itself here: the script says when it runs.
type timeless struct {
	k8sclock.WithTicker // nil
	clock
}

func (t timeless) Now() time.Time                   { return t.clock.Now() }
func (t timeless) Since(at time.Time) time.Duration { return t.clock.Since(at) }

// newGuards gives the process its fence, and the provider asks it.
func (op *operator) newGuards(provider *queue.Provider) {
	op.fence = &fence.Fence{
		Client: kube{op: op}, Identity: identity, ClusterUID: clusterUID, Providers: only{provider}, Recorder: &silent{},
		InUse: func(context.Context) ([]string, error) { return []string{v1alpha1.DefaultProviderName}, nil },
		Clock: timeless{clock: op.signals.Clock.(clock)},
	}
	op.provider, op.nextCheck, op.nextSweep = provider, op.world.now, op.world.now+sweepInterval
	if !op.mutant.noFence {
		provider.Fence = op.fence
	}
}

// guard has the fence compare its nonces, and the sweeper sweep, when that is due, one at a time.
func (op *operator) guard() {
	switch {
	case op.guarding:
	case op.world.now >= op.nextSweep:
		op.guarding, op.nextSweep = true, op.world.now+sweepInterval
		op.start("sweep", op.sweep, func() { op.guarding = false })
	case op.world.now >= op.nextCheck:
		op.guarding, op.nextCheck = true, op.world.now+fence.DefaultInterval
		op.start("fence", op.fence.Round, func() { op.guarding = false })
	}
}

// copyCluster boots a copy of the cluster beside it: the same objects, another API server, the same SQS. It waits as a copy's
// operator has to wait for the lease of the one that was copied, and is not begun where the original did not run
// meanwhile: nothing could tell the two apart. In the copy, some pods are gone at once: they have no nodes there.
func (w *world) copyCluster(arg uint64) bool {
	original, ok := w.cluster.server.(*memory)
	if !ok || w.alone || len(w.copies) > 0 || w.down || w.leader == nil || w.leader.paused || w.leader.cut {
		return false
	}
	w.trace("the cluster is copied")
	c := newCluster(original.clone())
	c.birth = maps.Clone(w.cluster.birth)
	for k, all := range w.cluster.now {
		c.now[k] = map[types.NamespacedName]client.Object{}
		for key, o := range all {
			c.now[k][key] = o
		}
	}
	before := w.cluster.now[configs][identity].GetResourceVersion()
	w.pass(20*time.Second, rand.New(rand.NewPCG(arg, 6)), 0)
	if w.violation != nil || w.cluster.now[configs][identity].GetResourceVersion() == before {
		return true
	}
	for i, key := range c.keysOf(c.now[pods]) {
		if arg>>(8+i%32)&1 == 0 {
			w.must(client.IgnoreNotFound(c.remove(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, nil, client.GracePeriodSeconds(0))))
		}
	}
	w.trace("the copy is booted beside it")
	w.copies = append(w.copies, w.newOperator(c))
	w.happened["in the way of a copy of their cluster"] += len(w.queues)
	return true
}
