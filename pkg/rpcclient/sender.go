package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
)

const (
	// maxSQSBytes is SQS's limit on a message and on a whole batch.
	maxSQSBytes = 1 << 20
	// sendConcurrency bounds the batches in flight to one queue.
	sendConcurrency = 16
	// maxLinger bounds how long an entry waits for company while another batch is in flight.
	maxLinger = 20 * time.Millisecond
	// sendAttempts bounds the attempts for one entry: about 3 s with the pauses between them when SQS
	// answers quickly, and 3 s each when it does not.
	sendAttempts = 8
	// sendBackoffLimit bounds the pause between two attempts.
	sendBackoffLimit = time.Second
)

// sender sends messages to one queue in self-clocked batches: an entry leaves at once when nothing is
// in flight to the queue; otherwise entries gather until there are ten, or 1 MiB, or what is in flight
// has returned, or the oldest has waited for 1.5 times the usual send (20 ms at most), so that one slow
// batch holds nobody up. An idle queue costs no latency, and a busy one few requests.
type sender struct {
	ctx context.Context // ends when unsent messages no longer matter
	api *queueAPI
	url string

	mu       sync.Mutex
	queue    []*outgoing
	inFlight int           // flights, those that have not yet taken their entries included
	taking   int           // flights that have not yet taken their entries
	usual    time.Duration // moving average of a send's duration
	timer    *time.Timer   // fires when the oldest entry has waited long enough
	flights  sync.WaitGroup
}

// outgoing is one message on its way through a sender. The fields below mu belong to the sender's lock.
type outgoing struct {
	message outgoingMessage

	state    sendState
	maybe    bool  // an attempt ended without certainty
	err      error // of the last attempt that failed
	queuedAt time.Time
}

// outgoingMessage is what a sender sends.
type outgoingMessage interface {
	// size is the message's size as SQS counts it.
	size() int
	// entry renders the message as it leaves at now. false: it is no longer worth sending.
	entry(now time.Time) (types.SendMessageBatchRequestEntry, bool)
	// sent is told the end, once, unless the message was abandoned: err is nil when SQS accepted it;
	// notSent reports that SQS certainly did not.
	sent(err error, notSent bool)
}

type sendState uint8

const (
	sendQueued sendState = iota // in the queue, or between two attempts
	sendFlying                  // in an attempt
	sendDone
	sendAbandoned
)

func newSender(ctx context.Context, api *queueAPI, url string) *sender {
	return &sender{ctx: ctx, api: api, url: url, usual: 10 * time.Millisecond}
}

// add queues a message, unless it was abandoned already. It does not block.
func (s *sender) add(o *outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.state != sendQueued {
		return
	}
	o.queuedAt = time.Now()
	s.queue = append(s.queue, o)
	s.schedule()
}

// abandon gives a message up. notSent reports that it certainly was not and will not be sent; err is
// what its last attempt failed with, if one did.
func (s *sender) abandon(o *outgoing) (notSent bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := o.state
	if before == sendQueued || before == sendFlying {
		o.state = sendAbandoned
	}
	return before == sendQueued && !o.maybe, o.err
}

// schedule starts the flights that are due. It is called with the lock held.
func (s *sender) schedule() {
	for s.inFlight == 0 && len(s.queue) > 0 || s.full() && s.inFlight < sendConcurrency {
		s.launch()
	}
	if len(s.queue) > 0 && s.timer == nil {
		s.timer = time.AfterFunc(s.linger(), s.lingered)
	}
}

// full reports whether there is a whole batch that no flight is about to take.
func (s *sender) full() bool { return len(s.queue)-s.taking*maxBatch >= maxBatch }

func (s *sender) launch() {
	s.inFlight++
	s.taking++
	s.flights.Go(s.fly)
}

func (s *sender) linger() time.Duration { return min(maxLinger, s.usual*3/2) }

// lingered sends what has waited long enough behind a batch in flight.
func (s *sender) lingered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	if len(s.queue) == 0 {
		return
	}
	left := s.linger() - time.Since(s.queue[0].queuedAt)
	if left <= 0 && s.taking == 0 && s.inFlight < sendConcurrency {
		s.launch()
		left = s.linger()
	}
	s.timer = time.AfterFunc(max(left, time.Millisecond), s.lingered)
}

// fly takes batches and sends them as long as a batch is due.
func (s *sender) fly() {
	for {
		// Callers that are about to run may have company for this batch: let them.
		runtime.Gosched()
		s.mu.Lock()
		s.taking--
		batch := s.take()
		s.mu.Unlock()
		if len(batch) > 0 {
			s.deliver(batch)
		}
		s.mu.Lock()
		due := len(s.queue) > 0 && (s.inFlight == 1 || s.full())
		if !due {
			s.inFlight--
			s.schedule()
			s.mu.Unlock()
			return
		}
		s.taking++
		s.mu.Unlock()
	}
}

// take removes the next batch from the queue. It is called with the lock held.
func (s *sender) take() []*outgoing {
	var batch []*outgoing
	size, n := 0, 0
	for _, o := range s.queue {
		if o.state == sendQueued {
			if len(batch) == maxBatch || (len(batch) > 0 && size+o.message.size() > maxSQSBytes) {
				break
			}
			if batch == nil {
				batch = make([]*outgoing, 0, min(maxBatch, len(s.queue)))
			}
			size += o.message.size()
			batch = append(batch, o)
		}
		n++
	}
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	return batch
}

// deliver brings a batch to its end, whatever it takes.
func (s *sender) deliver(batch []*outgoing) {
	for try := 1; ; try++ {
		retry, alone := s.attempt(batch)
		if alone {
			for _, o := range retry {
				s.deliver([]*outgoing{o})
			}
			return
		}
		if len(retry) == 0 {
			return
		}
		if try == sendAttempts || !sleep(s.ctx, backoff(try, sendBackoffLimit)) {
			s.finish(retry, false)
			return
		}
		batch = retry
	}
}

// attempt sends a batch once, finishes the entries whose fate is decided, and returns those to try
// again; alone: one of them spoils the batch, so each must go by itself.
func (s *sender) attempt(batch []*outgoing) (retry []*outgoing, alone bool) {
	now := time.Now()
	entries := make([]types.SendMessageBatchRequestEntry, 0, len(batch))
	flying := make([]*outgoing, 0, len(batch))
	var stale []*outgoing
	s.mu.Lock()
	for _, o := range batch {
		if o.state == sendAbandoned {
			continue
		}
		e, ok := o.message.entry(now)
		if !ok {
			stale = append(stale, o)
			continue
		}
		e.Id = &batchIDs[len(entries)]
		o.state = sendFlying
		entries = append(entries, e)
		flying = append(flying, o)
	}
	s.mu.Unlock()
	s.finish(stale, false)
	if len(entries) == 0 {
		return nil, false
	}

	out, notSent, err := s.api.send(s.ctx, s.url, entries)
	s.learn(time.Since(now))
	if err != nil {
		s.landed(flying, err, notSent)
		switch {
		case s.ctx.Err() == nil && !isPermanent(err):
			return flying, false
		case s.ctx.Err() == nil && len(flying) > 1 && !isMissingQueue(err) && !isDenied(err):
			return flying, true
		default:
			s.finish(flying, false)
			return nil, false
		}
	}

	var answered [maxBatch]bool
	for i := range out.Successful {
		if n := entryIndex(out.Successful[i].Id, len(flying)); n >= 0 && !answered[n] {
			answered[n] = true
			s.finish(flying[n:n+1], true)
		}
	}
	for i := range out.Failed {
		f := &out.Failed[i]
		n := entryIndex(f.Id, len(flying))
		if n < 0 || answered[n] {
			continue
		}
		answered[n] = true
		entry, code := flying[n:n+1], deref(f.Code)
		failure := &entryError{GenericAPIError: smithy.GenericAPIError{Code: code, Message: deref(f.Message)}, senderFault: f.SenderFault}
		s.landed(entry, failure, f.SenderFault || isThrottleCode(code))
		if f.SenderFault && !isThrottleCode(code) {
			s.finish(entry, false)
			continue
		}
		retry = append(retry, entry...)
	}
	for n, ok := range answered[:len(flying)] {
		if !ok {
			s.landed(flying[n:n+1], errNoWord, false)
			retry = append(retry, flying[n])
		}
	}
	return retry, false
}

// entryError is one entry's failure in a batch that SQS answered.
type entryError struct {
	smithy.GenericAPIError
	senderFault bool
}

func (e *entryError) Error() string {
	return fmt.Sprintf("SQS refused the entry: %s: %s", e.Code, e.Message)
}

var errNoWord = errors.New("the answer of SQS does not mention the entry")

// landed ends an attempt that failed.
func (s *sender) landed(batch []*outgoing, err error, notSent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range batch {
		o.err = err
		if !notSent {
			o.maybe = true // for ever: a later certain failure does not undo it
		}
		if o.state == sendFlying {
			o.state = sendQueued
		}
	}
}

// finish tells the messages their end, unless they were abandoned.
func (s *sender) finish(batch []*outgoing, accepted bool) {
	for _, o := range batch {
		s.mu.Lock()
		abandoned := o.state == sendAbandoned
		if !abandoned {
			o.state = sendDone
		}
		var err error
		if !accepted {
			if err = o.err; err == nil {
				err = context.DeadlineExceeded // stale before its first attempt
			}
		}
		notSent := !accepted && !o.maybe
		s.mu.Unlock()
		if !abandoned {
			o.message.sent(err, notSent)
		}
	}
}

// learn keeps the usual duration of a send: an exponential average with weight 1/8.
func (s *sender) learn(took time.Duration) {
	s.mu.Lock()
	s.usual += (took - s.usual) / 8
	s.mu.Unlock()
}

// idle reports whether nothing is queued or in flight.
func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight == 0 && len(s.queue) == 0
}

// wait blocks until every message added so far has met its end.
func (s *sender) wait() { s.flights.Wait() }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// messageSize is a message's size as SQS counts it: the body, and each attribute's name, type and value.
func messageSize(body string, attributes ...string) int {
	n := len(body)
	for _, a := range attributes {
		n += len(a)
	}
	return n
}
