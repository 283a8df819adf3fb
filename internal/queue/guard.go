package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"k8s.io/utils/clock"
)

// RequestTimeout ends a request that gets no answer. A request queue's name is used again, so a late delete must not
// outlive the leader that sent it: internal/operator has leaders step down so much before their lease can change hands.
const RequestTimeout = 4 * time.Second

// guard limits and measures what passes to an API.
type guard struct {
	api      API
	provider string
	// turns are those of the place that the provider leads to, as far as that is known.
	turns   *atomic.Pointer[limiter]
	metrics *Metrics
	clock   clock.PassiveClock
	silence silence
	// gone says that the QueueProvider is: what was under way with it is not measured any more.
	gone atomic.Bool
}

// forget drops what was measured, and what still will be.
func (g *guard) forget() {
	g.gone.Store(true)
	g.metrics.Forget(g.provider)
}

// count has something measured, and nothing kept of it where the QueueProvider is gone.
func (g *guard) count(do func(*Metrics)) {
	do(g.metrics)
	if g.gone.Load() {
		g.metrics.Forget(g.provider)
	}
}

// Guard returns an API that sends to api at most what limits allow, each request with a time limit, and counts
// every request in metrics. provider is the metrics' label. A request whose turn is too far off fails with
// *SlowDown and is not sent. Where nothing answers, requests fail at once as the last one did, but for one at a time.
func Guard(api API, provider string, limits Limits, metrics *Metrics, clk clock.Clock) API {
	turns := &atomic.Pointer[limiter]{}
	turns.Store(newLimiter(limits, clk))
	return guardWith(turns, api, provider, metrics, clk)
}

// guardWith is Guard with turns that others may have too.
func guardWith(turns *atomic.Pointer[limiter], api API, provider string, metrics *Metrics, clk clock.PassiveClock) API {
	return &guard{api: api, provider: provider, turns: turns, metrics: metrics, clock: clk}
}

// guarded sends one request. about is the name or the URL of the queue that it is about.
func guarded[I, O any](ctx context.Context, g *guard, op operation, action string, about *string,
	send func(context.Context, *I, ...func(*sqs.Options)) (*O, error), in *I, options []func(*sqs.Options),
) (*O, error) {
	limiter := g.turns.Load() // One for all of it: a turn is known to the one that gave it.
	tries, err := g.silence.ask(g.clock.Now())
	if err != nil && ctx.Value(anyway{}) == nil {
		g.count(func(m *Metrics) { m.limited.WithLabelValues(g.provider, action).Inc() })
		return nil, err
	}
	turn, err := limiter.wait(ctx, op, action, action+" "+aws.ToString(about))
	if err != nil {
		if tries {
			g.silence.untried()
		}
		if ours := (*SlowDown)(nil); errors.As(err, &ours) {
			ours.Provider = g.provider
		}
		g.count(func(m *Metrics) { m.limited.WithLabelValues(g.provider, action).Inc() })
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	start := g.clock.Now()
	out, err := send(limited, in, options...)
	switch {
	case err == nil || limited.Err() == nil:
		g.silence.heard(nil, tries, g.clock.Now())
	case ctx.Err() == nil: // Not the caller ended it, but the time limit.
		g.silence.heard(err, tries, g.clock.Now())
	}
	class := Classify(err)
	limiter.answered(op, class)
	outcome := string(class)
	if class == None {
		outcome = "OK"
	}
	g.count(func(m *Metrics) {
		m.requests.WithLabelValues(g.provider, action, outcome).Inc()
		m.duration.WithLabelValues(g.provider, action).Observe(g.clock.Since(start).Seconds())
	})
	if class == Throttled {
		err = &throttled{error: err, after: limiter.again(op, turn)}
	}
	return out, err
}

// throttled is SQS's refusal with the time after which our own limiter has a turn for the request again.
type throttled struct {
	error
	after time.Duration
}

func (e *throttled) Unwrap() error { return e.error }

func (g *guard) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	return guarded(ctx, g, write, "CreateQueue", in.QueueName, g.api.CreateQueue, in, o)
}

func (g *guard) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, o ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	return guarded(ctx, g, write, "DeleteQueue", in.QueueUrl, g.api.DeleteQueue, in, o)
}

func (g *guard) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, o ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	return guarded(ctx, g, read, "GetQueueUrl", in.QueueName, g.api.GetQueueUrl, in, o)
}

func (g *guard) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	return guarded(ctx, g, read, "GetQueueAttributes", in.QueueUrl, g.api.GetQueueAttributes, in, o)
}

func (g *guard) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, o ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	return guarded(ctx, g, write, "SetQueueAttributes", in.QueueUrl, g.api.SetQueueAttributes, in, o)
}

func (g *guard) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, o ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return guarded(ctx, g, tag, "ListQueueTags", in.QueueUrl, g.api.ListQueueTags, in, o)
}

func (g *guard) TagQueue(ctx context.Context, in *sqs.TagQueueInput, o ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	return guarded(ctx, g, tag, "TagQueue", in.QueueUrl, g.api.TagQueue, in, o)
}

func (g *guard) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, o ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	return guarded(ctx, g, tag, "UntagQueue", in.QueueUrl, g.api.UntagQueue, in, o)
}

func (g *guard) ListQueues(ctx context.Context, in *sqs.ListQueuesInput, o ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error) {
	return guarded(ctx, g, read, "ListQueues", in.NextToken, g.api.ListQueues, in, o)
}
