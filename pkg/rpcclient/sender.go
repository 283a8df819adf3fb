package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
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
// batch holds nobody up. An idle queue costs no latency, and a busy one few requests. Messages that may
// be packed go by the same clock, as many as fit in an entry: there, 64 KiB are what ten are elsewhere.
type sender struct {
	ctx     context.Context // ends when unsent messages no longer matter
	api     *queueAPI
	url     string
	reserve int  // bytes left free in a pack
	jam     *jam // of a responder's senders; nil: nothing bounds what waits

	mu       sync.Mutex
	queue    []*outgoing
	packable struct{ count, bytes int } // of queue: what may be packed
	inFlight int                        // flights, those that have not yet taken their entries included
	taking   int                        // flights that have not yet taken their entries
	usual    time.Duration              // moving average of a send's duration
	timer    *time.Timer                // fires when the oldest entry has waited long enough

	backlog      int  // messages that have not met their end; counted where there is a jam
	failing      bool // the latest send failed
	failingSince time.Time

	flights sync.WaitGroup
}

// outgoing is one message on its way through a sender. The fields below mu belong to the sender's lock.
type outgoing struct {
	message outgoingMessage

	state    sendState
	maybe    bool  // an attempt ended without certainty
	err      error // of the last attempt that failed
	queuedAt time.Time
}

// parcel is what one entry of a batch carries: one message, or several packed.
type parcel []*outgoing

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

// packableMessage may share an entry with others of its kind.
type packableMessage interface {
	outgoingMessage
	// packKey is what messages in one entry have in common; "": this one goes alone.
	packKey() string
	// line renders the message for a pack, the same each time.
	line() string
	// expired reports whether the message is no longer worth sending.
	expired(now time.Time) bool
}

func keyOf(m outgoingMessage) string {
	if p, ok := m.(packableMessage); ok {
		return p.packKey()
	}
	return ""
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
	s.count(1)
	s.countPackable(o, 1)
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

// mayHaveCopies reports whether the message may have been sent more than once: an attempt ended without
// certainty, and another followed.
func (s *sender) mayHaveCopies(o *outgoing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return o.maybe
}

// schedule starts the flights that are due. It is called with the lock held.
func (s *sender) schedule() {
	for s.inFlight == 0 && len(s.queue) > 0 || s.full() && s.inFlight < sendConcurrency {
		s.launch()
	}
	s.arm()
}

// arm sets the timer where something is queued that no flight is about to take. A timer for every message would wake a
// thread of an idle process for nothing while its answer is on the way. It is called with the lock held.
func (s *sender) arm() {
	if s.timer == nil && len(s.queue) > s.taking*maxBatch {
		s.timer = time.AfterFunc(s.linger(), s.lingered)
	}
}

// countPackable keeps the sums of what may be packed: 1 when o enters the queue, -1 when it leaves. It is
// called with the lock held.
func (s *sender) countPackable(o *outgoing, sign int) {
	if keyOf(o.message) != "" {
		s.packable.count += sign
		s.packable.bytes += sign * (o.message.size() - s.reserve)
	}
}

// full reports whether there is a whole batch, or a whole pack, that no flight is about to take.
func (s *sender) full() bool {
	taken := s.taking * maxBatch // entries that flights are about to take
	return len(s.queue)-s.packable.count-taken >= maxBatch ||
		s.packable.bytes >= (taken+1)*(maxPackBytes-s.reserve) || s.packable.count >= (taken+1)*maxPackEntries
}

func (s *sender) launch() {
	s.inFlight++
	s.taking++
	s.api.crew.run(&s.flights, s.fly)
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
		s.gather()
		s.mu.Lock()
		s.taking--
		batch := s.take()
		s.arm()
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

// gatherYields bounds how often a flight lets others run before it takes its batch: microseconds.
const gatherYields = 64

// gather lets goroutines run that are about to, since they may have company for a batch: as long as there are
// such, or they have just had some, and the batch is not full. A message that is alone, with nobody about to run, has
// its goroutine kept: letting others run wakes a thread, which would find nothing to do but to take it over.
func (s *sender) gather() {
	before, company := s.waiting(), false
	for n := range gatherYields {
		look := n == 0 && before > 1 // callers whom nobody counts may be coming
		if before >= maxBatch || !company && !look && s.api.rousing.Load() <= 0 {
			return
		}
		runtime.Gosched()
		now := s.waiting()
		before, company = now, now > before
	}
}

// waiting is how many messages are queued.
func (s *sender) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// take removes the next batch from the queue. It is called with the lock held.
func (s *sender) take() []parcel {
	b := batchBuilder{room: maxPackBytes - packOverhead - s.reserve}
	if n := min(len(s.queue), maxBatch); n > 0 {
		b.parcels, b.firsts = make([]parcel, 0, n), make(parcel, 0, n)
	}
	n := 0
	for _, o := range s.queue {
		if o.state == sendQueued && !b.add(o) {
			break
		}
		s.countPackable(o, -1)
		n++
	}
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	return b.parcels
}

// deliver brings a batch to its end, whatever it takes.
func (s *sender) deliver(batch []parcel) {
	for try := 1; ; try++ {
		retry, apart := s.attempt(batch)
		for _, part := range apart {
			s.deliverApart(part)
		}
		retry, excess := s.relieve(retry)
		s.finish(excess, false)
		if len(retry) == 0 {
			return
		}
		if try == sendAttempts || !sleep(s.ctx, backoff(try, sendBackoffLimit)) {
			s.finishAll(retry, false)
			return
		}
		batch = retry
	}
}

// deliverApart delivers a part of a batch by itself, so that what is wrong with one holds up no other.
func (s *sender) deliverApart(part []parcel) {
	s.mu.Lock()
	s.inFlight++
	s.mu.Unlock()
	s.api.crew.run(&s.flights, func() {
		s.deliver(part)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight--
		s.schedule()
	})
}

// split takes a batch apart of which something was refused: its parcels each by themselves, or the
// messages of its only one. nil: there is nothing to take apart.
func split(batch []parcel) (apart [][]parcel) {
	if len(batch) > 1 {
		for i := range batch {
			apart = append(apart, batch[i:i+1])
		}
		return apart
	}
	if len(batch) == 0 || len(batch[0]) == 1 {
		return nil
	}
	singles := make([]parcel, len(batch[0]))
	for i := range singles {
		singles[i] = batch[0][i : i+1]
	}
	for part := range slices.Chunk(singles, maxBatch) {
		apart = append(apart, part)
	}
	return apart
}

// attempt sends a batch once, finishes the messages whose fate is decided, and returns what to try again,
// and what to try again apart.
func (s *sender) attempt(batch []parcel) (retry []parcel, apart [][]parcel) {
	now := time.Now()
	entries := make([]types.SendMessageBatchRequestEntry, 0, len(batch))
	flying := make([]parcel, 0, len(batch))
	var stale parcel
	s.mu.Lock()
	for _, p := range batch {
		e, live, expired := render(p, now)
		stale = append(stale, expired...)
		if len(live) == 0 {
			continue
		}
		for _, o := range live {
			o.state = sendFlying
		}
		e.Id = &batchIDs[len(entries)]
		entries = append(entries, e)
		flying = append(flying, live)
	}
	s.mu.Unlock()
	s.finish(stale, false)
	if len(entries) == 0 {
		return nil, nil
	}

	out, notSent, err := s.api.send(s.ctx, s.url, entries)
	s.learn(time.Since(now))
	s.tried(err == nil && len(out.Successful) > 0, time.Now())
	if err != nil {
		for _, p := range flying {
			s.landed(p, err, notSent)
		}
		if s.ctx.Err() == nil && !isPermanent(err) {
			return flying, nil
		}
		if s.ctx.Err() == nil && !isMissingQueue(err) && !isDenied(err) {
			apart = split(flying)
		}
		if len(apart) == 0 {
			s.finishAll(flying, false)
		}
		return nil, apart
	}

	var answered [maxBatch]bool
	for i := range out.Successful {
		if n := entryIndex(out.Successful[i].Id, len(flying)); n >= 0 && !answered[n] {
			answered[n] = true
			s.finish(flying[n], true)
		}
	}
	for i := range out.Failed {
		f := &out.Failed[i]
		n := entryIndex(f.Id, len(flying))
		if n < 0 || answered[n] {
			continue
		}
		answered[n] = true
		code := deref(f.Code)
		refused := f.SenderFault && !isThrottleCode(code)
		s.landed(flying[n], &entryError{GenericAPIError: smithy.GenericAPIError{Code: code, Message: deref(f.Message)}, senderFault: f.SenderFault},
			f.SenderFault || isThrottleCode(code))
		switch {
		case !refused:
			retry = append(retry, flying[n])
		case len(flying[n]) > 1:
			apart = append(apart, split(flying[n:n+1])...)
		default:
			s.finish(flying[n], false)
		}
	}
	for n, ok := range answered[:len(flying)] {
		if !ok {
			s.landed(flying[n], errNoWord, false)
			retry = append(retry, flying[n])
		}
	}
	return retry, apart
}

// render makes an entry of what is left of a parcel at now. It is called with the sender's lock held.
func render(p parcel, now time.Time) (e types.SendMessageBatchRequestEntry, live, expired parcel) {
	if len(p) > 1 {
		p, expired = alive(p, now)
	}
	switch {
	case len(p) == 0 || p[0].state == sendAbandoned:
		return e, nil, expired
	case len(p) > 1:
		lines := make([]string, len(p))
		for i, o := range p {
			lines[i] = o.message.(packableMessage).line()
		}
		return packEntry(lines), p, expired
	}
	e, ok := p[0].message.entry(now)
	if !ok {
		return e, nil, append(expired, p...)
	}
	return e, p, expired
}

// alive sorts out of a pack what was abandoned, and what is no longer worth sending.
func alive(p parcel, now time.Time) (live, expired parcel) {
	for _, o := range p {
		switch {
		case o.state == sendAbandoned:
		case o.message.(packableMessage).expired(now):
			expired = append(expired, o)
		default:
			live = append(live, o)
		}
	}
	return live, expired
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
func (s *sender) landed(batch parcel, err error, notSent bool) {
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

func (s *sender) finishAll(batch []parcel, accepted bool) {
	for _, p := range batch {
		s.finish(p, accepted)
	}
}

// finish tells the messages their end, unless they were abandoned.
func (s *sender) finish(batch parcel, accepted bool) {
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
		s.count(-1)
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
