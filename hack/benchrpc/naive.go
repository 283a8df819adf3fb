package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// naiveCaller is what one writes first: each caller has a reply queue of its own, names it in the request, and
// sends, receives and deletes one message at a time.
type naiveCaller struct {
	client *sqs.Client
	url    string
	share  []int
	base   []int // of each requester's callers
	queue  func(i int) string
	body   string
}

const naiveReplyTo = "ReplyTo"

func newNaiveCaller(s spec, client *sqs.Client) *naiveCaller {
	c := &naiveCaller{
		client: client, url: queueURL(s.URL, requestQueue), share: spread(s.Concurrency, s.Requesters),
		queue: func(i int) string { return queueURL(s.URL, replyQueue(i)) }, body: strings.Repeat("x", bodyBytes),
	}
	n := 0
	for _, k := range c.share {
		c.base = append(c.base, n)
		n += k
	}
	return c
}

func (c *naiveCaller) run(ctx context.Context, d time.Duration) ([]time.Duration, int) {
	return loops(d, c.share, func(who, n int) error { return c.call(ctx, c.base[who]+n) })
}

func (c *naiveCaller) one(ctx context.Context) error { return c.call(ctx, 0) }

func (c *naiveCaller) call(ctx context.Context, i int) error {
	queue := c.queue(i)
	_, err := c.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: &c.url, MessageBody: &c.body,
		MessageAttributes: map[string]types.MessageAttributeValue{
			naiveReplyTo: {DataType: aws.String("String"), StringValue: &queue},
		},
	})
	if err != nil {
		return err
	}
	out, err := c.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 1, WaitTimeSeconds: 20})
	if err != nil {
		return err
	}
	if len(out.Messages) != 1 {
		return errors.New("no reply in 20 s")
	}
	_, err = c.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: out.Messages[0].ReceiptHandle})
	return err
}

// naiveLoops is how many loops a naive responder has: as many as ours handles at once.
const naiveLoops = 64

func serveNaive(ctx context.Context, s spec, client *sqs.Client) {
	url := queueURL(s.URL, requestQueue)
	var once sync.Once
	for range naiveLoops {
		go func() { // ends with the process
			for ctx.Err() == nil {
				if err := answerOne(ctx, client, url, s.Handler); err != nil {
					once.Do(func() { fmt.Fprintln(os.Stderr, "benchrpc: naive responder:", err) })
				}
			}
		}()
	}
}

func answerOne(ctx context.Context, client *sqs.Client, url string, takes time.Duration) error {
	out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: 1, WaitTimeSeconds: 20, MessageAttributeNames: []string{naiveReplyTo},
	})
	if err != nil || len(out.Messages) == 0 {
		return err
	}
	m := out.Messages[0]
	handle(ctx, takes)
	if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: m.MessageAttributes[naiveReplyTo].StringValue, MessageBody: m.Body,
	}); err != nil {
		return err
	}
	_, err = client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	return err
}
