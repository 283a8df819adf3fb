package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// echo answers with what it was asked.
var echo = rpcclient.NewMethod[[]byte, []byte]("echo", rpcclient.WithCodec(rpcclient.Raw))

func newCaller(ctx context.Context, s spec, client *sqs.Client) (caller, error) {
	switch s.Row {
	case "raw":
		return newRawCaller(ctx, s, client), nil
	case "naive":
		return newNaiveCaller(s, client), nil
	default:
		return newOurCaller(s, client)
	}
}

func serve(ctx context.Context, s spec, client *sqs.Client) error {
	switch s.Row {
	case "raw":
		for range s.Responders {
			serveRaw(ctx, s, client)
		}
	case "naive":
		for range s.Responders {
			serveNaive(ctx, s, client)
		}
	default:
		for range s.Responders {
			if err := serveOurs(ctx, s, client); err != nil {
				return err
			}
		}
	}
	return nil
}

type ourCaller struct {
	share    []int
	channels []*rpcclient.Channel
	body     []byte
}

func newOurCaller(s spec, client *sqs.Client) (*ourCaller, error) {
	c := &ourCaller{share: spread(s.Concurrency, s.Requesters), body: []byte(strings.Repeat("x", bodyBytes))}
	for i := range s.Requesters {
		r, err := rpcclient.NewRequester(client, rpcclient.StaticReplyQueue(queueURL(s.URL, replyQueue(i))), login(s)...)
		if err != nil {
			return nil, err
		}
		ch, err := r.Channel("login")
		if err != nil {
			return nil, err
		}
		c.channels = append(c.channels, ch)
	}
	return c, nil
}

func login(s spec) []rpcclient.Option {
	opts := []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: queueURL(s.URL, requestQueue)})}
	if s.Row == "packed" {
		opts = append(opts, rpcclient.WithPackedReplies())
	}
	return opts
}

func (c *ourCaller) run(ctx context.Context, d time.Duration) ([]time.Duration, int) {
	return loops(d, c.share, func(who, _ int) error { return c.call(ctx, who) })
}

func (c *ourCaller) one(ctx context.Context) error { return c.call(ctx, 0) }

func (c *ourCaller) call(ctx context.Context, who int) error {
	out, err := echo.Call(ctx, c.channels[who], c.body)
	if err == nil && len(out) != bodyBytes {
		return fmt.Errorf("%d bytes came back", len(out))
	}
	return err
}

func serveOurs(ctx context.Context, s spec, client *sqs.Client) error {
	r, err := rpcclient.NewResponder(client, login(s)...)
	if err != nil {
		return err
	}
	echo.Handle(r, func(ctx context.Context, in []byte) ([]byte, error) {
		handle(ctx, s.Handler)
		return in, nil
	})
	go func() {
		if err := r.Serve(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "benchrpc: serve:", err)
		}
	}()
	return nil
}

// handle is what a handler does: it takes its time.
func handle(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
