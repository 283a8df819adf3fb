package model

import (
	"fmt"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// What people, kubelets and applications do.

// never is a time before the world began.
const never = -1000 * time.Hour

// pod is the truth about one pod.
type pod struct {
	uid, name, host string
	stable          bool
	mode            v1alpha1.HeartbeatMode
	bornStep        int
	// process is the one that its container runs or ran last; nil: none ever did.
	process *process
	// bound says that it has a node, lost that the node cannot be reached.
	bound, nodeLost bool
	// muted says that its heartbeats are lost on their way.
	muted bool
	// open says that nothing keeps it from being scheduled.
	open bool
	// told is the address of its queue as its kubelet knows it, from when it last reached the API server.
	told string
	// reported is what its kubelet last said of its container.
	reported string
	// What the API server knew first, and when; -1: not yet. gone: the object is. finished: it is terminal. stopped: its
	// kubelet, who starts nothing in it any more, or nobody ever will, since it had no node.
	gone, finished, stopped time.Duration
	// relapsed is when its last container had ended already, of a pod that came back with a backup and that nothing ran in
	// since; -1: it is no such pod.
	relapsed                time.Duration
	terminating, unlabelled bool
	// heard is when its application last renewed its Lease, or could not because the API server was down.
	heard time.Duration
	// tried is when it last tried to heartbeat while the API server was down, and could have.
	tried time.Duration
	// answered is when its process last got an answer.
	answered time.Duration
	// owed are the shortest times that its ReplyHost had since the pod exists.
	owed lifecycle.Terms
}

func (p *pod) String() string { return p.name + "/" + p.uid[:8] }

// exists says that the API server holds the pod, and that it is not terminal.
func (p *pod) exists() bool { return p.gone < 0 && p.finished < 0 }

// ended is when it stopped to exist.
func (p *pod) ended() time.Duration {
	switch {
	case p.gone < 0:
		return p.finished
	case p.finished < 0:
		return p.gone
	}
	return min(p.gone, p.finished)
}

// over is when it was over with what ran in the pod, which by its object was so since then: a pod that only comes back with
// a backup, and goes again, reads nothing meanwhile. Nobody need have seen it.
func (p *pod) over(then time.Duration) time.Duration {
	if p.relapsed >= 0 {
		return p.relapsed
	}
	return then
}

// process is what a container runs. It reads its reply queue while it lives and is not paused.
type process struct {
	alive, paused bool
	// using is the URL of the reply queue that it reads.
	using    string
	interval time.Duration
	// next is when it heartbeats again.
	next    time.Duration
	started time.Duration
}

// hostNames are those of the ReplyHosts: one for names, one for pods that heartbeat fast, one for pods that do slowly.
var hostNames = []string{"web", "db", "slow"}

func newHost(namespace, name string) *v1alpha1.ReplyHost {
	h := &v1alpha1.ReplyHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.ReplyHostSpec{
			Identity: v1alpha1.IdentityPod, IdleRetentionSeconds: ptr.To[int32](60), DrainSeconds: ptr.To[int32](30),
			Heartbeat: &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To[int32](10)},
		},
	}
	switch name {
	case "db":
		h.Spec.Identity = v1alpha1.IdentityStable
	case "slow":
		h.Spec.IdleRetentionSeconds, h.Spec.Heartbeat.IntervalSeconds = ptr.To[int32](120), ptr.To[int32](20)
	}
	return h
}

// create adds an opted-in pod, as the webhook leaves it.
func (w *world) create(name, host string, mode v1alpha1.HeartbeatMode, bestEffort bool) error {
	o := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name, Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
			Annotations: map[string]string{
				v1alpha1.AnnotationInjected: v1alpha1.HeartbeatAnnotationLease, v1alpha1.AnnotationReplyHost: host,
			},
		},
		Spec: corev1.PodSpec{
			Containers:                   []corev1.Container{{Name: "app", Image: "app"}},
			SchedulingGates:              []corev1.PodSchedulingGate{{Name: v1alpha1.SchedulingGate}},
			AutomountServiceAccountToken: ptr.To(false),
		},
	}
	if mode == v1alpha1.HeartbeatPod {
		o.Annotations[v1alpha1.AnnotationInjected] = v1alpha1.HeartbeatAnnotationPod
	}
	if bestEffort {
		o.Labels[v1alpha1.LabelInject], o.Spec.SchedulingGates = v1alpha1.InjectBestEffort, nil
	}
	p := &pod{name: name, host: host, mode: mode, bornStep: w.step, gone: -1, finished: -1, stopped: -1, relapsed: -1, heard: never, answered: never}
	if h, ok := w.cluster.now[hosts][types.NamespacedName{Namespace: w.namespace, Name: host}].(*v1alpha1.ReplyHost); ok {
		p.owed = lifecycle.TermsOf(&v1alpha1.ReplyQueue{}, h)
	} else {
		p.owed = lifecycle.TermsOf(&v1alpha1.ReplyQueue{}, newHost("", host))
	}
	if p.stable = newHost("", host).Spec.Identity == v1alpha1.IdentityStable; p.stable {
		o.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "statefulset-db", Controller: ptr.To(true)}}
	}
	if err := w.cluster.create(o, nil); err != nil {
		return err
	}
	p.uid, p.open = string(o.UID), bestEffort
	w.pods, w.byUID[p.uid] = append(w.pods, p), p
	return nil
}

// owe has the pods of a ReplyHost be owed no longer times than it has now, whatever one of its name had before.
func (w *world) owe(h *v1alpha1.ReplyHost) {
	now := lifecycle.TermsOf(&v1alpha1.ReplyQueue{}, h)
	for _, p := range w.pods {
		if p.host == h.Name {
			p.owed.Interval = min(p.owed.Interval, now.Interval)
			p.owed.IdleRetention = min(p.owed.IdleRetention, now.IdleRetention)
			p.owed.Drain = min(p.owed.Drain, now.Drain)
		}
	}
}

// object is the pod as the API server has it; nil: not any more.
func (w *world) object(p *pod) *corev1.Pod {
	o, ok := w.cluster.now[pods][types.NamespacedName{Namespace: w.namespace, Name: p.name}].(*corev1.Pod)
	if !ok || string(o.UID) != p.uid {
		return nil
	}
	return o.DeepCopy()
}

// podChanged keeps the truth about what the API server knew, and when.
func (w *world) podChanged(o *corev1.Pod, gone bool) {
	p := w.byUID[string(o.UID)]
	if p == nil {
		return
	}
	if w.restoring && !gone {
		w.podRestored(p, o)
	}
	p.terminating = o.DeletionTimestamp != nil
	p.open = len(o.Spec.SchedulingGates) == 0
	p.unlabelled = o.Labels[v1alpha1.LabelInject] == ""
	if terminal(o) && p.finished < 0 {
		p.finished = w.now
	}
	if gone {
		p.gone = w.now
	}
	if p.nodeLost {
		return // Its kubelet hears nothing, and says nothing.
	}
	p.told = o.Annotations[v1alpha1.AnnotationReplyQueueURL]
	if p.stopped < 0 && (p.process == nil && (gone || terminal(o)) || p.process != nil && !p.process.alive && terminal(o)) {
		p.stopped = w.now
	}
}

// restartable says that the pod's kubelet starts its container again, when that has ended: as far as it knows, the pod is
// to run. One that is cut off does not hear that its pod was removed.
func (p *pod) restartable() bool {
	return p.process != nil && !p.process.alive && (p.exists() && reachable(p) || p.nodeLost && p.stopped < 0)
}

// bind gives an ungated pod a node, whose kubelet starts its container.
func (w *world) bind(p *pod) {
	o := w.object(p)
	w.must(w.cluster.note(w.cluster.server.SubResource("binding").Create(ctx, o, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}), o, nil))
	p.bound = true
	w.launch(p)
}

// launch starts the pod's container: its environment is what the pod's annotations say now. It heartbeats at once.
func (w *world) launch(p *pod) {
	if !p.exists() {
		w.happened["a container restarts on a lost node, of a pod that is gone"]++
	}
	p.relapsed = -1
	p.answered = never
	p.process = &process{alive: true, using: p.told, interval: p.owed.Interval, started: w.now, next: w.now}
	w.beat(p)
}

// report is the kubelet telling the API server about the pod's container.
func (w *world) report(p *pod, phase corev1.PodPhase) error {
	o := w.object(p)
	if o == nil {
		return nil
	}
	state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	p.reported = "running"
	if !p.process.alive {
		state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 143}}
		p.reported = "ended"
	}
	return w.cluster.editStatus(o, func() {
		o.Status.Phase = phase
		o.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "x://1", State: state}}
	})
}

// beat is one heartbeat of the pod's process: it renews its Lease, and does as the answer says.
func (w *world) beat(p *pod) {
	m := p.process
	if p.mode != v1alpha1.HeartbeatLease {
		m.next = w.now + time.Hour
		return
	}
	m.next = w.now + time.Second // as it does when it gets no answer
	switch {
	case w.down && !w.lost && !p.muted && !p.nodeLost:
		p.tried = w.now // It heartbeats, and nothing but the API server is to blame.
		return
	case w.down, w.lost, p.muted, p.nodeLost, p.gone >= 0 && w.now-p.gone > lifecycle.TokenCacheTime:
		return
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: p.uid}}
	if w.cluster.now[leases][client.ObjectKeyFromObject(lease)] == nil {
		return
	}
	w.beacons++
	at := epoch.Add(w.now + w.podSkew + time.Duration(w.beacons)*time.Microsecond).UTC().Format(metav1.RFC3339Micro)
	w.must(w.cluster.patch(lease, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, at)), nil))
	p.heard, p.answered = w.now, w.now
	m.next = w.now + m.interval
	if n, err := strconv.Atoi(lease.Annotations[injected.LeaseIntervalSeconds]); err == nil {
		m.interval = time.Duration(n) * time.Second
	}
	switch url := lease.Annotations[injected.LeaseReplyQueueURL]; {
	case url != "":
		if m.using == "" {
			w.happened["told of a queue by a heartbeat"]++
		}
		m.using = url
		if at, gone := w.deleted[url]; w.byURL(url) == nil && !w.taken[url] && !(gone && w.setBackSince(at)) {
			w.violate("P2", "pod %s heartbeats, and is told of a queue that was deleted: %s", p, nameOf(url))
		}
	case lease.Annotations[injected.LeaseState] == injected.LeaseStateClosing:
		m.using = ""
	}
}

// goDown ends the API server, and comeBack brings it back. Heartbeats that nobody could answer meanwhile count as heard where it was
// away for so long that every operator has to notice: a moment cannot be told from a heartbeat that is late.
func (w *world) goDown() { w.down, w.downSince = true, w.now }

func (w *world) comeBack() {
	if w.down && w.now-w.downSince > heartbeat.BeaconGap {
		for _, p := range w.pods {
			p.heard = max(p.heard, p.tried)
		}
	}
	w.down = false
}

// endPod has the kubelet stop the pod's container, report it, and remove the object: what a graceful deletion comes to.
func (w *world) endPod(p *pod) {
	o := w.object(p)
	if p.process != nil {
		p.process.alive = false
		w.must(w.report(p, corev1.PodFailed))
	}
	w.must(client.IgnoreNotFound(w.cluster.remove(o, nil, client.GracePeriodSeconds(0))))
}

// kubelets do what they would have done in the end, and the pod garbage collector too.
func (w *world) kubelets() {
	for _, p := range w.pods {
		if p.gone >= 0 {
			continue
		}
		switch {
		case p.nodeLost:
			w.loseNode(p)
		case p.terminating:
			w.endPod(p)
		case p.process != nil && p.process.alive && p.reported != "running" && p.finished < 0:
			w.must(w.report(p, corev1.PodRunning))
		}
	}
}

// loseNode removes a pod whose node is gone, as Kubernetes' pod garbage collector does: nobody says what became of its
// container.
func (w *world) loseNode(p *pod) {
	o := w.object(p)
	w.must(w.cluster.editStatus(o, func() {
		o.Status.Phase = corev1.PodFailed
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC"}}
	}))
	w.must(client.IgnoreNotFound(w.cluster.remove(o, nil, client.GracePeriodSeconds(0))))
}

// mark is what anybody can write to a Lease who knows how the operator closes one.
func mark(lease *coordinationv1.Lease) {
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, injected.LeaseState, injected.LeaseStateClosing)
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, heartbeat.AnnotationClosingID, forgedID)
	delete(lease.Annotations, injected.LeaseReplyQueueURL)
}

// forgedID is what a forger takes for the ID of a closing.
const forgedID = "forged"
