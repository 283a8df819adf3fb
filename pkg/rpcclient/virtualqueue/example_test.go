package virtualqueue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/virtualqueue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// newHost makes a client over a host queue, as a pod's own reply queue is one.
func newHost(opts ...virtualqueue.Option) (queues *virtualqueue.Client, hostURL string) {
	client := sqstest.New().Client() // or sqs.NewFromConfig
	host, err := client.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String("rq_c_r_1")})
	if err != nil {
		panic(err)
	}
	return virtualqueue.New(client, opts...), *host.QueueUrl
}

// newQueue makes a virtual queue and sends it a message.
func newQueue(queues *virtualqueue.Client, hostURL, body string) (queueURL *string) {
	created, err := queues.CreateQueue(context.Background(), &sqs.CreateQueueInput{
		QueueName: aws.String("replies-to-42"), Attributes: map[string]string{virtualqueue.HostQueueURL: hostURL},
	})
	if err != nil {
		panic(err)
	}
	if _, err := queues.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: created.QueueUrl, MessageBody: &body}); err != nil {
		panic(err)
	}
	return created.QueueUrl
}

// receive takes the message of a virtual queue.
func receive(queues *virtualqueue.Client, queueURL *string) types.Message {
	out, err := queues.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: queueURL, WaitTimeSeconds: 20})
	if err != nil {
		panic(err)
	}
	if len(out.Messages) == 0 {
		return types.Message{Body: aws.String("nothing")}
	}
	return out.Messages[0]
}

func ExampleNew() {
	queues, host := newHost(virtualqueue.WithVisibility(time.Minute),
		virtualqueue.WithOrphans(func(_, name string, _ types.Message) bool { return name == "" })) // drop what names no queue
	fmt.Println(*receive(queues, newQueue(queues, host, "42 is ready")).Body)
	fmt.Println(queues.Close(context.Background()))
	// Output:
	// 42 is ready
	// <nil>
}

// A virtual queue costs no request. One that nobody uses for its retention is forgotten.
func ExampleClient_CreateQueue() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	created, err := queues.CreateQueue(context.Background(), &sqs.CreateQueueInput{
		QueueName:  aws.String("replies-to-42"),
		Attributes: map[string]string{virtualqueue.HostQueueURL: host, virtualqueue.IdleRetention: "300"},
	})
	fmt.Println(*created.QueueUrl == host+"#replies-to-42", err)
	// Output: true <nil>
}

// The URL of a virtual queue is where others send to, with this package or the Java client.
func ExampleClient_SendMessage() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	queue := newQueue(queues, host, "first")
	if _, err := queues.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: queue, MessageBody: aws.String("second")}); err != nil {
		panic(err)
	}
	got := map[string]bool{}
	for len(got) < 2 {
		m := receive(queues, queue)
		got[*m.Body] = true
	}
	fmt.Println(got)
	// Output: map[first:true second:true]
}

func ExampleClient_ReceiveMessage() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	queue := newQueue(queues, host, "42 is ready")
	out, err := queues.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: queue, WaitTimeSeconds: 20})
	if err != nil {
		panic(err)
	}
	for i := range out.Messages {
		fmt.Println(*out.Messages[i].Body)
	}
	// Output: 42 is ready
}

func ExampleClient_DeleteMessage() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	queue := newQueue(queues, host, "42 is ready")
	m := receive(queues, queue)
	_, err := queues.DeleteMessage(context.Background(), &sqs.DeleteMessageInput{QueueUrl: queue, ReceiptHandle: m.ReceiptHandle})
	fmt.Println(err)
	// Output: <nil>
}

// A message that cannot be dealt with now comes back at once.
func ExampleClient_ChangeMessageVisibility() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	queue := newQueue(queues, host, "42 is ready")
	m := receive(queues, queue)
	if _, err := queues.ChangeMessageVisibility(context.Background(), &sqs.ChangeMessageVisibilityInput{
		QueueUrl: queue, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0,
	}); err != nil {
		panic(err)
	}
	fmt.Println(*receive(queues, queue).Body)
	// Output: 42 is ready
}

// What is in the queue goes with it.
func ExampleClient_DeleteQueue() {
	queues, host := newHost()
	defer func() { _ = queues.Close(context.Background()) }()
	queue := newQueue(queues, host, "42 is ready")
	if _, err := queues.DeleteQueue(context.Background(), &sqs.DeleteQueueInput{QueueUrl: queue}); err != nil {
		panic(err)
	}
	_, err := queues.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: queue})
	var missing *types.QueueDoesNotExist
	fmt.Println(errors.As(err, &missing))
	// Output: true
}

func ExampleClient_Close() {
	queues, host := newHost()
	queue := newQueue(queues, host, "42 is ready")
	receive(queues, queue)
	ctx, stop := context.WithTimeout(context.Background(), 25*time.Second)
	defer stop()
	fmt.Println(queues.Close(ctx))
	// Output: <nil>
}
