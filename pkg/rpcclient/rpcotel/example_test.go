package rpcotel_test

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcotel"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func ExampleOptions() {
	ctx := context.Background()
	client := sqstest.New().Client() // or sqs.NewFromConfig
	url := func(name string) string {
		out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)})
		if err != nil {
			panic(err)
		}
		return *out.QueueUrl
	}
	numbers := rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "numbers", URL: url("rq_c_ns_numbers")})

	// In a program that has set OpenTelemetry's globals: rpcotel.Options().
	spans := tracetest.NewInMemoryExporter()
	instrumented := rpcotel.Options(
		rpcotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))),
		rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider()), // with a reader, in a program
		rpcotel.WithPropagator(propagation.TraceContext{}))

	responder, err := rpcclient.NewResponder(client, append(instrumented, numbers)...)
	if err != nil {
		panic(err)
	}
	double.Handle(responder, func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	go func() { _ = responder.Serve(ctx) }()
	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(url("rq_c_r_1")), append(instrumented, numbers)...)
	if err != nil {
		panic(err)
	}
	channel, err := requester.Channel("numbers")
	if err != nil {
		panic(err)
	}
	if _, err := double.Call(ctx, channel, 21); err != nil {
		panic(err)
	}
	now, cancel := context.WithCancel(ctx)
	cancel()
	_, _ = requester.Shutdown(now), responder.Shutdown(now)

	server, call := spans.GetSpans()[0], spans.GetSpans()[1]
	fmt.Println(call.SpanKind, call.Name)
	fmt.Println(server.SpanKind, server.Name, server.Parent.SpanID() == call.SpanContext.SpanID())
	// Output:
	// client double
	// server double true
}
