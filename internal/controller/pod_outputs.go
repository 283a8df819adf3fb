package controller

import (
	"encoding/json"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// addresses is what a pod is told.
type addresses struct {
	channels injected.Channels
	returns  *injected.ReturnAddresses
	// region and endpoint are empty where the provider does not name them.
	region, endpoint string
	// replyQueueURL is empty while the pod has no reply queue.
	replyQueueURL string
	// identity is nil unless the queue is kept for the pod's successors.
	identity *injected.Identity
}

// outputs are the annotations that carry addresses on a pod. What is absent is to be removed.
func (a addresses) outputs() map[string]string {
	out := map[string]string{}
	if len(a.channels) > 0 {
		out[v1alpha1.AnnotationChannels] = injected.Encode(a.channels)
		for name, channel := range a.channels {
			out[v1alpha1.ChannelURLAnnotation(name)] = channel.URL
		}
	}
	if a.returns != nil {
		out[v1alpha1.AnnotationReturnAddresses] = injected.Encode(*a.returns)
	}
	if a.identity != nil {
		out[v1alpha1.AnnotationIdentity] = injected.Encode(*a.identity)
	}
	for key, value := range map[string]string{
		v1alpha1.AnnotationRegion:        a.region,
		v1alpha1.AnnotationEndpoint:      a.endpoint,
		v1alpha1.AnnotationReplyQueueURL: a.replyQueueURL,
	} {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

// leaseAnnotations are those that tell a running application of its addresses, by the answers to its heartbeats. An
// interval of 0 leaves it as it is.
func (a addresses) leaseAnnotations(pod *corev1.Pod, record string, intervalSeconds int) map[string]string {
	out := map[string]string{
		heartbeat.AnnotationPodName: pod.Name,
	}
	if intervalSeconds > 0 {
		out[injected.LeaseIntervalSeconds] = strconv.Itoa(intervalSeconds)
	}
	if a.replyQueueURL != "" {
		out[heartbeat.AnnotationRecord] = record
		out[injected.LeaseReplyQueueURL] = a.replyQueueURL
		out[injected.LeaseState] = injected.LeaseStateOpen
	}
	if len(a.channels) > 0 {
		out[injected.LeaseChannels] = injected.Encode(a.channels)
	}
	if a.returns != nil {
		out[injected.LeaseReturnAddresses] = injected.Encode(*a.returns)
	}
	if a.identity != nil {
		out[injected.LeaseIdentity] = injected.Encode(*a.identity)
	}
	if a.region != "" {
		out[injected.LeaseRegion] = a.region
	}
	if a.endpoint != "" {
		out[injected.LeaseEndpoint] = a.endpoint
	}
	return out
}

// gated says that a pod waits at our scheduling gate.
func gated(pod *corev1.Pod) bool {
	for _, g := range pod.Spec.SchedulingGates {
		if g.Name == v1alpha1.SchedulingGate {
			return true
		}
	}
	return false
}

// isOutput says that an annotation is one of those that only the operator writes, after admission.
func isOutput(key string) bool {
	switch key {
	case v1alpha1.AnnotationReplyQueueURL, v1alpha1.AnnotationChannels, v1alpha1.AnnotationReturnAddresses,
		v1alpha1.AnnotationRegion, v1alpha1.AnnotationEndpoint, v1alpha1.AnnotationIdentity:
		return true
	}
	return len(key) > len(v1alpha1.AnnotationChannelURLPrefix) &&
		key[:len(v1alpha1.AnnotationChannelURLPrefix)] == v1alpha1.AnnotationChannelURLPrefix
}

// annotationChanges is what has to be patched so that pod carries exactly the outputs wanted: a value to set, nil to
// remove. Where wanted is only partial, what else the pod was told stays, but for a reply queue that is gone.
func annotationChanges(pod *corev1.Pod, wanted map[string]string, partial bool) map[string]any {
	changes := map[string]any{}
	for key, value := range wanted {
		if have, ok := pod.Annotations[key]; !ok || have != value {
			changes[key] = value
		}
	}
	for key := range pod.Annotations {
		if _, ok := wanted[key]; !ok && isOutput(key) && (!partial || key == v1alpha1.AnnotationReplyQueueURL) {
			changes[key] = nil
		}
	}
	return changes
}

// podPatch changes annotations and, where openGate is true, takes our gate away by its name, in one strategic-merge
// patch that holds for this UID alone. A gated pod is patched only in the version that was read: a decision made from
// a cache that lags behind our own last patch would be carried out, and told, twice.
func podPatch(pod *corev1.Pod, changes map[string]any, openGate bool) (client.Patch, error) {
	metadata := map[string]any{"uid": pod.UID}
	if gated(pod) {
		metadata["resourceVersion"] = pod.ResourceVersion
	}
	if len(changes) > 0 {
		metadata["annotations"] = changes
	}
	patch := map[string]any{"metadata": metadata}
	if openGate {
		patch["spec"] = map[string]any{"schedulingGates": []any{
			map[string]any{"$patch": "delete", "name": v1alpha1.SchedulingGate},
		}}
	}
	raw, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	return client.RawPatch(types.StrategicMergePatchType, raw), nil
}
