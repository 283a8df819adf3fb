package controller

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// publishLease writes the Lease that the pod's application renews, if anything on it changed. It comes before the
// pod's own annotations, so that the first heartbeat of a container finds it.
func (s *podScope) publishLease(ctx context.Context) error {
	if !s.lease || !s.needsLease() {
		return nil
	}
	heard := s.Signals.Heartbeats.Hear(s.pod.UID, s.Signals.Clock.Now())
	wanted := s.told.leaseAnnotations(s.pod, s.recordUID(), s.intervalSeconds())
	if host := s.hostName(); host != "" {
		wanted[heartbeat.AnnotationReplyHost] = host
	}
	// What the application was told before, and may follow until it renews, has to be known to the next leader too.
	if advised := s.intervalSeconds(); advised > 0 && heard.Pace > time.Duration(advised)*time.Second {
		wanted[heartbeat.AnnotationKnownInterval] = strconv.Itoa(int(heard.Pace / time.Second))
	}
	if !heard.Lease {
		if s.host != nil && s.told.replyQueueURL == "" {
			return nil
		}
		if err := s.sayClosed(ctx, wanted); err != nil {
			return err
		}
		return s.createLease(ctx, wanted)
	}
	if s.record != nil && closedByLease(s.record, heard.Annotations) {
		// The record is being closed; what follows is a new one.
		return nil
	}
	if !s.names(heard) {
		if err := s.mayName(ctx); err != nil {
			return err
		}
	}
	changes := map[string]any{}
	for key, value := range wanted {
		if heard.Annotations[key] != value {
			changes[key] = value
		}
	}
	if _, known := wanted[heartbeat.AnnotationKnownInterval]; !known && heard.Annotations[heartbeat.AnnotationKnownInterval] != "" {
		changes[heartbeat.AnnotationKnownInterval] = nil
	}
	if len(changes) == 0 {
		return nil
	}
	// The version makes a closing that happened since fail this write.
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": changes, "resourceVersion": heard.ResourceVersion,
	}})
	if err != nil {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: string(s.pod.UID)}}
	err = s.Patch(ctx, lease, client.RawPatch(types.MergePatchType, raw))
	if apierrors.IsNotFound(err) {
		return s.createLease(ctx, wanted)
	}
	return err
}

// sayClosed has a Lease that is written anew say what the one said that somebody deleted: that the pod's reply queue is closed. The
// application may use that queue still, which waits to be deleted, and gets no other where its ReplyHost is gone.
func (s *podScope) sayClosed(ctx context.Context, lease map[string]string) error {
	if s.record != nil || gated(s.pod) {
		return nil
	}
	var records v1alpha1.ReplyQueueList
	if err := s.List(ctx, &records, client.InNamespace(s.pod.Namespace), client.MatchingFields{indexReader: string(s.pod.UID)}); err != nil {
		return err
	}
	for i := range records.Items {
		if !open(&records.Items[i]) {
			lease[injected.LeaseState] = injected.LeaseStateClosing
			lease[heartbeat.AnnotationRecord] = string(records.Items[i].UID)
		}
	}
	return nil
}

// mayName fails with a conflict where the API server does not know the pod's record for an open one: the cache is
// behind, and its record is one that another leader has closed, so that its URL is not to be told to anyone. The version
// of the Lease does not tell, since Leases have a watch of their own.
func (s *podScope) mayName(ctx context.Context) error {
	if s.record == nil || s.told.replyQueueURL == "" {
		return nil
	}
	current := &v1alpha1.ReplyQueue{}
	err := s.Reader.Get(ctx, client.ObjectKeyFromObject(s.record), current)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil || current.UID != s.record.UID || !open(current) ||
		closedByLease(current, s.Signals.Heartbeats.Hear(s.pod.UID, s.Signals.Clock.Now()).Annotations) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("replyqueues").GroupResource(), s.record.Name,
			errors.New("the cache shows a record that was closed"))
	}
	return nil
}

// names says that a Lease is open for the pod's record: it was told of that record's queue when it was known for open.
func (s *podScope) names(heard heartbeat.Heard) bool {
	return s.record != nil && heard.Annotations[heartbeat.AnnotationRecord] == string(s.record.UID) &&
		heard.Annotations[injected.LeaseState] == injected.LeaseStateOpen
}

// needsLease says whether the pod's application has anything to learn or to show by heartbeats: it reads a reply
// queue, or it started without its addresses.
func (s *podScope) needsLease() bool {
	if s.record != nil || s.pod.Annotations[v1alpha1.AnnotationReplyHost] != "" || s.pod.Labels[v1alpha1.LabelInject] == v1alpha1.InjectBestEffort {
		return true
	}
	started := !gated(s.pod) && s.pod.Annotations[v1alpha1.AnnotationChannels] == ""
	return started || s.Signals.Heartbeats.Hear(s.pod.UID, s.Signals.Clock.Now()).Lease
}

// hostName is the ReplyHost of the pod's record, else the one it has found; empty: none.
func (s *podScope) hostName() string {
	switch {
	case s.record != nil:
		return s.record.Spec.HostRef.Name
	case s.host != nil:
		return s.host.Name
	default:
		return ""
	}
}

func (s *podScope) recordUID() string {
	if s.record == nil {
		return ""
	}
	return string(s.record.UID)
}

// intervalSeconds is what to advise; 0: nothing is known to advise.
func (s *podScope) intervalSeconds() int {
	switch {
	case s.host != nil:
		return int(lifecycle.HeartbeatInterval(s.host).Seconds())
	case s.record != nil:
		return int(s.record.Spec.HeartbeatIntervalSeconds)
	default:
		return 0
	}
}

func (s *podScope) createLease(ctx context.Context, annotations map[string]string) error {
	if err := s.mayName(ctx); err != nil {
		return err
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   v1alpha1.HeartbeatNamespace,
			Name:        string(s.pod.UID),
			Annotations: annotations,
			Labels: map[string]string{
				v1alpha1.LabelPodUID:       string(s.pod.UID),
				v1alpha1.LabelPodNamespace: s.pod.Namespace,
				v1alpha1.LabelManagedBy:    v1alpha1.ManagedByOperator,
			},
		},
	}
	err := s.Create(ctx, lease)
	if heartbeat.NamespaceMissing(err) {
		// A pod that cannot heartbeat is none that may not start: nothing is concluded from a Lease that is not there.
		s.look(homelessRetry)
		return nil
	}
	return err
}

// homelessRetry is when to try again to write a Lease whose namespace is missing.
const homelessRetry = 30 * time.Second

// tidyLeases deletes the Leases of pods of that name that are gone or have ended, where no record needs them any more.
// living is the UID of the pod that has the name now; empty: none.
func (r *PodReconciler) tidyLeases(ctx context.Context, pod types.NamespacedName, living types.UID) error {
	for _, uid := range r.Signals.Heartbeats.Known(pod) {
		if uid == living {
			continue
		}
		current := &corev1.Pod{}
		switch err := r.Reader.Get(ctx, pod, current); {
		case err == nil && current.UID == uid && !ended(current):
			// It left the cache, not the cluster: its label was removed.
			continue
		case err != nil && !apierrors.IsNotFound(err):
			return err
		}
		var records v1alpha1.ReplyQueueList
		if err := r.List(ctx, &records, client.InNamespace(pod.Namespace), client.MatchingFields{indexReader: string(uid)}); err != nil {
			return err
		}
		if len(records.Items) > 0 {
			continue
		}
		if err := deleteLease(ctx, r.Reader, r.Client, uid); err != nil {
			return err
		}
		r.Signals.Heartbeats.Forget(uid)
		r.Signals.Pods.Forget(uid)
	}
	return nil
}

// deleteLease deletes the Lease of a pod that is gone, in the version that is there now. It fails with a conflict where
// something writes it at this moment: then whoever asked decides anew.
func deleteLease(ctx context.Context, from client.Reader, c client.Client, pod types.UID) error {
	lease := &coordinationv1.Lease{}
	if err := from.Get(ctx, client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: string(pod)}, lease); err != nil {
		return client.IgnoreNotFound(err)
	}
	return client.IgnoreNotFound(c.Delete(ctx, lease, client.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion}))
}

// closeLease marks a pod's Lease closing for the record with that UID, which has announced the ID, unless a heartbeat or anything else
// changed it since it was read: the API server's conflict then says so. It does of a Lease that was deleted, too, since the one that was
// read has a UID: nobody knows what was written to it before that. From here on the application stops using the queue.
func closeLease(ctx context.Context, c client.Client, lease *coordinationv1.Lease, record types.UID, id string) error {
	lease = lease.DeepCopy()
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[injected.LeaseState] = injected.LeaseStateClosing
	lease.Annotations[heartbeat.AnnotationRecord] = string(record)
	lease.Annotations[heartbeat.AnnotationClosingID] = id
	delete(lease.Annotations, injected.LeaseReplyQueueURL)
	return c.Update(ctx, lease)
}
