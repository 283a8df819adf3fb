package controller_test

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/internal/queue"
)

// An external call is a write to the API server or a request to SQS, reads of SQS among them. What a channel's
// reconciler reads of the API server comes from the manager's cache. A process that is stopped before a call is in the
// place of one that is stopped after the call before it, since it remembers nothing.

// interruption is what befalls one external call.
type interruption string

const (
	// stops: the process stops when the call has had its effect, and never learns of it.
	stops interruption = "stops the process"
	// losesCall: the call never arrives, and the process gets an error.
	losesCall interruption = "is lost"
	// losesAnswer: the call has its effect, and the process gets an error.
	losesAnswer interruption = "loses its answer"
)

// crashPoints count external calls, and interrupt one of them.
type crashPoints struct {
	// at is the call to interrupt, from 1; 0: none.
	at, calls int
	what      interruption
	// call is the name of the one that was interrupted.
	call string
}

// stop is what the process panics with.
type stop struct{}

var errInterrupted = errors.New("connection reset by peer")

// through makes a call.
func (p *crashPoints) through(name string, do func() error) error {
	p.calls++
	if p.calls != p.at {
		return do()
	}
	p.call = name
	if p.what != losesCall {
		_ = do() // Whoever was interrupted does not know.
	}
	if p.what == stops {
		panic(stop{})
	}
	return errInterrupted
}

// interrupted has the world's reconcilers make their external calls through points, from the next restart on.
func (w *world) interrupted(points *crashPoints) {
	w.wrap = func(api queue.API) queue.API { return interruptible{api, points} }
	w.around = points.through
}

// interruptible passes every request to SQS through crash points.
type interruptible struct {
	queue.API
	points *crashPoints
}

func through[I, O any](p *crashPoints, name string, do func(context.Context, *I, ...func(*sqs.Options)) (*O, error), ctx context.Context, in *I) (out *O, err error) { //nolint:revive // The context goes with the call.
	err = p.through(name, func() error {
		out, err = do(ctx, in)
		return err
	})
	if errors.Is(err, errInterrupted) {
		return nil, &smithy.OperationError{ServiceID: sqs.ServiceID, OperationName: name, Err: err}
	}
	return out, err
}

func (s interruptible) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	return through(s.points, "CreateQueue", s.API.CreateQueue, ctx, in)
}

func (s interruptible) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, _ ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	return through(s.points, "DeleteQueue", s.API.DeleteQueue, ctx, in)
}

func (s interruptible) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, _ ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	return through(s.points, "GetQueueUrl", s.API.GetQueueUrl, ctx, in)
}

func (s interruptible) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	return through(s.points, "GetQueueAttributes", s.API.GetQueueAttributes, ctx, in)
}

func (s interruptible) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	return through(s.points, "SetQueueAttributes", s.API.SetQueueAttributes, ctx, in)
}

func (s interruptible) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, _ ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return through(s.points, "ListQueueTags", s.API.ListQueueTags, ctx, in)
}

func (s interruptible) TagQueue(ctx context.Context, in *sqs.TagQueueInput, _ ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	return through(s.points, "TagQueue", s.API.TagQueue, ctx, in)
}

func (s interruptible) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, _ ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	return through(s.points, "UntagQueue", s.API.UntagQueue, ctx, in)
}

func (s interruptible) ListQueues(ctx context.Context, in *sqs.ListQueuesInput, _ ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error) {
	return through(s.points, "ListQueues", s.API.ListQueues, ctx, in)
}
