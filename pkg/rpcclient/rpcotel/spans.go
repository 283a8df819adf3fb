package rpcotel

import (
	"context"
	"errors"
	"net/url"
	"path"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// call is the requester's interceptor.
func (i *instrumentation) call(next rpcclient.CallFunc) rpcclient.CallFunc {
	return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
		started := time.Now()
		kind, name, queue := trace.SpanKindClient, c.Method, queueAttributes(c.QueueURL)
		if c.Kind == rpcclient.KindNotify {
			kind, name = trace.SpanKindProducer, operationSend+" "+c.Channel
			queue = append(queue, operation(operationSend)...)
		}
		ctx, span := i.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(
			append(queue,
				attribute.String(attrRPCSystem, systemReplyqueue), attribute.String(attrRPCMethod, c.Method),
				attribute.String(attrChannel, c.Channel), attribute.String(attrKind, c.Kind.String()),
				attribute.String(attrMessagingConversation, c.CallID))...))
		defer span.End()
		i.inject(ctx, c)
		pending := metric.WithAttributes(attribute.String(attrChannel, c.Channel))
		i.metrics.pending.Add(ctx, 1, pending)
		defer i.metrics.pending.Add(ctx, -1, pending)
		i.active.add(c.CallID, span)
		defer i.active.remove(c.CallID)

		returned := false
		defer func() {
			wrong := err
			switch {
			case !returned: // a codec, an inner interceptor or a stream's loop panics: that goes on
				wrong = rpcclient.Errorf(rpcclient.Internal, "the call panicked")
			case errors.Is(err, rpcclient.ErrStopped): // the consumer had enough
				wrong = nil
			}
			outcome := outcomeOf(c, wrong)
			end := ended(wrong)
			if wrong != nil {
				span.SetStatus(codes.Error, wrong.Error())
			}
			span.SetAttributes(end...)
			span.SetAttributes(attribute.Int(attrAttempts, c.Attempts), attribute.String(attrOutcome, outcome))
			i.metrics.client.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(append(end,
				attribute.String(attrRPCSystem, systemReplyqueue), attribute.String(attrRPCMethod, c.Method),
				attribute.String(attrChannel, c.Channel), attribute.String(attrOutcome, outcome))...))
		}()
		err = next(ctx, c, receive)
		returned = true
		return err
	}
}

// inject writes the trace context into the call's metadata, as far as there is room: a call must not fail
// for the baggage of its caller.
func (i *instrumentation) inject(ctx context.Context, c *rpcclient.OutgoingCall) {
	carried := propagation.MapCarrier{}
	i.propagator.Inject(ctx, carried)
	room := maxMetadataBytes
	for k, v := range c.Metadata {
		if k != rpcclient.TraceParent {
			room -= len(k) + len(v)
		}
	}
	for _, k := range carried.Keys() {
		v := carried.Get(k)
		if k != rpcclient.TraceParent {
			if n := len(k) + len(v); n <= room {
				room -= n
			} else {
				continue
			}
		}
		c.Metadata[k] = v
	}
}

// maxMetadataBytes is what travels with a request (docs/protocol.md).
const maxMetadataBytes = 4 << 10

// outcomeOf names what is known of a call's execution.
func outcomeOf(c *rpcclient.OutgoingCall, err error) string {
	var e *rpcclient.Error
	switch {
	case errors.As(err, &e):
		return e.Outcome.String()
	case err == nil && c.Kind != rpcclient.KindNotify:
		return rpcclient.Executed.String()
	default:
		return rpcclient.MaybeExecuted.String()
	}
}

// ended are the attributes of an end.
func ended(err error) []attribute.KeyValue {
	code := rpcclient.OK
	if err != nil {
		code = rpcclient.CodeOf(err)
	}
	attrs := []attribute.KeyValue{attribute.String(attrRPCStatus, string(code))}
	if err != nil {
		attrs = append(attrs, attribute.String(attrErrorType, string(code)))
	}
	return attrs
}

// handle is the responder's interceptor.
func (i *instrumentation) handle(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
	return func(ctx context.Context, c *rpcclient.IncomingCall, send func(any) error) (err error) {
		started := time.Now()
		info := c.Info
		ctx = i.propagator.Extract(ctx, propagation.MapCarrier(info.Metadata()))
		method := methodName(info.Method, info.Registered)
		kind, name, queue := trace.SpanKindServer, method, queueAttributes(info.QueueURL)
		if info.Peer == rpcclient.PeerOneWay {
			kind, name = trace.SpanKindConsumer, operationProcess+" "+info.Channel
			queue = append(queue, operation(operationProcess)...)
		}
		ctx, span := i.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(
			append(queue,
				attribute.String(attrRPCSystem, systemReplyqueue), attribute.String(attrRPCMethod, method),
				attribute.String(attrChannel, info.Channel), attribute.String(attrPeer, info.Peer.String()),
				attribute.String(attrMessagingConversation, info.CallID), attribute.Int(attrAttempt, info.Attempt),
				attribute.Int(attrReceiveCount, info.ReceiveCount), attribute.Float64(attrDwell, info.Age.Seconds()))...))
		defer span.End()
		if method == otherMethod && info.Method != "" {
			span.SetAttributes(attribute.String(attrRPCMethodOriginal, info.Method))
		}
		returned := false
		defer func() {
			if !returned { // the responder contains the panic
				err = rpcclient.Errorf(rpcclient.Internal, "the handler panicked")
			}
			end := ended(err)
			span.SetAttributes(end...)
			if err != nil && isServersFault(rpcclient.CodeOf(err)) {
				span.SetStatus(codes.Error, err.Error())
			}
			i.metrics.server.Record(ctx, time.Since(started).Seconds(), metric.WithAttributes(append(end,
				attribute.String(attrRPCSystem, systemReplyqueue), attribute.String(attrRPCMethod, method),
				attribute.String(attrChannel, info.Channel))...))
		}()
		err = next(ctx, c, send)
		returned = true
		return err
	}
}

// isServersFault is the conventions' rule for spans of kind SERVER: what the caller did wrong is no error
// of the responder.
func isServersFault(c rpcclient.Code) bool {
	switch c {
	case rpcclient.Unknown, rpcclient.DeadlineExceeded, rpcclient.Unimplemented, rpcclient.Internal,
		rpcclient.Unavailable, rpcclient.DataLoss:
		return true
	default:
		return false
	}
}

// operation are what the conventions ask of a messaging span besides its system: the operation's name, and its type,
// which is the same where the name is one of theirs.
func operation(name string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String(attrMessagingOperation, name), attribute.String(attrMessagingOperationType, name)}
}

// queueAttributes describe a request queue on a span.
func queueAttributes(queueURL string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		attribute.String(attrMessagingSystem, systemSQS), attribute.String(attrMessagingDestination, path.Base(queueURL)),
		attribute.String(attrQueueURL, queueURL),
	}
	u, err := url.Parse(queueURL)
	if err != nil || u.Hostname() == "" {
		return attrs
	}
	attrs = append(attrs, attribute.String(attrServerAddress, u.Hostname()))
	if port, err := strconv.Atoi(u.Port()); err == nil {
		attrs = append(attrs, attribute.Int(attrServerPort, port))
	}
	return attrs
}

// activeCalls finds the span of a call for hooks, which know its ID alone.
type activeCalls struct {
	mu    sync.Mutex
	spans map[string]trace.Span
}

func (a *activeCalls) add(callID string, span trace.Span) {
	if !span.IsRecording() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spans == nil {
		a.spans = map[string]trace.Span{}
	}
	a.spans[callID] = span
}

func (a *activeCalls) remove(callID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.spans, callID)
}

func (a *activeCalls) retry(r rpcclient.Retry) {
	a.mu.Lock()
	span := a.spans[r.CallID]
	a.mu.Unlock()
	if span != nil {
		span.AddEvent("retry", trace.WithAttributes(
			attribute.Int(attrAttempt, r.Attempt), attribute.String(attrErrorType, errorType(r.Err)),
			attribute.Float64(attrPause, r.Pause.Seconds())))
	}
}
