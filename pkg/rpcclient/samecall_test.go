package rpcclient_test

import (
	"context"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// One identifier on several channels of one responder is several calls: with the cache and with a store.
func TestSameCallIDOnTwoChannels(t *testing.T) {
	for name, opts := range map[string][]rpcclient.Option{
		"cache": nil,
		"store": {rpcclient.WithReplyStore(rpcclient.NewMemoryReplyStore(100))},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.options = []rpcclient.Option{rpcclient.WithChannels(
					rpcclient.ChannelConfig{Name: "login", URL: p.url}, rpcclient.ChannelConfig{Name: "orders", URL: p.queue(t, "rq_test_ns_orders")})}
				r, _ := p.newRequester(t, rpcclient.StaticReplyQueue(p.queue(t, "rq_test_r_0002")))
				where := rpcclient.NewMethod[int, string]("where")
				p.respond(t, func(r *rpcclient.Responder) {
					where.Handle(r, func(ctx context.Context, _ int) (string, error) {
						info, _ := rpcclient.InfoFromContext(ctx)
						return info.Channel, nil
					})
				}, opts...)
				id := rpcclient.NewCallID()
				for _, channel := range []string{"login", "orders"} {
					ch, err := r.Channel(channel)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := where.Call(t.Context(), ch, 1, rpcclient.WithCallID(id)); err != nil || got != channel {
						t.Errorf("%s answered for %s (%v)", got, channel, err)
					}
				}
			})
		})
	}
}
