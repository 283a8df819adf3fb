package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds whose a queue is that is there, and what is taken over with it.

// claim decides whether the queue at hand is the channel's, or may become it, and notes where it is. A queue that
// another object of this cluster owns, which exists, is not to be had by consent: two channels would take it from each other.
func (r *RequestChannelReconciler) claim(ctx context.Context, s *scope, desired queue.Desired, observed queue.Observed) error {
	owner := queue.OwnerIn(observed.Tags)
	adopting := owner != desired.Owner && !s.provider.Inherits(desired, observed.Tags)
	if adopting {
		s.seesOffer(desired, observed.Tags)
		has, err := r.owns(ctx, s, owner)
		if err != nil {
			return err
		}
		if has || !s.adopts(observed.Tags) {
			if s.takenLately(desired) {
				return takenOver(desired.Name)
			}
			s.channel.Status.QueueURL, s.channel.Status.QueueARN = "", "" // What is sent there would go to somebody else.
			if isAnothers(desired, observed.Tags) {
				s.channel.Status.Adopted = nil // Else it would be taken for taken over a moment ago when it is offered again.
			}
			if s.lostTags(desired, observed.Tags) {
				return givenBack(s, desired, observed.Tags)
			}
			return notOwned(s, desired.Name, observed.Tags, !has)
		}
		if err := r.oldestClaim(ctx, s, observed.Tags); err != nil {
			return err
		}
		if err := s.considers(desired, observed.Tags); err != nil {
			return err
		}
		s.forget() // Nothing on it is ours yet, whatever was noted for a queue before or for an adoption that failed.
	}
	if adopting || queue.IsAdopted(observed.Tags) {
		// A tag says so on the queue, so that a lost status cannot turn an adopted queue into one of our own, which would be
		// deleted with the channel.
		s.channel.Status.Adopted = ptr.To(true)
	}
	s.found(observed)
	return nil
}

// takenOver waits for SQS to show the ownership tags that a queue was given a moment ago.
func takenOver(name string) error {
	return waiting(appearRetry, v1alpha1.ReasonProgressing, "queue %s was taken over a moment ago, and SQS does not show it", name)
}

// adopts reports whether the channel takes over what is another's, and the owner consents.
func (s *scope) adopts(tags map[string]string) bool {
	return s.channel.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyIfConsented && s.provider.Consents(tags, s.channel.Namespace)
}

// owns reports whether a queue's owner is an object of this cluster that there is. One that is gone left its queue behind by force,
// and is asked for in the API server: a cache may not show it yet. So did one that the operator has let go, which the finalizers of
// others alone hold: it never has a queue again.
func (r *RequestChannelReconciler) owns(ctx context.Context, s *scope, owner queue.Owner) (bool, error) {
	if owner.Cluster != s.provider.ClusterUID {
		return false, nil
	}
	channels := owner.Kind == v1alpha1.TagKindRequest || owner.Kind == v1alpha1.TagKindDeadLetter
	if !channels || owner.Namespace == "" || owner.Name == "" {
		return true, nil // Who it is, is not known.
	}
	var channel v1alpha1.RequestChannel
	err := r.reader().Get(ctx, client.ObjectKey{Namespace: owner.Namespace, Name: owner.Name}, &channel)
	if client.IgnoreNotFound(err) != nil {
		return false, ofCluster(fmt.Errorf("get RequestChannel %s/%s: %w", owner.Namespace, owner.Name, err))
	}
	return err == nil && !isLetGo(&channel), nil
}

// deadLetterTerms says whether a dead-letter queue that is there may be taken over, by the rules of the request queue. left is
// notOwned's.
func (r *RequestChannelReconciler) deadLetterTerms(ctx context.Context, s *scope, desired *queue.Desired, tags map[string]string) (terms queue.Terms, left bool, err error) {
	desired.Adopted = queue.IsAdopted(tags)
	owner := queue.OwnerIn(tags)
	if tags == nil {
		return terms, false, nil
	}
	inherits := s.provider.Inherits(*desired, tags)
	if owner == desired.Owner || inherits {
		terms.Adopt, terms.Held = inherits, s.noteOffer(*desired, tags)
		return terms, false, nil
	}
	s.seesOffer(*desired, tags)
	has, err := r.owns(ctx, s, owner)
	if err != nil {
		return terms, false, err
	}
	if has || !s.adopts(tags) {
		return terms, !has, nil
	}
	if err := s.considers(*desired, tags); err != nil {
		return terms, false, err
	}
	terms.Adopt, desired.Adopted = true, true
	return terms, !has, nil
}

// tellTaken tells that a queue that existed was taken over, and what became of its attributes: what they were is on nobody's
// record.
func (r *RequestChannelReconciler) tellTaken(s *scope, desired queue.Desired, observed queue.Observed, plan queue.Plan) {
	changed := ""
	for _, name := range sortedKeys(plan.Attributes) {
		changed += fmt.Sprintf("; %s was %q and is %q now", name, observed.Attributes[name], plan.Attributes[name])
	}
	if s.provider.Inherits(desired, observed.Tags) {
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventQueueAdopted, "TagQueue", "Queue %s was taken over from the cluster with the UID %s, as a human said (%s)%s",
			desired.Name, queue.OwnerIn(observed.Tags).Cluster, v1alpha1.AnnotationAdoptFrom, changed)
		return
	}
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventQueueAdopted, "TagQueue", "Queue %s existed, its owner consented, and it was taken over%s", desired.Name, changed)
}

// tellPolicyLeft tells of an access or redrive-allow policy on a queue of the channel's own that the spec does not have, where nothing is
// remembered of who set it: it may have been the spec of before a restore, or somebody who meant it.
func (r *RequestChannelReconciler) tellPolicyLeft(s *scope, desired queue.Desired, observed queue.Observed) {
	for attribute, what := range map[string]string{queue.Policy: "an access policy", queue.RedriveAllowPolicy: "a redrive-allow policy"} {
		_, wanted := desired.Attributes[attribute]
		wanted = wanted || (attribute == queue.RedriveAllowPolicy && s.takesFromChannels())
		if observed.Attributes[attribute] == "" || wanted || isTrue(s.channel.Status.Adopted) || slices.Contains(s.channel.Status.AppliedAttributes, attribute) {
			continue
		}
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventAttributeLeft, "SetQueueAttributes",
			"Queue %s has %s, and %s is unset. Who set it is not known, so it stays as it is: remove it from the queue if nobody needs it",
			desired.Name, what, queue.FieldOf(attribute))
	}
}

// outlives reports whether a queue is the one that was there before SQS said that it is not: then it was not deleted, and has its
// messages. It is asked before another drift is noted.
func (s *scope) outlives(name string, observed queue.Observed) bool {
	noticed := s.channel.Status.LastDriftTime
	created, err := strconv.ParseInt(observed.Attributes[queue.CreatedTimestamp], 10, 64)
	if noticed == nil || err != nil || !time.Unix(created, 0).Add(clocksDiffer).Before(noticed.Time) {
		return false
	}
	s.outlived = append(s.outlived, name)
	return true
}

// errTakenAway is why a queue that the channel had is not its own any more.
var errTakenAway = errors.New("the queue is another's now")

// lostDeadLetter is notOwned for a dead-letter queue that the channel had: it says which tags would make it the channel's again, and
// whether somebody else has taken it. One whose tags are merely gone is not anybody else's.
func lostDeadLetter(s *scope, desired queue.Desired, tags map[string]string) error {
	p := givenBack(s, desired, tags)
	if queue.OwnerIn(tags) != (queue.Owner{}) && !s.takenLately(desired) {
		p.why = errTakenAway
	}
	return p
}

// lostTags reports whether a request queue seems to be the channel's own, but for ownership tags that are gone: none of those that are left
// is another's, and some are left, or the channel has written to the queue.
func (s *scope) lostTags(desired queue.Desired, tags map[string]string) bool {
	own := s.channel.Status.LastWriteTime != nil && !isTrue(s.channel.Status.Adopted)
	return !isAnothers(desired, tags) && (own || tags[v1alpha1.TagName] == desired.Owner.Name)
}

// isAnothers reports whether one of a queue's ownership tags names somebody else than should have it.
func isAnothers(desired queue.Desired, tags map[string]string) bool {
	for key, value := range desired.Owner.Tags() {
		if tags[key] != "" && tags[key] != value {
			return true
		}
	}
	return false
}

// givenBack says which tags would make a queue the channel's again.
func givenBack(s *scope, desired queue.Desired, tags map[string]string) *pause {
	var back []string
	for _, key := range sortedKeys(desired.Owner.Tags()) {
		back = append(back, key+"="+desired.Owner.Tags()[key])
	}
	p := &pause{stalled: true, reason: v1alpha1.ReasonNotOwned, after: slowRetry}
	p.message = fmt.Sprintf("queue %s %s; it is left alone. If it is this channel's, give it back its tags: %s",
		desired.Name, whoseQueue(s, tags), strings.Join(back, ", "))
	return p
}

// notOwned says whose a queue is, and what can be done. left: its owner was an object of this cluster that exists no more, or that the
// operator has let go.
func notOwned(s *scope, name string, tags map[string]string, left bool) error {
	owner, whose := queue.OwnerIn(tags), whoseQueue(s, tags)
	tag := fmt.Sprintf("%s=%s/%s", v1alpha1.TagAdoptableBy, s.provider.Cluster, s.channel.Namespace)
	other := "" // A computed name follows from the channel's own.
	if name == s.channel.Spec.QueueName {
		other = ", or name another queue in a new RequestChannel, since spec.queueName is immutable"
	}
	remedy := fmt.Sprintf("Delete it, or let its owner tag it %s and set adoptionPolicy IfConsented", tag) + other
	switch ours := owner.Cluster == s.provider.ClusterUID; {
	case s.channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve:
		remedy = fmt.Sprintf("Its owner can let it be observed from this namespace: tag it %s=%s/%s", v1alpha1.TagSharedWith, s.provider.Cluster, s.channel.Namespace)
	case left && ours:
		whose = fmt.Sprintf("was left behind by %s %s/%s, which exists no more", kindOf(owner.Kind), owner.Namespace, owner.Name)
	case ours:
		remedy = "To have it, delete that one first" + other
	}
	return stalled(v1alpha1.ReasonNotOwned, "queue %s exists and %s; it is left alone. %s", name, whose, remedy)
}

// whoseQueue says in words what a queue's tags say of its owner.
func whoseQueue(s *scope, tags map[string]string) string {
	owner := queue.OwnerIn(tags)
	if owner == (queue.Owner{}) {
		return "has no owner that its tags name"
	}
	if owner.Cluster == "" || owner.Kind == "" || owner.Namespace == "" || owner.Name == "" {
		return "has lost some of the tags that name its owner"
	}
	whose := fmt.Sprintf("belongs to %s %s/%s", kindOf(owner.Kind), owner.Namespace, owner.Name)
	if owner.Cluster != s.provider.ClusterUID {
		whose += " of cluster " + owner.Cluster
	}
	return whose
}

func kindOf(kind string) string {
	switch kind {
	case v1alpha1.TagKindReply:
		return "ReplyQueue"
	case v1alpha1.TagKindDeadLetter:
		return "the dead letters of RequestChannel"
	default:
		return "RequestChannel"
	}
}
