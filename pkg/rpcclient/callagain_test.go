package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A call whose handler ended after its deadline, and is made again under its identifier, has the first one's answer,
// from the responder that ran it and from another with its store.
func TestCallAgainAfterItsDeadline(t *testing.T) {
	for name, tc := range map[string]struct {
		took  time.Duration
		store bool
		calls int // of 10 s each
	}{
		"ended while the second call waits":       {took: 13 * time.Second, calls: 2},
		"ended while the third call waits":        {took: 27 * time.Second, calls: 3},
		"while the second waits, shared store":    {took: 13 * time.Second, store: true, calls: 2},
		"long after the copies' first visibility": {took: 85 * time.Second, calls: 9},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				handle := func(ctx context.Context, q sumRequest) (sumReply, error) {
					runs.Add(1)
					time.Sleep(tc.took)
					return addUp(ctx, q)
				}
				var opts []rpcclient.Option
				if tc.store {
					opts = append(opts, rpcclient.WithReplyStore(rpcclient.NewMemoryReplyStore(100)))
					p.serve(t, handle, opts...)
				}
				p.serve(t, handle, opts...)
				id, n := rpcclient.NewCallID(), 0
				var err error
				for range 20 {
					n++
					var got sumReply
					if got, err = sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1, 2}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(10*time.Second)); err == nil {
						if got.Sum != 3 {
							t.Errorf("the answer is %v", got)
						}
						break
					}
				}
				// The last of the calls whose copies wait for the handler has what it ended with.
				if err != nil || n != tc.calls || runs.Load() != 1 {
					t.Errorf("after %d calls and %d runs: %v; want an answer after %d calls and one run", n, runs.Load(), err, tc.calls)
				}
				time.Sleep(time.Minute)
				if n := p.messages(t, requestQueue); n != 0 || runs.Load() != 1 {
					t.Errorf("%d runs, %d requests left", runs.Load(), n)
				}
			})
		})
	}
}

// A call that is made again while its handler runs has the answer for as long as it waits itself, though the handler ended in
// time for the first call, whose answer could not be sent then.
func TestCallAgainOutlivesTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
			time.Sleep(9500 * time.Millisecond)
			return addUp(ctx, q)
		})
		id := rpcclient.NewCallID()
		ctx, giveUp := context.WithCancel(t.Context())
		first := sum.Start(ctx, p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(10*time.Second))
		time.Sleep(5 * time.Second)
		giveUp()
		if _, err := first.Wait(t.Context()); err == nil {
			t.Fatal("the first call was answered")
		}
		time.AfterFunc(4*time.Second, func() {
			p.fault(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch", Queue: replyQueue})
		})
		time.AfterFunc(8*time.Second, func() { p.fault() })
		if got, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(2*time.Minute)); err != nil || got.Sum != 1 {
			t.Errorf("%v %v", got, err)
		}
	})
}

// That the first call is out of time is no answer to one that was made again while its handler ran or later, and which has time left:
// it is run for that one. For a copy of the first that SQS took later it is not.
func TestCallAgainWhoseFirstWasCutOff(t *testing.T) {
	heeding := func(ctx context.Context, _ sumRequest) (sumReply, error) {
		<-ctx.Done()
		return sumReply{}, fmt.Errorf("read: %w", ctx.Err())
	}
	for name, tc := range map[string]struct {
		places int
		after  time.Duration // from when the first was given up
	}{
		"joins":                    {places: 64},
		"received when it is over": {places: 1},
		"made when it is over":     {places: 64, after: 5100 * time.Millisecond},
		"made when it is settled":  {places: 64, after: 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
					if runs.Add(1) == 1 {
						return heeding(ctx, q)
					}
					time.Sleep(3 * time.Second)
					return addUp(ctx, q)
				}, rpcclient.WithConcurrency(tc.places))
				id := rpcclient.NewCallID()
				givenUp(t, p.channel, id)
				time.Sleep(tc.after)
				started := time.Now()
				got, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(10*time.Second))
				if took := time.Since(started); err != nil || got.Sum != 1 || runs.Load() != 2 || took > 9*time.Second {
					t.Errorf("after %s and %d runs: %v %v; want the answer of the second, which began when the first was cut off", took, runs.Load(), got, err)
				}
				time.Sleep(15 * time.Second)
				if n := p.messages(t, requestQueue); n != 0 || runs.Load() != 2 {
					t.Errorf("%d runs, %d requests left", runs.Load(), n)
				}
			})
		})
	}
	t.Run("copy", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			var runs atomic.Int64
			p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
				runs.Add(1)
				return heeding(ctx, q)
			})
			// SQS takes one at once, and the same again 20 s later.
			id, sent := rpcclient.NewCallID(), time.Now().UnixMilli()
			for range 2 {
				if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
					QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1]}`), MessageAttributes: attributes(
						"ResponseQueueUrl", p.replyURL+"#"+id,
						"replyqueue", fmt.Sprintf(`{"k":"q","v":1,"id":%q,"m":"calculate_sum","e":"t","b":60000,"t":%d,"a":1}`, id, sent)),
				}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
			}
			time.Sleep(time.Minute)
			if n := p.messages(t, requestQueue); n != 0 || runs.Load() != 1 {
				t.Errorf("%d runs, %d requests left", runs.Load(), n)
			}
		})
	})
}

// givenUp makes a call of 10 s and gives it up after 5.
func givenUp(t *testing.T, channel *rpcclient.Channel, id string) {
	t.Helper()
	ctx, giveUp := context.WithCancel(t.Context()) // and not with a timeout, which responders are told
	defer time.AfterFunc(5*time.Second, giveUp).Stop()
	if _, err := sum.Call(ctx, channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(10*time.Second)); err == nil {
		t.Fatal("the first call was answered")
	}
}

// A call that was made again is not left to run where that would make a dead letter of it: it is told what came of the first.
func TestCallAgainMakesNoDeadLetters(t *testing.T) {
	for name, tc := range map[string]struct {
		maxReceives int
		full        bool // its method is, when the first has come, until the second has
		want        rpcclient.Code
		outcome     rpcclient.Outcome
		runs        int64
	}{
		"cut off, last receive":    {maxReceives: 1, want: rpcclient.DeadlineExceeded, outcome: rpcclient.Executed, runs: 1},
		"cut off, one is left":     {maxReceives: 2, want: rpcclient.OK, runs: 2},
		"no place, last receive":   {maxReceives: 1, full: true, want: rpcclient.Unavailable, outcome: rpcclient.MaybeExecuted, runs: 1},
		"no place, one is left":    {maxReceives: 2, full: true, want: rpcclient.OK, runs: 2},
		"receives are not limited": {maxReceives: 1000, full: true, want: rpcclient.OK, runs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, channels := fleet(t, tc.maxReceives, rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: tc.maxReceives})
				var runs atomic.Int64
				p.respond(t, func(r *rpcclient.Responder) {
					sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) {
						if runs.Add(1) > 1 {
							return addUp(ctx, q)
						}
						select {
						case <-time.After(15 * time.Second):
							return addUp(ctx, q)
						case <-ctx.Done():
							return sumReply{}, ctx.Err()
						}
					}, rpcclient.WithMethodConcurrency(1))
				})
				if tc.full {
					job := occupy(channels["heavy"], 0)
					defer func() { _, _ = job.Wait(context.Background()) }()
					time.Sleep(time.Second)
				}
				id := rpcclient.NewCallID()
				givenUp(t, channels["light"], id)
				started := time.Now()
				_, err := sum.Call(t.Context(), channels["light"], sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(time.Minute))
				if took := time.Since(started); rpcclient.CodeOf(err) != tc.want || took > 12*time.Second {
					t.Errorf("after %s: %v; want %s", took, err, tc.want)
				}
				if e := (*rpcclient.Error)(nil); errors.As(err, &e) && e.Outcome != tc.outcome {
					t.Errorf("%v, want %s", err, tc.outcome)
				}
				time.Sleep(time.Minute)
				if n := p.messages(t, "dead") + p.messages(t, "rq_test_ns_light"); n != 0 || runs.Load() != tc.runs {
					t.Errorf("%d runs, %d messages left or dead", runs.Load(), n)
				}
			})
		})
	}
}

// A stream that has sent something is not run for the call that was made again: that may have some of it.
func TestCallAgainOfAStreamThatSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		many := rpcclient.NewMethod[sumRequest, int]("many")
		var runs atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			many.HandleStream(r, func(ctx context.Context, _ sumRequest, send func(int) error) error {
				runs.Add(1)
				for i := 0; ctx.Err() == nil && i < 15; i++ {
					if err := send(i); err != nil {
						return err
					}
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
				}
				return ctx.Err()
			})
		})
		id := rpcclient.NewCallID()
		call := func(ctx context.Context, timeout time.Duration) (err error) {
			for _, e := range many.Stream(ctx, p.channel, sumRequest{}, rpcclient.WithCallID(id), rpcclient.CallTimeout(timeout)) {
				if e != nil {
					err = e
				}
			}
			return err
		}
		ctx, giveUp := context.WithCancel(t.Context())
		defer time.AfterFunc(5*time.Second, giveUp).Stop()
		if call(ctx, 10*time.Second) == nil || call(t.Context(), time.Minute) == nil {
			t.Error("a stream without its beginning is complete")
		}
		time.Sleep(time.Minute)
		if n := p.messages(t, requestQueue) + p.messages(t, replyQueue); n != 0 || runs.Load() != 1 {
			t.Errorf("%d runs, %d messages left", runs.Load(), n)
		}
	})
}

// What a handler ended with too late is kept, and sent to a call that is made again after that.
func TestCallAgainAfterALateEnd(t *testing.T) {
	failed := rpcclient.Errorf(rpcclient.DataLoss, "it is gone")
	for name, tc := range map[string]struct {
		end  error
		want rpcclient.Code
	}{
		"answer": {nil, rpcclient.OK},
		"error":  {failed, rpcclient.DataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
					runs.Add(1)
					time.Sleep(3 * time.Second)
					return sumReply{}, tc.end
				})
				id := rpcclient.NewCallID()
				call := func() error {
					_, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(2*time.Second))
					return err
				}
				if err := call(); rpcclient.CodeOf(err) != rpcclient.DeadlineExceeded {
					t.Errorf("the first call: %v", err)
				}
				time.Sleep(2 * time.Second)
				if s := p.responder.Stats(); s.Expired != 1 || p.messages(t, replyQueue) != 0 {
					t.Errorf("%d expired, %d replies to a call that is over", s.Expired, p.messages(t, replyQueue))
				}
				err := call()
				if rpcclient.CodeOf(err) != tc.want || runs.Load() != 1 {
					t.Errorf("%v after %d runs; want %s after one", err, runs.Load(), tc.want)
				}
				if e := (*rpcclient.Error)(nil); errors.As(err, &e) && e.Outcome != rpcclient.Executed {
					t.Errorf("the outcome is %s", e.Outcome)
				}
			})
		})
	}
}

// A handler's error is the answer to a call that is made again for a while, however often it is made: then it is run.
func TestErrorIsNotKeptByCallsMadeAgain(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
					if runs.Add(1) == 1 {
						return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "the database restarts")
					}
					return addUp(ctx, q)
				})
				id, started := rpcclient.NewCallID(), time.Now()
				for {
					_, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(10*time.Second))
					if err == nil {
						break
					}
					if time.Since(started) > 5*time.Minute {
						t.Fatalf("after %s: %v", time.Since(started), err)
					}
					time.Sleep(every)
				}
				// The budget of 10 s and the queue's visibility timeout of 30 s.
				if took := time.Since(started); took < 40*time.Second || took > 41*time.Second+every || runs.Load() != 2 {
					t.Errorf("%d runs, the second after %s", runs.Load(), took)
				}
			})
		})
	}
}

// Nor is it kept for as long as a call waits that joined the one which failed, or that had it from the store.
func TestErrorIsNotKeptByCallsThatJoin(t *testing.T) {
	t.Run("one process", func(t *testing.T) { testErrorIsNotKept(t) })
	t.Run("shared store", func(t *testing.T) {
		testErrorIsNotKept(t, rpcclient.WithReplyStore(rpcclient.NewMemoryReplyStore(100)), rpcclient.WithConcurrency(1))
	})
}

func testErrorIsNotKept(t *testing.T, shared ...rpcclient.Option) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runs atomic.Int64
		handle := func(ctx context.Context, q sumRequest) (sumReply, error) {
			if runs.Add(1) == 1 {
				time.Sleep(8 * time.Second)
				return sumReply{}, rpcclient.Errorf(rpcclient.Unavailable, "the database restarts")
			}
			return addUp(ctx, q)
		}
		stop := p.serve(t, handle, shared...)
		id, started := rpcclient.NewCallID(), time.Now()
		again := func(timeout time.Duration) error {
			_, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.WithCallID(id), rpcclient.CallTimeout(timeout))
			return err
		}
		givenUp(t, p.channel, id)
		if len(shared) > 0 { // the next come to another responder
			p.serve(t, handle, shared...)
			time.AfterFunc(10*time.Second, stop)
		}
		if err := again(time.Hour); rpcclient.CodeOf(err) != rpcclient.Unavailable {
			t.Errorf("the call that joined: %v", err)
		}
		for again(10*time.Second) != nil && time.Since(started) < 5*time.Minute {
			time.Sleep(time.Second)
		}
		if took := time.Since(started); took > 45*time.Second || runs.Load() != 2 {
			t.Errorf("%d runs, the second after %s", runs.Load(), took)
		}
	})
}

// A copy of a call that was made again, and waits with it for a place of its method, is not dropped with the first.
func TestCallAgainWhileItsMethodIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		release := make(chan struct{})
		var runs atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) {
				if runs.Add(1) == 1 {
					<-release
				}
				return addUp(ctx, q)
			}, rpcclient.WithMethodConcurrency(1))
		})
		first := sum.Start(t.Context(), p.channel, sumRequest{})
		time.Sleep(time.Second)
		id := rpcclient.NewCallID()
		p.copiesOf(t, id, 1, "calculate_sum", `{"Numbers":[1,2]}`, "1") // with a minute
		time.Sleep(59500 * time.Millisecond)
		p.copiesOf(t, id, 1, "calculate_sum", `{"Numbers":[1,2]}`, "1")
		time.Sleep(2 * time.Second)
		close(release)
		_, _ = first.Wait(t.Context())
		time.Sleep(30 * time.Second)
		if n := p.messages(t, replyQueue); n != 1 || runs.Load() != 2 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d replies, %d runs, %d requests left; want an answer to the second copy", n, runs.Load(), p.messages(t, requestQueue))
		}
	})
}
