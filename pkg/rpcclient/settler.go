package rpcclient

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	// deleteLinger is the longest a delete waits for company. Nothing waits for it: a reply's pending
	// entry is gone already, and a request that comes back is answered from the cache.
	deleteLinger = time.Second
	// deleteAttempts bounds the attempts for one delete. After them the message comes back when its
	// visibility ends, and is recognised.
	deleteAttempts = 3
)

// settler deletes messages of one queue, and makes them visible later or sooner, in batches.
type settler struct {
	ctx    context.Context
	api    *queueAPI
	url    string
	linger time.Duration // deleteLinger, or less where visibility is short

	mu      sync.Mutex
	deletes []string
	timer   *time.Timer
	flights sync.WaitGroup
}

func newSettler(ctx context.Context, api *queueAPI, url string, linger time.Duration) *settler {
	return &settler{ctx: ctx, api: api, url: url, linger: min(linger, deleteLinger)}
}

// delete queues a delete. It does not block.
func (s *settler) delete(receiptHandle string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes = append(s.deletes, receiptHandle)
	switch {
	case len(s.deletes) >= maxBatch:
		s.launch()
	case s.timer == nil:
		s.timer = time.AfterFunc(s.linger, s.lingered)
	}
}

func (s *settler) lingered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	s.launch()
}

// launch sends what is queued. It is called with the lock held.
func (s *settler) launch() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if len(s.deletes) == 0 {
		return
	}
	batch := s.deletes
	s.deletes = nil
	s.api.crew.run(&s.flights, func() {
		for part := range slices.Chunk(batch, maxBatch) {
			s.deleteBatch(part)
		}
	})
}

func (s *settler) deleteBatch(handles []string) {
	for try := 1; ; try++ {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(handles))
		for i := range handles {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: &batchIDs[i], ReceiptHandle: &handles[i]}
		}
		failed, err := s.api.delete(s.ctx, s.url, entries)
		if err == nil {
			handles = retryable(handles, failed)
		}
		if (err == nil && len(handles) == 0) || isPermanent(err) || try == deleteAttempts ||
			!sleep(s.ctx, backoff(try, time.Second)) {
			return
		}
	}
}

// forGood reports whether an entry failed for what it is. SQS says of its throttles that the sender is at fault.
func forGood(e *types.BatchResultErrorEntry) bool {
	return e.SenderFault && !isThrottleCode(deref(e.Code))
}

// retryable picks the entries that failed through no fault of theirs.
func retryable(handles []string, failed []types.BatchResultErrorEntry) []string {
	var again []string
	for i := range failed {
		if n := entryIndex(failed[i].Id, len(handles)); n >= 0 && !forGood(&failed[i]) {
			again = append(again, handles[n])
		}
	}
	return again
}

// visibilityChange asks for a message to stay hidden for d from now; 0 shows it at once.
type visibilityChange struct {
	handle string
	d      time.Duration
}

// changeVisibility makes the changes now, on the calling goroutine, once: a change that fails leaves
// the message to its present timeout.
func (s *settler) changeVisibility(changes []visibilityChange) {
	for part := range slices.Chunk(changes, maxBatch) {
		s.changeBatch(s.ctx, part)
	}
}

// changeBatch makes at most ten changes in one request. refused are the indexes of those SQS refused for
// good, which means that the message is no longer ours; failed of those it may take another time.
func (s *settler) changeBatch(ctx context.Context, changes []visibilityChange) (refused, failed []int) {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(changes))
	for i := range changes {
		entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: &batchIDs[i], ReceiptHandle: &changes[i].handle,
			VisibilityTimeout: int32((changes[i].d + time.Second - 1) / time.Second),
		}
	}
	errs, err := s.api.changeVisibility(ctx, s.url, entries)
	if err != nil {
		for i := range changes {
			failed = append(failed, i)
		}
		return nil, failed
	}
	for i := range errs {
		switch n := entryIndex(errs[i].Id, len(changes)); {
		case n < 0:
		case forGood(&errs[i]):
			refused = append(refused, n)
		default:
			failed = append(failed, n)
		}
	}
	return refused, failed
}

// flush sends what is queued now and waits for all of it.
func (s *settler) flush() {
	s.mu.Lock()
	s.launch()
	s.mu.Unlock()
	s.flights.Wait()
}
