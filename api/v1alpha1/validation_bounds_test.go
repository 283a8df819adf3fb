package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// bases are valid objects in which, together, every field is set. A bound is tried in each of a kind's bases that has
// the field, and must show itself in one: in another, a CEL rule may be in its way.
var bases = map[string][]base{
	channel: {
		{
			spec: `{queueName: a.fifo, fifo: {contentBasedDeduplication: Enabled, deduplicationScope: MessageGroup, throughputLimit: PerQueue},
				queue: {visibilityTimeoutSeconds: 1, messageRetentionSeconds: 60, maximumMessageBytes: 1024, receiveWaitSeconds: 1, delaySeconds: 1},
				encryption: {type: KMS, kmsKeyID: k, dataKeyReuseSeconds: 60}, deadLetter: {maxReceiveCount: 1, queue: {messageRetentionSeconds: 60}},
				deadLettersFrom: {permission: Channels, channels: [{name: b}]},
				policy: "{}", tags: {a: b}, extraAttributes: {A: b}, allowedCallers: {from: All}, call: {timeoutSeconds: 1, maxAttempts: 1},
				providerRef: {name: a}, deletionPolicy: Delete, adoptionPolicy: Never, managementPolicy: Manage, suspend: true, binding: {secretName: s}}`,
			status: `{observedGeneration: 1, queueURL: u, queueARN: a, accountID: a, region: r, deadLetterQueueURL: u, deadLetterQueueARN: a, deadLetterTargetARN: a, appliedTerms: a, appliedAttributes: [a], appliedTags: [a], originalAttributes: [{name: a, value: b}], shownAttributes: [{name: a, value: b, shown: c}], offered: [{name: a, to: b}],
				responders: {ready: 1, total: 1}, lastHandledReconcileAt: x, binding: {name: s}, conditions: [` + condition + `]}`,
		},
		{spec: `{queueName: a, encryption: {type: SQSManaged}, deadLetter: {maxReceiveCount: 1, channelRef: {name: a}}, deadLettersFrom: {permission: All}, allowedCallers: {from: Selector, selector: {}}, call: {maxAttempts: 1}, managementPolicy: Manage}`},
		{spec: `{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x"}}`},
	},
	host: {
		{
			spec: `{identity: Pod, queue: {visibilityTimeoutSeconds: 1, messageRetentionSeconds: 60, maximumMessageBytes: 1024, receiveWaitSeconds: 1},
				encryption: {type: KMS, kmsKeyID: k, dataKeyReuseSeconds: 60}, tags: {a: b}, providerRef: {name: a}, heartbeat: {intervalSeconds: 1}, idleRetentionSeconds: 5, drainSeconds: 1, maxQueues: 1}`,
			status: `{observedGeneration: 1, queues: {total: 1, active: 1, idle: 1, draining: 1, failed: 1}, conditions: [` + condition + `]}`,
		},
		{spec: `{identity: Stable, encryption: {type: None}, heartbeat: {intervalSeconds: 1}, idleRetentionSeconds: 20000}`},
	},
	qp: {
		{
			spec: `{namespaces: {from: All}, region: r, endpoint: "https://a", roleARN: "arn:aws:iam::111122223333:role/a", namePrefix: a, allowedQueueNames: [a],
				allowPolicies: true, defaultTags: {a: b}, sweepForeignPrefixes: [__RequesterClientQueues__]}`,
			status: `{observedGeneration: 1, region: r, users: 1, conditions: [` + condition + `]}`,
		},
		{spec: `{namespaces: {from: Selector, selector: {}}}`},
	},
	rq: {{
		spec: `{hostRef: {name: h}, podRef: {name: p, uid: u}, identity: Pod, heartbeat: Lease, providerRef: {name: default}, heartbeatIntervalSeconds: 60,
			idleRetentionSeconds: 600, drainSeconds: 0, attributes: {A: b}, tags: {a: b}}`,
		status: `{observedGeneration: 1, queueURL: u, state: Closing, podUID: u, closingIDHash: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, counted: {of: Silence, reader: r, seconds: 0}, closing: {reason: Idle, time: "2026-01-02T03:04:05Z", message: m}, conditions: [` + condition + `]}`,
	}},
}

type base struct{ spec, status string }

const condition = `{type: Ready, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-02T03:04:05Z"}`

// texts make a text of n characters for fields with a pattern; empty where the pattern wants it longer.
var texts = map[string]func(n int) string{
	".spec.queueName":               func(n int) string { return strings.Repeat("a", n) },
	".spec.namePrefix":              func(n int) string { return strings.Repeat("a", n) },
	".spec.region":                  func(n int) string { return strings.Repeat("a", n) },
	".spec.allowedQueueNames[*]":    func(n int) string { return strings.Repeat("a", n) },
	".spec.sweepForeignPrefixes[*]": func(n int) string { return strings.Repeat("a", n) },
	".spec.endpoint":                func(n int) string { return ended("https://a/", n) },
	".spec.roleARN":                 func(n int) string { return ended("arn:aws:iam::111122223333:role/", n) },
	".spec.deadLetter.arn": func(n int) string {
		const frame = "arn:aws:sqs:%s:123456789012:x"
		if n < len(frame) {
			return ""
		}
		return fmt.Sprintf(frame, strings.Repeat("r", n-len(frame)+2))
	},
}

func ended(start string, n int) string {
	if n <= len(start) {
		return ""
	}
	return start + strings.Repeat("a", n-len(start))
}

// malformed are what patterns refuse.
var malformed = map[string]any{
	".spec.tags[*]": "a,b", ".spec.defaultTags[*]": "a*", ".spec.binding.secretName": "Not_A Name",
	".spec.queueName": "a.b", ".spec.namePrefix": "a_b", ".spec.region": "EU", ".spec.allowedQueueNames[*]": "a b", ".spec.sweepForeignPrefixes[*]": "a.b c",
	".spec.deadLetter.channelRef.name": "../a", ".spec.deadLettersFrom.channels[*].name": "other.b", ".spec.providerRef.name": "a/b",
	".spec.roleARN": "arn:aws:iam::111122223333:user/a", ".spec.deadLetter.arn": "arn:aws:sns:eu-west-1:123456789012:x",
}

// unusable are values of an enum that a rule refuses for one kind.
var unusable = map[string]string{qp + ".spec.namespaces.from": "Same"}

// probe is one bound of one field: what it lets pass at its edge, where that can be, and what it refuses beyond.
type probe struct {
	about           string
	accepted        any
	refused         any
	remove          bool   // refused is the field below being left out
	below           string // where the refusal is told, under the field's own path
	words           string
	nothingAccepted bool
}

// TestBounds tries every bound of every field of the CRDs at its edge and beyond, on a real API server. It fails for a
// field that is set in no base.
func TestBounds(t *testing.T) {
	c := apiServer(t)
	stages := map[string][]stage{}
	for kind, all := range bases {
		for _, b := range all {
			stages[kind] = append(stages[kind], set(t, c, kind, b))
		}
	}
	_, bounds := readCRDs(t)
	tried := 0
	for _, b := range bounds {
		path := fields(b.path)
		with := slices.Clone(stages[b.kind])
		with = slices.DeleteFunc(with, func(s stage) bool { _, there := lookUp(s.object.Object, keyed(s.object.Object, path)); return !there })
		if len(with) == 0 {
			t.Errorf("%s%s has bounds and is set in no base", b.kind, b.path)
			continue
		}
		path = keyed(with[0].object.Object, path)
		like, _ := lookUp(with[0].object.Object, append(slices.Clone(path), "[*]"))
		for _, p := range probes(b, like) {
			tried++
			t.Run(b.kind+b.path+" "+p.about, func(t *testing.T) {
				if !p.nothingAccepted && !slices.ContainsFunc(with, func(s stage) bool { return s.offer(c, path, p.accepted, true) == nil }) {
					t.Errorf("%.100v is refused: %v", p.accepted, with[0].offer(c, path, p.accepted, true))
				}
				at, value := path, p.refused
				if p.remove {
					at = append(slices.Clone(path), p.below)
				}
				told := at
				if p.below != "" {
					told = append(slices.Clone(path), p.below)
				}
				if !slices.ContainsFunc(with, func(s stage) bool { return refusesAt(s.offer(c, at, value, !p.remove), told, p.words) }) {
					t.Errorf("%.100v is not refused with %q: %v", p.refused, p.words, with[0].offer(c, at, value, !p.remove))
				}
			})
		}
	}
	t.Logf("%d bounds of %d fields", tried, len(bounds))
}

// stage is a base as it is on the API server.
type stage struct{ object *unstructured.Unstructured }

func set(t *testing.T, c client.Client, kind string, b base) stage {
	t.Helper()
	u := manifest(t, kind, "", b.spec)
	if err := c.Create(context.Background(), u); err != nil {
		t.Fatalf("a base of %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), u); err != nil {
			t.Error(err)
		}
	})
	if b.status != "" {
		// It is not stored: some statuses cannot be changed again.
		u = u.DeepCopy()
		var status any
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(b.status, "\t", " ")), &status); err != nil {
			t.Fatal(err)
		}
		u.Object["status"] = status
		if err := c.Status().Update(context.Background(), u.DeepCopy(), client.DryRunAll); err != nil {
			t.Fatalf("a base's status of %s: %v", kind, err)
		}
	}
	return stage{u}
}

// offer asks the API server what it says of the base with another value.
func (s stage) offer(c client.Client, path []string, value any, there bool) error {
	u := s.object.DeepCopy()
	replace(u.Object, path, runtime.DeepCopyJSONValue(value), there)
	ctx := context.Background()
	if path[0] == "status" {
		return c.Status().Update(ctx, u, client.DryRunAll)
	}
	// As a new object, since not every field may be changed.
	delete(u.Object, "status")
	u.SetName("")
	u.SetGenerateName("t-")
	u.SetResourceVersion("")
	return c.Create(ctx, u, client.DryRunAll)
}

func refusesAt(err error, path []string, words string) bool {
	for _, cause := range causes(err) {
		at := fields(fieldOf(cause))
		if slices.Equal(at, path) && strings.Contains(cause.Message, words) {
			return true
		}
	}
	return false
}

func probes(b bound, like any) []probe {
	var all []probe
	add := func(about string, accepted, refused any, words string) {
		all = append(all, probe{about: about, accepted: accepted, refused: refused, words: words, nothingAccepted: accepted == nil})
	}
	s := b.schema
	if s.Minimum != nil {
		add("minimum", int64(*s.Minimum), int64(*s.Minimum)-1, "greater than or equal")
	}
	if s.Maximum != nil {
		add("maximum", int64(*s.Maximum), int64(*s.Maximum)+1, "less than or equal")
	}
	text := func(n int64) any {
		if n < 0 {
			return nil
		}
		if custom, there := texts[b.path]; there {
			if made := custom(int(n)); made != "" {
				return made
			}
			return nil
		}
		return strings.Repeat("a", int(n))
	}
	if s.MinLength != nil {
		add("minLength", text(*s.MinLength), strings.Repeat("a", int(*s.MinLength-1)), "at least")
	}
	if s.MaxLength != nil {
		refused := text(*s.MaxLength + 1)
		add("maxLength", text(*s.MaxLength), refused, "may not be more than")
	}
	if s.Pattern != "" {
		add("pattern", nil, malformed[b.path], "should match")
	}
	if len(s.Enum) > 0 {
		for _, value := range s.Enum {
			var v any
			if json.Unmarshal(value.Raw, &v) == nil && unusable[b.kind+b.path] != v {
				add(fmt.Sprint("enum ", v), v, "Nonsense", "Unsupported value")
			}
		}
	}
	all = append(all, listProbes(s, like)...)
	for _, name := range s.Required {
		all = append(all, probe{about: "required " + name, remove: true, below: name, nothingAccepted: true, words: "Required value"})
	}
	return all
}

// listProbes are the bounds of lists and maps. like is an element of the list.
func listProbes(s apiextensionsv1.JSONSchemaProps, like any) []probe {
	var all []probe
	if s.MaxItems != nil {
		all = append(all, probe{about: "maxItems", accepted: items(s, *s.MaxItems, like), refused: items(s, *s.MaxItems+1, like), words: "must have at most"})
	}
	if s.XListType != nil && *s.XListType == "set" {
		all = append(all, probe{about: "set", accepted: []any{"first", "second"}, refused: []any{"first", "first"}, below: "[*]", words: "Duplicate value"})
	}
	if s.MaxProperties != nil {
		entries := func(n int64) map[string]any {
			m := map[string]any{}
			for i := range n {
				m[fmt.Sprint("K", i)] = "v"
			}
			return m
		}
		all = append(all, probe{about: "maxProperties", accepted: entries(*s.MaxProperties), refused: entries(*s.MaxProperties + 1), words: "must have at most"})
	}
	if s.MinProperties != nil {
		all = append(all, probe{about: "minProperties", nothingAccepted: true, refused: map[string]any{}, words: "should have at least"})
	}
	return all
}

// items are n different elements of a list: texts, or the one that a base has with other keys.
func items(s apiextensionsv1.JSONSchemaProps, n int64, like any) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = fmt.Sprint("name", i)
		if of, ok := like.(map[string]any); ok {
			of = maps.Clone(of)
			for _, key := range s.XListMapKeys {
				of[key] = fmt.Sprint("t", i)
			}
			all[i] = of
		}
	}
	return all
}

// TestRangesAreSQSs holds the ranges of the CRDs against those of SQS's API reference (SetQueueAttributes, and its quotas
// of messages and tags), for fields whose range is SQS's to set.
func TestRangesAreSQSs(t *testing.T) {
	_, bounds := readCRDs(t)
	ranges := map[string][2]float64{}
	for _, b := range bounds {
		if b.schema.Minimum != nil && b.schema.Maximum != nil {
			ranges[b.kind+b.path] = [2]float64{*b.schema.Minimum, *b.schema.Maximum}
		}
		if b.schema.MaxProperties != nil {
			ranges[b.kind+b.path] = [2]float64{0, float64(*b.schema.MaxProperties)}
		}
	}
	for path, want := range map[string][2]float64{
		channel + ".spec.queue.visibilityTimeoutSeconds":           {0, 43200},
		channel + ".spec.queue.messageRetentionSeconds":            {60, 1209600},
		channel + ".spec.queue.maximumMessageBytes":                {1024, 1048576},
		channel + ".spec.queue.receiveWaitSeconds":                 {0, 20},
		channel + ".spec.queue.delaySeconds":                       {0, 900},
		channel + ".spec.deadLetter.queue.messageRetentionSeconds": {60, 1209600},
		channel + ".spec.deadLetter.maxReceiveCount":               {1, 1000},
		channel + ".spec.encryption.dataKeyReuseSeconds":           {60, 86400},
		channel + ".spec.tags":                                     {0, 40}, // of 50, since ours and the provider's are beside them
		host + ".spec.queue.visibilityTimeoutSeconds":              {0, 43200},
		host + ".spec.queue.messageRetentionSeconds":               {60, 1209600},
		host + ".spec.queue.maximumMessageBytes":                   {1024, 1048576},
		host + ".spec.queue.receiveWaitSeconds":                    {0, 20},
		host + ".spec.encryption.dataKeyReuseSeconds":              {60, 86400},
	} {
		if got, there := ranges[path]; !there || got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
