package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// propagation is how long SQS may go on showing what was before a write.
const propagation = queue.Propagation

// Reasons of events that are no condition's.
const (
	// EventQueueRecreated surfaces when a queue that was deleted by someone else was created again.
	EventQueueRecreated = "QueueRecreated"
	// EventDriftCorrected surfaces when what someone else changed on a queue was put right.
	EventDriftCorrected = "DriftCorrected"
	// EventAttributeLeft surfaces when an attribute that is unset stays as it is, since what it should be is not known, or SQS refuses it.
	EventAttributeLeft = "AttributeLeft"
	// EventShownOtherwise surfaces when SQS turned out to show an extra attribute in another form than it was set in.
	EventShownOtherwise = "ShownOtherwise"
	// EventQueueAdopted surfaces when a queue that existed was taken over.
	EventQueueAdopted = "QueueAdopted"
)

// converge brings the channel's queues to its spec. Its error is a *pause, or SQS's or the API server's. What stands in the
// way of the dead letters keeps a queue from being created, since requests could be lost on it; one that exists is brought
// to the rest of its spec.
func (r *RequestChannelReconciler) converge(ctx context.Context, s *scope) error {
	if err := r.permitted(s); err != nil {
		return r.unlessTakenBack(ctx, s, err)
	}
	if err := r.elsewhere(s); err != nil {
		return err
	}
	if s.channel.Status.QueueURL == "" { // Whether the queue is made, taken over or only read: its provider has to be there for it.
		if err := r.holdProvider(ctx, s, false); err != nil {
			return err
		}
	}
	if s.channel.Spec.ManagementPolicy == v1alpha1.ManagementPolicyObserve {
		return r.observeOnly(ctx, s)
	}
	// CreateQueue too would hand out the original's queue to a copy.
	if err := s.provider.MayCreate(); err != nil {
		return err
	}
	s.dropRefused()
	target, inTheWay := r.namedDeadLetter(ctx, s)
	if p := judge(s.channel, inTheWay); p != nil && (s.channel.Status.QueueURL == "" || p.cause != nil || p.passing) {
		return inTheWay
	}
	s.part = v1alpha1.ConditionQueueReady
	request, err := r.requestQueue(ctx, s)
	if err != nil {
		return err
	}
	if own := s.channel.Spec.DeadLetter; own != nil && own.Queue != nil {
		s.part = v1alpha1.ConditionDeadLetterReady
		target, inTheWay = r.ownDeadLetter(ctx, s, request.ARN)
		if p := judge(s.channel, inTheWay); p != nil && (p.cause != nil || p.passing) {
			return inTheWay
		}
	}
	s.part = v1alpha1.ConditionQueueReady
	asIs := false
	if inTheWay != nil {
		// Whoever took their consent back, or the queue itself, gets no more of them; what is merely waited for, or cannot be told, stays as it is.
		p := judge(s.channel, inTheWay)
		conditions.Set(s.channel, v1alpha1.ConditionDeadLetterReady, metav1.ConditionFalse, p.reason, p.message) // whatever becomes of the queue itself
		target, asIs = "", p.reason != v1alpha1.ReasonDeadLetterNotAllowed && !errors.Is(inTheWay, errTakenAway)
	}
	if err := r.bringToSpec(ctx, s, request, target, asIs); err != nil {
		return err
	}
	if inTheWay != nil {
		s.part = v1alpha1.ConditionDeadLetterReady
		return inTheWay
	}
	s.channel.Status.AppliedTerms = s.terms() // Though the Secret may be in the way.
	return nil
}

// observeOnly reads a queue that the operator may not write to.
func (r *RequestChannelReconciler) observeOnly(ctx context.Context, s *scope) error {
	name := s.provider.ChannelQueueName(s.channel)
	observed, err := s.provider.Observe(ctx, name)
	if err != nil {
		return err
	}
	// Whether it is as the spec says is nobody's to judge any more.
	conditions.Remove(s.channel, v1alpha1.ConditionDeadLetterReady)
	conditions.Remove(s.channel, v1alpha1.ConditionDrifted)
	s.channel.Status.DeadLetterTargetARN = ""
	if !observed.Exists {
		s.channel.Status.QueueURL, s.channel.Status.QueueARN = "", ""
		return stalled(v1alpha1.ReasonObservedQueueMissing, "there is no queue %s in %s, and managementPolicy Observe creates none", name, s.provider.Region)
	}
	owner := s.provider.RequestQueue(s.channel, "").Owner
	s.seesOffer(s.provider.RequestQueue(s.channel, ""), observed.Tags)
	s.looksForOffer(ctx, s.provider.DeadLetterQueue(s.channel, ""))
	if queue.OwnerIn(observed.Tags) != owner && !s.provider.Lends(observed.Tags, s.channel.Namespace) {
		s.channel.Status.QueueURL, s.channel.Status.QueueARN = "", "" // What is sent there would go to somebody else.
		return notOwned(s, name, observed.Tags, false)
	}
	if s.channel.Status.QueueURL == "" && !s.remembers() && queue.OwnerIn(observed.Tags) == owner && !queue.IsAdopted(observed.Tags) {
		// It was managed once, and what was set on it is forgotten. Should it be managed again, that counts as set by us (assumeOurs).
		// What shows AWS's default now was not: whoever sets it while the channel observes means it.
		s.channel.Status.AppliedAttributes = union(s.channel.Status.AppliedAttributes, queue.OffDefault(observed.Attributes))
	}
	s.found(observed)
	s.channel.Status.DeadLetterTargetARN = queue.DeadLetterTarget(observed.Attributes)
	conditions.Set(s.channel, v1alpha1.ConditionQueueReady, metav1.ConditionTrue, v1alpha1.ReasonObserved, "The queue exists")
	return nil
}

// requestQueue returns the channel's queue as it is, created if it is not there. It writes nothing to a queue that
// exists, and fails with NotOwned when that is another's.
func (r *RequestChannelReconciler) requestQueue(ctx context.Context, s *scope) (queue.Observed, error) {
	channel := s.channel
	// The redrive policy comes once the dead-letter queue is there.
	desired := s.provider.RequestQueue(channel, "")
	had := channel.Status.QueueURL != ""
	if had || channel.Spec.QueueName != "" {
		// A name that people chose may be taken, and CreateQueue would hand out the queue that has it.
		observed, err := s.provider.Observe(ctx, desired.Name)
		if err != nil {
			return queue.Observed{}, err
		}
		if observed.Exists {
			observed = s.known(desired.Name, observed)
			if !had {
				observed = observed.UnsureOnly(setLater...)
			}
			return observed, r.meets(ctx, s, desired, observed, had)
		}
	}
	if had && (r.lately(s) || (!r.saidMissing(s, desired.Name) && s.mayAppear(desired.Name, channel.Status.QueueURL))) {
		return queue.Observed{}, notVisible(desired.Name)
	}
	if channel.Spec.QueueName != "" && s.provider.IsComputedName(channel.Spec.QueueName) {
		return queue.Observed{}, r.notMade(ctx, s)
	}
	if had {
		if err := r.missing(ctx, s, desired.Name); err != nil {
			return queue.Observed{}, err
		}
		s.channel.Status.Adopted = nil // What is created in its place is our own.
		s.channel.Status.LastWriteTime = nil
	}
	if err := r.oldestClaim(ctx, s, nil); err != nil {
		return queue.Observed{}, err
	}
	if had {
		if err := r.holdProvider(ctx, s, true); err != nil {
			return queue.Observed{}, err
		}
	}
	noted := s.noted()
	if err := r.noteCreation(ctx, s, desired); err != nil {
		return queue.Observed{}, err
	}
	plan := queue.MakePlan(desired, queue.Remembered{}, queue.Observed{}, queue.Terms{})
	madeHere := plan.MarkCreation()
	s.creates(desired.Name)
	observed, err := s.provider.CreateAndObserve(ctx, desired.Name, plan)
	if s.asked(noted, plan, observed.URL != "", err); err != nil {
		return queue.Observed{}, err
	}
	s.created = true
	observed = s.known(desired.Name, observed).UnsureOnly(setLater...)
	if err := r.claim(ctx, s, desired, observed); err != nil {
		return queue.Observed{}, err
	}
	if had && s.outlives(desired.Name, observed) {
		s.created = false
		return observed, nil
	}
	if had {
		channel.Status.OriginalAttributes = nil // They were another queue's.
	}
	// What is new has what was asked for, which is noted, and for the rest what the place gives to every queue.
	if madeHere(observed.Tags) {
		s.endOffer(desired.Name)
	} else {
		r.assumeOurs(s, desired, observed)
	}
	s.madeSo(desired, observed)
	channel.Status.LastWriteTime = ptr.To(metav1.NewTime(r.now()))
	return observed, nil
}

// meets takes a queue that is there for the channel's, if it is.
func (r *RequestChannelReconciler) meets(ctx context.Context, s *scope, desired queue.Desired, observed queue.Observed, had bool) error {
	again := r.saidMissing(s, desired.Name)
	if again {
		s.channel.Status.Adopted = nil // This is what was created in its place, unless its tags say otherwise.
	}
	if err := r.claim(ctx, s, desired, observed); err != nil {
		return err
	}
	again = again && !s.outlives(desired.Name, observed)
	if again {
		s.channel.Status.OriginalAttributes = nil // They were another queue's.
	}
	switch {
	case !had || again:
		r.assumeOurs(s, desired, observed)
	case conditions.Reason(s.original, v1alpha1.ConditionQueueReady) == v1alpha1.ReasonObserved:
		r.tellPolicyLeft(s, desired, observed)
	}
	if !had && queue.OwnerIn(observed.Tags) == desired.Owner {
		// SQS may still show the queue of a channel of this name that was deleted a moment ago.
		s.finds(desired.Name)
		s.lookIn(propagation)
	}
	return nil
}

// missing notes that SQS has no such queue though the channel had one, or waits where that may be its own doing.
func (r *RequestChannelReconciler) missing(ctx context.Context, s *scope, name string) error {
	if err := r.sameAccount(ctx, s); err != nil {
		return err
	}
	if s.foundLately(name) {
		return nil // What was found was the last sight of a queue that was deleted before this channel was made.
	}
	return r.noteMissing(ctx, s, name)
}

// noteMissing notes that the queue was deleted by someone else, before it is created again: a process that stops in between
// would not know it.
func (r *RequestChannelReconciler) noteMissing(ctx context.Context, s *scope, name string) error {
	if r.saidMissing(s, name) {
		return nil
	}
	message := againOf(name)
	if conditions.Reason(s.channel, v1alpha1.ConditionDrifted) == v1alpha1.ReasonDeletedOutOfBand {
		message = conditions.Message(s.channel, v1alpha1.ConditionDrifted) + ". " + message
	}
	conditions.Set(s.channel, v1alpha1.ConditionDrifted, metav1.ConditionTrue, v1alpha1.ReasonDeletedOutOfBand, message)
	return r.noteFound(ctx, s, v1alpha1.ReasonDeletedOutOfBand)
}

// ownDeadLetter returns the ARN of the dead-letter queue beside the request queue, created and corrected as needed.
func (r *RequestChannelReconciler) ownDeadLetter(ctx context.Context, s *scope, sourceARN string) (string, error) {
	channel := s.channel
	desired := s.provider.DeadLetterQueue(channel, sourceARN)
	remembered := queue.Remembered{Attributes: []string{queue.KMSMasterKeyID, queue.KMSDataKeyReusePeriod}, Tags: channel.Status.AppliedTags}
	had := channel.Status.DeadLetterQueueURL != ""
	var observed queue.Observed
	var err error
	if had {
		if observed, err = s.provider.Observe(ctx, desired.Name); err != nil {
			return "", err
		}
		if !observed.Exists && r.lately(s) {
			return "", notVisible(desired.Name)
		}
		observed = s.known(desired.Name, observed)
	}
	terms, left, err := r.deadLetterTerms(ctx, s, &desired, observed.Tags)
	if err != nil {
		return "", err
	}
	plan := queue.MakePlan(desired, remembered, observed, terms)
	created, noted := plan.Create, s.noted()
	if created {
		if had {
			if err = s.provider.MayChange(); err == nil {
				err = r.noteMissing(ctx, s, desired.Name)
			}
		} else {
			err = r.noteDeadLetterQueue(ctx, s, queue.SiblingARN(sourceARN, desired.Name))
		}
		if err != nil {
			return "", err
		}
		if err := r.noteTagsOf(ctx, s, desired, plan); err != nil {
			return "", err
		}
		s.creates(desired.Name)
		if had {
			s.endOffer(desired.Name) // That was of the queue that is gone.
		}
		observed, err = s.provider.CreateBeside(ctx, sourceARN, desired.Name, plan)
		if s.asked(noted, queue.Plan{Tags: plan.Tags}, observed.URL != "", err); err != nil {
			s.bears(observed, err)
			return "", err
		}
		if had {
			if err := s.learnAge(ctx, &observed); err != nil {
				return "", err
			}
		}
		if terms, left, err = r.deadLetterTerms(ctx, s, &desired, observed.Tags); err != nil {
			return "", err
		}
		plan = queue.MakePlan(desired, remembered, observed, terms)
	}
	if plan.Refused {
		if had {
			return "", lostDeadLetter(s, desired, observed.Tags)
		}
		return "", notOwned(s, desired.Name, observed.Tags, left)
	}
	if r.saidMissing(s, desired.Name) && s.outlives(desired.Name, observed) {
		created = false
	}
	if !had {
		if err := r.believed(s, desired, observed, plan); err != nil {
			return "", err
		}
		if plan.TakesOver() {
			s.takesOver(desired.Name)
		}
	}
	if plan.Withheld != nil {
		withheld := *plan.Withheld
		if !created {
			withheld = r.settled(s, v1alpha1.ConditionDeadLetterReady, withheld, observed, false)
		}
		if err := r.withhold(ctx, s, desired.Name, withheld, terms.Held, !created); err != nil {
			return "", err
		}
	}
	drifted := false
	if !created {
		plan = r.settled(s, v1alpha1.ConditionDeadLetterReady, plan, observed, false)
		if drifted, err = r.noteDrift(ctx, s, desired.Name, plan); err != nil {
			return "", err
		}
	}
	if err := r.noteTagsOf(ctx, s, desired, plan); err != nil {
		return "", err
	}
	if err := s.mayWrite(observed, plan.Empty()); err != nil {
		return "", err
	}
	done, lost, err := s.provider.Apply(ctx, observed.URL, plan)
	s.sent(desired.Name, observed, done, lost)
	s.answered(noted, queue.Plan{Tags: plan.Tags}, done, lost) // Of its attributes nothing was noted.
	if err != nil {
		s.bears(observed, err)
		return "", err
	}
	if created {
		s.madeSo(desired, observed)
		channel.Status.LastWriteTime = ptr.To(metav1.NewTime(r.now()))
	}
	if drifted {
		r.tellCorrected(s, desired.Name, plan)
	}
	if queue.OwnerIn(observed.Tags) != desired.Owner {
		r.tellTaken(s, desired, observed, plan)
	}
	channel.Status.DeadLetterQueueURL, channel.Status.DeadLetterQueueARN = observed.URL, observed.ARN
	conditions.Set(channel, v1alpha1.ConditionDeadLetterReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable, "The dead-letter queue exists as asked for")
	return observed.ARN, nil
}

// lately reports whether a queue of the channel was written to before this reconcile, and not long enough ago for what
// SQS shows to be the truth. A write of the channel's counts for both its queues.
func (r *RequestChannelReconciler) lately(s *scope) bool {
	last := s.original.Status.LastWriteTime
	return last != nil && r.now().Sub(last.Time) < propagation
}

// bringToSpec sets what differs on the request queue, and remembers what was set. asIs leaves alone where dead letters go.
func (r *RequestChannelReconciler) bringToSpec(ctx context.Context, s *scope, observed queue.Observed, deadLetterARN string, asIs bool) error {
	channel := s.channel
	desired := s.desired(deadLetterARN, observed.ARN)
	desired.Adopted = isTrue(channel.Status.Adopted)
	inherits := s.provider.Inherits(desired, observed.Tags)
	remembered, kept := s.remembered(), []string(nil)
	if asIs {
		kept = slices.DeleteFunc(slices.Clone(remembered.Attributes), func(name string) bool { return name != queue.RedrivePolicy })
		remembered.Attributes = slices.DeleteFunc(slices.Clone(remembered.Attributes), func(name string) bool { return name == queue.RedrivePolicy })
	}
	terms := queue.Terms{Adopt: isTrue(channel.Status.Adopted) || inherits, Held: s.noteOffer(desired, observed.Tags)}
	plan := queue.MakePlan(desired, remembered, observed, terms)
	if plan.Refused {
		return notOwned(s, desired.Name, observed.Tags, false)
	}
	if plan.Withheld != nil {
		withheld := *plan.Withheld
		if !s.created {
			withheld = r.settled(s, v1alpha1.ConditionQueueReady, withheld, observed, asIs)
		}
		if err := r.withhold(ctx, s, desired.Name, withheld, terms.Held, !s.created); err != nil {
			return err
		}
	}
	if !s.created {
		plan = r.settled(s, v1alpha1.ConditionQueueReady, plan, observed, asIs)
	}
	if s.original.Status.AppliedTerms == "" {
		if err := r.believed(s, desired, observed, plan); err != nil {
			return err
		}
	}
	if err := s.mayWrite(observed, plan.Empty()); err != nil {
		return err
	}
	adopting := queue.OwnerIn(observed.Tags) != desired.Owner && plan.TakesOver()
	plan, drift, sights := r.takeForms(s, desired, observed, plan)
	drifted, err := r.noteDrift(ctx, s, desired.Name, drift)
	if err != nil {
		return err
	}
	noted := s.noted()
	s.noteOriginals(plan, observed)
	if err := r.writeAhead(ctx, s, desired, plan, adopting); err != nil {
		return err
	}
	if adopting {
		s.takesOver(desired.Name)
	}
	done, lost, err := s.provider.Apply(ctx, observed.URL, plan)
	s.sent(desired.Name, observed, done, lost)
	s.answered(noted, plan, done, lost)
	s.saw(sights, done, lost)
	if r.leaveDefault(s, desired, plan, err) {
		return waiting(visibleRetry, v1alpha1.ReasonProgressing, "An attribute that is unset stays as it is, since SQS refuses its default")
	}
	if s.unknownTarget(plan, err) {
		return waiting(visibleRetry, v1alpha1.ReasonProgressing, "SQS does not know the dead-letter queue yet")
	}
	if err != nil {
		return err
	}
	if s.created {
		channel.Status.LastWriteTime = ptr.To(metav1.NewTime(r.now()))
	}
	if err := r.untagLeft(ctx, s, desired); err != nil {
		return err
	}
	if drifted {
		r.tellCorrected(s, desired.Name, drift)
	}
	if adopting {
		r.tellTaken(s, desired, observed, plan)
	}
	if left := s.dropOriginals(desired, observed); len(left) > 0 {
		r.Recorder.Eventf(channel, nil, corev1.EventTypeWarning, EventAttributeLeft, "SetQueueAttributes",
			"%s was taken out of spec.extraAttributes and stays as it is: what it would be otherwise is not known. Set what it should be", strings.Join(left, ", "))
	}
	channel.Status.AppliedAttributes = union(sortedKeys(desired.Attributes), kept)
	if asIs {
		channel.Status.AppliedTags = union(s.stillBeside(channel.Status.AppliedTags), sortedKeys(desired.Tags))
	} else {
		channel.Status.AppliedTags = sortedKeys(desired.Tags)
		r.noteDeadLetter(s, deadLetterARN)
	}
	r.liftDrift(s, desired.Name, asIs)
	conditions.Set(channel, v1alpha1.ConditionQueueReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable, "The queue exists as asked for")
	return nil
}

// terms is a digest of all that the channel's queues are brought to. Only what stands in the spec and in the provider
// goes into it, so that it tells a change of those from a change that someone else made.
func (s *scope) terms() string {
	channel, provider := s.channel, s.provider
	terms := []any{channel.Spec.ManagementPolicy, channel.Spec.DeadLetter, provider.RequestQueue(channel, "")}
	if s.takesFromChannels() {
		terms = append(terms, s.sources)
	}
	if d := channel.Spec.DeadLetter; d != nil && d.Queue != nil {
		terms = append(terms, provider.DeadLetterQueue(channel, ""))
	}
	text, err := json.Marshal(terms)
	if err != nil {
		panic(err) // Every part of it always encodes.
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// wasReady reports whether the queue had been brought to the spec as it is now.
func (r *RequestChannelReconciler) wasReady(s *scope) bool {
	return conditions.ObservedGeneration(s.original) == s.channel.Generation &&
		conditions.Is(s.original, v1alpha1.ConditionReady, metav1.ConditionTrue) &&
		conditions.Reason(s.original, v1alpha1.ConditionReady) != v1alpha1.ReasonSuspended
}

// untagLeft takes tags that the spec no longer has off a dead-letter queue of the channel's own that is not in use, too: it
// may come back into use, and by then nobody knows that they were ours.
func (r *RequestChannelReconciler) untagLeft(ctx context.Context, s *scope, desired queue.Desired) error {
	status := &s.channel.Status
	if own := s.channel.Spec.DeadLetter; status.DeadLetterQueueARN == "" || (own != nil && own.Queue != nil) {
		return nil
	}
	left := s.provider.DeadLetterQueue(s.channel, "")
	gone := slices.DeleteFunc(slices.Clone(status.AppliedTags), func(key string) bool {
		_, wanted := desired.Tags[key]
		return wanted
	})
	if len(gone) == 0 {
		s.looksForOffer(ctx, left)
		return nil
	}
	observed, err := s.provider.Observe(ctx, left.Name)
	if err != nil {
		return err
	}
	if !observed.Exists && s.mayAppear(left.Name, status.DeadLetterQueueURL) {
		return waiting(appearRetry, v1alpha1.ReasonProgressing, "queue %s may have been created a moment ago, and SQS does not show it", left.Name)
	}
	if !observed.Exists || queue.OwnerIn(observed.Tags) != left.Owner {
		return nil
	}
	observed = s.known(left.Name, observed)
	terms := queue.Terms{Held: s.noteOffer(left, observed.Tags)}
	plan := queue.MakePlan(queue.Desired{Owner: left.Owner, Cluster: left.Cluster}, queue.Remembered{Tags: gone}, observed, terms)
	if plan.Withheld != nil {
		return r.withhold(ctx, s, left.Name, queue.Plan{Untag: plan.Withheld.Untag}, terms.Held, false)
	}
	if plan = (queue.Plan{Untag: plan.Untag}); plan.Empty() {
		return nil
	}
	if err := s.mayWrite(observed, false); err != nil {
		return err
	}
	done, lost, err := s.provider.Apply(ctx, observed.URL, plan)
	s.sent(left.Name, observed, done, lost)
	return err
}

func (r *RequestChannelReconciler) noteDeadLetter(s *scope, deadLetterARN string) {
	channel := s.channel
	channel.Status.DeadLetterTargetARN = deadLetterARN
	switch spec := channel.Spec.DeadLetter; {
	case spec == nil:
		// A dead-letter queue of our own is left where it is: what is in it is evidence. It goes with the channel.
		conditions.Remove(channel, v1alpha1.ConditionDeadLetterReady)
	case spec.Queue == nil && deadLetterARN != "":
		conditions.Set(channel, v1alpha1.ConditionDeadLetterReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable, "The dead-letter queue named is in use")
	}
}

// found notes where the request queue is: the region that it was asked for in, and the account that its URL names. What its ARN says of
// them may be something else, since only AWS writes there what it was asked for.
func (s *scope) found(observed queue.Observed) {
	s.met = true
	status := &s.channel.Status
	status.QueueURL, status.QueueARN = observed.URL, observed.ARN
	status.Region, status.AccountID = s.provider.Region, queue.AccountInURL(observed.URL)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// union is a sorted list of what is in either.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// intersection is the keys that are in both.
func intersection(a, b map[string]string) []string {
	var both []string
	for key := range a {
		if _, there := b[key]; there {
			both = append(both, key)
		}
	}
	return both
}
