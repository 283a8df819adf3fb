package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sumRequest struct{ Numbers []int }

type sumReply struct{ Sum int }

var sum = rpcclient.NewMethod[sumRequest, sumReply]("calculate_sum")

const (
	requestQueue = "rq_test_ns_login"
	replyQueue   = "rq_test_r_0001"
)

// pair is a requester and a responder on one server.
type pair struct {
	server    *sqstest.Server
	client    *sqs.Client
	requester *rpcclient.Requester
	channel   *rpcclient.Channel
	responder *rpcclient.Responder
	options   []rpcclient.Option
	url       string // of the request queue
	replyURL  string
}

// newPair makes the queues and a requester, which ends with the test.
func newPair(t testing.TB, opts ...rpcclient.Option) *pair {
	t.Helper()
	s := sqstest.New()
	p := &pair{server: s, client: s.Client()}
	p.url, p.replyURL = p.queue(t, requestQueue), p.queue(t, replyQueue)
	p.options = append([]rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}, opts...)
	p.requester, p.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
	return p
}

func (p *pair) newRequester(t testing.TB, source rpcclient.ReplyQueueSource) (*rpcclient.Requester, *rpcclient.Channel) {
	t.Helper()
	r, err := rpcclient.NewRequester(p.client, source, p.options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Errorf("requester.Shutdown: %v", err)
		}
	})
	ch, err := r.Channel("login")
	if err != nil {
		t.Fatal(err)
	}
	return r, ch
}

// serve starts a responder, which ends with the test or when stop is called.
func (p *pair) serve(t testing.TB, handle func(context.Context, sumRequest) (sumReply, error), opts ...rpcclient.Option) (stop func()) {
	t.Helper()
	return p.respond(t, func(r *rpcclient.Responder) { sum.Handle(r, handle) }, opts...)
}

// respond is serve for any handlers.
func (p *pair) respond(t testing.TB, register func(*rpcclient.Responder), opts ...rpcclient.Option) (stop func()) {
	t.Helper()
	r, err := rpcclient.NewResponder(p.client, append(p.options[:len(p.options):len(p.options)], opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	p.responder = r
	register(r)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (p *pair) queue(t testing.TB, name string) string {
	t.Helper()
	in := &sqs.CreateQueueInput{QueueName: aws.String(name)}
	if strings.HasSuffix(name, ".fifo") {
		in.Attributes = map[string]string{"FifoQueue": "true"}
	}
	out, err := p.client.CreateQueue(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return *out.QueueUrl
}

// messages is how many messages a queue holds, in flight or not.
func (p *pair) messages(t testing.TB, queue string) int {
	t.Helper()
	q, ok := p.server.Queue(queue)
	if !ok {
		t.Fatalf("no queue %s", queue)
	}
	return q.Visible + q.InFlight + q.Delayed
}

func addUp(_ context.Context, r sumRequest) (sumReply, error) {
	var out sumReply
	for _, n := range r.Numbers {
		out.Sum += n
	}
	return out, nil
}

// call makes a call and fails the test unless the answer is right.
func (p *pair) call(t testing.TB, opts ...rpcclient.CallOption) {
	t.Helper()
	got, err := sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{10, 20, 30}}, opts...)
	if err != nil || got.Sum != 60 {
		t.Fatalf("got %v, %v", got, err)
	}
}

// fails makes a call that must fail.
func (p *pair) fails(t testing.TB, code rpcclient.Code, outcome rpcclient.Outcome, opts ...rpcclient.CallOption) {
	t.Helper()
	_ = p.failedCall(t, code, outcome, opts...)
}

// failedCall makes a call that must fail, and returns its error.
func (p *pair) failedCall(t testing.TB, code rpcclient.Code, outcome rpcclient.Outcome, opts ...rpcclient.CallOption) *rpcclient.Error {
	t.Helper()
	got, err := sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{10, 20, 30}}, opts...)
	var e *rpcclient.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != outcome {
		t.Fatalf("got %v, %v; want %s (%s)", got, err, code, outcome)
	}
	if len(e.CallID) != 12 || e.Attempt < 1 {
		t.Errorf("the error does not say which call it is of: %+v", e)
	}
	return e
}

// patience is the deadline of calls of which there are so many that a busy machine takes its time.
const patience = 10 * time.Minute

func TestManyConcurrentCalls(t *testing.T) {
	p := newPair(t, rpcclient.WithReceiveWait(time.Second), rpcclient.WithTimeout(patience))
	p.server.SetFaults(sqstest.Plan{Seed: 1, Rules: []sqstest.Rule{
		{Fault: sqstest.Duplicate, Probability: 0.05},
		{Fault: sqstest.Reorder, Probability: 0.2},
		{Fault: sqstest.Sharded, Probability: 0.2},
		{Fault: sqstest.PartialBatch, Action: "SendMessageBatch", Probability: 0.02},
		{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Probability: 0.02},
	}})
	p.serve(t, addUp)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				got, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{i, j, 1}})
				if err != nil || got.Sum != i+j+1 {
					t.Errorf("call %d/%d: %v, %v", i, j, got, err)
				}
			}
		})
	}
	wg.Wait()
	if s := p.requester.Stats(); s.OK != 64*20 || s.Calls != s.OK {
		t.Errorf("stats: %+v", s)
	}
}

// Batching is what makes calls cheap: six requests a call without it.
func TestRequestsPerCall(t *testing.T) {
	p := newPair(t, rpcclient.WithReceiveWait(time.Second), rpcclient.WithTimeout(patience))
	p.serve(t, addUp)
	const callers, each = 256, 20
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				p.call(t)
			}
		})
	}
	wg.Wait()
	perCall := float64(p.server.Requests()) / (callers * each)
	t.Logf("%.3f SQS requests per call", perCall)
	if perCall > 1 {
		t.Errorf("%.3f SQS requests per call at concurrency %d; batches do not fill", perCall, callers)
	}
}

func TestHandlerErrorReachesTheCaller(t *testing.T) {
	p := newPair(t, rpcclient.WithReceiveWait(time.Second))
	p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
		e := rpcclient.Errorf(rpcclient.OutOfRange, "too much").WithDetails(map[string]int{"limit": 3})
		e.RetryAfter = time.Second
		return sumReply{}, e
	})
	e := p.failedCall(t, rpcclient.OutOfRange, rpcclient.Executed)
	if e.Message != "too much" || len(e.Details) != 1 || string(e.Details[0]) != `{"limit":3}` ||
		e.RetryAfter != time.Second || !rpcclient.IsRemote(e) {
		t.Errorf("got %+v", e)
	}
}

func TestTextAroundAHandlersErrorReachesTheCaller(t *testing.T) {
	p := newPair(t, rpcclient.WithReceiveWait(time.Second))
	p.serve(t, func(context.Context, sumRequest) (sumReply, error) {
		e := rpcclient.Errorf(rpcclient.NotFound, "no row").WithDetails("ann")
		e.RetryAfter = time.Second
		return sumReply{}, fmt.Errorf("load user ann: %w", e)
	})
	e := p.failedCall(t, rpcclient.NotFound, rpcclient.Executed)
	if e.Message != "load user ann: no row" || len(e.Details) != 1 || string(e.Details[0]) != `"ann"` || e.RetryAfter != time.Second {
		t.Errorf("got %+v", e)
	}
}

func TestRawCodec(t *testing.T) {
	echo := rpcclient.NewMethod[[]byte, []byte]("echo", rpcclient.WithCodec(rpcclient.Raw))
	p := newPair(t, rpcclient.WithReceiveWait(time.Second))
	r, err := rpcclient.NewResponder(p.client, p.options...)
	if err != nil {
		t.Fatal(err)
	}
	echo.Handle(r, func(ctx context.Context, b []byte) ([]byte, error) {
		info, ok := rpcclient.InfoFromContext(ctx)
		if !ok || info.Metadata()["tenant"] != "a" || info.Method != "echo" || info.Peer != rpcclient.PeerNative ||
			info.Attempt != 1 || info.ReceiveCount != 1 || len(info.CallID) != 12 {
			t.Errorf("info: %+v", info)
		}
		return b, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	for _, payload := range []string{"", "-", "text", "\x00\xff binary"} {
		got, err := echo.Call(t.Context(), p.channel, []byte(payload), rpcclient.CallMetadata("tenant", "a"))
		if err != nil || string(got) != payload {
			t.Errorf("%q came back as %q, %v", payload, got, err)
		}
	}
	if _, err := rpcclient.NewMethod[string, string]("echo").Call(t.Context(), p.channel, "json"); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
		t.Errorf("another codec: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestUnknownChannelSaysWhatToDo(t *testing.T) {
	p := newPair(t)
	_, err := p.requester.Channel("logout")
	if err == nil || !strings.Contains(err.Error(), "login") || !strings.Contains(err.Error(), "replyqueue.dev/calls") {
		t.Errorf("got %v", err)
	}
}
