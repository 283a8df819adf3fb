package model

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/internal/fence"
)

// Copies of the cluster, what SQS shows them, and the process that stands by in the original.

// how is what makes it hard for a copy of the cluster to find out that it is one.
type how int

const (
	// plain: nothing does.
	plain how = iota
	// unmarked: somebody deletes the marker before the copy looks.
	unmarked
	// late: SQS shows the copy the marker as it was, for up to a minute.
	late
	// unwritten: the original's requests to change the nonce fail for a while.
	unwritten
)

// copyCluster boots a copy of the cluster beside it: the same objects, another API server, the same SQS. It is not begun
// where the original does not change the nonce: nothing could tell the two apart. In the copy, some pods are gone at once:
// they have no nodes there.
func (w *world) copyCluster(arg uint64, how how) bool {
	original, ok := w.cluster.server.(*memory)
	if !ok || w.alone || len(w.copies) > 0 || w.down || w.elsewhere || w.leader == nil || w.leader.paused || w.leader.cut || len(w.nonces()) == 0 {
		return false
	}
	random := rand.New(rand.NewPCG(arg, 6))
	if how == unwritten {
		w.unwritten = true
		w.trace("the nonce cannot be changed for a while")
		w.pass(15*time.Second, random, 0)
	}
	known := w.nonces()
	w.trace("the cluster is copied")
	c := newCluster(original.clone())
	c.birth = maps.Clone(w.cluster.birth)
	c.first = map[kind]map[types.NamespacedName]client.Object{}
	for k, all := range w.cluster.now {
		c.now[k], c.first[k] = maps.Clone(all), maps.Clone(all)
	}
	told := func() bool {
		now, _ := w.nonce()
		return !slices.Contains(known, now) && slices.Contains(w.nonces(), now)
	}
	w.pass(20*time.Second, random, 0)
	if w.violation != nil || how != unwritten && !told() {
		w.unwritten = false
		return true
	}
	if how == unmarked {
		w.removeMarker(arg>>4&1 == 0)
	}
	for i, key := range c.keysOf(c.now[pods]) {
		if arg>>(8+i%32)&1 == 0 {
			w.must(client.IgnoreNotFound(c.remove(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, nil, client.GracePeriodSeconds(0))))
		}
	}
	w.trace("the copy is booted beside it")
	op := w.newOperator(c, c.present)
	w.copies = append(w.copies, op)
	w.happened["queues in the way of a copy of their cluster"] += len(w.queues)
	switch how {
	case unmarked:
		// The copy looks before the original has made the marker again.
		w.runCopies(random)
	case late:
		op.markerLate = 20*time.Second + time.Duration(arg>>40%41)*time.Second
		w.runCopies(random)
	case unwritten:
		w.pass(time.Duration(arg>>40%20)*time.Second, random, 0)
		w.unwritten = false
		if !w.until(time.Minute, random, told) && w.violation == nil {
			w.kill(op, 0)
			w.trace("the copy is stopped: its original did not change the nonce")
		}
	}
	return true
}

// runCopies lets the copies work for a moment in which the original gets no time.
func (w *world) runCopies(random *rand.Rand) {
	was := map[*operator]bool{}
	for _, op := range w.everyone() {
		was[op] = op.paused
		op.paused = op.paused || op.cluster == w.cluster
	}
	w.pass(10*time.Second, random, 0)
	for op, paused := range was {
		op.paused = paused
	}
}

// sight is what the marker's tags were, from a time on; nil: there was no marker.
type sight struct {
	at   time.Duration
	tags map[string]string
}

// sighted keeps what the marker's tags are now.
func (w *world) sighted() {
	q, _ := w.sqsServer.Queue(marker)
	w.sights = append(w.sights, sight{w.now, q.Tags})
}

// markerAsOf are the tags that the marker bore at a time; nil: it did not bear any.
func (w *world) markerAsOf(at time.Duration) (tags map[string]string) {
	for _, s := range w.sights {
		if s.at <= at {
			tags = s.tags
		}
	}
	return tags
}

// showLate answers a process with the marker's tags as SQS shows them to it.
func (op *operator) showLate(queue string, out *sqs.ListQueueTagsOutput) *sqs.ListQueueTagsOutput {
	if op.markerLate == 0 || out == nil || nameOf(queue) != marker {
		return out
	}
	if tags := op.world.markerAsOf(op.world.now - op.markerLate); tags != nil {
		return &sqs.ListQueueTagsOutput{Tags: tags}
	}
	return out
}

// standBy lets the process look that may lead next. It only reads, so that nothing that happens between two of its calls
// matters.
func (w *world) standBy() {
	if op := w.standby; op != nil && w.now >= op.nextCheck {
		op.nextCheck = w.now + fence.DefaultInterval
		op.fence.Look(op.ctx)
	}
}

// takesOver is the process that leads next: the one that stood by, or another that has only begun.
func (w *world) takesOver(arg uint64) *operator {
	if op := w.standby; op != nil && arg&1 == 0 {
		return op
	}
	return w.newProcess(w.cluster)
}
