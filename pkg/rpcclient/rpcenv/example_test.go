package rpcenv_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcenv"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var greet = rpcclient.NewMethod[string, string]("greet")

// In an injected pod the program is told nothing: which channels there are, where replies come to and in
// which region is in its environment.
func ExampleNewRequester() {
	defer injectedPod()()
	defer serveGreetings()()
	ctx := context.Background()
	requester, err := rpcenv.NewRequester(ctx)
	if err != nil {
		panic(err)
	}
	login, err := requester.Channel("login")
	if err != nil {
		panic(err)
	}
	fmt.Println(greet.Call(ctx, login, "Ann"))
	fmt.Println(requester.Shutdown(ctx))
	// Output:
	// Hello, Ann <nil>
	// <nil>
}

func ExampleNewResponder() {
	defer injectedPod()()
	ctx, stop := context.WithCancel(context.Background()) // of signal.NotifyContext, in a program
	responder, err := rpcenv.NewResponder(ctx, rpcclient.WithReceiveWait(time.Second), rpcclient.WithConcurrency(16))
	if err != nil {
		panic(err)
	}
	greet.Handle(responder, func(_ context.Context, name string) (string, error) { return "Hello, " + name, nil })
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	stop()
	fmt.Println(<-served)
	// Output: <nil>
}

// serveGreetings runs another pod's responder until it is told to end.
func serveGreetings() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	responder, err := rpcenv.NewResponder(ctx, rpcclient.WithReceiveWait(time.Second))
	if err != nil {
		panic(err)
	}
	greet.Handle(responder, func(_ context.Context, name string) (string, error) { return "Hello, " + name, nil })
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	return func() {
		stop()
		if err := <-served; err != nil {
			panic(err)
		}
	}
}

// injectedPod puts into the environment what the operator's webhook does, for an SQS server on loopback.
func injectedPod() (end func()) {
	server := sqstest.New()
	if err := server.Listen("127.0.0.1:0"); err != nil {
		panic(err)
	}
	queue := func(name string) string {
		out, err := server.Client().CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String(name)})
		if err != nil {
			panic(err)
		}
		u, err := url.Parse(*out.QueueUrl)
		if err != nil {
			panic(err)
		}
		return server.URL + u.Path
	}
	before := map[string]string{}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
		injected.EnvReplyQueueURL: queue("rq_c_r_1"), injected.EnvRegion: "us-east-1", injected.EnvEndpoint: server.URL,
		injected.EnvChannels: injected.Encode(injected.Channels{"login": {URL: queue("rq_c_ns_login"), Role: injected.RoleBoth}}),
		injected.EnvReturnAddresses: injected.Encode(injected.ReturnAddresses{
			AccountID: "000000000000", Region: "us-east-1", Endpoint: server.URL, Prefixes: []string{"rq_c_r_"}}),
	} {
		before[name] = os.Getenv(name)
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return func() {
		for name, value := range before {
			_ = os.Setenv(name, value)
		}
		server.Close()
	}
}
