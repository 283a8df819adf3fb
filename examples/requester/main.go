// Command requester calls calculate_sum again and again, checks every answer, and prints a line of
// JSON statistics each second. Everything it needs to know of queues is injected.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/replyqueue/replyqueue/examples/internal/health"
	"github.com/replyqueue/replyqueue/examples/internal/settings"
	"github.com/replyqueue/replyqueue/examples/sum"
	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcenv"
)

var (
	channel     = settings.String("channel", "CHANNEL", "", "the RequestChannel to call; empty: the only one there is")
	concurrency = settings.Int("concurrency", "CONCURRENCY", 4, "callers at once")
	rate        = settings.Int("rate", "RATE", 20, "calls per second of all callers together; 0: as fast as answers come")
	timeout     = settings.Duration("timeout", "TIMEOUT", 0, "time limit of a call; 0: the channel's")
	drain       = settings.Duration("drain-timeout", "DRAIN_TIMEOUT", 25*time.Second, "how long to finish after SIGTERM")
	probes      = settings.String("health-address", "HEALTH_ADDRESS", "", "address for /healthz and /readyz; empty: none")
	every       = settings.Duration("stats-interval", "STATS_INTERVAL", time.Second, "time between two lines of statistics; 0: none but the last")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "requester:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	requester, err := rpcenv.NewRequester(ctx, rpcclient.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	if names := requester.Channels(); *channel == "" {
		if len(names) != 1 {
			return fmt.Errorf("set CHANNEL to one of %v", names)
		}
		*channel = names[0]
	}
	target, err := requester.Channel(*channel)
	if err != nil {
		return err
	}
	stopProbes, err := health.Serve(*probes, func() bool {
		return ctx.Err() == nil && requester.ReplyQueueURL() != "" && requester.Healthy() == nil
	})
	if err != nil {
		return err
	}
	defer stopProbes()

	c := &caller{
		name:    fmt.Sprintf("%s/%d", cmp.Or(os.Getenv(injected.EnvPodName), "local"), os.Getpid()),
		channel: target, requester: requester, pauses: watchPauses(),
	}
	defer c.pauses.stop()
	var callers sync.WaitGroup
	for i := range *concurrency {
		callers.Go(func() { c.repeat(ctx, i) })
	}

	finished := make(chan struct{})
	go func() {
		callers.Wait()
		close(finished)
	}()
	var tick <-chan time.Time
	if *every > 0 {
		ticker := time.NewTicker(*every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-tick:
			c.print(false)
			continue
		case <-ctx.Done():
		}
		break
	}
	// Calls under way go on after SIGTERM; Shutdown waits for them, and cuts off what is left at the end.
	drainCtx, cancel := context.WithTimeout(context.Background(), *drain)
	defer cancel()
	err = requester.Shutdown(drainCtx)
	<-finished
	c.print(true)
	return err
}

// caller calls and keeps the books.
type caller struct {
	name      string
	channel   *rpcclient.Channel
	requester *rpcclient.Requester
	pauses    *pauses

	sequence atomic.Int64
	books    books
}

// repeat calls at this caller's share of the rate until ctx ends.
func (c *caller) repeat(ctx context.Context, index int) {
	var tick <-chan time.Time
	if *rate > 0 {
		period := time.Second * time.Duration(*concurrency) / time.Duration(*rate)
		// Spread over the period, so that callers do not call in step.
		first := time.NewTimer(period * time.Duration(index) / time.Duration(*concurrency))
		defer first.Stop()
		select {
		case <-first.C:
		case <-ctx.Done():
			return
		}
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		tick = ticker.C
	}
	for ctx.Err() == nil {
		c.once(context.WithoutCancel(ctx)) // a call that has begun is not cancelled by SIGTERM
		if tick == nil {
			continue
		}
		select {
		case <-tick:
		case <-ctx.Done():
		}
	}
}

// once makes one call and checks the answer.
func (c *caller) once(ctx context.Context) {
	n := c.sequence.Add(1)
	question := sum.Request{Caller: c.name, Sequence: n, Numbers: []int{int(n), 20, 30}}
	var opts []rpcclient.CallOption
	if *timeout > 0 {
		opts = append(opts, rpcclient.CallTimeout(*timeout))
	}
	started := time.Now()
	answer, err := sum.Calculate.Call(ctx, c.channel, question, opts...)
	took := time.Since(started)
	switch {
	case err == nil:
		right := answer.Sum == int(n)+50 && answer.Caller == c.name && answer.Sequence == n
		c.books.answered(took, right)
	case errors.Is(err, rpcclient.ErrClosed):
		c.books.cutOff()
	default:
		c.books.failed(err, c.pauses.excuse(started, err))
	}
}
