package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func attempt(id string) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.ReceiveRequestAttemptId = &id }
}

func fifoChecks() []check {
	return []check{
		{"fifo/order", "guide FIFO delivery logic", 0, func(k *kit) {
			u := k.fifo(nil)
			for i := range 10 {
				k.send(u, fmt.Sprint(i), group("g"))
			}
			equal(k, "order", bodies(k.receive(u, 10, 5)), "0 1 2 3 4 5 6 7 8 9")
		}},
		{"fifo/group-needed", "recorded test_posting_to_fifo_requires_deduplicationid_group_id", 0, func(k *kit) {
			_, err := k.trySend(k.fifo(nil), "x")
			k.refused(err, missing, bad)
		}},
		{"fifo/dedup-needed", "recorded test_posting_to_fifo_requires_deduplicationid_group_id", 0, func(k *kit) {
			_, err := k.trySend(k.queue(attrs{"FifoQueue": "true"}), "x", group("g"))
			k.refused(err, badParameter, bad)
		}},
		{"fifo/own-delay-refused", "recorded test_fifo_queue_send_message_with_delay_seconds_fails", 0, func(k *kit) {
			_, err := k.trySend(k.fifo(nil), "x", group("g"), delay(2))
			k.refused(err, badParameter, bad)
		}},
		{"fifo/queues-delay", "recorded test_fifo_queue_send_message_with_zero_delay_defaults_to_queue_delay", 4 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"DelaySeconds": "2"})
			k.send(u, "x", group("g"))
			equal(k, "received at once", len(k.receive(u, 1, 0)), 0)
			k.one(u)
		}},
		{"fifo/attributes", "recorded test_fifo_message_attributes", 0, func(k *kit) {
			u := k.fifo(nil)
			out := k.send(u, "message-body-1", group("group-1"), dedup("dedup-1"))
			a := k.one(u).Attributes
			equal(k, "MessageGroupId", a["MessageGroupId"], "group-1")
			equal(k, "MessageDeduplicationId", a["MessageDeduplicationId"], "dedup-1")
			equal(k, "SequenceNumber", a["SequenceNumber"], str(out.SequenceNumber))
			equal(k, "digits of "+a["SequenceNumber"], len(a["SequenceNumber"]), 20)
		}},
		{"fifo/sequence-rises", "recorded test_fifo_sequence_number_increases", 0, func(k *kit) {
			u := k.fifo(nil)
			last := ""
			for i := range 5 {
				n := str(k.send(u, fmt.Sprint(i), group(fmt.Sprint(i%2))).SequenceNumber)
				if n <= last {
					k.failf("%s after %s", n, last)
				}
				last = n
			}
		}},
		{"fifo/sequence-of-a-group-survives-timeouts", "recorded test_fifo_message_attributes", 3 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"VisibilityTimeout": "1"})
			k.send(u, "x", group("g"))
			first := k.one(u).Attributes["SequenceNumber"]
			equal(k, "SequenceNumber", k.one(u).Attributes["SequenceNumber"], first)
		}},
		{"fifo/dedup-id", "recorded test_sqs_fifo_same_dedup_id_different_message_groups", 0, func(k *kit) {
			u := k.fifo(nil)
			first := k.send(u, "one", group("a"), dedup("d"))
			second := k.send(u, "two", group("b"), dedup("d"))
			equal(k, "MessageId", str(second.MessageId), str(first.MessageId))
			equal(k, "SequenceNumber", str(second.SequenceNumber), str(first.SequenceNumber))
			equal(k, "received", bodies(k.receive(u, 10, 2)), "one")
		}},
		{"fifo/dedup-by-content", "recorded test_fifo_deduplication_not_on_message_group_id", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "same", group("a"))
			k.send(u, "same", group("a"))
			k.send(u, "same", group("b"))
			k.send(u, "other", group("a"))
			equal(k, "received", bodies(k.receive(u, 10, 2)), "same other")
		}},
		{"fifo/content-dedup-ignores-attributes", "API CreateQueue, ContentBasedDeduplication", 0, func(k *kit) {
			u := k.fifo(nil)
			first := k.send(u, "same", group("a"), attribute("a", "String", "1"))
			equal(k, "MessageId", str(k.send(u, "same", group("a"), attribute("a", "String", "2")).MessageId), str(first.MessageId))
		}},
		{"fifo/dedup-id-goes-before-content", "API CreateQueue, ContentBasedDeduplication", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "same", group("a"), dedup("1"))
			k.send(u, "same", group("a"), dedup("2"))
			equal(k, "received", bodies(k.receive(u, 10, 2)), "same same")
		}},
		{"fifo/dedup-outlives-the-message", "recorded test_fifo_deduplication_arrives_once_after_delete", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "x", group("g"))
			k.delete(u, k.one(u))
			k.send(u, "x", group("g"))
			k.none(u)
		}},
		{"fifo/dedup-for-five-minutes", "API SendMessage, MessageDeduplicationId", 302 * time.Second, func(k *kit) {
			u := k.fifo(nil)
			first := k.send(u, "x", group("g"))
			equal(k, "MessageId at once", str(k.send(u, "x", group("g")).MessageId), str(first.MessageId))
			k.pass(299 * time.Second)
			equal(k, "MessageId", str(k.send(u, "x", group("g")).MessageId), str(first.MessageId))
			k.pass(2 * time.Second)
			if str(k.send(u, "x", group("g")).MessageId) == str(first.MessageId) {
				k.failf("still a duplicate after five minutes")
			}
		}},
		{"fifo/dedup-scope-group", "recorded test_sqs_fifo_message_group_scope_no_throughput_setting", 0, func(k *kit) {
			u := k.fifo(attrs{"DeduplicationScope": "messageGroup"})
			k.send(u, "x", group("a"), dedup("d"))
			k.send(u, "x", group("b"), dedup("d"))
			k.send(u, "x", group("b"), dedup("d"))
			equal(k, "received", len(k.receiveAll(u, 2)), 2)
		}},
		{"fifo/bad-ids", "recorded test_message_deduplication_id_invalid", 0, func(k *kit) {
			u := k.fifo(nil)
			for _, id := range []string{"", "group 123", strings.Repeat("a", 129), "ä"} {
				_, err := k.trySend(u, "x", group("g"), dedup(id))
				k.refused(err, badParameter, bad)
				_, err = k.trySend(u, "x", group(id), dedup("d"))
				k.refused(err, badParameter, bad)
			}
		}},
		{"fifo/all-punctuation-in-ids", "API SendMessage, MessageGroupId", 0, func(k *kit) {
			id := "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
			k.send(k.fifo(nil), "x", group(id), dedup(id))
		}},
		{"fifo/group-locked-in-flight", "guide FIFO delivery logic", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a1", group("a"))
			k.send(u, "a2", group("a"))
			equal(k, "first", str(k.one(u).Body), "a1")
			k.none(u)
		}},
		{"fifo/other-groups-go-on", "guide FIFO delivery logic", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a1", group("a"))
			k.send(u, "a2", group("a"))
			k.send(u, "b1", group("b"))
			equal(k, "first", str(k.one(u).Body), "a1")
			equal(k, "second", bodies(k.receive(u, 10, 2)), "b1")
		}},
		{"fifo/delete-unlocks", "guide FIFO delivery logic", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a1", group("a"))
			k.send(u, "a2", group("a"))
			k.delete(u, k.one(u))
			equal(k, "second", str(k.one(u).Body), "a2")
		}},
		{"fifo/delete-wakes-a-poll", "guide FIFO delivery logic; guide short and long polling", 3 * time.Second, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a1", group("a"))
			k.send(u, "a2", group("a"))
			m := k.one(u)
			start := time.Now()
			stop := time.AfterFunc(time.Second, func() {
				_, _ = k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &u, ReceiptHandle: m.ReceiptHandle})
			})
			defer stop.Stop()
			equal(k, "second", str(k.one(u).Body), "a2")
			k.woken(start)
		}},
		{"fifo/timeout-unlocks-from-the-first", "guide FIFO delivery logic", 3 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"VisibilityTimeout": "1"})
			k.send(u, "a1", group("a"))
			k.send(u, "a2", group("a"))
			k.one(u)
			equal(k, "after the timeout", bodies(k.receive(u, 10, 3)), "a1 a2")
		}},
		{"fifo/empty-group-comes-back", "recorded test_fifo_empty_message_groups_added_back_to_queue", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "1", group("g"))
			k.delete(u, k.one(u))
			k.none(u)
			k.send(u, "2", group("g"))
			equal(k, "received", str(k.one(u).Body), "2")
		}},
		{"fifo/turns/zero-visibility", "recorded test_fifo_receive_message_with_zero_visibility_timeout", 0, func(k *kit) {
			// The recorded test receives with a timeout of 0, which this SDK cannot say: it is the queue's here.
			u := k.fifo(attrs{"VisibilityTimeout": "0"})
			k.grouped(u, "g1-m1", "g2-m1", "g2-m2", "g3-m1", "g1-m2")
			equal(k, "first", bodies(k.receive(u, 3, 2)), "g1-m1 g1-m2 g2-m1")
			equal(k, "then", bodies(k.receive(u, 10, 2)), "g3-m1 g1-m1 g1-m2 g2-m1 g2-m2")
		}},
		{"fifo/turns/timeout-terminated", "recorded test_fifo_message_group_visibility_after_terminate_visibility_timeout", 0, func(k *kit) {
			u := k.fifo(nil)
			k.grouped(u, "g1-m1", "g1-m2", "g2-m1")
			m := k.receive(u, 2, 2)
			equal(k, "first", bodies(m), "g1-m1 g1-m2")
			k.ok("ChangeMessageVisibility", k.change(u, m[0], 0))
			equal(k, "then", bodies(k.receive(u, 3, 2)), "g2-m1 g1-m1")
		}},
		{"fifo/turns/timeout-changed", "recorded test_fifo_message_group_visibility_after_change_message_visibility", 3 * time.Second, func(k *kit) {
			u := k.fifo(nil)
			k.grouped(u, "g1-m1", "g1-m2", "g2-m1")
			m := k.receive(u, 2, 2)
			equal(k, "first", bodies(m), "g1-m1 g1-m2")
			k.ok("ChangeMessageVisibility", k.change(u, m[0], 1))
			k.pass(2 * time.Second)
			equal(k, "then", bodies(k.receive(u, 3, 0)), "g2-m1 g1-m1")
		}},
		{"fifo/turns/timeout-shared", "recorded test_fifo_receive_message_visibility_timeout_shared_in_group", 3 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"VisibilityTimeout": "1"})
			k.grouped(u, "g1-m1", "g1-m2", "g1-m3", "g1-m4", "g2-m1", "g3-m1")
			equal(k, "first", bodies(k.receive(u, 2, 0)), "g1-m1 g1-m2")
			equal(k, "second", bodies(k.receive(u, 1, 0)), "g2-m1")
			k.pass(2 * time.Second)
			equal(k, "then", bodies(k.receive(u, 10, 0)), "g3-m1 g1-m1 g1-m2 g1-m3 g1-m4 g2-m1")
		}},
		{"fifo/turns/deleted", "recorded test_fifo_message_group_visibility_after_delete", 0, func(k *kit) {
			u := k.fifo(nil)
			m := k.twoOfThreeGroups(u)
			k.delete(u, m[0])
			k.delete(u, m[1])
			equal(k, "then", bodies(k.receive(u, 10, 0)), "g2-m1 g2-m2 g1-m3 g1-m4 g3-m1")
		}},
		{"fifo/turns/deleted-in-part", "recorded test_fifo_message_group_visibility_after_partial_delete", 0, func(k *kit) {
			u := k.fifo(nil)
			k.delete(u, k.twoOfThreeGroups(u)[0])
			equal(k, "then", bodies(k.receive(u, 10, 0)), "g2-m1 g2-m2 g3-m1")
		}},
		extended(0, ""), extended(1, "foo"), extended(2, "foo bar"),
		{"fifo/delete-with-expired-handle", "recorded test_fifo_delete_after_visibility_timeout", 3 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"VisibilityTimeout": "1"})
			k.send(u, "foobar", group("g"))
			m := k.one(u)
			k.pass(2 * time.Second)
			_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &u, ReceiptHandle: m.ReceiptHandle})
			k.refused(err, badParameter, bad)
			k.contains(err, "The receipt handle has expired")
		}},
		{"fifo/delete-after-extension", "recorded test_fifo_delete_after_visibility_timeout_extended", 3 * time.Second, func(k *kit) {
			u := k.fifo(attrs{"VisibilityTimeout": "1"})
			k.send(u, "foobar", group("g"))
			m := k.one(u)
			k.ok("ChangeMessageVisibility", k.change(u, m, 10))
			k.pass(2 * time.Second)
			k.delete(u, m)
		}},
		{"fifo/same-attempt-same-messages", "API ReceiveMessage, ReceiveRequestAttemptId", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a", group("g"))
			k.send(u, "b", group("g"))
			first := k.receive(u, 10, 2, attempt("1"))
			second := k.receive(u, 10, 2, attempt("1"))
			equal(k, "first", bodies(first), "a b")
			equal(k, "second", bodies(second), "a b")
			equal(k, "handle", str(second[0].ReceiptHandle), str(first[0].ReceiptHandle))
		}},
		{"fifo/other-attempt-gets-nothing", "API ReceiveMessage, ReceiveRequestAttemptId", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a", group("g"))
			k.receive(u, 10, 2, attempt("1"))
			equal(k, "received", len(k.receive(u, 10, 1, attempt("2"))), 0)
		}},
		{"fifo/attempt-after-a-change", "recorded awslabs/amazon-sqs-java-messaging-lib#101 (InvalidParameterValue, status 400)", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "a", group("g"))
			m := k.receive(u, 10, 2, attempt("1"))
			k.ok("ChangeMessageVisibility", k.change(u, m[0], 100))
			in := &sqs.ReceiveMessageInput{QueueUrl: &u, WaitTimeSeconds: 1}
			attempt("1")(in)
			_, err := k.c.ReceiveMessage(k.ctx, in)
			k.refused(err, badParameter, bad)
		}},
		{"fifo/purge", "recorded test_purge_queue_clears_fifo_deduplication_cache", 0, func(k *kit) {
			u := k.fifo(nil)
			k.send(u, "message-1", group("g"), dedup("d"))
			k.purge(u)
			k.send(u, "message-2", group("g"), dedup("d"))
			equal(k, "received", bodies(k.receive(u, 10, 1)), "message-2")
		}},
		{"fifo/groups-in-a-batch", "API SendMessageBatchRequestEntry, MessageGroupId", 0, func(k *kit) {
			u := k.fifo(nil)
			var entries []types.SendMessageBatchRequestEntry
			for i := range 4 {
				e := entry(fmt.Sprint(i), fmt.Sprint(i))
				e.MessageGroupId = aws.String(fmt.Sprint("g", i%2))
				entries = append(entries, e)
			}
			equal(k, "successful", len(k.sendBatch(u, entries...).Successful), 4)
			var even, odd []types.Message
			for _, m := range k.receiveAll(u, 4) {
				if m.Attributes["MessageGroupId"] == "g0" {
					even = append(even, m)
				} else {
					odd = append(odd, m)
				}
			}
			equal(k, "order", bodies(even)+" "+bodies(odd), "0 2 1 3")
		}},
	}
}

// grouped sends messages whose group is what their bodies begin with.
func (k *kit) grouped(url string, bodies ...string) {
	for _, b := range bodies {
		g, _, _ := strings.Cut(b, "-")
		k.send(url, b, group(g))
	}
}

// twoOfThreeGroups sends messages of three groups mixed, and receives the first two of the first.
func (k *kit) twoOfThreeGroups(url string) []types.Message {
	k.grouped(url, "g1-m1", "g2-m1", "g1-m2", "g2-m2", "g1-m3", "g1-m4", "g3-m1")
	m := k.receive(url, 2, 2)
	equal(k, "first", bodies(m), "g1-m1 g1-m2")
	return m
}

// extended receives three messages of a group, extends one, and says which come when the others' timeouts have passed.
func extended(position int, want string) check {
	return check{fmt.Sprint("fifo/extended-message-locks-what-follows/", position), "recorded test_fifo_group_visibility_extends_with_change_message_visibility", 4 * time.Second, func(k *kit) {
		u := k.fifo(attrs{"VisibilityTimeout": "1"})
		for _, b := range []string{"foo", "bar", "baz"} {
			k.send(u, b, group("1"))
		}
		m := k.receive(u, 5, 2)
		equal(k, "received", bodies(m), "foo bar baz")
		k.ok("ChangeMessageVisibility", k.change(u, m[position], 4))
		k.pass(2500 * time.Millisecond)
		equal(k, "then", bodies(k.receive(u, 5, 0)), want)
	}}
}
