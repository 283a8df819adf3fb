package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what a consent to adopt means on both sides. SQS shows tags a minute late, so neither the one who has a queue nor the
// one who takes it over knows at once what the other did. The one who has it leaves it alone from when it sees it offered to another
// cluster until nobody can see that any more; the other takes it over once the first surely sees it. In one cluster the API server
// says whether there is an object that has the queue, and while there is, nobody else can have it; so of these the second rule is
// enough.

const (
	// offerEnds is for how long a queue is left alone after it was seen to be offered no more: the other cluster may see the tag
	// for one more minute, and what it did then shows a minute later.
	offerEnds = 2*propagation + clocksDiffer
	// offerStands is for how long a consent must have been seen before it is used: for a minute its giver's operator may not see it, and
	// may be about to write then to what it saw.
	offerStands = propagation + 2*clocksDiffer
)

// consent is what lets a queue be taken over, and when it was seen first, and last, without a break in which it may have been withdrawn.
type consent struct {
	owner queue.Owner
	to    string
	since time.Time
	last  time.Time
}

// noteOffer notes whether a queue of the channel's is offered to another cluster, by the tags that it shows; nil: it is gone, and with it
// its offer. left is for how long it is not to be touched though it is not offered: it was, until a moment ago. An offer that was seen ends
// by time alone, counted from the first sight of anything else, also where that is another owner, or none: the next sight may be of before.
func (s *scope) noteOffer(desired queue.Desired, tags map[string]string) (left time.Duration) {
	if tags == nil {
		s.endOffer(desired.Name)
		return 0
	}
	status, now := &s.channel.Status, s.reconciler.now()
	inherits := s.provider.Inherits(desired, tags)
	to, i := s.provider.OfferedTo(tags), s.offerOf(desired.Name)
	switch {
	case to != "" && i < 0 && (inherits || queue.OwnerIn(tags) == desired.Owner):
		status.Offered = append(slices.Clip(status.Offered), v1alpha1.OfferedQueue{Name: desired.Name, To: to})
	case to != "" && i >= 0 && (inherits || !isAnothers(desired, tags)):
		status.Offered[i] = v1alpha1.OfferedQueue{Name: desired.Name, To: to}
	case i >= 0:
		offer := &status.Offered[i]
		if offer.WithdrawnTime == nil || now.Before(offer.WithdrawnTime.Time) { // by another clock
			offer.WithdrawnTime = ptr.To(metav1.NewTime(now))
		}
		if left = offerEnds - now.Sub(offer.WithdrawnTime.Time); left <= 0 {
			s.endOffer(desired.Name)
			return 0
		}
	}
	return left
}

// seesOffer notes what the tags of a queue that is only looked at say of an offer.
func (s *scope) seesOffer(desired queue.Desired, tags map[string]string) {
	s.lookIn(s.noteOffer(desired, tags))
}

// looksForOffer looks at a queue of the channel's that is not in use, where the status tells that it is offered.
func (s *scope) looksForOffer(ctx context.Context, desired queue.Desired) {
	if s.offerOf(desired.Name) < 0 {
		return
	}
	if tags, err := s.provider.ConsentOf(ctx, desired.Name); err == nil { // Else it is not known, and nobody's trouble.
		s.seesOffer(desired, tags)
	}
}

// offerOf is where the status tells of a queue's offer; below 0: nowhere.
func (s *scope) offerOf(name string) int {
	return slices.IndexFunc(s.channel.Status.Offered, func(o v1alpha1.OfferedQueue) bool { return o.Name == name })
}

// endOffer forgets that a queue was offered.
func (s *scope) endOffer(name string) {
	status := &s.channel.Status
	status.Offered = slices.DeleteFunc(slices.Clone(status.Offered), func(o v1alpha1.OfferedQueue) bool { return o.Name == name })
}

// offered is why a queue is not what: it is offered to another cluster, or was until a moment ago, and left is how long that is to be
// waited for; nil: it is not.
func (s *scope) offered(name string, left time.Duration, what string) error {
	i := s.offerOf(name)
	switch {
	case i < 0:
		return nil
	case left > 0:
		return waiting(left, v1alpha1.ReasonProgressing, "queue %s was offered to %s until a moment ago; it is %s until SQS surely shows that it was not taken over", name, s.channel.Status.Offered[i].To, what)
	}
	return stalled(v1alpha1.ReasonOffered, "queue %s is offered to %s by its tag %s; it is %s until that tag is taken off", name, s.channel.Status.Offered[i].To, v1alpha1.TagAdoptableBy, what)
}

// offers says which queues of the channel are offered to another cluster; empty: none. A dead-letter queue that is not in use is not
// looked at, and not spoken of.
func (s *scope) offers() string {
	own := s.channel.Spec.DeadLetter != nil && s.channel.Spec.DeadLetter.Queue != nil
	dead := s.provider.DeadLetterQueue(s.channel, "").Name
	var all []string
	for _, o := range s.channel.Status.Offered {
		if o.WithdrawnTime == nil && (own || o.Name != dead) {
			all = append(all, fmt.Sprintf("Queue %s is offered to %s by its tag %s, and is not changed until that tag is taken off", o.Name, o.To, v1alpha1.TagAdoptableBy))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ". ")
}

// withhold is why a plan is not carried out whose queue is offered to another cluster; nil: there is nothing in it. left is noteOffer's. What
// differs is told as drift, if it is (mayDrift).
func (r *RequestChannelReconciler) withhold(ctx context.Context, s *scope, name string, plan queue.Plan, left time.Duration, mayDrift bool) error {
	if plan.Empty() {
		s.lookIn(left)
		return nil
	}
	if mayDrift {
		drifted, err := r.noteDrift(ctx, s, name, plan)
		if err != nil {
			return err
		}
		s.drifts = s.drifts || drifted
	}
	return s.offered(name, left, "not changed ("+s.differs(name, plan)+")")
}

// considers lets a queue of somebody else's be taken over once its tags have let it be for so long that its former operator surely sees
// them, and leaves it alone.
func (s *scope) considers(desired queue.Desired, tags map[string]string) error {
	if s.takenLately(desired) {
		return nil
	}
	now := s.reconciler.now()
	s.consented = append(s.consented, desired.Name)
	is := consent{owner: queue.OwnerIn(tags), to: tags[v1alpha1.TagAdoptableBy], since: now, last: now}
	s.memory(func(v *visit) {
		// What was seen before a break longer than that to the next retry may have been withdrawn in it, and be another consent now.
		was, seen := v.consents[desired.Name]
		gap := 2 * offerStands
		if was.last.Sub(was.since) >= offerStands {
			gap += 2 * slowRetry // What was tried with it then may have been denied.
		}
		if seen && was.owner == is.owner && was.to == is.to && now.Sub(was.last) <= gap {
			is.since = was.since
		}
		v.consents = maps.Clone(v.consents)
		if v.consents == nil {
			v.consents = map[string]consent{}
		}
		v.consents[desired.Name] = is
	})
	if left := offerStands - now.Sub(is.since); left > 0 {
		s.lookIn(left) // Another error may be told instead, and its later look would count as a break.
		return waiting(left, v1alpha1.ReasonProgressing,
			"queue %s "+considered+" (its tag %s); it is, once SQS surely shows that tag to whoever had it before", desired.Name, v1alpha1.TagAdoptableBy)
	}
	return nil
}

// considered is how it is told that a queue is going to be taken over, and nothing was written to it as yet.
const considered = "may be taken over by this namespace"

// reconsiders forgets the consents that this reconcile did not see, whatever kept it from that: they may have been withdrawn.
func (s *scope) reconsiders() {
	s.memory(func(v *visit) {
		v.consents = maps.Clone(v.consents)
		maps.DeleteFunc(v.consents, func(name string, _ consent) bool { return !slices.Contains(s.consented, name) })
	})
}
