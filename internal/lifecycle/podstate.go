package lifecycle

import (
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// StateOf says what one reading of a pod shows. A nil pod is one that the API server says does not exist; what its
// containers came to is then for Sightings to remember.
//
// Terminated containers count only in a terminal phase: between a crash and the next start every container may be
// terminated, and a pod that is being deleted can still get one more start from a kubelet that has not heard yet. And
// they count only where the kubelet wrote that phase: the pod garbage collector writes Failed too, over what the kubelet
// of a lost node said last, and nobody knows what has run there since.
func StateOf(pod *corev1.Pod) Pod {
	switch {
	case pod == nil:
		return PodGone
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		if pod.Spec.NodeName == "" || everyContainerTerminated(pod) && !collected(pod) {
			return PodStopped
		}
		return PodGone
	case pod.DeletionTimestamp != nil:
		return PodTerminating
	default:
		return PodPresent
	}
}

// LastStateOf says what the last reading of a pod, taken from its deletion event, means now that it is gone. Only a terminal
// phase is believed: a watch with a selector reports a pod that lost its label in the same way, with the state from before,
// and one that had no node then may have been bound, and have run, before it went.
func LastStateOf(pod *corev1.Pod) Pod {
	if StateOf(pod) == PodStopped {
		return PodStopped
	}
	return PodGone
}

// collected says that the phase Failed of a pod may be the pod garbage collector's, and not the kubelet's. It marks what it fails
// (Kubernetes 1.26 and newer), but for a pod of a node that a human has tainted as out of service: that one bears the mark of
// the taint manager, which deleted it. Pods that the taint manager deletes from a node that lives have the same mark, and are
// given more time than they need; an unmarked one that was on such a node is believed, as is the human who says that it is off.
func collected(pod *corev1.Pod) bool {
	if pod.Status.Phase != corev1.PodFailed {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && (c.Reason == "DeletionByPodGC" || c.Reason == "DeletionByTaintManager") {
			return true
		}
	}
	return false
}

func everyContainerTerminated(pod *corev1.Pod) bool {
	if len(pod.Status.ContainerStatuses) < len(pod.Spec.Containers) {
		return false
	}
	for _, s := range pod.Status.ContainerStatuses {
		if !ended(s) {
			return false
		}
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if !ended(s) {
			return false
		}
	}
	return true
}

// ended is true for a container that terminated, and for one that never started.
func ended(s corev1.ContainerStatus) bool {
	return s.State.Terminated != nil || (s.State.Running == nil && s.ContainerID == "")
}

// DefaultContainerAnnotation names the container that kubectl means where none is named.
const DefaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// LongRunning yields a pod's containers, and then its native sidecars (init containers with restartPolicy Always),
// each to be read or changed in place. Ordinary init containers end before the pod is ready and have no business with
// queues.
func LongRunning(spec *corev1.PodSpec) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for i := range spec.Containers {
			if !yield(&spec.Containers[i]) {
				return
			}
		}
		for i := range spec.InitContainers {
			c := &spec.InitContainers[i]
			if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && !yield(c) {
				return
			}
		}
	}
}

// CallerContainer is the container that reads the pod's reply queue, among those of LongRunning: the one its
// annotation names, else kubectl's default container, else the first. ok is false where the annotation names none of
// them. The webhook gives this container the queue, and the controllers watch it.
func CallerContainer(annotations map[string]string, spec *corev1.PodSpec) (name string, ok bool) {
	wanted, explicit := annotations[v1alpha1.AnnotationCallerContainer]
	if !explicit {
		wanted = annotations[DefaultContainerAnnotation]
	}
	for c := range LongRunning(spec) {
		if c.Name == wanted {
			return wanted, true
		}
	}
	if explicit || len(spec.Containers) == 0 {
		return wanted, false
	}
	return spec.Containers[0].Name, true
}

// Caller is the container that reads a reply queue.
type Caller struct {
	// ID is the kubelet's name for it: another one with each start.
	ID string
	// Runs says that it runs.
	Runs bool
}

// CallerOf is the container that reads the pod's reply queue, as the kubelet reports it; of no pod, or where nothing is
// reported, the zero Caller.
func CallerOf(pod *corev1.Pod) Caller {
	if pod == nil {
		return Caller{}
	}
	if status := callerStatus(pod); status != nil {
		return Caller{ID: status.ContainerID, Runs: status.State.Running != nil}
	}
	return Caller{}
}

// callerStatus is what the kubelet reports of the container that reads the reply queue; nil: nothing.
func callerStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	caller, ok := CallerContainer(pod.Annotations, &pod.Spec)
	if !ok {
		return nil
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == caller {
				return &statuses[i]
			}
		}
	}
	return nil
}

// TermsOf are the times a record lives by: the ReplyHost's of now, or the record's own where host is nil.
func TermsOf(record *v1alpha1.ReplyQueue, host *v1alpha1.ReplyHost) Terms {
	t := Terms{
		Identity:      record.Spec.Identity,
		Mode:          record.Spec.Heartbeat,
		Interval:      seconds(record.Spec.HeartbeatIntervalSeconds),
		IdleRetention: seconds(record.Spec.IdleRetentionSeconds),
	}
	if record.Spec.DrainSeconds != nil {
		t.Drain = seconds(*record.Spec.DrainSeconds)
	}
	if host != nil {
		t.Interval = HeartbeatInterval(host)
		t.IdleRetention = seconds(orDefault(host.Spec.IdleRetentionSeconds, v1alpha1.DefaultIdleRetentionSeconds))
		t.Drain = seconds(orDefault(host.Spec.DrainSeconds, v1alpha1.DefaultDrainSeconds))
	}
	return t
}

// HeartbeatInterval is the interval a ReplyHost asks its pods for.
func HeartbeatInterval(host *v1alpha1.ReplyHost) time.Duration {
	if host.Spec.Heartbeat == nil {
		return seconds(v1alpha1.DefaultHeartbeatIntervalSeconds)
	}
	return seconds(orDefault(host.Spec.Heartbeat.IntervalSeconds, v1alpha1.DefaultHeartbeatIntervalSeconds))
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func orDefault(value *int32, otherwise int32) int32 {
	if value == nil {
		return otherwise
	}
	return *value
}
