package queue

import (
	"maps"
	"slices"
	"time"
)

const (
	// Propagation is how long SQS may go on showing what an attribute, or a tag, was before it was set (SetQueueAttributes,
	// API reference; of tags the reference says nothing).
	Propagation = 60 * time.Second
	// RetentionPropagation is the same for MessageRetentionPeriod.
	RetentionPropagation = 15 * time.Minute
)

// PropagationOf is how long SQS may go on showing an attribute's old value.
func PropagationOf(attribute string) time.Duration {
	if attribute == MessageRetentionPeriod {
		return RetentionPropagation
	}
	return Propagation
}

// Sent is what was set on one queue lately, while SQS may go on showing what was before. It is a value: its methods
// return another. The zero Sent says that nothing was set.
type Sent struct {
	attributes, tags map[string]sent
	// owner is whose SQS showed the queue to be when its ownership tags were written.
	owner Owner
	// blind is until when something may have been set that is not known here; zero: everything is known.
	blind time.Time
}

// sent is one value that was set, or removed.
type sent struct {
	value   string
	removed bool
	// lost: the answer was lost, so that it is not known whether it was set.
	lost bool
	at   time.Time
}

// With is s after a plan was carried out on a queue that was observed like that.
func (s Sent) With(plan Plan, observed Observed, at time.Time) Sent {
	s.attributes, s.tags = copied(s.attributes), copied(s.tags)
	for name, value := range plan.Attributes {
		s.attributes[name] = sent{value: value, at: at}
	}
	// What SQS couples changes together (see encryption).
	if key, set := plan.Attributes[KMSMasterKeyID]; set {
		if key == "" {
			s.attributes[KMSDataKeyReusePeriod] = sent{value: defaults[KMSDataKeyReusePeriod], at: at}
		} else { // No plan has both.
			s.attributes[SQSManagedSSE] = sent{value: "false", at: at}
		}
	}
	for key, value := range plan.Tags {
		s.tags[key] = sent{value: value, at: at}
	}
	for _, key := range plan.Untag {
		s.tags[key] = sent{removed: true, at: at}
	}
	if plan.TakesOver() {
		s.owner = OwnerIn(observed.Tags)
	}
	return s
}

// Lost is s after a plan was sent of which it is not known what was carried out.
func (s Sent) Lost(plan Plan, at time.Time) Sent {
	s.attributes, s.tags = copied(s.attributes), copied(s.tags)
	for name := range plan.Attributes {
		s.attributes[name] = sent{lost: true, at: at}
		if encryption[name] {
			for coupled := range encryption {
				s.attributes[coupled] = sent{lost: true, at: at}
			}
		}
	}
	for key := range plan.Tags {
		s.tags[key] = sent{lost: true, at: at}
	}
	for _, key := range plan.Untag {
		s.tags[key] = sent{lost: true, at: at}
	}
	return s
}

// Blind is s when something that is not known here may have been set until then: by a process before this one.
func (s Sent) Blind(until time.Time) Sent {
	if until.After(s.blind) {
		s.blind = until
	}
	return s
}

// Over returns the queue as it is as far as that is known: as observed, with what was set within its window in place. hidden
// is how long until SQS surely shows all of what it was found not to show; 0: it shows everything.
func (s Sent) Over(observed Observed, now time.Time) (known Observed, hidden time.Duration) {
	if !observed.Exists {
		return observed, 0
	}
	known = observed
	known.Attributes, known.Tags = copied(observed.Attributes), copied(observed.Tags)
	hide := func(left time.Duration) {
		if hidden == 0 || left < hidden {
			hidden = left
		}
	}
	for name, set := range s.attributes {
		left := PropagationOf(name) - now.Sub(set.at)
		if left <= 0 || set.lost || equal(name, set.value, observed.Attributes[name]) {
			continue
		}
		known.Attributes[name] = set.value
		hide(left)
	}
	// Somebody who took the queue over since is not overlooked.
	sameOwner := OwnerIn(observed.Tags) == s.owner
	own := OwnTags()
	for key, set := range s.tags {
		left := Propagation - now.Sub(set.at)
		is, there := observed.Tags[key]
		if left <= 0 || set.lost || (there == !set.removed && is == set.value) || (slices.Contains(own, key) && !sameOwner) {
			continue
		}
		if set.removed {
			delete(known.Tags, key)
		} else {
			known.Tags[key] = set.value
		}
		hide(left)
	}
	known.unsure = func(attribute string) time.Duration {
		return s.unsure(s.attributes, attribute, now, PropagationOf(attribute))
	}
	known.unsureTag = func(key string) time.Duration { return s.unsure(s.tags, key, now, Propagation) }
	return known, hidden
}

// unsure is for how long SQS may still show another value than what name was last set to, where that is not known; 0:
// it is known, or surely shown.
func (s Sent) unsure(all map[string]sent, name string, now time.Time, window time.Duration) time.Duration {
	last, known := all[name]
	switch {
	case known && last.lost && !last.at.Before(s.blind):
		return max(0, window-now.Sub(last.at))
	case known && !last.lost && !last.at.Before(s.blind), s.blind.IsZero():
		return 0
	default:
		return max(0, window-now.Sub(s.blind))
	}
}

// Settled returns a plan without what SQS may merely not show yet, and how long until it surely does; 0: nothing was
// left out. It is for a queue that had been brought to the spec as it is: otherwise, what is not known is set.
func (p Plan) Settled(observed Observed) (settled Plan, hidden time.Duration) {
	settled = p
	unsure := func(left time.Duration) bool {
		if left > 0 && (hidden == 0 || left < hidden) {
			hidden = left
		}
		return left > 0
	}
	settled.Attributes, settled.Tags = maps.Clone(p.Attributes), maps.Clone(p.Tags)
	maps.DeleteFunc(settled.Attributes, func(name, _ string) bool { return unsure(observed.unsureOf(name)) })
	maps.DeleteFunc(settled.Tags, func(key, _ string) bool { return unsure(observed.unsureOfTag(key)) })
	settled.Untag = slices.DeleteFunc(slices.Clone(p.Untag), func(key string) bool { return unsure(observed.unsureOfTag(key)) })
	return settled, hidden
}

func (o Observed) unsureOf(attribute string) time.Duration {
	if o.unsure == nil {
		return 0
	}
	return o.unsure(attribute)
}

func (o Observed) unsureOfTag(key string) time.Duration {
	if o.unsureTag == nil {
		return 0
	}
	return o.unsureTag(key)
}

// copied is a clone that can be written to.
func copied[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// UnsureOnly is o, sure of everything but the attributes named.
func (o Observed) UnsureOnly(attributes ...string) Observed {
	unsure := o.unsureOf
	o.unsure = func(attribute string) time.Duration {
		if !slices.Contains(attributes, attribute) {
			return 0
		}
		return unsure(attribute)
	}
	o.unsureTag = nil
	return o
}
