package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func Example() {
	ctx := context.Background()
	server := sqstest.New()
	client := server.Client()

	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String("two teas")}); err != nil {
		log.Fatal(err)
	}
	got, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, WaitTimeSeconds: 20})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*got.Messages[0].Body)

	info, _ := server.Queue("orders")
	fmt.Println(info.InFlight, "in flight,", server.Requests(sqstest.OnQueue("orders")), "requests")
	// Output:
	// two teas
	// 1 in flight, 3 requests
}

// A clock of the test's own: the visibility timeout passes when the test says so.
func ExampleManualClock() {
	ctx := context.Background()
	clock := sqstest.NewManualClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	client := sqstest.New(sqstest.WithClock(clock)).Client()
	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String("x")}); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		got, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, VisibilityTimeout: 30})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(got.Messages))
		clock.Advance(15 * time.Second)
	}
	// Output:
	// 1
	// 0
	// 1
}

// Every third send is throttled; the SDK's retries get over it, and the server knows what that cost.
func ExampleServer_SetFaults() {
	ctx := context.Background()
	server := sqstest.New()
	client := server.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		log.Fatal(err)
	}
	server.SetFaults(sqstest.Plan{Seed: 7, Rules: []sqstest.Rule{
		{Fault: sqstest.Throttle, Action: "SendMessage", Skip: 1, Count: 1},
	}})
	for range 3 {
		_, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String("x")})
		var throttled *types.RequestThrottled
		fmt.Println(errors.As(err, &throttled))
	}
	fmt.Println(server.FaultHits())
	// Output:
	// false
	// true
	// false
	// [1]
}

// The plan of a failed run, from its log, brings the same faults again.
func ExampleParsePlan() {
	plan, err := sqstest.ParsePlan(`{"seed":7,"rules":[{"fault":"Delay","action":"ReceiveMessage","probability":0.1,"duration":"2s"}]}`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plan)
	// Output:
	// {"seed":7,"rules":[{"fault":"Delay","action":"ReceiveMessage","probability":0.1,"duration":"2s"}]}
}

// A benchmark against a server that takes its time, as SQS does: the same plan behind cmd/sqstest --faults aws-like.
func ExampleAWSLike() {
	server := sqstest.New(sqstest.WithFaults(sqstest.AWSLike(1)))
	client := server.Client()
	start := time.Now()
	if _, err := client.ListQueues(context.Background(), &sqs.ListQueuesInput{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Since(start) > time.Millisecond)
	fmt.Println(sqstest.AWSLike(1))
	// Output:
	// true
	// {"seed":1,"rules":[{"fault":"Delay","spread":0.4,"duration":"5ms"},{"fault":"DelayAfter","spread":0.4,"duration":"5ms"},{"fault":"Sharded","probability":0.9},{"fault":"LoneWakeUp"},{"fault":"AbandonPoll"}]}
}

// What something costs: SQS bills each request, whatever is in it.
func ExampleServer_Requests() {
	ctx := context.Background()
	server := sqstest.New()
	client := server.Client()
	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	if err != nil {
		log.Fatal(err)
	}
	batch := []types.SendMessageBatchRequestEntry{
		{Id: aws.String("1"), MessageBody: aws.String("two teas")},
		{Id: aws.String("2"), MessageBody: aws.String("a cake")},
	}
	for range 3 {
		if _, err := client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: queue.QueueUrl, Entries: batch}); err != nil {
			log.Fatal(err)
		}
	}
	sends := sqstest.Action("SendMessage", "SendMessageBatch")
	fmt.Println(server.Requests(sends, sqstest.OnQueue("orders")), "requests for", server.Entries(sends), "messages")
	fmt.Println(server.Requests(sqstest.Failed()), "failures")
	fmt.Println(server.RequestsByAction())
	// Output:
	// 3 requests for 6 messages
	// 0 failures
	// map[CreateQueue:1 SendMessageBatch:3]
}

// That something costs exactly so much.
func ExampleServer_AssertRequests() {
	t := &testing.T{} // the test's own
	server := sqstest.New()
	client := server.Client()
	server.AssertRequests(t, map[string]int{"ListQueues": 1}, func() {
		if _, err := client.ListQueues(context.Background(), &sqs.ListQueuesInput{}); err != nil {
			log.Fatal(err)
		}
	})
	fmt.Println("failed:", t.Failed())
	// Output:
	// failed: false
}

// A Server is an http.Handler: it can stand behind any listener, TLS for one.
func ExampleServer_ServeHTTP() {
	server := sqstest.New()
	front := httptest.NewTLSServer(server)
	defer front.Close()
	client := server.Client(func(o *sqs.Options) {
		o.BaseEndpoint = aws.String(front.URL)
		o.HTTPClient = front.Client()
	})
	queue, err := client.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*queue.QueueUrl == front.URL+"/000000000000/q")
	// Output:
	// true
}
