package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// ofSet makes a pod one of the StatefulSet web.
func ofSet(p *corev1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "s", Controller: ptr.To(true)}}
}

func TestStableQueueOutlivesItsPod(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = v1alpha1.IdentityStable })
	p := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.run(p)
	s.settle()
	queues := s.queues()
	s.stop(p)
	s.settle()
	successor := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.reread(successor)
	// Told on the pod and on the Lease, so that the client holds its predecessor's replies.
	const identity = `{"kind":"Stable","retentionSeconds":60}`
	if got := successor.Annotations[v1alpha1.AnnotationIdentity]; got != identity {
		t.Errorf("identity %s, want %s", got, identity)
	}
	if gated(successor) || !slices.Equal(s.queues(), queues) || successor.Annotations[v1alpha1.AnnotationReplyQueueURL] == "" {
		t.Fatalf("gated %v, queues %v, want the predecessor's %v", gated(successor), s.queues(), queues)
	}
	s.run(successor)
	s.settle()
	if got := s.lease(successor).Annotations[injected.LeaseIdentity]; got != identity {
		t.Errorf("identity of the Lease %s, want %s", got, identity)
	}

	// One that vanished may still read: its successor waits.
	s.vanish(successor)
	third := s.pod("web-0", caller(), ofSet)
	s.pass(25 * time.Second)
	if s.reread(third); !gated(third) || !strings.Contains(third.Annotations[v1alpha1.AnnotationWaitingFor], "predecessor") {
		t.Errorf("gated %v, waiting for %q", gated(third), third.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.pass(10 * time.Second)
	if s.reread(third); gated(third) || !slices.Equal(s.queues(), queues) {
		t.Errorf("gated %v, queues %v, want the first pod's %v", gated(third), s.queues(), queues)
	}
	s.vanish(third)
	s.pass(65 * time.Second)
	s.expectNothingLeft(third)

	loner := s.pod("loner", caller())
	s.settle()
	if s.reread(loner); !strings.Contains(loner.Annotations[v1alpha1.AnnotationWaitingFor], "StatefulSet") {
		t.Errorf("waiting for %q", loner.Annotations[v1alpha1.AnnotationWaitingFor])
	}
}

// TestTakeoverWaitsForThePaceThatIsKnown shortens a Stable host's times just before its pod vanishes: the old process
// may still heartbeat, and read, at the pace it knew.
func TestTakeoverWaitsForThePaceThatIsKnown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = v1alpha1.IdentityStable })
	p := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.run(p)
	s.settle()
	s.beat(p)
	s.reread(host)
	host.Spec.Heartbeat.IntervalSeconds, host.Spec.IdleRetentionSeconds, host.Spec.DrainSeconds = ptr.To[int32](1), ptr.To[int32](60), ptr.To[int32](0)
	s.must(s.Update(s.ctx, host))
	s.settle()
	s.vanish(p)
	successor := s.pod("web-0", caller(), ofSet)
	s.settle()
	s.pass(25 * time.Second)
	if s.reread(successor); !gated(successor) {
		t.Error("took over within two heartbeats of the pace its predecessor knew")
	}
	s.pass(10 * time.Second)
	if s.reread(successor); gated(successor) {
		t.Errorf("still gated: %v", successor.Annotations)
	}
}

// stableStage is a stage whose ReplyHost web has identity Stable.
func stableStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.Identity = v1alpha1.IdentityStable })
	return s
}

// member is a running pod of the StatefulSet web, heard once.
func (s *stage) member(name string) *corev1.Pod {
	s.Helper()
	p := s.pod(name, caller(), ofSet)
	s.settle()
	s.run(p)
	s.settle()
	s.beat(p)
	s.settle()
	return p
}

// TestARestartedMemberReadsWhatWasSentMeanwhile is what identity Stable is for: the requester keeps its call IDs, and
// Resume finds the replies under the same address, in the same queue, whoever the process is now.
func TestARestartedMemberReadsWhatWasSentMeanwhile(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	s.reread(p)
	url := p.Annotations[v1alpha1.AnnotationReplyQueueURL]
	send := func(call string) {
		t.Helper()
		_, err := s.sqs.Client().SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &call})
		s.must(err)
	}
	if info, _ := s.sqs.Queue(s.queues()[0]); info.Attributes["MessageRetentionPeriod"] != "60" {
		t.Errorf("replies are kept for %s s, want the idle retention", info.Attributes["MessageRetentionPeriod"])
	}
	send("before")
	s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(30)))
	s.settle()
	send("while it terminates")
	s.stop(p)
	s.settle()
	send("while it is gone")
	s.restart() // and so may the operator be
	s.settle()
	successor := s.pod("web-0", caller(), ofSet)
	s.pass(35 * time.Second) // a new operator does not know that the predecessor stopped
	s.run(successor)
	s.settle()
	send("after")
	if s.reread(successor); successor.Annotations[v1alpha1.AnnotationReplyQueueURL] != url || s.lease(successor).Annotations[injected.LeaseReplyQueueURL] != url {
		t.Fatalf("told %s, and by its Lease %s; want %s", successor.Annotations[v1alpha1.AnnotationReplyQueueURL], s.lease(successor).Annotations[injected.LeaseReplyQueueURL], url)
	}
	out, err := s.sqs.Client().ReceiveMessage(s.ctx, &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
	s.must(err)
	var got []string
	for _, m := range out.Messages {
		got = append(got, *m.Body)
	}
	if want := []string{"before", "while it terminates", "while it is gone", "after"}; !slices.Equal(got, want) {
		t.Errorf("the successor reads %q, want %q", got, want)
	}
	if s.leaseExists(p) {
		t.Error("the predecessor's Lease is left")
	}
	s.beatFor(successor, func() { s.pass(2 * time.Minute) })
	if len(s.queues()) != 1 || len(s.recordsOf(successor)) != 1 {
		t.Errorf("queues %v and %d records of the successor, want one each", s.queues(), len(s.recordsOf(successor)))
	}
}

// TestTheReportedEndWakesTheSuccessor has the successor find its predecessor gone before the deletion event, which says how
// that one ended, has come through the other watch. It must not wait for the safe time then, and only a change of the
// record wakes it.
func TestTheReportedEndWakesTheSuccessor(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	queues := s.queues()
	s.report(p, corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 143}})
	s.reread(p)
	s.vanish(p)
	successor := s.pod("web-0", caller(), ofSet)
	s.reconcile(s.pods, successor.Name)
	record := &s.recordsOf(p)[0]
	s.reconcile(s.records, record.Name)
	s.reconcile(s.pods, successor.Name)
	if s.reread(successor); !gated(successor) {
		t.Fatal("took over from a pod whose end nobody has reported")
	}
	s.reread(record)
	waiting := record.ResourceVersion
	s.signals.Pods.SeeLast(p.UID, lifecycle.LastStateOf(p), s.signals.view(s.clock.Now()))
	s.reconcile(s.records, record.Name)
	if s.reread(record); record.ResourceVersion == waiting {
		t.Error("nothing wakes the successor: the record says the same as before")
	}
	s.settle()
	if s.reread(successor); gated(successor) || !slices.Equal(s.queues(), queues) {
		t.Errorf("gated %v, queues %v, want the predecessor's %v", gated(successor), s.queues(), queues)
	}
}

// TestAConflictForgetsNoEnd has something write the record just before it is taken over: that the predecessor ended is known
// still when it is tried again.
func TestAConflictForgetsNoEnd(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	queues := s.queues()
	s.stop(p)
	s.settle()
	conflicts := 0
	s.intercept = func(verb string, o client.Object) error {
		if q, ok := o.(*v1alpha1.ReplyQueue); ok && verb == "patch status" && readerOf(q) != p.UID && conflicts == 0 {
			conflicts++
			return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("replyqueues").GroupResource(), q.Name, errors.New("it was written"))
		}
		return nil
	}
	successor := s.pod("web-0", caller(), ofSet)
	s.settle()
	if s.reread(successor); conflicts != 1 || gated(successor) || !slices.Equal(s.queues(), queues) {
		t.Errorf("after %d conflicts gated %v, waiting for %q, queues %v, want the predecessor's %v",
			conflicts, gated(successor), successor.Annotations[v1alpha1.AnnotationWaitingFor], s.queues(), queues)
	}
}

// TestAWaitingSuccessorKeepsTheQueue has a successor wait for something else for longer than the retention: the name is
// not absent meanwhile.
func TestAWaitingSuccessorKeepsTheQueue(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	queues := s.queues()
	s.stop(p)
	s.settle()
	wants := caller()
	wants[v1alpha1.AnnotationCalls] = "login,later"
	successor := s.pod("web-0", wants, ofSet)
	s.pass(4*time.Minute + 50*time.Second) // The successor was last looked for most of a minute ago.
	if !slices.Equal(s.queues(), queues) {
		t.Fatalf("queues %v, want %v: a pod of the name exists", s.queues(), queues)
	}
	s.vanish(successor)
	s.pass(45 * time.Second)
	if !slices.Equal(s.queues(), queues) {
		t.Fatal("the retention was counted from before the successor went")
	}
	successor = s.pod("web-0", wants, ofSet)
	s.pass(time.Minute)
	s.channel("later")
	s.settle()
	if s.reread(successor); gated(successor) || !slices.Equal(s.queues(), queues) {
		t.Errorf("gated %v, queues %v; want it to start with %v", gated(successor), s.queues(), queues)
	}
	// One that names another ReplyHost is no successor.
	s.host("other", nil)
	s.stop(successor)
	stranger := s.pod("web-0", map[string]string{v1alpha1.AnnotationCalls: "login", v1alpha1.AnnotationReplyHost: "other"}, ofSet)
	s.pass(3 * time.Minute)
	if len(s.recordsOf(successor)) != 0 || len(s.recordsOf(stranger)) != 1 || len(s.queues()) != 1 {
		t.Errorf("%d records of a name that is absent, queues %v", len(s.recordsOf(successor)), s.queues())
	}
}

// TestNobodyTakesOverInAGap has a predecessor stop, and the view have a gap: what is known of it may be from a time that
// was taken back, so its successor waits as one whose operator has just begun.
func TestNobodyTakesOverInAGap(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	old := s.member("web-0")
	s.stop(old)
	s.settle()
	s.elapse(time.Minute) // no beacon
	p := s.pod("web-0", caller(), ofSet)
	s.settle()
	if s.reread(p); !gated(p) {
		t.Fatal("took over in a gap of the view")
	}
	s.beacon()
	s.settle()
	if s.reread(p); !gated(p) {
		t.Fatal("took over by what was seen before the gap")
	}
	s.pass(35 * time.Second)
	if s.reread(p); gated(p) || len(s.queues()) != 1 {
		t.Errorf("gated %t, queues %v", gated(p), s.queues())
	}
}

// TestALateRecordOfANameIsRefused has an earlier leader's request for the record of a name arrive late, when the pod that it was for has
// gone and another has the name, and a record. It is refused, since whoever writes one for a name calls it alike.
func TestALateRecordOfANameIsRefused(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	old := s.pod("web-0", caller(), ofSet)
	var late *v1alpha1.ReplyQueue
	s.intercept = func(verb string, o client.Object) error {
		if q, ok := o.(*v1alpha1.ReplyQueue); ok && verb == "create" {
			late = q.DeepCopy()
			return errors.New("it is on its way")
		}
		return nil
	}
	for range 3 { // the ReplyHost gets its finalizer first
		s.reconcile(s.hosts, "web")
		_, _ = s.pods.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(old)})
	}
	s.intercept = nil
	if late == nil || readerOf(late) != old.UID {
		t.Fatalf("the record %v was asked for, want the first pod's", late)
	}
	s.vanish(old)
	p := s.member("web-0")
	if err := s.Create(s.ctx, late); !apierrors.IsAlreadyExists(err) {
		t.Fatalf("the late record: %v, want it refused since %s exists", err, s.recordsOf(p)[0].Name)
	}

	// While one that is closed is there, the next of the name is called otherwise, whichever pod the former was made for.
	former := s.recordsOf(p)[0]
	before := former.DeepCopy()
	former.Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseNameAbsent, Message: "it is closed", Time: metav1.NewTime(s.clock.Now())}
	s.must(s.Status().Patch(s.ctx, &former, client.MergeFrom(before)))
	s.vanish(p)
	third := s.pod("web-0", caller(), ofSet)
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	s.reread(host)
	next, err := (&podScope{PodReconciler: s.pods, pod: third}).draftRecord(s.ctx, host)
	s.must(err)
	if want := strings.TrimSuffix(former.Name, "1") + "2"; next.Name != want {
		t.Errorf("the next is called %s, want %s", next.Name, want)
	}
}

// TestARecordThatItsNamePassedOver has the record of a pod that is gone be written when another pod of the name has one
// already. Nobody will read its queue as long as that pod lives, and nobody knows of it.
func TestARecordThatItsNamePassedOver(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	old := s.pod("web-0", caller(), ofSet)
	s.vanish(old)
	p := s.member("web-0")
	queues := s.queues()
	late := s.recordsOf(p)[0].DeepCopy()
	late.ObjectMeta = metav1.ObjectMeta{
		Namespace: s.namespace, Name: "web-0-late-1", Finalizers: late.Finalizers, Labels: late.Labels, OwnerReferences: late.OwnerReferences,
	}
	late.Labels[v1alpha1.LabelPodUID], late.Spec.PodRef.UID = string(old.UID), string(old.UID)
	late.Status = v1alpha1.ReplyQueueStatus{}
	s.must(s.Create(s.ctx, late))
	_, err := s.sqs.Client().CreateQueue(s.ctx, &sqs.CreateQueueInput{QueueName: ptr.To("rq_c_r_" + string(late.UID))}) // as late
	s.must(err)
	s.beatFor(p, func() { s.pass(25 * time.Second) })
	if len(s.queues()) != 2 {
		t.Fatalf("queues %v: the process of the pod that is gone may live, for all that is known", s.queues())
	}
	s.beatFor(p, func() { s.pass(15 * time.Second) })
	if !slices.Equal(s.queues(), queues) || s.exists(late) {
		t.Errorf("queues %v, want %v, the living pod's alone", s.queues(), queues)
	}
	s.expectKept(p)
}

// TestADeletedStableQueueIsKeptForNobody has record and ReplyHost deleted, as their namespace's controller does, or the host
// alone: nobody is to come for whom the retention is, and the queue is kept no longer than one of identity Pod.
func TestADeletedStableQueueIsKeptForNobody(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]bool{"with the namespace": true, "the host alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := keptFor(t, v1alpha1.IdentityStable, 14*24*time.Hour)
			p := s.member("web-0")
			host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
			s.must(s.Delete(s.ctx, host))
			if all {
				s.must(s.Delete(s.ctx, &s.recordsOf(p)[0]))
			}
			s.settle()
			s.pass(2 * time.Minute)
			s.expectKept(p)
			s.stop(p)
			s.pass(25 * time.Second)
			s.expectKept(p) // late replies
			s.pass(10 * time.Second)
			s.expectNothingLeft(p)
			if s.exists(host) {
				t.Errorf("the ReplyHost is left: %v", host.Finalizers)
			}
		})
	}
}

// before is a cache that still shows a pod as it was.
type before struct {
	client.Client
	pod *corev1.Pod
}

func (b before) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if pod, ok := o.(*corev1.Pod); ok && key == client.ObjectKeyFromObject(b.pod) {
		b.pod.DeepCopyInto(pod)
		return nil
	}
	return b.Client.Get(ctx, key, o, opts...)
}

// TestNobodyTakesOverByAnOldCache has the cache of pods stand still at the predecessor, while its successor reads.
func TestNobodyTakesOverByAnOldCache(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	old := s.member("web-0")
	s.reread(old)
	running := old.DeepCopy()
	s.stop(old)
	s.settle()
	p := s.member("web-0")
	url := s.lease(p).Annotations[injected.LeaseReplyQueueURL]
	current := s.pods.Client
	s.pods.Client = before{current, running}
	for range 4 {
		s.reconcile(s.pods, "web-0")
		s.elapse(time.Minute)
	}
	s.pods.Client = current
	if records := s.recordsOf(p); len(records) != 1 || readerOf(&records[0]) != p.UID {
		t.Errorf("%d records, want that of the pod that reads", len(records))
	}
	if !s.exists(s.lease(p)) || s.lease(p).Annotations[injected.LeaseReplyQueueURL] != url {
		t.Error("the Lease of the pod that reads is gone, or names another queue")
	}
}

// TestALeaseThatIsWrittenIsNotDeleted has something write the Lease of a pod that is gone just before it is deleted.
func TestALeaseThatIsWrittenIsNotDeleted(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	lease := s.lease(p)
	raced := false
	s.intercept = func(verb string, o client.Object) error {
		if _, ok := o.(*coordinationv1.Lease); ok && verb == "delete" && !raced {
			raced = true
			s.intercept = nil
			s.quietBeat(p)
		}
		return nil
	}
	if err := deleteLease(s.ctx, s, s, p.UID); !raced || !apierrors.IsConflict(err) || !s.exists(lease) {
		t.Errorf("deleted over a heartbeat (raced %v): %v", raced, err)
	}
	if err := deleteLease(s.ctx, s, s, p.UID); err != nil || s.exists(lease) {
		t.Errorf("not deleted: %v", err)
	}
}

// A retention that is raised changes no queue that exists, which goes on forgetting messages as it did: nobody is told more.
func TestAStableRetentionThatIsRaised(t *testing.T) {
	t.Parallel()
	s := keptFor(t, v1alpha1.IdentityStable, 10*time.Minute)
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}}
	p := s.member("web-0")
	for _, c := range []struct {
		says, told int32
		short      bool
	}{{86400, 600, true}, {300, 300, false}, {600, 600, false}} {
		s.reread(host)
		host.Spec.IdleRetentionSeconds = ptr.To(c.says)
		s.must(s.Update(s.ctx, host))
		s.settle()
		s.reread(p)
		want := injected.Encode(injected.Identity{Kind: injected.IdentityStable, RetentionSeconds: c.told})
		if got, lease := p.Annotations[v1alpha1.AnnotationIdentity], s.lease(p).Annotations[injected.LeaseIdentity]; got != want || lease != want {
			t.Errorf("%d s: the pod is told %s and %s, want %s", c.says, got, lease, want)
		}
		record := s.recordsOf(p)[0]
		if m := conditions.Message(&record, v1alpha1.ConditionReady); strings.Contains(m, "messages are kept for 10m0s") != c.short {
			t.Errorf("%d s: the record says %q", c.says, m)
		}
	}
}
