package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	transport "github.com/aws/smithy-go/endpoints"
	"github.com/aws/smithy-go/middleware"
)

// newClient is the SQS client of every row: no retries, and connections for all pollers and senders.
// pkg/rpcclient derives its own from it, with the same options.
func newClient(endpoint string, m *meter) *sqs.Client {
	address, err := url.Parse(endpoint)
	if err != nil {
		panic(err) // it comes from the server that this program has started
	}
	tr := &http.Transport{MaxIdleConnsPerHost: 4096, IdleConnTimeout: 90 * time.Second}
	return sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: &endpoint,
		// The SDK's resolver goes through all its rules for every request. pkg/rpcclient replaces it; no row shall gain by that.
		EndpointResolverV2: fixedEndpoint(*address),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDBENCH", SecretAccessKey: "bench"}, nil
		}),
		Retryer:    aws.NopRetryer{},
		HTTPClient: wholeAnswers{tr},
		APIOptions: []func(*middleware.Stack) error{m.attach},
	})
}

type fixedEndpoint url.URL

func (e fixedEndpoint) ResolveEndpoint(context.Context, sqs.EndpointParameters) (transport.Endpoint, error) {
	return transport.Endpoint{URI: url.URL(e)}, nil
}

// wholeAnswers gives net/http the request's body as one that it knows to be in memory. Otherwise it sends header and
// body by themselves, and a server that answers fast would have its answer torn down. (pkg/rpcclient does the same,
// and says more; no row shall gain by that.)
type wholeAnswers struct{ transport http.RoundTripper }

var inMemory = reflect.TypeOf(io.NopCloser(bytes.NewReader(nil)))

func (d wholeAnswers) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.ContentLength > 0 && reflect.TypeOf(r.Body) != inMemory {
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, err
		}
		r = r.WithContext(r.Context()) // a copy
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	return d.transport.RoundTrip(r)
}

// queueURL is a queue's URL on the server.
func queueURL(endpoint, name string) string {
	return strings.TrimSuffix(endpoint, "/") + "/000000000000/" + name
}

// unit is the payload that SQS bills as one request.
const unit = 64 << 10

// meter counts the requests of one process, and the units of 64 KB that they are billed as.
type meter struct{ requests, units atomic.Int64 }

func (m *meter) attach(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Meter",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			out, md, err := next.HandleInitialize(ctx, in)
			m.requests.Add(1)
			m.units.Add(int64(max(1, (payload(in.Parameters)+payload(out.Result)+unit-1)/unit)))
			return out, md, err
		}), middleware.After)
}

// payload is what SQS counts of a request or an answer: bodies, and attributes' names, types and values.
func payload(v any) int {
	n := 0
	switch v := v.(type) {
	case *sqs.SendMessageInput:
		n = len(*v.MessageBody) + attributesSize(v.MessageAttributes)
	case *sqs.SendMessageBatchInput:
		for i := range v.Entries {
			n += len(*v.Entries[i].MessageBody) + attributesSize(v.Entries[i].MessageAttributes)
		}
	case *sqs.ReceiveMessageOutput:
		if v == nil {
			return 0
		}
		for i := range v.Messages {
			n += len(*v.Messages[i].Body) + attributesSize(v.Messages[i].MessageAttributes)
		}
	}
	return n
}

func attributesSize(all map[string]types.MessageAttributeValue) int {
	n := 0
	for name, a := range all {
		n += len(name) + len(aws.ToString(a.DataType)) + len(aws.ToString(a.StringValue)) + len(a.BinaryValue)
	}
	return n
}
