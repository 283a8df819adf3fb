package queue

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func provider(server *sqstest.Server) *Provider {
	return &Provider{
		Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c1", ClusterUID: "cluster-uid",
		API: server.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }),
	}
}

func names(desired Desired) Remembered {
	return Remembered{Attributes: slices.Collect(maps.Keys(desired.Attributes)), Tags: slices.Collect(maps.Keys(desired.Tags))}
}

// For any spec and any state of its queue: carrying a plan out leaves nothing to plan; a fixed attribute is never
// sent to a queue that exists; what others set and the spec never named is left alone; and a queue that is
// another's is not touched. What is planned is carried out on an SQS server, so that the couplings between
// attributes are the server's and not this test's.
func TestPlanReachesAFixpoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		p := provider(sqstest.New())
		fifo := rapid.Bool().Draw(t, "fifo")
		deadLetter := createDeadLetterQueue(ctx, t, p, fifo)
		isDeadLetter := rapid.Bool().Draw(t, "the dead-letter queue")
		draw := func(label, deadLetterARN string) Desired {
			channel := drawChannel(t, label, fifo)
			if isDeadLetter {
				return p.DeadLetterQueue(channel, "arn:aws:sqs:us-east-1:000000000000:source")
			}
			return drawRequestQueue(t, label, p, channel, deadLetterARN)
		}

		first := draw("first", deadLetter)
		plan := MakePlan(first, Remembered{}, Observed{}, Terms{})
		if !plan.Create {
			t.Fatal("no queue, and none is created")
		}
		observed, err := p.CreateAndObserve(ctx, first.Name, plan)
		if err != nil {
			t.Fatal(err)
		}
		if again := MakePlan(first, names(first), observed, Terms{}); !again.Empty() {
			t.Fatalf("after creation there is still %+v to do", again)
		}

		foreign := drawForeignChanges(t)
		if _, _, err := p.Apply(ctx, observed.URL, foreign); err != nil {
			t.Fatal(err)
		}
		before := observe(ctx, t, p, first.Name)
		second := draw("second", rapid.SampledFrom([]string{"", deadLetter}).Draw(t, "deadLetter"))
		plan = MakePlan(second, names(first), before, Terms{})
		checkTouchesOnlyOurs(t, plan, first, second)
		if _, _, err := p.Apply(ctx, observed.URL, plan); err != nil {
			t.Fatalf("SQS refuses %+v: %v", plan, err)
		}
		after := observe(ctx, t, p, first.Name)
		if again := MakePlan(second, names(second), after, Terms{}); !again.Empty() {
			t.Fatalf("after %+v there is still %+v to do", plan, again)
		}
		checkIsAsAsked(t, first, second, after)

		second.Owner.Name = "another"
		if refused := MakePlan(second, names(second), after, Terms{}); !refused.Refused || refused.Create || len(refused.Attributes)+len(refused.Tags)+len(refused.Untag) > 0 {
			t.Fatalf("another's queue: %+v", refused)
		}
		adopted := MakePlan(second, names(second), after, Terms{Adopt: true})
		if adopted.Refused || adopted.Tags[v1alpha1.TagName] != "another" {
			t.Fatalf("adopted: %+v", adopted)
		}
	})
}

func checkTouchesOnlyOurs(t *rapid.T, plan Plan, first, second Desired) {
	if plan.Create || plan.Refused {
		t.Fatalf("our queue exists: %+v", plan)
	}
	for name := range plan.Attributes {
		if name == FIFOQueue || name == QueueARN {
			t.Fatalf("%s cannot be set on a queue that exists", name)
		}
		_, was := first.Attributes[name]
		_, is := second.Attributes[name]
		if !was && !is && !encryption[name] {
			t.Fatalf("%s was never ours to set", name)
		}
	}
	for _, key := range plan.Untag {
		if _, was := first.Tags[key]; !was {
			t.Fatalf("tag %s was never ours to remove", key)
		}
	}
}

// checkIsAsAsked holds the queue against the specs, without the plan's own idea of what they mean.
func checkIsAsAsked(t *rapid.T, first, second Desired, after Observed) {
	for name, want := range second.Attributes {
		if !equal(name, want, after.Attributes[name]) {
			t.Fatalf("%s is %q, want %q", name, after.Attributes[name], want)
		}
	}
	_, wasKMS := first.Attributes[KMSMasterKeyID]
	_, wasManaged := first.Attributes[SQSManagedSSE]
	_, managed := second.Attributes[SQSManagedSSE]
	if key := after.Attributes[KMSMasterKeyID]; (wasKMS || wasManaged || managed) && key != second.Attributes[KMSMasterKeyID] {
		t.Fatalf("encrypted with %q, want %q", key, second.Attributes[KMSMasterKeyID])
	}
	_, wasReuse := first.Attributes[KMSDataKeyReusePeriod]
	_, reuse := second.Attributes[KMSDataKeyReusePeriod]
	if wasReuse && !reuse && second.Attributes[KMSMasterKeyID] != "" && !equal(KMSDataKeyReusePeriod, "300", after.Attributes[KMSDataKeyReusePeriod]) {
		t.Fatalf("the reuse of data keys was unset and is %q, not AWS's default", after.Attributes[KMSDataKeyReusePeriod])
	}
	for name := range first.Attributes {
		if _, set := second.Attributes[name]; !set && !encryption[name] && !equal(name, defaults[name], after.Attributes[name]) {
			t.Fatalf("%s was unset and is %q, not AWS's default", name, after.Attributes[name])
		}
	}
	checkTags(t, second, after.Tags)
	for key := range first.Tags {
		_, wanted := second.Tags[key]
		if _, there := after.Tags[key]; there && !wanted {
			t.Fatalf("tag %s was removed from the spec and is still there", key)
		}
	}
}

// checkTags holds a queue's tags against what they should be. A tag without a value is one all the same.
func checkTags(t *rapid.T, desired Desired, tags map[string]string) {
	for _, asked := range []map[string]string{desired.Tags, desired.Owner.Tags()} {
		for key, want := range asked {
			if is, there := tags[key]; !there || is != want {
				t.Fatalf("tag %s is %q (there: %t), want %q", key, is, there, want)
			}
		}
	}
}

func observe(ctx context.Context, t *rapid.T, p *Provider, name string) Observed {
	observed, err := p.Observe(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return observed
}

func createDeadLetterQueue(ctx context.Context, t *rapid.T, p *Provider, fifo bool) string {
	name := p.DeadLetterQueueName("shop", "other", fifo)
	desired := Desired{Name: name}
	if fifo {
		desired.Fixed = map[string]string{FIFOQueue: "true"}
	}
	observed, err := p.CreateAndObserve(ctx, name, MakePlan(desired, Remembered{}, Observed{}, Terms{}))
	if err != nil {
		t.Fatal(err)
	}
	return observed.ARN
}

func drawChannel(t *rapid.T, label string, fifo bool) *v1alpha1.RequestChannel {
	number := func(name string, low, high int32) *int32 {
		return rapid.Ptr(rapid.Int32Range(low, high), true).Draw(t, label+"."+name)
	}
	channel := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"}}
	spec := &channel.Spec
	if rapid.Bool().Draw(t, label+".queue") {
		spec.Queue = &v1alpha1.QueueAttributes{
			VisibilityTimeoutSeconds: number("visibility", 0, 43200), MessageRetentionSeconds: number("retention", 60, 1209600),
			MaximumMessageBytes: number("size", 1024, 1048576), ReceiveWaitSeconds: number("wait", 0, 20), DelaySeconds: number("delay", 0, 900),
		}
	}
	switch rapid.SampledFrom([]v1alpha1.EncryptionType{"", v1alpha1.EncryptionKMS, v1alpha1.EncryptionSQSManaged, v1alpha1.EncryptionNone}).Draw(t, label+".encryption") {
	case v1alpha1.EncryptionKMS:
		spec.Encryption = &v1alpha1.Encryption{
			Type: v1alpha1.EncryptionKMS, KMSKeyID: rapid.SampledFrom([]string{"alias/a", "alias/b"}).Draw(t, label+".key"),
			DataKeyReuseSeconds: number("reuse", 60, 86400),
		}
	case v1alpha1.EncryptionSQSManaged:
		spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionSQSManaged}
	case v1alpha1.EncryptionNone:
		spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionNone}
	}
	if fifo {
		spec.FIFO = drawFIFO(t, label)
	}
	if rapid.Bool().Draw(t, label+".deadLetter") {
		spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: rapid.Int32Range(1, 1000).Draw(t, label+".count"), Queue: &v1alpha1.DeadLetterQueue{}}
	}
	if permission := rapid.SampledFrom([]v1alpha1.DeadLetterPermission{
		"", v1alpha1.DeadLetterPermissionAll, v1alpha1.DeadLetterPermissionNone, v1alpha1.DeadLetterPermissionChannels,
	}).Draw(t, label+".deadLettersFrom"); permission != "" {
		spec.DeadLettersFrom = &v1alpha1.DeadLettersFrom{Permission: permission}
	}
	spec.Policy = rapid.SampledFrom([]string{"", policyA, policyB}).Draw(t, label+".policy")
	spec.Tags = rapid.MapOfN(rapid.SampledFrom([]string{"team", "Team", "cost"}), rapid.SampledFrom([]v1alpha1.TagValue{"", "a", "A"}), 0, 3).Draw(t, label+".tags")
	return channel
}

// drawRequestQueue is what the channel's queue should be, once it is known which channels' queues it takes dead letters from:
// also from none, while none of them may.
func drawRequestQueue(t *rapid.T, label string, p *Provider, channel *v1alpha1.RequestChannel, deadLetterARN string) Desired {
	desired := p.RequestQueue(channel, deadLetterARN)
	if from := channel.Spec.DeadLettersFrom; from != nil && from.Permission == v1alpha1.DeadLetterPermissionChannels {
		sources := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
			"arn:aws:sqs:us-east-1:000000000000:a", "arn:aws:sqs:us-east-1:000000000000:b",
		}), 0, 2, rapid.ID[string]).Draw(t, label+".sources")
		desired.Attributes[RedriveAllowPolicy] = TakesDeadLetters(from.Permission, sources)
	}
	return desired
}

func drawFIFO(t *rapid.T, label string) *v1alpha1.FIFO {
	fifo := &v1alpha1.FIFO{
		ContentBasedDeduplication: rapid.SampledFrom([]v1alpha1.ContentBasedDeduplication{
			"", v1alpha1.ContentBasedDeduplicationEnabled, v1alpha1.ContentBasedDeduplicationDisabled,
		}).Draw(t, label+".content"),
		DeduplicationScope: rapid.SampledFrom([]v1alpha1.DeduplicationScope{
			"", v1alpha1.DeduplicationScopeQueue, v1alpha1.DeduplicationScopeMessageGroup,
		}).Draw(t, label+".scope"),
	}
	limits := []v1alpha1.FIFOThroughputLimit{"", v1alpha1.FIFOThroughputPerQueue}
	if fifo.DeduplicationScope == v1alpha1.DeduplicationScopeMessageGroup {
		limits = append(limits, v1alpha1.FIFOThroughputPerMessageGroupID)
	}
	fifo.ThroughputLimit = rapid.SampledFrom(limits).Draw(t, label+".limit")
	return fifo
}

// drawForeignChanges are what somebody else did to the queue.
func drawForeignChanges(t *rapid.T) Plan {
	attributes := map[string]string{}
	for name, value := range map[string]string{
		VisibilityTimeout: "77", DelaySeconds: "7", MessageRetentionPeriod: "777", Policy: policyB, RedrivePolicy: "", KMSMasterKeyID: "alias/foreign",
	} {
		if rapid.Bool().Draw(t, "foreign."+name) {
			attributes[name] = value
		}
	}
	return Plan{
		Attributes: attributes,
		Tags:       rapid.MapOfN(rapid.SampledFrom([]string{"team", "theirs"}), rapid.Just("foreign"), 0, 2).Draw(t, "foreign.tags"),
		Untag:      rapid.SampledFrom([][]string{nil, {"cost"}}).Draw(t, "foreign.untag"),
	}
}

const (
	policyA = `{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sqs:SendMessage","Resource":"*"}]}`
	policyB = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":["sqs:SendMessage","sqs:ReceiveMessage"],"Resource":"*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}}}`
)

func TestPlanIsTheLeastThatDoes(t *testing.T) {
	owner := Owner{Cluster: "c", Kind: v1alpha1.TagKindRequest, Namespace: "shop", Name: "login"}
	ours := func(attributes map[string]string) Observed {
		return Observed{Exists: true, Attributes: attributes, Tags: owner.Tags()}
	}
	for _, tc := range []struct {
		name             string
		want, is, expect map[string]string
		remembered       []string
		originals        map[string]string
	}{
		{name: "nothing asked for, nothing done", is: map[string]string{VisibilityTimeout: "77"}},
		{
			name: "only what differs is sent",
			want: map[string]string{VisibilityTimeout: "30", DelaySeconds: "5"}, is: map[string]string{VisibilityTimeout: "30", DelaySeconds: "0"},
			expect: map[string]string{DelaySeconds: "5"},
		},
		{
			name: "unsetting restores AWS's default", remembered: []string{VisibilityTimeout},
			is: map[string]string{VisibilityTimeout: "77"}, expect: map[string]string{VisibilityTimeout: "30"},
		},
		{name: "a missing attribute is its default", want: map[string]string{DeduplicationScope: "queue", ContentBasedDeduplication: "false"}, is: nil},
		{
			name: "a removed dead-letter queue is removed", remembered: []string{RedrivePolicy},
			is:     map[string]string{RedrivePolicy: `{"deadLetterTargetArn":"arn:aws:sqs:r:1:d","maxReceiveCount":3}`},
			expect: map[string]string{RedrivePolicy: ""},
		},
		{
			name: "a redrive policy is compared by meaning",
			want: map[string]string{RedrivePolicy: `{"deadLetterTargetArn":"arn:aws:sqs:r:1:d","maxReceiveCount":3}`},
			is:   map[string]string{RedrivePolicy: `{"maxReceiveCount":"3","deadLetterTargetArn":"arn:aws:sqs:r:1:d"}`},
		},
		{
			name: "KMS instead of SQS's keys: SQS turns the other off, and may remember a reuse", want: map[string]string{KMSMasterKeyID: "alias/a"},
			is: map[string]string{SQSManagedSSE: "true"}, remembered: []string{SQSManagedSSE},
			expect: map[string]string{KMSMasterKeyID: "alias/a", KMSDataKeyReusePeriod: "300"},
		},
		{
			name: "SQS's keys instead of KMS: both in one request", want: map[string]string{SQSManagedSSE: "true"},
			is: map[string]string{KMSMasterKeyID: "alias/a", SQSManagedSSE: "false"}, remembered: []string{KMSMasterKeyID},
			expect: map[string]string{KMSMasterKeyID: "", SQSManagedSSE: "true"},
		},
		{
			name: "encryption no longer named", remembered: []string{KMSMasterKeyID, KMSDataKeyReusePeriod},
			is:     map[string]string{KMSMasterKeyID: "alias/a", SQSManagedSSE: "false", KMSDataKeyReusePeriod: "60"},
			expect: map[string]string{KMSMasterKeyID: "", SQSManagedSSE: "true"},
		},
		{name: "an attribute with no known default is left as it is", remembered: []string{"NextYearsAttribute"}, is: map[string]string{"NextYearsAttribute": "x"}},
		{
			name: "or restored to what it was", remembered: []string{"NextYearsAttribute"}, originals: map[string]string{"NextYearsAttribute": "7"},
			is: map[string]string{"NextYearsAttribute": "x"}, expect: map[string]string{"NextYearsAttribute": "7"},
		},
		{
			name: "and not while it is asked for", remembered: []string{"NextYearsAttribute"}, originals: map[string]string{"NextYearsAttribute": "7"},
			want: map[string]string{"NextYearsAttribute": "x"}, is: map[string]string{"NextYearsAttribute": "x"},
		},
		{
			name: "JSON that has no field yet is compared by meaning",
			want: map[string]string{"NextYearsAttribute": `{"a": 1, "b": ["x", "y"]}`}, is: map[string]string{"NextYearsAttribute": `{"b":["y","x"],"a":"1"}`},
		},
		{
			name: "and is sent where it means another thing",
			want: map[string]string{"NextYearsAttribute": `{"a": 1}`}, is: map[string]string{"NextYearsAttribute": `{"a":2}`},
			expect: map[string]string{"NextYearsAttribute": `{"a": 1}`},
		},
		{
			name: "what only begins like JSON is compared as text",
			want: map[string]string{"NextYearsAttribute": `{a}`}, is: map[string]string{"NextYearsAttribute": `{ a}`},
			expect: map[string]string{"NextYearsAttribute": `{a}`},
		},
		{name: "an original of what was never set restores nothing", originals: map[string]string{"NextYearsAttribute": "7"}, is: map[string]string{"NextYearsAttribute": "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := MakePlan(Desired{Owner: owner, Attributes: tc.want}, Remembered{Attributes: tc.remembered, Originals: tc.originals}, ours(tc.is), Terms{})
			if !maps.Equal(plan.Attributes, tc.expect) {
				t.Errorf("got %v, want %v", plan.Attributes, tc.expect)
			}
			if plan.Create || plan.Refused || len(plan.Tags)+len(plan.Untag) > 0 {
				t.Errorf("more than attributes: %+v", plan)
			}
		})
	}
}

func TestSamePolicy(t *testing.T) {
	const reference = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sqs:SendMessage","Resource":"q"},{"Effect":"Deny","Principal":"*","Action":["sqs:*"],"Resource":["q"]}]}`
	for _, tc := range []struct {
		name, other string
		want        bool
	}{
		{"itself", reference, true},
		{"reordered, lists for single values, the account's number, another case", `{"Statement":[{"Action":"SQS:*","Resource":"q","Effect":"Deny","Principal":{"AWS":["*"]}},{"Resource":["q"],"Action":["SQS:SendMessage"],"Principal":{"AWS":["123456789012"]},"Effect":"Allow"}],"Version":"2012-10-17"}`, true},
		{"another account", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"sqs:SendMessage","Resource":"q"},{"Effect":"Deny","Principal":"*","Action":["sqs:*"],"Resource":["q"]}]}`, false},
		{"one statement less", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":["sqs:*"],"Resource":["q"]}]}`, false},
		{"none", "", false},
		{"no JSON", "{", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := SamePolicy(reference, tc.other); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
			if got := SamePolicy(tc.other, reference); got != tc.want {
				t.Errorf("the other way round: got %t, want %t", got, tc.want)
			}
		})
	}
}

// What a document says without saying it: a missing version is the old one, and the keys of conditions have no case but for the
// names of tags in them (IAM user guide).
func TestSamePolicyByIAMsDefaults(t *testing.T) {
	document := func(version, key string) string {
		return `{` + version + `"Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"q","Condition":{"StringEquals":{"` + key + `":"x"}}}]}`
	}
	const old, current = `"Version":"2008-10-17",`, `"Version":"2012-10-17",`
	for _, tc := range []struct {
		name, a, b string
		want       bool
	}{
		{"no version is the old one", document("", "aws:SourceArn"), document(old, "aws:SourceArn"), true},
		{"and not the current one", document("", "aws:SourceArn"), document(current, "aws:SourceArn"), false},
		{"nor is the old one that", document(old, "aws:SourceArn"), document(current, "aws:SourceArn"), false},
		{"a condition's key has no case", document(current, "aws:SourceArn"), document(current, "AWS:sourcearn"), true},
		{"nor has what comes before a tag's name", document(current, "aws:ResourceTag/Team"), document(current, "AWS:RESOURCETAG/Team"), true},
		{"but the tag's name has", document(current, "aws:ResourceTag/Team"), document(current, "aws:ResourceTag/team"), false},
	} {
		if got := SamePolicy(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: got %t", tc.name, got)
		}
		if got := SamePolicy(tc.b, tc.a); got != tc.want {
			t.Errorf("%s, the other way round: got %t", tc.name, got)
		}
	}
}

// Comparing never panics, is symmetric, and takes every text for equal to itself.
func FuzzSamePolicy(f *testing.F) {
	f.Add(policyA, policyB)
	f.Add(`{"Statement":null}`, `{"Statement":[null,[1]]}`)
	f.Add(`[]`, `"x"`)
	f.Fuzz(func(t *testing.T, a, b string) {
		if !SamePolicy(a, a) {
			t.Fatalf("%q differs from itself", a)
		}
		if SamePolicy(a, b) != SamePolicy(b, a) {
			t.Fatalf("%q and %q: the order of the arguments matters", a, b)
		}
	})
}
