package rpcclient_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What a responder makes of requests that were long on their way to it: SQS counts their visibility from when it gave
// them out.

// A request whose receive was answered so late that another was given it is not said to be Rejected.
func TestRefusalAfterASlowAnswer(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.DelayAfter, sqstest.SlowBody} {
		t.Run(string(fault), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				client := wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
					if action == "DeleteMessageBatch" {
						time.Sleep(time.Second)
					}
					return inner.Do(r)
				})
				p.fault(sqstest.Rule{Fault: fault, Action: "ReceiveMessage", Queue: requestQueue, Duration: 9500 * time.Millisecond, Count: 1})
				// One of yesterday, which lacks the method.
				old, err := rpcclient.NewResponder(client, p.options...)
				if err != nil {
					t.Fatal(err)
				}
				rpcclient.NewMethod[int, int]("other").Handle(old, func(context.Context, int) (int, error) { return 0, nil })
				served := make(chan error, 1)
				go func() { served <- old.Serve(context.Background()) }()
				time.Sleep(100 * time.Millisecond)
				called := make(chan error, 1)
				go func() {
					_, err := sum.Call(context.Background(), p.channel, sumRequest{}, rpcclient.CallMaxAttempts(1), rpcclient.CallTimeout(time.Minute))
					called <- err
				}()
				time.Sleep(3 * time.Second)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					runs.Add(1)
					time.Sleep(5 * time.Second)
					return addUp(ctx, r)
				})
				wantOutcome(t, <-called, rpcclient.Unimplemented, rpcclient.MaybeExecuted)
				time.Sleep(10 * time.Second)
				if runs.Load() != 1 {
					t.Errorf("executed %d times: the refusal had nothing to doubt", runs.Load())
				}
				if err := old.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Where the clock of SQS is known, a request that came late is extended before its visibility ends, and not so long
// after it came.
func TestExtensionAfterASlowAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runs atomic.Int64
		slow := func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		}
		p.serve(t, slow, rpcclient.WithMaxPollers(1))
		p.call(t)
		p.fault(sqstest.Rule{Fault: sqstest.DelayAfter, Action: "ReceiveMessage", Queue: requestQueue, Duration: 7 * time.Second, Count: 1})
		time.Sleep(30 * time.Second) // the poll under way has begun after the fault
		called := make(chan error, 1)
		go func() {
			_, err := sum.Call(context.Background(), p.channel, sumRequest{})
			called <- err
		}()
		time.Sleep(3 * time.Second)
		p.serve(t, slow)
		if err := <-called; err != nil || runs.Load() != 2 {
			t.Errorf("%v; two calls were executed %d times", err, runs.Load())
		}
	})
}
