package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Degraded worlds: rows of the table in docs/operations.md, each with the outcome that stands there. Those that need
// the whole operator are in test/worlds.

var errUnreachable = errors.New("the API server cannot be reached")

// unreachable has the operator meet an API server that answers nothing.
func (s *stage) unreachable() (restore func()) {
	s.Helper()
	direct, err := sharedEnvironment()
	s.must(err)
	down := interceptor.NewClient(direct, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return errUnreachable
		},
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errUnreachable
		},
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return errUnreachable
		},
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return errUnreachable
		},
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errUnreachable
		},
		Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
			return errUnreachable
		},
	})
	// What is in the cache can still be read: that is what makes an operator dangerous.
	cached := interceptor.NewClient(direct, interceptor.Funcs{
		List: s.interceptors().List,
		SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return errUnreachable
		},
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return errUnreachable
		},
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errUnreachable
		},
		Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
			return errUnreachable
		},
	})
	s.records.Client, s.records.Reader, s.pods.Client, s.pods.Reader = cached, down, cached, down
	return func() { s.records.Client, s.records.Reader, s.pods.Client, s.pods.Reader = s, s, s, s }
}

// attempt reconciles everything of some pods once, whatever comes of it.
func (s *stage) attempt(pods ...*corev1.Pod) {
	for _, p := range pods {
		_, _ = s.pods.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)})
		for _, q := range s.recordsOf(p) {
			_, _ = s.records.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&q)})
		}
	}
}

// The API server cannot be reached for longer than the retention, and is back: no queue is deleted meanwhile, and every
// count begins again. That calls go on is test/worlds'.
func TestWorldAPIServerUnreachable(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	lively, silent, stopped := s.runningCaller("lively"), s.runningCaller("silent"), s.runningCaller("stopped")
	s.stop(stopped)
	s.settle()
	s.beatFor(lively, func() { s.pass(25 * time.Second) }) // silent is silent for 25 s, and stopped has 5 s left
	restore := s.unreachable()
	for range 60 { // no beacon comes back, and no heartbeat
		s.elapse(heartbeat.BeaconInterval)
		s.signals.Heartbeats.Tick(s.clock.Now())
		s.attempt(lively, silent, stopped)
	}
	if n := len(s.queues()); n != 3 {
		t.Fatalf("%d queues after five minutes without an API server, want all 3", n)
	}
	restore()
	s.beacon()
	s.beat(lively)
	s.settle()
	s.beatFor(lively, func() { s.pass(25 * time.Second) })
	if n := len(s.queues()); n != 3 {
		t.Fatalf("%d queues, want all 3: neither silence nor a drain is counted from before", n)
	}
	s.beatFor(lively, func() { s.pass(15 * time.Second) })
	if len(s.recordsOf(silent)) != 1 {
		t.Fatal("silence was counted from before")
	}
	s.expectGone(stopped)
	s.beatFor(lively, func() { s.pass(25 * time.Second) })
	s.expectGone(silent)
	s.expectKept(lively)
}

// The same where a queue is kept for longer than a leader may live: what was noted before stands, but five heartbeats' time, or
// that of a process that lives unseen, is counted anew, and whoever heartbeats in it is counted from nothing.
func TestWorldAPIServerUnreachableAndNotes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		identity v1alpha1.Identity
		anew     time.Duration
		comes    bool
	}{
		"silent":             {v1alpha1.IdentityPod, 5 * time.Minute, false},
		"silent, and comes":  {v1alpha1.IdentityPod, 5 * time.Minute, true},
		"its name is absent": {v1alpha1.IdentityStable, 2 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := keptFor(t, c.identity, time.Hour)
			p := s.unread(c.identity)
			s.goBy(57 * time.Minute)
			restore := s.unreachable()
			for range 2 * 60 * 60 / int(heartbeat.BeaconInterval/time.Second) {
				s.elapse(heartbeat.BeaconInterval)
				s.signals.Heartbeats.Tick(s.clock.Now())
			}
			s.attempt(p)
			restore()
			s.beacon()
			s.settle()
			s.goBy(c.anew - time.Second)
			if n := len(s.queues()); n != 1 {
				t.Fatal("closed by what was counted before the outage alone")
			}
			if c.comes {
				s.beat(p)
				s.settle()
				s.goBy(55 * time.Minute)
				if n := len(s.queues()); n != 1 {
					t.Fatal("closed though it was heard")
				}
			}
			s.goBy(9 * time.Minute)
			if n := len(s.queues()); n != 0 {
				t.Errorf("%d queues, want none: it was unread for an hour, and for long enough of that since", n)
			}
		})
	}
}

// expectKept is P2 for one pod: one record, its queue, and the URL on the pod.
func (s *stage) expectKept(p *corev1.Pod) {
	s.Helper()
	records := s.recordsOf(p)
	if len(records) != 1 || !slices.Contains(s.queues(), "rq_c_r_"+string(records[0].UID)) {
		s.Errorf("pod %s has %d records, queues are %v; want its queue kept", p.Name, len(records), s.queues())
	}
}

// expectGone says that a pod has neither record nor queue.
func (s *stage) expectGone(p *corev1.Pod) {
	s.Helper()
	if n := len(s.recordsOf(p)); n != 0 {
		s.Errorf("pod %s has %d records still", p.Name, n)
	}
}

// Half of the Leases fall silent at once: all is held, the ReplyHosts say so, and it is released when it ends.
func TestWorldHalfOfTheLeasesSilent(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	var all []*corev1.Pod
	for i := range 22 {
		all = append(all, s.pod(fmt.Sprintf("web-%d", i), caller()))
	}
	s.settle()
	for _, p := range all {
		s.run(p)
	}
	s.settle()
	s.wait(20*time.Second, all)
	lively, silent := all[:11], all[11:]
	s.wait(2*time.Minute, lively)
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	s.reread(host)
	if n := len(s.queues()); n != 22 || !conditions.Is(host, v1alpha1.ConditionHeartbeatOutage, metav1.ConditionTrue) {
		t.Fatalf("%d queues, want all 22 held; conditions %v", n, host.Status.Conditions)
	}
	heard := slices.Concat(lively, silent[:9]) // two stay silent, by themselves
	s.wait(20*time.Second, heard)
	s.reread(host)
	if conditions.Is(host, v1alpha1.ConditionHeartbeatOutage, metav1.ConditionTrue) {
		t.Error("still an outage when most are heard")
	}
	if n := len(s.queues()); n != 22 {
		t.Errorf("%d queues, want 22: what anybody was silent for in the outage does not count", n)
	}
	s.wait(2*time.Minute, heard)
	if n := len(s.queues()); n != 20 {
		t.Errorf("%d queues, want 20: two are idle", n)
	}
}

// wait lets time go by while some pods heartbeat every 10 s, with nothing reconciled but what the heartbeats call for;
// and then settles.
func (s *stage) wait(d time.Duration, lively []*corev1.Pod) {
	s.Helper()
	for ; d > 0; d -= 10 * time.Second {
		for range 2 {
			s.clock.Step(heartbeat.BeaconInterval)
			s.beacon()
		}
		for _, p := range lively {
			s.quietBeat(p)
		}
		s.listen()
		for _, n := range s.signals.Heartbeats.Tick(s.clock.Now()) {
			s.attempt(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: n.Pod.Namespace, Name: n.Pod.Name, UID: n.UID}})
		}
	}
	s.settle()
}

// The policy on heartbeats is deleted: the ReplyHosts say so, nothing is closed for idleness meanwhile, and what is
// silent still is closed when the policy is back.
func TestWorldPolicyDeleted(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.guarded = false
	s.pass(5 * time.Minute)
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	s.reread(host)
	if s.expectKept(p); conditions.Reason(host, v1alpha1.ConditionHeartbeatsUnguarded) != v1alpha1.ReasonPolicyMissing {
		t.Errorf("conditions %v", host.Status.Conditions)
	}
	s.guarded = true
	s.pass(65 * time.Second)
	s.expectGone(p)
}

// The namespace of the heartbeats is gone (here: no Lease of this stage can be written): pods start all the same, those
// that run keep their queues, and Leases are written again when it is back. With a real namespace: test/worlds.
func TestWorldHeartbeatsCannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.must(s.Delete(s.ctx, s.lease(p)))
	s.intercept = func(verb string, o client.Object) error {
		if _, ok := o.(*coordinationv1.Lease); ok && verb == "create" {
			return apierrors.NewNotFound(corev1.Resource("namespaces"), v1alpha1.HeartbeatNamespace)
		}
		return nil
	}
	late := s.pod("web-2", caller())
	for range 24 { // each round tries again to write the Leases, so this never settles
		s.elapse(heartbeat.BeaconInterval)
		s.beacon()
		s.round()
	}
	if s.reread(late); gated(late) || late.Annotations[v1alpha1.AnnotationReplyQueueURL] == "" {
		t.Error("a pod does not start because nobody could hear it")
	}
	s.expectKept(p)
	s.intercept = nil
	s.settle()
	if !s.leaseExists(p) || !s.leaseExists(late) {
		t.Error("the Leases were not written again")
	}
	s.pass(65 * time.Second)
	s.expectGone(p)
}

// SQS is down: new pods stay gated and say why, deletions wait, and all is well when it is back.
func TestWorldSQSDown(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	running, stopped := s.runningCaller("running"), s.runningCaller("stopped")
	s.stop(stopped)
	s.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropBefore}}})
	late := s.pod("late", caller())
	for range 14 {
		s.elapse(heartbeat.BeaconInterval)
		s.beacon()
		s.beat(running)
		s.attempt(running, stopped, late)
	}
	s.drainEvents()
	s.reread(late)
	if !gated(late) || !strings.Contains(late.Annotations[v1alpha1.AnnotationWaitingFor], v1alpha1.ReasonSQSUnavailable) || s.heardEvent(EventWaiting) != 1 {
		t.Errorf("gated %v, waiting for %q, events %v", gated(late), late.Annotations[v1alpha1.AnnotationWaitingFor], s.said)
	}
	if q := s.recordsOf(stopped); len(q) != 1 || open(&q[0]) {
		t.Errorf("records of the pod that stopped %v, want one that is closed and waits for its deletion", q)
	}
	s.sqs.SetFaults(sqstest.Plan{})
	s.settle()
	if s.reread(late); gated(late) {
		t.Errorf("still gated: %v", late.Annotations)
	}
	s.expectGone(stopped)
	s.expectKept(running)
	if n := len(s.queues()); n != 2 {
		t.Errorf("%d queues, want 2", n)
	}
}

// jumped is the same moment when somebody has set the computer's clock by d: another wall time, the same monotonic one.
// It reaches into time.Time, since nothing else makes one.
func jumped(t *testing.T, now time.Time, d time.Duration) time.Time {
	t.Helper()
	const secondsAt, hasMonotonic = 30, 1 << 63
	then := now
	wall := (*uint64)(unsafe.Pointer(&then))
	if *wall&hasMonotonic == 0 {
		t.Fatal("the clock has no monotonic part")
	}
	*wall += uint64(int64(d/time.Second)) << secondsAt //nolint:gosec // Two's complement subtracts.
	if then.Sub(now) != 0 || then.Round(0).Sub(now.Round(0)) != d {
		t.Fatalf("time.Time is made differently now: %v is no jump of %v by %s", then, now, d)
	}
	return then
}

// Clocks, of the operator and of pods, jump by a day, forward and back: no decision changes.
func TestWorldClocksJump(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, day := range map[string]time.Duration{"forward": day, "back": -day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newReadyStage(t)
			lively, silent, stopped := s.runningCaller("lively"), s.runningCaller("silent"), s.runningCaller("stopped")
			n := 0
			s.onTick = func() { // the pod's clock jumps with each heartbeat, to and fro
				l := s.lease(lively)
				before := l.DeepCopy()
				n++
				l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now().Add(time.Duration(n%2) * day).Add(time.Duration(n) * time.Millisecond)))
				s.must(s.Patch(s.ctx, l, client.MergeFrom(before)))
				s.writes--
				s.listen()
			}
			s.pass(20 * time.Second)
			s.stop(stopped)
			s.settle()
			s.clock.SetTime(jumped(t, s.clock.Now(), day))
			s.pass(25 * time.Second)
			if n := len(s.queues()); n != 3 {
				t.Fatalf("%d queues, want all 3: neither retention nor drain is over", n)
			}
			s.pass(10 * time.Second)
			s.expectGone(stopped)
			s.clock.SetTime(jumped(t, s.clock.Now(), -day))
			s.pass(5 * time.Second)
			s.expectKept(silent)
			s.pass(5 * time.Second)
			s.expectGone(silent)
			s.pass(2 * time.Minute)
			s.expectKept(lively)
		})
	}
}

// A live reply queue costs nothing: not one SQS request in a day of heartbeats, and not one write.
func TestADayCostsNothing(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	writes, requests := s.writes, s.sqs.Requests()
	lease := s.lease(p)
	for at := time.Duration(0); at < 24*time.Hour; at += 10 * time.Second {
		// Every heartbeat and beacon is delivered as by the watch, and every notice would be carried out.
		s.elapse(10 * time.Second)
		for range 2 {
			s.beacon()
		}
		s.beats++
		lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(s.clock.Now()))
		notices := s.signals.Heartbeats.Apply(lease, s.clock.Now())
		notices = append(notices, s.signals.Heartbeats.Tick(s.clock.Now())...)
		if len(notices) != 0 {
			t.Fatalf("after %s a heartbeat calls for a reconcile: %v", at, notices)
		}
		if at%time.Hour == 0 {
			s.round() // what a reconcile would do that comes for another reason
		}
	}
	if s.writes != writes || s.sqs.Requests() != requests {
		t.Errorf("%d writes and %d SQS requests in a day, want none: %v", s.writes-writes, s.sqs.Requests()-requests, s.sqs.RequestsByAction())
	}
	s.expectKept(p)
}
