package controller

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what the minute that SQS takes to show a change means for whose a queue is: tags that say it is the
// channel's may have been taken off, and those that say it is not may have been replaced.

// clocksDiffer is by how much the clocks of SQS, the API server and the operator may differ without it being told.
const clocksDiffer = 5 * time.Second

// believed lets a queue that the channel has not had before be written to once its tags are proof: an earlier channel of this
// name may have given it up just before this one was made. A queue that was created since is nobody else's, and one that
// there is nothing to write to is looked at again when the minute is over.
func (r *RequestChannelReconciler) believed(s *scope, desired queue.Desired, observed queue.Observed, plan queue.Plan) error {
	made := s.channel.CreationTimestamp.Time
	left := propagation - r.now().Sub(made)
	if queue.OwnerIn(observed.Tags) != desired.Owner || left <= 0 || left > propagation+clocksDiffer {
		return nil
	}
	if createdSince(observed.Attributes, made) {
		return nil
	}
	if plan.Empty() {
		if observed.Attributes[queue.CreatedTimestamp] != "" { // Else it was created with these tags just now, and nothing more is known of it.
			s.lookIn(left)
		}
		return nil
	}
	return waiting(left, v1alpha1.ReasonProgressing,
		"queue %s existed before this channel, with its ownership tags; it is written to once SQS surely shows that they are still there", desired.Name)
}

// doubted is why a queue that shows the ownership tags of a channel that is deleted is not deleted, nor given up, yet; nil: it is the
// channel's. Tags may be those of a minute ago: an earlier channel of this name may have given the queue up since, where this channel is
// younger than that.
func (r *RequestChannelReconciler) doubted(ctx context.Context, s *scope, name, url string) (doubt, failed error) {
	now, made := r.now(), s.channel.CreationTimestamp.Time
	if left := propagation - now.Sub(made); left > 0 && left <= propagation+clocksDiffer {
		attributes, err := s.provider.Attributes(ctx, url)
		if err != nil {
			if queue.Classify(err) == queue.NotFound {
				err = nil
			}
			return nil, err
		}
		if !createdSince(attributes, made) {
			return waiting(left, v1alpha1.ReasonProgressing,
				"queue %s existed before this channel, with its ownership tags; it is deleted once SQS surely shows that they are still there", name), nil
		}
	}
	return nil, nil
}

// createdSince reports whether a queue is known to have been created after that.
func createdSince(attributes map[string]string, at time.Time) bool {
	created, err := strconv.ParseInt(attributes[queue.CreatedTimestamp], 10, 64)
	return err == nil && !time.Unix(created, 0).Add(clocksDiffer).Before(at)
}

// takesOver notes that a queue is about to get the channel's ownership tags.
func (s *scope) takesOver(name string) {
	s.memory(func(v *visit) {
		v.taken = maps.Clone(v.taken)
		if v.taken == nil {
			v.taken = map[string]time.Time{}
		}
		v.taken[name] = s.reconciler.now()
	})
}

// takenLately reports whether a queue that does not show the channel's ownership tags may have got them so lately that it
// will: from this process, or from another before this one saw the channel.
func (s *scope) takenLately(desired queue.Desired) (lately bool) {
	now, status := s.reconciler.now(), &s.channel.Status
	adopted := isTrue(status.Adopted) && (desired.Owner.Kind == v1alpha1.TagKindRequest || status.DeadLetterQueueURL != "")
	s.memory(func(v *visit) {
		lately = now.Sub(v.taken[desired.Name]) < propagation || (adopted && v.mayHaveTaken && now.Sub(v.since) < propagation)
	})
	return lately
}

// mayHaveTaken reports whether another process may have written its channel's ownership tags to a queue just before now, by what it noted: that it wrote,
// or that it was about to.
func (s *scope) mayHaveTaken(now time.Time) bool {
	last := s.original.Status.LastWriteTime
	ready := readiness(s.original)
	return (last != nil && now.Sub(last.Time) < 2*propagation) || (ready.Reason == v1alpha1.ReasonProgressing && !strings.Contains(ready.Message, considered))
}

// tellGone tells that the operator is done with a channel that is deleted and that others hold still: it has no queue any
// more, whatever became of the one it had.
func (r *RequestChannelReconciler) tellGone(ctx context.Context, s *scope) error {
	others := slices.DeleteFunc(slices.Clone(s.channel.Finalizers), func(f string) bool { return f == v1alpha1.FinalizerRequestChannel })
	if len(others) == 0 {
		return nil
	}
	s.hasNoQueue()
	conditions.Remove(s.channel, v1alpha1.ConditionBindingReady)
	conditions.Reconciling(s.channel, v1alpha1.ReasonDeleting, queuesDone(s.channel)+". It is held by the finalizers of others: "+strings.Join(others, ", "))
	return r.finish(ctx, s)
}

// hasNoQueue takes out of the status what told of queues that the channel has no more.
func (s *scope) hasNoQueue() {
	status := &s.channel.Status
	status.QueueURL, status.QueueARN = "", ""
	status.DeadLetterQueueURL, status.DeadLetterQueueARN, status.DeadLetterTargetARN = "", "", ""
	status.Offered = nil
	for _, condition := range []string{v1alpha1.ConditionQueueReady, v1alpha1.ConditionDeadLetterReady, v1alpha1.ConditionDrifted} {
		conditions.Remove(s.channel, condition)
	}
}
