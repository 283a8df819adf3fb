package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func ExampleNewRequester() {
	client := sqstest.New().Client() // or sqs.NewFromConfig
	requester, err := rpcclient.NewRequester(client,
		rpcclient.StaticReplyQueue(createQueue(client, "rq_c_r_1")),
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login"), Timeout: 5 * time.Second, MaxAttempts: 2}),
		rpcclient.WithTimeout(20*time.Second),      // of calls to channels that name none
		rpcclient.WithMaxPending(1000, true),       // fail rather than wait
		rpcclient.WithPackedReplies(),              // cheaper
		rpcclient.WithForeignGrace(10*time.Second), // another container reads the queue too
		rpcclient.WithReserve(8<<10),               // a tracing agent adds attributes
		rpcclient.WithReceiveWait(20*time.Second),  // the longest is the cheapest
		rpcclient.WithMaxPollers(8),                // for thousands of replies a second
		rpcclient.WithLogger(slog.New(slog.DiscardHandler)),
	)
	if err != nil {
		panic(err)
	}
	fmt.Println(requester.Channels(), requester.ReplyQueueURL() != "", requester.Pending(), requester.Healthy())
	_, err = requester.Channel("logout")
	fmt.Println(err != nil)
	fmt.Println(requester.Shutdown(context.Background()))
	// Output:
	// [login] true 0 <nil>
	// true
	// <nil>
}

func ExampleNewResponder() {
	client := sqstest.New().Client()
	responder, err := rpcclient.NewResponder(client,
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login"), DeadLetter: true}),
		rpcclient.WithConcurrency(16),
		rpcclient.WithReceiveWait(time.Second), // an idle responder takes as long to stop
		rpcclient.WithDrainTimeout(20*time.Second),
		rpcclient.WithReplyCache(5000, 16<<20),
		rpcclient.WithMaxQueueAge(10*time.Second), // what waited longer is told to come again
		rpcclient.WithDefaultMethod("greet", 10*time.Second),
		rpcclient.WithErrorReplies(),
		rpcclient.WithReturnAddresses(rpcclient.ReturnAddressPolicy{Prefixes: []string{"rq_c_r_"}}), // the operator's: rpcenv sets it
		rpcclient.WithReturnPrefixes("__RequesterClientQueues__"),                                   // and Java's
	)
	if err != nil {
		panic(err)
	}
	handleGreet(responder)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // in a program: on SIGTERM
	fmt.Println(responder.Serve(ctx))
	// Output: <nil>
}

func ExampleWithReturnAddressSource() {
	client := sqstest.New().Client()
	var prefixes atomic.Pointer[[]string] // what a configuration says that is read again and again
	prefixes.Store(&[]string{"rq_c_r_"})
	responder, err := rpcclient.NewResponder(client,
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login")}),
		rpcclient.WithReturnAddressSource(func() rpcclient.ReturnAddressPolicy {
			return rpcclient.ReturnAddressPolicy{Prefixes: *prefixes.Load()}
		}),
	)
	if err != nil {
		panic(err)
	}
	prefixes.Store(&[]string{"rq_c_r_", "other_c_r_"}) // counts for the responder within seconds
	fmt.Println(responder.Shutdown(context.Background()))
	// Output: <nil>
}

func ExampleMethod_Handle() {
	channels, end := newWorld(func(r *rpcclient.Responder) {
		greet.Handle(r, func(ctx context.Context, g greeting) (string, error) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Minute {
				return "", rpcclient.Errorf(rpcclient.Internal, "a handler has what is left of its caller's deadline")
			}
			return "Hello, " + g.Name, nil
		}, rpcclient.WithMethodConcurrency(4))
	}, []string{"login"})
	defer end()
	fmt.Println(greet.Call(context.Background(), channels[0], greeting{Name: "Ann"}))
	// Output: Hello, Ann <nil>
}

func ExampleResponder_HandleDefault() {
	channels, end := newWorld(func(r *rpcclient.Responder) {
		r.HandleDefault(func(ctx context.Context, _ []byte) ([]byte, error) {
			info, _ := rpcclient.InfoFromContext(ctx)
			return nil, rpcclient.Errorf(rpcclient.Unimplemented, "%s moved to the channel accounts", info.Method)
		})
	}, []string{"login"})
	defer end()
	_, err := greet.Call(context.Background(), channels[0], greeting{})
	fmt.Println(err)
	// Output: UNIMPLEMENTED (executed): greet moved to the channel accounts
}

// A process whose handlers call: stop receiving first, and the replies to its own calls last.
func ExampleRequester_Shutdown() {
	client := sqstest.New().Client()
	channels := rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login")})
	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(createQueue(client, "rq_c_r_1")), channels)
	if err != nil {
		panic(err)
	}
	responder, err := rpcclient.NewResponder(client, channels, rpcclient.WithReceiveWait(time.Second))
	if err != nil {
		panic(err)
	}
	handleGreet(responder)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()

	cancel() // on SIGTERM
	fmt.Println(<-served)
	drain, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	fmt.Println(requester.Shutdown(drain))
	// Output:
	// <nil>
	// <nil>
}

// Serve ends with its context; Shutdown ends it from elsewhere, and says when.
func ExampleResponder_Shutdown() {
	client := sqstest.New().Client()
	responder, err := rpcclient.NewResponder(client, rpcclient.WithReceiveWait(time.Second),
		rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login")}))
	if err != nil {
		panic(err)
	}
	handleGreet(responder)
	served := make(chan error, 1)
	go func() { served <- responder.Serve(context.Background()) }()
	drain, stop := context.WithTimeout(context.Background(), 25*time.Second)
	defer stop()
	fmt.Println(responder.Healthy(), responder.Shutdown(drain), responder.Stats().Received)
	fmt.Println(<-served)
	// Output:
	// <nil> <nil> 0
	// <nil>
}

func ExampleWithCallInterceptors() {
	authorize := func(next rpcclient.CallFunc) rpcclient.CallFunc {
		return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(reply any) error) error {
			c.Metadata["token"] = "secret"
			return next(ctx, c, receive)
		}
	}
	check := func(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
		return func(ctx context.Context, c *rpcclient.IncomingCall, send func(reply any) error) error {
			if c.Info.Metadata()["token"] != "secret" {
				return rpcclient.Errorf(rpcclient.Unauthenticated, "no token")
			}
			return next(ctx, c, send)
		}
	}
	login, end := world(rpcclient.WithCallInterceptors(authorize), rpcclient.WithHandlerInterceptors(check))
	defer end()
	fmt.Println(greet.Call(context.Background(), login, greeting{Name: "Ann"}))
	// Output: Hello, Ann <nil>
}

func ExampleWithRetries() {
	var runs atomic.Int64
	ready := rpcclient.NewMethod[int, string]("ready", rpcclient.Idempotent())
	channels, end := newWorld(func(r *rpcclient.Responder) {
		ready.Handle(r, func(context.Context, int) (string, error) {
			if runs.Add(1) < 3 {
				e := rpcclient.Errorf(rpcclient.Unavailable, "warming up")
				e.RetryAfter = 10 * time.Millisecond
				return "", e
			}
			return "ready", nil
		})
	}, []string{"login"}, rpcclient.WithRetries(rpcclient.RetryPolicy{MaxAttempts: 5, InitialBackoff: time.Millisecond}))
	defer end()
	ctx := context.Background()
	_, err := ready.Call(ctx, channels[0], 1, rpcclient.CallMaxAttempts(1))
	fmt.Println(err)
	reply, err := ready.Call(ctx, channels[0], 1)
	fmt.Println(reply, err, runs.Load())
	// Output:
	// UNAVAILABLE (executed): warming up
	// ready <nil> 3
}

// Responders that share a store run a request once, whichever of them its copies reach.
func ExampleNewMemoryReplyStore() {
	store := rpcclient.NewMemoryReplyStore(10_000) // in production a table with conditional writes
	login, end := world(rpcclient.WithReplyStore(store))
	defer end()
	fmt.Println(greet.Call(context.Background(), login, greeting{Name: "Ann"}))
	// Output: Hello, Ann <nil>
}

type printEnds struct{}

func (printEnds) OnCallEnd(e rpcclient.CallEnd) {
	fmt.Println(e.Channel, e.Method, e.Kind, e.Attempts, e.Err)
}

func ExampleWithHooks() {
	stats := &rpcclient.Stats{}
	login, end := world(rpcclient.WithHooks(printEnds{}), rpcclient.WithStats(stats))
	_, _ = greet.Call(context.Background(), login, greeting{Name: "Ann"})
	s := stats.Snapshot()
	fmt.Println(s.Calls, s.OK, s.SQSRequests() > 0, len(s.ByAction()))
	end()
	// Output:
	// login greet call 1 <nil>
	// 1 1 true 4
}

// A codec turns values into payloads; both sides of a method share it. Package rpcproto has one for
// protobuf.
func ExampleWithCodec() {
	echo := rpcclient.NewMethod[[]byte, []byte]("echo", rpcclient.WithCodec(rpcclient.Raw))
	channels, end := newWorld(func(r *rpcclient.Responder) {
		echo.Handle(r, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	}, []string{"login"})
	defer end()
	reply, err := echo.Call(context.Background(), channels[0], []byte{0, 1, 255})
	fmt.Println(reply, err)
	// Output: [0 1 255] <nil>
}

// Errorf wraps as fmt.Errorf does; the wrapped error stays on the responder.
func ExampleErrorf() {
	cause := errors.New("row 7 is missing")
	err := rpcclient.Errorf(rpcclient.NotFound, "no such user: %w", cause)
	fmt.Println(rpcclient.CodeOf(err), errors.Is(err, cause), rpcclient.IsRemote(err))
	// Output: NOT_FOUND true false
}

func ExampleRegionOfQueueURL() {
	fmt.Println(rpcclient.RegionOfQueueURL("https://sqs.eu-west-1.amazonaws.com/111122223333/login"))
	// Output: eu-west-1
}
