package rpcclient_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// bubble runs a test in which time passes only when nothing else can happen.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func (p *pair) fault(rules ...sqstest.Rule) {
	p.server.SetFaults(sqstest.Plan{Seed: 1, Rules: rules})
}

func TestCallEndsAtItsDeadline(t *testing.T) {
	for name, tc := range map[string]struct {
		opts []rpcclient.CallOption
		ctx  time.Duration
		want time.Duration
	}{
		"default":               {want: 30 * time.Second},
		"call":                  {opts: []rpcclient.CallOption{rpcclient.CallTimeout(3 * time.Second)}, want: 3 * time.Second},
		"context, if earlier":   {opts: []rpcclient.CallOption{rpcclient.CallTimeout(3 * time.Second)}, ctx: 2 * time.Second, want: 2 * time.Second},
		"context, not if later": {opts: []rpcclient.CallOption{rpcclient.CallTimeout(3 * time.Second)}, ctx: 9 * time.Second, want: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				ctx, cancel := context.WithCancel(t.Context())
				if tc.ctx > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), tc.ctx)
				}
				defer cancel()
				started := time.Now()
				_, err := sum.Call(ctx, p.channel, sumRequest{}, tc.opts...)
				if took := time.Since(started); took != tc.want {
					t.Errorf("ended after %s, want %s", took, tc.want)
				}
				var e *rpcclient.Error
				if !errors.As(err, &e) || e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.MaybeExecuted || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if n := p.requester.Pending(); n != 0 {
					t.Errorf("%d calls are still pending", n)
				}
			})
		})
	}
}

func TestCancelKeepsTheCause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		cause := errors.New("the user left")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		_, err := sum.Call(ctx, p.channel, sumRequest{})
		if !errors.Is(err, cause) || rpcclient.CodeOf(err) != rpcclient.Canceled {
			t.Errorf("got %v", err)
		}
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		before := p.server.Requests(sqstest.Action("SendMessageBatch"))
		_, err = sum.Call(cancelled, p.channel, sumRequest{})
		var e *rpcclient.Error
		if !errors.As(err, &e) || e.Outcome != rpcclient.NotSent || p.server.Requests(sqstest.Action("SendMessageBatch")) != before {
			t.Errorf("a cancelled context sent something: %v", err)
		}
	})
}

func TestIdleRequesterMakesNoRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		time.Sleep(time.Hour)
		created := p.server.Requests(sqstest.Action("CreateQueue"))
		if n := p.server.Requests(); n != created {
			t.Errorf("%d requests before the first call", n-created)
		}
		stop := p.serve(t, addUp)
		p.call(t)
		stop()
		time.Sleep(21 * time.Second) // the poll that was under way runs out
		before := p.server.Requests()
		time.Sleep(time.Hour)
		if n := p.server.Requests() - before; n != 0 {
			t.Errorf("%d requests in an idle hour", n)
		}
	})
}

func TestIdleResponderPollsWithTheLongestWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp, rpcclient.WithReplyStore(rpcclient.NewMemoryReplyStore(1000)))
		var wg sync.WaitGroup
		for range 200 { // for which there are more pollers
			wg.Go(func() { p.call(t) })
		}
		wg.Wait()
		time.Sleep(21 * time.Second) // the polls that were under way run out
		before := p.server.Requests()
		time.Sleep(time.Minute)
		if n := p.server.Requests() - before; n > 4 {
			t.Errorf("%d requests in an idle minute", n)
		}
	})
}

// A poll that is under way may have been given messages, so a call's end does not cancel it.
func TestPollOutlivesItsCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(time.Second))
		time.Sleep(time.Minute)
		polls := p.server.RequestLog(sqstest.Action("ReceiveMessage"))
		if len(polls) != 1 || polls[0].Duration < 20*time.Second || polls[0].Status != 200 {
			t.Errorf("polls: %+v", polls)
		}
	})
}

func TestLateReplyIsCountedAndChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var strays strayLog
		p := newPair(t, rpcclient.WithHooks(&strays))
		p.fault(sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: replyQueue, Count: 1, Duration: 2 * time.Second})
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if len(r.Numbers) > 0 && r.Numbers[0] == 0 {
				time.Sleep(5 * time.Second)
			}
			return addUp(ctx, r)
		})
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(time.Second))
		if _, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{0}}); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if s := p.requester.Stats(); s.LateReplies != 1 || s.OK != 1 {
			t.Errorf("stats: %+v", s)
		}
		if got := strays.all(); len(got) != 1 || !got[0].Late || !got[0].Dropped || got[0].CallID == "" || got[0].Age < 2*time.Second {
			t.Errorf("strays: %+v", got)
		}
		if n := p.messages(t, replyQueue); n != 0 {
			t.Errorf("%d messages are left in the reply queue", n)
		}
	})
}

func TestDuplicateReplyIsLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.Duplicate, Queue: replyQueue, Count: 1})
		p.serve(t, addUp)
		for range 3 {
			p.call(t)
		}
		time.Sleep(20 * time.Second)
		if s := p.requester.Stats(); s.LateReplies != 1 || s.OK != 3 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestSendIsRepeatedUnderOneCallID(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.DropAfter, sqstest.ServerErrorAfter, sqstest.DropBefore, sqstest.Throttle, sqstest.ServerError, sqstest.HTMLUnavailable, sqstest.PartialBatch} {
		t.Run(string(fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: fault, Action: "SendMessageBatch", Queue: requestQueue, Count: 1})
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					runs.Add(1)
					return addUp(ctx, r)
				})
				p.call(t)
				time.Sleep(time.Minute)
				if runs.Load() != 1 {
					t.Errorf("the handler ran %d times", runs.Load())
				}
				if n := p.messages(t, requestQueue); n != 0 {
					t.Errorf("%d messages are left in the request queue", n)
				}
			})
		})
	}
}

func TestOutcomeOfFailedSends(t *testing.T) {
	for _, tc := range []struct {
		fault   sqstest.Fault
		code    rpcclient.Code
		outcome rpcclient.Outcome
	}{
		{sqstest.Throttle, rpcclient.ResourceExhausted, rpcclient.NotSent},
		{sqstest.AccessDenied, rpcclient.PermissionDenied, rpcclient.NotSent},
		{sqstest.ServerError, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted},
		{sqstest.DropBefore, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted},
		{sqstest.HTMLUnavailable, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted},
		{sqstest.BlackHole, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted},
	} {
		t.Run(string(tc.fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: tc.fault, Action: "SendMessageBatch"})
				p.fails(t, tc.code, tc.outcome, rpcclient.CallTimeout(time.Minute))
				if n := p.requester.Pending(); n != 0 {
					t.Errorf("%d calls are still pending", n)
				}
			})
		})
	}
	t.Run("sticky maybe", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.fault(
				sqstest.Rule{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Count: 1},
				sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch", Skip: 1})
			p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted)
		})
	})
	t.Run("the reply comes though no send was answered", func(t *testing.T) {
		for name, m := range map[string]rpcclient.Method[sumRequest, sumReply]{
			"ordinary": sum, "idempotent": rpcclient.NewMethod[sumRequest, sumReply]("calculate_sum", rpcclient.Idempotent()),
		} {
			for _, attempts := range []int{1, 2} {
				bubble(t, func(t *testing.T) {
					p := newPair(t)
					p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
						time.Sleep(6 * time.Second) // by then the sender has given up
						return addUp(ctx, r)
					})
					p.fault(sqstest.Rule{Fault: sqstest.ServerErrorAfter, Action: "SendMessageBatch", Queue: requestQueue})
					got, err := m.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1, 2}}, rpcclient.CallMaxAttempts(attempts))
					if s := p.requester.Stats(); err != nil || got.Sum != 3 || s.Retries > int64(attempts-1) {
						t.Errorf("%s, %d attempts: %v, %v after %d retries", name, attempts, got, err, s.Retries)
					}
				})
			}
		}
	})
	t.Run("one-way", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.fault(sqstest.Rule{Fault: sqstest.ServerErrorAfter, Action: "SendMessageBatch"})
			var e *rpcclient.Error
			err := sum.Notify(t.Context(), p.channel, sumRequest{})
			if !errors.As(err, &e) || e.Code != rpcclient.Unavailable || e.Outcome != rpcclient.MaybeExecuted {
				t.Errorf("nobody answers it, and it ended in %v", err)
			}
		})
	})
	t.Run("no request queue", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			if _, err := p.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &p.url}); err != nil {
				t.Fatal(err)
			}
			p.fails(t, rpcclient.NotFound, rpcclient.NotSent)
		})
	})
	t.Run("deadline between attempts", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.fault(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch"})
			p.fails(t, rpcclient.DeadlineExceeded, rpcclient.NotSent, rpcclient.CallTimeout(300*time.Millisecond))
			time.Sleep(time.Minute)
			if n := p.messages(t, requestQueue); n != 0 {
				t.Errorf("a call that was not sent is in the queue")
			}
		})
	})
}

func TestReplyQueueDeletedUnderACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		time.AfterFunc(5*time.Second, func() {
			if _, err := p.client.DeleteQueue(context.Background(), &sqs.DeleteQueueInput{QueueUrl: &p.replyURL}); err != nil {
				t.Error(err)
			}
		})
		started := time.Now()
		e := p.failedCall(t, rpcclient.Unavailable, rpcclient.MaybeExecuted)
		if took := time.Since(started); !errors.Is(e, rpcclient.ErrReplyQueueLost) || took < 7*time.Second || took > 10*time.Second {
			t.Errorf("after %s: %v", took, e)
		}
		started = time.Now()
		e = p.failedCall(t, rpcclient.Unavailable, rpcclient.NotSent)
		if !errors.Is(e, rpcclient.ErrReplyQueueLost) || time.Since(started) != 0 {
			t.Errorf("the next call: %v", e)
		}
	})
}

// movingQueue is a source that the test moves.
type movingQueue struct {
	mu      sync.Mutex
	url     string
	changed chan struct{}
	lost    []string
}

func newMovingQueue(url string) *movingQueue {
	return &movingQueue{url: url, changed: make(chan struct{})}
}

func (q *movingQueue) Current() (string, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.url, q.changed
}

func (q *movingQueue) Lost(url string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost = append(q.lost, url)
}

func (q *movingQueue) move(url string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.url = url
	close(q.changed)
	q.changed = make(chan struct{})
}

func TestReplyQueueMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		source := newMovingQueue("")
		p.requester, p.channel = p.newRequester(t, source)
		p.serve(t, addUp)

		// Calls wait for the first queue, within their deadline.
		e := p.failedCall(t, rpcclient.DeadlineExceeded, rpcclient.NotSent, rpcclient.CallTimeout(time.Second))
		if !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("got %v", e)
		}
		time.AfterFunc(time.Second, func() { source.move(p.replyURL) })
		p.call(t)

		// Closing ends what is pending at once, and holds what is new.
		p.fault(sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: replyQueue, Duration: 10 * time.Second})
		second := p.queue(t, "rq_test_r_0002")
		time.AfterFunc(time.Second, func() { source.move("") })
		started := time.Now()
		e = p.failedCall(t, rpcclient.Unavailable, rpcclient.MaybeExecuted)
		if took := time.Since(started); took != time.Second || !errors.Is(e, rpcclient.ErrReplyQueueLost) {
			t.Errorf("after %s: %v", took, e)
		}
		time.AfterFunc(time.Second, func() { source.move(second) })
		p.call(t)
		if got := p.requester.ReplyQueueURL(); got != second {
			t.Errorf("replies come to %s, want %s", got, second)
		}
	})
}

func TestLostQueueIsReportedAndNotTakenAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		source := newMovingQueue(p.replyURL)
		p.requester, p.channel = p.newRequester(t, source)
		if _, err := p.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &p.replyURL}); err != nil {
			t.Fatal(err)
		}
		p.fails(t, rpcclient.Unavailable, rpcclient.MaybeExecuted)
		source.move(p.replyURL) // the operator has not noticed yet
		time.AfterFunc(time.Second, func() { source.move(p.queue(t, "rq_test_r_0002")) })
		p.serve(t, addUp)
		p.call(t)
		if len(source.lost) != 1 || source.lost[0] != p.replyURL {
			t.Errorf("reported %v", source.lost)
		}
	})
}

func TestTwoReadersOfOneQueueGetTheirOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		other := *p
		other.requester, other.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		p.serve(t, addUp)
		for range 10 { // who polls first is chance
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { p.call(t) })
				wg.Go(func() { other.call(t) })
			}
			wg.Wait()
		}
		a, b := p.requester.Stats(), other.requester.Stats()
		if a.OK != 200 || b.OK != 200 || a.PutBack+b.PutBack == 0 || a.LateReplies+b.LateReplies != 0 {
			t.Errorf("stats:\n%+v\n%+v", a, b)
		}
	})
}

func TestForeignReplyIsPutBackWhileYoungAndThenDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.replyURL, MessageBody: aws.String("old"),
			MessageAttributes: attributes("__AmazonSQSVirtualQueuesClient.QueueName", "somebody-else"),
		}); err != nil {
			t.Fatal(err)
		}
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(20*time.Second))
		s := p.requester.Stats()
		if s.PutBack < 5 || s.PutBack > 22 || s.ForeignReplies != 0 || p.messages(t, replyQueue) != 1 {
			t.Errorf("while young: %+v", s)
		}
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted)
		if s := p.requester.Stats(); s.ForeignReplies != 1 || p.messages(t, replyQueue) != 0 {
			t.Errorf("when old: %+v", s)
		}
	})
}

func TestExpiredRequestIsDroppedUnhandled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(2*time.Second))
		p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
			t.Error("an expired request was handled")
			return sumReply{}, nil
		})
		time.Sleep(10 * time.Second)
		if s := p.responder.Stats(); s.Expired != 1 || p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestHandlerGetsWhatIsLeftOfTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: requestQueue, Duration: 4 * time.Second})
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			d, ok := ctx.Deadline()
			if left := time.Until(d); !ok || left < 5900*time.Millisecond || left > 6*time.Second {
				t.Errorf("%s are left of 10 s after 4 s", left)
			}
			return addUp(ctx, r)
		})
		p.call(t, rpcclient.CallTimeout(10*time.Second))
	})
}

func TestVisibilityIsExtendedWhileAHandlerRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			time.Sleep(35 * time.Second)
			return addUp(ctx, r)
		})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { p.call(t, rpcclient.CallTimeout(time.Minute)) })
		}
		wg.Wait()
		time.Sleep(time.Minute)
		s := p.responder.Stats()
		if runs.Load() != 10 || s.Duplicates != 0 || s.Received != 10 {
			t.Errorf("%d runs; stats: %+v", runs.Load(), s)
		}
		// One request renews all ten, every six seconds.
		if n := s.Requests[rpcclient.ActionChangeVisibility]; n < 4 || n > 12 {
			t.Errorf("%d requests to extend", n)
		}
	})
}

func TestExtensionStopsAtTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		release := make(chan struct{})
		p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
			<-release // a handler that does not watch its context
			return sumReply{}, nil
		})
		p.fails(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(15*time.Second))
		time.Sleep(time.Minute)
		before := p.server.Requests(sqstest.Action("ChangeMessageVisibilityBatch"))
		time.Sleep(time.Minute)
		if n := p.server.Requests(sqstest.Action("ChangeMessageVisibilityBatch")) - before; n != 0 {
			t.Errorf("%d extensions after the deadline", n)
		}
		close(release)
		time.Sleep(time.Minute)
		if s := p.responder.Stats(); p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 0 || s.Expired == 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

type strayLog struct {
	mu   sync.Mutex
	seen []rpcclient.StrayReply
}

func (l *strayLog) OnStrayReply(s rpcclient.StrayReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, s)
}

func (l *strayLog) all() []rpcclient.StrayReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]rpcclient.StrayReply(nil), l.seen...)
}

// A message that SQS refuses spoils its batch, not the calls that share it.
func TestOneRefusedEntryDoesNotFailItsBatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
			QueueUrl: &p.url, Attributes: map[string]string{"MaximumMessageSize": "2048"}, // which the requester is not told
		}); err != nil {
			t.Fatal(err)
		}
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: requestQueue, Count: 1, Duration: 100 * time.Millisecond})
		var wg sync.WaitGroup
		wg.Go(func() { p.call(t) }) // under way, so that the others gather
		synctest.Wait()
		for range 4 {
			wg.Go(func() { p.call(t) })
		}
		wg.Go(func() {
			p.fails(t, rpcclient.ResourceExhausted, rpcclient.NotSent, rpcclient.CallMetadata("k", strings.Repeat("x", 3000)))
		})
		wg.Wait()
	})
}

// Like AWS, a server whose receives find a few of many messages: both sides get more pollers though none of
// their receives is full. One each could carry about 500 calls a second here.
func TestMorePollersWhereReceivesAreNeverFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp, rpcclient.WithConcurrency(200))
		p.fault(
			sqstest.Rule{Fault: sqstest.Sharded},
			sqstest.Rule{Fault: sqstest.Delay, Duration: 10 * time.Millisecond},
		)
		started := time.Now()
		p.many(t, 1000)
		if took := time.Since(started); took > 1200*time.Millisecond {
			t.Errorf("1000 calls took %s", took)
		}
	})
}
