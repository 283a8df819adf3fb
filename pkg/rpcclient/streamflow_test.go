package rpcclient_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Frames that come out of order, one at a time late, or not at all at first, cost a stream time and
// nothing else.
func TestStreamOutOfOrder(t *testing.T) {
	late := sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: replyQueue, Skip: 20, Count: 1, Duration: time.Second}
	lost := sqstest.Rule{Fault: sqstest.DropAfter, Action: "ReceiveMessage", Queue: replyQueue, Skip: 5, Count: 1}
	sharded, reorder := sqstest.Rule{Fault: sqstest.Sharded}, sqstest.Rule{Fault: sqstest.Reorder, Probability: 0.5}
	for name, tc := range map[string]struct {
		frames int
		rules  []sqstest.Rule
	}{
		"one frame late":   {2000, []sqstest.Rule{late}},
		"one receive lost": {2000, []sqstest.Rule{lost}},
		"from shards, in any order, with one receive lost":  {5000, []sqstest.Rule{sharded, reorder, lost}},
		"from shards, in any order, polls woken one by one": {3000, []sqstest.Rule{sharded, {Fault: sqstest.Reorder, Probability: 0.9}, {Fault: sqstest.LoneWakeUp}}},
	} {
		for _, packed := range []bool{false, true} {
			if packed && tc.frames > 2000 {
				continue
			}
			t.Run(fmt.Sprintf("%s/packed=%t", name, packed), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var o []rpcclient.Option
					if packed {
						o = append(o, rpcclient.WithPackedReplies())
					}
					p := newPair(t, o...)
					p.fault(append([]sqstest.Rule{{Fault: sqstest.Delay, Duration: 10 * time.Millisecond}}, tc.rules...)...)
					p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
					got, err := collect(count.Stream(t.Context(), p.channel, tc.frames, rpcclient.CallTimeout(2*time.Minute)))
					if err != nil || !slices.Equal(got, upTo(tc.frames)) {
						t.Fatalf("%d of %d replies, %v", len(got), tc.frames, err)
					}
					if n := p.server.Requests(sqstest.OnQueue(replyQueue)); n > 2*tc.frames {
						t.Errorf("%d requests at the reply queue for %d replies", n, tc.frames)
					}
				})
			})
		}
	}
}

// A consumer that is slow, or pauses, is no gap, and what waits for it in the queue is left there: no poll
// asks for it and none puts it back.
func TestStreamWaitsForItsConsumer(t *testing.T) {
	for name, consume := range map[string]func(n int){
		"20 ms each":  func(int) { time.Sleep(20 * time.Millisecond) },
		"100 ms each": func(int) { time.Sleep(100 * time.Millisecond) },
		"10 s once": func(n int) {
			if n == 10 {
				time.Sleep(10 * time.Second)
			}
		},
		"a minute, twice": func(n int) {
			if n == 10 || n == 2500 {
				time.Sleep(time.Minute)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: sqstest.Delay, Duration: 10 * time.Millisecond})
				p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
				n := 0
				for v, err := range count.Stream(t.Context(), p.channel, 3000, rpcclient.CallTimeout(time.Hour)) {
					if err != nil || v != n {
						t.Fatalf("reply %d: %d, %v", n, v, err)
					}
					n++
					consume(n)
				}
				receives := p.server.Requests(sqstest.Action("ReceiveMessage"), sqstest.OnQueue(replyQueue))
				back := p.server.Requests(sqstest.Action("ChangeMessageVisibilityBatch"), sqstest.OnQueue(replyQueue))
				if n != 3000 || receives > 400 || back > 10 {
					t.Errorf("%d replies with %d receives, put back %d times", n, receives, back)
				}
			})
		})
	}
}

// Calls on the same reply queue do not wait for a stream whose consumer is slow.
func TestCallsBesideASlowStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, countTo)
			sum.Handle(r, addUp)
		})
		streamed := make(chan int)
		go func() {
			n := 0
			for _, err := range count.Stream(t.Context(), p.channel, 3000, rpcclient.CallTimeout(time.Hour)) {
				if err == nil {
					n++
				}
				time.Sleep(50 * time.Millisecond)
			}
			streamed <- n
		}()
		time.Sleep(10 * time.Second)
		for range 50 {
			p.call(t, rpcclient.CallTimeout(5*time.Second))
			time.Sleep(time.Second)
		}
		if n := <-streamed; n != 3000 {
			t.Errorf("%d replies", n)
		}
	})
}

// A stream ends when its time or its context does, however many replies wait to be handed on.
func TestStreamEndsInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
		started := time.Now()
		var last error
		for _, err := range count.Stream(t.Context(), p.channel, 500, rpcclient.CallTimeout(3*time.Second)) {
			last = err
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(started); took > 3200*time.Millisecond || rpcclient.CodeOf(last) != rpcclient.DeadlineExceeded {
			t.Errorf("after %s: %v", took, last)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		for _, err := range count.Stream(ctx, p.channel, 500) {
			if last = err; err == nil {
				n++
			}
			if n == 3 {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n != 3 || rpcclient.CodeOf(last) != rpcclient.Canceled {
			t.Errorf("%d replies, %v", n, last)
		}
		if p.requester.Pending() != 0 {
			t.Error("still pending")
		}
	})
}

// A panic in the loop's body, contained by whoever called it, leaves nothing behind.
func TestStreamWhoseLoopPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) })
		for _, leave := range []func(){func() { panic("no") }, runtime.Goexit} {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { _ = recover() }()
				for _, err := range count.Stream(t.Context(), p.channel, 2000) {
					if err != nil {
						t.Error(err)
					}
					leave()
				}
			}()
			<-ended
			synctest.Wait()
			if n := p.requester.Pending(); n != 0 {
				t.Errorf("%d calls are pending", n)
			}
		}
		if err := p.requester.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// However a stream ends, no copy of its request is sent any more: what was refused is never handled.
func TestRefusedStreamIsNotSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.DelayAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 1, Duration: 5 * time.Second})
		go func() {
			m := p.receive(t, p.url)
			_, id, _ := strings.Cut(*m.MessageAttributes["ResponseQueueUrl"].StringValue, "#")
			rawStream{p, id}.send(t, "-", `{"k":"r","v":1,"s":"UNIMPLEMENTED","x":true,"e":"z","n":0,"end":1}`)
			if _, err := p.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &p.url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Error(err)
			}
		}()
		_, err := collect(count.Stream(t.Context(), p.channel, 3))
		if e := errorOf(err); e.Outcome != rpcclient.Rejected {
			t.Errorf("got %v", err)
		}
		var runs atomic.Int64
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(ctx context.Context, n int, send func(int) error) error {
				runs.Add(1)
				return countTo(ctx, n, send)
			})
		})
		time.Sleep(20 * time.Second)
		if runs.Load() != 0 {
			t.Errorf("refused, and executed %d times", runs.Load())
		}
	})
}
