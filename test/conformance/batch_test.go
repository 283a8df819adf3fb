package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const batchError = "AWS.SimpleQueueService."

func (k *kit) trySendBatch(url string, entries ...types.SendMessageBatchRequestEntry) (*sqs.SendMessageBatchOutput, error) {
	return k.c.SendMessageBatch(k.ctx, &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
}

func (k *kit) sendBatch(url string, entries ...types.SendMessageBatchRequestEntry) *sqs.SendMessageBatchOutput {
	out, err := k.trySendBatch(url, entries...)
	k.ok("SendMessageBatch", err)
	return out
}

func entry(id, body string) types.SendMessageBatchRequestEntry {
	return types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &body}
}

func numbered(n int) []types.SendMessageBatchRequestEntry {
	var all []types.SendMessageBatchRequestEntry
	for i := range n {
		all = append(all, entry(fmt.Sprint("id-", i), fmt.Sprint("body", i)))
	}
	return all
}

// badIDs are the forms that a batch entry's ID must not have.
var badIDs = []string{"", "invalid:id", strings.Repeat("x", 81)}

func batchChecks() []check {
	return []check{
		{"batch/send/ten", "API SendMessageBatch, Description", 0, func(k *kit) {
			u := k.queue(nil)
			out := k.sendBatch(u, numbered(10)...)
			equal(k, "successful", len(out.Successful), 10)
			equal(k, "failed", len(out.Failed), 0)
			k.receiveAll(u, 10)
		}},
		{"batch/send/answers-by-id", "API SendMessageBatchResultEntry, Id", 0, func(k *kit) {
			for _, e := range k.sendBatch(k.queue(nil), numbered(3)...).Successful {
				if !strings.HasPrefix(str(e.Id), "id-") || str(e.MessageId) == "" || len(str(e.MD5OfMessageBody)) != 32 {
					k.failf("%v %v %v", str(e.Id), str(e.MessageId), str(e.MD5OfMessageBody))
				}
			}
		}},
		{"batch/send/none", "API SendMessageBatch, Errors (EmptyBatchRequest)", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.SendMessageBatch(k.ctx, &sqs.SendMessageBatchInput{QueueUrl: &u, Entries: []types.SendMessageBatchRequestEntry{}})
			k.refused(err, batchError+"EmptyBatchRequest", bad)
			typed[*types.EmptyBatchRequest](k, err)
		}},
		{"batch/send/too-many", "recorded test_too_many_entries_in_batch_request", 0, func(k *kit) {
			_, err := k.trySendBatch(k.queue(nil), numbered(20)...)
			k.refused(err, batchError+"TooManyEntriesInBatchRequest", bad)
			typed[*types.TooManyEntriesInBatchRequest](k, err)
			k.contains(err, "You have sent 20")
		}},
		{"batch/send/bad-id", "recorded test_invalid_batch_id", 0, func(k *kit) {
			u := k.queue(nil)
			for _, id := range badIDs {
				_, err := k.trySendBatch(u, entry(id, "x"))
				k.refused(err, batchError+"InvalidBatchEntryId", bad)
				typed[*types.InvalidBatchEntryId](k, err)
			}
		}},
		{"batch/send/longest-id", "recorded test_invalid_batch_id (80 letters)", 0, func(k *kit) {
			equal(k, "successful", len(k.sendBatch(k.queue(nil), entry(strings.Repeat("x", 80), "x")).Successful), 1)
		}},
		{"batch/send/id-twice", "API SendMessageBatch, Errors (BatchEntryIdsNotDistinct)", 0, func(k *kit) {
			_, err := k.trySendBatch(k.queue(nil), entry("a", "x"), entry("a", "y"))
			k.refused(err, batchError+"BatchEntryIdsNotDistinct", bad)
			typed[*types.BatchEntryIdsNotDistinct](k, err)
		}},
		{"batch/send/one-mebibyte-in-all", "API SendMessageBatch, Description", 0, func(k *kit) {
			half := strings.Repeat("x", 1<<19)
			equal(k, "successful", len(k.sendBatch(k.queue(nil), entry("a", half), entry("b", half)).Successful), 2)
		}},
		{"batch/send/one-byte-more", "recorded test_send_message_batch_with_oversized_contents", 0, func(k *kit) {
			half := strings.Repeat("x", 1<<19)
			_, err := k.trySendBatch(k.queue(nil), entry("a", half), entry("b", half+"x"))
			k.refused(err, batchError+"BatchRequestTooLong", bad)
			typed[*types.BatchRequestTooLong](k, err)
			k.contains(err, "1048577")
		}},
		{"batch/send/attributes-count", "guide message metadata (name, type and value count)", 0, func(k *kit) {
			e := entry("b", strings.Repeat("x", 1<<19))
			e.MessageAttributes = map[string]types.MessageAttributeValue{"n": {DataType: aws.String("String"), StringValue: aws.String("v")}}
			_, err := k.trySendBatch(k.queue(nil), entry("a", strings.Repeat("x", 1<<19)), e)
			k.refused(err, batchError+"BatchRequestTooLong", bad)
		}},
		{"batch/send/one-entry-too-large", "recorded test_send_batch_message_size", 0, func(k *kit) {
			u := k.queue(attrs{"MaximumMessageSize": "1024"})
			out := k.sendBatch(u, entry("large", strings.Repeat("x", 1025)), entry("small", "x"))
			equal(k, "successful", len(out.Successful), 1)
			equal(k, "failed", len(out.Failed), 1)
			f := out.Failed[0]
			equal(k, "failure", fmt.Sprint(str(f.Id), " ", str(f.Code), " ", f.SenderFault), "large InvalidParameterValue true")
		}},
		{"batch/send/one-entry-with-bad-characters", "recorded test_batch_send_with_invalid_char_should_succeed", 0, func(k *kit) {
			out := k.sendBatch(k.queue(nil), entry("bad", "\x00"), entry("good", "x"))
			equal(k, "successful", len(out.Successful), 1)
			equal(k, "failed", len(out.Failed), 1)
			equal(k, "failure", fmt.Sprint(str(out.Failed[0].Code), " ", out.Failed[0].SenderFault), "InvalidMessageContents true")
		}},
		{"batch/send/own-delays", "API SendMessageBatchRequestEntry, DelaySeconds", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			late := entry("late", "late")
			late.DelaySeconds = 2
			k.sendBatch(u, late, entry("now", "now"))
			equal(k, "first", str(k.one(u).Body), "now")
			equal(k, "second", str(k.one(u).Body), "late")
		}},
		{"batch/send/fifo-without-group", "recorded test_send_batch_missing_message_group_id_for_fifo_queue", 0, func(k *kit) {
			_, err := k.trySendBatch(k.fifo(nil), entry("a", "x"))
			k.refused(err, badParameter, bad)
		}},
		{"batch/send/fifo-without-dedup", "recorded test_send_batch_missing_deduplication_id_for_fifo_queue", 0, func(k *kit) {
			e := entry("a", "x")
			e.MessageGroupId = aws.String("g")
			_, err := k.trySendBatch(k.queue(attrs{"FifoQueue": "true"}), e)
			k.refused(err, badParameter, bad)
		}},
		{"batch/delete/ten", "API DeleteMessageBatch, Description", 0, func(k *kit) {
			u := k.queue(nil)
			k.sendBatch(u, numbered(10)...)
			var entries []types.DeleteMessageBatchRequestEntry
			for i, m := range k.receiveAll(u, 10) {
				entries = append(entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
			}
			out, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &u, Entries: entries})
			k.ok("DeleteMessageBatch", err)
			equal(k, "successful", len(out.Successful), 10)
			equal(k, "in flight", k.attributes(u)["ApproximateNumberOfMessagesNotVisible"], "0")
		}},
		{"batch/delete/one-bad-handle", "API DeleteMessageBatch, Failed", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			out, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &u, Entries: []types.DeleteMessageBatchRequestEntry{
				{Id: aws.String("good"), ReceiptHandle: k.one(u).ReceiptHandle}, {Id: aws.String("bad"), ReceiptHandle: aws.String("nonsense")},
			}})
			k.ok("DeleteMessageBatch", err)
			equal(k, "successful", len(out.Successful), 1)
			equal(k, "failed", len(out.Failed), 1)
			equal(k, "failure", fmt.Sprint(str(out.Failed[0].Code), " ", out.Failed[0].SenderFault), "ReceiptHandleIsInvalid true")
		}},
		{"batch/delete/none", "API DeleteMessageBatch, Errors", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &u, Entries: []types.DeleteMessageBatchRequestEntry{}})
			k.refused(err, batchError+"EmptyBatchRequest", bad)
		}},
		{"batch/delete/too-many", "recorded test_delete_message_batch_with_too_large_batch", 0, func(k *kit) {
			u := k.queue(nil)
			var entries []types.DeleteMessageBatchRequestEntry
			for i := range 20 {
				entries = append(entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: aws.String("x")})
			}
			_, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &u, Entries: entries})
			k.refused(err, batchError+"TooManyEntriesInBatchRequest", bad)
		}},
		{"batch/delete/bad-id", "recorded test_delete_message_batch_invalid_msg_id", 0, func(k *kit) {
			u := k.queue(nil)
			for _, id := range badIDs {
				_, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &u, Entries: []types.DeleteMessageBatchRequestEntry{{Id: &id, ReceiptHandle: aws.String("x")}}})
				k.refused(err, batchError+"InvalidBatchEntryId", bad)
			}
		}},
		{"batch/visibility/return-all", "API ChangeMessageVisibilityBatch, Description", 0, func(k *kit) {
			u := k.queue(nil)
			k.sendBatch(u, numbered(3)...)
			var entries []types.ChangeMessageVisibilityBatchRequestEntry
			for i, m := range k.receiveAll(u, 3) {
				entries = append(entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0})
			}
			out, err := k.c.ChangeMessageVisibilityBatch(k.ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &u, Entries: entries})
			k.ok("ChangeMessageVisibilityBatch", err)
			equal(k, "successful", len(out.Successful), 3)
			k.receiveAll(u, 3)
		}},
		{"batch/visibility/one-out-of-range", "API ChangeMessageVisibilityBatch, Failed", 0, func(k *kit) {
			u := k.queue(nil)
			k.sendBatch(u, numbered(2)...)
			m := k.receiveAll(u, 2)
			out, err := k.c.ChangeMessageVisibilityBatch(k.ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &u, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
				{Id: aws.String("good"), ReceiptHandle: m[0].ReceiptHandle, VisibilityTimeout: 5}, {Id: aws.String("bad"), ReceiptHandle: m[1].ReceiptHandle, VisibilityTimeout: 43_201},
			}})
			k.ok("ChangeMessageVisibilityBatch", err)
			equal(k, "successful", len(out.Successful), 1)
			equal(k, "failed", len(out.Failed), 1)
			equal(k, "SenderFault", out.Failed[0].SenderFault, true)
		}},
		{"batch/visibility/too-many", "recorded test_change_message_visibility_batch_with_too_large_batch", 0, func(k *kit) {
			u := k.queue(nil)
			var entries []types.ChangeMessageVisibilityBatchRequestEntry
			for i := range 20 {
				entries = append(entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: aws.String("x"), VisibilityTimeout: 1})
			}
			_, err := k.c.ChangeMessageVisibilityBatch(k.ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &u, Entries: entries})
			k.refused(err, batchError+"TooManyEntriesInBatchRequest", bad)
		}},
	}
}
