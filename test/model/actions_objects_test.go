package model

import (
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// objectActions are what people do to ReplyHosts, records, Leases and queues.
var objectActions = []action{
	{"all records and pods are removed by force", 2, func(w *world, arg uint64) bool {
		return w.loseEverything(rand.New(rand.NewPCG(arg, 18)))
	}},
	{"sweep is allowed", 4, func(w *world, arg uint64) bool {
		random := rand.New(rand.NewPCG(arg, 15))
		if op := w.leader; !w.held() && (op == nil || op.paused || op.cut || len(op.deaf) > 0 || w.down || w.elsewhere || w.lag || w.staleLists || w.conflict()) {
			return false // No sweep would come to be held.
		}
		if !w.held() && (!w.loseEverything(random) || !w.until(4*time.Minute, random, w.held)) {
			return false
		}
		return w.allow()
	}},
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
		w.owe(h)
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
	{"ReplyHost is removed by force", 2, func(w *world, arg uint64) bool {
		h := w.hostNamed(arg)
		if h == nil {
			return false
		}
		w.removeHost(h)
		return true
	}},
	{"ReplyHost is created", 8, func(w *world, arg uint64) bool {
		if w.hostNamed(arg) != nil {
			return false
		}
		h := newHost(w.namespace, hostNames[arg%3])
		w.must(w.cluster.create(h, nil))
		w.owe(h)
		w.trace("ReplyHost %s is created", h.Name)
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
	{"record is removed by force", 4, func(w *world, arg uint64) bool {
		keys := w.cluster.keysOf(w.cluster.now[records])
		if len(keys) == 0 {
			return false
		}
		r := w.cluster.now[records][keys[arg%uint64(len(keys))]].DeepCopyObject().(*v1alpha1.ReplyQueue)
		w.trace("record %s is removed by a person, past its finalizer", r.Name)
		w.loseRecord(r)
		return true
	}},
	{"reply queue is deleted by a stranger", 4, func(w *world, arg uint64) bool {
		names := w.queueNames()
		if len(names) == 0 {
			return false
		}
		q := w.queues[names[arg%uint64(len(names))]]
		if q.away {
			return false
		}
		_, err := w.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &q.url})
		w.must(err)
		w.vanished(q)
		w.taken[q.url] = true
		w.trace("%s is deleted in SQS by a stranger", q.name)
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
	{"garbage is collected", 4, func(w *world, arg uint64) bool {
		if !w.collect() {
			h := w.hostNamed(arg)
			if h == nil {
				return false
			}
			w.removeHost(h)
			if !w.collect() {
				return false
			}
		}
		w.trace("records without an owner are deleted")
		return true
	}},
}
