package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Whatever a responder advises, nobody panics, nor waits for ever.
func TestAdviceOfAnySize(t *testing.T) {
	for _, ra := range []string{"-5000", "9223372036854775807", "9300000000000"} {
		t.Run(ra, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				go func() {
					m := p.receive(t, p.url)
					to := *m.MessageAttributes["ResponseQueueUrl"].StringValue
					id := to[len(p.replyURL)+1:]
					_, err := p.client.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &p.replyURL, MessageBody: aws.String("-"), MessageAttributes: attributes(
						"__AmazonSQSVirtualQueuesClient.QueueName", id,
						"replyqueue", `{"k":"r","v":1,"s":"UNAVAILABLE","x":true,"ra":`+ra+`,"e":"z","n":0,"end":1}`)})
					if err != nil {
						t.Error(err)
					}
				}()
				_, err := sum.Call(t.Context(), p.channel, sumRequest{})
				if e := errorOf(err); (e.Code == rpcclient.Unavailable) != (ra != "-5000") || e.RetryAfter < 0 { // the one that need not wait tries again
					t.Errorf("got %v, advice %s", err, e.RetryAfter)
				}
			})
		})
	}
}

// boomCodec panics at replies.
type boomCodec struct{ rpcclient.Codec }

func (boomCodec) Unmarshal(data []byte, v any) error {
	if _, ok := v.(*sumReply); ok {
		panic("boom")
	}
	return rpcclient.JSON.Unmarshal(data, v)
}

// An interceptor that makes an error of a panic does not know whether the call was executed.
func TestRecoveringInterceptor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rec := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				defer func() {
					if v := recover(); v != nil {
						err = fmt.Errorf("recovered: %v", v)
					}
				}()
				return next(ctx, c, receive)
			}
		}
		p := newPair(t, rpcclient.WithCallInterceptors(rec))
		m := rpcclient.NewMethod[sumRequest, sumReply]("calculate_sum", rpcclient.WithCodec(boomCodec{rpcclient.JSON}))
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) { runs.Add(1); return addUp(ctx, r) })
		_, err := m.Call(t.Context(), p.channel, sumRequest{})
		var e *rpcclient.Error
		errors.As(err, &e)
		if runs.Load() > 0 && e.Outcome == rpcclient.NotSent {
			t.Errorf("NotSent that was executed")
		}
	})
}

// Nor does one that returns before the call has ended.
func TestImpatientInterceptor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		done := make(chan struct{})
		rec := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				over := make(chan error, 1)
				go func() { over <- next(ctx, c, receive); close(done) }()
				select {
				case err := <-over:
					return err
				case <-time.After(2 * time.Second):
					return context.DeadlineExceeded
				}
			}
		}
		p := newPair(t, rpcclient.WithCallInterceptors(rec))
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		_, err := sum.Call(t.Context(), p.channel, sumRequest{})
		var e *rpcclient.Error
		errors.As(err, &e)
		if runs.Load() > 0 && e.Outcome == rpcclient.NotSent {
			t.Errorf("NotSent that was executed")
		}
		<-done
	})
}

// The outcome of another call is not this one's.
func TestErrorOfAnotherCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var audit func(ctx context.Context) error
		rec := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				if err := next(ctx, c, receive); err != nil || c.Kind == rpcclient.KindNotify {
					return err
				}
				return audit(ctx)
			}
		}
		s := sqstest.New()
		p := &pair{server: s, client: s.Client()}
		p.url, p.replyURL = p.queue(t, requestQueue), p.queue(t, replyQueue)
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url}), rpcclient.WithCallInterceptors(rec)}
		p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		other, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(p.replyURL), rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "audit", URL: p.url + "_none"}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Shutdown(context.Background()) })
		ch, _ := other.Channel("audit")
		audit = func(ctx context.Context) error { return sum.Notify(ctx, ch, sumRequest{}) }
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) { runs.Add(1); return addUp(ctx, r) })
		_, err = sum.Call(t.Context(), p.channel, sumRequest{})
		var e *rpcclient.Error
		errors.As(err, &e)
		if runs.Load() > 0 && e.Outcome == rpcclient.NotSent {
			t.Errorf("NotSent that was executed")
		}
	})
}

// A loop that was left is left, whatever an interceptor makes of it.
func TestInterceptorThatLosesTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		deaf := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				return next(ctx, c, func(r any) error { _ = receive(r); return nil })
			}
		}
		p := newPair(t, rpcclient.WithCallInterceptors(deaf))
		p.respond(t, func(r *rpcclient.Responder) {
			count.HandleStream(r, func(_ context.Context, n int, send func(int) error) error {
				for i := range n {
					if err := send(i); err != nil {
						return err
					}
				}
				return nil
			})
		})
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("PANIC in the loop: %v", v)
			}
		}()
		for _, err := range count.Stream(t.Context(), p.channel, 5) {
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
}

// A call whose goroutine ends has no success to report.
func TestStartOfAGoroutineThatEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		exit := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				runtime.Goexit()
				return nil
			}
		}
		p := newPair(t, rpcclient.WithCallInterceptors(exit))
		pending := sum.Start(t.Context(), p.channel, sumRequest{Numbers: []int{1}})
		rep, err := pending.Wait(t.Context())
		if err == nil {
			t.Errorf("success of a call that was never made: %v", rep)
		}
	})
}

// Nor has one of several.
func TestGatherOfGoroutinesThatEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		exit := func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) (err error) {
				runtime.Goexit()
				return nil
			}
		}
		p := newPair(t, rpcclient.WithCallInterceptors(exit))
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("PANIC: %v", v)
			}
		}()
		if got, err := sum.Gather(t.Context(), []*rpcclient.Channel{p.channel, p.channel}, sumRequest{Numbers: []int{1}}); rpcclient.CodeOf(err) != rpcclient.Internal {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// The first of all are not waited for when one has failed.
func TestGatherFirstOfAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := sqstest.New()
		p := &pair{server: s, client: s.Client()}
		p.url, p.replyURL = p.queue(t, requestQueue), p.queue(t, replyQueue)
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url}, rpcclient.ChannelConfig{Name: "gone", URL: p.url + "_none"})}
		p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		gone, _ := p.requester.Channel("gone")
		rs := []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
		p.options = rs
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(20 * time.Second)
			return addUp(ctx, r)
		})
		at := time.Now()
		_, _ = sum.GatherFirst(t.Context(), 2, []*rpcclient.Channel{p.channel, gone}, sumRequest{})
		took := time.Since(at)
		if took > 5*time.Second {
			t.Errorf("GatherFirst(2 of 2) went on for %s after one had failed", took)
		}
	})
}

// An interceptor that tries again executes nothing twice.
func TestInterceptorThatHandlesTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		runs := 0
		var second error
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) { runs++; return addUp(ctx, r) },
			rpcclient.WithHandlerInterceptors(func(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
				return func(ctx context.Context, c *rpcclient.IncomingCall, send func(any) error) error {
					err := next(ctx, c, send)
					second = next(ctx, c, send)
					return err
				}
			}))
		p.call(t)
		p.call(t)
		if runs != 2 || rpcclient.CodeOf(second) != rpcclient.Internal {
			t.Errorf("two requests were handled %d times; the second next returned %v", runs, second)
		}
	})
}

// A message group that SQS would refuse costs no request, and no other call's.
func TestGroupThatSQSRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		for _, group := range []string{strings.Repeat("g", 129), "tenant 7", "\u00fcn\u00ef", "\x7f"} {
			p.fails(t, rpcclient.InvalidArgument, rpcclient.NotSent, rpcclient.CallGroup(group))
		}
		if n := p.server.Requests(sqstest.Action("SendMessageBatch")); n != 0 {
			t.Errorf("%d sends", n)
		}
		p.serve(t, addUp)
		p.call(t, rpcclient.CallGroup(strings.Repeat("~", 128)))
	})
}

// Of a call, that the loop over an inner stream was left is an error like others.
func TestStoppedFromACall(t *testing.T) {
	p := newPair(t, rpcclient.WithCallInterceptors(func(rpcclient.CallFunc) rpcclient.CallFunc {
		return func(context.Context, *rpcclient.OutgoingCall, func(any) error) error {
			return fmt.Errorf("inner stream: %w", rpcclient.ErrStopped)
		}
	}))
	_, called := sum.Call(t.Context(), p.channel, sumRequest{})
	for _, err := range []error{called, sum.Notify(t.Context(), p.channel, sumRequest{})} {
		var e *rpcclient.Error
		if !errors.As(err, &e) || e.Outcome != rpcclient.NotSent {
			t.Errorf("got %v", err)
		}
	}
	if s := p.requester.Stats(); s.OK != 0 {
		t.Errorf("%d calls are counted as well ended", s.OK)
	}
}

// SetReplyMetadata takes only what travels.
func TestReplyMetadataThatDoesNotTravel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		of := make(chan context.Context, 1)
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			of <- ctx
			if rpcclient.SetReplyMetadata(ctx, rpcclient.TraceParent, "\x01") || !rpcclient.SetReplyMetadata(ctx, "k", "\x01") {
				t.Error("a trace context is an attribute, other metadata is JSON")
			}
			return addUp(ctx, r)
		})
		var md rpcclient.Metadata
		p.call(t, rpcclient.CallReplyMetadata(&md))
		if len(md) != 1 || md["k"] != "\x01" {
			t.Errorf("got %q", md)
		}
		if rpcclient.SetReplyMetadata(<-of, "late", "x") {
			t.Error("taken after the reply was sent")
		}
	})
}
