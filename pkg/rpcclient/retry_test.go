package rpcclient_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// idempotentSum is sum as an idempotent method.
var idempotentSum = rpcclient.NewMethod[sumRequest, sumReply]("calculate_sum", rpcclient.Idempotent())

// errorOf is the *Error in err, or one that is like none.
func errorOf(err error) *rpcclient.Error {
	var e *rpcclient.Error
	if !errors.As(err, &e) {
		return &rpcclient.Error{}
	}
	return e
}

// What is repeated, by code and outcome, with and without Idempotent.
func TestWhatIsRetried(t *testing.T) {
	type failure struct {
		name    string
		error   func() error // of the handler
		fault   sqstest.Fault
		options []rpcclient.Option // of the responder
	}
	handlerSays := func(code rpcclient.Code) func() error {
		return func() error { return rpcclient.Errorf(code, "no") }
	}
	for _, tc := range []struct {
		failure
		outcome                rpcclient.Outcome
		plain, idempotentTries int
	}{
		{failure{name: "throttled: not sent", fault: sqstest.Throttle}, rpcclient.NotSent, 3, 3},
		{failure{name: "denied: not sent, and hopeless", fault: sqstest.AccessDenied}, rpcclient.NotSent, 1, 1},
		{failure{name: "server error: maybe executed", fault: sqstest.ServerError}, rpcclient.MaybeExecuted, 1, 3},
		{failure{name: "shed: rejected", options: []rpcclient.Option{rpcclient.WithMaxQueueAge(time.Nanosecond)}}, rpcclient.Rejected, 3, 3},
		{failure{name: "executed: unavailable", error: handlerSays(rpcclient.Unavailable)}, rpcclient.Executed, 1, 3},
		{failure{name: "executed: resource exhausted", error: handlerSays(rpcclient.ResourceExhausted)}, rpcclient.Executed, 1, 1},
		{failure{name: "executed: not found", error: handlerSays(rpcclient.NotFound)}, rpcclient.Executed, 1, 1},
	} {
		for _, method := range []rpcclient.Method[sumRequest, sumReply]{sum, idempotentSum} {
			want, name := tc.plain, tc.name
			if method == idempotentSum {
				want, name = tc.idempotentTries, tc.name+", idempotent"
			}
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := newPair(t)
					if tc.fault != "" {
						p.fault(sqstest.Rule{Fault: tc.fault, Action: "SendMessageBatch", Queue: requestQueue})
					}
					if len(tc.options) > 0 {
						p.fault(sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: requestQueue, Duration: time.Second})
					}
					runs := atomic.Int64{}
					p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
						runs.Add(1)
						if tc.error != nil {
							return sumReply{}, tc.error()
						}
						return addUp(ctx, r)
					}, tc.options...)
					_, err := method.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(time.Minute))
					e := errorOf(err)
					if e.Outcome != tc.outcome || e.Attempt != want {
						t.Fatalf("got %v after attempt %d; want %s after %d", err, e.Attempt, tc.outcome, want)
					}
					if s := p.requester.Stats(); s.Retries != int64(want-1) || s.Calls != 1 {
						t.Errorf("stats: %+v", s)
					}
					time.Sleep(time.Minute)
					if tc.outcome == rpcclient.Executed && runs.Load() != int64(want) {
						t.Errorf("%d runs, want %d", runs.Load(), want)
					}
					if (tc.outcome == rpcclient.NotSent || tc.outcome == rpcclient.Rejected) && runs.Load() != 0 {
						t.Errorf("%s, and executed", tc.outcome)
					}
				})
			})
		}
	}
}

// A method that is not marked is never repeated once somebody may have run it, whatever happened before.
func TestNeverRetriedWhenMaybeExecuted(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.DropAfter, sqstest.DropBefore, sqstest.ServerError, sqstest.ServerErrorAfter, sqstest.BlackHole, sqstest.HTMLUnavailable, sqstest.CutBody} {
		t.Run(string(fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t, rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 10}))
				p.fault(sqstest.Rule{Fault: fault, Action: "SendMessageBatch", Queue: requestQueue})
				e := p.failedCall(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted, rpcclient.CallTimeout(10*time.Minute))
				if e.Attempt != 1 || p.requester.Stats().Retries != 0 {
					t.Errorf("attempt %d: %v", e.Attempt, e)
				}
			})
		})
	}
	t.Run("reply queue lost", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			source := newMovingQueue(p.replyURL)
			p.requester, p.channel = p.newRequester(t, source)
			time.AfterFunc(time.Second, func() { source.move(p.queue(t, "rq_test_r_0002")) })
			if e := p.failedCall(t, rpcclient.Unavailable, rpcclient.MaybeExecuted); e.Attempt != 1 {
				t.Errorf("attempt %d", e.Attempt)
			}
		})
	})
	t.Run("reply queue lost, idempotent", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			source := newMovingQueue(p.replyURL)
			p.requester, p.channel = p.newRequester(t, source)
			time.AfterFunc(time.Second, func() {
				source.move(p.queue(t, "rq_test_r_0002"))
				p.serve(t, addUp)
			})
			if got, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}); err != nil || got.Sum != 1 {
				t.Errorf("got %v, %v", got, err)
			}
		})
	})
}

// An attempt's certain failure does not undo another's uncertain one.
func TestOutcomeOfSeveralAttempts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(
			sqstest.Rule{Fault: sqstest.ServerErrorAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 8},
			sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch", Queue: requestQueue, Skip: 8})
		_, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(time.Minute))
		e := errorOf(err)
		if e.Code != rpcclient.ResourceExhausted || e.Outcome != rpcclient.MaybeExecuted || e.Attempt != 2 {
			t.Errorf("got %v after attempt %d", err, e.Attempt)
		}
	})
}

type retryLog struct {
	mu      sync.Mutex
	retries []rpcclient.Retry
}

func (l *retryLog) OnRetry(r rpcclient.Retry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retries = append(l.retries, r)
}

// A responder's RetryAfter is obeyed, and a call that cannot is not repeated.
func TestPushback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log retryLog
		p := newPair(t, rpcclient.WithHooks(&log))
		var at []time.Time
		p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
			at = append(at, time.Now())
			e := rpcclient.Errorf(rpcclient.Unavailable, "warming up")
			e.RetryAfter = 7 * time.Second
			return sumReply{Sum: 1}, e
		})
		_, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(20*time.Second))
		if rpcclient.CodeOf(err) != rpcclient.Unavailable || len(at) != 3 || at[1].Sub(at[0]) < 7*time.Second || at[2].Sub(at[1]) < 7*time.Second {
			t.Errorf("%v after runs at %v", err, at)
		}
		if len(log.retries) != 2 || log.retries[0].Attempt != 1 || log.retries[0].Pause < 7*time.Second || log.retries[0].Pause > 8400*time.Millisecond || log.retries[1].Err == nil || log.retries[1].Method != "calculate_sum" {
			t.Errorf("hook: %+v", log.retries)
		}
		at = nil
		started := time.Now()
		_, err = idempotentSum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(5*time.Second))
		if rpcclient.CodeOf(err) != rpcclient.Unavailable || len(at) != 1 || time.Since(started) >= time.Second {
			t.Errorf("%v after %s and %d runs, with no time left for another", err, time.Since(started), len(at))
		}
	})
}

// A later attempt runs although the responder keeps an earlier one's error, and a later success is kept.
func TestRetriesUnderOneCallID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var ids []string
		var attempts []int
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			info, _ := rpcclient.InfoFromContext(ctx)
			ids, attempts = append(ids, info.CallID), append(attempts, info.Attempt)
			if len(ids) < 3 {
				return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "not yet")
			}
			return addUp(ctx, r)
		})
		got, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{5}})
		if err != nil || got.Sum != 5 || !slices.Equal(attempts, []int{1, 2, 3}) || ids[0] != ids[1] || ids[1] != ids[2] {
			t.Errorf("got %v, %v in attempts %v of %v", got, err, attempts, ids)
		}
	})
}

// A copy of an earlier attempt's refusal does not end a later attempt.
func TestStaleErrorOfAnEarlierAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.Duplicate, Queue: replyQueue, Count: 1})
		runs := 0
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if runs++; runs == 1 {
				return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "not yet")
			}
			time.Sleep(15 * time.Second) // the copy comes meanwhile
			return addUp(ctx, r)
		})
		got, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{5}})
		if err != nil || got.Sum != 5 || p.requester.Stats().LateReplies == 0 {
			t.Errorf("got %v, %v; %+v", got, err, p.requester.Stats())
		}
	})
}

// When most calls fail, retries stop: they would be the load that keeps the responders down.
func TestRetryTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 2, Tokens: 10, TokenRatio: 0.5}))
		var up atomic.Bool
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			if !up.Load() {
				return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "down")
			}
			return addUp(ctx, r)
		})
		for range 20 {
			_, _ = idempotentSum.Call(t.Context(), p.channel, sumRequest{})
		}
		// Tokens 9, 8, 7, 6 pay for retries (one of each call's two failures); from 5 on there are none.
		if got := runs.Load(); got != 22 {
			t.Errorf("%d runs of 20 calls that fail", got)
		}
		up.Store(true)
		for range 20 { // ten tokens
			if _, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{}); err != nil {
				t.Error(err)
			}
		}
		up.Store(false)
		runs.Store(0)
		_, _ = idempotentSum.Call(t.Context(), p.channel, sumRequest{})
		if got := runs.Load(); got != 2 {
			t.Errorf("%d runs after the channel recovered, want a retry", got)
		}
	})
}

func TestMaxAttemptsOfRequesterChannelAndCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.options = []rpcclient.Option{
			rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url, MaxAttempts: 2}),
			rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 4, Tokens: 100}),
		}
		p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
			return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "down")
		})
		for want, opts := range map[int][]rpcclient.CallOption{2: nil, 3: {rpcclient.CallMaxAttempts(3)}, 1: {rpcclient.CallMaxAttempts(1)}} {
			_, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{}, opts...)
			e := errorOf(err)
			if e.Attempt != want {
				t.Errorf("%v after attempt %d, want %d", err, e.Attempt, want)
			}
		}
	})
	for _, bad := range []rpcclient.Option{
		rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 11}), rpcclient.WithRetries(rpcclient.RetryPolicy{MaxBackoff: -1}),
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "x", URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/x", MaxAttempts: 11}),
	} {
		if _, err := rpcclient.NewRequester(sqs.New(sqs.Options{}), rpcclient.StaticReplyQueue(""), bad); err == nil {
			t.Error("accepted")
		}
	}
}

// Between two attempts a call can be cancelled, and shut down.
func TestEndsBetweenAttempts(t *testing.T) {
	for name, end := range map[string]func(p *pair, cancel context.CancelFunc){
		"cancel":   func(_ *pair, cancel context.CancelFunc) { cancel() },
		"shutdown": func(p *pair, _ context.CancelFunc) { _ = p.requester.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
					e := rpcclient.Errorf(rpcclient.Unavailable, "later")
					e.RetryAfter = 10 * time.Second
					return sumReply{}, e
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				pending := idempotentSum.Start(ctx, p.channel, sumRequest{})
				time.Sleep(2 * time.Second)
				synctest.Wait()
				started := time.Now()
				end(p, cancel)
				_, err := pending.Wait(t.Context())
				var e *rpcclient.Error
				if !errors.As(err, &e) || e.Code != rpcclient.Canceled || e.Outcome != rpcclient.Executed || time.Since(started) > time.Second {
					t.Errorf("%v after %s", err, time.Since(started))
				}
			})
		})
	}
}

// On a FIFO channel each attempt is a message of its own, in the call's group.
func TestRetryOnFIFO(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := sqstest.New()
		p := &pair{server: s, client: s.Client()}
		p.url, p.replyURL = p.queue(t, "rq_test_ns_login.fifo"), p.queue(t, replyQueue)
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
		p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		pending := idempotentSum.Start(t.Context(), p.channel, sumRequest{}, rpcclient.CallGroup("orders"))
		for attempt := range 2 {
			out, err := p.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
				QueueUrl: &p.url, WaitTimeSeconds: 20, MessageAttributeNames: []string{"All"}, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
			})
			if err != nil || len(out.Messages) != 1 {
				t.Fatal(len(out.Messages), err)
			}
			m := out.Messages[0]
			id := pending.CallID()
			if m.Attributes["MessageGroupId"] != "orders" || m.Attributes["MessageDeduplicationId"] != id+[]string{"-1", "-2"}[attempt] {
				t.Errorf("attempt %d: %v", attempt+1, m.Attributes)
			}
			if _, err := p.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &p.url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
			answers := []string{`{"k":"r","v":1,"s":"UNAVAILABLE","x":true,"e":"z","n":0,"end":1}`, `{"k":"r","v":1,"a":2,"e":"t","n":0,"end":1}`}
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.replyURL, MessageBody: aws.String(`{"Sum":9}`),
				MessageAttributes: attributes("__AmazonSQSVirtualQueuesClient.QueueName", id, "replyqueue", answers[attempt]),
			}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := pending.Wait(t.Context()); err != nil || got.Sum != 9 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// A later attempt that joins the execution of an earlier one gets its error.
func TestAttemptsThatJoin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		// Attempt 1 arrives, though all that is heard of it are errors; attempt 2 joins its handler.
		p.fault(sqstest.Rule{Fault: sqstest.ServerErrorAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 8})
		var runs atomic.Int64
		p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return sumReply{}, rpcclient.Errorf(rpcclient.NotFound, "no")
		})
		started := time.Now()
		_, err := idempotentSum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(time.Minute))
		if e := errorOf(err); e.Code != rpcclient.NotFound || e.Attempt != 2 || time.Since(started) > 15*time.Second || runs.Load() != 1 {
			t.Errorf("%v after attempt %d, %s and %d runs", err, e.Attempt, time.Since(started), runs.Load())
		}
	})
}

// A refusal of one copy does not say that no other was handled.
func TestRefusedCopyOfARequest(t *testing.T) {
	t.Run("received before", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			pending := sum.Start(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(2*time.Minute))
			p.receive(t, p.url) // by a process that may have handled it, and is gone
			time.AfterFunc(25*time.Second, func() { p.respond(t, func(*rpcclient.Responder) {}) })
			_, err := pending.Wait(t.Context())
			if e := errorOf(err); e.Code != rpcclient.Unimplemented || e.Outcome != rpcclient.MaybeExecuted {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("sent twice", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.fault(
				sqstest.Rule{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 1},
				// The answer comes when the second copy is under way.
				sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: time.Second},
			)
			p.respond(t, func(*rpcclient.Responder) {})
			p.fails(t, rpcclient.Unimplemented, rpcclient.MaybeExecuted)
		})
	})
	t.Run("once", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.respond(t, func(*rpcclient.Responder) {})
			p.fails(t, rpcclient.Unimplemented, rpcclient.Rejected)
		})
	})
}
