package controller

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

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
	// part is the condition of what is being worked on, for an error to be told on.
	part string
	// created says that the request queue was created just now.
	created bool
	// settles is when to look again because SQS may still show what was before a write; 0: no such need.
	settles time.Duration
}

func (r *RequestChannelReconciler) scope(channel *v1alpha1.RequestChannel) *scope {
	read := channel.DeepCopy()
	return &scope{reconciler: r, channel: channel, original: read, written: read, part: v1alpha1.ConditionQueueReady}
}

// changed reports whether there is a status to write.
func (s *scope) changed() bool { return !sameStatus(s.written.Status, s.channel.Status) }

// sameStatus compares what would be written: empty and missing are the same.
func sameStatus(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// behind reports whether the channel was read from a cache that does not show our last write yet.
func (s *scope) behind() bool {
	s.reconciler.mu.Lock()
	defer s.reconciler.mu.Unlock()
	return slices.Contains(s.reconciler.visited[s.channel.UID].superseded, s.channel.ResourceVersion)
}

// wrote notes what a write returned, and that it has replaced the version written before. Four versions are kept: no
// reconcile writes more often. A write that changed nothing replaced nothing.
func (s *scope) wrote() {
	replaced := s.written.ResourceVersion
	s.written = s.channel.DeepCopy()
	if replaced == s.channel.ResourceVersion {
		return
	}
	s.reconciler.mu.Lock()
	defer s.reconciler.mu.Unlock()
	v := s.reconciler.visited[s.channel.UID]
	v.superseded = append(v.superseded, replaced)
	v.superseded = v.superseded[max(0, len(v.superseded)-4):]
	s.reconciler.remember(s.channel.UID, v)
}

// assumeOurs notes of a queue that is ours, and of which nothing is remembered, that all of it was: either it is new, and
// has AWS's defaults, or a note of it was lost in a crash or a restore, and what is not a default was ours.
func (s *scope) assumeOurs() {
	if !isTrue(s.channel.Status.Adopted) {
		s.channel.Status.AppliedAttributes = queue.Restorable()
	}
}

// deadLetterTerms says whether a dead-letter queue that is there may be taken over, by the rules of the request queue.
func (s *scope) deadLetterTerms(desired *queue.Desired, tags map[string]string) queue.Terms {
	consented := s.channel.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyIfConsented &&
		s.provider.Consents(tags, s.channel.Namespace) && queue.OwnerIn(tags).Cluster != desired.Owner.Cluster
	desired.Adopted = consented || queue.IsAdopted(tags)
	return queue.Terms{Adopt: consented || s.provider.Inherits(*desired, tags)}
}

// remembered is what was last set on the request queue.
func (s *scope) remembered() queue.Remembered {
	status := &s.channel.Status
	originals := make(map[string]string, len(status.OriginalAttributes))
	for _, original := range status.OriginalAttributes {
		originals[original.Name] = original.Value
	}
	return queue.Remembered{Attributes: status.AppliedAttributes, Tags: status.AppliedTags, Originals: originals}
}

// noteOriginals notes what attributes without a known default are, before they are set for the first time.
func (s *scope) noteOriginals(plan queue.Plan, observed queue.Observed) {
	status := &s.channel.Status
	for _, name := range sortedKeys(plan.Attributes) {
		if is := observed.Attributes[name]; is != "" && !queue.HasDefault(name) && !slices.Contains(status.AppliedAttributes, name) {
			status.OriginalAttributes = append(status.OriginalAttributes, v1alpha1.OriginalAttribute{Name: name, Value: is})
		}
	}
}

// dropOriginals forgets the originals of attributes that the spec no longer sets, and returns the names of those that
// were set and could not be restored.
func (s *scope) dropOriginals(desired queue.Desired) (left []string) {
	status := &s.channel.Status
	for _, name := range status.AppliedAttributes {
		_, wanted := desired.Attributes[name]
		noted := slices.ContainsFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool { return o.Name == name })
		if !wanted && !noted && !queue.HasDefault(name) {
			left = append(left, name)
		}
	}
	status.OriginalAttributes = slices.DeleteFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool {
		_, wanted := desired.Attributes[o.Name]
		return !wanted
	})
	return left
}
