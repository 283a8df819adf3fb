package rpctest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpctest"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var double = rpcclient.NewMethod[int, int]("double")

func handleDouble(r *rpcclient.Responder) {
	double.Handle(r, func(_ context.Context, n int) (int, error) { return 2 * n, nil })
}

func ExampleServe() {
	t, end := newT() // in a test, its own *testing.T
	defer end()
	channel := rpctest.Serve(t, handleDouble)
	fmt.Println(double.Call(context.Background(), channel, 21))
	// Output: 42 <nil>
}

// A world shows what a program makes of a bad day: here SQS does not answer, though it has the request.
func ExampleNew() {
	t, end := newT()
	defer end()
	world := rpctest.New(t)
	config := world.Channel("numbers")
	world.Serve(handleDouble)
	requester := world.Requester()
	channel, err := requester.Channel(config.Name)
	if err != nil {
		panic(err)
	}
	world.Server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Count: 1}}})
	fmt.Println(double.Call(context.Background(), channel, 4))
	if err := requester.Shutdown(context.Background()); err != nil { // waits for the send's end, which the reply may outrun
		panic(err)
	}
	stats := requester.Stats()
	fmt.Println("sends that failed:", stats.RequestFailures[rpcclient.ActionSend])
	// Output:
	// 8 <nil>
	// sends that failed: 1
}

// A channel has the settings that its RequestChannel would give it.
func ExampleWorld_Channel() {
	t, end := newT()
	defer end()
	world := rpctest.New(t)
	config := world.Channel("numbers", func(c *rpcclient.ChannelConfig) {
		c.MaxMessageBytes, c.DeadLetter = 8<<10, true
	})
	world.Serve(handleDouble)
	channel, err := world.Requester().Channel(config.Name)
	if err != nil {
		panic(err)
	}
	_, err = double.Call(context.Background(), channel, 21, rpcclient.CallMetadata("tenant", strings.Repeat("x", 4000)))
	fmt.Println(errors.Is(err, rpcclient.ErrPayloadTooLarge), world.DeadLetters(config))
	// Output: true 0
}

// exampleT stands for the *testing.T that an example does not have.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func newT() (t *exampleT, end func()) {
	t = &exampleT{}
	return t, func() {
		for i := len(t.cleanups) - 1; i >= 0; i-- {
			t.cleanups[i]()
		}
	}
}

func (t *exampleT) Logf(string, ...any)               {}
func (t *exampleT) Helper()                           {}
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
