package queue

import (
	"maps"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Names of SQS's attributes, as CreateQueue and SetQueueAttributes take them.
const (
	VisibilityTimeout         = string(types.QueueAttributeNameVisibilityTimeout)
	MessageRetentionPeriod    = string(types.QueueAttributeNameMessageRetentionPeriod)
	MaximumMessageSize        = string(types.QueueAttributeNameMaximumMessageSize)
	ReceiveMessageWaitTime    = string(types.QueueAttributeNameReceiveMessageWaitTimeSeconds)
	DelaySeconds              = string(types.QueueAttributeNameDelaySeconds)
	FIFOQueue                 = string(types.QueueAttributeNameFifoQueue)
	ContentBasedDeduplication = string(types.QueueAttributeNameContentBasedDeduplication)
	DeduplicationScope        = string(types.QueueAttributeNameDeduplicationScope)
	FIFOThroughputLimit       = string(types.QueueAttributeNameFifoThroughputLimit)
	KMSMasterKeyID            = string(types.QueueAttributeNameKmsMasterKeyId)
	KMSDataKeyReusePeriod     = string(types.QueueAttributeNameKmsDataKeyReusePeriodSeconds)
	SQSManagedSSE             = string(types.QueueAttributeNameSqsManagedSseEnabled)
	Policy                    = string(types.QueueAttributeNamePolicy)
	RedrivePolicy             = string(types.QueueAttributeNameRedrivePolicy)
	RedriveAllowPolicy        = string(types.QueueAttributeNameRedriveAllowPolicy)
	QueueARN                  = string(types.QueueAttributeNameQueueArn)
	CreatedTimestamp          = string(types.QueueAttributeNameCreatedTimestamp)
)

// leastRetention is SQS's lower limit of MessageRetentionPeriod, in seconds.
const leastRetention = 60

// ReplyQueueAttributes are the SQS attributes of a ReplyHost's reply queues. Replies are kept for 300 seconds
// unless the host says otherwise, and with identity Stable for its idle retention, but never for less than the
// 60 seconds that SQS allows.
func ReplyQueueAttributes(host *v1alpha1.ReplyHost) map[string]string {
	spec := &host.Spec
	var own v1alpha1.ReplyQueueAttributes
	if spec.Queue != nil {
		own = *spec.Queue
	}
	retention := int32(v1alpha1.DefaultReplyRetentionSeconds)
	if spec.Identity == v1alpha1.IdentityStable {
		retention = v1alpha1.DefaultIdleRetentionSeconds
		if spec.IdleRetentionSeconds != nil {
			retention = max(leastRetention, *spec.IdleRetentionSeconds)
		}
	}
	attributes := map[string]string{MessageRetentionPeriod: decimal(retention)}
	setNumber(attributes, MessageRetentionPeriod, own.MessageRetentionSeconds)
	setNumber(attributes, VisibilityTimeout, own.VisibilityTimeoutSeconds)
	setNumber(attributes, MaximumMessageSize, own.MaximumMessageBytes)
	setNumber(attributes, ReceiveMessageWaitTime, own.ReceiveWaitSeconds)
	maps.Copy(attributes, encryptionAttributes(spec.Encryption))
	return attributes
}

func encryptionAttributes(encryption *v1alpha1.Encryption) map[string]string {
	if encryption == nil {
		return nil
	}
	switch encryption.Type {
	case v1alpha1.EncryptionKMS:
		attributes := map[string]string{KMSMasterKeyID: encryption.KMSKeyID}
		setNumber(attributes, KMSDataKeyReusePeriod, encryption.DataKeyReuseSeconds)
		return attributes
	case v1alpha1.EncryptionNone:
		return map[string]string{SQSManagedSSE: "false"}
	default:
		return map[string]string{SQSManagedSSE: "true"}
	}
}

func setNumber(attributes map[string]string, name string, value *int32) {
	if value != nil {
		attributes[name] = decimal(*value)
	}
}

func decimal(n int32) string { return strconv.FormatInt(int64(n), 10) }
