package rpcclient_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// restart shuts the requester down as a crash would, with its calls under way, and starts another on the
// same queue.
func (p *pair) restart(t *testing.T, opts ...rpcclient.Option) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.requester.Shutdown(ctx)
	p.options = append(p.options[:1:1], opts...)
	p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
}

func TestResume(t *testing.T) {
	for name, tc := range map[string]struct {
		pause   time.Duration // between restart and Resume
		traffic bool          // other calls poll the queue meanwhile
	}{
		"before the reply":                {0, false},
		"after the reply":                 {time.Minute, false},
		"after the reply came for nobody": {time.Minute, true},
		"much later":                      {9 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				slow := rpcclient.NewMethod[int, int]("slow")
				p.respond(t, func(r *rpcclient.Responder) {
					sum.Handle(r, addUp)
					slow.Handle(r, func(_ context.Context, n int) (int, error) {
						runs.Add(1)
						time.Sleep(10 * time.Second)
						return n + 1, nil
					})
				})
				id := rpcclient.NewCallID()
				pending := slow.Start(t.Context(), p.channel, 41, rpcclient.WithCallID(id))
				if pending.CallID() != id {
					t.Error("another call ID")
				}
				time.Sleep(time.Second)
				p.restart(t, rpcclient.WithHeldReplies(10*time.Minute))
				if _, err := pending.Wait(t.Context()); !errors.Is(err, rpcclient.ErrClosed) || errorOf(err).Outcome != rpcclient.MaybeExecuted {
					t.Errorf("the call that was cut off: %v", err)
				}
				for until := time.Now().Add(tc.pause); time.Now().Before(until); time.Sleep(2 * time.Second) {
					if tc.traffic {
						p.call(t)
					}
				}
				started := time.Now()
				got, err := slow.Resume(t.Context(), p.channel, id)
				if err != nil || got != 42 || runs.Load() != 1 {
					t.Fatalf("got %d, %v after %d runs", got, err, runs.Load())
				}
				if tc.traffic && time.Since(started) != 0 {
					t.Errorf("a reply that was there took %s", time.Since(started))
				}
				// Copies of it are known and go.
				for range 20 {
					p.call(t)
					time.Sleep(2 * time.Second)
				}
				if n := p.messages(t, replyQueue); n != 0 {
					t.Errorf("%d messages are left in the reply queue", n)
				}
			})
		})
	}
}

func TestResumeWithoutAReply(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithHeldReplies(time.Minute))
		started := time.Now()
		_, err := sum.Resume(t.Context(), p.channel, rpcclient.NewCallID(), rpcclient.CallTimeout(5*time.Second))
		if e := errorOf(err); e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.MaybeExecuted || time.Since(started) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(started))
		}
		if n := p.server.Requests(sqstest.Action("SendMessageBatch")); n != 0 {
			t.Error("Resume sent something")
		}
		for _, id := range []string{"", "short", "0123456789abcdef#", "0123456789abcdef 0123456789"} {
			for _, call := range []func() (sumReply, error){
				func() (sumReply, error) { return sum.Resume(t.Context(), p.channel, id) },
				func() (sumReply, error) {
					return sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.WithCallID(id))
				},
			} {
				if id == "" {
					continue // Call makes one
				}
				if _, err := call(); rpcclient.CodeOf(err) != rpcclient.InvalidArgument || errorOf(err).Outcome != rpcclient.NotSent {
					t.Errorf("call ID %q: %v", id, err)
				}
			}
		}
		if _, err := sum.Resume(t.Context(), p.channel, ""); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
			t.Errorf("no call ID: %v", err)
		}
		id := rpcclient.NewCallID()
		first := sum.Start(t.Context(), p.channel, sumRequest{}, rpcclient.WithCallID(id))
		time.Sleep(time.Second)
		if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.WithCallID(id)); rpcclient.CodeOf(err) != rpcclient.AlreadyExists || errorOf(err).Outcome != rpcclient.NotSent {
			t.Errorf("a second call with the ID: %v", err)
		}
		first.Cancel()
		<-first.Done()
	})
}

// Making a call again with its identifier does not run it again.
func TestSameCallAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		id := rpcclient.NewCallID()
		for range 3 {
			p.call(t, rpcclient.WithCallID(id))
		}
		if s := p.responder.Stats(); s.Served != 1 || s.Duplicates != 2 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// Nobody asks for ever: after the grace a held reply goes.
func TestHeldRepliesGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithHeldReplies(2*time.Minute))
		p.serve(t, addUp)
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.replyURL, MessageBody: aws.String(`{"Sum":1}`),
			MessageAttributes: attributes("__AmazonSQSVirtualQueuesClient.QueueName", rpcclient.NewCallID()),
		}); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			p.call(t)
			time.Sleep(2 * time.Second)
		}
		if n := p.messages(t, replyQueue); n != 1 {
			t.Errorf("%d messages are held", n)
		}
		for range 50 {
			p.call(t)
			time.Sleep(2 * time.Second)
		}
		if n := p.messages(t, replyQueue); n != 0 {
			t.Errorf("%d messages are held", n)
		}
	})
}
