package virtualqueue

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The messages of a virtual queue from which nobody receives come back again and again while others poll the host
// queue: some are kept, once each, and none is lost.
func TestBufferOfAnIdleQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		client := sqstest.New().Client()
		host, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("rq_c_r_1")})
		if err != nil {
			t.Fatal(err)
		}
		c := New(client)
		create := func(name string) *string {
			out, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{
				HostQueueURL: *host.QueueUrl, IdleRetention: "86400"}})
			if err != nil {
				t.Fatal(err)
			}
			return out.QueueUrl
		}
		slow, busy := create("slow"), create("busy")
		const sent = 35
		for i := range sent {
			if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: slow, MessageBody: aws.String(strconv.Itoa(i))}); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); {
			if _, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: busy, WaitTimeSeconds: 20}); err != nil {
				t.Fatal(err)
			}
			c.mu.Lock()
			n := len(c.hosts[*host.QueueUrl].queues["slow"].buffer)
			c.mu.Unlock()
			if n > idleBuffer {
				t.Fatalf("%d messages are kept", n)
			}
		}
		got := map[string]bool{}
		for end := time.Now().Add(5 * time.Minute); len(got) < sent && time.Now().Before(end); {
			out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: slow, WaitTimeSeconds: 20, MaxNumberOfMessages: 10})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out.Messages {
				if got[*m.Body] {
					t.Errorf("%s came twice", *m.Body)
				}
				got[*m.Body] = true
				if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: slow, ReceiptHandle: m.ReceiptHandle}); err != nil {
					t.Error(err)
				}
			}
		}
		if len(got) != sent {
			t.Errorf("%d of %d messages came", len(got), sent)
		}
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}
