// Command benchchannels applies many RequestChannels at once and counts what they cost.
//
//	go run ./hack/benchchannels -n 2000
//
// It needs the control plane's programs in -controlplane (make controlplane). On a real kube-apiserver and etcd, with
// config/default installed, it runs the operator's own program under its own service account, as its Deployment would,
// against pkg/sqstest on loopback. Then:
//
//  1. -dlq channels with a dead-letter queue are applied at once, until all are Ready;
//  2. -n channels without one, the same;
//  3. the operator is stopped and started again, until it has looked at every channel.
//
// It fails unless every channel becomes Ready, at the price of at most three SQS requests each (six with a dead-letter
// queue), and the restart costs no SQS request that writes and no write of a RequestChannel to the API server. Requests
// and writes are counted by the servers, not by the operator; its housekeeping, which it does by the clock whatever
// channels there are, is told apart. The last line is
//
//	BENCH-CHANNELS n=<n> ready=<n> sqs_requests_per_channel=<x> restart_writes=0
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/replyqueue/replyqueue/hack/demo/process"
)

// What one channel may cost in SQS requests, from nothing to Ready.
const (
	mostRequests           = 3
	mostRequestsDeadLetter = 6
)

func main() {
	process.ReapIfAsked()
	n := flag.Int("n", 2000, "RequestChannels without a dead-letter queue")
	dlq := flag.Int("dlq", -1, "RequestChannels with a dead-letter queue, applied before; -1: a quarter of n")
	programs := flag.String("controlplane", "bin/k8s", "folder with etcd, kube-apiserver and kubectl")
	limit := flag.Duration("limit", 15*time.Minute, "most time until all channels of a round are Ready")
	flag.Parse()
	if *dlq < 0 {
		*dlq = *n / 4
	}
	ctrllog.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *programs, *n, *dlq, *limit)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchchannels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, programs string, n, dlq int, limit time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "benchchannels-")
	if err != nil {
		return err
	}
	end, err := process.StartReaper(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	w, err := start(ctx, programs, dir)
	if err != nil {
		return err
	}
	defer w.stop()

	var failures []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			failures = append(failures, fmt.Errorf(format, args...))
		}
	}
	if dlq > 0 {
		r, err := w.apply(ctx, "with-dlq", dlq, true, limit)
		if err != nil {
			return err
		}
		fmt.Println(r)
		check(r.ready == dlq, "%d of %d channels with a dead-letter queue became Ready", r.ready, dlq)
		check(r.requests <= dlq*mostRequestsDeadLetter, "%d SQS requests for %d channels with a dead-letter queue", r.requests, dlq)
	}
	plain, err := w.apply(ctx, "without-dlq", n, false, limit)
	if err != nil {
		return err
	}
	fmt.Println(plain)
	check(plain.ready == n, "%d of %d channels became Ready", plain.ready, n)
	check(plain.requests <= n*mostRequests, "%d SQS requests for %d channels", plain.requests, n)

	again, err := w.restart(ctx, n+dlq, limit)
	if err != nil {
		return err
	}
	fmt.Println(again)
	check(again.writes() == 0, "the restart wrote: %s", again)
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	fmt.Printf("BENCH-CHANNELS n=%d ready=%d sqs_requests_per_channel=%s restart_writes=%d\n",
		n, plain.ready, perChannel(plain.requests, n), again.writes())
	return nil
}
