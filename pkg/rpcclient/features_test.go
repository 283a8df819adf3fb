package rpcclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestPayloadTooLarge(t *testing.T) {
	p := newPair(t)
	text := rpcclient.NewMethod[string, string]("text")
	before := p.server.Requests()
	_, err := text.Call(t.Context(), p.channel, strings.Repeat("x", 1<<20))
	var e *rpcclient.Error
	if !errors.As(err, &e) || !errors.Is(err, rpcclient.ErrPayloadTooLarge) || e.Code != rpcclient.ResourceExhausted || e.Outcome != rpcclient.NotSent {
		t.Errorf("got %v", err)
	}
	if n := p.server.Requests() - before; n != 0 {
		t.Errorf("%d requests for a payload that cannot be sent", n)
	}
	_, err = text.Call(t.Context(), p.channel, "x", rpcclient.CallMetadata("k", strings.Repeat("v", 5000)))
	if rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
		t.Errorf("metadata of 5,000 bytes: %v", err)
	}
}

// The largest payloads that pass the check are taken by SQS, alone and in batches.
func TestLargestPayloadsFit(t *testing.T) {
	p := newPair(t, rpcclient.WithReserve(0), rpcclient.WithReceiveWait(time.Second))
	size := rpcclient.NewMethod[string, int]("size")
	r, err := rpcclient.NewResponder(p.client, p.options...)
	if err != nil {
		t.Fatal(err)
	}
	size.Handle(r, func(_ context.Context, s string) (int, error) { return len(s), nil })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	largest := 1 << 20
	for {
		n, err := size.Call(t.Context(), p.channel, strings.Repeat("x", largest))
		if err == nil {
			if n != largest {
				t.Errorf("%d bytes arrived of %d", n, largest)
			}
			break
		}
		if !errors.Is(err, rpcclient.ErrPayloadTooLarge) {
			t.Fatalf("%d bytes: %v", largest, err)
		}
		largest -= 64
	}
	if largest < 1<<20-1024 {
		t.Errorf("the largest payload is %d bytes", largest)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if n, err := size.Call(t.Context(), p.channel, strings.Repeat("x", 300<<10)); err != nil || n != 300<<10 {
				t.Errorf("got %d, %v", n, err)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestFIFOChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := sqstest.New()
		p := &pair{server: s, client: s.Client()}
		p.url, p.replyURL = p.queue(t, "rq_test_ns_login.fifo"), p.queue(t, replyQueue)
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
		p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		var mu sync.Mutex
		var order []int
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			mu.Lock()
			order = append(order, r.Numbers[0])
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			return addUp(ctx, r)
		})
		var wg sync.WaitGroup
		started := time.Now()
		for i := range 10 {
			wg.Go(func() {
				if _, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{i}}, rpcclient.CallGroup("one")); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		mu.Lock()
		if !slices.Equal(order, upTo(10)) {
			t.Errorf("order %v", order)
		}
		mu.Unlock()
		// One group: one after the other, but a delete does not wait its second for company.
		if took := time.Since(started); took < time.Second || took > 4*time.Second {
			t.Errorf("took %s", took)
		}
		started = time.Now()
		for range 10 {
			wg.Go(func() { p.call(t) })
		}
		wg.Wait()
		if took := time.Since(started); took > 500*time.Millisecond {
			t.Errorf("calls without a group waited for each other: %s", took)
		}
	})
}

// A Java requester, as the specification describes it: it sends ResponseQueueUrl and polls its host queue
// for messages with its virtual queue's name.
func TestJavaRequester(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		host := p.queue(t, "__RequesterClientQueues__1f2e-0")
		const virtual = "__RequesterClientQueues__9a41"
		// As in an injected pod: the operator's policy comes first, and its own requesters are answered too.
		p.serve(t, addUp, rpcclient.WithReturnAddresses(rpcclient.ReturnAddressPolicy{AccountID: "000000000000", Prefixes: []string{"rq_test_r_"}}),
			rpcclient.WithDefaultMethod("calculate_sum", 10*time.Second), rpcclient.WithReturnPrefixes("__RequesterClientQueues__"))
		p.call(t)
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1,2]}`),
			MessageAttributes: attributes("ResponseQueueUrl", host+"#"+virtual),
		}); err != nil {
			t.Fatal(err)
		}
		m := p.receive(t, host)
		if *m.Body != `{"Sum":3}` || len(m.MessageAttributes) != 1 || *m.MessageAttributes["__AmazonSQSVirtualQueuesClient.QueueName"].StringValue != virtual {
			t.Errorf("got %q with %v", *m.Body, m.MessageAttributes)
		}
		if _, err := rpcclient.NewResponder(p.client, append(p.options, rpcclient.WithReturnPrefixes(""))...); err == nil {
			t.Error("every queue may be answered")
		}
	})
}

// Java's second queue, for when the first is lost (docs/protocol/vectors/failover.json).
func TestFailoverVectors(t *testing.T) {
	data, err := os.ReadFile("../../docs/protocol/vectors/failover.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Address string
		Queues        []string
		Native        bool
		Want          struct {
			To, Virtual string
			Gone        bool
		}
	}
	if err := json.Unmarshal(data, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, tc := range cases {
		t.Run(tc.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				_, virtual, _ := strings.Cut(tc.Address, "#")
				for _, name := range tc.Queues {
					p.queue(t, name)
				}
				p.serve(t, addUp, rpcclient.WithDefaultMethod("calculate_sum", 10*time.Second),
					rpcclient.WithReturnAddresses(rpcclient.ReturnAddressPolicy{Prefixes: []string{"__RequesterClientQueues__", "rq_c_r_"}}))
				sent := attributes("ResponseQueueUrl", strings.TrimSuffix(p.url, requestQueue)+tc.Address)
				if tc.Native {
					maps.Copy(sent, attributes("replyqueue", fmt.Sprintf(
						`{"k":"q","v":1,"id":%q,"m":"calculate_sum","b":30000,"t":%d,"a":1}`, virtual, time.Now().UnixMilli())))
				}
				if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
					QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1,2]}`), MessageAttributes: sent,
				}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				if n := p.messages(t, requestQueue); n != 0 {
					t.Error("the request was not deleted")
				}
				for _, name := range tc.Queues {
					want := 0
					if name == tc.Want.To {
						want = 1
					}
					if n := p.messages(t, name); n != want {
						t.Errorf("%s has %d replies, want %d", name, n, want)
					}
				}
				if tc.Want.Gone {
					return
				}
				m := p.receive(t, strings.TrimSuffix(p.url, requestQueue)+tc.Want.To)
				got := ""
				if v, ok := m.MessageAttributes["__AmazonSQSVirtualQueuesClient.QueueName"]; ok {
					got = *v.StringValue
				}
				if *m.Body != `{"Sum":3}` || got != tc.Want.Virtual {
					t.Errorf("got %q for %q", *m.Body, got)
				}
			})
		})
	}
}

// A Java responder: it answers with its own message, to the host queue, under the virtual queue's name,
// and may hand our attributes back.
func TestJavaResponder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			m := p.receive(t, p.url)
			host, virtual, _ := strings.Cut(*m.MessageAttributes["ResponseQueueUrl"].StringValue, "#")
			reply := m.MessageAttributes
			reply["__AmazonSQSVirtualQueuesClient.QueueName"] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &virtual}
			if _, err := p.client.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &host, MessageBody: aws.String(`{"Sum":60}`), MessageAttributes: reply}); err != nil {
				t.Error(err)
			}
		}()
		p.call(t)
		<-answered
	})
}

// receive waits for one message.
func (p *pair) receive(t testing.TB, url string) types.Message {
	t.Helper()
	for range 3 {
		out, err := p.client.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20, MessageAttributeNames: []string{"All"}})
		if err != nil {
			t.Error(err)
			break
		}
		if len(out.Messages) > 0 {
			return out.Messages[0]
		}
	}
	t.Error("no message came to " + url)
	return types.Message{Body: aws.String("")}
}

// What is refused again and again ends in the dead-letter queue.
func TestPoisonEndsInTheDeadLetterQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.queue(t, "dead")
		dead, _ := p.server.Queue("dead")
		if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
			QueueUrl:   &p.url,
			Attributes: map[string]string{"RedrivePolicy": `{"maxReceiveCount":"3","deadLetterTargetArn":"` + dead.ARN + `"}`},
		}); err != nil {
			t.Fatal(err)
		}
		p.serve(t, addUp)
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: aws.String("by hand")}); err != nil {
			t.Fatal(err)
		}
		p.call(t) // others are served meanwhile
		time.Sleep(2 * time.Minute)
		if n := p.messages(t, "dead"); n != 1 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d messages in the dead-letter queue, %d in the request queue", n, p.messages(t, requestQueue))
		}
		if s := p.responder.Stats(); s.Refused != 3 || s.Left != 3 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestSameCallIDWithAnotherBodyIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		const id = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		send := func(body string) types.Message {
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.url, MessageBody: &body, MessageAttributes: attributes(
					"ResponseQueueUrl", p.replyURL+"#"+id,
					"replyqueue", `{"k":"q","v":1,"id":"`+id+`","m":"calculate_sum","e":"t","b":30000,"t":0,"a":1}`),
			}); err != nil {
				t.Fatal(err)
			}
			return p.receive(t, p.replyURL)
		}
		first, again, other := send(`{"Numbers":[1]}`), send(`{"Numbers":[1]}`), send(`{"Numbers":[2]}`)
		if *first.Body != `{"Sum":1}` || *again.Body != *first.Body {
			t.Errorf("first %q, again %q", *first.Body, *again.Body)
		}
		if got := *other.MessageAttributes["replyqueue"].StringValue; !strings.Contains(got, `"s":"INVALID_ARGUMENT"`) || !strings.Contains(got, `"x":true`) {
			t.Errorf("another body: %s", got)
		}
		if s := p.responder.Stats(); s.Served != 1 || s.Duplicates != 1 || s.Refused != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// A copy that comes while the handler runs waits for it instead of running beside it.
func TestCopiesJoinTheRunningHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.fault(sqstest.Rule{Fault: sqstest.Duplicate, Queue: requestQueue, Count: 1})
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			time.Sleep(5 * time.Second)
			return addUp(ctx, r)
		})
		p.call(t)
		time.Sleep(time.Minute)
		s := p.responder.Stats()
		if s.Served != 1 || s.Duplicates == 0 || p.messages(t, requestQueue) != 0 {
			t.Errorf("stats: %+v", s)
		}
		if q := p.requester.Stats(); q.OK != 1 || q.LateReplies > 1 {
			t.Errorf("stats: %+v", q)
		}
	})
}

type callLog struct {
	mu    sync.Mutex
	calls []rpcclient.CallEnd
	reqs  int
}

func (l *callLog) OnCallEnd(e rpcclient.CallEnd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, e)
}

func (l *callLog) OnSQSRequest(rpcclient.SQSRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reqs++
}

func TestHooksAndStatsAgreeWithTheServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log callLog
		stats := &rpcclient.Stats{}
		p := newPair(t, rpcclient.WithHooks(&log), rpcclient.WithStats(stats))
		created := p.server.Requests()
		stop := p.serve(t, addUp)
		p.call(t)
		p.fails(t, rpcclient.InvalidArgument, rpcclient.NotSent, rpcclient.CallMetadata("k", strings.Repeat("v", 5000)))
		stop()
		time.Sleep(time.Minute)
		s := stats.Snapshot()
		log.mu.Lock() // the last request's hook may be on its way out of it
		defer log.mu.Unlock()
		if got := p.server.Requests() - created; int64(got) != s.SQSRequests() || got != log.reqs {
			t.Errorf("the server counted %d requests, the statistics %d, the hook %d", got, s.SQSRequests(), log.reqs)
		}
		if s.Calls != 2 || s.OK != 1 || s.Failed[rpcclient.FailureKind{Code: rpcclient.InvalidArgument, Outcome: rpcclient.NotSent}] != 1 || s.Served != 1 {
			t.Errorf("stats: %+v", s)
		}
		if len(log.calls) != 2 || log.calls[0].Err != nil || log.calls[1].Err == nil || log.calls[0].Channel != "login" || log.calls[0].Method != "calculate_sum" {
			t.Errorf("hook: %+v", log.calls)
		}
	})
}
