package rpcclient_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestShutdownOfARequesterWaitsForItsCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		called := make(chan struct{})
		go func() {
			defer close(called)
			p.call(t)
		}()
		time.Sleep(time.Second)
		down := make(chan error, 1)
		go func() { down <- p.requester.Shutdown(t.Context()) }()
		synctest.Wait()
		e := p.failedCall(t, rpcclient.Canceled, rpcclient.NotSent)
		if !errors.Is(e, rpcclient.ErrClosed) {
			t.Errorf("a call during Shutdown: %v", e)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		<-called
		if n := p.messages(t, replyQueue); n != 0 {
			t.Errorf("%d replies were not deleted", n)
		}
	})
}

func TestShutdownOfARequesterCutsCallsOffWhenItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		ended := make(chan error, 1)
		go func() {
			_, err := sum.Call(context.Background(), p.channel, sumRequest{})
			ended <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		started := time.Now()
		if err := p.requester.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(started); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
		var e *rpcclient.Error
		if err := <-ended; !errors.As(err, &e) || !errors.Is(err, rpcclient.ErrClosed) || e.Outcome != rpcclient.MaybeExecuted {
			t.Errorf("the call: %v", err)
		}
	})
}

func TestShutdownOfAResponderSettlesWhatItReceived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		stop := p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() { p.call(t) })
		}
		time.Sleep(time.Second)
		stop()
		if n := p.messages(t, requestQueue); n != 0 {
			t.Errorf("%d requests were not settled", n)
		}
		wg.Wait()
	})
}

func TestShutdownOfAResponderIsCutOffWhenItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		r, err := rpcclient.NewResponder(p.client, append(p.options, rpcclient.WithDrainTimeout(3*time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		sum.Handle(r, func(ctx context.Context, _ sumRequest) (sumReply, error) {
			<-ctx.Done()
			return sumReply{}, context.Cause(ctx)
		})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- r.Serve(ctx) }()
		go func() { _, _ = sum.Call(t.Context(), p.channel, sumRequest{}) }()
		time.Sleep(time.Second)
		started := time.Now()
		cancel()
		if err := <-served; err == nil || time.Since(started) > 4*time.Second {
			t.Errorf("after %s: %v", time.Since(started), err)
		}
		if n := p.messages(t, requestQueue); n != 1 {
			t.Errorf("%d requests are left for another responder, want 1", n)
		}
		p.serve(t, addUp)
		time.Sleep(30 * time.Second)
		if s := p.requester.Stats(); s.OK != 1 {
			t.Errorf("another responder did not take over: %+v", s)
		}
	})
}

func TestShutdownEndsSoonAfterItsContextWhenDeletesAreNotAnswered(t *testing.T) {
	shutDown := func(t *testing.T, shutdown func(context.Context) error) {
		t.Helper()
		gone := errors.New("the pod is killed")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 1500*time.Millisecond, gone)
		defer cancel()
		started := time.Now()
		if err := shutdown(ctx); !errors.Is(err, gone) {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
	}
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "DeleteMessageBatch", Queue: replyQueue})
		p.call(t)
		shutDown(t, p.requester.Shutdown)
	})
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		r, err := rpcclient.NewResponder(p.client, append(p.options, rpcclient.WithReceiveWait(time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		sum.Handle(r, addUp)
		served := make(chan error, 1)
		go func() { served <- r.Serve(t.Context()) }()
		p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "DeleteMessageBatch", Queue: requestQueue})
		p.call(t)
		shutDown(t, r.Shutdown)
		if err := <-served; err == nil {
			t.Error("Serve returned no error")
		}
	})
}

func TestShutdownMakesItsDeletesAfterItsContextHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.call(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.requester.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown with nothing left to cut off: %v", err)
		}
		if n := p.messages(t, replyQueue); n != 0 {
			t.Errorf("%d replies were not deleted", n)
		}
	})
}

func TestMaxPending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithMaxPending(2, false))
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		started := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { p.call(t) })
		}
		synctest.Wait()
		e := p.failedCall(t, rpcclient.DeadlineExceeded, rpcclient.NotSent, rpcclient.CallTimeout(time.Second))
		if !errors.Is(e, rpcclient.ErrTooManyPending) {
			t.Errorf("got %v", e)
		}
		p.call(t)
		if took := time.Since(started); took < 10*time.Second {
			t.Errorf("a third call did not wait: %s", took)
		}
		wg.Wait()
	})
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithMaxPending(1, true))
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.DeliveryLag, Queue: requestQueue, Duration: time.Second})
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.call(t)
		}()
		synctest.Wait()
		e := p.failedCall(t, rpcclient.ResourceExhausted, rpcclient.NotSent)
		if !errors.Is(e, rpcclient.ErrTooManyPending) {
			t.Errorf("got %v", e)
		}
		<-done
	})
}
