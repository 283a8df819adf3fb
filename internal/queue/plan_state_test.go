package queue

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// modelQueue is a queue as far as plans are concerned: a map that keeps whatever it is given, also attributes that no
// server knows yet, and couples those that SQS couples. What it answers is worded as AWS words it, differently each time.
type modelQueue struct {
	attributes, tags map[string]string
}

func (q *modelQueue) apply(t *rapid.T, plan Plan) {
	for name, value := range plan.Attributes {
		if name == FIFOQueue || name == QueueARN {
			t.Fatalf("%s is set on a queue that exists", name)
		}
		if value == "" {
			delete(q.attributes, name)
		} else {
			q.attributes[name] = value
		}
	}
	key, sse := plan.Attributes[KMSMasterKeyID], plan.Attributes[SQSManagedSSE]
	switch {
	case key != "" && sse == "true":
		t.Fatalf("SQS refuses a KMS key together with keys of its own: %v", plan.Attributes)
	case key != "":
		q.attributes[SQSManagedSSE] = "false"
	case sse == "true":
		if q.attributes[KMSMasterKeyID] != "" {
			t.Fatalf("SQS refuses its own keys for a queue that has a KMS key: %v", plan.Attributes)
		}
	}
	if q.attributes[DeduplicationScope] != "messageGroup" && q.attributes[FIFOThroughputLimit] == "perMessageGroupId" {
		t.Fatalf("SQS refuses that limit but for the scope messageGroup: %v", plan.Attributes)
	}
	maps.Copy(q.tags, plan.Tags)
	for _, tag := range plan.Untag {
		delete(q.tags, tag)
	}
}

func (q *modelQueue) observe(t *rapid.T, label string) Observed {
	shown := map[string]string{QueueARN: "arn:aws:sqs:us-east-1:123456789012:q"}
	for name, value := range q.attributes {
		if name == KMSDataKeyReusePeriod && q.attributes[KMSMasterKeyID] == "" {
			continue // It is kept, and shown with a key only.
		}
		shown[name] = reword(t, label+"."+name, name, value)
		if standard, known := defaults[name]; known && value == standard && rapid.Bool().Draw(t, label+"."+name+".left out") {
			delete(shown, name)
		}
	}
	return Observed{Exists: true, URL: "https://sqs/123456789012/q", ARN: shown[QueueARN], Attributes: shown, Tags: maps.Clone(q.tags)}
}

// For any spec, any state of the queue and any memory: nothing is planned for a queue that is another's; what is planned
// is SQS's to take and ours to set, and differs from what is there; and once it was carried out nothing is planned any
// more, however the answer is worded.
func TestPlanFromAnyState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &Provider{Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c1", ClusterUID: "cluster-uid", DefaultTags: map[string]string{"env": "test"}}
		fifo := rapid.Bool().Draw(t, "fifo")
		c := drawChannel(t, "spec", fifo)
		c.Spec.ExtraAttributes = rapid.MapOfN(rapid.SampledFrom([]string{"NextYears", "NextDecades"}), rapid.SampledFrom([]string{"on", "1"}), 0, 2).Draw(t, "extra")
		desired := drawRequestQueue(t, "spec", p, c, rapid.SampledFrom([]string{"", "arn:aws:sqs:us-east-1:123456789012:d"}).Draw(t, "dead letters"))
		if rapid.Bool().Draw(t, "the dead-letter queue") {
			desired = p.DeadLetterQueue(c, "arn:aws:sqs:us-east-1:123456789012:q")
		}
		desired.Adopted = rapid.Bool().Draw(t, "adopted before")
		if rapid.Bool().Draw(t, "clears the policy") {
			desired.Attributes[Policy] = ""
		}
		create := MakePlan(desired, Remembered{}, Observed{}, Terms{})
		if !create.Create || (create.Attributes[FIFOQueue] != "") != fifo || (create.Tags[v1alpha1.TagAdopted] != "") != desired.Adopted {
			t.Fatalf("no queue: %+v", create)
		}
		for name, value := range create.Attributes {
			if value == "" || (desired.Attributes[name] != value && desired.Fixed[name] != value) {
				t.Fatalf("a queue is created with %s=%q", name, value)
			}
		}
		q := drawState(t, desired)
		remembered := Remembered{
			Originals:  rapid.MapOfN(rapid.SampledFrom([]string{"NextYears", "NextDecades"}), rapid.SampledFrom([]string{"", "off"}), 0, 2).Draw(t, "originals"),
			Attributes: rapid.SliceOfDistinct(rapid.SampledFrom(append(sortedNames(defaults), "NextYears", "NextDecades")), rapid.ID[string]).Draw(t, "remembered attributes"),
			Tags:       rapid.SliceOfDistinct(rapid.SampledFrom([]string{"team", "Team", "cost", "env"}), rapid.ID[string]).Draw(t, "remembered tags"),
		}
		terms := Terms{Adopt: rapid.Bool().Draw(t, "adopt")}
		if rapid.IntRange(0, 9).Draw(t, "offered a moment ago") == 0 {
			terms.Held = time.Second
		}

		before := q.observe(t, "before")
		plan := MakePlan(desired, remembered, before, terms)
		if OwnerIn(before.Tags) != desired.Owner && !terms.Adopt {
			if !plan.Refused || plan.Create || len(plan.Attributes)+len(plan.Tags)+len(plan.Untag) > 0 {
				t.Fatalf("the queue of %+v: %+v", OwnerIn(before.Tags), plan)
			}
			return
		}
		if to := before.Tags[v1alpha1.TagAdoptableBy]; terms.Held > 0 || to == "c2/shop" || to == "another/shop" {
			checkOffered(t, plan, desired, remembered, before, terms.Adopt)
			return
		}
		checkOurs(t, plan, desired, remembered, before)
		q.apply(t, plan)
		now := Remembered{Attributes: sortedNames(desired.Attributes), Tags: sortedNames(desired.Tags)}
		if again := MakePlan(desired, now, q.observe(t, "after"), Terms{}); !again.Empty() {
			t.Fatalf("after %+v there is still %+v to do", plan, again)
		}
		// A process that stopped before it noted what it set remembers what it did before, and finds nothing to do either.
		if again := MakePlan(desired, remembered, q.observe(t, "forgotten"), Terms{}); !again.Empty() {
			t.Fatalf("after %+v, with an old memory, there is still %+v to do", plan, again)
		}
		for name, want := range desired.Attributes {
			if !equal(name, want, q.attributes[name]) {
				t.Fatalf("%s is %q, want %q", name, q.attributes[name], want)
			}
		}
		checkTags(t, desired, q.tags)
		if (q.tags[v1alpha1.TagAdopted] != "") != (desired.Adopted || before.Tags[v1alpha1.TagAdopted] != "") {
			t.Fatalf("adopted: %t, tags %v", desired.Adopted, q.tags)
		}
		if _, wanted := desired.Attributes[KMSDataKeyReusePeriod]; desired.Attributes[KMSMasterKeyID] != "" && !wanted &&
			slices.Contains(remembered.Attributes, KMSDataKeyReusePeriod) && !equal(KMSDataKeyReusePeriod, "300", q.attributes[KMSDataKeyReusePeriod]) {
			t.Fatalf("the reuse of data keys was set, is no longer asked for and is %q, not AWS's default", q.attributes[KMSDataKeyReusePeriod])
		}
		for _, name := range remembered.Attributes {
			_, wanted := desired.Attributes[name]
			if standard, known := defaults[name]; !wanted && known && !encryption[name] && !equal(name, standard, q.attributes[name]) {
				t.Fatalf("%s was set, is no longer asked for and is %q, not AWS's default", name, q.attributes[name])
			}
			if original, known := remembered.Originals[name]; !wanted && known && q.attributes[name] != original {
				t.Fatalf("%s was set, is no longer asked for and is %q, not %q as before", name, q.attributes[name], original)
			}
		}
	})
}

// checkOurs holds a plan for a queue of our own to what it may touch, and to what differs.
func checkOurs(t *rapid.T, plan Plan, desired Desired, remembered Remembered, before Observed) {
	if plan.Refused || plan.Create || plan.Withheld != nil {
		t.Fatalf("our queue exists, and nobody else may take it: %+v", plan)
	}
	for name, value := range plan.Attributes {
		_, wanted := desired.Attributes[name]
		if !wanted && !slices.Contains(remembered.Attributes, name) && !IsCoupled(name) {
			t.Fatalf("%s was never ours to set", name)
		}
		if equal(name, value, before.Attributes[name]) && (name != KMSDataKeyReusePeriod || before.Attributes[KMSMasterKeyID] != "") {
			t.Fatalf("%s is sent as %q and is %q already", name, value, before.Attributes[name])
		}
	}
	owner := desired.Owner.Tags()
	if desired.Adopted {
		owner[v1alpha1.TagAdopted] = "true"
	}
	for key, value := range plan.Tags {
		if desired.Tags[key] != value && owner[key] != value {
			t.Fatalf("tag %s=%s was not asked for", key, value)
		}
	}
	for _, key := range plan.Untag {
		_, wanted := desired.Tags[key]
		if wanted || owner[key] != "" || !slices.Contains(remembered.Tags, key) {
			t.Fatalf("tag %s is not ours to remove", key)
		}
	}
}

// checkOffered holds a plan for a queue that another cluster may take over at any moment to nothing, and to what it says there would be to do.
func checkOffered(t *rapid.T, plan Plan, desired Desired, remembered Remembered, before Observed, adopt bool) {
	if !plan.Empty() || plan.TakesOver() || plan.Withheld == nil {
		t.Fatalf("a queue that is offered to %q: %+v", before.Tags[v1alpha1.TagAdoptableBy], plan)
	}
	before.Tags = maps.Clone(before.Tags)
	delete(before.Tags, v1alpha1.TagAdoptableBy)
	if would := MakePlan(desired, remembered, before, Terms{Adopt: adopt}); !reflect.DeepEqual(*plan.Withheld, would) {
		t.Fatalf("what is withheld is %+v, and would be %+v", plan.Withheld, would)
	}
}

// drawState is what a queue may be like, whoever made it so.
func drawState(t *rapid.T, desired Desired) *modelQueue {
	values := map[string][]string{
		VisibilityTimeout: {"30", "77"}, MessageRetentionPeriod: {"345600", "777"}, MaximumMessageSize: {"1048576", "1024"},
		ReceiveMessageWaitTime: {"0", "7"}, DelaySeconds: {"0", "7"}, ContentBasedDeduplication: {"true", "false"},
		DeduplicationScope: {"queue", "messageGroup"}, FIFOThroughputLimit: {"perQueue", "perMessageGroupId"},
		KMSMasterKeyID: {"alias/a", "alias/foreign"}, KMSDataKeyReusePeriod: {"300", "77"}, SQSManagedSSE: {"true", "false"},
		Policy: {policyA, policyB}, RedriveAllowPolicy: {`{"redrivePermission":"allowAll"}`, `{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:us-east-1:123456789012:q"]}`},
		RedrivePolicy: {`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:123456789012:d","maxReceiveCount":3}`}, "NextYears": {"on", "off"},
	}
	q := &modelQueue{attributes: maps.Clone(desired.Fixed), tags: map[string]string{}}
	if q.attributes == nil {
		q.attributes = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		// As asked for, as somebody else left it, or as it is by default.
		choices := append([]string{""}, values[name]...)
		if want := desired.Attributes[name]; want != "" {
			choices = append(choices, want, want)
		}
		if value := rapid.SampledFrom(choices).Draw(t, "state."+name); value != "" {
			q.attributes[name] = value
		}
	}
	if q.attributes[KMSMasterKeyID] != "" {
		q.attributes[SQSManagedSSE] = "false"
	}
	if q.attributes[DeduplicationScope] != "messageGroup" && q.attributes[FIFOThroughputLimit] == "perMessageGroupId" {
		q.attributes[DeduplicationScope] = "messageGroup"
	}
	owner := desired.Owner
	switch rapid.SampledFrom([]string{"ours", "ours", "ours", "another's", "another cluster's", "nobody's", "the reply queue's", "half"}).Draw(t, "owner") {
	case "another's":
		owner.Name = "another"
	case "another cluster's":
		owner.Cluster = "another"
	case "the reply queue's":
		owner.Kind = v1alpha1.TagKindReply
	case "nobody's":
		owner = Owner{}
	case "half":
		owner.Namespace = ""
	}
	for key, value := range owner.Tags() {
		if value != "" {
			q.tags[key] = value
		}
	}
	// A consent within the cluster, one that names nobody, and two that another cluster may use.
	if to := rapid.SampledFrom([]string{"", "", "", "c1/shop", "cluster-uid/shop", "c2", "/shop", "c2/", "c2/shop", "another/shop"}).Draw(t, "offered"); to != "" {
		q.tags[v1alpha1.TagAdoptableBy] = to
	}
	maps.Copy(q.tags, rapid.MapOfN(rapid.SampledFrom([]string{"team", "Team", "cost", "theirs", v1alpha1.TagAdopted}), rapid.SampledFrom([]string{"", "a", "foreign"}), 0, 5).Draw(t, "tags"))
	return q
}

// reword says the same in other words, as AWS does with what it is given.
func reword(t *rapid.T, label, name, value string) string {
	switch name {
	case Policy:
		var document map[string]any
		if json.Unmarshal([]byte(value), &document) != nil {
			t.Fatalf("no policy: %s", value)
		}
		statements := list(document["Statement"])
		for i, s := range statements {
			statements[i] = rewordStatement(t, label, s.(map[string]any))
		}
		document["Statement"] = oneOrList(t, label, rapid.Permutation(statements).Draw(t, label+".statements"))
		return text(document)
	case RedrivePolicy, RedriveAllowPolicy:
		var document map[string]any
		if json.Unmarshal([]byte(value), &document) != nil {
			t.Fatalf("no JSON: %s", value)
		}
		if count, ok := document["maxReceiveCount"]; ok && rapid.Bool().Draw(t, label+".as text") {
			document["maxReceiveCount"] = text(count)
		}
		b, err := json.MarshalIndent(document, "", rapid.SampledFrom([]string{"", "  "}).Draw(t, label+".indent"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	case ContentBasedDeduplication, SQSManagedSSE:
		return rapid.SampledFrom([]string{value, strings.ToUpper(value[:1]) + value[1:]}).Draw(t, label+".case")
	}
	return value
}

func rewordStatement(t *rapid.T, label string, statement map[string]any) map[string]any {
	said := maps.Clone(statement)
	actions := list(said["Action"])
	for i, action := range actions {
		if rapid.Bool().Draw(t, label+".case") {
			actions[i] = "SQS:" + strings.TrimPrefix(action.(string), "sqs:")
		}
	}
	said["Action"] = oneOrList(t, label, rapid.Permutation(actions).Draw(t, label+".actions"))
	said["Resource"] = oneOrList(t, label, list(said["Resource"]))
	switch principal := said["Principal"].(type) {
	case string:
		if rapid.Bool().Draw(t, label+".principal") {
			said["Principal"] = map[string]any{"AWS": oneOrList(t, label, []any{principal})}
		}
	case map[string]any:
		if account, ok := principal["AWS"].(string); ok {
			short := strings.TrimSuffix(strings.TrimPrefix(account, "arn:aws:iam::"), ":root")
			said["Principal"] = map[string]any{"AWS": oneOrList(t, label, []any{rapid.SampledFrom([]string{account, short}).Draw(t, label+".account")})}
		}
	}
	return said
}

// oneOrList is a list, or its only element in its place.
func oneOrList(t *rapid.T, label string, values []any) any {
	if len(values) == 1 && rapid.Bool().Draw(t, label+".alone") {
		return values[0]
	}
	return values
}

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
