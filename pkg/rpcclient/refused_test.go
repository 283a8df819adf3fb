package rpcclient_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// What is refused before it is sent, or by AWS for who asks.

func wantOutcome(t *testing.T, err error, code rpcclient.Code, outcome rpcclient.Outcome) {
	t.Helper()
	var e *rpcclient.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != outcome {
		t.Errorf("got %v, want %s (%s)", err, code, outcome)
	}
}

// No target may be nil: there is no caller to recover on a goroutine of Gather's.
func TestGatherOfNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		_, err := sum.Gather(t.Context(), []*rpcclient.Channel{p.channel, nil}, sumRequest{})
		wantOutcome(t, err, rpcclient.InvalidArgument, rpcclient.NotSent)
	})
}

// Text that is none does not turn into other text on its way.
func TestTextThatIsNotUTF8(t *testing.T) {
	bubble(t, func(t *testing.T) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a method has a name that cannot travel")
				}
			}()
			rpcclient.NewMethod[int, int]("m\xff")
		}()
		p := newPair(t)
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if rpcclient.SetReplyMetadata(ctx, "k", "\xff") || !rpcclient.SetReplyMetadata(ctx, "k", "é") {
				t.Error("SetReplyMetadata takes what cannot travel, or refuses what can")
			}
			return addUp(ctx, r)
		})
		_, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallMetadata("k", "\xff"))
		wantOutcome(t, err, rpcclient.InvalidArgument, rpcclient.NotSent)
		if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallMetadata("k", "é")); err != nil {
			t.Error(err)
		}
	})
}

// The SDK learns from the refusal how wrong this process's clock is.
func TestCallsOfAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			p.serve(t, addUp)
			p.fault(sqstest.Rule{Fault: sqstest.ClockSkew, Duration: off, Action: "SendMessageBatch"})
			p.call(t)
			p.server.SetFaults(sqstest.Plan{})
		})
	}
}

// Credentials that have expired are tried once more, since there may be new ones, and named in the end.
func TestExpiredCredentials(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.call(t)
		p.server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ExpiredCredentials, Action: "SendMessageBatch", Queue: requestQueue, Count: 1}}})
		p.call(t)
		p.server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ExpiredCredentials, Action: "SendMessageBatch", Queue: requestQueue}}})
		before := p.server.Requests(sqstest.Action("SendMessageBatch"))
		_, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(time.Minute))
		wantOutcome(t, err, rpcclient.PermissionDenied, rpcclient.NotSent)
		if n := p.server.Requests(sqstest.Action("SendMessageBatch")) - before; n > 10 {
			t.Errorf("%d requests for one call", n)
		}
	})
}

// A reply queue may take less than SQS does: the caller is told that the answer is too large for it, once, and soon.
func TestReplyThatItsQueueDoesNotTake(t *testing.T) {
	big := rpcclient.NewMethod[int, string]("big")
	answer := strings.Repeat("x", 300<<10)
	smaller := func(t *testing.T, p *pair) {
		if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
			QueueUrl: &p.replyURL, Attributes: map[string]string{"MaximumMessageSize": "262144"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("call", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			smaller(t, p)
			p.fault(sqstest.Rule{Fault: sqstest.Duplicate, Queue: requestQueue, Count: 1})
			runs := 0
			p.respond(t, func(r *rpcclient.Responder) {
				big.Handle(r, func(context.Context, int) (string, error) { runs++; return answer, nil })
			})
			began := time.Now()
			_, err := big.Call(t.Context(), p.channel, 1)
			wantOutcome(t, err, rpcclient.ResourceExhausted, rpcclient.Executed)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("after %s", took)
			}
			time.Sleep(time.Minute)
			if n := p.messages(t, requestQueue); runs != 1 || n != 0 {
				t.Errorf("%d runs, %d requests left", runs, n)
			}
		})
	})
	t.Run("stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			smaller(t, p)
			runs := 0
			p.respond(t, func(r *rpcclient.Responder) {
				big.HandleStream(r, func(_ context.Context, _ int, send func(string) error) error {
					runs++
					return errors.Join(send("a"), send("b"), send(answer))
				})
			})
			got := ""
			var err error
			for s, e := range big.Stream(t.Context(), p.channel, 1) {
				got, err = got+s, e
			}
			wantOutcome(t, err, rpcclient.ResourceExhausted, rpcclient.Executed)
			time.Sleep(time.Minute)
			if n := p.messages(t, requestQueue); got != "ab" || runs != 1 || n != 0 {
				t.Errorf("got %q; %d runs, %d requests left", got, runs, n)
			}
		})
	})
}

// A queue may take less than SQS does: what is too large for it is found before it is sent where the channel says so,
// and named for what it is where SQS says so.
func TestRequestThatItsQueueDoesNotTake(t *testing.T) {
	for name, told := range map[string]int{"told": 262144, "not told": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
					QueueUrl: &p.url, Attributes: map[string]string{"MaximumMessageSize": "262144"},
				}); err != nil {
					t.Fatal(err)
				}
				p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url, MaxMessageBytes: told})}
				_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
				before := p.server.Requests(sqstest.Action("SendMessageBatch"))
				_, err := rpcclient.NewRawMethod("blob", "").Call(t.Context(), channel, make([]byte, 300_000))
				wantOutcome(t, err, rpcclient.ResourceExhausted, rpcclient.NotSent)
				if !errors.Is(err, rpcclient.ErrPayloadTooLarge) {
					t.Errorf("%v is not ErrPayloadTooLarge", err)
				}
				want := 1
				if told > 0 {
					want = 0
				}
				if n := p.server.Requests(sqstest.Action("SendMessageBatch")) - before; n != want {
					t.Errorf("%d sends, want %d", n, want)
				}
			})
		})
	}
}
