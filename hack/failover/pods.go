package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/webhook"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	namespace = "failover"
	hostName  = "web"
	channel   = "sum"

	// The lives here are short, so that much happens between two kills.
	heartbeatEvery = 2 * time.Second
	idleRetention  = 10 * time.Second // five heartbeats, the least a ReplyHost allows
	drain          = 2 * time.Second
	// lingers is the longest that the process of a force-deleted pod goes on living: less than the safe time of the
	// ReplyHost, which is two heartbeats and 10 s.
	lingers = 5 * time.Second
)

// population is the pods that live at a time, each with the kubelet and the process that it would have. Whenever one
// ends, another is created.
type population struct {
	kube   client.Client
	ledger *ledger
	size   int

	created atomic.Int64
	started atomic.Int64
	silent  atomic.Int64
	woken   atomic.Int64

	mu     sync.Mutex
	gates  map[string]chan string // pod name → told once, with the address, when its gate opens
	starts []start
}

// start is one pod's gate that opened.
type start struct{ created, opened time.Time }

// run keeps size pods alive until ctx ends, and returns when all are gone.
func (p *population) run(ctx context.Context) error {
	failed := make(chan error, p.size)
	var all sync.WaitGroup
	for slot := range p.size {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := p.live(ctx, fmt.Sprintf("pod-%d-%d", slot, n)); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// live is one pod's life. When ctx ends, the life is cut short, but not its end: what a kubelet does is done.
func (p *population) live(ctx context.Context, name string) error {
	last := context.WithoutCancel(ctx)
	opened := p.await(name)
	pod, err := p.create(last, name)
	if err != nil {
		return err
	}
	created := time.Now()
	p.created.Add(1)
	var address string
	var patience <-chan time.Time
	if rand.N(10) == 0 {
		patience = time.After(rand.N(2 * time.Second)) // deleted before it starts, perhaps with a queue that is just being made
	}
	select {
	case address = <-opened:
	case <-patience:
		p.forget(name)
		return p.remove(last, pod)
	case <-ctx.Done():
		p.forget(name)
		return p.remove(last, pod)
	}
	p.mu.Lock()
	p.starts = append(p.starts, start{created, time.Now()})
	p.mu.Unlock()
	if err := p.bind(last, pod); err != nil {
		return err
	}
	p.started.Add(1)
	process := &application{population: p, pod: pod, span: p.ledger.begin(name, queueOf(address), time.Now())}
	process.run(ctx, 3*time.Second+rand.N(30*time.Second))
	return process.end(ctx, last)
}

// create makes a pod as the webhook would leave it.
func (p *population) create(ctx context.Context, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
			Annotations: map[string]string{
				v1alpha1.AnnotationCalls: channel, v1alpha1.AnnotationReplyHost: hostName,
				v1alpha1.AnnotationHeartbeat: v1alpha1.HeartbeatAnnotationLease,
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}, AutomountServiceAccountToken: ptr.To(false)},
	}
	if err := webhook.Inject(pod); err != nil {
		return nil, err
	}
	return pod, p.kube.Create(ctx, pod)
}

// bind does what scheduler and kubelet do.
func (p *population) bind(ctx context.Context, pod *corev1.Pod) error {
	if err := p.kube.SubResource("binding").Create(ctx, pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node"}}); err != nil {
		return err
	}
	return p.report(ctx, pod, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
}

func (p *population) report(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase, state corev1.ContainerState) error {
	before := pod.DeepCopy()
	pod.Status.Phase = phase
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "x://1", State: state}}
	return p.kube.Status().Patch(ctx, pod, client.MergeFrom(before))
}

func (p *population) remove(ctx context.Context, pod *corev1.Pod) error {
	return client.IgnoreNotFound(p.kube.Delete(ctx, pod, client.GracePeriodSeconds(0)))
}

// await is told the address of a pod when its gate opens.
func (p *population) await(name string) <-chan string {
	p.mu.Lock()
	defer p.mu.Unlock()
	opened := make(chan string, 1)
	p.gates[name] = opened
	return opened
}

func (p *population) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.gates, name)
}

// saw takes in a pod from a watch.
func (p *population) saw(pod *corev1.Pod) {
	address := pod.Annotations[v1alpha1.AnnotationReplyQueueURL]
	if len(pod.Spec.SchedulingGates) > 0 || address == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if opened, ok := p.gates[pod.Name]; ok {
		opened <- address
		delete(p.gates, pod.Name)
	}
}

// startedAfter is when the first gate opened of a pod that was created after that time; zero: none has yet.
func (p *population) startedAfter(t time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for _, s := range p.starts {
		if s.created.After(t) && (first.IsZero() || s.opened.Before(first)) {
			first = s.opened
		}
	}
	return first
}

// application is the process in a pod: it reads one queue, heartbeats, and sometimes hangs.
type application struct {
	*population
	pod  *corev1.Pod
	span *span // nil while it has no queue
}

// run is the process's life of that length.
func (a *application) run(ctx context.Context, length time.Duration) {
	death := time.NewTimer(length)
	defer death.Stop()
	var hangs <-chan time.Time
	if rand.N(4) == 0 {
		hangs = time.After(rand.N(length))
	}
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-death.C:
			return
		case <-hangs:
			hangs = nil
			a.silent.Add(1)
			beat.Reset(idleRetention + rand.N(2*idleRetention))
			if !death.Reset(length + 3*idleRetention) {
				return
			}
		case <-beat.C:
			a.heartbeat(ctx)
			beat.Reset(heartbeatEvery - rand.N(heartbeatEvery/5))
		}
	}
}

// heartbeat renews the Lease, and follows what the answer says, as rpcenv does.
func (a *application) heartbeat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatEvery)
	defer cancel()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(a.pod.UID)}}
	sent := time.Now()
	renewal := fmt.Appendf(nil, `{"spec":{"renewTime":%q,"holderIdentity":%q}}`, sent.UTC().Format(metav1.RFC3339Micro), a.pod.Name)
	if err := a.kube.Patch(ctx, lease, client.RawPatch(types.MergePatchType, renewal)); err != nil {
		return // A client that cannot heartbeat goes on using its queue.
	}
	queue := queueOf(lease.Annotations[injected.LeaseReplyQueueURL])
	switch {
	case a.span != nil && queue == a.span.queue:
		a.ledger.beat(a.span, sent)
	default:
		now := time.Now()
		a.ledger.end(a.span, now)
		had := a.span
		a.span = nil
		if queue != "" {
			a.span = a.ledger.begin(a.pod.Name, queue, now)
			if had == nil {
				a.woken.Add(1)
			}
		}
	}
}

// end is the end of process and pod, in one of the ways in which pods end.
func (a *application) end(ctx, last context.Context) error {
	terminated := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}
	switch rand.N(3) {
	case 0: // force-deleted: the process goes on living for a while
		err := a.remove(last, a.pod)
		select {
		case <-time.After(rand.N(lingers)):
		case <-ctx.Done():
		}
		a.ledger.end(a.span, time.Now())
		return err
	case 1: // a Job's, which somebody deletes later
		a.ledger.end(a.span, time.Now())
		if err := a.report(last, a.pod, corev1.PodSucceeded, terminated); err != nil {
			return client.IgnoreNotFound(err)
		}
		select {
		case <-time.After(rand.N(5 * time.Second)):
		case <-ctx.Done():
		}
		return a.remove(last, a.pod)
	default: // deleted
		if err := a.kube.Delete(last, a.pod, client.GracePeriodSeconds(30)); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		a.ledger.end(a.span, time.Now())
		if err := a.report(last, a.pod, corev1.PodFailed, terminated); err != nil {
			return client.IgnoreNotFound(err)
		}
		return a.remove(last, a.pod)
	}
}

// queueOf is the name of the queue with that URL.
func queueOf(url string) string { return url[strings.LastIndex(url, "/")+1:] }
