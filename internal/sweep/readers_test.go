package sweep_test

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// stableQueue makes a reply queue in SQS that belongs to the name of a pod.
func (s *stage) stableQueue(name string, uid, pod string) string {
	s.Helper()
	return s.queue(name, map[string]string{
		v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagNamespace: s.namespace, v1alpha1.TagName: pod + "-1",
		v1alpha1.TagPodNamespace: s.namespace, v1alpha1.TagPodName: pod, v1alpha1.TagPodUID: uid,
		v1alpha1.TagIdentity: string(v1alpha1.IdentityStable),
	})
}

// tell writes to a pod and to its Lease which queue it reads.
func (s *stage) tell(p *corev1.Pod, lease *coordinationv1.Lease, queue string) {
	s.Helper()
	url := "http://sqs/000000000000/" + queue
	metav1.SetMetaDataAnnotation(&p.ObjectMeta, v1alpha1.AnnotationReplyQueueURL, url)
	s.must(s.admin.Update(s.ctx, p))
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, injected.LeaseReplyQueueURL, url)
	s.must(s.admin.Update(s.ctx, lease))
}

// renew is an application's heartbeat.
func (s *stage) renew(lease *coordinationv1.Lease) {
	s.Helper()
	at := metav1.NewMicroTime(s.clock.Now())
	lease.Spec.RenewTime = &at
	s.must(s.admin.Update(s.ctx, lease))
}

// Of a name there is nearly always a pod. A queue of the name whose record is lost is kept for it until it is known to read
// another: it heartbeated when its Lease named that. For whom it is kept without end, people are told.
func TestAStableQueueWithoutARecordIsKeptUntilItsPodReadsAnother(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.passes(2)
	p := s.pod("db-0")
	lease := s.lease(p.UID, p.Name)
	record := s.record(p)
	its := s.stableQueue(s.provider.ReplyQueueName(record.UID), string(p.UID), p.Name)
	lost := s.stableQueue(s.provider.ReplyQueueName(newUID()), string(newUID()), p.Name)
	s.tell(p, lease, its)
	s.passes(3)
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); told != "" {
		t.Errorf("told at once: %q", told)
	}
	s.passes(3)
	s.expect(lost, true, "the pod of its name has heartbeated nothing since it was told of another")
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); !strings.Contains(told, lost) || !strings.Contains(told, "/db-0 of its name may read it") {
		t.Errorf("told %q, want the queue and the pod that it is kept for", told)
	}
	if n := s.heard(v1alpha1.ConditionSweepIncomplete); n != 2 {
		t.Errorf("%d events, want one on each of two objects", n)
	}
	s.renew(lease)
	s.passes(1)
	s.expect(its, true, "it has a record")
	s.expect(lost, false, "the pod of its name heartbeated, and was answered with another")
	s.passes(1)
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); told != "" {
		t.Errorf("told %q of a queue that is gone", told)
	}
}

// A Lease that names the queue, or one that no record stands for, says of no pod that it reads another.
func TestAStableQueueThatItsPodReadsIsKept(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.passes(2)
	reads, strays := s.pod("db-0"), s.pod("db-1")
	lease, other := s.lease(reads.UID, reads.Name), s.lease(strays.UID, strays.Name)
	read := s.stableQueue(s.provider.ReplyQueueName(newUID()), string(newUID()), reads.Name)
	unclear := s.stableQueue(s.provider.ReplyQueueName(newUID()), string(strays.UID), strays.Name)
	s.tell(reads, lease, read)
	s.tell(strays, other, s.provider.ReplyQueueName(newUID()))
	for range 5 {
		s.renew(lease)
		s.renew(other)
		s.passes(1)
	}
	s.expect(read, true, "its pod was told of it")
	s.expect(unclear, true, "what the pod of its name was told of is no queue with a record")
}

// A pod that has ended reads nothing, though its object is kept. Where nobody reported the end of its containers, its process
// may live, and says so while it can heartbeat.
func TestAnEndedPodKeepsNoQueue(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.passes(2)
	end := func(name string, of corev1.PodStatus) (*corev1.Pod, string) {
		p := s.pod(name)
		queue := s.replyQueue(newUID(), name+"-1", p)
		s.must(s.admin.SubResource("binding").Create(s.ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}))
		s.must(s.admin.Get(s.ctx, client.ObjectKeyFromObject(p), p))
		p.Status = of
		s.must(s.admin.Status().Update(s.ctx, p))
		return p, queue
	}
	_, finished := end("job-1", corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{
		{Name: "app", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
	}})
	evicted, audible := end("web-1", corev1.PodStatus{Phase: corev1.PodFailed})
	lease := s.lease(evicted.UID, evicted.Name)
	for range 4 {
		s.renew(lease)
		s.passes(1)
	}
	s.expect(finished, false, "its pod has ended")
	s.expect(audible, true, "its pod is said to have ended, and heartbeats")
	s.passes(2)
	s.expect(audible, false, "its pod has ended, and heartbeats no more")
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); told != "" {
		t.Errorf("told %q", told)
	}
}

// A Stable queue is read by another pod than the one that its record was made for: that pod's Lease is kept as long as the record, and
// not the first one's.
func TestTheLeaseOfAReaderIsKeptWithItsRecord(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	record, _ := s.live("db-0")
	first := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: record.Spec.PodRef.UID}}
	reader := s.lease(newUID(), "db-0")
	record.Status.PodUID = reader.Name
	s.must(s.admin.Status().Update(s.ctx, record))
	s.must(s.admin.Delete(s.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "db-0"}}, client.GracePeriodSeconds(0)))
	s.passes(4)
	if !s.exists(reader) {
		t.Error("the Lease of a record's reader was deleted")
	}
	if s.exists(first) {
		t.Error("the Lease of a pod that is gone, and whose queue another reads, is left")
	}
	s.must(s.admin.Delete(s.ctx, record))
	s.passes(2)
	if s.exists(reader) {
		t.Error("the Lease of a pod that is gone is left, and there is no record")
	}
}

// A process may live on when its pod is gone, force-deleted from a lost node: the grace counts from then.
func TestAQueueIsKeptForTheGraceWhenItsPodIsGone(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	p := s.pod("web-1")
	queue := s.replyQueue(newUID(), "web-1-1", p)
	s.passes(4)
	s.must(s.admin.Delete(s.ctx, p, client.GracePeriodSeconds(0)))
	s.clock.Step(10 * time.Second)
	s.must(s.sweeper.Pass(s.ctx))
	s.expect(queue, true, "its pod was there a moment ago")
	s.passes(1)
	s.expect(queue, false, "its pod has been gone for the grace")
}
