package rpcclient

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// However calls and requests end, nobody stays counted as one that is about to run.
func TestNobodyStaysRousing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := sqstest.New().Client()
		queue := func(name string) string {
			out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name)})
			if err != nil {
				t.Fatal(err)
			}
			return *out.QueueUrl
		}
		channels := WithChannels(ChannelConfig{Name: "login", URL: queue("rq_c_ns_login")})
		requester, err := NewRequester(client, StaticReplyQueue(queue("rq_c_r_1")), channels)
		if err != nil {
			t.Fatal(err)
		}
		responder, err := NewResponder(client, channels)
		if err != nil {
			t.Fatal(err)
		}
		method := NewMethod[string, string]("do")
		method.Handle(responder, func(ctx context.Context, what string) (string, error) {
			switch what {
			case "fail":
				return "", errors.New("no")
			case "panic":
				panic("on purpose")
			case "exit":
				runtime.Goexit()
			case "slow":
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
			return what, nil
		})
		serving := make(chan error, 1)
		go func() { serving <- responder.Serve(context.Background()) }()
		channel, err := requester.Channel("login")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 100 {
			what := []string{"", "fail", "panic", "exit", "slow"}[i%5]
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*20*time.Millisecond)
				defer cancel()
				_, _ = method.Call(ctx, channel, what)
			})
			wg.Go(func() { _, _ = NewMethod[string, string]("unknown").Call(t.Context(), channel, what) })
		}
		wg.Wait()
		if err := requester.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := responder.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-serving; err != nil {
			t.Error(err)
		}
		if n, m := requester.api.rousing.Load(), responder.api.rousing.Load(); n != 0 || m != 0 {
			t.Errorf("%d callers and %d requests are still counted", n, m)
		}
	})
}

// One that never comes to run holds nobody up.
func TestGatheringEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := (&scripted{answer: accept}).sender(t)
		s.api.rousing.Store(1)
		n := newNote("alone", false)
		s.add(&n.out)
		s.wait()
		if n.ends != 1 || n.err != nil || n.after != 0 {
			t.Errorf("%d ends, error %v, after %v", n.ends, n.err, n.after)
		}
	})
}
