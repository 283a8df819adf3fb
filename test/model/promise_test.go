package model

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// violation is a promise that was broken.
type violation struct {
	promise, message string
	step             int
}

func (v *violation) String() string {
	return fmt.Sprintf("%s at step %d: %s", v.promise, v.step, v.message)
}

// names are what of a message is different in every episode.
var names = regexp.MustCompile(`[-/_a-z]*[0-9][-/0-9a-z]*|true|false`)

// kind is what is alike in the messages of violations that have the same cause, most likely.
func (v *violation) kind() string { return names.ReplaceAllString(v.message, "") }

// violate notes the first promise that is broken.
func (w *world) violate(promise, format string, args ...any) {
	if w.violation == nil {
		w.violation = &violation{promise, fmt.Sprintf(format, args...), w.step}
	}
}

// noticed looks at every change of the API server.
func (w *world) noticed(k kind, ch change, by *call) {
	switch o := ch.object.(type) {
	case *corev1.Pod:
		w.podChanged(o, ch.gone)
	case *coordinationv1.Lease:
		if by == nil || ch.gone {
			return
		}
		was, _ := ch.before.(*coordinationv1.Lease)
		if o.Annotations[injected.LeaseState] == injected.LeaseStateClosing && !marked(was, o) {
			w.closing(o.Annotations[heartbeat.AnnotationRecord], by, true)
		}
		if q := w.byURL(o.Annotations[injected.LeaseReplyQueueURL]); q != nil && q.closed >= 0 && q.pod == o.Name && ch.before != nil && by.op.cluster == w.cluster {
			w.opened(q)
		}
	case *v1alpha1.ReplyQueue:
		if w.restoring && !ch.gone {
			w.recordRestored(o)
		}
		if was, ok := ch.before.(*v1alpha1.ReplyQueue); ok && !ch.gone {
			if readerOf(was) != readerOf(o) {
				w.takenOver(was, o, by)
			}
			if was.Status.Closing == nil && o.Status.Closing != nil {
				w.happened["a record is closed: "+string(o.Status.Closing.Reason)]++
			}
		}
		if by != nil && o.Status.Closing != nil {
			w.closing(string(o.UID), by, false)
		}
	}
}

// marked says that a Lease was marked closing before it was written to, so that this write did not do it: another operator's
// did, or a forger's, which closes nothing.
func marked(was, now *coordinationv1.Lease) bool {
	return was != nil && was.Annotations[injected.LeaseState] == injected.LeaseStateClosing &&
		was.Annotations[heartbeat.AnnotationClosingID] == now.Annotations[heartbeat.AnnotationClosingID]
}

// closing is the moment from which on a reply queue is lost to its reader, whatever comes: its first irreversible write.
// It is here that P2 is judged. A Lease closes the queue of one pod alone: one that belongs to a name goes over to the
// next pod of that name, which has another Lease.
func (w *world) closing(record string, by *call, byLease bool) {
	for _, q := range w.queues {
		if q.record == record && q.closed < 0 && !(byLease && q.stable) {
			twin := w.twin(q)
			q.closed = w.now
			if twin {
				continue
			}
			w.judge(q, by)
			w.happened["closed "+w.reasonWhy(q)]++
		}
	}
}

// takenOver is a record that goes over from one pod of its name to the next: not before the one is known to have stopped, or
// has been gone for the safe time, since a process that lives would have its replies read by another; and not when its
// queue is closed.
func (w *world) takenOver(was, now *v1alpha1.ReplyQueue, by *call) {
	if by == nil {
		return // It goes back, with etcd.
	}
	w.happened["taken over by a successor"]++
	for _, q := range w.queues {
		if q.record == string(now.UID) && q.closed >= 0 && by.op.cluster == w.cluster {
			w.violate("P2", "%s is given to pod %s, and was closed", q.name, w.byUID[string(readerOf(now))])
		}
	}
	p := w.byUID[string(readerOf(was))]
	if p == nil || by.op.cluster != w.cluster {
		return
	}
	switch since := w.now - p.over(p.ended()); {
	case p.exists():
		w.violate("P2", "pod %s takes the queue of its name over from %s, which exists", w.byUID[string(readerOf(now))], p)
	case p.stopped >= 0:
	case since < p.safeTime():
		w.violate("P2", "pod %s takes the queue of its name over %v after %s was gone; nobody knows that its containers stopped, and the safe time is %v (its process lives: %t)",
			w.byUID[string(readerOf(now))], since, p, p.safeTime(), living(p))
	default:
		w.happened["taken over after the safe time"]++
	}
}

// twin says that a queue was made in another account for a record that has its queue in this one: its process never knew
// of it.
func (w *world) twin(q *reply) bool {
	if !q.away {
		return false
	}
	for _, o := range w.cluster.now[records] {
		if string(o.GetUID()) == q.record {
			url := o.(*v1alpha1.ReplyQueue).Status.QueueURL
			return url != "" && url != q.url
		}
	}
	return false
}

// opened is a Lease that names a queue again which it was marked closing for. That is right only while the record is open:
// the mark was an earlier leader's, and late.
func (w *world) opened(q *reply) {
	for _, o := range w.cluster.now[records] {
		if string(o.GetUID()) == q.record && o.(*v1alpha1.ReplyQueue).Status.Closing == nil {
			q.closed = -1
			return
		}
	}
	w.violate("P2", "the Lease of pod %s names %s, which was closed", w.byUID[q.pod], q.name)
}

// deleting is a DeleteQueue that arrives at SQS.
func (w *world) deleting(name string, q *reply, by *call) {
	if owner, foreign := w.foreign[name]; foreign {
		w.violate("P1", "DeleteQueue of %s, which is %s", name, owner)
		return
	}
	if by.op.cluster != w.cluster {
		w.violate("P2", "the operator of a copy of the cluster deletes %s", name)
		return
	}
	if q.closed < 0 {
		if w.recorded(q) || w.used(q) {
			w.judge(q, by)
		}
		return
	}
	// It was closed. Whoever heartbeats learned of it since.
	p := w.byUID[q.pod]
	if p != nil && p.gone < 0 && p.process != nil && p.process.alive && p.process.using == q.url && p.answered > q.closed {
		w.violate("P2", "DeleteQueue of %s: pod %s heartbeats, and was not told that it is closed", name, p)
	}
}

// judge is P2: "A reply queue is never deleted while its pod exists and (with Lease heartbeats) heartbeats arrive, nor
// before the pod's containers are known to have stopped or a safe time has passed."
func (w *world) judge(q *reply, by *call) {
	p := w.byUID[q.pod]
	if q.stable {
		w.judgeStable(q, by)
		return
	}
	if p == nil {
		w.violate("P2", "%s has no pod", q.name)
		return
	}
	switch {
	case p.exists():
		w.judgePresent(q, p, by)
	case p.mode == v1alpha1.HeartbeatLease && w.now-p.heard > p.retention():
		// It was silent for so long that its queue could be closed while it existed.
	case p.stopped >= 0:
		if since := w.now - p.over(p.stopped); since < p.owed.Drain {
			w.violate("P2", "%s is closed %v after its pod %s stopped, and drains for %v", q.name, since, p, p.owed.Drain)
		}
	default:
		if since := w.now - p.over(p.ended()); since < p.safeTime() {
			w.violate("P2", "%s is closed %v after its pod %s was gone; nobody knows that its containers stopped, and the safe time is %v (its process lives: %t)",
				q.name, since, p, p.safeTime(), p.process != nil && p.process.alive)
		}
	}
}

func (w *world) judgePresent(q *reply, p *pod, by *call) {
	switch {
	case p.mode == v1alpha1.HeartbeatPod:
		w.violate("P2", "%s is closed while its pod %s exists, which does not heartbeat", q.name, p)
	case p.process == nil:
		w.violate("P2", "%s is closed before its pod %s started", q.name, p)
	case w.now-p.heard <= p.retention():
		w.violate("P2", "%s is closed %v after the last heartbeat of its pod %s, and is kept for %v", q.name, w.now-p.heard, p, p.retention())
	case p.process.alive && !p.process.paused && w.now-by.op.massUntil <= p.owed.IdleRetention:
		w.violate("P2", "%s is closed %v after the heartbeats of nearly all pods were lost, and is kept for %v", q.name, w.now-by.op.massUntil, p.owed.IdleRetention)
	case by.op.blind(by, p):
		w.violate("P2", "%s is closed for idleness %v after a list replaced the operator's watch of heartbeats", q.name, w.now-by.op.listedAt)
	case w.unguardedSince >= 0 && by.decidedAt()-w.unguardedSince > time.Minute:
		w.violate("P2", "%s is closed for idleness %v after the policy that guards heartbeats vanished", q.name, w.now-w.unguardedSince)
	}
}

// decidedAt is when it was decided to make a call, which may have hung since: by the last reading of the pod. What was
// decided while the policy was there is written over the Lease that was read then, so that no forgery can be in it.
func (c *call) decidedAt() time.Duration {
	if c.task == nil || c.task.podRead == 0 {
		return c.op.world.now
	}
	return c.task.podReadAt
}

// judgeStable is P2 for a queue that belongs to a name: while a pod of that name exists it is kept, and after that for
// the idle retention, or, when nobody is to come for whom it would be kept, for the drain or the safe time. A pod that came
// after the closing operator had looked at the API server is excused: no write can depend on two objects. But the record is
// one: where it is that pod's already, nobody may close it who does not know.
func (w *world) judgeStable(q *reply, by *call) {
	last, wait, forsaken := time.Duration(-1), time.Duration(0), false
	for _, p := range w.pods {
		if p.name != q.podName || !p.stable {
			continue
		}
		if p.exists() {
			if w.hasAnother(p, q) {
				forsaken = true
				continue
			}
			if by.task == nil || by.task.podRead == 0 || p.bornStep < by.task.podRead || w.reads(p, q) {
				w.violate("P2", "%s is closed while pod %s of its name exists", q.name, p)
				return
			}
			continue
		}
		if p.process != nil && p.over(p.ended()) > last {
			last, wait = p.over(p.ended()), p.safeTime()
			if p.stopped >= 0 {
				wait = p.owed.Drain
			}
		}
	}
	p := w.byUID[q.pod]
	if p == nil || last < 0 {
		return
	}
	if !w.leaves(q) && !forsaken {
		wait = p.owed.IdleRetention
	}
	if w.now-last < wait {
		w.violate("P2", "%s is closed %v after the last pod of its name, and is kept for %v", q.name, w.now-last, wait)
	}
}

// leaves says that a queue's record, or its ReplyHost, is being deleted.
func (w *world) leaves(q *reply) bool {
	for _, o := range w.cluster.now[records] {
		if r := o.(*v1alpha1.ReplyQueue); string(r.UID) == q.record {
			h := w.cluster.now[hosts][types.NamespacedName{Namespace: r.Namespace, Name: r.Spec.HostRef.Name}]
			return r.DeletionTimestamp != nil || h != nil && h.GetDeletionTimestamp() != nil
		}
	}
	return false
}

// hasAnother says that an open record stands for another queue that a pod reads, and none for this one, which its process has
// left, or never heard of: one that was not told yet reads it on.
func (w *world) hasAnother(p *pod, q *reply) bool {
	if w.reads(p, q) || p.process != nil && p.process.alive && p.process.using == q.url {
		return false
	}
	for _, o := range w.cluster.now[records] {
		if r := o.(*v1alpha1.ReplyQueue); string(readerOf(r)) == p.uid && r.Status.Closing == nil {
			return true
		}
	}
	return false
}

// passedOver says that the pod which has the name of a Stable record's reader has another open record.
func (w *world) passedOver(r *v1alpha1.ReplyQueue) bool {
	for _, p := range w.pods {
		if p.name == r.Spec.PodRef.Name && p.stable && p.exists() {
			return w.hasAnother(p, &reply{record: string(r.UID)})
		}
	}
	return false
}

// reads says that a pod is the one that reads a queue, by the queue's record.
func (w *world) reads(p *pod, q *reply) bool {
	for _, o := range w.cluster.now[records] {
		if string(o.GetUID()) == q.record {
			return string(readerOf(o.(*v1alpha1.ReplyQueue))) == p.uid
		}
	}
	return false
}

// massSilence says that so many heartbeats are lost on their way that no silence means anything: clearly more than the
// share and number at which the operator is to notice, among those that are to be heard of as often. An operator expects to
// hear of those whose open records it knows, and of those that it heard before, also where its watch of records hangs. Of others it
// cannot tell that they fell silent: they may have been long before it came. Nor does it know for how long anybody was silent
// before it came, or before a gap in its view.
func (op *operator) massSilence() bool {
	w := op.world
	if w.lostSince == never {
		return false
	}
	known := map[string]bool{}
	for _, o := range op.views[records].objects {
		if record := o.(*v1alpha1.ReplyQueue); record.Status.Closing == nil {
			known[string(readerOf(record))] = true
		}
	}
	type count struct{ missing, all int }
	paces := map[time.Duration]*count{}
	for _, p := range w.pods {
		renewal, renewed := op.renewed[p.uid]
		if !known[p.uid] && !renewed || !p.exists() || p.mode != v1alpha1.HeartbeatLease || p.stable || p.process == nil || !p.process.alive || p.process.using == "" || p.reported != "running" {
			continue
		}
		pace := p.process.interval
		if renewal == "" || p.answered == never {
			pace = max(pace, op.advises(p))
		}
		c := paces[pace]
		if c == nil {
			c = &count{}
			paces[pace] = c
		}
		c.all++
		if (w.lost || p.muted) && !p.process.paused && w.now-max(w.lostSince, p.heard, op.wholeSince) > 4*pace {
			c.missing++
		}
	}
	for pace, c := range paces {
		missing, all := 0, 0
		for other, d := range paces {
			if other <= pace {
				missing, all = missing+d.missing, all+d.all
			}
		}
		if c.missing > 0 && missing > 12 && missing*2 > all {
			return true
		}
	}
	return false
}

// advises is the longest interval that an operator has to think a pod's process may have been told of, while it did not see
// its last heartbeat.
func (op *operator) advises(p *pod) time.Duration {
	longest := time.Duration(0)
	if h, ok := op.views[hosts].objects[types.NamespacedName{Namespace: op.world.namespace, Name: p.host}].(*v1alpha1.ReplyHost); ok {
		longest = lifecycle.TermsOf(&v1alpha1.ReplyQueue{}, h).Interval
	}
	if lease := op.cluster.now[leases][leaseOf(p.uid)]; lease != nil {
		for _, said := range []string{injected.LeaseIntervalSeconds, heartbeat.AnnotationKnownInterval} {
			if n, err := strconv.Atoi(lease.GetAnnotations()[said]); err == nil {
				longest = max(longest, time.Duration(n)*time.Second)
			}
		}
	}
	return longest
}

// judgeRest is P3 and the other half of P2, when everything has come to rest: every reply queue has a pod that needs it,
// and every pod that needs one has one, and does not wait at its gate.
func (w *world) judgeRest() {
	for _, name := range w.queueNames() {
		q := w.queues[name]
		if why := w.uselessness(q); why != "" && !w.braked() {
			w.violate("P3", "%s is left: %s", name, why)
		}
	}
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) {
		if w.braked() {
			return
		}
		if r.Status.Closing != nil {
			w.violate("P3", "record %s is left, closed", r.Name)
		} else if p := w.byUID[string(readerOf(r))]; p == nil || !p.exists() && !p.stable {
			w.violate("P3", "record %s is left without its pod", r.Name)
		} else if !p.exists() && w.passedOver(r) {
			w.violate("P3", "record %s is left: the pod of its name has another", r.Name)
		}
	})
	for _, p := range w.pods {
		if p.exists() && !p.open && !p.terminating && (p.unlabelled || w.hostServes(p) && !w.conflict()) {
			w.violate("P2", "pod %s waits at its gate (unlabelled: %t), and nothing is in its way", p, p.unlabelled)
		}
		if p.exists() && p.process != nil && p.process.alive && !p.process.paused && !p.unlabelled && !p.terminating && p.mode == v1alpha1.HeartbeatLease && w.hostServes(p) {
			if q := w.byURL(p.process.using); q == nil && !w.conflict() && !w.manyMissing() && !w.elsewhereAndSaid(p.process.using) {
				w.violate("P2", "pod %s lives and has no reply queue (it was told %q)", p, p.process.using)
			}
		}
	}
}

// manyMissing says that so many records have no queue, in the account of the operator's credentials, that the operator rather doubts its view, and says so: their pods keep
// what they have.
func (w *world) manyMissing() bool {
	missing, open := 0, 0
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) {
		if r.Status.Closing == nil && r.Status.QueueURL != "" {
			open++
			if q := w.byURL(r.Status.QueueURL); q == nil || q.away {
				missing++
			}
		}
	})
	return missing > 10 && missing*5 > open
}

// elsewhereAndSaid says that a queue is one of another account, which the operator was given credentials of and has no more:
// it cannot tell whether that queue is there, keeps the record, and says so.
func (w *world) elsewhereAndSaid(url string) bool {
	named := false
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) { named = named || r.Status.QueueURL == url })
	return named && strings.Contains(url, "/"+awayAccount+"/") && w.leader != nil &&
		strings.Contains(w.leader.fence.Trouble(v1alpha1.DefaultProviderName, v1alpha1.ConditionSweepIncomplete), nameOf(url))
}

// hostServes says that the pod's ReplyHost exists and takes new pods.
func (w *world) hostServes(p *pod) bool {
	h, ok := w.cluster.now[hosts][types.NamespacedName{Namespace: w.namespace, Name: p.host}].(*v1alpha1.ReplyHost)
	return ok && h.DeletionTimestamp == nil
}

// uselessness says why a queue has no reason to exist; empty: it has.
func (w *world) uselessness(q *reply) string {
	switch {
	case q.away:
		return "" // The operator cannot see it.
	case q.copied:
		return "" // The copy has a record for it, and a human to decide which of the two clusters goes.
	case !w.recorded(q) && w.podKnown(q) && !w.forsaken(q):
		return "" // Its pod is the sweeper's reason to wait.
	case q.closed >= 0:
		return "it was closed"
	}
	if q.stable {
		for _, p := range w.pods {
			if p.name == q.podName && p.stable && p.exists() {
				if w.recorded(q) && w.hasAnother(p, q) {
					return "the pod of its name has another"
				}
				return ""
			}
		}
		return "no pod of its name exists"
	}
	p := w.byUID[q.pod]
	switch {
	case p == nil:
		return "it has no pod"
	case !p.exists():
		return "its pod " + p.String() + " is gone"
	case p.mode == v1alpha1.HeartbeatLease && p.process != nil && p.process.alive && p.process.paused &&
		w.now-p.heard > 3*p.retention() && p.reported == "running" && !p.unlabelled && !p.terminating && !w.outageOfHeartbeats():
		return "its pod " + p.String() + " is silent"
	}
	return ""
}

// podKnown says that the API server knows the pod that a queue was made for, or one of that name that was told of it, or may
// have been, and that it has not ended.
func (w *world) podKnown(q *reply) bool {
	o, ok := w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: q.podName}].(*corev1.Pod)
	return ok && !terminal(o) && (q.stable || string(o.GetUID()) == q.pod || o.GetAnnotations()[v1alpha1.AnnotationReplyQueueURL] == q.url)
}

// forsaken says that the pod of a Stable queue's name heartbeats, and reads another, by that one's record.
func (w *world) forsaken(q *reply) bool {
	for _, p := range w.pods {
		if q.stable && p.name == q.podName && p.gone < 0 {
			other := w.queues[nameOf(p.told)]
			return p.mode == v1alpha1.HeartbeatLease && living(p) && !p.nodeLost && !p.unlabelled && !p.terminating && p.process.using == p.told &&
				other != nil && other != q && w.recorded(other)
		}
	}
	return false
}

// outageOfHeartbeats says that the operator rightly holds the queues of silent pods, and says so.
func (w *world) outageOfHeartbeats() bool {
	return w.leader != nil && w.leader.signals.Heartbeats.Outage()
}

// safeTime is what lifecycle promises a process that nobody saw stop.
func (p *pod) safeTime() time.Duration { return p.owed.SafeTime() }

// retention is how long silence is tolerated: what the ReplyHost says, and no less than five heartbeats at the pace that
// the process was told last.
func (p *pod) retention() time.Duration {
	t := p.owed
	if p.process != nil {
		t = t.NoFasterThan(p.process.interval)
	}
	return t.IdleRetention
}

// reasonWhy says in what state a pod's queue is closed.
func (w *world) reasonWhy(q *reply) string {
	p := w.byUID[q.pod]
	switch {
	case q.stable:
		return "as its name is absent"
	case p == nil:
		return "without a pod"
	case p.exists():
		return "as idle"
	case p.stopped >= 0:
		return "as its pod stopped"
	case p.process != nil && p.process.alive:
		return "as its pod is gone, while its process lives"
	}
	return "as its pod is gone"
}

// recorded says that a record stands for the queue.
func (w *world) recorded(q *reply) bool {
	for _, o := range w.cluster.now[records] {
		if string(o.GetUID()) == q.record {
			return true
		}
	}
	return false
}

// used says that a process reads the queue, or would when it is started again.
func (w *world) used(q *reply) bool {
	for _, p := range w.pods {
		if p.exists() && p.process != nil && p.process.using == q.url {
			return true
		}
	}
	return false
}

// braked says that the operator holds all deletions, and says so: by the sweep's brake, or because the fence sees a nonce
// that it does not know. The latter is also what comes of a request of an old leader that is later than the nonces are
// remembered.
func (w *world) braked() bool {
	return w.held() || w.conflict()
}

// blind says that the process decided on a closing before it had watched heartbeats for as long as silence is tolerated: a
// count was not begun anew when its view had a gap. A list that came after the decision says nothing. Nor does a longer pace
// that the application was told and that was undone with etcd: no operator can know of it. How long the application was
// silent itself is judged by that pace all the same.
func (op *operator) blind(by *call, p *pod) bool {
	return by.task != nil && op.listedStep < by.task.began && op.world.now-op.listedAt <= p.owed.IdleRetention
}
