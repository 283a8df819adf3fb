// Command responder answers calculate_sum on the channels its pod serves. Everything it needs to know
// is injected.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
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
	delay       = settings.Duration("handler-delay", "HANDLER_DELAY", 0, "how long each request takes")
	concurrency = settings.Int("concurrency", "CONCURRENCY", rpcclient.DefaultConcurrency, "handlers at once")
	receiveWait = settings.Duration("receive-wait", "RECEIVE_WAIT", rpcclient.DefaultReceiveWait, "length of a long poll; an idle responder takes as long to stop")
	drain       = settings.Duration("drain-timeout", "DRAIN_TIMEOUT", rpcclient.DefaultDrainTimeout, "how long to finish after SIGTERM")
	probes      = settings.String("health-address", "HEALTH_ADDRESS", "", "address for /healthz and /readyz; empty: none")
	every       = settings.Duration("stats-interval", "STATS_INTERVAL", time.Second, "time between two lines of statistics; 0: none but the last")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "responder:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	name := cmp.Or(os.Getenv(injected.EnvPodName), fmt.Sprintf("pid-%d", os.Getpid()))
	responder, err := rpcenv.NewResponder(ctx,
		rpcclient.WithConcurrency(*concurrency), rpcclient.WithReceiveWait(*receiveWait),
		rpcclient.WithDrainTimeout(*drain), rpcclient.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	sum.Calculate.Handle(responder, func(ctx context.Context, r sum.Request) (sum.Reply, error) {
		if *delay > 0 {
			timer := time.NewTimer(*delay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return sum.Reply{}, context.Cause(ctx)
			}
		}
		reply := sum.Reply{Caller: r.Caller, Sequence: r.Sequence, Responder: name}
		for _, n := range r.Numbers {
			reply.Sum += n
		}
		return reply, nil
	})

	var ready atomic.Bool
	stopProbes, err := health.Serve(*probes, func() bool { return ready.Load() && responder.Healthy() == nil })
	if err != nil {
		return err
	}
	defer stopProbes()

	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	ready.Store(true)
	context.AfterFunc(ctx, func() { ready.Store(false) })

	var tick <-chan time.Time
	if *every > 0 {
		ticker := time.NewTicker(*every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-tick:
			report(name, responder.Stats(), false)
		case err := <-served:
			report(name, responder.Stats(), true)
			return err
		}
	}
}

// line is what is printed; all numbers count from the start.
type line struct {
	Pod         string           `json:"pod"`
	Received    int64            `json:"received"`
	Served      int64            `json:"served"`
	Refused     int64            `json:"refused"`
	Expired     int64            `json:"expired"`
	Duplicates  int64            `json:"duplicates"`
	Left        int64            `json:"left"`
	SQSRequests int64            `json:"sqs_requests"`
	SQS         map[string]int64 `json:"sqs"`
	Final       bool             `json:"final"`
}

func report(name string, s rpcclient.StatsSnapshot, final bool) {
	out, err := json.Marshal(line{
		Pod: name, Received: s.Received, Served: s.Served, Refused: s.Refused, Expired: s.Expired,
		Duplicates: s.Duplicates, Left: s.Left, SQSRequests: s.SQSRequests(), SQS: s.ByAction(), Final: final,
	})
	if err == nil {
		fmt.Println(string(out))
	}
}
