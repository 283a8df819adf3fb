package controller

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// What people, kubelets and applications do on a stage.

// channel creates a RequestChannel whose queue exists: that is another controller's work.
func (s *stage) channel(name string) *v1alpha1.RequestChannel {
	s.Helper()
	c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	s.must(s.Create(s.ctx, c))
	c.Status.QueueURL, c.Status.AccountID = "https://sqs.us-east-1.amazonaws.com/1/"+name, "1"
	s.must(s.Status().Patch(s.ctx, c, client.MergeFrom(&v1alpha1.RequestChannel{ObjectMeta: c.ObjectMeta})))
	return c
}

func (s *stage) host(name string, change func(*v1alpha1.ReplyHostSpec)) *v1alpha1.ReplyHost {
	s.Helper()
	h := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	h.Spec.Heartbeat = &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To[int32](10)}
	h.Spec.IdleRetentionSeconds = ptr.To[int32](60)
	if change != nil {
		change(&h.Spec)
	}
	s.must(s.Create(s.ctx, h))
	return h
}

// pod creates an opted-in pod as the webhook would leave it.
func (s *stage) pod(name string, annotations map[string]string, change ...func(*corev1.Pod)) *corev1.Pod {
	s.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.namespace, Name: name, Annotations: map[string]string{v1alpha1.AnnotationInjected: v1alpha1.HeartbeatAnnotationLease},
			Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
		},
		Spec: corev1.PodSpec{
			Containers:                   []corev1.Container{{Name: "app", Image: "app"}},
			SchedulingGates:              []corev1.PodSchedulingGate{{Name: "example.com/other"}, {Name: v1alpha1.SchedulingGate}},
			AutomountServiceAccountToken: ptr.To(false),
		},
	}
	for key, value := range annotations {
		p.Annotations[key] = value
	}
	for _, f := range change {
		f(p)
	}
	s.must(s.Create(s.ctx, p))
	return p
}

func (s *stage) reread(o client.Object) {
	s.Helper()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(o), o))
}

func (s *stage) exists(o client.Object) bool {
	s.Helper()
	err := s.Get(s.ctx, client.ObjectKeyFromObject(o), o)
	if err != nil && !apierrors.IsNotFound(err) {
		s.Fatal(err)
	}
	return err == nil
}

// run binds the pod to a node and reports its container running, as a kubelet would.
func (s *stage) run(p *corev1.Pod) {
	s.Helper()
	s.reread(p)
	if len(p.Spec.SchedulingGates) > 0 {
		before := p.DeepCopy()
		p.Spec.SchedulingGates = nil
		s.must(s.Patch(s.ctx, p, client.MergeFrom(before)))
	}
	if p.Spec.NodeName == "" {
		s.must(s.SubResource("binding").Create(s.ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}))
		s.reread(p)
	}
	s.report(p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
}

// report posts the state of the pod's container, as a kubelet would.
func (s *stage) report(p *corev1.Pod, phase corev1.PodPhase, state corev1.ContainerState) {
	s.Helper()
	s.reread(p)
	before := p.DeepCopy()
	p.Status.Phase = phase
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "x://1", State: state}}
	s.must(s.Status().Patch(s.ctx, p, client.MergeFrom(before)))
}

// vanish removes the pod object without a word about its containers.
func (s *stage) vanish(p *corev1.Pod) {
	s.Helper()
	s.must(s.Delete(s.ctx, p, client.GracePeriodSeconds(0)))
}

// stop reports the pod's container terminated and removes the object, as a kubelet would.
func (s *stage) stop(p *corev1.Pod) {
	s.Helper()
	s.report(p, corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 143}})
	s.round()
	s.vanish(p)
}

// beat renews the pod's Lease, as its application would, and delivers that.
func (s *stage) beat(p *corev1.Pod) {
	s.Helper()
	s.quietBeat(p)
	s.listen()
}

// quietBeat renews the pod's Lease, but the watch has not delivered it yet.
func (s *stage) quietBeat(p *corev1.Pod) {
	s.Helper()
	l := s.lease(p)
	before := l.DeepCopy()
	s.beats++
	l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(s.clock.Now().Add(time.Duration(s.beats) * time.Microsecond)))
	s.must(s.Patch(s.ctx, l, client.MergeFrom(before)))
	s.writes-- // it is the application's
}

func (s *stage) lease(p *corev1.Pod) *coordinationv1.Lease {
	s.Helper()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(p.UID)}}
	s.reread(l)
	return l
}

func (s *stage) leaseState(p *corev1.Pod) string { return s.lease(p).Annotations[injected.LeaseState] }
