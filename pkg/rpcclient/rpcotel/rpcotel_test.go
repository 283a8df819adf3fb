package rpcotel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcotel"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpctest"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	double = rpcclient.NewMethod[int, int]("double")
	flaky  = rpcclient.NewMethod[string, string]("flaky", rpcclient.Idempotent())
	log    = rpcclient.NewMethod[string, string]("log")

	counting = rpcclient.NewMethod[int, int]("counting")
)

// observed is a world whose requester and responder are instrumented, and what they emit.
type observed struct {
	t       *testing.T
	world   *rpctest.World
	channel *rpcclient.Channel
	tracers *sdktrace.TracerProvider
	spans   *tracetest.SpanRecorder
	reader  *sdkmetric.ManualReader
	handled chan context.Context
}

func observe(t *testing.T, inner ...rpcclient.Option) *observed {
	t.Helper()
	o := &observed{t: t, spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader(), handled: make(chan context.Context, 100)}
	o.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(o.spans))
	options := rpcotel.Options(
		rpcotel.WithTracerProvider(o.tracers),
		rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.reader))),
		rpcotel.WithPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})))
	options = append(options, inner...)
	o.world = rpctest.New(t)
	o.world.Channel("numbers")
	o.world.Serve(func(r *rpcclient.Responder) {
		double.Handle(r, func(ctx context.Context, n int) (int, error) {
			o.handled <- ctx
			switch {
			case n < 0:
				return 0, rpcclient.Errorf(rpcclient.InvalidArgument, "negative")
			case n == 13:
				panic("unlucky")
			}
			return 2 * n, nil
		})
		counting.HandleStream(r, func(_ context.Context, n int, send func(int) error) error {
			for i := range n {
				if err := send(i); err != nil {
					return err
				}
			}
			return nil
		})
		var tries atomic.Int32
		flaky.Handle(r, func(_ context.Context, s string) (string, error) {
			if tries.Add(1) == 1 {
				return "", rpcclient.Errorf(rpcclient.Unavailable, "not yet")
			}
			return s, nil
		})
		log.Handle(r, func(ctx context.Context, s string) (string, error) {
			o.handled <- ctx
			return s, nil
		})
	}, options...)
	requester := o.world.Requester(options...)
	channel, err := requester.Channel("numbers")
	if err != nil {
		t.Fatal(err)
	}
	o.channel = channel
	return o
}

// one returns the only ended span of a kind.
func (o *observed) one(kind trace.SpanKind) sdktrace.ReadOnlySpan {
	o.t.Helper()
	synctest.Wait()
	var found []sdktrace.ReadOnlySpan
	for _, s := range o.spans.Ended() {
		if s.SpanKind() == kind {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		o.t.Fatalf("%d spans of kind %s, want 1", len(found), kind)
	}
	return found[0]
}

func attributesOf(s sdktrace.ReadOnlySpan) map[string]string {
	out := map[string]string{}
	for _, kv := range s.Attributes() {
		out[string(kv.Key)] = kv.Value.String()
	}
	return out
}

func (o *observed) expectAttributes(s sdktrace.ReadOnlySpan, want map[string]string) {
	o.t.Helper()
	got := attributesOf(s)
	for k, v := range want {
		if got[k] != v {
			o.t.Errorf("span %s: %s is %q, want %q", s.Name(), k, got[k], v)
		}
	}
}

// points returns count and sum of a metric's points that have all the attributes.
func (o *observed) points(name string, having ...attribute.KeyValue) (count uint64, sum float64) {
	o.t.Helper()
	synctest.Wait() // a responder counts after its reply is on its way
	var all metricdata.ResourceMetrics
	if err := o.reader.Collect(context.Background(), &all); err != nil {
		o.t.Fatal(err)
	}
	matches := func(set attribute.Set) bool {
		return !slices.ContainsFunc(having, func(kv attribute.KeyValue) bool {
			v, ok := set.Value(kv.Key)
			return !ok || v != kv.Value
		})
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch d := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					if matches(p.Attributes) {
						count, sum = count+p.Count, sum+p.Sum
					}
				}
			case metricdata.Histogram[int64]:
				for _, p := range d.DataPoints {
					if matches(p.Attributes) {
						count, sum = count+p.Count, sum+float64(p.Sum)
					}
				}
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					if matches(p.Attributes) {
						count, sum = count+1, sum+float64(p.Value)
					}
				}
			default:
				o.t.Fatalf("metric %s is a %T", name, d)
			}
		}
	}
	return count, sum
}

func TestACallIsAClientSpanAndItsExecutionItsChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		member, err := baggage.NewMember("tenant", "blue")
		if err != nil {
			t.Fatal(err)
		}
		bag, err := baggage.New(member)
		if err != nil {
			t.Fatal(err)
		}
		ctx, parent := o.tracers.Tracer("test").Start(baggage.ContextWithBaggage(t.Context(), bag), "parent")
		if got, err := double.Call(ctx, o.channel, 21); err != nil || got != 42 {
			t.Fatalf("got %d, %v", got, err)
		}
		parent.End()

		client, server := o.one(trace.SpanKindClient), o.one(trace.SpanKindServer)
		if client.Parent().SpanID() != parent.SpanContext().SpanID() || client.Name() != "double" {
			t.Errorf("client span %q has parent %s", client.Name(), client.Parent().SpanID())
		}
		if server.Parent().SpanID() != client.SpanContext().SpanID() || server.SpanContext().TraceID() != client.SpanContext().TraceID() || server.Name() != "double" {
			t.Errorf("server span %q has parent %s in trace %s", server.Name(), server.Parent().SpanID(), server.SpanContext().TraceID())
		}
		handler := <-o.handled
		if got := baggage.FromContext(handler).Member("tenant").Value(); got != "blue" {
			t.Errorf("the handler's baggage says %q", got)
		}
		if trace.SpanContextFromContext(handler).SpanID() != server.SpanContext().SpanID() {
			t.Error("the handler's context has not the server span")
		}
		o.expectAttributes(client, map[string]string{
			"rpc.system.name": "replyqueue", "rpc.method": "double", "rpc.response.status_code": "OK",
			"messaging.system": "aws_sqs", "messaging.destination.name": "rq_test_ns_numbers",
			"replyqueue.channel": "numbers", "replyqueue.call.outcome": "executed", "replyqueue.call.attempts": "1",
		})
		o.expectAttributes(server, map[string]string{
			"rpc.method": "double", "rpc.response.status_code": "OK", "replyqueue.peer": "native", "replyqueue.request.receive_count": "1",
		})
		id := attributesOf(client)["messaging.message.conversation_id"]
		if id == "" || id != attributesOf(server)["messaging.message.conversation_id"] {
			t.Errorf("the two sides call the call %q and %q", id, attributesOf(server)["messaging.message.conversation_id"])
		}
		if len(id) != 12 {
			t.Errorf("the call ID %q is not the hash", id)
		}
	})
}

func TestErrorsAreTheFaultOfWhoMadeThem(t *testing.T) {
	for name, tc := range map[string]struct {
		n              int
		code           string
		client, server codes.Code
	}{
		"the caller's":    {n: -1, code: "INVALID_ARGUMENT", client: codes.Error, server: codes.Unset},
		"the responder's": {n: 13, code: "INTERNAL", client: codes.Error, server: codes.Error},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := observe(t)
				_, err := double.Call(t.Context(), o.channel, tc.n)
				var e *rpcclient.Error
				if !errors.As(err, &e) || string(e.Code) != tc.code {
					t.Fatalf("got %v", err)
				}
				client, server := o.one(trace.SpanKindClient), o.one(trace.SpanKindServer)
				if client.Status().Code != tc.client || server.Status().Code != tc.server {
					t.Errorf("status of the client's span is %s, of the server's %s", client.Status().Code, server.Status().Code)
				}
				for _, s := range []sdktrace.ReadOnlySpan{client, server} {
					o.expectAttributes(s, map[string]string{"rpc.response.status_code": tc.code, "error.type": tc.code})
				}
				for _, metric := range []string{"rpc.client.call.duration", "rpc.server.call.duration"} {
					if n, _ := o.points(metric, attribute.String("error.type", tc.code)); n != 1 {
						t.Errorf("%s has %d points with the error", metric, n)
					}
				}
			})
		})
	}
}

func TestMetricsCountCallsAndRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		const calls = 5
		for n := range calls {
			if _, err := double.Call(t.Context(), o.channel, n); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // deletes are made
		if n, _ := o.points("rpc.client.call.duration", attribute.String("rpc.method", "double")); n != calls {
			t.Errorf("%d calls were measured", n)
		}
		if n, _ := o.points("rpc.server.call.duration", attribute.String("replyqueue.channel", "numbers")); n != calls {
			t.Errorf("%d executions were measured", n)
		}
		if _, sum := o.points("replyqueue.server.requests.settled", attribute.String("replyqueue.request.situation", "ok")); sum != calls {
			t.Errorf("%v requests were settled", sum)
		}
		if _, sum := o.points("replyqueue.client.calls.pending"); sum != 0 {
			t.Errorf("%v calls are pending", sum)
		}
		if _, sum := o.points("messaging.client.sent.messages"); sum != 2*calls {
			t.Errorf("%v messages were sent, want %d requests and %d replies", sum, calls, calls)
		}
		if _, sum := o.points("messaging.client.consumed.messages", attribute.Bool("messaging.destination.temporary", true)); sum != calls {
			t.Errorf("%v replies were received", sum)
		}
		// What the server counted is what the metric says, but for receives still under way.
		want := 0
		for _, action := range []string{"SendMessageBatch", "DeleteMessageBatch"} {
			want += o.world.Server.Requests(sqstest.Action(action))
			n, _ := o.points("messaging.client.operation.duration", attribute.String("messaging.operation.name", action))
			if int(n) != o.world.Server.Requests(sqstest.Action(action)) {
				t.Errorf("%d %s were measured, the server counts %d", n, action, o.world.Server.Requests(sqstest.Action(action)))
			}
		}
		if want == 0 {
			t.Error("no requests were made")
		}
	})
}

func TestForgottenRequestsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, rpcclient.WithReplyCache(2, 1<<20))
		for n := range 5 {
			if _, err := double.Call(t.Context(), o.channel, n); err != nil {
				t.Fatal(err)
			}
		}
		if _, n := o.points("replyqueue.server.requests.forgotten"); n != 3 {
			t.Errorf("%g requests are counted as forgotten, want 3", n)
		}
	})
}

func TestARetryIsAnEventOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		if _, err := flaky.Call(t.Context(), o.channel, "x"); err != nil {
			t.Fatal(err)
		}
		client := o.one(trace.SpanKindClient)
		if len(client.Events()) != 1 || client.Events()[0].Name != "retry" {
			t.Errorf("events %v", client.Events())
		}
		o.expectAttributes(client, map[string]string{"replyqueue.call.attempts": "2"})
		if _, sum := o.points("replyqueue.client.calls.retries"); sum != 1 {
			t.Errorf("%v retries were counted", sum)
		}
	})
}

func TestUnknownMethodsCannotFillAMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		for _, name := range []string{"a", "b", "c"} {
			_, err := rpcclient.NewMethod[int, int](name).Call(t.Context(), o.channel, 1)
			if rpcclient.CodeOf(err) != rpcclient.Unimplemented {
				t.Fatalf("got %v", err)
			}
		}
		points, sum := o.points("replyqueue.server.requests.settled", attribute.String("rpc.method", "_OTHER"))
		if points != 1 || sum != 3 {
			t.Errorf("%d points with %v requests, want 1 with 3", points, sum)
		}
	})
}

func TestBaggageThatHasNoRoomIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		member, err := baggage.NewMember("big", strings.Repeat("x", 4000))
		if err != nil {
			t.Fatal(err)
		}
		bag, err := baggage.New(member)
		if err != nil {
			t.Fatal(err)
		}
		ctx := baggage.ContextWithBaggage(t.Context(), bag)
		if _, err := double.Call(ctx, o.channel, 1, rpcclient.CallMetadata("mine", strings.Repeat("y", 200))); err != nil {
			t.Fatal(err)
		}
		handler := <-o.handled
		if baggage.FromContext(handler).Len() != 0 {
			t.Error("the baggage travelled")
		}
		info, ok := rpcclient.InfoFromContext(handler)
		if !ok || info.Metadata()["mine"] == "" || info.Metadata()[rpcclient.TraceParent] == "" {
			t.Errorf("the handler sees metadata of %d keys", len(info.Metadata()))
		}
	})
}

// Nor can requests that are over before anybody looks for a handler, or that a default handler serves.
func TestRequestsOfAnyNameAreOneMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		queue := o.world.Channel("anything")
		reader := sdkmetric.NewManualReader()
		o.reader = reader
		o.world.Serve(func(r *rpcclient.Responder) {
			r.HandleDefault(func(context.Context, []byte) ([]byte, error) { return nil, nil })
		}, rpcotel.Options(rpcotel.WithTracerProvider(o.tracers),
			rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))...)
		for i := range 10 {
			for _, budget := range []int{0, 30_000} { // expired, and not
				envelope := fmt.Sprintf(`{"k":"q","v":1,"id":"abcdefghijklmnopqr%d-%d","m":"evil-%d","b":%d,"t":%d,"a":1}`, i, budget, i, budget, time.Now().UnixMilli())
				if _, err := o.world.Server.Client().SendMessage(t.Context(), &sqs.SendMessageInput{
					QueueUrl: &queue.URL, MessageBody: aws.String("1"),
					MessageAttributes: map[string]types.MessageAttributeValue{"replyqueue": {DataType: aws.String("String"), StringValue: &envelope}},
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(5 * time.Second)
		other := attribute.String("rpc.method", "_OTHER")
		if _, sum := o.points("replyqueue.server.requests.settled", other); sum != 20 {
			t.Errorf("%v of 20 requests are _OTHER's", sum)
		}
		if n, _ := o.points("rpc.server.call.duration", other); n != 10 {
			t.Errorf("%d of 10 executions are _OTHER's", n)
		}
		for _, s := range o.spans.Ended() {
			if strings.Contains(s.Name(), "evil") {
				t.Errorf("a span is called %q", s.Name())
			}
		}
	})
}

// The trace context is where tracers of other languages look for it.
func TestTraceparentIsAMessageAttribute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		w := rpctest.New(t)
		queue := w.Channel("unserved")
		requester := w.Requester(rpcotel.Options(rpcotel.WithTracerProvider(o.tracers), rpcotel.WithPropagator(propagation.TraceContext{}))...)
		channel, err := requester.Channel("unserved")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := double.Call(t.Context(), channel, 1, rpcclient.CallTimeout(time.Second)); err == nil {
			t.Fatal("nobody answers")
		}
		out, err := w.Server.Client().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue.URL, MessageAttributeNames: []string{"All"}})
		if err != nil || len(out.Messages) != 1 {
			t.Fatalf("received %v, %v", out, err)
		}
		got := out.Messages[0].MessageAttributes["traceparent"].StringValue
		span := o.one(trace.SpanKindClient)
		if got == nil || !strings.Contains(*got, span.SpanContext().TraceID().String()+"-"+span.SpanContext().SpanID().String()) {
			t.Errorf("traceparent is %v", got)
		}
		if n := len(out.Messages[0].MessageAttributes); n > 4 {
			t.Errorf("%d attributes", n)
		}
	})
}

func TestNotifyIsAProducerSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		if err := log.Notify(t.Context(), o.channel, "hello"); err != nil {
			t.Fatal(err)
		}
		<-o.handled
		producer := o.one(trace.SpanKindProducer)
		if producer.Name() != "send numbers" {
			t.Errorf("the span is %q", producer.Name())
		}
		consumer := o.one(trace.SpanKindConsumer)
		if consumer.Parent().SpanID() != producer.SpanContext().SpanID() || consumer.Name() != "process numbers" {
			t.Errorf("span %q has parent %s", consumer.Name(), consumer.Parent().SpanID())
		}
		for span, operation := range map[sdktrace.ReadOnlySpan]string{producer: "send", consumer: "process"} {
			for _, want := range []attribute.KeyValue{
				attribute.String("messaging.system", "aws_sqs"), attribute.String("messaging.operation.name", operation),
				attribute.String("messaging.operation.type", operation),
			} {
				if !slices.Contains(span.Attributes(), want) {
					t.Errorf("span %q has no %s %q", span.Name(), want.Key, want.Value.AsString())
				}
			}
		}
	})
}

// A call that panics, in its codec, in an interceptor or in a stream's loop, is a failed one.
func TestCallThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			for n, err := range counting.Stream(t.Context(), o.channel, 5) {
				panic(fmt.Sprint("in the loop: ", n, err))
			}
		}()
		if span := o.one(trace.SpanKindClient); span.Status().Code != codes.Error {
			t.Errorf("status %v", span.Status())
		}
		if n, _ := o.points("rpc.client.call.duration", attribute.String("error.type", "INTERNAL")); n != 1 {
			t.Errorf("%d durations of failed calls, want 1", n)
		}
	})
}

// Leaving a stream's loop, and a nil *Error in an error's place, are no errors.
func TestWhatIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t)
		for n, err := range counting.Stream(t.Context(), o.channel, 5) {
			if n != 0 || err != nil {
				t.Fatal(n, err)
			}
			break
		}
		if span := o.one(trace.SpanKindClient); span.Status().Code == codes.Error {
			t.Errorf("status %v", span.Status())
		}
		if n, _ := o.points("rpc.client.call.duration", attribute.String("error.type", "UNKNOWN")); n != 0 {
			t.Error("a loop that was left is counted as an error")
		}
	})
}

func TestTypedNilErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				var none *rpcclient.Error
				_ = next(ctx, c, receive)
				return none
			}
		}), rpcclient.WithHandlerInterceptors(func(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
			return func(ctx context.Context, c *rpcclient.IncomingCall, send func(any) error) error {
				var none *rpcclient.Error
				_ = next(ctx, c, send)
				return none
			}
		}))
		if _, err := double.Call(t.Context(), o.channel, 2); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []trace.SpanKind{trace.SpanKindClient, trace.SpanKindServer} {
			if span := o.one(kind); span.Status().Code == codes.Error {
				t.Errorf("%s: status %v", kind, span.Status())
			}
		}
	})
}
