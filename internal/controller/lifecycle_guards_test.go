package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// What stands in the way of a closing, or of a second record, each by itself.

// TestAQueueThatIsNotFoundIsGivenUpOnlyByWhoCanTell: a queue that is not found is another account's, or another cluster's, for
// all that a process knows without the fence's proof and a marker in the record's account.
func TestAQueueThatIsNotFoundIsGivenUpOnlyByWhoCanTell(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	fence := &holding{}
	s.fence(fence)
	p := s.runningCaller("web-1")
	record := s.recordsOf(p)[0]
	_, err := s.sqs.Client().DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: ptr.To(record.Status.QueueURL)})
	s.must(err)
	kept := func(why string) {
		t.Helper()
		s.signals.QueueMissing(record.UID)
		s.settle()
		if got := s.recordsOf(p); len(got) != 1 || got[0].UID != record.UID || got[0].Status.Closing != nil {
			t.Fatalf("given up, though %s", why)
		}
	}
	kept("no marker says that it is the same account")
	marker := s.records.Providers.(onlyProvider).IdentityQueueName()
	_, err = s.sqs.Client().CreateQueue(s.ctx, &sqs.CreateQueueInput{QueueName: &marker})
	s.must(err)
	fence.closed = true
	kept("the fence holds")
	fence.closed = false
	s.signals.QueueMissing(record.UID)
	s.settle()
	s.beat(p)
	s.settle()
	if got := s.recordsOf(p); len(got) != 1 || got[0].UID == record.UID {
		t.Errorf("%d records, want a new one", len(got))
	}
}

// TestNothingIsNotedOfASilenceThatMeansNothing: the next leader would count on from it.
func TestNothingIsNotedOfASilenceThatMeansNothing(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(*stage) []*corev1.Pod{
		"an outage": func(s *stage) []*corev1.Pod { return s.crowd() },
		"no policy": func(s *stage) []*corev1.Pod {
			s.guarded = false
			return []*corev1.Pod{s.runningCaller("web-1")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := keptFor(t, v1alpha1.IdentityPod, time.Hour)
			pods := happens(s)
			s.goBy(21 * time.Minute)
			for _, p := range pods {
				if counted := s.recordsOf(p)[0].Status.Counted; counted != nil {
					t.Errorf("noted are %+v", counted)
				}
			}
		})
	}
}

// TestANoteStandsUntilLeasesWereListed: whose silence or absence it is, nobody knows before.
func TestANoteStandsUntilLeasesWereListed(t *testing.T) {
	t.Parallel()
	s := keptFor(t, v1alpha1.IdentityStable, time.Hour)
	p := s.unread(v1alpha1.IdentityStable)
	s.goBy(33 * time.Minute)
	before := s.recordsOf(p)[0].Status.Counted
	if before == nil {
		t.Fatal("nothing is noted")
	}
	s.signals.Pods, s.signals.Heartbeats = &lifecycle.Sightings{}, heartbeat.NewLedger()
	s.beacon()
	s.reconcile(s.records, s.recordsOf(p)[0].Name)
	if now := s.recordsOf(p)[0].Status.Counted; now == nil || *now.Seconds != *before.Seconds {
		t.Errorf("noted are %+v, want %+v", now, before)
	}
}

// TestAClosingOfAStableQueueEndsWithASuccessor: the leader stopped between the mark on the Lease, which the successor never reads,
// and that on the record.
func TestAClosingOfAStableQueueEndsWithASuccessor(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	s.stop(p)
	s.settle()
	stopped := errors.New("stopped")
	s.intercept = func(verb string, o client.Object) error {
		if record, ok := o.(*v1alpha1.ReplyQueue); ok && verb == "patch status" && record.Status.Closing != nil {
			return stopped
		}
		return nil
	}
	record := s.recordsOf(p)[0]
	key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&record)}
	var err error
	for range 60 {
		s.undisturbed(5 * time.Second)
		if _, err = s.records.Reconcile(s.ctx, key); err != nil {
			break
		}
	}
	if !errors.Is(err, stopped) || s.leaseState(p) != injected.LeaseStateClosing {
		t.Fatalf("it came to %v, and the Lease says %q", err, s.leaseState(p))
	}
	s.intercept = nil
	successor := s.pod("web-0", caller(), ofSet)
	s.restart()
	s.reconcile(s.records, record.Name)
	if got := s.recordsOf(p); len(got) != 1 || got[0].Status.Closing != nil {
		t.Fatalf("closed under its successor: %+v", got)
	}
	s.pass(3 * time.Minute)
	if got := s.recordsOf(successor); len(got) != 1 || got[0].UID != record.UID {
		t.Errorf("the successor has %d records, want the one of its name", len(got))
	}
}

// hidingRecords is a cache that does not show records yet.
type hidingRecords struct{ client.Client }

func (h hidingRecords) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, ok := list.(*v1alpha1.ReplyQueueList); ok {
		return nil
	}
	return h.Client.List(ctx, list, opts...)
}

// TestANameHasOneRecord: the cache does not show the record that the predecessor's name has.
func TestANameHasOneRecord(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	s.vanish(p)
	successor := s.pod("web-0", caller(), ofSet)
	s.pods.Client = hidingRecords{s.Client}
	for range 3 {
		s.reconcile(s.pods, successor.Name)
	}
	var all v1alpha1.ReplyQueueList
	s.must(s.List(s.ctx, &all, client.InNamespace(s.namespace)))
	if len(all.Items) != 1 {
		t.Errorf("%d records of one name", len(all.Items))
	}
}

// TestAPodThatLeftTheCacheIsLookedForAgain: nothing else tells of its end.
func TestAPodThatLeftTheCacheIsLookedForAgain(t *testing.T) {
	t.Parallel()
	s := stableStage(t)
	p := s.member("web-0")
	key := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: s.namespace, Name: s.recordsOf(p)[0].Name}}
	if result, err := s.records.Reconcile(s.ctx, key); err != nil || result.RequeueAfter != 0 {
		t.Errorf("of a pod that the cache shows: %+v, %v; want nothing to wait for", result, err)
	}
	s.unlabelled()
	if result, err := s.records.Reconcile(s.ctx, key); err != nil || result.RequeueAfter != absentRecheck {
		t.Errorf("of one that it does not: %+v, %v; want another look in %s", result, err, absentRecheck)
	}
}

// TestAnIdlePodThatLosesItsLabelCanWake: its Lease is all that it has, and brings it a queue again.
func TestAnIdlePodThatLosesItsLabelCanWake(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.pass(90 * time.Second)
	if len(s.recordsOf(p)) != 0 || s.leaseState(p) != injected.LeaseStateClosing {
		t.Fatal("it is not idle")
	}
	s.unlabelled()
	s.settle()
	s.pass(time.Minute)
	if len(s.recordsOf(p)) != 0 {
		t.Error("it has a queue again, and was not heard")
	}
	s.beat(p) // fails where the Lease is gone
	s.beatFor(p, func() { s.pass(time.Minute) })
	records := s.recordsOf(p)
	if len(records) != 1 || s.leaseState(p) != injected.LeaseStateOpen || s.lease(p).Annotations[injected.LeaseReplyQueueURL] != records[0].Status.QueueURL {
		t.Errorf("records %v, its Lease says %v; want it told of a queue", records, s.lease(p).Annotations)
	}
}

// TestAHeartbeatOfAnEndedPodThatTheWatchHasNotDelivered keeps the queue, as that of a pod that runs does.
func TestAHeartbeatOfAnEndedPodThatTheWatchHasNotDelivered(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.report(p, corev1.PodFailed, runningNow)
	s.settle()
	s.undisturbed(5 * time.Minute)
	s.quietBeat(p)
	record := s.recordsOf(p)[0]
	s.reconcile(s.records, record.Name)
	if got := s.recordsOf(p); len(got) != 1 || got[0].Status.Closing != nil {
		t.Errorf("closed while its process heartbeats: %+v", got)
	}
}

// anotherBeacon is an API server that has the operator's own Lease in a renewal of its own, or does not answer for it.
type anotherBeacon struct {
	client.Client
	renewed time.Time
	err     error
}

func (b *anotherBeacon) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if lease, ok := o.(*coordinationv1.Lease); ok && key.Name == heartbeat.BeaconName {
		lease.Name, lease.Spec.RenewTime = key.Name, ptr.To(metav1.NewMicroTime(b.renewed))
		return b.err
	}
	return b.Client.Get(ctx, key, o, opts...)
}

// TestNoQueueIsClosedWhileTheBeaconIsAnother: what the API server says is then not of the time that the watch of Leases is at. It is
// late, or etcd was set back, with a heartbeat that was answered. It is looked at again soon.
func TestNoQueueIsClosedWhileTheBeaconIsAnother(t *testing.T) {
	t.Parallel()
	for name, fall := range map[string]func(*stage, *corev1.Pod){
		"silent":                         func(*stage, *corev1.Pod) {},
		"said to have ended, and silent": func(s *stage, p *corev1.Pod) { s.report(p, corev1.PodFailed, runningNow) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newReadyStage(t)
			p := s.runningCaller("web-1")
			fall(s, p)
			s.settle()
			s.undisturbed(5 * time.Minute)
			record := s.recordsOf(p)[0]
			delivered := time.Unix(int64(s.beacons), 0) // as beaconTo delivers it
			api := &anotherBeacon{Client: s.Client}
			s.records.Reader = api
			for _, c := range []struct {
				why     string
				renewed time.Time
				err     error
			}{
				{"the API server has a later beacon", delivered.Add(time.Second), nil},
				{"the API server has an earlier beacon", delivered.Add(-time.Second), nil},
				{"the beacon cannot be read", delivered, errors.New("not now")},
			} {
				api.renewed, api.err = c.renewed, c.err
				result, err := s.records.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&record)})
				if !errors.Is(err, c.err) || c.err == nil && result.RequeueAfter != staleRetry {
					t.Errorf("%s: %+v, %v; want another look in %s", c.why, result, err, staleRetry)
				}
				if got := s.recordsOf(p); len(got) != 1 || got[0].Status.Closing != nil || s.leaseState(p) != injected.LeaseStateOpen {
					t.Fatalf("%s: closed: %+v", c.why, got)
				}
			}
			api.renewed, api.err = delivered, nil
			s.reconcile(s.records, record.Name)
			if got := s.recordsOf(p); len(got) != 0 {
				t.Errorf("kept, though the watch is up to date: %+v", got[0].Status)
			}
		})
	}
}

// TestALeaseThatGoesBeforeItIsMarkedKeepsTheQueue: a heartbeat may have come before it went, and nobody can see that any more.
func TestALeaseThatGoesBeforeItIsMarkedKeepsTheQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	s.undisturbed(2 * time.Minute)
	s.intercept = func(verb string, o client.Object) error {
		if _, ok := o.(*coordinationv1.Lease); ok && verb == "update" {
			s.intercept = nil
			s.quietBeat(p)
			s.must(s.Delete(s.ctx, s.lease(p)))
		}
		return nil
	}
	record := s.recordsOf(p)[0]
	s.reconcile(s.records, record.Name)
	if s.intercept != nil {
		t.Fatal("it never came to closing")
	}
	if got := s.recordsOf(p); len(got) != 1 || got[0].Status.Closing != nil || len(s.queues()) != 1 {
		t.Errorf("closed over what nobody has seen: %+v, queues %v", got, s.queues())
	}
	s.settle()
	if s.leaseState(p) != injected.LeaseStateOpen || s.lease(p).Annotations[injected.LeaseReplyQueueURL] != record.Status.QueueURL {
		t.Errorf("its Lease, written anew, says %v", s.lease(p).Annotations)
	}
}
