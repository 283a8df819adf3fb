package worlds

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// Etcd is restored from a backup, under API servers that are started anew, as Kubernetes says. The operator's process ends by
// itself, since its caches are of what was undone; the next keeps the queues of pods that live, and of those of which etcd
// knows nothing any more. It deletes nothing, makes nothing, and says so, until a human speaks.
func TestWorldEtcdRestored(t *testing.T) {
	w := newWorld(t)
	lively, stopped := w.pod("lively"), w.pod("stopped")
	w.starts(lively)
	w.starts(stopped)
	stop, ends := w.beats(lively), w.beats(stopped)
	defer stop()
	call := w.caller(lively)
	w.must(call())
	restore := w.backUp()
	noted := fmt.Sprint(w.identity().Data)

	forgotten := w.pod("forgotten")
	w.starts(forgotten)
	unheard := w.beats(forgotten)
	w.eventually("the marker bears a nonce that the backup does not know", func() string {
		for _, q := range sqs.Queues() {
			if nonce := q.Tags[v1alpha1.TagNoncePrefix+v1alpha1.DefaultProviderName]; nonce != "" && !strings.Contains(noted, nonce) {
				return ""
			}
		}
		return "it does not"
	})
	w.anHour()
	before := current
	restore()
	unheard()
	if missing := w.gone(forgotten); missing != "" {
		t.Fatal(missing)
	}
	select {
	case <-before.ended:
		if before.err == nil || !strings.Contains(before.err.Error(), "set back") {
			t.Fatalf("the operator ended with %v", before.err)
		}
	case <-time.After(soon):
		t.Fatal("the operator did not notice")
	}
	current = boot() // as the kubelet does

	ends()
	w.stops(stopped)
	late := w.pod("late")
	w.eventually("the record of the pod that stopped says why it stays", func() string {
		record := w.recordOf(stopped)
		if c := conditions.Message(record, v1alpha1.ConditionStalled); !strings.Contains(c, operator.IdentityConfigMapName) {
			return c
		}
		return ""
	})
	w.eventually("the pod that comes says what it waits for", func() string {
		if w.reread(late); !strings.Contains(late.Annotations[v1alpha1.AnnotationWaitingFor], operator.IdentityConfigMapName) {
			return late.Annotations[v1alpha1.AnnotationWaitingFor]
		}
		return ""
	})
	held := time.Now()
	w.eventually("longer than silence, or its being gone, is tolerated", func() string {
		if left := retention + interval - time.Since(held); left > 0 {
			return left.String()
		}
		return ""
	})
	w.must(call())
	for _, p := range []*corev1.Pod{lively, stopped, forgotten} {
		w.kept(p)
	}

	var identity *corev1.ConfigMap
	var confirmation string
	w.eventually("the ConfigMap says what to do", func() string {
		var said bool
		identity = w.identity()
		if _, confirmation, said = strings.Cut(identity.Data["status"], v1alpha1.AnnotationConfirmIdentity+"="); said {
			return ""
		}
		return identity.Data["status"]
	})
	metav1.SetMetaDataAnnotation(&identity.ObjectMeta, v1alpha1.AnnotationConfirmIdentity, strings.Trim(strings.Fields(confirmation)[0], ".,;\"'"))
	w.must(admin.Update(t.Context(), identity))
	w.starts(late)
	defer w.beats(late)()
	w.eventually("the queue of the pod that stopped goes", func() string {
		if _, there := sqs.Queue(queueOf(stopped)); there {
			return "it is there"
		}
		return ""
	})
	w.must(call())
	w.kept(lively)
	w.kept(late)
	w.kept(forgotten) // The sweeper's, when it has found it without record and pod for long enough.
}

// anHour has as much written as much is in an hour, so that versions rise by more than they do until somebody looks, and for longer
// than it takes each process of the operator to look at them.
func (w *world) anHour() {
	w.Helper()
	busy := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "busy"}}
	w.must(admin.Create(w.Context(), busy))
	for began, n := time.Now(), 0; time.Since(began) < 7*time.Second; n++ {
		busy.Data = map[string]string{"n": fmt.Sprint(n)}
		w.must(admin.Update(w.Context(), busy))
	}
}

// backUp copies what etcd holds now. restore has the control plane go on from there.
func (w *world) backUp() (restore func()) {
	w.Helper()
	from := os.DirFS(plane.Etcd.DataDir)
	backup := w.TempDir()
	w.must(plane.Etcd.Stop())
	w.must(os.CopyFS(backup, from))
	w.must(plane.Etcd.Start())
	return func() {
		w.Helper()
		emptying.end() // and the operator's requests, since the API server ends when all watches have
		connect := wire.cut()
		w.must(plane.APIServer.Stop())
		w.must(plane.Etcd.Stop())
		w.must(os.RemoveAll(plane.Etcd.DataDir))
		w.must(os.Mkdir(plane.Etcd.DataDir, 0o700))
		w.must(os.CopyFS(plane.Etcd.DataDir, os.DirFS(backup)))
		w.must(plane.Etcd.Start())
		w.must(plane.APIServer.Start())
		w.must(emptying.start())
		connect()
	}
}

// recordOf is the record of the pod's queue.
func (w *world) recordOf(p *corev1.Pod) *v1alpha1.ReplyQueue {
	w.Helper()
	var all v1alpha1.ReplyQueueList
	w.must(admin.List(w.Context(), &all, client.InNamespace(w.namespace), client.MatchingLabels{v1alpha1.LabelPodUID: string(p.UID)}))
	if len(all.Items) != 1 {
		w.Fatalf("%d records of pod %s, want 1", len(all.Items), p.Name)
	}
	return &all.Items[0]
}

// identity is the ConfigMap that remembers whose the queues are.
func (w *world) identity() *corev1.ConfigMap {
	w.Helper()
	identity := &corev1.ConfigMap{}
	w.eventually("the identity can be read", func() string {
		if err := admin.Get(w.Context(), client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.IdentityConfigMapName}, identity); err != nil {
			return err.Error()
		}
		return ""
	})
	return identity
}
