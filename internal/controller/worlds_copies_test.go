package controller

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// identity writes the ConfigMap that pins a cluster's identity, with what it holds.
func (s *stage) identity(name string, data map[string]string) *corev1.ConfigMap {
	s.Helper()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, Data: data}
	s.must(s.Create(s.ctx, c))
	return c
}

// fenced is the stage's provider behind the fence of a cluster with that identity.
func (s *stage) fenced(identity *corev1.ConfigMap) (*fence.Fence, onlyProvider) {
	provider := onlyProvider{&queue.Provider{Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c", ClusterUID: "uid", API: s.sqs.Client(noRetries)}}
	f := &fence.Fence{
		Client: s.Client, Identity: client.ObjectKeyFromObject(identity), ClusterUID: "uid", Providers: provider,
		Recorder: events.NewFakeRecorder(100), Clock: s.clock,
		InUse: func(context.Context) ([]string, error) { return []string{"default"}, nil },
	}
	provider.Fence = f
	return f, provider
}

// replies leaves out the queue by which the fence tells clusters apart.
func (s *stage) replies() (names []string) {
	for _, name := range s.queues() {
		if strings.Contains(name, "_r_") {
			names = append(names, name)
		}
	}
	return names
}

// etcd is restored from an hour ago: the queues of pods that still live are kept, and go on to be cared for; what would be
// deleted is held, and says so, until a human has confirmed that this cluster is the one that the queues belong to.
func TestWorldEtcdRestored(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	first := s.identity("identity", nil)
	before, provider := s.fenced(first)
	s.pods.Providers, s.records.Providers = provider, provider
	before.Round(s.ctx)
	lively, stopped := s.runningCaller("lively"), s.runningCaller("stopped")
	s.reread(first)
	backup := first.Data
	for range 6 {
		s.clock.Step(fence.DefaultInterval)
		before.Round(s.ctx)
	}

	restored := s.identity("restored", backup)
	after, provider := s.fenced(restored)
	s.pods.Providers, s.records.Providers = provider, provider
	s.restart()
	after.Round(s.ctx)
	s.stop(stopped)
	for range 20 {
		s.clock.Step(heartbeat.BeaconInterval)
		s.beacon()
		s.beat(lively)
		after.Round(s.ctx)
		s.attempt(lively, stopped)
	}
	records := s.recordsOf(stopped)
	if len(s.replies()) != 2 || len(records) != 1 || !conditions.Is(&records[0], v1alpha1.ConditionStalled, metav1.ConditionTrue) {
		t.Fatalf("queues %v, records %v; want both kept, and the record of the pod that stopped to say why", s.queues(), records)
	}
	s.expectKept(lively)

	s.reread(restored)
	_, nonce, said := strings.Cut(restored.Data["status"], v1alpha1.AnnotationConfirmIdentity+"=")
	if !said {
		t.Fatalf("the ConfigMap does not say what to do: %q", restored.Data["status"])
	}
	nonce, _, _ = strings.Cut(strings.Fields(nonce)[0], ",")
	metav1.SetMetaDataAnnotation(&restored.ObjectMeta, v1alpha1.AnnotationConfirmIdentity, strings.Trim(nonce, `.;"'`))
	s.must(s.Update(s.ctx, restored))
	for range 3 {
		after.Round(s.ctx)
	}
	s.attempt(lively, stopped)
	if s.expectKept(lively); len(s.replies()) != 1 {
		t.Errorf("queues %v, want the living pod's alone when it was confirmed: %s", s.queues(), restored.Data["status"])
	}
	s.expectGone(stopped)
}

// A copy of the cluster is started beside it. In the copy no pod lives: its nodes are not there. It would delete every
// queue of the original, and deletes none.
func TestWorldCloneBesideIt(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	identity := s.identity("identity", nil)
	original, provider := s.fenced(identity)
	s.pods.Providers, s.records.Providers = provider, provider
	original.Round(s.ctx)
	p := s.runningCaller("web-1")
	s.reread(identity)
	copied := s.identity("copied", identity.Data)
	s.clock.Step(fence.DefaultInterval)
	original.Round(s.ctx)

	clone, provider := s.fenced(copied)
	r := &ReplyQueueReconciler{
		Client: withoutPods{s.Client}, Reader: withoutPods{s.Client}, Recorder: s.recorder, Providers: provider, ClusterUID: "uid",
		Signals: &Signals{Pods: &lifecycle.Sightings{}, Heartbeats: heartbeat.NewLedger(), Guarded: func() bool { return true }, Clock: s.clock},
	}
	// What the two write in the cluster is the same here; what counts is what reaches SQS.
	name := s.recordsOf(p)[0].Name
	for range 30 {
		s.clock.Step(fence.DefaultInterval)
		s.beaconTo(r.Signals)
		clone.Round(s.ctx)
		original.Round(s.ctx)
		_, _ = r.Reconcile(s.ctx, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: s.namespace, Name: name}})
	}
	if n := s.sqs.Requests(sqstest.Action("DeleteQueue")); n != 0 || len(s.replies()) != 1 {
		t.Errorf("%d requests to delete, queues %v; want none, and the original's", n, s.queues())
	}
	if q := s.recordsOf(p)[0]; open(&q) || conditions.Reason(&q, v1alpha1.ConditionStalled) == "" {
		t.Errorf("the clone did not want to delete it, so that nothing was shown: %+v", q.Status)
	}
	if provider.MayDelete() == nil {
		t.Error("the clone may delete")
	}
}
