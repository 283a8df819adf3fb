// Package rpcotel gives the calls of package rpcclient OpenTelemetry spans and metrics, and carries the
// trace context from requesters to responders.
//
//	requester, err := rpcenv.NewRequester(ctx, rpcotel.Options()...)
//	responder, err := rpcenv.NewResponder(ctx, rpcotel.Options()...)
//
// # Spans
//
// A call is a span of kind CLIENT from its beginning to its end, all attempts included, with the method's
// name; its execution one of kind SERVER, its child. A Notify is a PRODUCER span, and its execution a
// CONSUMER span. A retry is an event. Receives have no spans: one brings messages of many calls. Call IDs
// are shown as the hash that errors show, because who knows a call ID can answer the call.
//
// The context travels as the propagator writes it: traceparent in a message attribute, where tracers of
// other languages find it, everything else (tracestate, baggage) in the request's metadata, of which there
// are 4 KiB; a baggage that has no room is left behind and the call goes on.
//
// # Metrics
//
//	rpc.client.call.duration             s, by method, channel, status, outcome
//	rpc.server.call.duration             s, by method, channel, status
//	messaging.client.operation.duration  s, SQS API requests, by operation, queue, error
//	messaging.client.sent.messages       and consumed.messages, by operation, queue, error
//	replyqueue.sqs.batch.size            messages in an SQS API request, by operation, queue
//	replyqueue.client.calls.pending      calls under way, by channel
//	replyqueue.client.calls.retries      attempts that another followed, by method, channel, status
//	replyqueue.client.replies.stray      replies nobody waited for, by late, dropped
//	replyqueue.server.requests.settled   requests, by method, channel, situation
//	replyqueue.server.requests.forgotten requests that the reply cache forgot before their time; not 0: it is
//	                                     too small, and copies of them run again (rpcclient.WithReplyCache)
//	replyqueue.server.requests.dwell     s a request waited in its queue, by channel
//
// SQS requests per call, which is what calls cost, is the count of messaging.client.operation.duration over
// that of rpc.client.call.duration. All reply queues count as one destination. Methods that a responder
// does not know count as _OTHER, so that a caller cannot fill a metric with names.
package rpcotel

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// Option configures the instrumentation.
type Option func(*config)

type config struct {
	tracers    trace.TracerProvider
	meters     metric.MeterProvider
	propagator propagation.TextMapPropagator
}

// WithTracerProvider sets where spans go. The default is OpenTelemetry's global provider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.tracers = p } }

// WithMeterProvider sets where metrics go. The default is OpenTelemetry's global provider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.meters = p } }

// WithPropagator sets how the trace context travels. The default is OpenTelemetry's global propagator,
// which does nothing until a program sets one (otel.SetTextMapPropagator).
func WithPropagator(p propagation.TextMapPropagator) Option {
	return func(c *config) { c.propagator = p }
}

// Options returns what to pass to NewRequester and NewResponder; the same serves both. Errors of the meter
// provider go to OpenTelemetry's error handler, and the metrics they concern are not recorded.
func Options(opts ...Option) []rpcclient.Option {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider(), propagator: otel.GetTextMapPropagator()}
	for _, o := range opts {
		o(&c)
	}
	i := &instrumentation{
		tracer: c.tracers.Tracer(scopeName), propagator: c.propagator, metrics: newMetrics(c.meters.Meter(scopeName)),
	}
	return []rpcclient.Option{
		rpcclient.WithCallInterceptors(i.call),
		rpcclient.WithHandlerInterceptors(i.handle),
		rpcclient.WithHooks(i),
	}
}

type instrumentation struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	metrics    metrics
	active     activeCalls
}

// background is what hooks record with: they have no context of a call.
var background = context.Background()
