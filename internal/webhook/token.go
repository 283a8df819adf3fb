package webhook

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	tokenVolume = "replyqueue-token"
	// tokenSeconds is the life of a projected token. The kubelet replaces it after 80 % of that; one hour
	// is also what Kubernetes gives the usual token.
	tokenSeconds = 3600
	// clusterCA is the ConfigMap with the API server's CA that Kubernetes keeps in every namespace.
	clusterCA = "kube-root-ca.crt"
)

// hasToken reports whether the named container finds a token for the API server in one of the folders in
// which the client looks. ServiceAccount admission runs before webhooks, so the usual mount is visible
// here. Only projected tokens count: the older Secrets carry no pod, and the policy on heartbeats asks for
// one. A folder mounted over the usual path to hide the token is no token.
func hasToken(pod *corev1.Pod, container string) bool {
	for c := range lifecycle.LongRunning(&pod.Spec) {
		if c.Name != container {
			continue
		}
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return (m.MountPath == injected.DefaultServiceAccountDir || m.MountPath == injected.ProjectedServiceAccountDir) &&
				m.SubPath == "" && m.SubPathExpr == "" && projectsToken(pod, m.Name)
		})
	}
	return false
}

func projectsToken(pod *corev1.Pod, volume string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == volume && v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Path == corev1.ServiceAccountTokenKey && s.ServiceAccountToken.Audience == ""
		})
	})
}

// mountToken gives the named container a token of its own, unless the user mounted something there.
func mountToken(pod *corev1.Pod, container string) {
	for c := range lifecycle.LongRunning(&pod.Spec) {
		if c.Name != container || slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == injected.ProjectedServiceAccountDir
		}) {
			continue
		}
		volume := unusedVolumeName(pod, tokenVolume)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: volume,
			VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				// The API server's default, written out so that a second admission sees the same pod.
				DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
				Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
						Path: corev1.ServiceAccountTokenKey, ExpirationSeconds: ptr.To[int64](tokenSeconds),
					}},
					{ConfigMap: &corev1.ConfigMapProjection{
						LocalObjectReference: corev1.LocalObjectReference{Name: clusterCA},
						Items:                []corev1.KeyToPath{{Key: corev1.ServiceAccountRootCAKey, Path: corev1.ServiceAccountRootCAKey}},
					}},
				},
			}},
		})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
			Name: volume, MountPath: injected.ProjectedServiceAccountDir, ReadOnly: true,
		})
	}
}

func unusedVolumeName(pod *corev1.Pod, base string) string {
	name := base
	for n := 2; slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name
}
