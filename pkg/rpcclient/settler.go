package rpcclient

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
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
	deletes []deletion
	timer   *time.Timer
	awaited int  // flights under way of which somebody awaits the end
	cutOff  bool // deletes were given up because ctx had ended
	flights sync.WaitGroup
}

// deletion is one handle to delete. of is who awaits the end; nil: nobody does.
type deletion struct {
	handle string
	of     *confirmation
}

// confirmation waits until SQS has said of all its handles that they are deleted, or one was given up. Its
// handles are in one flight, which tells it of one after the other.
type confirmation struct {
	left    int
	failed  bool
	undated bool      // an answer had no Date
	date    time.Time // the latest
	done    func(deleted bool, date time.Time)
}

// decided notes the end of one handle, in an answer with that Date, which is zero when it had none.
func (c *confirmation) decided(deleted bool, date time.Time) {
	if c == nil {
		return
	}
	c.left--
	c.failed = c.failed || !deleted
	c.undated = c.undated || date.IsZero()
	if date.After(c.date) {
		c.date = date
	}
	if c.left == 0 {
		if c.undated {
			c.date = time.Time{}
		}
		c.done(!c.failed, c.date)
	}
}

func newSettler(ctx context.Context, api *queueAPI, url string, linger time.Duration) *settler {
	return &settler{ctx: ctx, api: api, url: url, linger: min(linger, deleteLinger)}
}

// delete queues a delete. It does not block.
func (s *settler) delete(receiptHandle string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes = append(s.deletes, deletion{handle: receiptHandle})
	switch {
	case len(s.deletes) >= maxBatch:
		s.launch()
	case s.timer == nil:
		s.timer = time.AfterFunc(s.linger, s.lingered)
	}
}

// confirm deletes messages soon: at once when nobody awaits another delete, and with those of the next moment
// otherwise. done is called once, on another goroutine, with whether SQS has confirmed all of them, and with the
// latest Date of its answers: zero where one had none. It does not block.
func (s *settler) confirm(receiptHandles []string, done func(deleted bool, date time.Time)) {
	c := &confirmation{left: len(receiptHandles), done: done}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range receiptHandles {
		s.deletes = append(s.deletes, deletion{h, c})
	}
	if s.awaited == 0 || len(s.deletes) >= maxBatch {
		s.launch()
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(min(s.linger, maxLinger), s.lingered)
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
	awaited := slices.ContainsFunc(batch, func(d deletion) bool { return d.of != nil })
	if awaited {
		s.awaited++
	}
	s.api.crew.run(&s.flights, func() {
		for part := range slices.Chunk(batch, maxBatch) {
			s.deleteBatch(part)
		}
		if awaited {
			s.mu.Lock()
			s.awaited--
			s.mu.Unlock()
		}
	})
}

// deleteBatch brings at most ten deletes to their end.
func (s *settler) deleteBatch(batch []deletion) {
	for try := 1; ; try++ {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(batch))
		for i := range batch {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: &batchIDs[i], ReceiptHandle: &batch[i].handle}
		}
		out, err := s.api.delete(s.ctx, s.url, entries)
		if err == nil {
			batch = undecided(batch, out)
		}
		if len(batch) == 0 {
			return
		}
		if isPermanent(err) || try == deleteAttempts || !sleep(s.ctx, backoff(try, time.Second)) {
			s.mu.Lock()
			s.cutOff = s.cutOff || s.ctx.Err() != nil
			s.mu.Unlock()
			for _, d := range batch {
				d.of.decided(false, time.Time{})
			}
			return
		}
	}
}

// undecided ends what SQS has decided, and picks what failed through no fault of its own, or is not mentioned.
func undecided(batch []deletion, out *sqs.DeleteMessageBatchOutput) (again []deletion) {
	var decided [maxBatch]bool
	date := dateOf(out.ResultMetadata)
	for i := range out.Successful {
		if n := entryIndex(out.Successful[i].Id, len(batch)); n >= 0 && !decided[n] {
			decided[n] = true
			batch[n].of.decided(true, date)
		}
	}
	for i := range out.Failed {
		if n := entryIndex(out.Failed[i].Id, len(batch)); n >= 0 && !decided[n] && forGood(&out.Failed[i]) {
			decided[n] = true
			batch[n].of.decided(false, date)
		}
	}
	for n := range batch {
		if !decided[n] {
			again = append(again, batch[n])
		}
	}
	return again
}

// forGood reports whether an entry failed for what it is. SQS says of its throttles that the sender is at fault.
func forGood(e *types.BatchResultErrorEntry) bool {
	return e.SenderFault && !isThrottleCode(deref(e.Code))
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
// good, which means that the message is no longer ours; failed of those it may take another time. date is what the
// answer's Date header says.
func (s *settler) changeBatch(ctx context.Context, changes []visibilityChange) (refused, failed []int, date time.Time) {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(changes))
	for i := range changes {
		entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: &batchIDs[i], ReceiptHandle: &changes[i].handle,
			VisibilityTimeout: int32((changes[i].d + time.Second - 1) / time.Second),
		}
	}
	errs, date, err := s.api.changeVisibility(ctx, s.url, entries)
	if err != nil {
		for i := range changes {
			failed = append(failed, i)
		}
		return nil, failed, date
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
	return refused, failed, date
}

// flush sends what is queued now and waits for all of it. complete is false when the settler's context cut
// deletes off.
func (s *settler) flush() (complete bool) {
	s.mu.Lock()
	s.launch()
	s.mu.Unlock()
	s.flights.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.cutOff
}
