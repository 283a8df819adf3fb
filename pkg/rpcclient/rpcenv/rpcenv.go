package rpcenv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// NewRequester returns a requester for the channels this pod calls, receiving replies on the pod's own
// queue. With an injected heartbeat it starts to heartbeat at once and goes on until Shutdown.
//
// Where the reply queue belongs to the pod's name (a ReplyHost with identity Stable), replies to calls that a
// predecessor made are held for Resume, for as long as the queue would wait for its reader, an hour at most;
// WithHeldReplies among opts sets another time, or with 0 none.
//
// In a pod that started before it was injected, it blocks until the operator has named the channels,
// or until ctx ends. Otherwise it makes no request. opts come after what the environment says. It logs to
// slog.Default unless WithLogger names another.
func NewRequester(ctx context.Context, opts ...rpcclient.Option) (*rpcclient.Requester, error) {
	e, err := readEnvironment(os.Getenv, folderExists)
	if err != nil {
		return nil, fmt.Errorf("rpcenv: %w", err)
	}
	r, err := e.requester(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("rpcenv: %w", err)
	}
	return r, nil
}

// NewResponder returns a responder for the channels this pod serves. Register handlers, then Serve.
//
// In a pod that started before it was injected, it blocks until the operator has named the channels,
// or until ctx ends. opts come after what the environment says. It logs to slog.Default, a handler's panics
// and AWS's refusals for instance, unless WithLogger names another.
func NewResponder(ctx context.Context, opts ...rpcclient.Option) (*rpcclient.Responder, error) {
	e, err := readEnvironment(os.Getenv, folderExists)
	if err != nil {
		return nil, fmt.Errorf("rpcenv: %w", err)
	}
	r, err := e.responder(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("rpcenv: %w", err)
	}
	return r, nil
}

func (e environment) requester(ctx context.Context, opts []rpcclient.Option) (*rpcclient.Requester, error) {
	var source rpcclient.ReplyQueueSource = rpcclient.StaticReplyQueue(e.replyQueueURL)
	closeSource := func() {}
	switch {
	case e.heartbeat != nil:
		l := newLease(e, slog.Default())
		l.start()
		source, closeSource = l, func() { _ = l.Close() }
		if err := e.askLease(ctx, l); err != nil {
			closeSource()
			return nil, err
		}
	case e.replyQueueURL == "":
		return nil, missing(injected.EnvReplyQueueURL, "replyqueue.dev/reply-host")
	}
	calls := configs(e.channels, injected.Role.Calls)
	if len(calls) == 0 {
		closeSource()
		return nil, missing(injected.EnvChannels, "replyqueue.dev/calls")
	}
	client, err := e.client(ctx, calls[0].URL)
	if err != nil {
		closeSource()
		return nil, err
	}
	own := []rpcclient.Option{rpcclient.WithChannels(calls...), rpcclient.WithLogger(slog.Default())}
	if i := e.identity; i != nil && i.Kind == injected.IdentityStable {
		own = append(own, rpcclient.WithHeldReplies(min(i.Retention(), longestHeld)))
	}
	r, err := rpcclient.NewRequester(client, source, append(own, opts...)...)
	if err != nil {
		closeSource()
		return nil, err
	}
	return r, nil
}

// longestHeld bounds how long a predecessor's replies are held where its queue is kept for longer: what is not
// asked for by then hardly will be, and SQS gives it out again and again.
const longestHeld = time.Hour

func (e environment) responder(ctx context.Context, opts []rpcclient.Option) (*rpcclient.Responder, error) {
	if e.channels == nil && e.heartbeat != nil {
		l := newLease(e, slog.Default())
		l.start()
		err := e.askLease(ctx, l)
		_ = l.Close()
		if err != nil {
			return nil, err
		}
	}
	serves := configs(e.channels, injected.Role.Serves)
	if len(serves) == 0 {
		return nil, missing(injected.EnvChannels, "replyqueue.dev/serves")
	}
	client, err := e.client(ctx, serves[0].URL)
	if err != nil {
		return nil, err
	}
	own := []rpcclient.Option{rpcclient.WithChannels(serves...), rpcclient.WithLogger(slog.Default())}
	switch {
	case e.addressesFile != "":
		f := &addressesFile{name: e.addressesFile, policy: policyOf(e.addresses), log: slog.Default()}
		own = append(own, rpcclient.WithReturnAddressSource(f.current))
	case e.addresses != nil:
		own = append(own, rpcclient.WithReturnAddresses(policyOf(e.addresses)))
	}
	return rpcclient.NewResponder(client, append(own, opts...)...)
}

// askLease fills in, from the Lease, what a pod was not told because it started before it was
// injected. It returns at once when the environment has the channels.
func (e *environment) askLease(ctx context.Context, l *lease) error {
	for e.channels == nil {
		l.mu.Lock()
		channels, returns, region, endpoint, answered := l.channels, l.returns, l.region, l.endpoint, l.answered
		identity := l.identity
		l.mu.Unlock()
		if channels != nil {
			e.channels, e.addresses, e.identity = channels, returns, cmp.Or(e.identity, identity)
			// What the pod's author set wins here too.
			e.region, e.endpoint = cmp.Or(e.region, region), cmp.Or(e.endpoint, endpoint)
			return nil
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return fmt.Errorf("%s is empty, and the Lease %s has not named the channels: %w", injected.EnvChannels, l.url, context.Cause(ctx))
		}
	}
	return nil
}

// client makes the SQS client: the SDK's own configuration, with the injected region and endpoint.
// queueURL tells the region when nothing else does.
func (e environment) client(ctx context.Context, queueURL string) (*sqs.Client, error) {
	var load []func(*config.LoadOptions) error
	if e.region != "" {
		load = append(load, config.WithRegion(e.region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		if cfg.Region = rpcclient.RegionOfQueueURL(queueURL); cfg.Region == "" {
			return nil, fmt.Errorf("no AWS region: set %s or AWS_REGION, or name it in the QueueProvider", injected.EnvRegion)
		}
	}
	return sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if e.endpoint != "" {
			o.BaseEndpoint = &e.endpoint
		}
	}), nil
}

// missing says which variable is not there and what to do.
func missing(variable, annotation string) error {
	return fmt.Errorf("%w: %s is empty or names nothing of the kind; label the pod replyqueue.dev/inject=true and annotate it with %s, or set the variable yourself",
		errNotInjected, variable, annotation)
}

var errNotInjected = errors.New("this container was not injected")
