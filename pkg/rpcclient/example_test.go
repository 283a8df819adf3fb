package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

type greeting struct {
	Name string `json:"name"`
}

// Both sides share the method.
var greet = rpcclient.NewMethod[greeting, string]("greet")

// A requester and a responder in one process, on an SQS server in memory. In a pod, rpcenv makes both
// from what the operator injected.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	client := sqstest.New().Client() // or sqs.NewFromConfig
	login := rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login")}
	replies := createQueue(client, "rq_c_r_1")

	responder, err := rpcclient.NewResponder(client, rpcclient.WithChannels(login), rpcclient.WithReceiveWait(time.Second))
	if err != nil {
		panic(err)
	}
	greet.Handle(responder, func(_ context.Context, g greeting) (string, error) {
		if g.Name == "" {
			return "", rpcclient.Errorf(rpcclient.InvalidArgument, "a name is needed")
		}
		return "Hello, " + g.Name, nil
	})
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()

	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(replies), rpcclient.WithChannels(login))
	if err != nil {
		panic(err)
	}
	channel, err := requester.Channel("login")
	if err != nil {
		panic(err)
	}
	reply, err := greet.Call(ctx, channel, greeting{Name: "Ann"}, rpcclient.CallTimeout(5*time.Second))
	fmt.Println(reply, err)

	_, err = greet.Call(ctx, channel, greeting{})
	var e *rpcclient.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Outcome, e.Message)
	}

	// What makes calls stops first here: the handlers make none.
	if err := requester.Shutdown(ctx); err != nil {
		panic(err)
	}
	cancel()
	fmt.Println(<-served)
	// Output:
	// Hello, Ann <nil>
	// INVALID_ARGUMENT executed a name is needed
	// <nil>
}

func createQueue(client *sqs.Client, name string) string {
	in := &sqs.CreateQueueInput{QueueName: aws.String(name)}
	if strings.HasSuffix(name, ".fifo") {
		in.Attributes = map[string]string{"FifoQueue": "true"}
	}
	out, err := client.CreateQueue(context.Background(), in)
	if err != nil {
		panic(err)
	}
	return *out.QueueUrl
}

// The outcome decides whether a call may be repeated.
func ExampleOutcome() {
	mayRepeat := func(err error, idempotent bool) bool {
		var e *rpcclient.Error
		if !errors.As(err, &e) {
			return false
		}
		switch e.Outcome {
		case rpcclient.NotSent, rpcclient.Rejected:
			return true
		case rpcclient.MaybeExecuted:
			return idempotent
		default: // Executed: that is the answer
			return false
		}
	}
	lost := &rpcclient.Error{Code: rpcclient.Unavailable, Outcome: rpcclient.MaybeExecuted}
	fmt.Println(mayRepeat(lost, true), mayRepeat(lost, false))
	// Output: true false
}
