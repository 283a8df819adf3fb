package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// noteGate remembers of which pods the gate is to be taken away when they leave the cache.
func (r *PodReconciler) noteGate(pod *corev1.Pod) {
	if gated(pod) {
		r.held.Store(client.ObjectKeyFromObject(pod), nil)
	} else {
		r.held.Delete(client.ObjectKeyFromObject(pod))
	}
}

// letGo takes the gate away from a pod that left the cache at its gate, where it exists without the opt-in label: nobody
// else would. It starts without queues, as one that never opted in. The API server is asked once for each pod that was
// seen at its gate.
func (r *PodReconciler) letGo(ctx context.Context, key types.NamespacedName) error {
	if _, seen := r.held.Load(key); !seen {
		return nil
	}
	pod := &corev1.Pod{}
	if err := r.Reader.Get(ctx, key, pod); client.IgnoreNotFound(err) != nil {
		return err
	} else if err == nil && gated(pod) && pod.DeletionTimestamp == nil && !optedIn(pod) {
		patch, err := podPatch(pod, map[string]any{v1alpha1.AnnotationWaitingFor: nil}, true)
		if err != nil {
			return err
		}
		if err := r.Patch(ctx, pod, patch); client.IgnoreNotFound(err) != nil {
			return err
		} else if err == nil {
			r.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, EventOptedOut, "OpenGate",
				"The label %s was taken off while this pod waited for its queues, so it starts without them", v1alpha1.LabelInject)
		}
	}
	r.held.Delete(key)
	return nil
}

// wokenUnseen is a pod that lost its label while its application was silent, and so left the cache, and whose application is
// heard again: it keeps what it was given, as one does that loses its label while it heartbeats, and that is a reply queue. nil:
// there is none. The API server is asked only where a Lease says so.
func (r *PodReconciler) wokenUnseen(ctx context.Context, key types.NamespacedName) (*corev1.Pod, error) {
	for _, uid := range r.Signals.Heartbeats.Known(key) {
		if heard := r.Signals.Heartbeats.Hear(uid, r.Signals.Clock.Now()); !heard.Lease || !heard.Closing || !heard.Woke {
			continue
		}
		pod := &corev1.Pod{}
		if err := r.Reader.Get(ctx, key, pod); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		if pod.UID == uid && pod.Annotations[v1alpha1.AnnotationInjected] != "" && pod.DeletionTimestamp == nil && !ended(pod) {
			return pod, nil
		}
	}
	return nil, nil
}

// optedIn says that a pod has the opt-in label, and so is in the cache.
func optedIn(pod *corev1.Pod) bool {
	switch pod.Labels[v1alpha1.LabelInject] {
	case v1alpha1.InjectTrue, v1alpha1.InjectBestEffort:
		return true
	}
	return false
}
