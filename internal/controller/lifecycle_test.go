package controller

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestPodGetsItsAddresses(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.pod("web-1", caller())
	s.settle()
	s.reread(p)

	if gates := p.Spec.SchedulingGates; len(gates) != 1 || gates[0].Name != "example.com/other" {
		t.Errorf("gates %v, want the other one alone", gates)
	}
	records := s.recordsOf(p)
	if len(records) != 1 || records[0].Status.State != v1alpha1.ReplyQueueActive || !conditions.Is(&records[0], v1alpha1.ConditionReady, metav1.ConditionTrue) {
		t.Fatalf("records %+v, want one that is Active and Ready", records)
	}
	q := records[0]
	if want := []string{"rq_c_r_" + string(q.UID)}; !slices.Equal(s.queues(), want) {
		t.Errorf("queues %v, want %v", s.queues(), want)
	}
	info, _ := s.sqs.Queue("rq_c_r_" + string(q.UID))
	for tag, want := range map[string]string{
		v1alpha1.TagCluster: "uid", v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagName: q.Name,
		v1alpha1.TagPodUID: string(p.UID), v1alpha1.TagPodNamespace: s.namespace, v1alpha1.TagPodName: "web-1",
	} {
		if info.Tags[tag] != want {
			t.Errorf("tag %s = %q, want %q", tag, info.Tags[tag], want)
		}
	}
	if got := info.Attributes["MessageRetentionPeriod"]; got != "300" {
		t.Errorf("retention %s, want ours of 300 s", got)
	}
	if got := p.Annotations[v1alpha1.AnnotationReplyQueueURL]; got != q.Status.QueueURL || got == "" {
		t.Errorf("the pod is told %q, want %q", got, q.Status.QueueURL)
	}
	channels, err := injected.ParseChannels(p.Annotations[v1alpha1.AnnotationChannels])
	if err != nil || channels["login"].URL == "" || channels["login"].Role != injected.RoleCall {
		t.Errorf("channels %v, %v", channels, err)
	}
	if p.Annotations[v1alpha1.ChannelURLAnnotation("login")] != channels["login"].URL {
		t.Errorf("annotations %v", p.Annotations)
	}
	l := s.lease(p)
	if l.Annotations[injected.LeaseReplyQueueURL] != q.Status.QueueURL || l.Annotations[injected.LeaseState] != injected.LeaseStateOpen ||
		l.Annotations[injected.LeaseIntervalSeconds] != "10" || l.Annotations[injected.LeaseRegion] != "us-east-1" || len(l.OwnerReferences) != 0 {
		t.Errorf("lease %+v", l.ObjectMeta)
	}
	if got := s.sqs.Requests(); got != 1 {
		t.Errorf("%d SQS requests for a reply queue, want 1", got)
	}
	if s.heardEvent("QueuesReady") != 1 {
		t.Errorf("events %v", s.said)
	}
}

// A cache can lag behind our own patch: what it still shows gated was told already.
func TestAGateIsOpenedAndToldOnce(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.pod("web-1", caller())
	old := p.DeepCopy()
	s.settle()
	if err := (&podScope{PodReconciler: s.pods, pod: old}).publish(s.ctx, true); !apierrors.IsConflict(err) {
		t.Errorf("a decision from an old pod: %v, want a conflict", err)
	}
	if n := s.heardEvent("QueuesReady"); n != 1 {
		t.Errorf("told %d times, want once: %v", n, s.said)
	}
}

func TestAnIdleWorldIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	writes, requests := s.writes, s.sqs.Requests()
	for range 30 {
		s.clock.Step(heartbeat.BeaconInterval)
		s.beacon()
		s.beat(p)
		s.signals.Heartbeats.Tick(s.clock.Now())
		s.round()
	}
	if s.writes != writes || s.sqs.Requests() != requests {
		t.Errorf("%d writes and %d SQS requests in 30 rounds of heartbeats, want none", s.writes-writes, s.sqs.Requests()-requests)
	}
}

func TestPodWaitsAndSaysForWhat(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := s.pod("web-1", caller())
	waits := func(want string) {
		t.Helper()
		s.settle()
		s.reread(p)
		if got := p.Annotations[v1alpha1.AnnotationWaitingFor]; !strings.Contains(got, want) || !gated(p) {
			t.Errorf("waiting for %q, gated %v; want %q", got, gated(p), want)
		}
	}
	waits("RequestChannel " + s.namespace + "/login does not exist")
	s.settle()
	if n := s.heardEvent("WaitingForQueues"); n != 1 {
		t.Errorf("%d events for one reason to wait, want 1: %v", n, s.said)
	}
	if len(s.queues()) != 0 {
		t.Error("a misspelt channel made a reply queue")
	}
	c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "login"}}
	s.must(s.Create(s.ctx, c))
	waits("login is not ready yet")
	before := c.DeepCopy()
	conditions.Stalled(c, v1alpha1.ReasonAccessDenied, "AWS says no")
	s.must(s.Status().Patch(s.ctx, c, client.MergeFrom(before)))
	waits("AccessDenied: AWS says no")
	s.must(s.Delete(s.ctx, c))
	s.channel("login")
	waits("ReplyHost " + s.namespace + "/web does not exist")
	s.host("web", nil)
	s.settle()
	s.reread(p)
	if gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] != "" {
		t.Errorf("still waiting: %v", p.Annotations)
	}
}

func TestCallsAcrossNamespacesNeedConsent(t *testing.T) {
	t.Parallel()
	s, other := newStage(t), newStage(t)
	channel := s.channel("login")
	p := other.pod("web-1", map[string]string{v1alpha1.AnnotationCalls: "login." + s.namespace})
	other.settle()
	other.reread(p)
	if !gated(p) || !strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], "does not allow calls from namespace "+other.namespace) {
		t.Errorf("gated %v, waiting for %q", gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.reread(channel)
	channel.Spec.AllowedCallers = &v1alpha1.AllowedCallers{From: v1alpha1.NamespacesFromSelector,
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: other.namespace}}}
	s.must(s.Update(s.ctx, channel))
	other.settle()
	other.reread(p)
	if gated(p) {
		t.Errorf("still gated: %v", p.Annotations)
	}
}

func TestMaxQueues(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.MaxQueues = ptr.To[int32](1) })
	s.pod("web-1", caller())
	s.settle()
	p := s.pod("web-2", caller())
	s.settle()
	s.reread(p)
	if !gated(p) || !strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], "spec.maxQueues is 1") {
		t.Errorf("gated %v, waiting for %q", gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor])
	}
}

func TestEditedOutputsArePutBack(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.reread(p)
	url := p.Annotations[v1alpha1.AnnotationReplyQueueURL]
	before := p.DeepCopy()
	p.Annotations[v1alpha1.AnnotationReplyQueueURL] = "https://elsewhere"
	p.Annotations[v1alpha1.ChannelURLAnnotation("more")] = "https://elsewhere"
	s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
	s.settle()
	s.reread(p)
	if p.Annotations[v1alpha1.AnnotationReplyQueueURL] != url || p.Annotations[v1alpha1.ChannelURLAnnotation("more")] != "" {
		t.Errorf("annotations %v", p.Annotations)
	}
}

// TestEditedInputsOfARunningPod edits what a running pod asks for. The shipped policy refuses that; where it is missing,
// the pod keeps what it has.
func TestEditedInputsOfARunningPod(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(map[string]string){
		"another ReplyHost": func(a map[string]string) { a[v1alpha1.AnnotationReplyHost] = "nosuch" },
		"no ReplyHost":      func(a map[string]string) { delete(a, v1alpha1.AnnotationReplyHost) },
		"a wrong name":      func(a map[string]string) { a[v1alpha1.AnnotationCalls] = "login,,Bad Name" },
		"a missing channel": func(a map[string]string) { a[v1alpha1.AnnotationCalls] = "login,nosuch" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			s.reread(p)
			outputs, told := maps.Clone(p.Annotations), maps.Clone(s.lease(p).Annotations)
			maps.DeleteFunc(outputs, func(key, _ string) bool { return !isOutput(key) })
			before := p.DeepCopy()
			edit(p.Annotations)
			s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
			s.beatFor(p, func() { s.pass(90 * time.Second) })
			s.reread(p)
			for key, want := range outputs {
				if p.Annotations[key] != want {
					t.Errorf("annotation %s = %q, want %q", key, p.Annotations[key], want)
				}
			}
			if got := s.lease(p).Annotations; !maps.Equal(got, told) {
				t.Errorf("lease %v, want %v", got, told)
			}
			if len(s.queues()) != 1 || len(s.recordsOf(p)) != 1 {
				t.Errorf("queues %v and %d records, want the one", s.queues(), len(s.recordsOf(p)))
			}
		})
	}
}

func TestALeaseWhosePodWentUnseenIsDeleted(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.pod("login-1", map[string]string{v1alpha1.AnnotationServes: "login"}, func(p *corev1.Pod) {
		p.Labels[v1alpha1.LabelInject] = v1alpha1.InjectBestEffort
		p.Spec.SchedulingGates = nil
	})
	s.settle()
	if s.lease(p).Annotations[injected.LeaseChannels] == "" {
		t.Fatal("a pod that was not gated is told nothing")
	}
	s.vanish(p)
	s.restart()
	s.expectNothingLeft(p)
}

func TestALeaseIsDeletedAlthoughItsPodsNameCameAgain(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-0")
	s.pass(70 * time.Second) // closed as idle: no record is left to tidy up after it
	s.vanish(p)
	successor := s.pod("web-0", caller())
	s.restart()
	s.settle()
	if s.exists(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}}) {
		t.Error("the predecessor's Lease is left")
	}
	if len(s.recordsOf(successor)) != 1 {
		t.Errorf("%d records of the successor, want 1", len(s.recordsOf(successor)))
	}
}

func TestReplyHostsSayWhyNothingIsClosed(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	s.guarded = false
	s.settle()
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	if s.reread(host); !conditions.Is(host, v1alpha1.ConditionHeartbeatsUnguarded, metav1.ConditionTrue) {
		t.Errorf("conditions %v", host.Status.Conditions)
	}
	s.guarded = true
	s.settle()
	if s.reread(host); !conditions.Is(host, v1alpha1.ConditionHeartbeatsUnguarded, metav1.ConditionUnknown) {
		t.Errorf("conditions %v", host.Status.Conditions)
	}
}

func TestLateLabelIsToldOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.pod("web-1", caller(), func(p *corev1.Pod) { delete(p.Annotations, v1alpha1.AnnotationInjected) })
	s.settle()
	s.round()
	s.drainEvents()
	if n := s.heardEvent("NotInjected"); n != 1 || len(s.queues()) != 0 {
		t.Errorf("%d events, queues %v; want 1 and none", n, s.queues())
	}
}

func TestSilenceClosesAndAHeartbeatWakes(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	first := s.recordsOf(p)[0]
	s.pass(60 * time.Second)
	if len(s.queues()) != 1 {
		t.Fatal("closed within the retention")
	}
	s.pass(5 * time.Second)
	if len(s.queues()) != 0 || len(s.recordsOf(p)) != 0 {
		t.Fatalf("queues %v and %d records after the retention, want none", s.queues(), len(s.recordsOf(p)))
	}
	s.reread(p)
	if s.leaseState(p) != injected.LeaseStateClosing || s.lease(p).Annotations[injected.LeaseReplyQueueURL] != "" || p.Annotations[v1alpha1.AnnotationReplyQueueURL] != "" {
		t.Errorf("lease %v, pod %v; want no URL left", s.lease(p).Annotations, p.Annotations)
	}
	if s.heardEvent("ReplyQueueIdle") != 1 {
		t.Errorf("events %v", s.said)
	}
	s.pass(5 * time.Minute)
	if n := s.sqs.Requests(); n != 2 || len(s.queues()) != 0 {
		t.Errorf("%d SQS requests in the queue's whole life, want 2; queues %v", n, s.queues())
	}
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	if s.reread(host); *host.Status.Queues.Idle != 1 || *host.Status.Queues.Total != 0 {
		t.Errorf("counts %+v, want one idle", host.Status.Queues)
	}

	s.beat(p)
	s.settle()
	records := s.recordsOf(p)
	if len(records) != 1 || records[0].UID == first.UID {
		t.Fatalf("records %v, want a new one", records)
	}
	if l := s.lease(p); l.Annotations[injected.LeaseState] != injected.LeaseStateOpen || l.Annotations[injected.LeaseReplyQueueURL] != records[0].Status.QueueURL {
		t.Errorf("lease %v", l.Annotations)
	}
	if s.reread(p); p.Annotations[v1alpha1.AnnotationReplyQueueURL] != records[0].Status.QueueURL {
		t.Errorf("pod %v", p.Annotations)
	}
	if s.heardEvent("ReplyQueueWoken") != 1 {
		t.Errorf("events %v", s.said)
	}
}

func TestNobodyIsClosedWhen(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(*stage, *corev1.Pod){
		"the view was broken meanwhile": func(s *stage, _ *corev1.Pod) {
			s.elapse(10 * time.Minute)
			s.beacon()
			s.pass(30 * time.Second)
		},
		"the policy is missing": func(s *stage, _ *corev1.Pod) {
			s.guarded = false
			s.pass(3 * time.Minute)
		},
		"its container does not run": func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodRunning, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}})
			s.settle()
			s.pass(3 * time.Minute)
		},
		"it terminates for long": func(s *stage, p *corev1.Pod) {
			s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(3600)))
			s.pass(5 * time.Minute)
		},
		"it is between a crash and a restart": func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodRunning, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}})
			s.pass(5 * time.Minute)
		},
		"its label was removed": func(s *stage, p *corev1.Pod) {
			writes := s.writes
			s.signals.Pods.See(p.UID, lifecycle.PodGone, lifecycle.Caller{}, s.signals.view(s.clock.Now()), s.clock.Now())
			s.pass(3 * time.Minute)
			if s.writes != writes {
				s.Errorf("%d writes about a pod of which nothing changed but its label", s.writes-writes)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			if strings.Contains(name, "label") {
				s.reread(p)
				s.records.Client = withoutPods{s.Client}
				s.beatFor(p, func() { arrange(s, p) })
			} else {
				arrange(s, p)
			}
			if len(s.queues()) != 1 || len(s.recordsOf(p)) != 1 {
				t.Errorf("queues %v, %d records; want it kept", s.queues(), len(s.recordsOf(p)))
			}
		})
	}
}

func TestAHeartbeatThatTheWatchHasNotDeliveredKeepsTheQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.pass(60 * time.Second)
	s.clock.Step(5 * time.Second)
	s.beacon()
	s.quietBeat(p)
	s.reconcile(s.records, s.recordsOf(p)[0].Name)
	if s.leaseState(p) != injected.LeaseStateOpen {
		t.Fatal("closed although a heartbeat was there to be read")
	}
	s.settle()
	if len(s.queues()) != 1 {
		t.Error("the queue is gone")
	}
}

func TestAHeartbeatBetweenReadAndWriteKeepsTheQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.pass(60 * time.Second)
	s.clock.Step(5 * time.Second)
	s.beacon()
	s.intercept = func(verb string, o client.Object) error {
		if _, ok := o.(*coordinationv1.Lease); ok && verb == "update" {
			s.intercept = nil
			s.quietBeat(p)
		}
		return nil
	}
	s.reconcile(s.records, s.recordsOf(p)[0].Name)
	if s.intercept != nil {
		t.Fatal("it never came to closing")
	}
	s.settle()
	if s.leaseState(p) != injected.LeaseStateOpen || len(s.queues()) != 1 || s.recordsOf(p)[0].Status.Closing != nil {
		t.Errorf("lease %s, queues %v: closed over a heartbeat", s.leaseState(p), s.queues())
	}
}

func TestAPodThatStopsDrains(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.stop(p)
	s.settle()
	if q := s.recordsOf(p)[0]; q.Status.State != v1alpha1.ReplyQueueDraining {
		t.Errorf("state %s, want Draining", q.Status.State)
	}
	s.pass(25 * time.Second)
	if len(s.queues()) != 1 {
		t.Fatal("deleted before the drain was over")
	}
	s.pass(10 * time.Second)
	s.expectNothingLeft(p)
}

func TestAPodThatVanishesIsGivenTheSafeTime(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.vanish(p)
	s.settle()
	s.pass(29 * time.Second) // two intervals of 10 s, and 10 s of cached token: 30 s, the same as the drain
	if len(s.queues()) != 1 {
		t.Fatal("deleted within the safe time")
	}
	s.pass(5 * time.Second)
	s.expectNothingLeft(p)

	slow := newStage(t)
	slow.channel("login")
	slow.host("web", func(h *v1alpha1.ReplyHostSpec) {
		h.Heartbeat.IntervalSeconds, h.IdleRetentionSeconds = ptr.To[int32](60), ptr.To[int32](300)
	})
	p = slow.runningCaller("web-1")
	slow.vanish(p)
	slow.settle()
	slow.pass(125 * time.Second)
	if len(slow.queues()) != 1 {
		t.Fatal("deleted within the safe time of a slow heartbeat")
	}
	slow.pass(10 * time.Second)
	slow.expectNothingLeft(p)
}

func TestARestartedOperatorCountsAnew(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.stop(p)
	s.settle()
	s.pass(20 * time.Second)
	s.restart()
	s.pass(25 * time.Second)
	if len(s.queues()) != 1 {
		t.Fatal("the new operator closed on the old one's count")
	}
	s.pass(10 * time.Second)
	s.expectNothingLeft(p)
}

func TestANewPodOfTheSameNameHasItsOwnQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.vanish(p)
	successor := s.runningCaller("web-1")
	if len(s.queues()) != 2 {
		t.Fatalf("queues %v, want two", s.queues())
	}
	s.beatFor(successor, func() { s.pass(2 * time.Minute) })
	if got, want := s.queues(), "rq_c_r_"+string(s.recordsOf(successor)[0].UID); !slices.Equal(got, []string{want}) {
		t.Errorf("queues %v, want the successor's alone", got)
	}
	if len(s.recordsOf(p)) != 0 {
		t.Error("the predecessor's record is still there")
	}
}

func TestDeletionsWaitForThePod(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", nil)
	p := s.runningCaller("web-1")
	q := s.recordsOf(p)[0]
	s.must(s.Delete(s.ctx, &q))
	s.must(s.Delete(s.ctx, host))
	s.settle()
	s.reread(&q)
	s.reread(host)
	for _, o := range []conditions.Object{&q, host} {
		if !conditions.Is(o, v1alpha1.ConditionInUse, metav1.ConditionTrue) {
			t.Errorf("%T is not InUse: %v", o, o.GetConditions())
		}
	}
	if len(s.queues()) != 1 {
		t.Fatal("a deleted record took its queue away from a living pod")
	}
	late := s.pod("web-2", caller())
	s.settle()
	if s.reread(late); !strings.Contains(late.Annotations[v1alpha1.AnnotationWaitingFor], "is being deleted") {
		t.Errorf("waiting for %q", late.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.stop(p)
	s.pass(35 * time.Second)
	s.expectNothingLeft(p)
	if s.exists(host) {
		t.Errorf("the ReplyHost is still there: %v", host.Finalizers)
	}
}

func TestADeletionThatSQSRefusesCanBeGivenUp(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.sqs.SetAccess(sqstest.AccessRule{Deny: true, Action: "DeleteQueue"})
	s.stop(p)
	s.settle()
	s.undisturbed(time.Minute)
	for range 3 {
		s.round() // a refusal is tried again for ever, so this never settles
	}
	records := s.recordsOf(p)
	if len(records) != 1 || !conditions.Is(&records[0], v1alpha1.ConditionStalled, metav1.ConditionTrue) {
		t.Fatalf("records %v, want one that is Stalled", records)
	}
	q := records[0]
	before := q.DeepCopy()
	q.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true"}
	s.must(s.Patch(s.ctx, &q, client.MergeFrom(before)))
	s.settle()
	if len(s.recordsOf(p)) != 0 || s.heardEvent(EventQueueAbandoned) != 1 {
		t.Errorf("%d records, events %v", len(s.recordsOf(p)), s.said)
	}
}

func TestSQSInTheWayIsSaidAndOvercome(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	s.sqs.SetAccess(sqstest.AccessRule{Deny: true, Action: "CreateQueue"})
	p := s.pod("web-1", caller())
	for range 4 {
		s.round() // a refusal is tried again for ever, so this never settles
	}
	s.reread(p)
	if q := s.recordsOf(p)[0]; q.Status.State != v1alpha1.ReplyQueueFailed || !conditions.Is(&q, v1alpha1.ConditionStalled, metav1.ConditionTrue) ||
		!strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], v1alpha1.ReasonAccessDenied) || !gated(p) {
		t.Errorf("state %s, conditions %v, waiting for %q", q.Status.State, q.Status.Conditions, p.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.sqs.SetAccess()
	s.settle()
	if s.reread(p); gated(p) {
		t.Errorf("still gated: %v", p.Annotations)
	}
}
