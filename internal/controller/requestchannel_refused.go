package controller

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what becomes of notes that were written ahead when SQS then refuses what they are about. They stay for as long
// as the spec asks for it, so that no retry writes to the API server; when it asks for something else, they go: kept, the
// notes of spec after spec would not fit into the status.

// notes are the names of attributes and tags that the status notes as set.
type notes struct{ attributes, tags []string }

func (s *scope) noted() notes {
	return notes{slices.Clone(s.channel.Status.AppliedAttributes), slices.Clone(s.channel.Status.AppliedTags)}
}

// answered takes in what became of a plan, and what was noted before it was: done was carried out, and lost may have been.
func (s *scope) answered(before notes, plan, done, lost queue.Plan) {
	s.memory(func(v *visit) {
		v.refused = notes{
			attributes: refusedOf(v.refused.attributes, before.attributes, plan.Attributes, done.Attributes, lost.Attributes),
			tags:       refusedOf(v.refused.tags, before.tags, plan.Tags, done.Tags, lost.Tags),
		}
	})
}

// asked takes in what became of the creation of a queue: whether it is there, and why not.
func (s *scope) asked(before notes, plan queue.Plan, there bool, err error) {
	if there || err == nil || queue.Classify(err) == queue.Transient {
		s.answered(before, plan, plan, queue.Plan{})
		return
	}
	s.answered(before, plan, queue.Plan{}, queue.Plan{})
}

// refusedOf are the names that are known to be set nowhere.
func refusedOf(refused, before []string, plan, done, lost map[string]string) []string {
	set := func(name string) bool {
		_, was := done[name]
		_, may := lost[name]
		return was || may
	}
	next := slices.DeleteFunc(slices.Clone(refused), set)
	for name := range plan {
		if !set(name) && !slices.Contains(before, name) {
			next = append(next, name)
		}
	}
	return union(next, nil)
}

// dropRefused forgets the notes of what SQS refused and the spec asks for no more.
func (s *scope) dropRefused() {
	desired := s.provider.RequestQueue(s.channel, "")
	wanted := union(sortedKeys(desired.Attributes), []string{queue.RedrivePolicy, queue.RedriveAllowPolicy}) // set once another queue is there
	var gone notes
	s.memory(func(v *visit) {
		v.refused.attributes, gone.attributes = split(v.refused.attributes, wanted)
		v.refused.tags, gone.tags = split(v.refused.tags, sortedKeys(desired.Tags))
	})
	status := &s.channel.Status
	_, status.AppliedAttributes = split(status.AppliedAttributes, gone.attributes)
	_, status.AppliedTags = split(status.AppliedTags, gone.tags)
	status.OriginalAttributes = slices.DeleteFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool {
		return slices.Contains(gone.attributes, o.Name)
	})
}

// leaveDefault gives up an attribute that the spec does not set where SQS refuses AWS's default for it, since the place has another, or what it
// was before it was set first, since SQS shows that in a form that it does not take. It reports
// whether that is why a plan was refused. Attributes that SQS couples are not given up, since another may be to blame.
func (r *RequestChannelReconciler) leaveDefault(s *scope, desired queue.Desired, plan queue.Plan, refusal error) bool {
	if refusal == nil || queue.Classify(refusal) != queue.Invalid {
		return false
	}
	words := queue.Explain(refusal)
	status := &s.channel.Status
	named, originals := maps.Clone(s.channel.Spec.ExtraAttributes), s.remembered().Originals
	if named == nil {
		named = map[string]string{}
	}
	maps.Copy(named, originals)
	name := queue.AttributeIn(words, named)
	_, wanted := desired.Attributes[name]
	value, sent := plan.Attributes[name]
	if original, noted := originals[name]; noted && !wanted && sent && value == original {
		_, status.AppliedAttributes = split(status.AppliedAttributes, []string{name})
		status.OriginalAttributes = slices.DeleteFunc(status.OriginalAttributes, func(o v1alpha1.OriginalAttribute) bool { return o.Name == name })
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventAttributeLeft, "SetQueueAttributes",
			"%s was taken out of spec.extraAttributes and stays as it is: SQS refuses %s, which it showed before (%s). Set what it should be", name, value, words)
		return true
	}
	if wanted || !sent || !queue.HasDefault(name) || queue.IsCoupled(name) {
		return false
	}
	_, status.AppliedAttributes = split(status.AppliedAttributes, []string{name})
	s.memory(func(v *visit) { v.refusedDefaults = union(v.refusedDefaults, []string{name}) })
	r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventAttributeLeft, "SetQueueAttributes",
		"%s is unset and stays as it is: SQS refuses %s, which is AWS's default (%s). Set what it should be", queue.FieldOf(name), value, words)
	return true
}

// unknownTarget reports whether a plan was refused since SQS does not know the dead-letter queue, which it may learn: a queue can be used a
// while after it was created, whoever created it. That is waited for from the first such answer on.
func (s *scope) unknownTarget(plan queue.Plan, refusal error) (mayAppear bool) {
	target := queue.DeadLetterTarget(plan.Attributes)
	unknown := target != "" && queue.Classify(refusal) == queue.Invalid && queue.SaysNoTarget(refusal)
	now := s.reconciler.now()
	s.memory(func(v *visit) {
		if !unknown {
			v.noTarget = missedTarget{}
			return
		}
		if v.noTarget.arn != target {
			v.noTarget = missedTarget{target, now}
		}
		mayAppear = now.Sub(v.noTarget.since) < propagation
	})
	return mayAppear
}

// missedTarget is a dead-letter queue that SQS does not know, or show, and since when it says so.
type missedTarget struct {
	arn   string
	since time.Time
}

// bears takes in what is on the dead-letter queue beside where SQS refused to make or to change it, unless SQS may show what was.
func (s *scope) bears(observed queue.Observed, refusal error) {
	if queue.Classify(refusal) != queue.Transient && !s.reconciler.lately(s) && (observed.Exists || observed.URL == "") {
		s.beside = append([]string{}, sortedKeys(observed.Tags)...)
	}
}

// stillBeside are the tags among those noted that the dead-letter queue beside may bear still.
func (s *scope) stillBeside(noted []string) []string {
	if s.beside == nil {
		return noted
	}
	still, _ := split(noted, s.beside)
	return still
}

// split parts names into those that are in a list and those that are not.
func split(names, list []string) (in, out []string) {
	for _, name := range names {
		if slices.Contains(list, name) {
			in = append(in, name)
		} else {
			out = append(out, name)
		}
	}
	return in, out
}
