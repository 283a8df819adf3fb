package worlds

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"os"
	"path/filepath"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// The API server cannot be reached for longer than the retention: calls go on, no queue is deleted, and when it is back
// every count begins again.
func TestWorldAPIServerUnreachable(t *testing.T) {
	w := newWorld(t)
	lively, silent := w.pod("lively"), w.pod("silent")
	w.starts(lively)
	w.starts(silent)
	stop, quiet := w.beats(lively), w.beats(silent)
	call := w.caller(lively)
	w.must(call())

	restore := wire.cut()
	stop() // their heartbeats do not arrive either
	quiet()
	for end := time.Now().Add(2 * retention); time.Now().Before(end); {
		w.must(call())
		w.kept(lively)
		w.kept(silent)
	}
	stop = w.beats(lively)
	defer func() { stop() }()
	back := time.Now()
	restore()
	w.eventually("the silent pod's queue is closed in the end", func() string {
		for _, name := range w.queues() {
			if name == queueOf(silent) {
				return "it is there"
			}
		}
		return ""
	})
	if since := time.Since(back); since < retention {
		t.Errorf("closed %s after the API server was back, before a retention of %s was over", since, retention)
	}
	w.must(call())
	w.kept(lively)
}

// caller makes calls with the pod's queue to a responder in this process.
func (w *world) caller(p *corev1.Pod) (call func() error) {
	w.Helper()
	echo := rpcclient.NewMethod[string, string]("echo")
	c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "sum"}}
	w.reread(c)
	channel := rpcclient.ChannelConfig{Name: "sum", URL: c.Status.QueueURL}
	ctx, cancel := context.WithCancel(w.Context())
	responder, err := rpcclient.NewResponder(sqs.Client(), rpcclient.WithChannels(channel), rpcclient.WithReceiveWait(time.Second))
	w.must(err)
	echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	requester, err := rpcclient.NewRequester(sqs.Client(), rpcclient.StaticReplyQueue(p.Annotations[v1alpha1.AnnotationReplyQueueURL]), rpcclient.WithChannels(channel))
	w.must(err)
	w.Cleanup(func() {
		shutting, done := context.WithTimeout(context.Background(), soon)
		defer done()
		if err := requester.Shutdown(shutting); err != nil {
			w.Error(err)
		}
		cancel()
		if err := <-served; err != nil {
			w.Error(err)
		}
	})
	to, err := requester.Channel("sum")
	w.must(err)
	n := 0
	return func() error {
		n++
		want := fmt.Sprint(n)
		got, err := echo.Call(w.Context(), to, want, rpcclient.CallTimeout(soon))
		if err == nil && got != want {
			return fmt.Errorf("the answer is %s, want %s", got, want)
		}
		return err
	}
}

// The namespace of the heartbeats is deleted: pods go on and start, no queue is closed for idleness, the ReplyHosts say
// what is missing, and the Leases are written again when it is back.
func TestWorldHeartbeatsNamespaceDeleted(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web-1")
	w.starts(p)
	stop := w.beats(p)
	defer stop()
	heartbeats := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.HeartbeatNamespace}}
	w.must(admin.Delete(t.Context(), heartbeats))
	w.eventually("the namespace goes", func() string { return w.gone(heartbeats) })
	gone := time.Now()
	late := w.pod("web-2")
	w.starts(late)
	w.eventually("the ReplyHost says so", func() string {
		return w.condition(v1alpha1.ConditionHeartbeatsUnguarded, v1alpha1.ReasonNamespaceMissing)
	})
	w.eventually("a retention passes", func() string {
		if left := 2*retention - time.Since(gone); left > 0 {
			return left.String()
		}
		return ""
	})
	w.kept(p)
	w.kept(late)
	w.must(reinstall())
	for _, one := range []*corev1.Pod{p, late} {
		w.eventually("the Lease of "+one.Name+" is written again", func() string {
			if w.gone(leaseOf(one)) == "" {
				return "it is not there"
			}
			return ""
		})
	}
	w.eventually("the ReplyHost is content", func() string {
		if w.condition(v1alpha1.ConditionHeartbeatsUnguarded, v1alpha1.ReasonNamespaceMissing) == "" {
			return "it still says that the namespace is missing"
		}
		return ""
	})
	w.kept(p)
}

// condition says what is missing for the ReplyHost web to have that condition, true, for that reason.
func (w *world) condition(kind, reason string) string {
	w.Helper()
	host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web"}}
	w.reread(host)
	if c := meta.FindStatusCondition(host.Status.Conditions, kind); c == nil || c.Status != metav1.ConditionTrue || c.Reason != reason {
		return fmt.Sprintf("conditions %v", host.Status.Conditions)
	}
	return ""
}

// A namespace is deleted with everything in it: it goes, and nothing is left, in the cluster or in SQS; whatever the
// retention of a Stable queue is, there is nobody to keep it for.
func TestWorldNamespaceDeleted(t *testing.T) {
	w := newWorld(t)
	running, finished := w.pod("running"), w.pod("finished")
	w.starts(running)
	w.starts(finished)
	w.report(finished, corev1.PodSucceeded, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}})
	waiting := w.pod("waiting")
	w.starts(waiting) // bound to a node that never starts it
	w.must(admin.Create(t.Context(), &v1alpha1.ReplyHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "db"},
		Spec: v1alpha1.ReplyHostSpec{
			Identity: v1alpha1.IdentityStable, DrainSeconds: ptr.To[int32](0), IdleRetentionSeconds: ptr.To[int32](1209600),
			Heartbeat: &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To(int32(interval.Seconds()))},
		},
	}))
	member := w.pod("db-0", func(p *corev1.Pod) {
		p.Annotations[v1alpha1.AnnotationReplyHost] = "db"
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "db", Controller: ptr.To(true)}}
	})
	w.starts(member)
	stop := w.beats(running)
	defer stop()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	w.must(admin.Delete(t.Context(), ns))
	w.eventually("the pod is asked to end", func() string {
		w.reread(running)
		if running.DeletionTimestamp == nil {
			return "it is not"
		}
		return ""
	})
	w.kept(running) // its process lives, and ends when it has finished its calls
	w.stops(running)
	w.stops(member)
	for _, p := range []*corev1.Pod{finished, waiting} {
		w.must(client.IgnoreNotFound(admin.Delete(t.Context(), p, client.GracePeriodSeconds(0))))
	}
	w.eventually("the namespace goes", func() string { return w.gone(ns) })
	if left := w.queues(); len(left) != 0 {
		t.Errorf("queues %v are left", left)
	}
	for _, p := range []*corev1.Pod{running, finished, waiting, member} {
		w.eventually("the Lease of "+p.Name+" goes", func() string { return w.gone(leaseOf(p)) })
	}
}

// The kind of the records is deleted while pods live: as long as the operator runs, each record, and with it the kind,
// stays until its pod has ended; pods that come meanwhile wait, and start when the kind is there again.
func TestWorldCRDsDeleted(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web-1")
	w.starts(p)
	stop := w.beats(p)
	defer stop()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	crd.SetName("replyqueues.replyqueue.dev")
	w.must(admin.Delete(t.Context(), crd))
	record := func() *v1alpha1.ReplyQueue {
		var all v1alpha1.ReplyQueueList
		w.must(admin.List(t.Context(), &all, client.InNamespace(w.namespace)))
		if len(all.Items) != 1 {
			t.Fatalf("%d records, want 1", len(all.Items))
		}
		return &all.Items[0]
	}
	w.eventually("the record says that it is in use", func() string {
		if !meta.IsStatusConditionTrue(record().Status.Conditions, v1alpha1.ConditionInUse) {
			return "it does not"
		}
		return ""
	})
	late := w.pod("web-2")
	began := time.Now()
	w.eventually("more than a retention passes", func() string {
		if left := retention + 2*time.Second - time.Since(began); left > 0 {
			return left.String()
		}
		return ""
	})
	w.kept(p)
	if w.reread(late); len(late.Spec.SchedulingGates) == 0 {
		t.Error("a pod has started without a reply queue")
	}
	w.stops(p)
	w.eventually("the kind goes when its last record has gone", func() string { return w.gone(crd) })
	if _, there := sqs.Queue(queueOf(p)); there {
		t.Error("the queue of a pod that ended is left")
	}
	text, err := os.ReadFile(filepath.Join(root, "config/crd/bases/replyqueue.dev_replyqueues.yaml"))
	w.must(err)
	again := &unstructured.Unstructured{}
	w.must(yaml.Unmarshal(text, again))
	w.must(admin.Create(t.Context(), again))
	w.starts(late)
	w.kept(late)
}
