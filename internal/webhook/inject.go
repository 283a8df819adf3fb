// Package webhook prepares opted-in pods at admission: environment variables whose values arrive later by
// the downward API, a token for heartbeats where one is asked for, and the scheduling gate that holds the
// pod until its queues exist. What it does is a pure function of the pod: it looks nothing up and calls
// nobody, so a pod's start never depends on AWS being reachable (design: injection).
package webhook

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Outputs are the annotations that, with all under v1alpha1.AnnotationChannelURLPrefix, are written by the
// operator (AnnotationInjected: by this package) and never believed when a template presets them. The
// admission policy on pods names the same.
func Outputs() []string {
	return []string{
		v1alpha1.AnnotationInjected,
		v1alpha1.AnnotationReplyQueueURL,
		v1alpha1.AnnotationChannels,
		v1alpha1.AnnotationReturnAddresses,
		v1alpha1.AnnotationRegion,
		v1alpha1.AnnotationEndpoint,
		v1alpha1.AnnotationIdentity,
		v1alpha1.AnnotationWaitingFor,
	}
}

// Inject prepares an opted-in pod, as it is about to be created, in place. A pod without the label, with
// the value "false", or a mirror pod is not touched.
//
// It is idempotent, and never removes or overrides what the user set: a container that already has a
// variable, a mount or a volume keeps it. The exception are the output annotations, which are stripped.
//
// An error is one or several *InvalidError, joined: the pod asks for something that cannot be meant, and
// it is unchanged. With "best-effort" such a pod is let through without injection instead, since
// best effort must never keep a pod from starting; it loses preset outputs and lacks AnnotationInjected,
// which the operator reports as an event.
func Inject(pod *corev1.Pod) error {
	mode, optedIn := pod.Labels[v1alpha1.LabelInject]
	if !optedIn || mode == optOut || isMirror(pod) {
		return nil
	}
	ask, err := parse(pod)
	if err != nil && mode == v1alpha1.InjectBestEffort {
		stripOutputs(pod)
		return nil
	}
	if err != nil {
		return err
	}

	stripOutputs(pod)
	heartbeat := resolveHeartbeat(pod, ask)
	if heartbeat == v1alpha1.HeartbeatAnnotationLease && !hasToken(pod, ask.caller) {
		mountToken(pod, ask.caller)
	}
	addEnvironment(pod, ask, heartbeat)
	if gated(pod) {
		addGate(pod)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.AnnotationInjected] = heartbeat
	if ask.replyHost != "" || heartbeat == v1alpha1.HeartbeatAnnotationLease {
		// Written down, since what it follows from (kubectl's annotation, the order of the containers) may still change.
		pod.Annotations[v1alpha1.AnnotationCallerContainer] = ask.caller
	}
	return nil
}

// optOut is a value of the label that people write to switch injection off where a template has it on.
const optOut = "false"

// isMirror reports whether the pod mirrors a static pod: the kubelet already runs it, so nothing that is
// changed here would reach its containers.
func isMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// IsOutput reports whether an annotation on an opted-in pod belongs to the operator.
func IsOutput(annotation string) bool {
	return slices.Contains(Outputs(), annotation) ||
		strings.HasPrefix(annotation, v1alpha1.AnnotationChannelURLPrefix)
}

func stripOutputs(pod *corev1.Pod) {
	maps.DeleteFunc(pod.Annotations, func(annotation, _ string) bool { return IsOutput(annotation) })
}

// resolveHeartbeat decides which signal keeps the pod's reply queue. Unless the pod asks, it is the Lease
// where the caller has a token to renew it with. A pod that was gated knows its channels from the start,
// so without a reply queue it has nothing to keep alive or to learn, and spares the API server its
// heartbeats.
func resolveHeartbeat(pod *corev1.Pod, ask *request) string {
	switch {
	case ask.heartbeat != "":
		return ask.heartbeat
	case ask.replyHost == "" && gated(pod):
		return v1alpha1.HeartbeatAnnotationPod
	case hasToken(pod, ask.caller):
		return v1alpha1.HeartbeatAnnotationLease
	default:
		return v1alpha1.HeartbeatAnnotationPod
	}
}

// gated reports whether the pod waits for its queues. A pod that already has a node cannot: the API
// server refuses a gate on it.
func gated(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.LabelInject] == v1alpha1.InjectTrue && pod.Spec.NodeName == ""
}

func addGate(pod *corev1.Pod) {
	gate := corev1.PodSchedulingGate{Name: v1alpha1.SchedulingGate}
	if !slices.Contains(pod.Spec.SchedulingGates, gate) {
		pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, gate)
	}
}
