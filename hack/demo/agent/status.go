package agent

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/hack/demo/process"
)

// container is what a node knows of one container of a pod: what ran, what runs, what waits.
type container struct {
	spec *corev1.Container
	// kind says when it runs.
	kind kind

	// proc runs now; nil: nothing runs.
	proc *process.Process
	// ended is how the latest run came to an end; nil: none has, or a newer one runs.
	ended *corev1.ContainerStateTerminated
	// previous is how the run before the current or latest one ended.
	previous *corev1.ContainerStateTerminated
	// waiting says why nothing runs although something should.
	waiting *corev1.ContainerStateWaiting

	restarts int32
	backoff  Backoff
	// due is when the next start may be tried.
	due time.Time
}

type kind int

const (
	app     kind = iota // runs side by side with the others
	initial             // runs to its end before the next is started
	sidecar             // an init container with restartPolicy Always: started in turn, runs till the pod ends
)

// containersOf lists a pod's containers in the order in which they start.
func containersOf(pod *corev1.Pod) []*container {
	var all []*container
	for i := range pod.Spec.InitContainers {
		c := &container{spec: &pod.Spec.InitContainers[i], kind: initial}
		if p := c.spec.RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			c.kind = sidecar
		}
		all = append(all, c)
	}
	for i := range pod.Spec.Containers {
		all = append(all, &container{spec: &pod.Spec.Containers[i], kind: app})
	}
	for _, c := range all {
		c.waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		if c.kind == app && len(pod.Spec.InitContainers) > 0 {
			c.waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
		}
	}
	return all
}

// passed reports whether an init container no longer holds up those after it.
func (c *container) passed() bool {
	switch c.kind {
	case initial:
		return c.ended != nil && c.ended.ExitCode == 0
	case sidecar:
		return c.proc != nil || c.restarts > 0
	case app:
	}
	return true
}

// restarting reports whether a container that ended is to be started again.
func (c *container) restarting(policy corev1.RestartPolicy) bool {
	if c.ended == nil || c.kind == sidecar {
		return true
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.ended.ExitCode != 0
	case corev1.RestartPolicyAlways:
	}
	return c.kind == app || c.ended.ExitCode != 0
}

// terminated describes the end of a process.
func terminated(p *process.Process) *corev1.ContainerStateTerminated {
	e := p.Exit()
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(e.Code), Reason: "Error", StartedAt: metav1.NewTime(p.Began()), FinishedAt: metav1.NewTime(e.At),
		ContainerID: containerID(p),
	}
	if e.Code == 0 {
		t.Reason = "Completed"
	}
	if e.Signal != 0 {
		t.Message = e.String()
	}
	return t
}

// containerID lets a reader of the pod's status find the process.
func containerID(p *process.Process) string { return fmt.Sprintf("process://%d", p.PID()) }

// status is a container's status as the kubelet would report it.
func (c *container) status(image string) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.spec.Name, Image: c.spec.Image, ImageID: image, RestartCount: c.restarts, Started: new(bool)}
	if c.previous != nil {
		s.LastTerminationState.Terminated = c.previous
	}
	switch {
	case c.proc != nil:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.proc.Began())}
		s.ContainerID = containerID(c.proc)
		s.Ready, *s.Started = true, true
	case c.waiting != nil:
		s.State.Waiting = c.waiting
		if c.ended != nil {
			s.LastTerminationState.Terminated = c.ended
			s.ContainerID = c.ended.ContainerID
		}
	case c.ended != nil:
		s.State.Terminated = c.ended
		s.ContainerID = c.ended.ContainerID
		s.Ready = c.kind == initial && c.ended.ExitCode == 0
	}
	return s
}

// podStatus is what the node says of a pod; before is what was said last, whose times go on. over is true once
// nothing will run any more.
func podStatus(pod *corev1.Pod, all []*container, over bool, image func(string) string, before *corev1.PodStatus, now time.Time) corev1.PodStatus {
	s := corev1.PodStatus{
		HostIP: address, HostIPs: []corev1.HostIP{{IP: address}},
		PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		StartTime: before.StartTime, ObservedGeneration: pod.Generation,
	}
	initialized := true
	for _, c := range all {
		status := c.status(image(c.spec.Image))
		if c.kind == app {
			s.ContainerStatuses = append(s.ContainerStatuses, status)
		} else {
			s.InitContainerStatuses = append(s.InitContainerStatuses, status)
			initialized = initialized && c.passed()
		}
	}
	s.Phase = phase(pod.Spec.RestartPolicy, all, over)
	ready := s.Phase == corev1.PodRunning && !slices.ContainsFunc(s.ContainerStatuses, func(c corev1.ContainerStatus) bool { return !c.Ready })
	reason := ""
	switch s.Phase {
	case corev1.PodSucceeded:
		reason = "PodCompleted"
	case corev1.PodFailed:
		reason = "PodFailed"
	case corev1.PodPending, corev1.PodRunning, corev1.PodUnknown:
		if !ready {
			reason = "ContainersNotReady"
		}
	}
	change := func(kind corev1.PodConditionType, is bool, reason string) corev1.PodCondition {
		return condition(before, pod.Generation, kind, is, reason, now)
	}
	s.Conditions = []corev1.PodCondition{
		change(corev1.PodReadyToStartContainers, !over, ""),
		change(corev1.PodInitialized, initialized, ""),
		change(corev1.ContainersReady, ready, reason),
		change(corev1.PodReady, ready, reason),
	}
	return s
}

// over marks a container of which nothing will run any more. One that never ran is reported as ended too, since
// nobody but the node can know.
func (c *container) over(now time.Time) {
	c.waiting = nil
	if c.ended == nil {
		c.ended = &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", FinishedAt: metav1.NewTime(now),
			Message: "the container had not started when its pod was ended",
		}
	}
}

func phase(policy corev1.RestartPolicy, all []*container, over bool) corev1.PodPhase {
	started, finished, failed := true, true, false
	for _, c := range all {
		if c.kind == initial {
			if c.passed() {
				continue
			}
			if !over && c.restarting(policy) {
				return corev1.PodPending
			}
			return corev1.PodFailed
		}
		if c.kind == sidecar {
			continue
		}
		if c.proc == nil && c.ended == nil {
			started = false
		}
		if c.ended == nil || c.proc != nil || (!over && c.restarting(policy)) {
			finished = false
		}
		failed = failed || (c.ended != nil && c.ended.ExitCode != 0)
	}
	switch {
	case over && (failed || !finished):
		return corev1.PodFailed
	case over || (started && finished && !failed):
		return corev1.PodSucceeded
	case started && finished:
		return corev1.PodFailed
	case started:
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// condition keeps the time of the last change.
func condition(before *corev1.PodStatus, generation int64, kind corev1.PodConditionType, is bool, reason string, now time.Time) corev1.PodCondition {
	c := corev1.PodCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.NewTime(now), ObservedGeneration: generation,
	}
	if is {
		c.Status = corev1.ConditionTrue
	}
	for _, old := range before.Conditions {
		if old.Type == kind && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	return c
}

// Backoff is the pause before a container is started again: base, doubled with each end up to most, and
// base again after a run of at least calm. The kubelet's numbers are 10 s, 5 min and 10 min; a demo that is
// watched has less time.
type Backoff struct{ next time.Duration }

const (
	backoffBase = time.Second
	backoffMost = 32 * time.Second
	backoffCalm = 20 * time.Second
)

// After returns the pause after a run that lasted for so long.
func (b *Backoff) After(ran time.Duration) time.Duration {
	if b.next == 0 || ran >= backoffCalm {
		b.next = backoffBase
	}
	pause := b.next
	b.next = min(2*b.next, backoffMost)
	return pause
}
