package queue

import (
	"cmp"
	"crypto/rand"
	"maps"
	"slices"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Owner is what a queue's ownership tags say: the cluster, and the object in it. The object is named and not
// identified by its UID, since a restore by a backup tool makes new ones.
type Owner struct {
	// Cluster is the UID of the kube-system namespace.
	Cluster string
	// Kind is one of v1alpha1.TagKindRequest, TagKindDeadLetter, TagKindReply.
	Kind string
	// Namespace and Name of the object that owns the queue.
	Namespace, Name string
}

// OwnerIn reads the owner from a queue's tags; what no tag says is empty.
func OwnerIn(tags map[string]string) Owner {
	return Owner{
		Cluster: tags[v1alpha1.TagCluster], Kind: tags[v1alpha1.TagKind],
		Namespace: tags[v1alpha1.TagNamespace], Name: tags[v1alpha1.TagName],
	}
}

// IsAdopted reports whether a queue's tags say that it was taken over rather than created.
func IsAdopted(tags map[string]string) bool { return tags[v1alpha1.TagAdopted] != "" }

// OwnTags are the keys of the tags that the operator gives to a queue of its own.
func OwnTags() []string {
	return append(slices.Sorted(maps.Keys(Owner{}.Tags())), v1alpha1.TagAdopted, v1alpha1.TagCreation)
}

// Tags are the ownership tags.
func (o Owner) Tags() map[string]string {
	return map[string]string{
		v1alpha1.TagCluster: o.Cluster, v1alpha1.TagKind: o.Kind,
		v1alpha1.TagNamespace: o.Namespace, v1alpha1.TagName: o.Name,
	}
}

// Desired is what one queue should be.
type Desired struct {
	// Name of the queue.
	Name string
	// Owner of the queue.
	Owner Owner
	// Cluster is what the owner's cluster is called in consents, beside its UID. It is nothing that the queue is to be.
	Cluster string `json:"-"`
	// Fixed are the attributes that SQS takes at creation only.
	Fixed map[string]string
	// Attributes are those that the spec sets, and an empty value for what it clears.
	Attributes map[string]string
	// Tags are those that the spec sets, without the ownership tags.
	Tags map[string]string
	// Adopted says that the queue was, or is being, taken over from somebody, which a tag keeps.
	Adopted bool
}

// Remembered is what was last set on a queue, so that unsetting it restores the default and removing a tag from
// the spec removes it from the queue, while what others set is left alone.
type Remembered struct {
	// Attributes and Tags are names, in any order.
	Attributes, Tags []string
	// Originals are what attributes without a known default were before they were set.
	Originals map[string]string
	// Shown are the forms in which SQS shows what attributes without a known default were set to, where that is another.
	Shown map[string]Shown
}

// Shown is a value that an attribute was set to, and the form in which SQS shows it; empty: not at all.
type Shown struct{ Value, As string }

// shows reports whether what SQS shows is what it makes of a value that an attribute was set to.
func (r Remembered) shows(name, value, shown string) bool {
	form, known := r.Shown[name]
	return known && form == Shown{value, shown}
}

// Observed is what one queue is.
type Observed struct {
	// Exists is false when there is no such queue; the rest is empty then.
	Exists bool
	// URL and ARN of the queue.
	URL, ARN string
	// Attributes as GetQueueAttributes answers, and Tags as ListQueueTags does.
	Attributes, Tags map[string]string

	// unsure and unsureTag are for how long SQS may still show another value than what an attribute, or a tag, was last
	// set to, where that is not known; nil: it shows all (see Sent).
	unsure, unsureTag func(name string) time.Duration
}

// Terms say what may be done with a queue that exists and is not ours.
type Terms struct {
	// Adopt takes the queue over: its owner consented, and the channel asks for it.
	Adopt bool
	// Held is for how long the queue is left alone though nobody is offered it any more: it was a moment ago, and may have been taken over.
	Held time.Duration
}

// Plan is what to do with one queue. The zero Plan is: nothing.
type Plan struct {
	// Refused is true when the queue is another's: nothing may be done with it.
	Refused bool
	// Create is true when the queue is to be created, with Attributes and Tags in one request. Otherwise they are
	// what to set on the queue, and Untag the keys to remove.
	Create           bool
	Attributes, Tags map[string]string
	Untag            []string
	// Withheld is what there would be to do with a queue that is offered to another cluster, as far as SQS shows it; nil: it is not
	// offered. Nothing is done with it, and the rest is empty.
	Withheld *Plan
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool {
	return !p.Refused && !p.Create && len(p.Attributes) == 0 && len(p.Tags) == 0 && len(p.Untag) == 0
}

// MarkCreation has a plan that creates a queue give it a tag that no other creation does, and returns how to tell from the queue's tags
// that this one made it: SQS answers the creation of a queue that is there already alike. The request can be sent again.
func (p Plan) MarkCreation() (made func(tags map[string]string) bool) {
	mark := rand.Text()
	p.Tags[v1alpha1.TagCreation] = mark
	return func(tags map[string]string) bool { return tags[v1alpha1.TagCreation] == mark }
}

// TakesOver reports whether the plan writes any of the tags that say whose the queue is.
func (p Plan) TakesOver() bool {
	return slices.ContainsFunc(OwnTags(), func(key string) bool { return p.Tags[key] != "" })
}

// MakePlan decides what brings a queue from what it is to what it should be: the least that does, and with it what SQS
// may not show yet (see Sent). It is pure; when its plan was carried out, planning again gives nothing. It plans nothing for a queue that is another's, or
// that may become another's at any moment (OfferedTo), and never a fixed attribute for a queue that exists.
func MakePlan(desired Desired, remembered Remembered, observed Observed, terms Terms) Plan {
	if !observed.Exists || (terms.Held <= 0 && offeredTo(observed.Tags, desired.Cluster, desired.Owner.Cluster) == "") {
		return makePlan(desired, remembered, observed, terms)
	}
	plan := makePlan(desired, remembered, observed.UnsureOnly(), terms)
	if plan.Refused {
		return plan
	}
	return Plan{Withheld: &plan}
}

func makePlan(desired Desired, remembered Remembered, observed Observed, terms Terms) Plan {
	tags := make(map[string]string, len(desired.Tags)+5)
	maps.Copy(tags, desired.Tags)
	maps.Copy(tags, desired.Owner.Tags())
	if desired.Adopted {
		tags[v1alpha1.TagAdopted] = "true"
	}
	if !observed.Exists {
		attributes := make(map[string]string, len(desired.Fixed)+len(desired.Attributes))
		maps.Copy(attributes, desired.Attributes)
		maps.DeleteFunc(attributes, func(_, value string) bool { return value == "" })
		maps.Copy(attributes, desired.Fixed)
		return Plan{Create: true, Attributes: attributes, Tags: tags}
	}
	if OwnerIn(observed.Tags) != desired.Owner && !terms.Adopt {
		return Plan{Refused: true}
	}
	plan := Plan{Attributes: map[string]string{}, Tags: map[string]string{}}
	for name, want := range target(desired.Attributes, remembered, observed) {
		forSure := observed.unsureOf(name) == 0 || (fifoOnly[name] && desired.Fixed[FIFOQueue] == "")
		if is := observed.Attributes[name]; !forSure || (!equal(name, want, is) && !remembered.shows(name, want, is)) {
			plan.Attributes[name] = want
		}
	}
	if is := observed.Attributes[KMSMasterKeyID]; plan.Attributes[KMSMasterKeyID] != "" && (is == "" || observed.unsureOf(KMSMasterKeyID) > 0) {
		// Without a key SQS shows no reuse of data keys, and may remember one.
		plan.Attributes[KMSDataKeyReusePeriod] = cmp.Or(desired.Attributes[KMSDataKeyReusePeriod], defaults[KMSDataKeyReusePeriod])
	}
	for key, want := range tags {
		if is, there := observed.Tags[key]; !there || is != want || observed.unsureOfTag(key) > 0 {
			plan.Tags[key] = want
		}
	}
	for _, key := range remembered.Tags {
		if _, wanted := tags[key]; !wanted {
			if _, there := observed.Tags[key]; there || observed.unsureOfTag(key) > 0 {
				plan.Untag = append(plan.Untag, key)
			}
		}
	}
	slices.Sort(plan.Untag)
	plan.Untag = slices.Compact(plan.Untag)
	return plan
}

// target is what the attributes should be: those that the spec sets, and of those it no longer sets the default or,
// where there is none that we know, what they were before.
func target(wanted map[string]string, remembered Remembered, observed Observed) map[string]string {
	all := maps.Clone(wanted)
	if all == nil {
		all = map[string]string{}
	}
	for _, name := range remembered.Attributes {
		if _, set := wanted[name]; set || encryption[name] {
			continue
		}
		if standard, known := defaults[name]; known {
			all[name] = standard
		} else if original, known := remembered.Originals[name]; known {
			all[name] = original
		}
	}
	if limit := observed.Attributes[FIFOThroughputLimit]; all[DeduplicationScope] == "queue" && all[FIFOThroughputLimit] == "" && limit == "perMessageGroupId" {
		all[FIFOThroughputLimit] = defaults[FIFOThroughputLimit] // SQS takes that limit with the other scope alone.
	}
	for name := range encryption {
		delete(all, name)
	}
	maps.Copy(all, encryptionTarget(wanted, remembered.Attributes, observed))
	return all
}

// encryption names the attributes that SQS couples: a KMS key turns SQS's own keys off, the two cannot be given
// together, and the data key's reuse is not shown without a KMS key.
var encryption = map[string]bool{KMSMasterKeyID: true, KMSDataKeyReusePeriod: true, SQSManagedSSE: true}

// fifoOnly names the attributes that SQS refuses for standard queues.
var fifoOnly = map[string]bool{ContentBasedDeduplication: true, DeduplicationScope: true, FIFOThroughputLimit: true}

// IsCoupled reports whether SQS takes an attribute only together with others.
func IsCoupled(name string) bool { return encryption[name] || fifoOnly[name] }

// encryptionTarget is target for the coupled attributes. It is empty when the spec says nothing of encryption and
// never did.
func encryptionTarget(wanted map[string]string, remembered []string, observed Observed) map[string]string {
	was := func(name string) bool { return slices.Contains(remembered, name) }
	if key := wanted[KMSMasterKeyID]; key != "" {
		all := map[string]string{KMSMasterKeyID: key}
		if reuse, set := wanted[KMSDataKeyReusePeriod]; set {
			all[KMSDataKeyReusePeriod] = reuse
		} else if was(KMSDataKeyReusePeriod) {
			all[KMSDataKeyReusePeriod] = defaults[KMSDataKeyReusePeriod]
		}
		return all
	}
	managed, set := wanted[SQSManagedSSE]
	if !set {
		if !was(KMSMasterKeyID) && !was(SQSManagedSSE) {
			return nil
		}
		managed = defaults[SQSManagedSSE]
	}
	all := map[string]string{SQSManagedSSE: managed}
	if observed.Attributes[KMSMasterKeyID] != "" || (was(KMSMasterKeyID) && observed.unsureOf(KMSMasterKeyID) > 0) {
		all[KMSMasterKeyID] = ""
	}
	return all
}

// InPlace are the attributes that a queue is to have and has.
func InPlace(desired Desired, observed Observed) map[string]string {
	in := maps.Clone(desired.Attributes)
	maps.DeleteFunc(in, func(name, want string) bool { return !equal(name, want, observed.Attributes[name]) })
	return in
}
