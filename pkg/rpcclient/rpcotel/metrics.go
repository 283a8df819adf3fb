package rpcotel

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

type metrics struct {
	client, server, operation, dwell metric.Float64Histogram
	batch                            metric.Int64Histogram
	sent, consumed                   metric.Int64Counter
	retries, stray                   metric.Int64Counter
	settled, forgotten               metric.Int64Counter
	pending                          metric.Int64UpDownCounter
}

func newMetrics(m metric.Meter) metrics {
	duration := func(name, description string) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
			metric.WithExplicitBucketBoundaries(durationBuckets...))
		handle(err)
		return h
	}
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		handle(err)
		return c
	}
	batch, err := m.Int64Histogram(metricBatch, metric.WithUnit("{message}"),
		metric.WithDescription("Messages in an SQS API request."), metric.WithExplicitBucketBoundaries(batchBuckets...))
	handle(err)
	pending, err := m.Int64UpDownCounter(metricPending, metric.WithUnit("{call}"), metric.WithDescription("Calls under way."))
	handle(err)
	return metrics{
		client:    duration(metricClientDuration, "Duration of calls, all attempts included."),
		server:    duration(metricServerDuration, "Duration of executions."),
		operation: duration(metricOperationDuration, "Duration of SQS API requests."),
		dwell:     duration(metricDwell, "Time that requests waited in their queue."),
		batch:     batch,
		sent:      counter(metricSent, "{message}", "Messages sent."),
		consumed:  counter(metricConsumed, "{message}", "Messages received."),
		retries:   counter(metricRetries, "{attempt}", "Attempts that another followed."),
		stray:     counter(metricStray, "{message}", "Replies that nobody waited for."),
		settled:   counter(metricSettled, "{request}", "Requests that were settled, by what became of them."),
		forgotten: counter(metricForgotten, "{request}", "Requests that the reply cache forgot before their time: it is too small."),
		pending:   pending,
	}
}

func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

// OnSQSRequest implements rpcclient.HookSQSRequest.
func (i *instrumentation) OnSQSRequest(r rpcclient.SQSRequest) {
	attrs := append(destination(r.QueueURL),
		attribute.String(attrMessagingSystem, systemSQS), attribute.String(attrMessagingOperation, r.Action.String()))
	if t := operationType(r.Action); t != "" {
		attrs = append(attrs, attribute.String(attrMessagingOperationType, t))
	}
	if r.Err != nil {
		attrs = append(attrs, attribute.String(attrErrorType, errorType(r.Err)))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	i.metrics.operation.Record(background, r.Took.Seconds(), set)
	switch r.Action {
	case rpcclient.ActionSend:
		i.metrics.sent.Add(background, int64(r.Entries), set)
	case rpcclient.ActionReceive:
		i.metrics.consumed.Add(background, int64(r.Entries), set)
	}
	i.metrics.batch.Record(background, int64(r.Entries), set)
}

// OnStrayReply implements rpcclient.HookStrayReply.
func (i *instrumentation) OnStrayReply(r rpcclient.StrayReply) {
	i.metrics.stray.Add(background, 1, metric.WithAttributes(
		attribute.Bool(attrLate, r.Late), attribute.Bool(attrDropped, r.Dropped)))
}

// OnServed implements rpcclient.HookServed.
func (i *instrumentation) OnServed(s rpcclient.Served) {
	method := methodName(s.Method, s.Registered)
	channel := attribute.String(attrChannel, s.Channel)
	i.metrics.settled.Add(background, 1, metric.WithAttributes(
		attribute.String(attrRPCMethod, method), channel, attribute.String(attrSituation, s.Situation.String())))
	if s.Age > 0 {
		i.metrics.dwell.Record(background, s.Age.Seconds(), metric.WithAttributes(channel))
	}
}

// OnForgottenEarly implements rpcclient.HookForgottenEarly.
func (i *instrumentation) OnForgottenEarly(time.Duration) { i.metrics.forgotten.Add(background, 1) }

// OnRetry implements rpcclient.HookRetry.
func (i *instrumentation) OnRetry(r rpcclient.Retry) {
	code := string(rpcclient.CodeOf(r.Err))
	i.metrics.retries.Add(background, 1, metric.WithAttributes(
		attribute.String(attrRPCMethod, r.Method), attribute.String(attrChannel, r.Channel), attribute.String(attrRPCStatus, code)))
	i.active.retry(r)
}

// otherMethod is the conventions' name of methods that a responder does not know.
const otherMethod = "_OTHER"

func methodName(name string, registered bool) string {
	if !registered || name == "" {
		return otherMethod
	}
	return name
}

func operationType(a rpcclient.Action) string {
	switch a {
	case rpcclient.ActionSend:
		return "send"
	case rpcclient.ActionReceive:
		return "receive"
	case rpcclient.ActionDelete, rpcclient.ActionChangeVisibility:
		return "settle"
	default:
		return ""
	}
}

// errorType is SQS's code of an error, or what kind of failure it was.
func errorType(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	var e *rpcclient.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return "_OTHER"
}

// destination describes a queue with few values: all reply queues are one.
func destination(queueURL string) []attribute.KeyValue {
	name := path.Base(queueURL)
	if isReplyQueue(name) {
		return []attribute.KeyValue{
			attribute.String(attrMessagingTemplate, replyQueueTemplate), attribute.Bool(attrMessagingTemporary, true),
		}
	}
	attrs := []attribute.KeyValue{attribute.String(attrMessagingDestination, name)}
	u, err := url.Parse(queueURL)
	if err != nil || u.Hostname() == "" {
		return attrs
	}
	return append(attrs, attribute.String(attrServerAddress, u.Hostname()))
}

// isReplyQueue tells the names that the operator gives reply queues, and the Java client's.
func isReplyQueue(name string) bool {
	parts := strings.Split(name, "_")
	return (len(parts) == 4 && parts[2] == "r") || strings.HasPrefix(name, "__RequesterClientQueues__")
}
