package webhook

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Path is where the webhook server answers for pods; the webhook configuration names it.
const Path = "/mutate-pods"

// PodInjector applies Inject to pods at admission. It has no side effects, so a dry run is an ordinary
// call.
type PodInjector struct{}

var _ admission.Defaulter[*corev1.Pod] = PodInjector{}

// Default injects one pod. An error denies the pod, with the error as the message the user reads.
func (PodInjector) Default(_ context.Context, pod *corev1.Pod) error {
	return Inject(pod)
}

// SetupWithManager registers the webhook with the manager's server.
func (p PodInjector) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &corev1.Pod{}).
		WithDefaulter(p).
		WithDefaulterCustomPath(Path).
		Complete()
}
