package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
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

// Two processes on one queue whose applications choose identifiers that begin alike: neither's replies
// travel in a pack, which would be one process's whole.
func TestApplicationsIdentifiersAreNotPacked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		_, other := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		p.fault(sqstest.Rule{Fault: sqstest.DelayAfter, Action: "SendMessageBatch", Queue: replyQueue, Duration: 50 * time.Millisecond})
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(time.Second)
			return addUp(ctx, r)
		})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				channel := []*rpcclient.Channel{p.channel, other}[i%2]
				if _, err := sum.Call(t.Context(), channel, sumRequest{}, rpcclient.WithCallID(fmt.Sprintf("order-2026-11-22-%06d", i))); err != nil {
					t.Errorf("call %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := p.requester.Stats().PackedReplies; n != 0 {
			t.Errorf("%d replies were packed", n)
		}
	})
}

// A requester that may not receive says so.
func TestDeniedReceivesAreInTheError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.call(t)
		if p.requester.Healthy() != nil || p.responder.Healthy() != nil {
			t.Error("unhealthy without need")
		}
		p.fault(sqstest.Rule{Fault: sqstest.AccessDenied, Action: "ReceiveMessage"})
		e := p.failedCall(t, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted)
		if !strings.Contains(e.Error(), "the last receive from the reply queue failed") || !strings.Contains(e.Error(), "AccessDenied") || !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("got %v", e)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := sum.Call(ctx, p.channel, sumRequest{}); !strings.Contains(err.Error(), "AccessDenied") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		for side, err := range map[string]error{"requester": p.requester.Healthy(), "responder": p.responder.Healthy()} {
			if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("%s: %v", side, err)
			}
		}
		p.fault()
		time.Sleep(time.Minute)
		p.call(t)
		time.Sleep(time.Minute)
		if p.requester.Healthy() != nil || p.responder.Healthy() != nil {
			t.Errorf("still unhealthy: %v, %v", p.requester.Healthy(), p.responder.Healthy())
		}
	})
}

// What has no time left is not sent, and does not wait.
func TestNoTimeLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		started := time.Now()
		for _, d := range []time.Duration{0, -time.Second} {
			p.fails(t, rpcclient.DeadlineExceeded, rpcclient.NotSent, rpcclient.CallTimeout(d))
			for _, o := range []rpcclient.CallOption{rpcclient.CallTimeout(d), rpcclient.NotifyExpiry(d)} {
				err := sum.Notify(t.Context(), p.channel, sumRequest{}, o)
				if e := errorOf(err); e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.NotSent {
					t.Errorf("Notify: %v", err)
				}
			}
			_, err := collect(count.Stream(t.Context(), p.channel, 1, rpcclient.CallTimeout(d)))
			if e := errorOf(err); e.Code != rpcclient.DeadlineExceeded || e.Outcome != rpcclient.NotSent {
				t.Errorf("Stream: %v", err)
			}
		}
		if n := p.server.Requests(); time.Since(started) != 0 || n != 2 { // the queues' creation
			t.Errorf("after %s and %d requests", time.Since(started), n)
		}
	})
}

// An envelope of ours that cannot be read is never taken for a request of Java's, which names no method.
func TestUnreadableEnvelopeIsNotJava(t *testing.T) {
	for envelope, want := range map[string]string{
		`{"k":"q","v":2,"id":"%s","m":"delete_everything","e":"t","b":30000,"t":0,"a":1,"md":{"n":1}}`: `"s":"UNIMPLEMENTED"`,
		`{"k":"q","v":2,"id":"%s","m":"delete_everything","e":"t","b":30000,"t":0,"a":1}`:              `"s":"UNIMPLEMENTED"`,
		`{"k":"q","v":1,"id":"%s","m":"delete_everything","e":"t","b":30000,"t":0,"a":1,"md":{"n":1}}`: `"s":"INVALID_ARGUMENT"`,
		`{"k":"q","v":1,"id":"%s","m":"delete_everything","e":"t","b":"30000","t":0,"a":1}`:            `"s":"INVALID_ARGUMENT"`,
	} {
		bubble(t, func(t *testing.T) {
			p := newPair(t)
			var runs atomic.Int64
			p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
				runs.Add(1)
				return addUp(ctx, r)
			}, rpcclient.WithDefaultMethod("calculate_sum", 30*time.Second))
			id := rpcclient.NewCallID()
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1]}`),
				MessageAttributes: attributes("ResponseQueueUrl", p.replyURL+"#"+id, "replyqueue", fmt.Sprintf(envelope, id)),
			}); err != nil {
				t.Fatal(err)
			}
			answer := *p.receive(t, p.replyURL).MessageAttributes["replyqueue"].StringValue
			if !strings.Contains(answer, want) || !strings.Contains(answer, `"x":true`) || runs.Load() != 0 {
				t.Errorf("%s: %d runs, answer %s", envelope, runs.Load(), answer)
			}
		})
	}
}

// A reply to a requester that takes packs has the attribute that tracers look for when it goes alone, and
// carries its trace context in the pack when it does not.
func TestTraceOfRepliesThatMayBePacked(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			rpcclient.SetReplyMetadata(ctx, rpcclient.TraceParent, trace)
			rpcclient.SetReplyMetadata(ctx, "k", "v")
			return addUp(ctx, r)
		})
		id := rpcclient.NewCallID()
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.url, MessageBody: aws.String(`{}`), MessageAttributes: attributes("ResponseQueueUrl", p.replyURL+"#"+id,
				"replyqueue", `{"k":"q","v":1,"id":"`+id+`","m":"calculate_sum","e":"t","f":["pack"],"b":30000,"t":0,"a":1}`),
		}); err != nil {
			t.Fatal(err)
		}
		m := p.receive(t, p.replyURL)
		if got := m.MessageAttributes["traceparent"].StringValue; got == nil || *got != trace {
			t.Errorf("attributes of a lone reply: %v", m.MessageAttributes)
		}
		p.fault(sqstest.Rule{Fault: sqstest.DelayAfter, Action: "SendMessageBatch", Queue: replyQueue, Duration: 50 * time.Millisecond})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				var md rpcclient.Metadata
				p.call(t, rpcclient.CallReplyMetadata(&md))
				if md[rpcclient.TraceParent] != trace || md["k"] != "v" {
					t.Errorf("metadata %v", md)
				}
			})
		}
		wg.Wait()
		if p.requester.Stats().PackedReplies == 0 {
			t.Error("nothing was packed")
		}
	})
}

type closedCount struct {
	rpcclient.ReplyQueueSource
	closed atomic.Int64
}

func (c *closedCount) Close() error { c.closed.Add(1); return nil }

func TestShutdownTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		source := &closedCount{ReplyQueueSource: rpcclient.StaticReplyQueue(p.replyURL)}
		r, channel := p.newRequester(t, source)
		p1 := sum.Start(t.Context(), channel, sumRequest{}, rpcclient.CallTimeout(5*time.Second))
		synctest.Wait()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := r.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-p1.Done():
				default:
					t.Error("a call is under way")
				}
			})
		}
		wg.Wait()
		if n := source.closed.Load(); n != 1 {
			t.Errorf("the source was closed %d times", n)
		}
	})
}

type retryPauses func(rpcclient.Retry)

func (h retryPauses) OnRetry(r rpcclient.Retry) { h(r) }

// Those that were refused together come again apart, and none too soon.
func TestRetryAfterIsSpread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		pauses := map[time.Duration]bool{}
		p := newPair(t, rpcclient.WithRetries(rpcclient.RetryPolicy{Tokens: 1000, MaxAttempts: 2}), rpcclient.WithHooks(retryPauses(func(r rpcclient.Retry) {
			mu.Lock()
			defer mu.Unlock()
			pauses[r.Pause] = true
			if r.Pause < 10*time.Second || r.Pause > 12*time.Second {
				t.Errorf("pause of %s", r.Pause)
			}
		})))
		go func() {
			for range 20 {
				m := p.receive(t, p.url)
				_, id, _ := strings.Cut(*m.MessageAttributes["ResponseQueueUrl"].StringValue, "#")
				rawStream{p, id}.send(t, "-", `{"k":"r","v":1,"s":"UNAVAILABLE","x":true,"ra":10000,"e":"z","n":0,"end":1}`)
			}
		}()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(15*time.Second)); err == nil {
					t.Error("nobody answers")
				}
			})
		}
		wg.Wait()
		if len(pauses) < 10 {
			t.Errorf("the pauses of 20 calls: %v", pauses)
		}
	})
}

// A target that answered was executed, whatever became of the others; and what cannot be reached any more
// is not waited for.
func TestGatherOutcomeAndReach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		silent := p.queue(t, "rq_test_ns_silent")
		missing := strings.Replace(silent, "silent", "missing", 1)
		p.options = []rpcclient.Option{rpcclient.WithChannels(
			rpcclient.ChannelConfig{Name: "login", URL: p.url}, rpcclient.ChannelConfig{Name: "silent", URL: silent},
			rpcclient.ChannelConfig{Name: "missing", URL: missing}, rpcclient.ChannelConfig{Name: "away", URL: missing + "2"})}
		r, login := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		targets := map[string]*rpcclient.Channel{"login": login}
		for _, name := range []string{"silent", "missing", "away"} {
			c, err := r.Channel(name)
			if err != nil {
				t.Fatal(err)
			}
			targets[name] = c
		}
		_, err := sum.Gather(t.Context(), []*rpcclient.Channel{login, targets["missing"]}, sumRequest{})
		if e := errorOf(err); e.Code != rpcclient.NotFound || e.Outcome != rpcclient.Executed {
			t.Errorf("Gather: %v", err)
		}
		// The silent one's queue has its request before it is known that the others' do not exist.
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Queue: "rq_test_ns_missing*", Duration: time.Second})
		started := time.Now()
		results, err := sum.GatherFirst(t.Context(), 2, []*rpcclient.Channel{targets["silent"], targets["missing"], targets["away"]}, sumRequest{})
		if e := errorOf(err); e.Code != rpcclient.NotFound || e.Outcome != rpcclient.MaybeExecuted || time.Since(started) > 10*time.Second {
			t.Errorf("GatherFirst after %s: %v", time.Since(started), err)
		}
		if e := errorOf(results[0].Err); e.Code != rpcclient.Canceled || errors.Is(e, rpcclient.ErrNotNeeded) {
			t.Errorf("the one that could not make up the number: %v", e)
		}
	})
}

func TestOptionsThatAreNothing(t *testing.T) {
	p := newPair(t)
	source := rpcclient.StaticReplyQueue(p.replyURL)
	for name, o := range map[string]rpcclient.Option{
		"stats":                 rpcclient.WithStats(nil),
		"logger":                rpcclient.WithLogger(nil),
		"option":                nil,
		"hook":                  rpcclient.WithHooks(nil),
		"hook without methods":  rpcclient.WithHooks(pointerHook{}),
		"call interceptor":      rpcclient.WithCallInterceptors(nil),
		"handler interceptor":   rpcclient.WithHandlerInterceptors(nil),
		"foreign grace":         rpcclient.WithForeignGrace(-1),
		"default method's time": rpcclient.WithDefaultMethod("calculate_sum", 0),
		"queue age":             rpcclient.WithMaxQueueAge(-1),
		"drain timeout":         rpcclient.WithDrainTimeout(-1),
	} {
		if _, err := rpcclient.NewRequester(p.client, source, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := rpcclient.NewRequester(nil, source); err == nil {
		t.Error("no client: no error")
	}
	if _, err := rpcclient.NewRequester(p.client, nil); err == nil {
		t.Error("no source: no error")
	}
	for _, url := range []string{"", p.replyURL + ".fifo"} {
		if _, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(url), p.options...); err == nil {
			t.Errorf("reply queue %q: no error", url)
		}
	}
	if _, err := rpcclient.NewResponder(nil, p.options...); err == nil {
		t.Error("no client of a responder: no error")
	}
	_, err := sum.Call(t.Context(), p.channel, sumRequest{}, nil)
	wantOutcome(t, err, rpcclient.InvalidArgument, rpcclient.NotSent)
	_, err = sum.Gather(t.Context(), []*rpcclient.Channel{p.channel}, sumRequest{}, nil)
	wantOutcome(t, err, rpcclient.InvalidArgument, rpcclient.NotSent)
}

// pointerHook is meant to be a HookCallEnd.
type pointerHook struct{}

func (pointerHook) OnCallEnd(*rpcclient.CallEnd) {}

// What is wrong where there is no error to return panics there, and not at the first call.
func TestDefinitionsThatAreNothing(t *testing.T) {
	p := newPair(t)
	r, err := rpcclient.NewResponder(p.client, p.options...)
	if err != nil {
		t.Fatal(err)
	}
	for name, define := range map[string]func(){
		"codec":           func() { rpcclient.NewMethod[int, int]("x", rpcclient.WithCodec(nil)) },
		"method option":   func() { rpcclient.NewMethod[int, int]("x", nil) },
		"handler":         func() { sum.Handle(r, nil) },
		"stream handler":  func() { sum.HandleStream(r, nil) },
		"default handler": func() { r.HandleDefault(nil) },
		"handle option":   func() { sum.Handle(r, addUp, nil) },
	} {
		func() {
			defer func() {
				if text, ok := recover().(string); !ok || !strings.HasPrefix(text, "rpcclient: ") {
					t.Errorf("%s: no panic that says what is nil", name)
				}
			}()
			define()
		}()
	}
}
