package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func messageChecks() []check {
	return []check{
		{"send/by-queue-name", "recorded test_posting_to_queue_via_queue_name", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			out := k.send(n, "Using name instead of URL")
			equal(k, "MD5OfMessageBody", str(out.MD5OfMessageBody), "86a83f96652a1bfad3891e7d523750cb")
			equal(k, "received", str(k.one(u).Body), "Using name instead of URL")
		}},
		{"send/receive/delete", "API SendMessage, Description; API ReceiveMessage, Description; API DeleteMessage, Description", 3 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "1"})
			sent := k.send(u, "body")
			m := k.one(u)
			equal(k, "MessageId", str(m.MessageId), str(sent.MessageId))
			equal(k, "Body", str(m.Body), "body")
			k.delete(u, m)
			if again := k.receive(u, 1, 2); len(again) != 0 {
				k.failf("received after the deletion")
			}
		}},
		{"send/md5-of-body", "API SendMessage, MD5OfMessageBody", 0, func(k *kit) {
			u := k.queue(nil)
			equal(k, "MD5", str(k.send(u, "test").MD5OfMessageBody), "098f6bcd4621d373cade4e832627b4f6")
			equal(k, "MD5OfBody", str(k.one(u).MD5OfBody), "098f6bcd4621d373cade4e832627b4f6")
		}},
		{"send/md5-of-non-ascii-body", "API SendMessage, MD5OfMessageBody", 0, func(k *kit) {
			equal(k, "MD5", str(k.send(k.queue(nil), "grüße €😀").MD5OfMessageBody), "a16185191db2e125950517c6930a272a")
		}},
		{"send/md5-of-attributes", "recorded test_receive_message_message_attribute_names_filters", 0, func(k *kit) {
			out := k.send(k.queue(nil), "msg", attribute("General", "String", "Kenobi"), attribute("Hello", "String", "There"), attribute("Help.Me", "String", "Me"))
			equal(k, "MD5", str(out.MD5OfMessageAttributes), "4c360f3fdafd970e05fae2f149d997f5")
		}},
		{"send/md5-of-binary-attributes", "recorded test_send_message_with_binary_attributes", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "test", attribute("attr1", "Binary", "traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"))
			equal(k, "MD5", str(k.one(u).MD5OfMessageAttributes), "8cbe4db156db8a94db8b801b7addb984")
		}},
		{"send/empty-body", "recorded test_send_empty_message", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "")
			k.refused(err, missing, bad)
		}},
		{"send/allowed-characters", "API SendMessage, MessageBody", 0, func(k *kit) {
			u := k.queue(nil)
			body := "\t\n\r \ud7ff\ue000\ufffd\U00010000\U0010ffff"
			k.send(u, body)
			equal(k, "Body", str(k.one(u).Body), body)
		}},
		{"send/forbidden-characters", "recorded test_send_message_with_invalid_payload_characters", 0, func(k *kit) {
			u := k.queue(nil)
			for _, c := range []string{"\x00", "\x08", "\x0b", "\x1f", "\ufffe", "\uffff"} {
				_, err := k.trySend(u, "a"+c)
				k.refused(err, "InvalidMessageContents", bad)
				typed[*types.InvalidMessageContents](k, err)
			}
		}},
		{"send/one-mebibyte", "API SendMessage, MessageBody", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, strings.Repeat("x", 1<<20))
			equal(k, "length", len(str(k.one(u).Body)), 1<<20)
		}},
		{"send/one-byte-more", "recorded test_send_oversized_message", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), strings.Repeat("x", 1<<20+1))
			k.refused(err, badParameter, bad)
			k.contains(err, "Message must be shorter than 1048576 bytes")
		}},
		{"send/attributes-count-in-the-size", "guide message metadata (name, type and value count)", 0, func(k *kit) {
			u := k.queue(attrs{"MaximumMessageSize": "1024"})
			k.send(u, strings.Repeat("x", 1024-len("name")-len("String")-len("value")), attribute("name", "String", "value"))
			_, err := k.trySend(u, strings.Repeat("x", 1025-len("name")-len("String")-len("value")), attribute("name", "String", "value"))
			k.refused(err, badParameter, bad)
		}},
		{"send/queues-own-maximum", "recorded test_send_message_with_updated_maximum_message_size", 0, func(k *kit) {
			u := k.queue(nil)
			k.set(u, attrs{"MaximumMessageSize": "1024"})
			k.send(u, strings.Repeat("x", 1024))
			_, err := k.trySend(u, strings.Repeat("x", 1025))
			k.refused(err, badParameter, bad)
			k.contains(err, "1024 bytes")
		}},
		{"send/delay", "API SendMessage, DelaySeconds", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x", delay(2))
			equal(k, "received at once", len(k.receive(u, 1, 0)), 0)
			equal(k, "delayed", k.attributes(u)["ApproximateNumberOfMessagesDelayed"], "1")
			k.one(u)
		}},
		{"send/queues-own-delay", "API CreateQueue, DelaySeconds", 3 * time.Second, func(k *kit) {
			u := k.queue(attrs{"DelaySeconds": "2"})
			k.send(u, "x")
			equal(k, "received at once", len(k.receive(u, 1, 0)), 0)
			k.one(u)
		}},
		{"send/delay-out-of-range", "API SendMessage, DelaySeconds", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "x", delay(901))
			k.refused(err, badParameter, bad)
		}},
		{"send/dedup-id-on-standard", "API SendMessage, MessageDeduplicationId (FIFO only)", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "x", dedup("d"))
			k.refused(err, badParameter, bad)
		}},
		{"send/group-on-standard", "recorded test_fair_queue_with_message_group_id", 0, func(k *kit) {
			u := k.queue(nil)
			out := k.send(u, "message", group("test"))
			equal(k, "SequenceNumber", str(out.SequenceNumber), "")
			m := k.one(u)
			equal(k, "MessageGroupId", m.Attributes["MessageGroupId"], "test")
			equal(k, fmt.Sprintf("number of attributes in %v", m.Attributes), len(m.Attributes), 5)
		}},
		{"send/quiet-group-before-a-noisy-one", "guide how fair queues work (30 in flight, and more than a tenth)", 0, func(k *kit) {
			u := k.queue(nil)
			backlog := numbered(10)
			for i := range backlog {
				backlog[i].MessageGroupId = aws.String("noisy")
			}
			for range 4 {
				k.sendBatch(u, backlog...)
			}
			k.receiveAll(u, 30)
			k.send(u, "quiet", group("quiet"))
			equal(k, "body", str(k.one(u).Body), "quiet")
		}},
		{"send/bad-group-on-standard", "recorded test_send_message_to_standard_queue_with_invalid_message_group_id", 0, func(k *kit) {
			u := k.queue(nil)
			for _, g := range []string{"", "group 123", strings.Repeat("a", 129)} {
				_, err := k.trySend(u, "x", group(g))
				k.refused(err, badParameter, bad)
			}
		}},
		{"attributes/round-trip", "API MessageAttributeValue, DataType", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x", attribute("s", "String", "ü"), attribute("n", "Number.int", "-1.5e3"), attribute("b", "Binary.png", "\x00\xff"))
			a := k.one(u).MessageAttributes
			equal(k, "number", len(a), 3)
			equal(k, "s", str(a["s"].StringValue), "ü")
			equal(k, "n", str(a["n"].DataType)+" "+str(a["n"].StringValue), "Number.int -1.5e3")
			equal(k, "b", string(a["b"].BinaryValue), "\x00\xff")
		}},
		{"attributes/ten", "guide message metadata (10 attributes)", 0, func(k *kit) {
			var ten []func(*sqs.SendMessageInput)
			for i := range 10 {
				ten = append(ten, attribute(fmt.Sprint("a", i), "String", "v"))
			}
			k.send(k.queue(nil), "x", ten...)
		}},
		{"attributes/eleven", "guide message metadata (10 attributes)", 0, func(k *kit) {
			var eleven []func(*sqs.SendMessageInput)
			for i := range 11 {
				eleven = append(eleven, attribute(fmt.Sprint("a", i), "String", "v"))
			}
			_, err := k.trySend(k.queue(nil), "x", eleven...)
			k.refused(err, badParameter, bad)
		}},
		{"attributes/empty-value", "recorded test_send_message_with_empty_string_attribute", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "x", attribute("ErrorDetails", "String", ""))
			k.refused(err, badParameter, bad)
			k.contains(err, "must contain a non-empty value of type 'String'")
		}},
		{"attributes/bad-type", "API MessageAttributeValue, DataType", 0, func(k *kit) {
			u := k.queue(nil)
			for _, kind := range []string{"Text", "string", ""} {
				_, err := k.trySend(u, "x", attribute("a", kind, "v"))
				k.refused(err, badParameter, bad)
			}
		}},
		{"attributes/no-number", "API MessageAttributeValue, DataType", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "x", attribute("a", "Number", "one"))
			k.refused(err, badParameter, bad)
		}},
		{"attributes/names", "API ReceiveMessage, MessageAttributeNames; recorded test_send_message_with_invalid_string_attributes", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x", attribute("aZ0_.-"+strings.Repeat("x", 250), "String", "v"))
			for _, n := range []string{"AWS.x", "aWs.x", "AMAZON.x", ".a", "a.", "a!b", "a?b", strings.Repeat("x", 257)} {
				_, err := k.trySend(u, "x", attribute(n, "String", "v"))
				k.refused(err, badParameter, bad)
			}
		}},
		{"attributes/names-in-other-letters", "recorded test_send_message_with_invalid_string_attributes", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "test", attribute("attr.1øßä", "String", "Valida"))
			equal(k, "value", str(k.one(u).MessageAttributes["attr.1øßä"].StringValue), "Valida")
		}},
		{"attributes/forbidden-characters", "recorded test_invalid_string_attributes_cause_invalid_parameter_value_error", 0, func(k *kit) {
			_, err := k.trySend(k.queue(nil), "test", attribute("attr1", "String", "Invalid-\b,\v"))
			code(k, err, badParameter)
		}},
		{"attributes/trace-header", "recorded test_aws_trace_header_propagation", 0, func(k *kit) {
			u := k.queue(nil)
			out := k.send(u, "test", func(in *sqs.SendMessageInput) {
				in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1")}}
			})
			if out.MD5OfMessageSystemAttributes == nil {
				k.failf("no digest of the system attributes")
			}
			equal(k, "AWSTraceHeader", k.one(u).Attributes["AWSTraceHeader"], "Root=1")
		}},
		{"receive/nothing", "recorded test_receive_empty_queue", 0, func(k *kit) { k.none(k.queue(nil)) }},
		{"receive/default-is-one", "API ReceiveMessage, MaxNumberOfMessages", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "a")
			k.send(u, "b")
			out, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &u})
			k.ok("ReceiveMessage", err)
			equal(k, "number", len(out.Messages), 1)
		}},
		{"receive/too-many", "recorded test_send_receive_max_number_of_messages", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &u, MaxNumberOfMessages: 11})
			k.refused(err, badParameter, bad)
		}},
		{"receive/wait-out-of-range", "recorded test_send_receive_wait_time_seconds", 0, func(k *kit) {
			u := k.queue(nil)
			for _, w := range []int32{21, -1} {
				_, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &u, WaitTimeSeconds: w})
				k.refused(err, badParameter, bad)
			}
		}},
		{"receive/visibility-out-of-range", "API ReceiveMessage, VisibilityTimeout", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &u, VisibilityTimeout: 43_201})
			k.refused(err, badParameter, bad)
		}},
		{"receive/hides", "API ReceiveMessage, VisibilityTimeout", 3 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "2"})
			k.send(u, "x")
			k.one(u)
			equal(k, "received at once again", len(k.receive(u, 1, 0)), 0)
			equal(k, "in flight", k.attributes(u)["ApproximateNumberOfMessagesNotVisible"], "1")
			equal(k, "visible", k.attributes(u)["ApproximateNumberOfMessages"], "0")
			k.one(u)
		}},
		{"receive/own-visibility", "API ReceiveMessage, VisibilityTimeout", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			k.one(u, visibility(1))
			k.one(u)
		}},
		{"receive/handles-differ", "guide queue and message identifiers (receipt handles)", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			first, second := k.one(u, visibility(1)), k.one(u)
			equal(k, "MessageId", str(second.MessageId), str(first.MessageId))
			if str(first.ReceiptHandle) == str(second.ReceiptHandle) {
				k.failf("the same handle twice")
			}
		}},
		{"receive/system-attributes", "recorded test_receive_message_attribute_names_filters", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "msg")
			a := k.one(u).Attributes
			for _, n := range []string{"SenderId", "ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "SentTimestamp"} {
				if a[n] == "" {
					k.failf("no %s in %v", n, a)
				}
			}
			equal(k, fmt.Sprintf("number in %v", a), len(a), 4)
			equal(k, "count", a["ApproximateReceiveCount"], "1")
		}},
		{"receive/system-attributes-by-name", "recorded test_receive_message_attribute_names_filters", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "msg")
			a := k.one(u, func(in *sqs.ReceiveMessageInput) {
				in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"SenderId", "SequenceNumber"}
				in.AttributeNames = nil //nolint:staticcheck // see receive
			}).Attributes
			equal(k, fmt.Sprintf("number in %v", a), len(a), 1)
		}},
		{"receive/old-attribute-names", "recorded test_message_system_attribute_names_with_attribute_names", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "msg")
			a := k.one(u, func(in *sqs.ReceiveMessageInput) {
				in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"SenderId"}
				in.AttributeNames = []types.QueueAttributeName{"All"} //nolint:staticcheck // deprecated, and still in use
			}).Attributes
			equal(k, fmt.Sprintf("number in %v", a), len(a), 4)
		}},
		{"receive/counts", "API ReceiveMessage, ApproximateReceiveCount", 4 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			first := k.one(u, visibility(1)).Attributes
			second := k.one(u).Attributes
			equal(k, "count", second["ApproximateReceiveCount"], "2")
			equal(k, "SentTimestamp", second["SentTimestamp"], first["SentTimestamp"])
			equal(k, "ApproximateFirstReceiveTimestamp", second["ApproximateFirstReceiveTimestamp"], first["ApproximateFirstReceiveTimestamp"])
		}},
		{"receive/timestamps-in-milliseconds", "API ReceiveMessage, SentTimestamp", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			a := k.one(u).Attributes
			sent, err := strconv.ParseInt(a["SentTimestamp"], 10, 64)
			k.ok("SentTimestamp", err)
			if d := time.Since(time.UnixMilli(sent)).Abs(); d > time.Minute {
				k.failf("sent %v ago", d)
			}
			if a["ApproximateFirstReceiveTimestamp"] < a["SentTimestamp"] {
				k.failf("received at %s, before %s", a["ApproximateFirstReceiveTimestamp"], a["SentTimestamp"])
			}
		}},
		{"receive/no-attributes-asked-for", "recorded test_receive_message_message_attribute_names_filters", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "msg", attribute("Hello", "String", "There"))
			m := k.one(u, func(in *sqs.ReceiveMessageInput) {
				in.MessageAttributeNames, in.MessageSystemAttributeNames, in.AttributeNames = nil, nil, nil //nolint:staticcheck // see receive
			})
			equal(k, "attributes", len(m.MessageAttributes)+len(m.Attributes), 0)
			equal(k, "MD5", str(m.MD5OfMessageAttributes), "")
		}},
		attributeFilter("all", []string{"All"}, 3, "4c360f3fdafd970e05fae2f149d997f5"),
		attributeFilter("dot-star", []string{".*"}, 3, "4c360f3fdafd970e05fae2f149d997f5"),
		attributeFilter("prefix", []string{"Hel.*"}, 2, "83fee93c1bcd8b9a5a923ffacdc636c7"),
		attributeFilter("exact", []string{"Hello", "General"}, 2, "fca026605781cb4126a1e9044df24232"),
		attributeFilter("some-missing", []string{"Hello", "Nothing"}, 1, "a311262e065454b75da111d535b8dacd"),
		attributeFilter("all-missing", []string{"Nothing"}, 0, ""),
		{"poll/ends-with-the-first-message", "guide short and long polling", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			start := time.Now()
			stop := time.AfterFunc(time.Second, func() { _, _ = k.trySend(u, "x") })
			defer stop.Stop()
			equal(k, "number", len(k.receive(u, 10, 10)), 1)
			if d := time.Since(start); d > 4*time.Second {
				k.failf("took %v", d)
			}
		}},
		{"poll/message-there-already", "guide short and long polling", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			start := time.Now()
			equal(k, "number", len(k.receive(u, 10, 10)), 1)
			if d := time.Since(start); d > 2*time.Second {
				k.failf("took %v", d)
			}
		}},
		{"poll/waits-when-empty", "API ReceiveMessage, WaitTimeSeconds", 2 * time.Second, func(k *kit) {
			u := k.queue(nil)
			start := time.Now()
			k.receive(u, 1, 2)
			if d := time.Since(start); d < 1900*time.Millisecond || d > 4*time.Second {
				k.failf("waited %v", d)
			}
		}},
		{"poll/queues-own-wait", "API CreateQueue, ReceiveMessageWaitTimeSeconds", 2 * time.Second, func(k *kit) {
			u := k.queue(attrs{"ReceiveMessageWaitTimeSeconds": "2"})
			start := time.Now()
			_, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &u})
			k.ok("ReceiveMessage", err)
			if d := time.Since(start); d < 1900*time.Millisecond {
				k.failf("waited %v", d)
			}
		}},
		{"retention/forgets", "API CreateQueue, MessageRetentionPeriod", 70 * time.Second, func(k *kit) {
			u := k.queue(attrs{"MessageRetentionPeriod": "60"})
			k.send(u, "x")
			k.pass(65 * time.Second)
			k.none(u)
		}},
		{"delete/twice", "API DeleteMessage, Description", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			k.delete(u, m)
			k.delete(u, m)
		}},
		{"delete/after-the-timeout", "recorded test_delete_after_visibility_timeout", 3 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "1"})
			k.send(u, "x")
			m := k.one(u)
			k.pass(2 * time.Second)
			k.delete(u, m)
			k.none(u)
		}},
		{"delete/by-an-old-handle", "recorded getmoto/moto#4655 test_delete_message_using_old_receipt_handle", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			first := k.one(u, visibility(1))
			k.one(u, visibility(1))
			k.delete(u, first)
			k.pass(1100 * time.Millisecond)
			k.none(u)
		}},
		{"delete/no-handle", "recorded test_delete_message_with_illegal_receipt_handle", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &u, ReceiptHandle: aws.String("nonsense")})
			typed[*types.ReceiptHandleIsInvalid](k, err)
			code(k, err, "ReceiptHandleIsInvalid")
		}},
		{"delete/no-handle-is-404", "recorded awslabs/amazon-sqs-java-extended-client-lib#16", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &u, ReceiptHandle: aws.String("nonsense")})
			k.refused(err, "ReceiptHandleIsInvalid", http.StatusNotFound)
		}},
		{"delete/other-queues-handle", "API DeleteMessage, Errors (ReceiptHandleIsInvalid)", 0, func(k *kit) {
			u, other := k.queue(nil), k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &other, ReceiptHandle: m.ReceiptHandle})
			typed[*types.ReceiptHandleIsInvalid](k, err)
		}},
		{"visibility/extend", "API ChangeMessageVisibility, Description", 4 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "1"})
			k.send(u, "x")
			k.ok("ChangeMessageVisibility", k.change(u, k.one(u), 3))
			if m := k.receive(u, 1, 2); len(m) != 0 {
				k.failf("visible after the first timeout")
			}
			k.one(u)
		}},
		{"visibility/zero-returns", "API ChangeMessageVisibility, Description", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			k.ok("ChangeMessageVisibility", k.change(u, k.one(u), 0))
			equal(k, "count", k.one(u).Attributes["ApproximateReceiveCount"], "2")
		}},
		{"visibility/zero-wakes-a-poll", "API ChangeMessageVisibility, Description; guide short and long polling", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			start := time.Now()
			stop := time.AfterFunc(time.Second, func() { _ = k.change(u, m, 0) })
			defer stop.Stop()
			k.one(u)
			k.woken(start)
		}},
		{"visibility/not-for-the-next-receive", "API ChangeMessageVisibility, Description (reverts to the original)", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			k.ok("ChangeMessageVisibility", k.change(u, k.one(u), 0))
			k.one(u)
			equal(k, "received again", len(k.receive(u, 1, 0)), 0)
		}},
		{"visibility/after-the-timeout", "recorded test_change_message_visibility_after_visibility_timeout_expiration", 3 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "1"})
			k.send(u, "x")
			m := k.one(u)
			k.pass(2 * time.Second)
			k.ok("ChangeMessageVisibility", k.change(u, m, 10))
			k.none(u)
		}},
		{"visibility/of-a-returned-message", "recorded getmoto/moto#4655 (no MessageNotInflight to be had)", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			k.ok("ChangeMessageVisibility to 0", k.change(u, m, 0))
			k.ok("ChangeMessageVisibility once more", k.change(u, m, 0))
			k.one(u)
		}},
		{"visibility/by-an-old-handle", "recorded getmoto/moto#4655 test_change_message_visibility_on_old_message", 4 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			first := k.one(u, visibility(1))
			k.one(u, visibility(1))
			k.ok("ChangeMessageVisibility", k.change(u, first, 100))
			k.pass(1100 * time.Millisecond)
			k.none(u)
		}},
		{"visibility/no-handle", "recorded test_invalid_receipt_handle_should_return_error_message", 0, func(k *kit) {
			u := k.queue(nil)
			err := k.change(u, types.Message{ReceiptHandle: aws.String("INVALID")}, 60)
			typed[*types.ReceiptHandleIsInvalid](k, err)
		}},
		{"visibility/of-a-deleted-message", "recorded test_change_visibility_on_deleted_message_raises_invalid_parameter_value", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			k.delete(u, m)
			k.refused(k.change(u, m, 10), badParameter, bad)
		}},
		{"visibility/out-of-range", "API ChangeMessageVisibility, VisibilityTimeout", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "x")
			m := k.one(u)
			k.refused(k.change(u, m, 43_201), badParameter, bad)
			k.refused(k.change(u, m, -1), badParameter, bad)
		}},
		{"visibility/twelve-hours-in-all", "guide visibility timeout (12 hours from the receive)", 61 * time.Second, func(k *kit) {
			u := k.queue(attrs{"VisibilityTimeout": "600"})
			k.send(u, "x")
			m := k.one(u)
			k.pass(60 * time.Second)
			k.refused(k.change(u, m, 43_200), badParameter, bad)
			k.ok("ChangeMessageVisibility", k.change(u, m, 43_100))
		}},
	}
}

// attributeFilter asks for some of three attributes, and compares the digest of what came with the recorded one.
func attributeFilter(what string, names []string, number int, md5 string) check {
	return check{"receive/attribute-names/" + what, "recorded test_receive_message_message_attribute_names_filters", 0, func(k *kit) {
		u := k.queue(nil)
		k.send(u, "msg", attribute("General", "String", "Kenobi"), attribute("Hello", "String", "There"), attribute("Help.Me", "String", "Me"))
		m := k.one(u, func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = names })
		equal(k, "number", len(m.MessageAttributes), number)
		equal(k, "MD5", str(m.MD5OfMessageAttributes), md5)
	}}
}
