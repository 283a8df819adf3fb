package v1alpha1_test

import (
	"context"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// object is one manifest offered to the API server. want is a part of the refusal, or "" when it must be
// accepted; then, where there is an update, it is applied over it and wantUpdate is a part of that refusal.
type object struct {
	name, kind, spec, want string
	update, wantUpdate     string
}

var objects = []object{
	{name: "least", kind: "RequestChannel", spec: `{}`},
	{name: "dotted.name", kind: "RequestChannel", spec: `{}`, want: "DNS label"},
	{name: "full", kind: "RequestChannel", spec: `{queue: {visibilityTimeoutSeconds: 43200, messageRetentionSeconds: 60, maximumMessageBytes: 1024, receiveWaitSeconds: 20, delaySeconds: 900},
		encryption: {type: KMS, kmsKeyID: alias/x, dataKeyReuseSeconds: 60}, deadLetter: {maxReceiveCount: 3, queue: {}}, tags: {team: a}, allowedCallers: {from: Selector, selector: {matchLabels: {a: b}}},
		call: {timeoutSeconds: 5}, deletionPolicy: DeleteIfEmpty, adoptionPolicy: IfConsented, extraAttributes: {NewThing: "1"}}`},
	{name: "visibility", kind: "RequestChannel", spec: `{queue: {visibilityTimeoutSeconds: 50000}}`, want: "spec.queue.visibilityTimeoutSeconds"},
	{name: "retention", kind: "RequestChannel", spec: `{queue: {messageRetentionSeconds: 59}}`, want: "spec.queue.messageRetentionSeconds"},
	{name: "size", kind: "RequestChannel", spec: `{queue: {maximumMessageBytes: 1048577}}`, want: "spec.queue.maximumMessageBytes"},
	{name: "wait", kind: "RequestChannel", spec: `{queue: {receiveWaitSeconds: 21}}`, want: "spec.queue.receiveWaitSeconds"},
	{name: "delay", kind: "RequestChannel", spec: `{queue: {delaySeconds: 901}}`, want: "spec.queue.delaySeconds"},
	{name: "kms-no-key", kind: "RequestChannel", spec: `{encryption: {type: KMS}}`, want: "kmsKeyID is required"},
	{name: "key-no-kms", kind: "RequestChannel", spec: `{encryption: {type: SQSManaged, kmsKeyID: k}}`, want: "kmsKeyID is required"},
	{name: "reuse-no-kms", kind: "RequestChannel", spec: `{encryption: {type: None, dataKeyReuseSeconds: 60}}`, want: "dataKeyReuseSeconds goes with type KMS"},
	{name: "dlq-none", kind: "RequestChannel", spec: `{deadLetter: {maxReceiveCount: 1}}`, want: "exactly one of queue, channelRef and arn"},
	{name: "dlq-two", kind: "RequestChannel", spec: `{deadLetter: {maxReceiveCount: 1, queue: {}, channelRef: {name: a}}}`, want: "exactly one of queue, channelRef and arn"},
	{name: "dlq-arn", kind: "RequestChannel", spec: `{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sns:eu-west-1:123456789012:x"}}`, want: "spec.deadLetter.arn"},
	{name: "dlq-count", kind: "RequestChannel", spec: `{deadLetter: {maxReceiveCount: 1001, queue: {}}}`, want: "maxReceiveCount"},
	{name: "tag-owner", kind: "RequestChannel", spec: `{tags: {"replyqueue.dev/cluster": x}}`, want: "carry ownership"},
	{name: "tag-pod", kind: "RequestChannel", spec: `{tags: {kubernetes-pod-uid: x}}`, want: "carry ownership"},
	{name: "tag-aws", kind: "RequestChannel", spec: `{tags: {"aws:x": x}}`, want: "carry ownership"},
	{name: "tag-long", kind: "RequestChannel", spec: `{tags: {a: "` + strings.Repeat("v", 257) + `"}}`, want: "at most 256"},
	{name: "extra-policy", kind: "RequestChannel", spec: `{extraAttributes: {Policy: "{}"}}`, want: "field of its own"},
	{name: "callers-no-selector", kind: "RequestChannel", spec: `{allowedCallers: {from: Selector}}`, want: "selector is required"},
	{name: "callers-selector", kind: "RequestChannel", spec: `{allowedCallers: {from: All, selector: {}}}`, want: "selector is required"},
	{name: "fifo-limit", kind: "RequestChannel", spec: `{fifo: {throughputLimit: PerMessageGroupID}}`, want: "deduplicationScope MessageGroup"},
	{name: "fifo-name", kind: "RequestChannel", spec: `{fifo: {}, queueName: a}`, want: "ends in .fifo exactly when"},
	{name: "fifo-name-2", kind: "RequestChannel", spec: `{queueName: a.fifo}`, want: "ends in .fifo exactly when"},
	{name: "fifo-add", kind: "RequestChannel", spec: `{}`, update: `{fifo: {}}`, wantUpdate: "fifo cannot be added or removed"},
	{name: "fifo-change", kind: "RequestChannel", spec: `{fifo: {}}`, update: `{fifo: {contentBasedDeduplication: Enabled}}`},
	{name: "name-change", kind: "RequestChannel", spec: `{queueName: a}`, update: `{queueName: b}`, wantUpdate: "queueName is immutable"},
	{name: "name-add", kind: "RequestChannel", spec: `{}`, update: `{queueName: b}`, wantUpdate: "queueName cannot be added"},
	{name: "provider-change", kind: "RequestChannel", spec: `{providerRef: {name: a}}`, update: `{providerRef: {name: b}}`, wantUpdate: "providerRef is immutable"},
	{name: "provider-add", kind: "RequestChannel", spec: `{}`, update: `{providerRef: {name: b}}`, wantUpdate: "providerRef cannot be added"},
	{name: "binding", kind: "RequestChannel", spec: `{binding: {secretName: s}}`, want: "binding is reserved"},
	{name: "observe-delete", kind: "RequestChannel", spec: `{managementPolicy: Observe, deletionPolicy: Delete}`, want: "never deleted"},

	{name: "host", kind: "ReplyHost", spec: `{}`},
	{name: "host-full", kind: "ReplyHost", spec: `{identity: Stable, idleRetentionSeconds: 60, heartbeat: {intervalSeconds: 12}, drainSeconds: 0, maxQueues: 5, queue: {messageRetentionSeconds: 60}}`},
	{name: "host-few-beats", kind: "ReplyHost", spec: `{idleRetentionSeconds: 60, heartbeat: {intervalSeconds: 13}}`, want: "five times"},
	{name: "host-default-beats", kind: "ReplyHost", spec: `{idleRetentionSeconds: 299}`, want: "five times"},
	{name: "host-stable-retention", kind: "ReplyHost", spec: `{identity: Stable, queue: {messageRetentionSeconds: 300}}`, want: "messageRetentionSeconds must be at least"},
	{name: "host-identity", kind: "ReplyHost", spec: `{}`, update: `{identity: Stable}`, wantUpdate: "identity is immutable"},
	{name: "host-identity-default", kind: "ReplyHost", spec: `{}`, update: `{identity: Pod}`},
	{name: "host-provider", kind: "ReplyHost", spec: `{providerRef: {name: a}}`, update: `{}`, wantUpdate: "providerRef cannot be"},
	{name: "host-provider-change", kind: "ReplyHost", spec: `{providerRef: {name: a}}`, update: `{providerRef: {name: b}}`, wantUpdate: "providerRef is immutable"},

	{name: "p", kind: "QueueProvider", spec: `{namespaces: {from: All}, region: eu-west-1, endpoint: "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com", allowedQueueNames: ["legacy-*", "${namespace}_*"], namePrefix: rq}`},
	{name: "p-same", kind: "QueueProvider", spec: `{namespaces: {from: Same}}`, want: "from is All or Selector"},
	{name: "p-selector", kind: "QueueProvider", spec: `{namespaces: {from: Selector}}`, want: "selector is required"},
	{name: "p-endpoint", kind: "QueueProvider", spec: `{namespaces: {from: All}, endpoint: "ftp://x"}`, want: "http or https"},
	{name: "p-prefix", kind: "QueueProvider", spec: `{namespaces: {from: All}, namePrefix: a_b}`, want: "namePrefix"},
	{name: "p-pattern", kind: "QueueProvider", spec: `{namespaces: {from: All}, allowedQueueNames: ["a b"]}`, want: "allowedQueueNames"},
	{name: "p-region", kind: "QueueProvider", spec: `{namespaces: {from: All}, region: a}`, update: `{namespaces: {from: All}, region: b}`, wantUpdate: "region is immutable"},
	{name: "p-endpoint-change", kind: "QueueProvider", spec: `{namespaces: {from: All}, endpoint: "https://a"}`, update: `{namespaces: {from: All}, endpoint: "https://b"}`, wantUpdate: "endpoint is immutable"},
	{name: "p-endpoint-add", kind: "QueueProvider", spec: `{namespaces: {from: All}}`, update: `{namespaces: {from: All}, endpoint: "https://b"}`, wantUpdate: "cannot be added or removed"},
	{name: "p-role-change", kind: "QueueProvider", spec: `{namespaces: {from: All}, roleARN: "arn:aws:iam::111122223333:role/a"}`, update: `{namespaces: {from: All}, roleARN: "arn:aws:iam::444422223333:role/a"}`, wantUpdate: "roleARN is immutable"},
	{name: "p-region-add", kind: "QueueProvider", spec: `{namespaces: {from: All}}`, update: `{namespaces: {from: All}, region: b}`, wantUpdate: "cannot be added or removed"},
	{name: "p-prefix-change", kind: "QueueProvider", spec: `{namespaces: {from: All}, namePrefix: a}`, update: `{namespaces: {from: All}, namePrefix: b}`, wantUpdate: "namePrefix is immutable"},

	{name: "q", kind: "ReplyQueue", spec: record, update: strings.Replace(record, "drainSeconds: 0", "drainSeconds: 1", 1), wantUpdate: "a ReplyQueue is a record and immutable"},
}

const record = `{hostRef: {name: h}, podRef: {name: p, uid: u}, identity: Pod, heartbeat: Lease, providerRef: {name: default}, heartbeatIntervalSeconds: 60, idleRetentionSeconds: 600, drainSeconds: 0}`

// TestValidation offers every rule of the CRDs an object to accept and one to refuse, on a real API server.
func TestValidation(t *testing.T) {
	c := startAPIServer(t)
	for _, o := range objects {
		t.Run(o.kind+"/"+o.name, func(t *testing.T) {
			u := o.unstructured(t, o.spec)
			err := c.Create(context.Background(), u)
			expect(t, err, o.want)
			if err != nil || o.update == "" {
				return
			}
			u.Object["spec"] = o.unstructured(t, o.update).Object["spec"]
			expect(t, c.Update(context.Background(), u), o.wantUpdate)
		})
	}
}

// TestClosingIsIrreversible shows that no write can open a closed reply queue again.
func TestClosingIsIrreversible(t *testing.T) {
	c := startAPIServer(t)
	ctx := context.Background()
	q := &v1alpha1.ReplyQueue{}
	u := object{name: "closing", kind: "ReplyQueue"}.unstructured(t, record)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, q); err != nil {
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
	reopened := q.DeepCopy()
	reopened.Status.Closing = nil
	expect(t, c.Status().Update(ctx, reopened), "closing is irreversible")
	rewritten := q.DeepCopy()
	rewritten.Status.Closing.Reason = v1alpha1.ClosePodGone
	expect(t, c.Status().Update(ctx, rewritten), "closing is irreversible")
}

func (o object) unstructured(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	var fields any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(spec, "\t", " ")), &fields); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	u.Object = map[string]any{"spec": fields}
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetKind(o.kind)
	u.SetName(o.name)
	if o.kind != "QueueProvider" {
		u.SetNamespace("default")
	}
	return u
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want != "" && err == nil:
		t.Fatalf("accepted, but should be refused with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("refused with %v, want %q", err, want)
	}
}

func startAPIServer(t *testing.T) client.Client {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	env := &envtest.Environment{CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
