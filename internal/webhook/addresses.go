package webhook

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// addressesVolume is the volume with the file of return addresses.
const addressesVolume = "replyqueue-addresses"

// mountAddresses gives a container of a pod that serves channels the file of return addresses, and returns the variable
// that names it: a variable stays as it was when the container started, and what the pod may answer changes with every
// QueueProvider. A container that sets either variable itself, or mounts something there, keeps what it has.
func mountAddresses(pod *corev1.Pod, container *corev1.Container, ask *request) []corev1.EnvVar {
	if len(ask.serves) == 0 ||
		slices.ContainsFunc(container.Env, func(v corev1.EnvVar) bool {
			// On a second admission the first of them is ours.
			return v.Name == injected.EnvReturnAddressesFile ||
				v.Name == injected.EnvReturnAddresses && (v.ValueFrom == nil || v.ValueFrom.FieldRef == nil || v.ValueFrom.FieldRef.FieldPath != addressesPath)
		}) ||
		slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == injected.ReturnAddressesDir }) {
		return nil
	}
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
		Name: volumeOfAddresses(pod), MountPath: injected.ReturnAddressesDir, ReadOnly: true,
	})
	return []corev1.EnvVar{{Name: injected.EnvReturnAddressesFile, Value: injected.ReturnAddressesDir + "/" + injected.ReturnAddressesFile}}
}

var addressesPath = fmt.Sprintf("metadata.annotations['%s']", v1alpha1.AnnotationReturnAddresses)

// volumeOfAddresses is the name of the pod's volume with the file, which is added when there is none.
func volumeOfAddresses(pod *corev1.Pod) string {
	source := corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		// The API server's default, written out so that a second admission sees the same pod.
		DefaultMode: ptr.To(corev1.DownwardAPIVolumeSourceDefaultMode),
		Items: []corev1.DownwardAPIVolumeFile{{
			Path:     injected.ReturnAddressesFile,
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: addressesPath},
		}},
	}}
	for _, v := range pod.Spec.Volumes {
		if d := v.DownwardAPI; d != nil && len(d.Items) == 1 && d.Items[0].Path == injected.ReturnAddressesFile &&
			d.Items[0].FieldRef != nil && d.Items[0].FieldRef.FieldPath == addressesPath {
			return v.Name
		}
	}
	name := unusedVolumeName(pod, addressesVolume)
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	return name
}
