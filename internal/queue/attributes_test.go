package queue

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Every attribute that the SDK knows either has a field of its own, or is one that SQS reports and nobody sets. One that
// AWS adds fails here, until it has a field; meanwhile spec.extraAttributes takes it.
func TestEveryAttributeHasAField(t *testing.T) {
	reported := map[types.QueueAttributeName]bool{
		types.QueueAttributeNameAll: true, types.QueueAttributeNameQueueArn: true,
		types.QueueAttributeNameCreatedTimestamp: true, types.QueueAttributeNameLastModifiedTimestamp: true,
		types.QueueAttributeNameApproximateNumberOfMessages: true, types.QueueAttributeNameApproximateNumberOfMessagesDelayed: true,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: true,
	}
	for _, name := range types.QueueAttributeName("").Values() {
		if field := FieldOf(string(name)); strings.HasPrefix(field, "spec.extraAttributes") != reported[name] {
			t.Errorf("%s: field %s, and reported is %t", name, field, reported[name])
		}
		if !reported[name] && name != types.QueueAttributeNameFifoQueue && !HasDefault(string(name)) {
			t.Errorf("%s can be set, and its default is not known: unsetting it restores nothing", name)
		}
	}
}

// A spec that sets every field sends every attribute.
func TestEveryFieldIsSent(t *testing.T) {
	n := func(n int32) *int32 { return &n }
	channel := &v1alpha1.RequestChannel{Spec: v1alpha1.RequestChannelSpec{
		FIFO: &v1alpha1.FIFO{
			ContentBasedDeduplication: v1alpha1.ContentBasedDeduplicationEnabled, DeduplicationScope: v1alpha1.DeduplicationScopeMessageGroup,
			ThroughputLimit: v1alpha1.FIFOThroughputPerMessageGroupID,
		},
		Queue: &v1alpha1.QueueAttributes{
			VisibilityTimeoutSeconds: n(1), MessageRetentionSeconds: n(60), MaximumMessageBytes: n(1024), ReceiveWaitSeconds: n(2), DelaySeconds: n(3),
		},
		Encryption:      &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "k", DataKeyReuseSeconds: n(60)},
		DeadLetter:      &v1alpha1.DeadLetter{MaxReceiveCount: 4, Queue: &v1alpha1.DeadLetterQueue{MessageRetentionSeconds: n(61)}},
		DeadLettersFrom: &v1alpha1.DeadLettersFrom{Permission: v1alpha1.DeadLetterPermissionNone},
		Policy:          "{}",
		ExtraAttributes: map[string]string{"NextYears": "5"},
	}}
	p := &Provider{Prefix: "rq", Cluster: "c"}
	got := p.RequestQueue(channel, "arn:dlq")
	want := map[string]string{
		VisibilityTimeout: "1", MessageRetentionPeriod: "60", MaximumMessageSize: "1024", ReceiveMessageWaitTime: "2", DelaySeconds: "3",
		ContentBasedDeduplication: "true", DeduplicationScope: "messageGroup", FIFOThroughputLimit: "perMessageGroupId",
		KMSMasterKeyID: "k", KMSDataKeyReusePeriod: "60", Policy: "{}", "NextYears": "5",
		RedrivePolicy: `{"deadLetterTargetArn":"arn:dlq","maxReceiveCount":4}`, RedriveAllowPolicy: `{"redrivePermission":"denyAll"}`,
	}
	for name, value := range want {
		if got.Attributes[name] != value {
			t.Errorf("%s is %q, want %q", name, got.Attributes[name], value)
		}
	}
	if len(got.Attributes) != len(want) || got.Fixed[FIFOQueue] != "true" {
		t.Errorf("attributes %v, fixed %v", got.Attributes, got.Fixed)
	}
	deadLetters := p.DeadLetterQueue(channel, "arn:source")
	for name, value := range map[string]string{
		MessageRetentionPeriod: "61", KMSMasterKeyID: "k", RedriveAllowPolicy: `{"redrivePermission":"byQueue","sourceQueueArns":["arn:source"]}`,
	} {
		if deadLetters.Attributes[name] != value {
			t.Errorf("dead letters: %s is %q, want %q", name, deadLetters.Attributes[name], value)
		}
	}
	if deadLetters.Fixed[FIFOQueue] != "true" {
		t.Error("the dead-letter queue of a FIFO queue is none")
	}
	channel.Spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionSQSManaged}
	if managed := p.RequestQueue(channel, "").Attributes[SQSManagedSSE]; managed != "true" {
		t.Errorf("%s is %q", SQSManagedSSE, managed)
	}
}
