package controller

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
)

// What becomes of pods: the rows of lifecycle.Decide's second table, on an API server.

var (
	runningNow    = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	terminatedNow = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	crashLooping  = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
)

// byPod has a pod's queue live as long as the pod object, without heartbeats.
func byPod(p *corev1.Pod) {
	p.Annotations[v1alpha1.AnnotationInjected] = v1alpha1.HeartbeatAnnotationPod
}

func (s *stage) leaseExists(p *corev1.Pod) bool {
	s.Helper()
	return s.exists(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}})
}

// A Job's pod stays when it has finished, until somebody deletes it: its queue does not, nor what is remembered of it.
func TestAPodThatFinishesLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]func(*corev1.Pod){"lease": func(*corev1.Pod) {}, "pod": byPod} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newReadyStage(t)
			p := s.pod("job", caller(), mode)
			s.settle()
			s.run(p)
			s.settle()
			s.report(p, corev1.PodSucceeded, terminatedNow)
			s.settle()
			s.pass(25 * time.Second)
			if len(s.queues()) != 1 {
				t.Fatal("deleted before the drain was over")
			}
			s.pass(10 * time.Second)
			s.expectNothingLeft(p)
			s.pass(time.Minute)
			s.expectNothingLeft(p)
			s.vanish(p)
			s.settle()
			s.expectNothingLeft(p)
		})
	}
}

func TestASilentPodThatFinishesLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("job")
	s.pass(70 * time.Second)
	if len(s.queues()) != 0 || !s.leaseExists(p) {
		t.Fatal("want the queue closed for idleness, and the Lease kept to wake by")
	}
	s.report(p, corev1.PodSucceeded, terminatedNow)
	s.settle()
	if s.expectNothingLeft(p); s.idle("web") != 0 {
		t.Errorf("%d idle, want none: a pod that finished is not idle", s.idle("web"))
	}
}

// idle is how many pods the status of a ReplyHost calls idle.
func (s *stage) idle(host string) int32 {
	s.Helper()
	h := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: host}}
	s.reread(h)
	return *h.Status.Queues.Idle
}

// TestPodsThatEndBadly has pods end without a kubelet that says all there is to say, and expects the queue for as long
// as the process may live.
func TestPodsThatEndBadly(t *testing.T) {
	t.Parallel()
	const drain, safe = 30 * time.Second, 130 * time.Second
	for name, c := range map[string]struct {
		end  func(*stage, *corev1.Pod)
		kept time.Duration
	}{
		"evicted, and its containers reported": {func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodFailed, terminatedNow)
		}, drain},
		"evicted, and its containers not reported": {func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodFailed, runningNow)
		}, safe},
		"evicted in a crash loop": {func(s *stage, p *corev1.Pod) {
			s.report(p, corev1.PodFailed, crashLooping)
		}, safe},
		"force-deleted": {func(s *stage, p *corev1.Pod) {
			s.vanish(p)
		}, safe},
		"its node lost, and removed by pod GC": {func(s *stage, p *corev1.Pod) {
			s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(30))) // the taint manager
			s.settle()
			s.report(p, corev1.PodFailed, runningNow) // pod GC
			s.settle()
			s.vanish(p)
		}, safe},
		"deleted just after a crash": {func(s *stage, p *corev1.Pod) {
			s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(30)))
			s.report(p, corev1.PodRunning, terminatedNow) // a kubelet that has not heard may start it once more
			s.settle()
			s.vanish(p)
		}, safe},
		"deleted properly": {func(s *stage, p *corev1.Pod) {
			s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(30)))
			s.settle()
			s.stop(p)
		}, drain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.channel("login")
			s.host("web", func(h *v1alpha1.ReplyHostSpec) {
				h.Heartbeat.IntervalSeconds, h.IdleRetentionSeconds = ptr.To[int32](60), ptr.To[int32](300)
			})
			p := s.runningCaller("web-1")
			c.end(s, p)
			s.settle()
			s.pass(c.kept - 5*time.Second)
			if len(s.queues()) != 1 {
				t.Fatalf("deleted within %s", c.kept)
			}
			s.pass(10 * time.Second)
			s.expectNothingLeft(p)
		})
	}
}

// A container that restarts finds the queue that it had, and the time for which it did not run is no silence.
func TestAContainerThatRestartsKeepsItsQueue(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	queues := s.queues()
	for range 2 {
		s.pass(50 * time.Second) // silent, but not for long enough
		s.report(p, corev1.PodRunning, crashLooping)
		s.settle()
		s.pass(90 * time.Second)
		s.report(p, corev1.PodRunning, runningNow)
		s.settle()
	}
	if s.reread(p); !slices.Equal(s.queues(), queues) || !strings.HasSuffix(p.Annotations[v1alpha1.AnnotationReplyQueueURL], queues[0]) {
		t.Errorf("queues %v, told %s; want the first one", s.queues(), p.Annotations[v1alpha1.AnnotationReplyQueueURL])
	}
	s.pass(70 * time.Second)
	if len(s.queues()) != 0 {
		t.Error("a container that runs in silence keeps its queue")
	}
}

// unlabelled is the stage's cache when the pod has lost its label: the cache holds opted-in pods alone.
func (s *stage) unlabelled() (restore func()) {
	s.pods.Client, s.records.Client = withoutPods{s.Client}, withoutPods{s.Client}
	return func() { s.pods.Client, s.records.Client = s.Client, s.Client }
}

func TestTheOptInLabelComesAndGoes(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	p := s.runningCaller("web-1")
	queues := s.queues()
	label := func(value any) {
		t.Helper()
		s.reread(p)
		before := p.DeepCopy()
		delete(p.Labels, v1alpha1.LabelInject)
		if v, ok := value.(string); ok {
			p.Labels = map[string]string{v1alpha1.LabelInject: v}
		}
		s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
	}
	label(nil)
	s.signals.Pods.SeeLast(p.UID, lifecycle.LastStateOf(p), s.signals.view(s.clock.Now())) // its going from the cache looks like a deletion
	relabel := s.unlabelled()
	s.beatFor(p, func() { s.pass(3 * time.Minute) })
	relabel()
	label(v1alpha1.InjectTrue)
	s.settle()
	s.beatFor(p, func() { s.pass(2 * time.Minute) })
	if !slices.Equal(s.queues(), queues) || len(s.recordsOf(p)) != 1 {
		t.Fatalf("queues %v and %d records, want %v", s.queues(), len(s.recordsOf(p)), queues)
	}
	// Without it, the end of the pod is not told by the cache, but found.
	label(nil)
	s.unlabelled()
	s.settle()
	s.vanish(p)
	s.settle()
	s.pass(35 * time.Second)
	s.expectNothingLeft(p)
}

// A ReplyHost's new times count for its pods at once, or when they can know of them; what a queue was created with
// stays, since a queue is not changed under its reader.
func TestAChangedReplyHost(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	host := s.host("web", nil)
	p := s.runningCaller("web-1")
	before, _ := s.sqs.Queue(s.queues()[0])
	s.reread(host)
	host.Spec.IdleRetentionSeconds, host.Spec.DrainSeconds = ptr.To[int32](300), ptr.To[int32](90)
	host.Spec.Tags = v1alpha1.Tags{"team": "payments"}
	s.must(s.Update(s.ctx, host))
	s.settle()
	s.pass(4 * time.Minute)
	if len(s.queues()) != 1 {
		t.Fatal("closed by the old retention")
	}
	if after, _ := s.sqs.Queue(s.queues()[0]); len(after.Tags) != len(before.Tags) || s.sqs.Requests() != 1 {
		t.Errorf("tags %v and %d requests, want the queue left alone", after.Tags, s.sqs.Requests())
	}
	late := s.pod("web-2", caller())
	s.settle()
	if info, _ := s.sqs.Queue("rq_c_r_" + string(s.recordsOf(late)[0].UID)); info.Tags["team"] != "payments" {
		t.Errorf("tags of a new queue %v, want the host's of now", info.Tags)
	}
	s.must(s.Delete(s.ctx, late, client.GracePeriodSeconds(0)))
	s.stop(p)
	s.pass(80 * time.Second)
	if len(s.recordsOf(p)) != 1 {
		t.Error("drained by the old time")
	}
	s.pass(15 * time.Second)
	s.expectNothingLeft(p)
}

// A pod has one reply queue. The webhook refuses two names; where it did not see the pod, the pod says what it waits for.
func TestTwoReplyHostsAreNone(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	s.host("other", nil)
	p := s.pod("web-1", map[string]string{v1alpha1.AnnotationCalls: "login", v1alpha1.AnnotationReplyHost: "web,other"})
	s.settle()
	if s.reread(p); !gated(p) || !strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], "names one ReplyHost") || len(s.queues()) != 0 {
		t.Errorf("gated %v, waiting for %q, queues %v", gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor], s.queues())
	}
}

// Pods that start together do not share the last place, and one that waits gets the place that becomes free.
func TestMaxQueuesIsKeptAndGivenOn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) { h.MaxQueues = ptr.To[int32](3) })
	s.settle() // the finalizer
	var pods []*corev1.Pod
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		pods = append(pods, s.pod(name, caller()))
	}
	direct, err := sharedEnvironment()
	s.must(err)
	cached := interceptor.NewClient(direct, interceptor.Funcs{List: s.interceptors().List})
	r := &PodReconciler{Client: cached, Reader: cached, Recorder: s.recorder, Providers: s.pods.Providers, Signals: s.signals}
	var all sync.WaitGroup
	for _, p := range pods {
		all.Go(func() {
			if _, err := r.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.settle()
	if n := len(s.queues()); n != 3 {
		t.Fatalf("%d queues, want spec.maxQueues of 3", n)
	}
	var waiting []*corev1.Pod
	for _, p := range pods {
		if s.reread(p); gated(p) {
			waiting = append(waiting, p)
		}
	}
	first := pods[slices.IndexFunc(pods, func(p *corev1.Pod) bool { return !gated(p) })]
	s.vanish(first)
	s.pass(40 * time.Second)
	open := 0
	for _, p := range waiting {
		if s.reread(p); !gated(p) {
			open++
		}
	}
	if open != 1 || len(s.queues()) != 3 {
		t.Errorf("%d of the pods that waited started, with %d queues; want one, with three", open, len(s.queues()))
	}
}

// A place is free when a record is closed, and then who waits is woken: the queue's deletion may have to wait for SQS, or for a
// human.
func TestAPlaceThatIsFreeWakesThoseWhoWait(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) {
		h.MaxQueues, h.DrainSeconds = ptr.To[int32](1), ptr.To[int32](0)
	})
	s.settle()
	first := s.runningCaller("first")
	waits := s.pod("waits", caller())
	s.settle()
	was := s.recordsOf(first)[0]
	s.fence(&holding{closed: true, conflict: true})
	s.report(first, corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}})
	s.pass(10 * time.Second)
	is := s.recordsOf(first)
	if len(is) != 1 || open(&is[0]) {
		t.Fatalf("records %v; want the first's, closed and held", is)
	}
	woken := func(tell func(handler.Funcs, requestQueue)) (names []string) {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		defer q.ShutDown()
		tell(s.pods.recordEvents(), q)
		for q.Len() > 0 {
			request, _ := q.Get()
			names = append(names, request.Name)
			q.Done(request)
		}
		return names
	}
	for name, c := range map[string]struct {
		tell func(handler.Funcs, requestQueue)
		want []string
	}{
		"closed": {func(h handler.Funcs, q requestQueue) {
			h.Update(s.ctx, event.UpdateEvent{ObjectOld: &was, ObjectNew: &is[0]}, q)
		}, []string{"first", "waits"}},
		"changed": {func(h handler.Funcs, q requestQueue) {
			h.Update(s.ctx, event.UpdateEvent{ObjectOld: &was, ObjectNew: &was}, q)
		}, []string{"first"}},
		"gone after its closing": {func(h handler.Funcs, q requestQueue) { h.Delete(s.ctx, event.DeleteEvent{Object: &is[0]}, q) }, []string{"first"}},
		"gone by force":          {func(h handler.Funcs, q requestQueue) { h.Delete(s.ctx, event.DeleteEvent{Object: &was}, q) }, []string{"first", "waits"}},
	} {
		s.reread(waits)
		waits.Annotations[v1alpha1.AnnotationWaitingFor] = "as when the place was taken"
		s.must(s.Update(s.ctx, waits))
		if got := woken(c.tell); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v are woken, want %v", name, got, c.want)
		}
	}
	if n := len(s.recordsOf(waits)); n != 1 {
		t.Errorf("the one that waited has %d records, want 1", n)
	}
}

// Counts change with every pod, and wake no other.
func TestCountsWakeNobody(t *testing.T) {
	t.Parallel()
	many := &v1alpha1.ReplyHost{Status: v1alpha1.ReplyHostStatus{Queues: &v1alpha1.ReplyQueueCounts{Total: ptr.To[int32](7)}}}
	fewer := many.DeepCopy()
	fewer.Status.Queues.Total = ptr.To[int32](6)
	for name, c := range map[string]struct {
		now  *v1alpha1.ReplyHost
		want bool
	}{
		"a count":       {fewer, false},
		"the spec":      {&v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Generation: 1}}, true},
		"the finalizer": {&v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"f"}}}, true},
	} {
		if got := hostMatters(event.UpdateEvent{ObjectOld: many, ObjectNew: c.now}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
