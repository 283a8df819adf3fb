package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Gathered is what one channel made of a Gather.
type Gathered[Rep any] struct {
	Channel *Channel
	Reply   Rep
	// ReplyMetadata is what came with the reply.
	ReplyMetadata Metadata
	// Err is nil when Reply is the channel's answer, and an *Error otherwise. errors.Is finds ErrNotNeeded
	// when GatherFirst had enough before this channel answered.
	Err error
}

// ErrNotNeeded is the cause with which GatherFirst ends the calls that it needs no more.
var ErrNotNeeded = errors.New("enough others have answered")

// errTooManyFailed is the cause with which GatherFirst ends calls that cannot make up its number any more.
var errTooManyFailed = errors.New("too many others have failed")

// Gather sends req to all targets at once and waits until each has answered or failed, as Call does. The
// results are in the order of the targets, and are all there whatever the error. The error is nil when
// every target has answered; otherwise it is an *Error with an *Incomplete and each target's error in
// its chain: partial results are never taken for complete ones by mistake.
//
// It must not be given WithCallID or CallReplyMetadata, since there are several calls.
func (m Method[Req, Rep]) Gather(ctx context.Context, targets []*Channel, req Req, opts ...CallOption) ([]Gathered[Rep], error) {
	return m.gather(ctx, len(targets), true, targets, req, opts)
}

// GatherFirst is Gather that has enough after n answers: it ends the calls that remain then, which their
// responders may execute all the same, and when so many have failed that n cannot answer any more. The
// error is nil when n targets have answered.
func (m Method[Req, Rep]) GatherFirst(ctx context.Context, n int, targets []*Channel, req Req, opts ...CallOption) ([]Gathered[Rep], error) {
	if n < 1 || n > len(targets) {
		return nil, localError(InvalidArgument, NotSent, nil, "the first %d of %d targets are wanted", n, len(targets))
	}
	return m.gather(ctx, n, false, targets, req, opts)
}

func (m Method[Req, Rep]) gather(ctx context.Context, wanted int, all bool, targets []*Channel, req Req, opts []CallOption) ([]Gathered[Rep], error) {
	var c callConfig
	c.apply(opts)
	if c.callID != "" || c.replyMetadata != nil {
		return nil, localError(InvalidArgument, NotSent, nil, "Gather makes several calls: it takes neither WithCallID nor CallReplyMetadata")
	}
	if c.nilOption {
		return nil, localError(InvalidArgument, NotSent, nil, "an option of the call is nil")
	}
	if slices.Contains(targets, nil) {
		return nil, localError(InvalidArgument, NotSent, nil, "a target is nil")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]Gathered[Rep], len(targets))
	var wg sync.WaitGroup
	var mu sync.Mutex
	answered, failed := 0, 0
	for i, target := range targets {
		wg.Go(func() {
			g := &results[i]
			g.Channel = target
			o := m.newOutgoing(ctx, target, KindCall, opts)
			o.Request = req
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				if g.Err == nil {
					answered++
				} else {
					failed++
				}
				switch {
				case all: // are wanted, whatever became of the others
				case answered == wanted && g.Err == nil:
					cancel(ErrNotNeeded)
				case failed > len(targets)-wanted:
					cancel(errTooManyFailed)
				}
			}()
			o.alone(&g.Err, func() (err error) {
				g.Reply, err = m.one(ctx, o)
				g.ReplyMetadata = o.ReplyMetadata
				return err
			})
		})
	}
	wg.Wait()
	if answered >= wanted {
		return results, nil
	}
	return results, gatherError(results, answered, wanted)
}

// gatherError sums up what was not answered: the first failure's code, and the outcome that says most
// about what was executed, answers included.
func gatherError[Rep any](results []Gathered[Rep], answered, wanted int) *Error {
	causes := []error{&Incomplete{Received: answered, Expected: wanted}}
	var first *Error
	outcome := NotSent
	text := ""
	for i := range results {
		var e *Error
		if !errors.As(results[i].Err, &e) {
			outcome = Executed // it has answered
			continue
		}
		cause := fmt.Errorf("%s: %w", results[i].Channel.Name(), results[i].Err)
		causes = append(causes, cause)
		if first == nil || errors.Is(first, errTooManyFailed) && !errors.Is(e, errTooManyFailed) {
			first, text = e, cause.Error()
		}
		outcome = worseOutcome(outcome, e.Outcome)
	}
	return &Error{
		Code: first.Code, Outcome: outcome, CallID: first.CallID, Attempt: first.Attempt, RetryAfter: first.RetryAfter,
		Message: fmt.Sprintf("%d of %d targets answered; the first that failed: %s", answered, wanted, text),
		cause:   errors.Join(causes...),
	}
}
