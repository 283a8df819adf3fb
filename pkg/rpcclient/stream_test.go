package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// count streams the numbers below n.
var count = rpcclient.NewMethod[int, int]("count")

func countTo(_ context.Context, n int, send func(int) error) error {
	for i := range n {
		if err := send(i); err != nil {
			return err
		}
	}
	return nil
}

// collect ranges over a stream to its end.
func collect[T any](seq func(func(T, error) bool)) (got []T, err error) {
	for v, e := range seq {
		if e != nil {
			err = e
			continue
		}
		got = append(got, v)
	}
	return got, err
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestStream(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100, 400} {
		for _, faults := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/faults=%t", n, faults), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := newPair(t)
					if faults {
						p.fault(
							sqstest.Rule{Fault: sqstest.Duplicate, Probability: 0.2}, sqstest.Rule{Fault: sqstest.Reorder, Probability: 0.5},
							sqstest.Rule{Fault: sqstest.PartialBatch, Action: "SendMessageBatch", Queue: replyQueue, Probability: 0.1},
							sqstest.Rule{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Queue: replyQueue, Probability: 0.1},
							sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: replyQueue, Probability: 0.05, Duration: 2 * time.Second})
					}
					p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
					got, err := collect(count.Stream(t.Context(), p.channel, n, rpcclient.CallTimeout(5*time.Minute)))
					if err != nil || !slices.Equal(got, upTo(n)) {
						t.Fatalf("got %d replies, %v", len(got), err)
					}
					time.Sleep(time.Minute)
					if q := p.messages(t, requestQueue); q != 0 || p.requester.Pending() != 0 {
						t.Errorf("%d messages are left in the request queue, %d calls are pending", q, p.requester.Pending())
					}
					if s := p.requester.Stats(); s.OK != 1 || s.Calls != 1 {
						t.Errorf("stats: %+v", s)
					}
				})
			})
		}
	}
}

// Frames share SQS messages where the requester takes packs; the stream is the same.
func TestPackedStreamAndOneReply(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, countTo)
			sum.Handle(r, addUp)
		})
		if got, err := collect(count.Stream(t.Context(), p.channel, 500)); err != nil || !slices.Equal(got, upTo(500)) {
			t.Errorf("got %v, %v", got, err)
		}
		if s := p.requester.Stats(); s.PackedReplies == 0 {
			t.Error("nothing was packed")
		}
		if got, err := collect(sum.Stream(t.Context(), p.channel, sumRequest{Numbers: []int{1, 2}})); err != nil || len(got) != 1 || got[0].Sum != 3 {
			t.Errorf("a method with one reply: %v, %v", got, err)
		}
	})
}

// A requester that takes one reply is told so before the handler runs.
func TestStreamingMethodRefusesCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(context.Context, int, func(int) error) error {
				t.Error("the handler ran")
				return nil
			})
		})
		_, err := count.Call(t.Context(), p.channel, 3)
		if e := errorOf(err); e.Code != rpcclient.Unimplemented || e.Outcome != rpcclient.Rejected {
			t.Errorf("got %v", err)
		}
	})
}

func TestStreamErrors(t *testing.T) {
	handler := func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		if n == 2 {
			panic("no")
		}
		return rpcclient.Errorf(rpcclient.ResourceExhausted, "after %d", n).WithDetails("more")
	}
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, handler) })
		for n, code := range map[int]rpcclient.Code{0: rpcclient.ResourceExhausted, 2: rpcclient.Internal, 5: rpcclient.ResourceExhausted} {
			got, err := collect(count.Stream(t.Context(), p.channel, n))
			e := errorOf(err)
			if !slices.Equal(got, upTo(n)) || e.Code != code || e.Outcome != rpcclient.Executed || !rpcclient.IsRemote(err) || errors.As(err, new(*rpcclient.Incomplete)) {
				t.Errorf("%d: got %v, %v", n, got, err)
			}
		}
		_, err := collect(rpcclient.NewMethod[string, int]("count").Stream(t.Context(), p.channel, "x"))
		if e := errorOf(err); e.Code != rpcclient.InvalidArgument || e.Outcome != rpcclient.Rejected {
			t.Errorf("undecodable: %v", err)
		}
		_, err = collect(rpcclient.NewMethod[int, int]("none").Stream(t.Context(), p.channel, 1))
		if e := errorOf(err); e.Code != rpcclient.Unimplemented || e.Outcome != rpcclient.Rejected {
			t.Errorf("unknown method: %v", err)
		}
		time.Sleep(time.Minute)
		if q := p.messages(t, requestQueue); q != 0 {
			t.Errorf("%d requests are left", q)
		}
	})
}

func TestStreamDeadlineAndBreak(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var cause atomic.Value
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(ctx context.Context, _ int, send func(int) error) error {
				for i := 0; ; i++ {
					if err := send(i); err != nil {
						cause.Store(err)
						return err
					}
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
				}
			})
		})
		started := time.Now()
		got, err := collect(count.Stream(t.Context(), p.channel, 0, rpcclient.CallTimeout(5500*time.Millisecond)))
		var incomplete *rpcclient.Incomplete
		e := errorOf(err)
		if !slices.Equal(got, upTo(6)) || e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.Executed || time.Since(started) != 5500*time.Millisecond ||
			!errors.As(err, &incomplete) || incomplete.Received != 6 || !errors.Is(err, context.DeadlineExceeded) ||
			incomplete.Expected != -1 && incomplete.Expected != 6 { // the handler's end may come in the same instant
			t.Errorf("after %s: %v, %v, %+v", time.Since(started), got, err, incomplete)
		}
		time.Sleep(5 * time.Second)
		if cause.Load() == nil {
			t.Error("the handler was not ended")
		}

		n := 0
		for v, err := range count.Stream(t.Context(), p.channel, 0) {
			if err != nil || v != n {
				t.Errorf("%d, %v", v, err)
			}
			if n++; n == 3 {
				break
			}
		}
		if p.requester.Pending() != 0 {
			t.Error("the call outlives its loop")
		}
		if s := p.requester.Stats(); s.OK != 1 || s.Calls != 2 {
			t.Errorf("leaving a loop is no failure: %+v", s)
		}
		time.Sleep(time.Minute)
		for _, err := range count.Stream(t.Context(), p.channel, 0) {
			if err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Second) // while there is a call, there are polls
			break
		}
		if n := p.messages(t, replyQueue); n > 25 {
			t.Errorf("%d frames are left in the reply queue after the next call", n)
		}
	})
}

// What a raw peer sends, frame by frame.
type rawStream struct {
	p  *pair
	id string
}

func startRaw(t *testing.T, p *pair) rawStream {
	m := p.receive(t, p.url)
	_, id, _ := strings.Cut(*m.MessageAttributes["ResponseQueueUrl"].StringValue, "#")
	if env := *m.MessageAttributes["replyqueue"].StringValue; !strings.Contains(env, `"stream"`) {
		t.Errorf("the request does not say that it takes streams: %s", env)
	}
	return rawStream{p, id}
}

func (s rawStream) send(t *testing.T, body, envelope string) {
	t.Helper()
	if _, err := s.p.client.SendMessage(context.Background(), &sqs.SendMessageInput{
		QueueUrl: &s.p.replyURL, MessageBody: aws.String(body),
		MessageAttributes: attributes("__AmazonSQSVirtualQueuesClient.QueueName", s.id, "replyqueue", envelope),
	}); err != nil {
		t.Error(err)
	}
}

func TestIncompleteStreams(t *testing.T) {
	frame := func(run string, n int) string {
		return fmt.Sprintf(`{"k":"r","v":1,"e":"t","run":%q,"n":%d}`, run, n)
	}
	end := func(run string, n int) string {
		return fmt.Sprintf(`{"k":"r","v":1,"e":"z","run":%q,"n":%d,"end":%d}`, run, n, n+1)
	}
	for name, tc := range map[string]struct {
		send    func(t *testing.T, s rawStream)
		got     int
		want    rpcclient.Incomplete
		code    rpcclient.Code
		atLeast time.Duration
		atMost  time.Duration
	}{
		"another run": {func(t *testing.T, s rawStream) {
			s.send(t, "0", frame("a", 0))
			time.Sleep(time.Second)
			s.send(t, "0", frame("b", 0))
		}, 1, rpcclient.Incomplete{Received: 1, Expected: -1}, rpcclient.DataLoss, 0, 5 * time.Second},
		"gap at the end": {func(t *testing.T, s rawStream) {
			s.send(t, "0", frame("a", 0))
			s.send(t, "2", frame("a", 2))
			s.send(t, "-", end("a", 3))
		}, 1, rpcclient.Incomplete{Received: 1, Expected: 3}, rpcclient.DataLoss, 15 * time.Second, 20 * time.Second},
		"overflow of the reorder buffer, by number": {func(t *testing.T, s rawStream) {
			for n := 1; n <= 1030; n++ {
				s.send(t, "0", frame("a", n))
			}
		}, 0, rpcclient.Incomplete{Received: 0, Expected: -1}, rpcclient.DataLoss, 15 * time.Second, 20 * time.Second},
		"overflow of the reorder buffer, by bytes": {func(t *testing.T, s rawStream) {
			s.send(t, "0", frame("a", 0))
			for n := 2; n <= 10; n++ {
				s.send(t, strings.Repeat("1", 800<<10), frame("a", n))
			}
		}, 1, rpcclient.Incomplete{Received: 1, Expected: -1}, rpcclient.DataLoss, 15 * time.Second, 20 * time.Second},
		"a frame beyond the end": {func(t *testing.T, s rawStream) {
			s.send(t, "-", end("a", 1))
			s.send(t, "0", frame("a", 2))
		}, 0, rpcclient.Incomplete{Received: 0, Expected: 1}, rpcclient.Internal, 0, 10 * time.Second},
		"nonsense": {func(t *testing.T, s rawStream) {
			s.send(t, "0", frame("a", 0))
			s.send(t, "0", `{"k":"r","v":2}`)
		}, 1, rpcclient.Incomplete{Received: 1, Expected: -1}, rpcclient.Internal, 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				go func() { tc.send(t, startRaw(t, p)) }()
				started := time.Now()
				got, err := collect(count.Stream(t.Context(), p.channel, 0, rpcclient.CallTimeout(time.Minute)))
				e := errorOf(err)
				var incomplete *rpcclient.Incomplete
				if len(got) > tc.got || !errors.As(err, &incomplete) || e.Code != tc.code || e.Outcome != rpcclient.Executed {
					t.Fatalf("got %v, %v", got, err)
				}
				// Frames that came in one receive with what broke the stream are still handed on.
				if *incomplete != tc.want && incomplete.Received != len(got) {
					t.Errorf("%+v, want %+v", *incomplete, tc.want)
				}
				if took := time.Since(started); took < tc.atLeast || took > tc.atMost {
					t.Errorf("took %s", took)
				}
				if p.requester.Pending() != 0 {
					t.Error("still pending")
				}
			})
		})
	}
}

// A refusal by another responder, which got a copy of the request, does not end a stream that runs.
func TestRefusalOfACopyDoesNotEndAStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		go func() {
			s := startRaw(t, p)
			s.send(t, "0", `{"k":"r","v":1,"e":"t","run":"a","n":0}`)
			time.Sleep(time.Second)
			s.send(t, "-", `{"k":"r","v":1,"s":"UNAVAILABLE","x":true,"e":"z","n":0,"end":1}`)
			time.Sleep(time.Second)
			s.send(t, "-", `{"k":"r","v":1,"e":"z","run":"a","n":1,"end":2}`)
		}()
		if got, err := collect(count.Stream(t.Context(), p.channel, 0)); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// A responder that dies in a stream: the redelivery is another run.
func TestStreamAcrossResponders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		first, err := rpcclient.NewResponder(p.client, p.options...)
		if err != nil {
			t.Fatal(err)
		}
		count.HandleStream(first, func(ctx context.Context, _ int, send func(int) error) error {
			_ = send(0)
			<-ctx.Done()
			return ctx.Err()
		})
		served := make(chan error, 1)
		go func() { served <- first.Serve(t.Context()) }()
		time.AfterFunc(3*time.Second, func() {
			cut, cancel := context.WithCancel(context.Background())
			cancel()
			_ = first.Shutdown(cut) // as good as killed: no reply, no delete
			p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
		})
		got, streamErr := collect(count.Stream(t.Context(), p.channel, 3, rpcclient.CallTimeout(time.Minute)))
		var incomplete *rpcclient.Incomplete
		if !slices.Equal(got, upTo(1)) || !errors.As(streamErr, &incomplete) || incomplete.Received != 1 || rpcclient.CodeOf(streamErr) != rpcclient.DataLoss {
			t.Errorf("got %v, %v", got, streamErr)
		}
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A slow consumer keeps a bounded number of frames in memory, and loses none.
func TestSlowConsumer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
		n := 0
		for v, err := range count.Stream(t.Context(), p.channel, 600, rpcclient.CallTimeout(time.Hour)) {
			if err != nil || v != n {
				t.Fatalf("reply %d: %d, %v", n, v, err)
			}
			n++
			time.Sleep(20 * time.Millisecond)
		}
		if n != 600 {
			t.Errorf("%d replies", n)
		}
	})
}

// SQS's pace is the handler's: no more than the window is on its way.
func TestStreamBackPressure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: 2 * time.Second})
		var sent atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(_ context.Context, n int, send func(int) error) error {
				for i := range n {
					if err := send(i); err != nil {
						return err
					}
					sent.Add(1)
				}
				return nil
			})
		})
		done := make(chan error, 1)
		go func() {
			_, err := collect(count.Stream(t.Context(), p.channel, 500, rpcclient.CallTimeout(10*time.Minute)))
			done <- err
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := sent.Load(); n != 32 {
			t.Errorf("%d frames were taken while SQS has accepted none", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The handler of a stream ends when its requester's queue is gone, and further requests of that requester
// are not handled.
func TestRequesterGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var mu sync.Mutex
		runs, ended := 0, 0
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(ctx context.Context, _ int, send func(int) error) error {
				mu.Lock()
				runs++
				mu.Unlock()
				for send(1) == nil && ctx.Err() == nil {
					time.Sleep(100 * time.Millisecond)
				}
				mu.Lock()
				ended++
				mu.Unlock()
				return nil
			})
		})
		request := func() {
			id := rpcclient.NewCallID()
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.url, MessageBody: aws.String("1"), MessageAttributes: attributes(
					"ResponseQueueUrl", p.replyURL+"#"+id,
					"replyqueue", `{"k":"q","v":1,"id":"`+id+`","m":"count","e":"t","f":["stream"],"b":600000,"t":0,"a":1}`),
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		if _, err := p.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &p.replyURL}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			request()
		}
		mu.Lock()
		defer mu.Unlock()
		// The first one's frames are tried for 2 s, which confirms that the queue is no more.
		if runs != 1 || ended != 1 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d runs, %d ended, %d requests left", runs, ended, p.messages(t, requestQueue))
		}
	})
}

func TestNotifyOfAStreamingMethod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		ran := make(chan int, 1)
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(ctx context.Context, n int, send func(int) error) error {
				ran <- n
				return countTo(ctx, n, send)
			})
		})
		if err := count.Notify(t.Context(), p.channel, 100); err != nil {
			t.Fatal(err)
		}
		if n := <-ran; n != 100 {
			t.Errorf("got %d", n)
		}
		time.Sleep(5 * time.Second)
		if p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 0 {
			t.Error("messages are left")
		}
	})
}
