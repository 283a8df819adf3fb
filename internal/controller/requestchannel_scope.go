package controller

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// scope is one reconcile of one channel.
type scope struct {
	reconciler *RequestChannelReconciler
	channel    *v1alpha1.RequestChannel
	// original is the channel as it was read, and written as it was last read or written.
	original, written *v1alpha1.RequestChannel
	provider          *queue.Provider
	// sources are the names of the queues of the channels that spec.deadLettersFrom names.
	sources []string
	// part is the condition of what is being worked on, for an error to be told on.
	part string
	// began is when the reconcile did.
	began time.Time
	// met says that the request queue was seen just now, and is the channel's to use.
	met bool
	// created says that the request queue was created just now.
	created bool
	// beside are the tags of a dead-letter queue made beside that could not be brought to the spec; nil: not known.
	beside []string
	// outlived are the queues of which SQS once said that they are not there, and which are the ones that were.
	outlived []string
	// drifts says that the dead-letter queue was found to have drifted and is not to be corrected.
	drifts bool
	// givesUp are the queues for whose messages, or for whose offer, a deletion has waited for long enough, and which it leaves as Retain does.
	givesUp []string
	// consented are the queues of others that were seen to be the channel's to take over.
	consented []string
	// failing says that SQS did not answer as it should, of one queue of a channel that is being deleted at least.
	failing bool
	// abandons is what to tell of each queue that is given up with messages, once it is.
	abandons map[string]string
	// settles is when to look again because SQS may still show what was before a write; 0: no such need.
	settles time.Duration
}

func (r *RequestChannelReconciler) scope(channel *v1alpha1.RequestChannel) *scope {
	read := channel.DeepCopy()
	if last := channel.Status.LastWriteTime; last != nil && last.After(r.now()) {
		// By another clock, or before this one was set back. Nothing may wait for longer than if it were now.
		channel.Status.LastWriteTime = ptr.To(metav1.NewTime(r.now()))
	}
	return &scope{reconciler: r, began: r.now(), channel: channel, original: channel.DeepCopy(), written: read, part: v1alpha1.ConditionQueueReady}
}

// changed reports whether there is a status to write.
func (s *scope) changed() bool { return !sameStatus(s.written.Status, s.channel.Status) }

// sameStatus compares what would be written: empty and missing are the same.
func sameStatus(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// behind reports whether the channel was read from a cache that does not show our last write yet. Versions between what was
// read and what was written are behind too: somebody else wrote one, over a status without what we had noted.
func (s *scope) behind() bool {
	now := s.reconciler.now()
	s.reconciler.mu.Lock()
	defer s.reconciler.mu.Unlock()
	v := s.reconciler.visited[s.channel.UID]
	// Kubernetes promises this order since 1.35; before that, versions were etcd's revisions, which have it too.
	order, err := resourceversion.CompareResourceVersion(s.channel.ResourceVersion, v.version)
	return err == nil && order < 0 && now.Sub(v.wrote) < longestBehind
}

// wrote notes what a write returned. The reconcile goes on with the channel as it was read: what people changed since came
// back with the write too, and taken over now, it would count as done without having been looked at. It wakes the next
// reconcile.
func (s *scope) wrote() {
	read := s.original
	s.channel.Spec = *read.Spec.DeepCopy()
	s.channel.Generation, s.channel.DeletionTimestamp = read.Generation, read.DeletionTimestamp.DeepCopy()
	s.channel.Labels, s.channel.Annotations = maps.Clone(read.Labels), maps.Clone(read.Annotations)
	s.written = s.channel.DeepCopy()
	s.memory(func(v *visit) { v.version, v.wrote = s.written.ResourceVersion, s.reconciler.now() })
}

// assumeOurs notes of a queue that is ours, that is not known to be new, and of which nothing is remembered, that all of it was: a note
// of it was lost in a crash or a restore, and what is not AWS's default was ours.
func (r *RequestChannelReconciler) assumeOurs(s *scope, desired queue.Desired, observed queue.Observed) {
	r.tellPolicyLeft(s, desired, observed)
	metAgain := s.original.Status.QueueURL == "" && s.remembers() // It was not the channel's for a while, by its tags.
	if !isTrue(s.channel.Status.Adopted) && !metAgain {
		var ours []string
		s.memory(func(v *visit) { _, ours = split(queue.Restorable(), v.refusedDefaults) })
		s.channel.Status.AppliedAttributes = union(s.channel.Status.AppliedAttributes, ours)
	}
}

// remembers reports whether the status says what was set on the request queue: it does once the channel has had one, whatever became of
// that since, and until a restore loses the status.
func (s *scope) remembers() bool {
	return s.original.Status.AppliedTerms != "" || s.original.Status.LastWriteTime != nil
}

// forget drops what is remembered of a queue that is gone, or that is another's still: what was set on it went with it, or
// was never set.
func (s *scope) forget() {
	status := &s.channel.Status
	status.AppliedAttributes, status.OriginalAttributes, status.AppliedTags = nil, nil, nil
	status.Adopted = nil // What is created in its place is our own.
}

// remembered is what was last set on the request queue.
func (s *scope) remembered() queue.Remembered {
	status := &s.channel.Status
	originals := make(map[string]string, len(status.OriginalAttributes))
	for _, original := range status.OriginalAttributes {
		originals[original.Name] = original.Value
	}
	shown := make(map[string]queue.Shown, len(status.ShownAttributes))
	for _, form := range status.ShownAttributes {
		shown[form.Name] = queue.Shown{Value: form.Value, As: form.Shown}
	}
	return queue.Remembered{Attributes: status.AppliedAttributes, Tags: status.AppliedTags, Originals: originals, Shown: shown}
}

// noteOriginals notes what attributes without a known default are, before they are set for the first time. What is noted stays: it was
// there before whatever was tried since.
func (s *scope) noteOriginals(plan queue.Plan, observed queue.Observed) {
	status := &s.channel.Status
	for _, name := range sortedKeys(plan.Attributes) {
		noted := slices.ContainsFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool { return o.Name == name })
		if is := observed.Attributes[name]; is != "" && !noted && !queue.HasDefault(name) && !slices.Contains(status.AppliedAttributes, name) {
			status.OriginalAttributes = append(status.OriginalAttributes, v1alpha1.OriginalAttribute{Name: name, Value: is})
		}
	}
}

// dropOriginals forgets the originals of attributes that the spec no longer sets, and returns the names of those that
// were set and could not be restored.
func (s *scope) dropOriginals(desired queue.Desired, observed queue.Observed) (left []string) {
	status := &s.channel.Status
	for _, name := range status.AppliedAttributes {
		_, wanted := desired.Attributes[name]
		noted := slices.ContainsFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool { return o.Name == name })
		if _, set := observed.Attributes[name]; set && !wanted && !noted && !queue.HasDefault(name) {
			left = append(left, name)
		}
	}
	status.OriginalAttributes = slices.DeleteFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool {
		_, wanted := desired.Attributes[o.Name]
		return !wanted
	})
	return left
}
