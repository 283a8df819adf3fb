package rpcclient_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A responder with fewer places than channels, or with all its places in idle polls, serves every channel.
func TestFewerPlacesThanChannels(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := sqstest.New()
				p := &pair{server: s, client: s.Client()}
				var channels []rpcclient.ChannelConfig
				for _, name := range []string{"a", "b", "c"} {
					channels = append(channels, rpcclient.ChannelConfig{Name: name, URL: p.queue(t, "rq_test_ns_"+name)})
				}
				p.replyURL = p.queue(t, replyQueue)
				p.options = []rpcclient.Option{rpcclient.WithChannels(channels...)}
				r, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(p.replyURL), p.options...)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Shutdown(t.Context()) }()
				running := make(chan struct{}, n)
				stop := p.serve(t, func(ctx context.Context, q sumRequest) (sumReply, error) {
					select {
					case running <- struct{}{}:
						defer func() { <-running }()
					default:
						t.Error("more handlers run than may")
					}
					time.Sleep(100 * time.Millisecond)
					return addUp(ctx, q)
				}, rpcclient.WithConcurrency(n))
				time.Sleep(2 * time.Second)
				call := func(name string) {
					c, err := r.Channel(name)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := sum.Call(t.Context(), c, sumRequest{}, rpcclient.CallTimeout(2*time.Second)); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				for _, name := range []string{"a", "b", "c", "a", "b", "c"} {
					call(name)
				}
				ended := make(chan struct{})
				for _, name := range []string{"a", "b", "c"} {
					go func() { call(name); ended <- struct{}{} }()
				}
				for range 3 {
					<-ended
				}
				// An idle minute still costs next to nothing.
				time.Sleep(time.Minute)
				before := s.Requests(sqstest.Action("ReceiveMessage"))
				time.Sleep(time.Minute)
				if got := s.Requests(sqstest.Action("ReceiveMessage")) - before; got > 4*len(channels) {
					t.Errorf("%d receives in an idle minute", got)
				}
				stop()
			})
		})
	}
}

// A receive that is lost in the network does not keep the one place from the next.
func TestLostReceiveHoldsNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp, rpcclient.WithConcurrency(1))
		p.call(t)
		p.fault(sqstest.Rule{Fault: sqstest.BlackHole, Action: "ReceiveMessage", Queue: requestQueue, Count: 1})
		p.call(t) // by the poll under way; the next is lost
		if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(5*time.Second)); err != nil {
			t.Error(err)
		}
	})
}
