package conformance

import (
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// onMissingQueue is every action that takes a queue's URL, asked with the URL of a queue that there is none of, and right in
// all else.
var onMissingQueue = map[string]func(k *kit, url *string) error{
	"AddPermission": func(k *kit, u *string) error {
		_, err := k.c.AddPermission(k.ctx, &sqs.AddPermissionInput{QueueUrl: u, Label: aws.String("l"), AWSAccountIds: []string{"111111111111"}, Actions: []string{"SendMessage"}})
		return err
	},
	"ChangeMessageVisibility": func(k *kit, u *string) error {
		_, err := k.c.ChangeMessageVisibility(k.ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: u, ReceiptHandle: k.someHandle(), VisibilityTimeout: 1})
		return err
	},
	"ChangeMessageVisibilityBatch": func(k *kit, u *string) error {
		_, err := k.c.ChangeMessageVisibilityBatch(k.ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: u, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
			{Id: aws.String("1"), ReceiptHandle: k.someHandle(), VisibilityTimeout: 1},
		}})
		return err
	},
	"DeleteMessage": func(k *kit, u *string) error {
		_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: k.someHandle()})
		return err
	},
	"DeleteMessageBatch": func(k *kit, u *string) error {
		_, err := k.c.DeleteMessageBatch(k.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: u, Entries: []types.DeleteMessageBatchRequestEntry{
			{Id: aws.String("1"), ReceiptHandle: k.someHandle()},
		}})
		return err
	},
	"DeleteQueue": func(k *kit, u *string) error {
		_, err := k.c.DeleteQueue(k.ctx, &sqs.DeleteQueueInput{QueueUrl: u})
		return err
	},
	"GetQueueAttributes": func(k *kit, u *string) error {
		_, err := k.c.GetQueueAttributes(k.ctx, &sqs.GetQueueAttributesInput{QueueUrl: u, AttributeNames: []types.QueueAttributeName{"All"}})
		return err
	},
	"ListDeadLetterSourceQueues": func(k *kit, u *string) error {
		_, err := k.c.ListDeadLetterSourceQueues(k.ctx, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: u})
		return err
	},
	"ListQueueTags": func(k *kit, u *string) error {
		_, err := k.c.ListQueueTags(k.ctx, &sqs.ListQueueTagsInput{QueueUrl: u})
		return err
	},
	"PurgeQueue": func(k *kit, u *string) error {
		_, err := k.c.PurgeQueue(k.ctx, &sqs.PurgeQueueInput{QueueUrl: u})
		return err
	},
	"ReceiveMessage": func(k *kit, u *string) error {
		_, err := k.c.ReceiveMessage(k.ctx, &sqs.ReceiveMessageInput{QueueUrl: u})
		return err
	},
	"RemovePermission": func(k *kit, u *string) error {
		_, err := k.c.RemovePermission(k.ctx, &sqs.RemovePermissionInput{QueueUrl: u, Label: aws.String("l")})
		return err
	},
	"SendMessage": func(k *kit, u *string) error {
		_, err := k.trySend(*u, "x")
		return err
	},
	"SendMessageBatch": func(k *kit, u *string) error {
		_, err := k.c.SendMessageBatch(k.ctx, &sqs.SendMessageBatchInput{QueueUrl: u, Entries: []types.SendMessageBatchRequestEntry{
			{Id: aws.String("1"), MessageBody: aws.String("x")},
		}})
		return err
	},
	"SetQueueAttributes": func(k *kit, u *string) error { return k.trySet(*u, attrs{"DelaySeconds": "1"}) },
	"TagQueue":           func(k *kit, u *string) error { return k.tag(*u, map[string]string{"a": "b"}) },
	"UntagQueue": func(k *kit, u *string) error {
		_, err := k.c.UntagQueue(k.ctx, &sqs.UntagQueueInput{QueueUrl: u, TagKeys: []string{"a"}})
		return err
	},
}

// someHandle is the receipt handle of another queue's message.
func (k *kit) someHandle() *string {
	u := k.queue(nil)
	k.send(u, "x")
	return k.one(u).ReceiptHandle
}

func missingQueueChecks() []check {
	var all []check
	for action, ask := range onMissingQueue {
		all = append(all, check{"missing-queue/" + action, "API " + action + ", Errors (QueueDoesNotExist)", 0, func(k *kit) {
			u := k.queue(nil) + "-not"
			err := ask(k, &u)
			k.refused(err, noQueue, bad)
			typed[*types.QueueDoesNotExist](k, err)
		}})
	}
	return all
}

// TestEveryActionIsAskedForAMissingQueue: every action whose input has a queue's URL.
func TestEveryActionIsAskedForAMissingQueue(t *testing.T) {
	client := reflect.TypeFor[*sqs.Client]()
	for i := range client.NumMethod() {
		m := client.Method(i)
		if m.Type.NumIn() < 3 || m.Type.In(2).Kind() != reflect.Pointer || !strings.HasSuffix(m.Type.In(2).Elem().Name(), "Input") {
			continue
		}
		if _, ok := m.Type.In(2).Elem().FieldByName("QueueUrl"); ok != (onMissingQueue[m.Name] != nil) {
			t.Errorf("%s: takes a queue's URL: %v, asked for a missing queue: %v", m.Name, ok, onMissingQueue[m.Name] != nil)
		}
	}
}
