package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// newWorld makes a requester, and a responder for each channel, on an SQS server in memory. end cuts them
// off, which a program would not do: see ExampleRequester_Shutdown.
func newWorld(register func(*rpcclient.Responder), names []string, opts ...rpcclient.Option) (channels []*rpcclient.Channel, end func()) {
	client := sqstest.New().Client()
	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(createQueue(client, "rq_c_r_1")),
		append(opts, rpcclient.WithChannels(configs(names, func(name string) string { return createQueue(client, "rq_c_ns_"+name) })...))...)
	if err != nil {
		panic(err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	ends := []func(){func() { _ = requester.Shutdown(over) }}
	for _, name := range names {
		channel, err := requester.Channel(name)
		if err != nil {
			panic(err)
		}
		channels = append(channels, channel)
		responder, err := rpcclient.NewResponder(client, append(opts, rpcclient.WithChannels(rpcclient.ChannelConfig{Name: name, URL: channel.URL()}))...)
		if err != nil {
			panic(err)
		}
		register(responder)
		served := make(chan error, 1)
		go func() { served <- responder.Serve(context.Background()) }()
		ends = append(ends, func() { _, _ = responder.Shutdown(over), <-served })
	}
	return channels, func() {
		for _, e := range ends {
			e()
		}
	}
}

func configs(names []string, url func(name string) string) (out []rpcclient.ChannelConfig) {
	for _, name := range names {
		out = append(out, rpcclient.ChannelConfig{Name: name, URL: url(name)})
	}
	return out
}

func handleGreet(r *rpcclient.Responder) {
	greet.Handle(r, func(_ context.Context, g greeting) (string, error) {
		if g.Name == "" {
			return "", rpcclient.Errorf(rpcclient.InvalidArgument, "a name is needed").WithDetails(map[string]string{"field": "name"})
		}
		return "Hello, " + g.Name, nil
	})
}

// world is newWorld with one channel, on which greet is served.
func world(opts ...rpcclient.Option) (login *rpcclient.Channel, end func()) {
	channels, end := newWorld(handleGreet, []string{"login"}, opts...)
	return channels[0], end
}

func ExampleNewMethod() {
	type order struct{ ID int }
	type invoice struct{ Total int }
	bill := rpcclient.NewMethod[order, invoice]("bill", rpcclient.Idempotent())
	fmt.Println(bill.Name())
	// Output: bill
}

func ExampleMethod_Call() {
	login, end := world()
	defer end()
	ctx := context.Background()

	reply, err := greet.Call(ctx, login, greeting{Name: "Ann"}, rpcclient.CallTimeout(5*time.Second))
	fmt.Println(reply, err)

	_, err = greet.Call(ctx, login, greeting{})
	var e *rpcclient.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Outcome, string(e.Details[0]), rpcclient.IsRemote(err))
	}
	// Output:
	// Hello, Ann <nil>
	// INVALID_ARGUMENT executed {"field":"name"} true
}

func ExampleMethod_Start() {
	login, end := world()
	defer end()
	ctx := context.Background()

	ann := greet.Start(ctx, login, greeting{Name: "Ann"})
	bob := greet.Start(ctx, login, greeting{Name: "Bob"}) // both are on their way
	fmt.Println(ann.Wait(ctx))
	<-bob.Done()
	fmt.Println(bob.Wait(ctx))
	// Output:
	// Hello, Ann <nil>
	// Hello, Bob <nil>
}

// What is cancelled before it was sent never is, and its outcome says so.
func ExamplePending_Cancel() {
	slow := rpcclient.NewMethod[int, int]("slow")
	channels, end := newWorld(func(r *rpcclient.Responder) {
		slow.Handle(r, func(ctx context.Context, _ int) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
	}, []string{"login"}, rpcclient.WithMaxPending(1, false))
	defer end()
	ctx := context.Background()

	first := slow.Start(ctx, channels[0], 1)
	second := slow.Start(ctx, channels[0], 2) // one of them waits for the other's place
	first.Cancel()
	second.Cancel()
	_, err := second.Wait(ctx)
	fmt.Println(rpcclient.CodeOf(err), errors.Is(err, context.Canceled), len(second.CallID()))
	// Output: CANCELLED true 34
}

var lines = rpcclient.NewMethod[string, string]("lines")

func ExampleMethod_Stream() {
	channels, end := newWorld(func(r *rpcclient.Responder) {
		lines.HandleStream(r, func(_ context.Context, text string, send func(string) error) error {
			for line := range strings.Lines(text) {
				if err := send(strings.TrimSpace(line)); err != nil {
					return err // nobody listens any more
				}
			}
			return nil
		})
	}, []string{"texts"})
	defer end()

	for line, err := range lines.Stream(context.Background(), channels[0], "to be\nor not\nto be") {
		var incomplete *rpcclient.Incomplete
		switch {
		case errors.As(err, &incomplete):
			fmt.Printf("only %d lines came: %v\n", incomplete.Received, err)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(line)
		}
	}
	// Output:
	// to be
	// or not
	// to be
}

func ExampleMethod_HandleStream() {
	channels, end := newWorld(func(r *rpcclient.Responder) {
		count.HandleStream(r, func(ctx context.Context, n int, send func(int) error) error {
			for i := range n {
				// send blocks while SQS is slow, and fails at the deadline or when the requester is gone.
				if err := send(i); err != nil {
					return err
				}
			}
			return nil // sends the end
		})
	}, []string{"numbers"})
	defer end()
	sum := 0
	for n, err := range count.Stream(context.Background(), channels[0], 100) {
		if err != nil {
			fmt.Println(err)
		}
		sum += n
	}
	fmt.Println(sum)
	// Output: 4950
}

var price = rpcclient.NewMethod[string, int]("price")

// newShops serves price on three channels, of which one has no apples.
func newShops() (shops []*rpcclient.Channel, end func()) {
	stock := 0
	return newWorld(func(r *rpcclient.Responder) {
		stock++
		cost := stock * 10
		price.Handle(r, func(_ context.Context, fruit string) (int, error) {
			if cost == 20 {
				return 0, rpcclient.Errorf(rpcclient.NotFound, "no %s today", fruit)
			}
			return cost, nil
		})
	}, []string{"north", "south", "west"})
}

// Partial results come with an error, so that they are not taken for all by mistake.
func ExampleMethod_Gather() {
	shops, end := newShops()
	defer end()
	results, err := price.Gather(context.Background(), shops, "apples")
	var incomplete *rpcclient.Incomplete
	if errors.As(err, &incomplete) {
		fmt.Println(incomplete)
	}
	for _, r := range results {
		fmt.Println(r.Channel.Name(), r.Reply, rpcclient.CodeOf(r.Err))
	}
	// Output:
	// incomplete: 2 of 3 replies
	// north 10 OK
	// south 0 NOT_FOUND
	// west 30 OK
}

func ExampleMethod_GatherFirst() {
	shops, end := newShops()
	defer end()
	results, err := price.GatherFirst(context.Background(), 1, shops, "apples")
	answered := 0
	for _, r := range results {
		if r.Err == nil {
			answered++
		}
	}
	fmt.Println(answered >= 1, err)
	// Output: true <nil>
}

func ExampleMethod_Notify() {
	done := make(chan string)
	audit := rpcclient.NewMethod[string, struct{}]("audit")
	channels, end := newWorld(func(r *rpcclient.Responder) {
		audit.Handle(r, func(_ context.Context, event string) (struct{}, error) {
			done <- event
			return struct{}{}, nil
		})
	}, []string{"audit"})
	defer end()
	// nil: SQS has it, and a responder will get it within the day.
	fmt.Println(audit.Notify(context.Background(), channels[0], "ann logged in", rpcclient.NotifyExpiry(24*time.Hour)))
	fmt.Println(<-done)
	// Output:
	// <nil>
	// ann logged in
}

// With a Stable identity a restarted process reads its predecessor's replies.
func ExampleMethod_Resume() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := sqstest.New().Client()
	channel := rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: createQueue(client, "rq_c_ns_login")})
	replies := rpcclient.StaticReplyQueue(createQueue(client, "rq_c_r_1"))
	start := func() (*rpcclient.Requester, *rpcclient.Channel) {
		r, err := rpcclient.NewRequester(client, replies, channel, rpcclient.WithHeldReplies(10*time.Minute))
		if err != nil {
			panic(err)
		}
		login, err := r.Channel("login")
		if err != nil {
			panic(err)
		}
		return r, login
	}

	before, login := start()
	id := rpcclient.NewCallID() // the application stores it, then calls
	greet.Start(ctx, login, greeting{Name: "Ann"}, rpcclient.WithCallID(id), rpcclient.CallTimeout(time.Hour))
	for before.Stats().Requests[rpcclient.ActionSend] == 0 {
		time.Sleep(time.Millisecond)
	}
	cut, stop := context.WithCancel(ctx)
	stop()
	_ = before.Shutdown(cut) // the process dies

	responder, err := rpcclient.NewResponder(client, channel)
	if err != nil {
		panic(err)
	}
	handleGreet(responder)
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()

	after, login := start() // and is started again
	fmt.Println(greet.Resume(ctx, login, id))
	_, _, _ = after.Shutdown(cut), responder.Shutdown(cut), <-served
	// Output: Hello, Ann <nil>
}

func ExampleNewCallID() {
	login, end := world()
	defer end()
	ctx, id := context.Background(), rpcclient.NewCallID()
	for range 2 { // the handler runs once
		fmt.Println(greet.Call(ctx, login, greeting{Name: "Ann"}, rpcclient.WithCallID(id)))
	}
	// Output:
	// Hello, Ann <nil>
	// Hello, Ann <nil>
}

// Payloads that the program encodes itself: here JSON passed through to a method with types.
func ExampleNewRawMethod() {
	login, end := world()
	defer end()
	proxy := rpcclient.NewRawMethod("greet", rpcclient.JSON.Name())
	reply, err := proxy.Call(context.Background(), login, []byte(`{"name":"Ann"}`))
	fmt.Println(string(reply), err)
	// Output: "Hello, Ann" <nil>
}

// Metadata travels both ways beside the payload.
func ExampleSetReplyMetadata() {
	whoami := rpcclient.NewMethod[struct{}, string]("whoami")
	channels, end := newWorld(func(r *rpcclient.Responder) {
		whoami.Handle(r, func(ctx context.Context, _ struct{}) (string, error) {
			info, _ := rpcclient.InfoFromContext(ctx)
			rpcclient.SetReplyMetadata(ctx, "served-by", "replica 1")
			return info.Metadata()["user"], nil
		})
	}, []string{"login"})
	defer end()
	var md rpcclient.Metadata
	user, err := whoami.Call(context.Background(), channels[0], struct{}{},
		rpcclient.CallMetadata("user", "ann"), rpcclient.CallReplyMetadata(&md))
	fmt.Println(user, md["served-by"], err)
	// Output: ann replica 1 <nil>
}

func ExampleCallGroup() {
	client := sqstest.New().Client()
	fifo := rpcclient.ChannelConfig{Name: "orders", URL: createQueue(client, "rq_c_ns_orders.fifo")}
	requester, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(createQueue(client, "rq_c_r_1")), rpcclient.WithChannels(fifo))
	if err != nil {
		panic(err)
	}
	orders, err := requester.Channel("orders")
	if err != nil {
		panic(err)
	}
	// Calls of one group are handled in the order in which SQS got them; groups do not wait for each other.
	err = greet.Notify(context.Background(), orders, greeting{Name: "Ann"}, rpcclient.CallGroup("customer-7"))
	fmt.Println(err, requester.Shutdown(context.Background()))
	// Output: <nil> <nil>
}
