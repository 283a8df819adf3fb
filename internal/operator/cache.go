package operator

import (
	"maps"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
)

// cacheOptions keep the cache to what is read: of a cluster's pods only those that opted in, without what
// no controller looks at, and of kinds that hold other people's data the one object that is ours.
func cacheOptions(cfg Config) (cache.Options, error) {
	optedIn, err := labels.NewRequirement(v1alpha1.LabelInject, selection.In, []string{v1alpha1.InjectTrue, v1alpha1.InjectBestEffort})
	if err != nil {
		return cache.Options{}, err
	}
	named := func(name string) fields.Selector { return fields.OneTermEqualSelector("metadata.name", name) }
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {Label: labels.NewSelector().Add(*optedIn), Transform: stripPod},
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{
				cfg.Namespace: {FieldSelector: named(CertificateSecretName)},
			}},
			&admissionv1.ValidatingAdmissionPolicy{}:        {Field: named(HeartbeatPolicyName)},
			&admissionv1.ValidatingAdmissionPolicyBinding{}: {Field: named(HeartbeatPolicyName)},
		},
	}, nil
}

// uncached are the kinds whose reads by the manager's client always ask the API server: for Secrets and
// ConfigMaps because a cache would hold every user's, for Leases because a decision over them must never
// rest on an old one (internal/heartbeat has its own watch).
func uncached() []client.Object {
	return []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}, &coordinationv1.Lease{}}
}

// stripPod keeps what the controllers read of a pod: metadata without foreign annotations, gates, node,
// the containers' names, and the status without images and addresses. A stripped pod must be patched,
// never updated.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	pod.ManagedFields = nil
	maps.DeleteFunc(pod.Annotations, func(annotation, _ string) bool {
		domain, _, _ := strings.Cut(annotation, "/")
		return domain != "replyqueue.dev" && !strings.HasSuffix(domain, ".replyqueue.dev") &&
			annotation != corev1.MirrorPodAnnotationKey && annotation != lifecycle.DefaultContainerAnnotation
	})
	pod.Spec = corev1.PodSpec{
		NodeName:                      pod.Spec.NodeName,
		SchedulingGates:               pod.Spec.SchedulingGates,
		RestartPolicy:                 pod.Spec.RestartPolicy,
		TerminationGracePeriodSeconds: pod.Spec.TerminationGracePeriodSeconds,
		ServiceAccountName:            pod.Spec.ServiceAccountName,
		Containers:                    namesOnly(pod.Spec.Containers),
		InitContainers:                namesOnly(pod.Spec.InitContainers),
	}
	pod.Status = corev1.PodStatus{
		ObservedGeneration:         pod.Status.ObservedGeneration,
		Phase:                      pod.Status.Phase,
		Conditions:                 pod.Status.Conditions,
		Reason:                     pod.Status.Reason,
		StartTime:                  pod.Status.StartTime,
		ContainerStatuses:          statesOnly(pod.Status.ContainerStatuses),
		InitContainerStatuses:      statesOnly(pod.Status.InitContainerStatuses),
		EphemeralContainerStatuses: statesOnly(pod.Status.EphemeralContainerStatuses),
	}
	return pod, nil
}

func namesOnly(containers []corev1.Container) []corev1.Container {
	kept := make([]corev1.Container, len(containers))
	for i, c := range containers {
		kept[i] = corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy}
	}
	return kept
}

func statesOnly(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, len(statuses))
	for i, s := range statuses {
		kept[i] = corev1.ContainerStatus{
			Name: s.Name, State: s.State, LastTerminationState: s.LastTerminationState,
			Ready: s.Ready, Started: s.Started, RestartCount: s.RestartCount, ContainerID: s.ContainerID,
		}
	}
	return kept
}
