package queue

import (
	"maps"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// laggingQueue is a queue that is shown as it was a while ago.
type laggingQueue struct {
	modelQueue
	past []pastQueue
}

// pastQueue is what a queue was until then.
type pastQueue struct {
	until time.Time
	modelQueue
}

func (q *laggingQueue) set(t *rapid.T, plan Plan, now time.Time) {
	q.past = append(q.past, pastQueue{now, modelQueue{maps.Clone(q.attributes), maps.Clone(q.tags)}})
	q.apply(t, plan)
}

// shown is what may be seen now: each attribute, and the tags, as they were at some time within their window.
func (q *laggingQueue) shown(t *rapid.T, now time.Time) Observed {
	retention := q.at(now.Add(-time.Duration(rapid.IntRange(0, int(RetentionPropagation/time.Second)-1).Draw(t, "retention lags")) * time.Second))
	seconds := rapid.SampledFrom([]int{0, 1, int(Propagation/time.Second) - 1}).Draw(t, "lags")
	seen := q.at(now.Add(-time.Duration(seconds) * time.Second))
	shown := modelQueue{maps.Clone(seen.attributes), maps.Clone(seen.tags)}
	delete(shown.attributes, MessageRetentionPeriod)
	if value, set := retention.attributes[MessageRetentionPeriod]; set {
		shown.attributes[MessageRetentionPeriod] = value
	}
	return shown.observe(t, "shown")
}

func (q *laggingQueue) at(then time.Time) modelQueue {
	for _, p := range q.past {
		if p.until.After(then) {
			return p.modelQueue
		}
	}
	return q.modelQueue
}

// However late SQS shows what was set, however the spec goes to and fro meanwhile, and whatever answers and processes are
// lost in between, the queue ends as the last spec says, and is left alone then.
func TestPlansForAQueueThatIsShownLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		endsAsTheLastSpecSays(t, turmoil{intervals: []int{1, 5, 59, 61, 600}, edits: []bool{true, false}, restarts: []bool{false, false, false, false, true}, answers: []answer{taken, taken, taken, taken, unanswered, unsent}}, func(fifo bool) *v1alpha1.RequestChannel {
			c := drawChannel(t, "spec", fifo)
			if rapid.Bool().Draw(t, "about encryption alone") {
				c.Spec = v1alpha1.RequestChannelSpec{Encryption: c.Spec.Encryption, FIFO: c.Spec.FIFO}
			}
			return c
		})
	})
}

// The same of a spec that goes to and fro between few values, so that what SQS shows late is what the spec says again; and between
// kinds of encryption, where one attribute changes another.
func TestPlansForASpecThatGoesToAndFro(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := []*v1alpha1.Encryption{
			nil, {Type: v1alpha1.EncryptionSQSManaged}, {Type: v1alpha1.EncryptionNone}, {Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"},
			{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a", DataKeyReuseSeconds: ptr.To[int32](60)},
		}
		often := rapid.SampledFrom([]turmoil{
			{intervals: []int{1, 5, 61}, edits: []bool{true, false}, restarts: []bool{false, false, false, true}, answers: []answer{taken, taken, taken, unanswered, unsent}},
			{intervals: []int{1, 5}, edits: []bool{true, true, true, false}, restarts: []bool{false}, answers: []answer{taken}},
			{intervals: []int{1, 5}, edits: []bool{true, true, true, false}, restarts: []bool{false}, answers: []answer{taken, unanswered, unsent}},
		}).Draw(t, "turmoil")
		endsAsTheLastSpecSays(t, often, func(fifo bool) *v1alpha1.RequestChannel {
			c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"}}
			c.Spec.Encryption = rapid.SampledFrom(kinds).Draw(t, "encryption")
			c.Spec.Tags = rapid.SampledFrom([]v1alpha1.Tags{nil, {"team": "a"}}).Draw(t, "tags")
			c.Spec.Queue = rapid.SampledFrom([]*v1alpha1.QueueAttributes{nil, {MessageRetentionSeconds: ptr.To[int32](60)}}).Draw(t, "queue")
			if fifo {
				c.Spec.FIFO = &v1alpha1.FIFO{}
			}
			return c
		})
	})
}

// turmoil is what happens between two reconciles and in them, drawn from lists in which something may be named more than once.
type turmoil struct {
	// intervals in seconds.
	intervals       []int
	edits, restarts []bool
	answers         []answer
}

// answer is what becomes of a request.
type answer string

const (
	taken      answer = "taken"
	unanswered answer = "taken, and the answer lost"
	unsent     answer = "lost"
)

// endsAsTheLastSpecSays reconciles a queue again and again, with specs that draw gives.
func endsAsTheLastSpecSays(t *rapid.T, often turmoil, draw func(fifo bool) *v1alpha1.RequestChannel) {
	p := &Provider{Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c1", ClusterUID: "cluster-uid"}
	fifo := rapid.Bool().Draw(t, "fifo")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	wanted := func() Desired {
		return p.RequestQueue(draw(fifo), rapid.SampledFrom([]string{"", "arn:aws:sqs:us-east-1:123456789012:d"}).Draw(t, "dead letters"))
	}
	desired := wanted()
	q := &laggingQueue{modelQueue: modelQueue{map[string]string{}, map[string]string{}}}
	q.apply(t, Plan{Attributes: desired.Attributes, Tags: desired.Owner.Tags()})
	q.apply(t, Plan{Tags: desired.Tags})
	remembered := Remembered{Attributes: sortedNames(desired.Attributes), Tags: sortedNames(desired.Tags)}
	sent, done := Sent{}, true
	for range rapid.IntRange(1, 20).Draw(t, "steps") {
		now = now.Add(time.Duration(rapid.SampledFrom(often.intervals).Draw(t, "later")) * time.Second)
		if rapid.SampledFrom(often.edits).Draw(t, "edited") {
			desired, done = wanted(), false
		}
		if rapid.SampledFrom(often.restarts).Draw(t, "restarted") {
			sent = Sent{}.Blind(now)
		}
		known, _ := sent.Over(q.shown(t, now), now)
		plan := MakePlan(desired, remembered, known, Terms{})
		if done {
			plan, _ = plan.Settled(known)
		}
		if done && !plan.Empty() {
			t.Fatalf("nobody changed anything, and %+v is taken for drift", plan)
		}
		remembered.Attributes = append(remembered.Attributes, sortedNames(desired.Attributes)...)
		remembered.Tags = append(remembered.Tags, sortedNames(desired.Tags)...)
		switch rapid.SampledFrom(often.answers).Draw(t, "answer") {
		case unsent:
			sent, done = sent.Lost(plan, now), false
		case unanswered:
			q.set(t, plan, now)
			sent, done = sent.Lost(plan, now), false
		default:
			q.set(t, plan, now)
			sent, done = sent.With(plan, known, now), true
			remembered = Remembered{Attributes: sortedNames(desired.Attributes), Tags: sortedNames(desired.Tags)}
		}
	}
	// The last reconcile; SQS shows what it likes.
	known, _ := sent.Over(q.shown(t, now), now)
	if plan := MakePlan(desired, remembered, known, Terms{}); !done {
		q.set(t, plan, now)
		sent = sent.With(plan, known, now)
		remembered = Remembered{Attributes: sortedNames(desired.Attributes), Tags: sortedNames(desired.Tags)}
	}
	known, _ = sent.Over(q.shown(t, now), now)
	again, _ := MakePlan(desired, remembered, known, Terms{}).Settled(known)
	if !again.Empty() {
		t.Fatalf("there is still %+v to do", again)
	}
	fresh := &modelQueue{map[string]string{}, map[string]string{}}
	fresh.apply(t, Plan{Attributes: desired.Attributes})
	for _, name := range sortedNames(defaults) {
		if name == KMSDataKeyReusePeriod && q.attributes[KMSMasterKeyID] == "" {
			continue
		}
		if want := fresh.attributes[name]; !equal(name, want, q.attributes[name]) && name != RedriveAllowPolicy {
			t.Fatalf("%s is %q, and would be %q on a new queue", name, q.attributes[name], want)
		}
	}
	for key := range q.tags {
		if _, wanted := desired.Tags[key]; !wanted && desired.Owner.Tags()[key] == "" {
			t.Fatalf("tag %s is left", key)
		}
	}
	for key, want := range desired.Tags {
		if q.tags[key] != want {
			t.Fatalf("tag %s is %q, want %q", key, q.tags[key], want)
		}
	}
}

// Who took a queue over while SQS may still show what was before our write is not overlooked, and what others set and
// remove beside it neither.
func TestSentHidesNobodyElsesTags(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	owner := Owner{Cluster: "c", Kind: v1alpha1.TagKindRequest, Namespace: "n", Name: "login"}
	free := Observed{Exists: true, Tags: map[string]string{"team": "bank"}}
	sent := Sent{}.With(Plan{Tags: owner.Tags()}, free, now)
	if known, hidden := sent.Over(free, now.Add(time.Second)); OwnerIn(known.Tags) != owner || hidden != Propagation-time.Second || known.Tags["team"] != "bank" {
		t.Errorf("%v for %s: what was there before is taken for the truth", known.Tags, hidden)
	}
	if known, hidden := sent.Over(free, now.Add(Propagation)); OwnerIn(known.Tags) != (Owner{}) || hidden != 0 {
		t.Errorf("%v for %s: SQS shows the truth by now", known.Tags, hidden)
	}
	theirs := owner
	theirs.Cluster = "theirs"
	if known, _ := sent.Over(Observed{Exists: true, Tags: theirs.Tags()}, now.Add(time.Second)); OwnerIn(known.Tags) != theirs {
		t.Errorf("%v: another took it over", known.Tags)
	}
	if known, hidden := sent.Over(Observed{}, now); known.Exists || hidden != 0 {
		t.Errorf("%+v: there is no queue", known)
	}
}

// A key whose request got no answer may have turned SQS's own keys off.
func TestSentIsUnsureOfWhatALostAnswerChangedBeside(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	shown := Observed{Exists: true, Attributes: map[string]string{SQSManagedSSE: "true"}}
	sent := Sent{}.With(Plan{Attributes: map[string]string{SQSManagedSSE: "true"}}, shown, now).Lost(Plan{Attributes: map[string]string{KMSMasterKeyID: "alias/a"}}, now)
	known, _ := sent.Over(shown, now.Add(time.Second))
	back := MakePlan(Desired{Attributes: map[string]string{SQSManagedSSE: "true"}}, Remembered{Attributes: []string{KMSMasterKeyID}}, known, Terms{})
	if want := map[string]string{SQSManagedSSE: "true", KMSMasterKeyID: ""}; !maps.Equal(back.Attributes, want) {
		t.Errorf("%v, want %v", back.Attributes, want)
	}
}
