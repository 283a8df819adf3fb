// Command sdkonly uses the SDK and its configuration for what a call needs of SQS.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func main() {
	if err := call(context.Background(), os.Getenv("QUEUE"), os.Getenv("REPLIES")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(ctx context.Context, queue, replies string) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	client := sqs.NewFromConfig(cfg)
	body, err := json.Marshal([]int{1, 2, 3})
	if err != nil {
		return err
	}
	id, text := "0", string(body)
	if _, err := client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
		QueueUrl: &queue, Entries: []types.SendMessageBatchRequestEntry{{Id: &id, MessageBody: &text}},
	}); err != nil {
		return err
	}
	out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &replies, WaitTimeSeconds: 20})
	if err != nil {
		return err
	}
	for i := range out.Messages {
		m := &out.Messages[i]
		var total int
		if err := json.Unmarshal([]byte(*m.Body), &total); err != nil {
			return err
		}
		fmt.Println(total)
		if _, err := client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{
			QueueUrl: &replies, Entries: []types.DeleteMessageBatchRequestEntry{{Id: &id, ReceiptHandle: m.ReceiptHandle}},
		}); err != nil {
			return err
		}
	}
	return nil
}
