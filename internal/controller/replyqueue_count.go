package controller

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
)

// Silence and absence are counted in memory, and what they came to is noted on the record now and then where a queue is
// kept for longer than a leader may live. A note survives a gap in the view, and a new leader, though neither knows what
// happened meanwhile, because whoever used the queue meanwhile left a trace: a heartbeat is on the Lease, another container
// in the pod's status, and a successor of the same name takes the queue over on the record. Each makes another reader.

// carry adds to an observation what earlier counts of the same came to.
func (s *recordScope) carry(o *lifecycle.Observation, pod *corev1.Pod, heard heartbeat.Heard) {
	count, ok := o.Counting()
	if !ok {
		return
	}
	container := ""
	if count.Of == v1alpha1.CountedSilence {
		container = lifecycle.CallerOf(pod).ID
	}
	s.counted = readerName(readerOf(s.record), container, heard.Renewal)
	noted := time.Duration(0)
	// A successor that was seen and went, and an outage of heartbeats that ended, began the count anew.
	anew := count.Since.Equal(o.NameSince) || count.Of == v1alpha1.CountedSilence && heard.Forgiven
	if n := s.record.Status.Counted; n != nil && n.Of == count.Of && n.Reader == s.counted && !anew {
		noted = time.Duration(ptr.Deref(n.Seconds, 0)) * time.Second
	}
	o.Before = s.Signals.Pods.Carry(readerOf(s.record), string(s.record.UID)+string(count.Of)+s.counted, count.Since, noted)
}

// readerName stands for a pod, its container and its last heartbeat.
func readerName(pod types.UID, container, renewal string) string {
	sum := sha256.Sum256([]byte(string(pod) + "\n" + container + "\n" + renewal))
	return hex.EncodeToString(sum[:8])
}

// note notes on the record what was counted, when it is a step more than what is noted there, and takes off what is void. It
// writes nothing itself.
func (s *recordScope) note(o lifecycle.Observation) {
	if !s.Signals.Heartbeats.Listed() || s.Signals.Heartbeats.Homeless() {
		// Who is void is not known.
		return
	}
	status := &s.record.Status
	count, ok := o.Counting()
	if !ok {
		if status.Counted != nil && status.Counted.Of == v1alpha1.CountedAbsence && (o.Pod == lifecycle.PodPresent || o.Successor) {
			status.Counted = nil
		}
		return
	}
	total, noted := o.Before+s.now.Sub(count.Since), time.Duration(0)
	if n := status.Counted; n != nil {
		noted = time.Duration(ptr.Deref(n.Seconds, 0)) * time.Second
		if n.Of != count.Of || n.Reader != s.counted || noted > total {
			status.Counted, noted = nil, 0
		}
	}
	step := count.NoteEvery()
	if step == 0 || count.Of == v1alpha1.CountedSilence && (o.Heartbeat.Outage || !o.Heartbeat.Guarded) {
		return
	}
	if total-noted >= step {
		noted = total.Truncate(time.Second)
		status.Counted = &v1alpha1.Counted{Of: count.Of, Reader: s.counted, Seconds: ptr.To(int32(noted / time.Second))}
	}
	if count.Of == v1alpha1.CountedAbsence {
		// Of silence, the ledger tells.
		s.look(noted + step - total)
	}
}
