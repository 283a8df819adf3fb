package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// citation is the evidence for a check that ours passes and no stranger does: where it is from, in the form of a check's
// source, and what is to be found there.
type citation struct{ from, says string }

// citations are the evidence for exactly those checks that every list in known/ has.
var citations = map[string]citation{
	"attributes/forbidden-characters": {
		"recorded test_invalid_string_attributes_cause_invalid_parameter_value_error", "U+0008 and U+000B in a String value: InvalidParameterValue",
	},
	"attributes/names": {
		"API ReceiveMessage, MessageAttributeNames; recorded test_send_message_with_invalid_string_attributes",
		"the name can be up to 256 characters long, must not start with AWS. or Amazon. in any casing, nor start or end with a period; the recorded test sends each kind",
	},
	"batch/send/one-entry-with-bad-characters": {
		"recorded test_batch_send_with_invalid_char_should_succeed", "of ten entries, the one with U+0001 is in Failed with InvalidMessageContents",
	},
	"create/DelaySeconds/beyond":                  {"API CreateQueue, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400; DelaySeconds is 0 to 900"},
	"create/MaximumMessageSize/beyond":            {"API CreateQueue, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400; MaximumMessageSize is 1,024 to 1,048,576"},
	"create/MessageRetentionPeriod/beyond":        {"API CreateQueue, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400; MessageRetentionPeriod is 60 to 1,209,600"},
	"create/ReceiveMessageWaitTimeSeconds/beyond": {"API CreateQueue, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400; ReceiveMessageWaitTimeSeconds is 0 to 20"},
	"create/VisibilityTimeout/beyond":             {"API CreateQueue, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400; VisibilityTimeout is 0 to 43,200"},
	"create/throughput-per-group-needs-scope": {
		"API CreateQueue, FifoThroughputLimit; API CreateQueue, Errors", "perMessageGroupId is allowed only when DeduplicationScope is messageGroup; a queue attribute value is invalid: InvalidAttributeValue, 400",
	},
	"create/fifo-again-different": {
		"recorded test_create_fifo_queue_with_different_attributes_raises_error", "QueueAlreadyExists for ContentBasedDeduplication false after true",
	},
	"dead-letter/fifo-deduplication-id": {
		"recorded awsdocs/amazon-sqs-developer-guide#54", "a user's report of what AWS does, taken into the guide: in the dead-letter queue, the deduplication ID is the original message's ID",
	},
	"dead-letter/keeps-the-message": {
		"recorded test_dead_letter_queue_message_attributes", "message ID, attributes and SentTimestamp stay; DeadLetterQueueSourceArn is set",
	},
	"delete/no-handle-is-404": {
		"recorded awslabs/amazon-sqs-java-extended-client-lib#16", "Status Code: 404; Error Code: ReceiptHandleIsInvalid. So spulec/PyQS#24, and httpError in the API model",
	},
	"fifo/attempt-after-a-change": {
		"recorded awslabs/amazon-sqs-java-messaging-lib#101",
		"InvalidParameterValue, 400: The receiveRequestAttemptId is not valid anymore since the receive call is not retryable. So #213 there, and aws/aws-sdk-java#2613",
	},
	"fifo/bad-ids":                {"recorded test_message_deduplication_id_invalid", "empty, 129 letters, and a blank: InvalidParameterValue, 400"},
	"fifo/dedup-for-five-minutes": {"API SendMessage, MessageDeduplicationId", "a deduplication ID is remembered for five minutes from the send"},
	"fifo/dedup-outlives-the-message": {
		"recorded test_fifo_deduplication_arrives_once_after_delete", "a second send after the delete answers success, and nothing can be received",
	},
	"fifo/extended-message-locks-what-follows/1": {
		"recorded test_fifo_group_visibility_extends_with_change_message_visibility", "the second of three extended: the first comes, the others do not",
	},
	"fifo/extended-message-locks-what-follows/2": {
		"recorded test_fifo_group_visibility_extends_with_change_message_visibility", "the third of three extended: the first two come",
	},
	"fifo/same-attempt-same-messages": {
		"API ReceiveMessage, ReceiveRequestAttemptId", "within five minutes, the same ID gets the same messages and receipt handles while none was deleted or changed",
	},
	"fifo/sequence-rises":           {"recorded test_fifo_sequence_number_increases", "three sends, three rising numbers"},
	"fifo/turns/deleted":            {"recorded test_fifo_message_group_visibility_after_delete", "g2-m1 g2-m2 g1-m3 g1-m4 g3-m1, marked as AWS's order"},
	"fifo/turns/deleted-in-part":    {"recorded test_fifo_message_group_visibility_after_partial_delete", "g2-m1 g2-m2 g3-m1: the first group stays locked"},
	"fifo/turns/timeout-changed":    {"recorded test_fifo_message_group_visibility_after_change_message_visibility", "g2-m1 g1-m1: the group that comes back is behind the other"},
	"fifo/turns/timeout-shared":     {"recorded test_fifo_receive_message_visibility_timeout_shared_in_group", "g3-m1 g1-m1 g1-m2 g1-m3 g1-m4 g2-m1, marked as AWS's order"},
	"fifo/turns/timeout-terminated": {"recorded test_fifo_message_group_visibility_after_terminate_visibility_timeout", "g2-m1 g1-m1: the group that comes back is behind the other"},
	"fifo/turns/zero-visibility":    {"recorded test_fifo_receive_message_with_zero_visibility_timeout", "g3-m1 g1-m1 g1-m2 g2-m1 g2-m2: those received go behind"},
	"policy/no-json":                {"recorded hashicorp/terraform-provider-aws#42209", "InvalidAttributeValue, 400: Invalid value for the parameter Policy. The policy there is JSON that AWS cannot take"},
	"redrive-allow/by-queue":        {"API CreateQueue, RedriveAllowPolicy", "byQueue: only queues of sourceQueueArns can name it as their dead-letter queue"},
	"redrive-allow/deny-all":        {"API CreateQueue, RedriveAllowPolicy", "denyAll: no source queue can name it as its dead-letter queue"},
	"redrive-policy/same-kind": {
		"recorded awslabs/aws-solutions-constructs#342", "for parameter RedrivePolicy is invalid. Reason: Dead-letter queue must be same type of queue as the source. So cfn-lint#3950",
	},
	"send/forbidden-characters": {"recorded test_send_message_with_invalid_payload_characters", "U+0000, U+0008, U+0013 and U+FFFF: InvalidMessageContents"},
	"send/quiet-group-before-a-noisy-one": {
		"API SendMessage, MessageGroupId; guide how fair queues work",
		"on standard queues MessageGroupId names the tenant, and keeps the dwell time of others consistent (API); noisy: at least 30 in flight, and more than 10 % of the queue's; quiet groups' messages go first (guide)",
	},
	"set/fifo-to-standard":             {"recorded test_set_unsupported_attribute_fifo", "InvalidAttributeValue, 400: Modifying queue type is not supported."},
	"set/out-of-range-changes-nothing": {"API SetQueueAttributes, Errors", "a queue attribute value is invalid: InvalidAttributeValue, 400"},
	"visibility/of-a-deleted-message": {
		"recorded test_change_visibility_on_deleted_message_raises_invalid_parameter_value",
		"InvalidParameterValue: Message does not exist or is not available for visibility timeout change. So aws/aws-sdk-net#1927",
	},
}

// TestWhatNobodyElsePassesIsCited keeps our server from agreeing with nobody but itself: what all lists of known
// differences have needs evidence, and nothing else does. That the lists are true, TestServers proves.
func TestWhatNobodyElsePassesIsCited(t *testing.T) {
	lists, err := filepath.Glob(filepath.Join("known", "*.txt"))
	if err != nil || len(lists) < 2 {
		t.Fatalf("%d lists of known differences: %v", len(lists), err)
	}
	alone := map[string]int{}
	for _, list := range lists {
		for name := range readKnown(t, strings.TrimSuffix(filepath.Base(list), ".txt")) {
			alone[name]++
		}
	}
	for name, n := range alone {
		if c, ok := citations[name]; n == len(lists) && (!ok || c.says == "") {
			t.Errorf("%s: no stranger passes it, and there is no evidence for it in citations", name)
		}
	}
	for name, c := range citations {
		if alone[name] < len(lists) {
			t.Errorf("%s: a stranger passes it, or there is no such check: it needs no citation", name)
		}
		if err := checkSource(c.from); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !isEvidence(c.from) {
			t.Errorf("%s: %q is neither a section of the API reference nor a recorded answer", name, c.from)
		}
	}
}

// TestOursHasNoKnownDifferences keeps a list for our own server from appearing unnoticed.
func TestOursHasNoKnownDifferences(t *testing.T) {
	if _, err := os.Stat(filepath.Join("known", "sqstest.txt")); err == nil {
		t.Error("known/sqstest.txt: our server has to pass everything")
	}
}
