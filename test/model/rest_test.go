package model

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// judgeLeftovers is P3 for what is in the cluster, when everything has come to rest: no Lease is left of a pod that is gone, and
// no ReplyHost is held for nobody. And pods that do not heartbeat, and so have nothing but their annotations to go by, are
// told of queues that are there.
func (w *world) judgeLeftovers() {
	if w.braked() {
		return
	}
	read, hosted := map[string]bool{}, map[string]bool{}
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) {
		read[string(readerOf(r))], hosted[r.Spec.HostRef.Name] = true, true
	})
	each(w.cluster, leases, func(l *coordinationv1.Lease) {
		if p := w.byUID[l.Name]; l.Name != heartbeat.BeaconName && !read[l.Name] && (p == nil || w.object(p) == nil) {
			w.violate("P3", "Lease %s is left: its pod %v is gone", l.Name, p)
		}
	})
	for _, p := range w.pods {
		if w.object(p) == nil {
			continue
		}
		hosted[p.host] = true
		url := w.object(p).Annotations[v1alpha1.AnnotationReplyQueueURL]
		if p.mode == v1alpha1.HeartbeatPod && p.exists() && p.open && !p.terminating && !p.unlabelled && w.hostServes(p) && w.byURL(url) == nil &&
			!w.manyMissing() && !w.elsewhereAndSaid(url) {
			w.violate("P2", "pod %s, which does not heartbeat, is told of %q, which is not there", p, url)
		}
	}
	each(w.cluster, hosts, func(h *v1alpha1.ReplyHost) {
		if h.DeletionTimestamp != nil && !hosted[h.Name] {
			w.violate("P3", "ReplyHost %s is held for nobody", h.Name)
		}
	})
}
