package controller

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds attributes that are not known here, and that SQS may show in another form than the one they were set in. What it
// shows of such a one before it is set, and again once it has surely propagated that, is what it makes of the value. Somebody else's
// change is gone by then.

// longestShown is the longest form that the status can hold.
const longestShown = 8192

// sight is what SQS showed of an attribute before it was set to a value.
type sight struct {
	value, shown string
	// judged: it had been brought to that value before. Otherwise what was shown was another spec's.
	judged bool
	at     time.Time
}

// takeForms takes out of a plan what SQS merely shows in another form, and tells of it. drift is the plan without what has not been seen
// since it was set first, and sights are what is to be remembered once the plan was carried out (saw).
func (r *RequestChannelReconciler) takeForms(s *scope, desired queue.Desired, observed queue.Observed, plan queue.Plan) (rest, drift queue.Plan, sights map[string]sight) {
	status := &s.channel.Status
	status.ShownAttributes = slices.DeleteFunc(status.ShownAttributes, func(form v1alpha1.ShownAttribute) bool {
		value, wanted := desired.Attributes[form.Name]
		return !wanted || value != form.Value
	})
	var before map[string]sight
	s.memory(func(v *visit) { before = v.shown })
	edited := s.created || s.original.Status.AppliedTerms != s.terms()
	rest, drift, sights = plan, plan, map[string]sight{}
	rest.Attributes, drift.Attributes = maps.Clone(plan.Attributes), maps.Clone(plan.Attributes)
	for name := range s.channel.Spec.ExtraAttributes {
		value, planned := plan.Attributes[name]
		if !planned || queue.HasDefault(name) {
			continue
		}
		shown := observed.Attributes[name]
		last, known := before[name]
		known = known && last.value == value && r.now().Sub(last.at) >= queue.PropagationOf(name)
		switch {
		case known && last.judged && last.shown == shown && len(shown) <= longestShown:
			delete(rest.Attributes, name)
			delete(drift.Attributes, name)
			s.noteForm(v1alpha1.ShownAttribute{Name: name, Value: value, Shown: shown})
			r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventShownOtherwise, "GetQueueAttributes",
				"%s was set to %q again, and SQS goes on showing %q: that is taken for the same", queue.FieldOf(name), value, shown)
		case known && !last.judged:
			delete(drift.Attributes, name)
			fallthrough
		default:
			sights[name] = sight{value: value, shown: shown, judged: known || !edited}
		}
	}
	return rest, drift, sights
}

// noteForm notes in the status how SQS shows an attribute.
func (s *scope) noteForm(form v1alpha1.ShownAttribute) {
	status := &s.channel.Status
	status.ShownAttributes = slices.DeleteFunc(slices.Clone(status.ShownAttributes), func(f v1alpha1.ShownAttribute) bool { return f.Name == form.Name })
	status.ShownAttributes = append(status.ShownAttributes, form)
}

// saw remembers what SQS showed of the attributes that were set, and has them looked at once it surely shows what it makes of that.
func (s *scope) saw(sights map[string]sight, done, lost queue.Plan) {
	now := s.reconciler.now()
	s.memory(func(v *visit) {
		all := map[string]sight{}
		for name, last := range v.shown {
			if _, may := lost.Attributes[name]; !may && now.Sub(last.at) < queue.PropagationOf(name) {
				all[name] = last // It is not judged yet.
			}
		}
		for name, seen := range sights {
			if _, set := done.Attributes[name]; set {
				seen.at = now
				all[name] = seen
				s.lookIn(queue.PropagationOf(name))
			}
		}
		v.shown = all
	})
}
