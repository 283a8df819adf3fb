package v1alpha1_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// ruleCase holds one CEL rule against specs. accepted are those that it lets pass, as near to the refused ones as can
// be; refused are those that it refuses, and nothing else does. With from, they are updates of it. name is the object's,
// where that is what the rule is about.
type ruleCase struct {
	rule
	name              string
	from              string
	accepted, refused []string
}

const (
	channel  = "RequestChannel"
	host     = "ReplyHost"
	qp       = "QueueProvider"
	rq       = "ReplyQueue"
	allOf    = `{namespaces: {from: All}`
	tagRule  = "carry ownership and access"
	tagKey   = "a tag's key is 1 to 128"
	tagAlpha = "a tag's key is of letters"
)

var ruleCases = []ruleCase{
	{rule: rule{channel, "", "the name must be a DNS label"}, name: "a.b", refused: []string{`{}`}},
	{rule: rule{channel, "", "the name must be a DNS label"}, name: strings.Repeat("a", 64), refused: []string{`{}`}},
	{rule: rule{channel, "", "the name must be a DNS label"}, name: strings.Repeat("a", 63), accepted: []string{`{}`}},
	{rule: rule{channel, ".spec", "fifo cannot be added or removed"}, from: `{}`, accepted: []string{`{queue: {delaySeconds: 1}}`}, refused: []string{`{fifo: {}}`}},
	{rule: rule{channel, ".spec", "fifo cannot be added or removed"}, from: `{fifo: {}}`, accepted: []string{`{fifo: {contentBasedDeduplication: Enabled}}`}, refused: []string{`{}`}},
	{rule: rule{channel, ".spec", "queueName cannot be added or removed"}, from: `{queueName: a}`, accepted: []string{`{queueName: a, tags: {a: b}}`}, refused: []string{`{}`}},
	{rule: rule{channel, ".spec", "queueName cannot be added or removed"}, from: `{}`, refused: []string{`{queueName: a}`}},
	{rule: rule{channel, ".spec.queueName", "queueName is immutable"}, from: `{queueName: a}`, accepted: []string{`{queueName: a, suspend: true}`}, refused: []string{`{queueName: b}`}},
	{rule: rule{channel, ".spec", "providerRef cannot be added or removed"}, from: `{providerRef: {name: a}}`, accepted: []string{`{providerRef: {name: a}, suspend: true}`}, refused: []string{`{}`}},
	{rule: rule{channel, ".spec", "providerRef cannot be added or removed"}, from: `{}`, refused: []string{`{providerRef: {name: a}}`}},
	{rule: rule{channel, ".spec.providerRef", "providerRef is immutable"}, from: `{providerRef: {name: a}}`, accepted: []string{`{providerRef: {name: a}, suspend: true}`}, refused: []string{`{providerRef: {name: b}}`}},
	{
		rule:     rule{channel, ".spec", "queueName ends in .fifo exactly when fifo is set"},
		accepted: []string{`{fifo: {}, queueName: a.fifo}`, `{queueName: a}`, `{fifo: {}}`}, refused: []string{`{fifo: {}, queueName: a}`, `{queueName: a.fifo}`},
	},
	{
		rule:     rule{channel, ".spec", "an observed queue is never deleted"},
		accepted: []string{`{managementPolicy: Observe}`, `{managementPolicy: Observe, deletionPolicy: Retain}`, `{managementPolicy: Manage, deletionPolicy: Delete}`},
		refused:  []string{`{managementPolicy: Observe, deletionPolicy: Delete}`, `{managementPolicy: Observe, deletionPolicy: DeleteIfEmpty}`},
	},
	{
		rule:     rule{channel, ".spec.allowedCallers", "selector is required with from: Selector"},
		accepted: []string{`{allowedCallers: {from: Selector, selector: {}}}`, `{allowedCallers: {from: All}}`},
		refused:  []string{`{allowedCallers: {from: Selector}}`, `{allowedCallers: {from: All, selector: {}}}`, `{allowedCallers: {from: Same, selector: {}}}`},
	},
	{
		rule:     rule{channel, ".spec.allowedCallers", "an operator of a selector"},
		accepted: []string{`{allowedCallers: {from: Selector, selector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}, {key: a, operator: DoesNotExist}]}}}`},
		refused: []string{
			`{allowedCallers: {from: Selector, selector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}}`,
			`{allowedCallers: {from: Selector, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}`,
		},
	},
	{
		rule: rule{channel, ".spec.deadLetter", "exactly one of queue, channelRef and arn"},
		accepted: []string{
			`{deadLetter: {maxReceiveCount: 1, queue: {}}}`, `{deadLetter: {maxReceiveCount: 1, channelRef: {name: a}}}`,
			`{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x"}}`,
		},
		refused: []string{
			`{deadLetter: {maxReceiveCount: 1}}`, `{deadLetter: {maxReceiveCount: 1, queue: {}, channelRef: {name: a}}}`,
			`{deadLetter: {maxReceiveCount: 1, queue: {}, arn: "arn:aws:sqs:eu-west-1:123456789012:x"}}`,
		},
	},
	{
		rule: rule{channel, ".spec", "the dead-letter queue of a FIFO queue is a FIFO queue"},
		accepted: []string{
			`{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x"}}`,
			`{fifo: {}, deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x.fifo"}}`,
			`{fifo: {}, deadLetter: {maxReceiveCount: 1, queue: {}}}`,
		},
		refused: []string{
			`{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x.fifo"}}`,
			`{fifo: {}, deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:123456789012:x"}}`,
		},
	},
	{
		rule:     rule{channel, ".spec.deadLettersFrom", "channels is required with permission: Channels"},
		accepted: []string{`{deadLettersFrom: {permission: Channels, channels: [{name: a}]}}`, `{deadLettersFrom: {permission: None}}`, `{deadLettersFrom: {permission: All}}`},
		refused: []string{
			`{deadLettersFrom: {permission: Channels}}`, `{deadLettersFrom: {permission: None, channels: [{name: a}]}}`, `{deadLettersFrom: {permission: All, channels: [{name: a}]}}`,
		},
	},
	{
		rule: rule{channel, "", "a channel cannot be its own dead-letter queue"}, name: "own",
		accepted: []string{`{deadLettersFrom: {permission: Channels, channels: [{name: other}]}}`, `{deadLettersFrom: {permission: None}}`},
		refused:  []string{`{deadLettersFrom: {permission: Channels, channels: [{name: other}, {name: own}]}}`},
	},
	{
		rule:     rule{channel, ".spec.encryption", "kmsKeyID is required with type KMS"},
		accepted: []string{`{encryption: {type: KMS, kmsKeyID: k}}`, `{encryption: {type: None}}`},
		refused:  []string{`{encryption: {type: KMS}}`, `{encryption: {type: SQSManaged, kmsKeyID: k}}`, `{encryption: {type: None, kmsKeyID: k}}`},
	},
	{
		rule:     rule{channel, ".spec.encryption", "dataKeyReuseSeconds goes with type KMS"},
		accepted: []string{`{encryption: {type: KMS, kmsKeyID: k, dataKeyReuseSeconds: 60}}`}, refused: []string{`{encryption: {type: None, dataKeyReuseSeconds: 60}}`},
	},
	{
		rule:     rule{channel, ".spec.extraAttributes", "an attribute's name is letters and digits"},
		accepted: []string{`{extraAttributes: {` + strings.Repeat("a", 100) + `: x}}`, `{extraAttributes: {Next1: x}}`},
		refused:  []string{`{extraAttributes: {` + strings.Repeat("a", 101) + `: x}}`, `{extraAttributes: {1Next: x}}`, `{extraAttributes: {"a.b": x}}`, `{extraAttributes: {"": x}}`},
	},
	{
		rule:     rule{channel, ".spec.extraAttributes", "an attribute's value is at most 1024"},
		accepted: []string{`{extraAttributes: {A: ` + strings.Repeat("a", 1024) + `}}`}, refused: []string{`{extraAttributes: {A: ` + strings.Repeat("a", 1025) + `}}`},
	},
	{
		rule:     rule{channel, ".spec.extraAttributes", "has a field of its own"},
		accepted: []string{`{extraAttributes: {Politeness: x}}`},
		refused: []string{
			`{extraAttributes: {All: x}}`, `{extraAttributes: {RedriveNextYear: x}}`, `{extraAttributes: {NextYearsPolicy: x}}`, `{extraAttributes: {Policies: x}}`, `{extraAttributes: {VisibilityTimeout: "1"}}`, `{extraAttributes: {MessageRetentionPeriod: "60"}}`,
			`{extraAttributes: {MaximumMessageSize: "1024"}}`, `{extraAttributes: {ReceiveMessageWaitTimeSeconds: "1"}}`, `{extraAttributes: {DelaySeconds: "1"}}`,
			`{extraAttributes: {FifoQueue: "true"}}`, `{extraAttributes: {ContentBasedDeduplication: "true"}}`, `{extraAttributes: {DeduplicationScope: queue}}`,
			`{extraAttributes: {FifoThroughputLimit: perQueue}}`, `{extraAttributes: {KmsMasterKeyId: k}}`, `{extraAttributes: {KmsDataKeyReusePeriodSeconds: "60"}}`,
			`{extraAttributes: {SqsManagedSseEnabled: "false"}}`, `{extraAttributes: {Policy: "{}"}}`, `{extraAttributes: {RedrivePolicy: "{}"}}`,
			`{extraAttributes: {RedriveAllowPolicy: "{}"}}`, `{extraAttributes: {RedriveNextYear: x}}`, `{extraAttributes: {QueueArn: x}}`,
			`{extraAttributes: {CreatedTimestamp: "1"}}`, `{extraAttributes: {LastModifiedTimestamp: "1"}}`, `{extraAttributes: {ApproximateNumberOfMessagesDelayed: "1"}}`,
		},
	},
	{
		rule:     rule{channel, ".spec.fifo", "needs deduplicationScope MessageGroup"},
		accepted: []string{`{fifo: {throughputLimit: PerMessageGroupID, deduplicationScope: MessageGroup}}`, `{fifo: {throughputLimit: PerQueue}}`},
		refused:  []string{`{fifo: {throughputLimit: PerMessageGroupID}}`, `{fifo: {throughputLimit: PerMessageGroupID, deduplicationScope: Queue}}`},
	},

	{rule: rule{host, "", "the name must be a DNS label"}, name: "a.b", refused: []string{`{}`}},
	{rule: rule{host, "", "the name must be a DNS label"}, name: "a-b", accepted: []string{`{}`}},
	{rule: rule{host, ".spec", "identity is immutable"}, from: `{}`, accepted: []string{`{identity: Pod}`}, refused: []string{`{identity: Stable}`}},
	{rule: rule{host, ".spec", "identity is immutable"}, from: `{identity: Stable}`, refused: []string{`{}`}},
	{rule: rule{host, ".spec", "providerRef cannot be added or removed"}, from: `{providerRef: {name: a}}`, accepted: []string{`{providerRef: {name: a}, drainSeconds: 1}`}, refused: []string{`{}`}},
	{rule: rule{host, ".spec.providerRef", "providerRef is immutable"}, from: `{providerRef: {name: a}}`, accepted: []string{`{providerRef: {name: a}, drainSeconds: 1}`}, refused: []string{`{providerRef: {name: b}}`}},
	{
		rule:     rule{host, ".spec", "at least five times heartbeat.intervalSeconds"},
		accepted: []string{`{idleRetentionSeconds: 60, heartbeat: {intervalSeconds: 12}}`, `{idleRetentionSeconds: 300}`, `{heartbeat: {intervalSeconds: 120}}`},
		refused:  []string{`{idleRetentionSeconds: 60, heartbeat: {intervalSeconds: 13}}`, `{idleRetentionSeconds: 299}`, `{heartbeat: {intervalSeconds: 121}}`},
	},
	{
		rule:     rule{host, ".spec", "messageRetentionSeconds must be at least idleRetentionSeconds"},
		accepted: []string{`{identity: Stable, queue: {messageRetentionSeconds: 600}}`, `{identity: Stable, idleRetentionSeconds: 300, queue: {messageRetentionSeconds: 300}}`, `{queue: {messageRetentionSeconds: 60}}`},
		refused:  []string{`{identity: Stable, queue: {messageRetentionSeconds: 599}}`, `{identity: Stable, idleRetentionSeconds: 300, queue: {messageRetentionSeconds: 299}}`},
	},
	{rule: rule{host, ".spec.encryption", "kmsKeyID is required with type KMS"}, accepted: []string{`{encryption: {type: KMS, kmsKeyID: k}}`}, refused: []string{`{encryption: {type: KMS}}`, `{encryption: {type: SQSManaged, kmsKeyID: k}}`}},
	{rule: rule{host, ".spec.encryption", "dataKeyReuseSeconds goes with type KMS"}, accepted: []string{`{encryption: {type: KMS, kmsKeyID: k, dataKeyReuseSeconds: 60}}`}, refused: []string{`{encryption: {type: None, dataKeyReuseSeconds: 60}}`}},

	{
		rule:     rule{qp, ".spec", "region, endpoint, roleARN and namePrefix cannot be added or removed"},
		from:     `{namespaces: {from: All}}`,
		accepted: []string{`{namespaces: {from: All}, allowPolicies: true}`},
		refused: []string{
			allOf + `, region: b}`, allOf + `, endpoint: "https://b"}`, allOf + `, namePrefix: a}`, allOf + `, roleARN: "arn:aws:iam::111122223333:role/a"}`,
		},
	},
	{
		rule: rule{qp, ".spec", "region, endpoint, roleARN and namePrefix cannot be added or removed"},
		from: allOf + `, region: b, endpoint: "https://b", namePrefix: a}`, refused: []string{allOf + `, endpoint: "https://b", namePrefix: a}`},
	},
	{rule: rule{qp, ".spec.region", "region is immutable"}, from: allOf + `, region: a}`, accepted: []string{allOf + `, region: a, allowPolicies: true}`}, refused: []string{allOf + `, region: b}`}},
	{rule: rule{qp, ".spec.endpoint", "endpoint is immutable"}, from: allOf + `, endpoint: "https://a"}`, accepted: []string{allOf + `, endpoint: "https://a", allowPolicies: true}`}, refused: []string{allOf + `, endpoint: "https://b"}`}},
	{
		rule:     rule{qp, ".spec.endpoint", "endpoint must be an http or https URL"},
		accepted: []string{allOf + `, endpoint: "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com"}`, allOf + `, endpoint: "http://localhost:4566"}`},
		refused:  []string{allOf + `, endpoint: "ftp://x"}`, allOf + `, endpoint: "sqs.eu-west-1.amazonaws.com"}`},
	},
	{
		rule:     rule{qp, ".spec.allowedQueueNames", "between ${namespace} and a *"},
		accepted: []string{allOf + `, allowedQueueNames: ["${namespace}_*", "x-${namespace}-y", "*_${namespace}", "a*b_${namespace}-x", "${namespace}-x_*y*", "orders-*", "*"]}`},
		refused: []string{
			allOf + `, allowedQueueNames: ["${namespace}-*"]}`, allOf + `, allowedQueueNames: ["${namespace}*"]}`, allOf + `, allowedQueueNames: ["*-${namespace}"]}`,
			allOf + `, allowedQueueNames: ["*${namespace}_*"]}`, allOf + `, allowedQueueNames: ["*_${namespace}_*"]}`, allOf + `, allowedQueueNames: ["good", "${namespace}-x*_y"]}`,
		},
	},
	{
		rule:     rule{qp, ".spec.namespaces", "an operator of a selector"},
		accepted: []string{`{namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: In, values: [b]}, {key: a, operator: Exists}]}}}`},
		refused: []string{
			`{namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}}`,
			`{namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: In}]}}}`,
		},
	},
	{rule: rule{qp, ".spec.namePrefix", "namePrefix is immutable"}, from: allOf + `, namePrefix: a}`, accepted: []string{allOf + `, namePrefix: a, allowPolicies: true}`}, refused: []string{allOf + `, namePrefix: b}`}},
	{
		rule: rule{qp, ".spec.roleARN", "roleARN is immutable"}, from: allOf + `, roleARN: "arn:aws:iam::111122223333:role/a"}`,
		accepted: []string{allOf + `, roleARN: "arn:aws:iam::111122223333:role/a", allowPolicies: true}`}, refused: []string{allOf + `, roleARN: "arn:aws:iam::444422223333:role/a"}`},
	},
	{rule: rule{qp, ".spec.namespaces", "from is All or Selector"}, accepted: []string{`{namespaces: {from: All}}`, `{namespaces: {from: Selector, selector: {}}}`}, refused: []string{`{namespaces: {from: Same}}`}},
	{
		rule:     rule{qp, ".spec.namespaces", "selector is required with from: Selector"},
		accepted: []string{`{namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}`}, refused: []string{`{namespaces: {from: Selector}}`, `{namespaces: {from: All, selector: {}}}`},
	},

	{rule: rule{rq, ".spec", "a ReplyQueue is a record and immutable"}, from: record, accepted: []string{record}, refused: []string{strings.Replace(record, "drainSeconds: 0", "drainSeconds: 1", 1)}},

	tagged(channel, ".spec.tags", tagKey), tagged(channel, ".spec.tags", tagRule), tagged(channel, ".spec.tags", tagAlpha),
	tagged(host, ".spec.tags", tagKey), tagged(host, ".spec.tags", tagRule), tagged(host, ".spec.tags", tagAlpha),
	tagged(qp, ".spec.defaultTags", tagKey), tagged(qp, ".spec.defaultTags", tagRule), tagged(qp, ".spec.defaultTags", tagAlpha),
	tagged(rq, ".spec.tags", tagKey), tagged(rq, ".spec.tags", tagRule), tagged(rq, ".spec.tags", tagAlpha),
}

// tagged is a case of one of the rules on tags, which four kinds share.
func tagged(kind, path, message string) ruleCase {
	frame := map[string]string{
		channel: `{tags: {%}}`, host: `{tags: {%}}`, qp: `{namespaces: {from: All}, defaultTags: {%}}`, rq: strings.TrimSuffix(record, "}") + `, tags: {%}}`,
	}[kind]
	all := func(tags ...string) []string {
		specs := make([]string, len(tags))
		for i, tag := range tags {
			specs[i] = strings.Replace(frame, "%", tag, 1)
		}
		return specs
	}
	c := ruleCase{rule: rule{kind, path, message}}
	switch message {
	case tagKey:
		c.accepted, c.refused = all(strings.Repeat("k", 128)+": v"), all(strings.Repeat("k", 129)+": v", `"": v`)
	case tagAlpha:
		c.accepted = all(`"Kosten Stelle_.:/=+-@9": "Zürich 東京 _.:/=+-@"`, `k: ""`)
		c.refused = all(`"a,b": v`, `"a*": v`, `"a#b": v`, `"a\nb": v`, `"(a)": v`)
	case tagRule:
		c.accepted = all("kubernetes: v", "awsome: v", "replyqueue.development: v", "team: v, Team: w")
		c.refused = all(`"aws:x": v`, `"AWS:x": v`, "replyqueue.dev/cluster: v", "replyqueue.dev/adoptable-by: v", "ReplyQueue.dev/kind: v",
			"kubernetes-pod-uid: v", "Kubernetes-Namespace: v", "__AmazonSQSVirtualQueuesClient: v", "__IdleQueueSweeper: v", "__idlequeue: v")
	}
	return c
}

const record = `{hostRef: {name: h}, podRef: {name: p, uid: u}, identity: Pod, heartbeat: Lease, providerRef: {name: default}, heartbeatIntervalSeconds: 60, idleRetentionSeconds: 600, drainSeconds: 0}`

// TestRules holds every CEL rule of the CRDs against what it must let pass and what it must refuse, on a real API
// server, and fails for a rule that has not both.
func TestRules(t *testing.T) {
	c := apiServer(t)
	ctx := context.Background()
	rules, _ := readCRDs(t)
	accepted, refused := map[rule]int{}, map[rule]int{}
	for _, tc := range ruleCases {
		about := theRule(t, rules, tc.rule)
		t.Run(tc.kind+tc.path+" "+tc.message, func(t *testing.T) {
			offer := func(spec string) error {
				u := manifest(t, tc.kind, tc.name, spec)
				if tc.from == "" {
					return c.Create(ctx, u, client.DryRunAll)
				}
				before := manifest(t, tc.kind, tc.name, tc.from)
				if err := c.Create(ctx, before); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := c.Delete(ctx, before); err != nil {
						t.Error(err)
					}
				}()
				u.SetName(before.GetName())
				u.SetResourceVersion(before.GetResourceVersion())
				return c.Update(ctx, u, client.DryRunAll)
			}
			for _, spec := range tc.accepted {
				if err := offer(spec); err != nil {
					t.Errorf("%s is refused: %v", spec, err)
				} else {
					accepted[about]++
				}
			}
			for _, spec := range tc.refused {
				if checkRefusal(t, spec, offer(spec), about.path, about.message) {
					refused[about]++
				}
			}
		})
	}
	// The status is the operator's to write; TestClosingIsIrreversible shows its one rule.
	for _, r := range rules {
		if r.path != ".status" && (accepted[r] == 0 || refused[r] == 0) {
			t.Errorf("%s%s: %q has %d accepted and %d refused specs, and needs one of each", r.kind, r.path, r.message, accepted[r], refused[r])
		}
	}
}

// theRule is the one rule at the path whose message contains the words.
func theRule(t *testing.T, rules []rule, about rule) rule {
	t.Helper()
	var found []rule
	for _, r := range rules {
		if r.kind == about.kind && r.path == about.path && strings.Contains(r.message, about.message) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d rules of %s%s say %q", len(found), about.kind, about.path, about.message)
	}
	return found[0]
}

var index = regexp.MustCompile(`\[[^]]*\]`)

// checkRefusal reports whether err refuses a spec for one reason alone: at the path, in the words.
func checkRefusal(t *testing.T, spec string, err error, path, words string) bool {
	t.Helper()
	causes := causes(err)
	if len(causes) == 0 {
		t.Errorf("%s is not refused with %q: %v", spec, words, err)
		return false
	}
	// A second cause says that CEL rules were not looked at, since the schema was violated already.
	if len(causes) != 1 || !strings.Contains(causes[0].Message, words) || fieldOf(causes[0]) != path {
		t.Errorf("%s is refused with %v, want %q at %q alone", spec, causes, words, path)
		return false
	}
	return true
}

// causes are what the API server names in a refusal.
func causes(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}

// fieldOf is a cause's field as a path of the schema.
func fieldOf(cause metav1.StatusCause) string {
	if cause.Field == "<nil>" || cause.Field == "" {
		return ""
	}
	return "." + index.ReplaceAllString(cause.Field, "[*]")
}

// TestClosingIsIrreversible shows that no write can open a closed reply queue again.
func TestClosingIsIrreversible(t *testing.T) {
	c := apiServer(t)
	ctx := context.Background()
	q := &v1alpha1.ReplyQueue{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(manifest(t, rq, "closing", record).Object, q); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(ctx, q); err != nil {
		t.Fatal(err)
	}
	q.Status.State = v1alpha1.ReplyQueueClosing
	q.Status.Closing = &v1alpha1.Closing{Reason: v1alpha1.CloseIdle, Time: metav1.Now()}
	if err := c.Status().Update(ctx, q); err != nil {
		t.Fatal(err)
	}
	reopened, rewritten := q.DeepCopy(), q.DeepCopy()
	reopened.Status.Closing = nil
	rewritten.Status.Closing.Reason = v1alpha1.ClosePodGone
	for _, changed := range []*v1alpha1.ReplyQueue{reopened, rewritten} {
		checkRefusal(t, "status", c.Status().Update(ctx, changed), ".status", "closing is irreversible")
	}
	q.Status.QueueURL = "https://sqs/1/q"
	if err := c.Status().Update(ctx, q); err != nil {
		t.Errorf("the rest of a closed queue's status is refused: %v", err)
	}
}

// manifest is an object with a spec in YAML. Without a name it gets one of its own when it is created.
func manifest(t *testing.T, kind, name, spec string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	var content any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(spec, "\t", " ")), &content); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	u.Object = map[string]any{"spec": content}
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetKind(kind)
	u.SetName(name)
	if name == "" {
		u.SetGenerateName("t-")
	}
	if kind != qp {
		u.SetNamespace("default")
	}
	return u
}

// apiServer is a client of the API server that this package's tests share.
func apiServer(t *testing.T) client.Client {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var control *envtest.Environment

var shared = sync.OnceValues(func() (client.Client, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	control = &envtest.Environment{CRDDirectoryPaths: []string{crdFolder}, ErrorIfCRDPathMissing: true}
	config, err := control.Start()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
})

func TestMain(m *testing.M) {
	code := m.Run()
	if control != nil {
		if err := control.Stop(); err != nil {
			println("could not stop the API server:", err.Error())
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
