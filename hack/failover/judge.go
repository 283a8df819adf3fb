package main

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// strangers are queues that are none of the operator's, though their names are near: it must leave them alone.
func (t *trial) strangers(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{"theirs": true, "rq_other_r_0a1b2c3d-0000-0000-0000-000000000000": true, "rq_other_failover_sum": true}
	for name := range names {
		if _, err := t.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			return nil, err
		}
	}
	t.sqs.ResetRequests()
	return names, nil
}

// judge reads SQS's log, and what exists, several times a second.
func (t *trial) judge(ctx context.Context, strangers map[string]bool) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				t.readLog(strangers, now.Add(-10*time.Second))
				t.ledger.missing(func(queue string) bool { _, ok := t.sqs.Queue(queue); return ok }, now)
			}
		}
	}()
	return ended
}

// readLog holds the requests since then against the ledger. They are read more than once, since a heartbeat may be
// entered shortly after the request that it is held against.
func (t *trial) readLog(strangers map[string]bool, since time.Time) {
	recent := func(r *sqstest.Request) bool { return r.Time.After(since) }
	for _, r := range t.sqs.RequestLog(sqstest.Action("DeleteQueue"), recent) {
		if r.ErrorCode == "" {
			t.ledger.deleted(r.Queue, r.Time)
		}
	}
	for _, r := range t.sqs.RequestLog(recent, func(r *sqstest.Request) bool { return strangers[r.Queue] && !strings.HasPrefix(r.Action, "List") }) {
		t.ledger.foreign(r.Action, r.Queue, r.Time)
	}
}
