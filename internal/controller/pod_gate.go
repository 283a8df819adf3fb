package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// podEvents wake a pod, and note of one that leaves the cache whether it was at its gate.
func (r *PodReconciler) podEvents() handler.Funcs {
	wake := func(pod client.Object, q requestQueue) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q requestQueue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q requestQueue) { wake(e.ObjectNew, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q requestQueue) {
			if pod, ok := e.Object.(*corev1.Pod); ok && gated(pod) {
				r.held.Store(client.ObjectKeyFromObject(pod), nil)
			}
			wake(e.Object, q)
		},
	}
}

// letGo takes the gate away from a pod that left the cache at its gate, where it exists without the opt-in label: nobody
// else would. It starts without queues, as one that never opted in. The API server is asked once for each pod that left so.
func (r *PodReconciler) letGo(ctx context.Context, key types.NamespacedName) error {
	if _, left := r.held.Load(key); !left {
		return nil
	}
	pod := &corev1.Pod{}
	if err := r.Reader.Get(ctx, key, pod); client.IgnoreNotFound(err) != nil {
		return err
	} else if err == nil {
		if err := r.release(ctx, pod); err != nil {
			return err
		}
	}
	r.held.Delete(key)
	return nil
}

// release takes the gate away from a pod without the opt-in label, in the version that was read.
func (r *PodReconciler) release(ctx context.Context, pod *corev1.Pod) error {
	if !gated(pod) || pod.DeletionTimestamp != nil || optedIn(pod) {
		return nil
	}
	patch, err := podPatch(pod, map[string]any{v1alpha1.AnnotationWaitingFor: nil}, true)
	if err != nil {
		return err
	}
	if err := r.Patch(ctx, pod, patch); err != nil {
		return client.IgnoreNotFound(err)
	}
	r.Recorder.Eventf(pod, nil, corev1.EventTypeWarning, EventOptedOut, "OpenGate",
		"The label %s was taken off while this pod waited for its queues, so it starts without them", v1alpha1.LabelInject)
	return nil
}

// heldUnseen stands for the pods that lost their label at their gate and were in no cache of this process then: another led, or none,
// or a list took the place of what the watch would have told.
var heldUnseen = reconcile.Request{}

// lookForHeld has them looked for when a process begins to lead.
func lookForHeld(_ context.Context, q requestQueue) error {
	q.Add(heldUnseen)
	return nil
}

const (
	// heldRecheck is how often they are looked for again. Nearly always there are none.
	heldRecheck = 5 * time.Minute
	// heldAtOnce bounds what a page of the API server's answer holds.
	heldAtOnce = 500
)

// letGoUnseen lets go of them. It asks for the pods that are not bound, without the label: what the API server sends is a page, and
// what is kept is nothing, however many pods there are.
func (r *PodReconciler) letGoUnseen(ctx context.Context) (reconcile.Result, error) {
	unlabelled, err := labels.NewRequirement(v1alpha1.LabelInject, selection.NotIn, []string{v1alpha1.InjectTrue, v1alpha1.InjectBestEffort})
	if err != nil {
		return reconcile.Result{}, err
	}
	for token := ""; ; {
		var page corev1.PodList
		if err := r.Reader.List(ctx, &page, client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*unlabelled)},
			client.MatchingFields{"spec.nodeName": ""}, client.Limit(heldAtOnce), client.Continue(token)); err != nil {
			return reconcile.Result{}, err
		}
		for i := range page.Items {
			// A gate of that name on a pod that the webhook never saw is somebody else's.
			if pod := &page.Items[i]; pod.Annotations[v1alpha1.AnnotationInjected] != "" {
				if err := r.release(ctx, pod); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
					return reconcile.Result{}, err
				} else if err != nil {
					return reconcile.Result{RequeueAfter: staleRetry}, nil
				}
			}
		}
		if token = page.Continue; token == "" {
			return reconcile.Result{RequeueAfter: heldRecheck}, nil
		}
	}
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
