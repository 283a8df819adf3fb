package webhook

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// heartbeatSeconds is the interval a container starts with (spec.heartbeat.intervalSeconds of a ReplyHost
// when unset). The webhook looks nothing up, so the host's own interval is advised on the Lease.
const heartbeatSeconds = 60

// addEnvironment gives every long-running container the channels and the pod's identity, and the caller
// its reply queue and heartbeat, since one queue has one reader.
func addEnvironment(pod *corev1.Pod, ask *request, heartbeat string) {
	shared := []corev1.EnvVar{
		fromField(injected.EnvPodName, "metadata.name"),
		fromField(injected.EnvPodUID, "metadata.uid"),
		fromField(injected.EnvNamespace, "metadata.namespace"),
		fromAnnotation(injected.EnvRegion, v1alpha1.AnnotationRegion),
		fromAnnotation(injected.EnvEndpoint, v1alpha1.AnnotationEndpoint),
		fromAnnotation(injected.EnvChannels, v1alpha1.AnnotationChannels),
		fromAnnotation(injected.EnvReturnAddresses, v1alpha1.AnnotationReturnAddresses),
	}
	for _, channel := range ask.channels() {
		shared = append(shared, fromAnnotation(injected.ChannelURLVariable(channel), v1alpha1.ChannelURLAnnotation(channel)))
	}

	own := slices.Clone(shared)
	if ask.replyHost != "" {
		own = append(own, fromAnnotation(injected.EnvReplyQueueURL, v1alpha1.AnnotationReplyQueueURL),
			fromAnnotation(injected.EnvIdentity, v1alpha1.AnnotationIdentity))
	}
	for container := range lifecycle.LongRunning(&pod.Spec) {
		file := mountAddresses(pod, container, ask)
		if container.Name != ask.caller {
			container.Env = slices.Concat(missing(container, shared), file, container.Env)
			continue
		}
		container.Env = slices.Concat(missing(container, own), file, container.Env)
		if heartbeat == v1alpha1.HeartbeatAnnotationLease {
			// Last, since it refers to the pod's UID, which may be the user's own variable.
			container.Env = append(container.Env, missing(container, []corev1.EnvVar{heartbeatVariable()})...)
		}
	}
}

func heartbeatVariable() corev1.EnvVar {
	return corev1.EnvVar{Name: injected.EnvHeartbeat, Value: injected.Encode(injected.Heartbeat{
		Namespace:       v1alpha1.HeartbeatNamespace,
		Name:            "$(" + injected.EnvPodUID + ")",
		IntervalSeconds: heartbeatSeconds,
	})}
}

// missing are the variables that the container does not set itself. They go in front of its own, so that
// those can refer to them ("$(REPLYQUEUE_CHANNEL_LOGIN_URL)"): Kubernetes expands only what was defined
// before.
func missing(container *corev1.Container, variables []corev1.EnvVar) []corev1.EnvVar {
	return slices.DeleteFunc(slices.Clone(variables), func(v corev1.EnvVar) bool {
		return slices.ContainsFunc(container.Env, func(set corev1.EnvVar) bool { return set.Name == v.Name })
	})
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

// fromAnnotation is empty in the container while the annotation is not there.
func fromAnnotation(name, annotation string) corev1.EnvVar {
	return fromField(name, fmt.Sprintf("metadata.annotations['%s']", annotation))
}
