package rpcclient_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		pending := sum.Start(t.Context(), p.channel, sumRequest{Numbers: []int{1, 2}})
		if n := len(pending.CallID()); n != 34 {
			t.Errorf("a call ID of %d bytes", n)
		}
		// Waiting can end without the call.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := pending.Wait(ctx)
		var e *rpcclient.Error
		if !errors.As(err, &e) || e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.MaybeExecuted {
			t.Errorf("the wait ended in %v", err)
		}
		select {
		case <-pending.Done():
			t.Error("done before its reply")
		default:
		}
		for range 2 {
			if got, err := pending.Wait(t.Context()); err != nil || got.Sum != 3 {
				t.Errorf("got %v, %v", got, err)
			}
		}
		<-pending.Done()
		pending.Cancel() // changes nothing any more
		if got, err := pending.Wait(t.Context()); err != nil || got.Sum != 3 {
			t.Errorf("after Cancel: %v, %v", got, err)
		}
	})
}

func TestCancelOfWhatWasSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		pending := sum.Start(t.Context(), p.channel, sumRequest{})
		synctest.Wait()
		time.Sleep(time.Second)
		pending.Cancel()
		_, err := pending.Wait(t.Context())
		var e *rpcclient.Error
		if !errors.As(err, &e) || e.Code != rpcclient.Canceled || e.Outcome != rpcclient.MaybeExecuted || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := p.requester.Pending(); n != 0 {
			t.Errorf("%d calls are still pending", n)
		}
	})
}

// What waits behind a batch in flight is taken back: SQS never sees it.
func TestCancelRemovesWhatWasNotSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch", Queue: requestQueue})
		var unsent []*rpcclient.Pending[sumReply]
		for range 5 {
			unsent = append(unsent, sum.Start(t.Context(), p.channel, sumRequest{}))
		}
		synctest.Wait()
		for _, pending := range unsent {
			pending.Cancel()
			_, err := pending.Wait(t.Context())
			var e *rpcclient.Error
			if !errors.As(err, &e) || e.Code != rpcclient.Canceled || e.Outcome != rpcclient.NotSent {
				t.Errorf("got %v", err)
			}
		}
		p.fault()
		time.Sleep(time.Minute)
		if n := p.messages(t, requestQueue); n != 0 {
			t.Errorf("%d messages of calls that were taken back are in the queue", n)
		}
	})
}

func TestShutdownWaitsForStartedCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var ran atomic.Bool
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			ran.Store(true)
			return addUp(ctx, r)
		})
		pending := sum.Start(t.Context(), p.channel, sumRequest{Numbers: []int{1}})
		synctest.Wait()
		if err := p.requester.Shutdown(t.Context()); err != nil || !ran.Load() {
			t.Errorf("shutdown: %v; ran: %t", err, ran.Load())
		}
		if got, err := pending.Wait(t.Context()); err != nil || got.Sum != 1 {
			t.Errorf("got %v, %v", got, err)
		}
		_, err := sum.Start(t.Context(), p.channel, sumRequest{}).Wait(t.Context())
		var e *rpcclient.Error
		if !errors.Is(err, rpcclient.ErrClosed) || !errors.As(err, &e) || e.Outcome != rpcclient.NotSent {
			t.Errorf("after shutdown: %v", err)
		}
	})
}

// An interceptor that does not return keeps Shutdown no longer than its context.
func TestShutdownDoesNotWaitForInterceptors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		p := &pair{server: sqstest.New()}
		p.client = p.server.Client()
		url, replies := p.queue(t, requestQueue), p.queue(t, replyQueue)
		r, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(replies),
			rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: url}),
			rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
				return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
					<-release
					return next(ctx, c, receive)
				}
			}))
		if err != nil {
			t.Fatal(err)
		}
		ch, err := r.Channel("login")
		if err != nil {
			t.Fatal(err)
		}
		pending := sum.Start(t.Context(), ch, sumRequest{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		close(release)
		if _, err := pending.Wait(t.Context()); !errors.Is(err, rpcclient.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNotify(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var got atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			info, _ := rpcclient.InfoFromContext(ctx)
			if info.Peer != rpcclient.PeerOneWay || info.Metadata()["k"] != "v" {
				t.Errorf("info: %+v", info)
			}
			got.Add(int64(r.Numbers[0]))
			return sumReply{}, nil
		})
		if err := sum.Notify(t.Context(), p.channel, sumRequest{Numbers: []int{7}}, rpcclient.CallMetadata("k", "v")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got.Load() != 7 || p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 0 {
			t.Errorf("handled %d, %d requests and %d replies are left", got.Load(), p.messages(t, requestQueue), p.messages(t, replyQueue))
		}
		// Nobody polls for a reply that will not come.
		if polls := p.server.Requests(sqstest.OnQueue(replyQueue), sqstest.Action("ReceiveMessage")); polls != 0 {
			t.Errorf("%d polls of the reply queue", polls)
		}
		if s := p.requester.Stats(); s.Calls != 1 || s.OK != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestNotifyOutlivesItsCallersDeadlineAndExpiresAtItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sum.Notify(ctx, p.channel, sumRequest{Numbers: []int{1}}); err != nil {
			t.Fatal(err)
		}
		if err := sum.Notify(ctx, p.channel, sumRequest{Numbers: []int{2}}, rpcclient.NotifyExpiry(time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		got := make(chan int, 2)
		p.serve(t, func(_ context.Context, r sumRequest) (sumReply, error) {
			got <- r.Numbers[0]
			return sumReply{}, nil
		})
		time.Sleep(5 * time.Second)
		if len(got) != 1 || <-got != 1 || p.responder.Stats().Expired != 1 {
			t.Errorf("handled %d more; stats %+v", len(got), p.responder.Stats())
		}
	})
}

func TestNotifyOutcomes(t *testing.T) {
	for _, tc := range []struct {
		fault   sqstest.Fault
		outcome rpcclient.Outcome
	}{
		{sqstest.AccessDenied, rpcclient.NotSent}, {sqstest.Throttle, rpcclient.NotSent}, {sqstest.ServerErrorAfter, rpcclient.MaybeExecuted},
	} {
		t.Run(string(tc.fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: tc.fault, Action: "SendMessageBatch"})
				err := sum.Notify(t.Context(), p.channel, sumRequest{})
				var e *rpcclient.Error
				if !errors.As(err, &e) || e.Outcome != tc.outcome {
					t.Errorf("got %v", err)
				}
				if n := p.requester.Pending(); n != 0 {
					t.Errorf("%d calls are still pending", n)
				}
			})
		})
	}
}

// What a call was started with may be used again: for raw bytes and for what a codec reads.
func TestStartKeepsNoHoldOfItsRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		echo, numbers := rpcclient.NewRawMethod("echo", ""), rpcclient.NewMethod[[]int, []int]("numbers")
		p.respond(t, func(r *rpcclient.Responder) {
			echo.Handle(r, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
			numbers.Handle(r, func(_ context.Context, n []int) ([]int, error) { return n, nil })
		})
		buffer, list := make([]byte, 1), make([]int, 1)
		var raw []*rpcclient.Pending[[]byte]
		var typed []*rpcclient.Pending[[]int]
		for i := range 50 {
			buffer[0], list[0] = byte('0'+i), i
			raw = append(raw, echo.Start(t.Context(), p.channel, buffer))
			typed = append(typed, numbers.Start(t.Context(), p.channel, list))
		}
		for i := range raw {
			if got, err := raw[i].Wait(t.Context()); err != nil || string(got) != string(rune('0'+i)) {
				t.Errorf("call %d: %q, %v", i, got, err)
			}
			if got, err := typed[i].Wait(t.Context()); err != nil || len(got) != 1 || got[0] != i {
				t.Errorf("call %d: %v, %v", i, got, err)
			}
		}
		if _, err := rpcclient.NewMethod[chan int, int]("none").Start(t.Context(), p.channel, nil).Wait(t.Context()); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
			t.Errorf("what cannot be encoded: %v", err)
		}
	})
}
