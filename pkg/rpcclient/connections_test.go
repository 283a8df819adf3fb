package rpcclient_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// With the SDK's own HTTP client, nothing is left of a requester and a responder that were shut down: no connection,
// and no goroutine of one.
func TestShutdownClosesConnections(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := sqstest.New()
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	client := sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: &s.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "A", SecretAccessKey: "B"}, nil
		}),
	})
	p := &pair{server: s, client: s.Client()}
	p.url, p.replyURL = s.URL+"/000000000000/"+requestQueue, s.URL+"/000000000000/"+replyQueue
	p.queue(t, requestQueue)
	p.queue(t, replyQueue)
	options := []rpcclient.Option{
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url}), rpcclient.WithReceiveWait(time.Second),
	}
	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(p.replyURL), options...)
	if err != nil {
		t.Fatal(err)
	}
	responder, err := rpcclient.NewResponder(client, options...)
	if err != nil {
		t.Fatal(err)
	}
	sum.Handle(responder, addUp)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	channel, err := requester.Channel("login")
	if err != nil {
		t.Fatal(err)
	}
	var all []*rpcclient.Pending[sumReply]
	for range 100 {
		all = append(all, sum.Start(t.Context(), channel, sumRequest{}))
	}
	for _, call := range all {
		if _, err := call.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := requester.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	// The server is still there, and would keep the connections: this side has to close them.
	if err := goleak.Find(before, goleak.IgnoreAnyFunction("net/http.(*Server).Serve"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); err != nil {
		t.Error(err)
	}
	s.Close()
}

// A time limit of the HTTP client that would end every long poll is none of ours, or an error.
func TestHTTPClientWithATimeLimit(t *testing.T) {
	options := []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login"})}
	client := sqs.New(sqs.Options{Region: "eu-west-1", HTTPClient: &http.Client{Timeout: 10 * time.Second}})
	for name, err := range map[string]error{
		"requester": func() error {
			_, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue("https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_1"), options...)
			return err
		}(),
		"responder": func() error { _, err := rpcclient.NewResponder(client, options...); return err }(),
		"no client": func() error { _, err := rpcclient.NewResponder(nil, options...); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "SQS client") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
