package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func redrive(arn string, receives int) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, arn, receives)
}

// withDeadLetter is a queue and its dead-letter queue.
func (k *kit) withDeadLetter(receives int) (source, dead string) {
	dead = k.queue(nil)
	return k.queue(attrs{"VisibilityTimeout": "1", "RedrivePolicy": redrive(k.arn(dead), receives)}), dead
}

// kill sends a message and receives it until it has gone to the dead-letter queue.
func (k *kit) kill(source, body string) {
	k.send(source, body)
	k.ok("ChangeMessageVisibility", k.change(source, k.one(source), 0))
	equal(k, "received after it was given up", len(k.receive(source, 1, 1)), 0)
}

// deadFIFO lets a message of group "g" go to a FIFO dead-letter queue: the ID with which it was sent, and it as it is there.
func (k *kit) deadFIFO() (sent string, m types.Message) {
	dead := k.fifo(nil)
	source := k.fifo(attrs{"RedrivePolicy": redrive(k.arn(dead), 1)})
	sent = str(k.send(source, "x", group("g"), dedup("d")).MessageId)
	k.ok("ChangeMessageVisibility", k.change(source, k.one(source), 0))
	k.receive(source, 1, 1)
	return sent, k.one(dead)
}

func (k *kit) startMove(source, destination string, rate *int32) (*sqs.StartMessageMoveTaskOutput, error) {
	in := &sqs.StartMessageMoveTaskInput{SourceArn: &source, MaxNumberOfMessagesPerSecond: rate}
	if destination != "" {
		in.DestinationArn = &destination
	}
	return k.c.StartMessageMoveTask(k.ctx, in)
}

func (k *kit) moves(source string) []types.ListMessageMoveTasksResultEntry {
	out, err := k.c.ListMessageMoveTasks(k.ctx, &sqs.ListMessageMoveTasksInput{SourceArn: &source, MaxResults: aws.Int32(10)})
	k.ok("ListMessageMoveTasks", err)
	return out.Results
}

// awaitMove waits until the latest task has ended: it may be CANCELLING for a while before it is CANCELLED.
func (k *kit) awaitMove(source string) types.ListMessageMoveTasksResultEntry {
	for range 50 {
		if m := k.moves(source); len(m) > 0 && str(m[0].Status) != "RUNNING" && str(m[0].Status) != "CANCELLING" {
			return m[0]
		}
		k.pass(200 * time.Millisecond)
	}
	k.failf("still running after ten seconds")
	return types.ListMessageMoveTasksResultEntry{}
}

func deadLetterChecks() []check {
	return []check{
		{"dead-letter/after-the-last-receive", "guide dead-letter queues", 4 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(2)
			k.send(source, "x")
			equal(k, "first count", k.one(source).Attributes["ApproximateReceiveCount"], "1")
			equal(k, "second count", k.one(source).Attributes["ApproximateReceiveCount"], "2")
			if m := k.receive(source, 1, 3); len(m) != 0 {
				k.failf("received a third time")
			}
			equal(k, "Body", str(k.one(dead).Body), "x")
		}},
		{"dead-letter/keeps-the-message", "recorded test_dead_letter_queue_message_attributes", 3 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			sent := k.send(source, "message-1", attribute("MyAttribute", "String", "foobar"))
			first := k.one(source)
			k.ok("ChangeMessageVisibility", k.change(source, first, 0))
			k.receive(source, 1, 1)
			m := k.one(dead)
			equal(k, "MessageId", str(m.MessageId), str(sent.MessageId))
			equal(k, "MD5OfMessageAttributes", str(m.MD5OfMessageAttributes), str(sent.MD5OfMessageAttributes))
			equal(k, "SentTimestamp", m.Attributes["SentTimestamp"], first.Attributes["SentTimestamp"])
			equal(k, "DeadLetterQueueSourceArn", m.Attributes["DeadLetterQueueSourceArn"], k.arn(source))
		}},
		{"dead-letter/count-goes-on", "API ReceiveMessage, ApproximateReceiveCount (across all queues)", 3 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			k.kill(source, "x")
			equal(k, "count", k.one(dead).Attributes["ApproximateReceiveCount"], "2")
		}},
		{"dead-letter/wakes-its-poll", "guide dead-letter queues; guide short and long polling", 4 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			k.send(source, "x")
			k.one(source)
			stop := time.AfterFunc(2*time.Second, func() {
				_, _ = k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: &source})
			})
			defer stop.Stop()
			k.one(dead)
		}},
		{"dead-letter/fifo-keeps-group", "guide dead-letter queues", 3 * time.Second, func(k *kit) {
			_, m := k.deadFIFO()
			equal(k, "MessageGroupId", m.Attributes["MessageGroupId"], "g")
		}},
		{"dead-letter/fifo-deduplication-id", "recorded awsdocs/amazon-sqs-developer-guide#54; guide dead-letter queue redrive", 3 * time.Second, func(k *kit) {
			sent, m := k.deadFIFO()
			equal(k, "MessageDeduplicationId", m.Attributes["MessageDeduplicationId"], sent)
		}},
		{"redrive-policy/kept", "API CreateQueue, RedrivePolicy", 0, func(k *kit) {
			source, dead := k.withDeadLetter(7)
			p := k.attributes(source)["RedrivePolicy"]
			if !strings.Contains(p, k.arn(dead)) || !strings.Contains(p, "7") {
				k.failf("%s", p)
			}
		}},
		{"redrive-policy/count-as-string", "API CreateQueue, RedrivePolicy", 0, func(k *kit) {
			k.queue(attrs{"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"5"}`, k.arn(k.queue(nil)))})
		}},
		{"redrive-policy/bad", "API CreateQueue, RedrivePolicy; recorded test_invalid_dead_letter_arn_rejected_before_lookup", 0, func(k *kit) {
			u := k.queue(nil)
			arn := k.arn(k.queue(nil))
			for _, p := range []string{
				redrive("dummy", 42), redrive(arn, 0), redrive(arn, 1001), "{", `{"maxReceiveCount":3}`, fmt.Sprintf(`{"deadLetterTargetArn":%q}`, arn),
			} {
				k.refused(k.trySet(u, attrs{"RedrivePolicy": p}), badParameter, bad)
			}
		}},
		{"redrive-policy/count-ends", "API CreateQueue, maxReceiveCount (1 to 1,000)", 0, func(k *kit) {
			u, arn := k.queue(nil), k.arn(k.queue(nil))
			k.set(u, attrs{"RedrivePolicy": redrive(arn, 1)})
			k.set(u, attrs{"RedrivePolicy": redrive(arn, 1000)})
		}},
		{"redrive-policy/target-must-exist", "API CreateQueue, RedrivePolicy", 0, func(k *kit) {
			u := k.queue(nil)
			k.refused(k.trySet(u, attrs{"RedrivePolicy": redrive(k.arn(u)+"-not", 3)}), badParameter, bad)
		}},
		{"redrive-policy/same-kind", "recorded awslabs/aws-solutions-constructs#342", 0, func(k *kit) {
			k.refused(k.trySet(k.queue(nil), attrs{"RedrivePolicy": redrive(k.arn(k.fifo(nil)), 3)}), badParameter, bad)
			k.refused(k.trySet(k.fifo(nil), attrs{"RedrivePolicy": redrive(k.arn(k.queue(nil)), 3)}), badParameter, bad)
		}},
		{"redrive-policy/own-queue", "recorded test_set_empty_redrive_policy", 0, func(k *kit) {
			u := k.queue(nil)
			k.set(u, attrs{"RedrivePolicy": `{"deadLetterTargetArn":"` + k.arn(u) + `","maxReceiveCount":"42"}`})
			if got := k.attributes(u)["RedrivePolicy"]; !strings.Contains(got, k.arn(u)) {
				k.failf("RedrivePolicy is %s", got)
			}
		}},
		{"redrive-policy/cleared", "recorded test_set_empty_redrive_policy", 0, func(k *kit) {
			source, _ := k.withDeadLetter(1)
			k.set(source, attrs{"RedrivePolicy": ""})
			if _, ok := k.attributes(source)["RedrivePolicy"]; ok {
				k.failf("still there")
			}
		}},
		{"redrive-allow/deny-all", "API CreateQueue, RedriveAllowPolicy", 0, func(k *kit) {
			dead := k.queue(attrs{"RedriveAllowPolicy": `{"redrivePermission":"denyAll"}`})
			k.refused(k.trySet(k.queue(nil), attrs{"RedrivePolicy": redrive(k.arn(dead), 3)}), badParameter, bad)
		}},
		{"redrive-allow/by-queue", "API CreateQueue, RedriveAllowPolicy", 0, func(k *kit) {
			friend, stranger := k.queue(nil), k.queue(nil)
			dead := k.queue(attrs{"RedriveAllowPolicy": fmt.Sprintf(`{"redrivePermission":"byQueue","sourceQueueArns":[%q]}`, k.arn(friend))})
			k.set(friend, attrs{"RedrivePolicy": redrive(k.arn(dead), 3)})
			k.refused(k.trySet(stranger, attrs{"RedrivePolicy": redrive(k.arn(dead), 3)}), badParameter, bad)
		}},
		{"redrive-allow/bad", "API CreateQueue, RedriveAllowPolicy", 0, func(k *kit) {
			u := k.queue(nil)
			for _, p := range []string{`{"redrivePermission":"some"}`, `{"redrivePermission":"byQueue"}`, "{"} {
				k.refused(k.trySet(u, attrs{"RedriveAllowPolicy": p}), badParameter, bad)
			}
		}},
		{"sources/listed", "API ListDeadLetterSourceQueues, QueueUrls", 0, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			other := k.queue(attrs{"RedrivePolicy": redrive(k.arn(dead), 1)})
			out, err := k.c.ListDeadLetterSourceQueues(k.ctx, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dead})
			k.ok("ListDeadLetterSourceQueues", err)
			all := strings.Join(out.QueueUrls, " ")
			if len(out.QueueUrls) != 2 || !strings.Contains(all, source) || !strings.Contains(all, other) {
				k.failf("%s", all)
			}
		}},
		{"sources/none", "API ListDeadLetterSourceQueues, QueueUrls", 0, func(k *kit) {
			u := k.queue(nil)
			out, err := k.c.ListDeadLetterSourceQueues(k.ctx, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &u})
			k.ok("ListDeadLetterSourceQueues", err)
			equal(k, "number", len(out.QueueUrls), 0)
		}},
		{"sources/pages", "API ListDeadLetterSourceQueues, MaxResults", 0, func(k *kit) {
			_, dead := k.withDeadLetter(1)
			for range 2 {
				k.queue(attrs{"RedrivePolicy": redrive(k.arn(dead), 1)})
			}
			in := &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dead, MaxResults: aws.Int32(2)}
			out, err := k.c.ListDeadLetterSourceQueues(k.ctx, in)
			k.ok("ListDeadLetterSourceQueues", err)
			equal(k, "first page", len(out.QueueUrls), 2)
			in.NextToken = out.NextToken
			out, err = k.c.ListDeadLetterSourceQueues(k.ctx, in)
			k.ok("ListDeadLetterSourceQueues", err)
			equal(k, "second page", len(out.QueueUrls), 1)
		}},
		{"move/to-a-queue", "recorded test_basic_move_task_workflow", 5 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			to := k.queue(nil)
			k.kill(source, "a")
			k.kill(source, "b")
			out, err := k.startMove(k.arn(dead), k.arn(to), nil)
			k.ok("StartMessageMoveTask", err)
			if str(out.TaskHandle) == "" {
				k.failf("no handle")
			}
			t := k.awaitMove(k.arn(dead))
			equal(k, "Status", str(t.Status), "COMPLETED")
			equal(k, "moved", t.ApproximateNumberOfMessagesMoved, 2)
			equal(k, "to move", aws.ToInt64(t.ApproximateNumberOfMessagesToMove), 2)
			equal(k, "DestinationArn", str(t.DestinationArn), k.arn(to))
			equal(k, "TaskHandle", str(t.TaskHandle), "")
			k.receiveAll(to, 2)
		}},
		{"move/back-to-the-source", "recorded test_move_task_workflow_with_default_destination", 5 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			k.kill(source, "a")
			_, err := k.startMove(k.arn(dead), "", nil)
			k.ok("StartMessageMoveTask", err)
			t := k.awaitMove(k.arn(dead))
			equal(k, "Status", str(t.Status), "COMPLETED")
			equal(k, "DestinationArn", str(t.DestinationArn), "")
			equal(k, "Body", str(k.one(source).Body), "a")
		}},
		{"move/to-several-sources", "recorded test_move_task_workflow_with_multiple_sources_as_default_destination", 6 * time.Second, func(k *kit) {
			first, dead := k.withDeadLetter(1)
			second := k.queue(attrs{"RedrivePolicy": redrive(k.arn(dead), 1)})
			k.kill(first, "a")
			k.kill(second, "b")
			_, err := k.startMove(k.arn(dead), "", nil)
			k.ok("StartMessageMoveTask", err)
			k.awaitMove(k.arn(dead))
			equal(k, "first", str(k.one(first).Body), "a")
			equal(k, "second", str(k.one(second).Body), "b")
		}},
		{"move/source-is-no-dead-letter-queue", "recorded test_source_needs_redrive_policy", 0, func(k *kit) {
			_, err := k.startMove(k.arn(k.queue(nil)), k.arn(k.queue(nil)), nil)
			k.refused(err, badParameter, bad)
		}},
		{"move/source-missing", "API StartMessageMoveTask, Errors (ResourceNotFoundException)", 0, func(k *kit) {
			_, err := k.startMove(k.arn(k.queue(nil))+"-not", "", nil)
			k.refused(err, "ResourceNotFoundException", http.StatusNotFound)
			typed[*types.ResourceNotFoundException](k, err)
		}},
		{"move/destination-missing", "recorded test_destination_needs_to_exist", 0, func(k *kit) {
			_, dead := k.withDeadLetter(1)
			_, err := k.startMove(k.arn(dead), k.arn(dead)+"-not", nil)
			k.refused(err, "ResourceNotFoundException", http.StatusNotFound)
		}},
		{"move/rate-out-of-range", "API StartMessageMoveTask, MaxNumberOfMessagesPerSecond", 0, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			_, err := k.startMove(k.arn(dead), k.arn(source), aws.Int32(501))
			k.refused(err, badParameter, bad)
		}},
		{"move/one-at-a-time", "recorded test_start_multiple_move_tasks", 5 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			for range 3 {
				k.kill(source, "x")
			}
			_, err := k.startMove(k.arn(dead), k.arn(source), aws.Int32(1))
			k.ok("StartMessageMoveTask", err)
			_, err = k.startMove(k.arn(dead), k.arn(source), aws.Int32(1))
			k.refused(err, badParameter, bad)
		}},
		{"move/cancel", "recorded test_move_task_cancel", 5 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			to := k.queue(nil)
			for range 3 {
				k.kill(source, "x")
			}
			out, err := k.startMove(k.arn(dead), k.arn(to), aws.Int32(1))
			k.ok("StartMessageMoveTask", err)
			running := k.moves(k.arn(dead))[0]
			equal(k, "Status", str(running.Status), "RUNNING")
			equal(k, "TaskHandle", str(running.TaskHandle), str(out.TaskHandle))
			equal(k, "rate", aws.ToInt32(running.MaxNumberOfMessagesPerSecond), 1)
			_, err = k.c.CancelMessageMoveTask(k.ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: out.TaskHandle})
			k.ok("CancelMessageMoveTask", err)
			equal(k, "Status", str(k.awaitMove(k.arn(dead)).Status), "CANCELLED")
		}},
		{"move/cancel-bad-handle", "recorded test_cancel_with_invalid_task_handle", 0, func(k *kit) {
			_, err := k.c.CancelMessageMoveTask(k.ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: aws.String("nonsense")})
			k.refused(err, badParameter, bad)
		}},
		{"move/destination-deleted-meanwhile", "recorded test_move_task_delete_destination_queue_while_running", 8 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			to := k.queue(nil)
			for range 3 {
				k.kill(source, "x")
			}
			_, err := k.startMove(k.arn(dead), k.arn(to), aws.Int32(1))
			k.ok("StartMessageMoveTask", err)
			k.drop(to)
			t := k.awaitMove(k.arn(dead))
			equal(k, "Status", str(t.Status), "FAILED")
			equal(k, "FailureReason", str(t.FailureReason), noQueue)
		}},
		{"move/message-from-nowhere", "API ListMessageMoveTasks, FailureReason; guide troubleshooting dead-letter queue redrive", 8 * time.Second, func(k *kit) {
			_, dead := k.withDeadLetter(1)
			k.send(dead, "sent to the dead-letter queue directly")
			_, err := k.startMove(k.arn(dead), "", nil)
			k.ok("StartMessageMoveTask", err)
			t := k.awaitMove(k.arn(dead))
			equal(k, "Status", str(t.Status), "FAILED")
			equal(k, "FailureReason", str(t.FailureReason), "CouldNotDetermineMessageSource")
		}},
		{"move/new-messages", "guide dead-letter queue redrive (new ID and enqueue time)", 5 * time.Second, func(k *kit) {
			source, dead := k.withDeadLetter(1)
			sent := k.send(source, "x")
			k.ok("ChangeMessageVisibility", k.change(source, k.one(source), 0))
			k.receive(source, 1, 1)
			_, err := k.startMove(k.arn(dead), "", nil)
			k.ok("StartMessageMoveTask", err)
			k.awaitMove(k.arn(dead))
			m := k.one(source)
			if str(m.MessageId) == str(sent.MessageId) {
				k.failf("the same MessageId")
			}
			equal(k, "count", m.Attributes["ApproximateReceiveCount"], "1")
		}},
	}
}
