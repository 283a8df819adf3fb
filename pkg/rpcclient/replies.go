package rpcclient

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	// replyVisibility is how long a received reply stays hidden: long enough for its delete, short
	// enough that a lost answer costs seconds.
	replyVisibility = 5 * time.Second
	// missingConfirm is how far apart two QueueDoesNotExist must be: a new queue may answer so at first.
	missingConfirm = 2 * time.Second
	// foreignAtOnce is how many receives of another process's reply put it back at once.
	foreignAtOnce = 2
	// foreignBackoffSeconds is the longest that another process's reply is hidden at a time: it may take
	// many turns until its reader meets it, and has to come before its deadline.
	foreignBackoffSeconds = 3
	// longestHeldSeconds is the longest that a reply held for Resume is hidden at a time.
	longestHeldSeconds = 30
	// datedFor is how long, after a reply that no call took, receives ask SQS for the age of messages and how
	// often they were received. Otherwise nobody wants to know, and they come with every message. The first
	// such reply is taken for new.
	datedFor = time.Minute
)

// poll makes one receive from the reply queue and hands each reply to its call.
func (q *replyQueue) poll(ctx context.Context) (full bool, err error) {
	r := q.r
	system := replySystemAttributes
	if len(r.hooks.stray) == 0 && time.Now().UnixNano() >= q.dated.Load() {
		system = nil
	}
	msgs, at, date, err := r.api.receive(ctx, longPoll{
		queueURL: q.url, attributes: replyAttributes, system: system,
		max: maxBatch, wait: r.cfg.receiveWait, visibility: replyVisibility,
	})
	if err != nil {
		if isMissingQueue(err) && q.missing.confirmed(time.Now()) {
			r.queueMissing(q)
		}
		return false, err
	}
	q.missing.seen()
	if len(msgs) == 0 {
		return false, nil
	}
	q.pollers.stir()
	// SQS looks at some of its servers only, so that a receive need not be full though many replies wait:
	// there is work for another poller too while more calls are pending than those there are can bring.
	// So there is while a stream looks for one frame among many that are too far ahead for it.
	replies, ahead := q.dispatch(msgs, at, date)
	return replies >= maxBatch || ahead || q.pending.Load() > int64(maxBatch*q.pollers.count()), nil
}

// foreignBackoff is how long another process's reply is hidden that has been received count times. At
// first not at all: the other's poll waits, and this process has not begun its next. Later for seconds, at
// random, so that two readers do not meet each other's replies in step.
func foreignBackoff(count int) time.Duration {
	if count <= foreignAtOnce {
		return 0
	}
	return time.Duration(1+rand.IntN(foreignBackoffSeconds)) * time.Second
}

// heldBackoff is how long a reply that is held for Resume is hidden that has been received count times: ever
// longer, since it comes again only to be seen by a process that replaces this one.
// Young ones may be another process's, which is given the chance as for any of its replies.
func heldBackoff(count int, young bool) time.Duration {
	if young {
		return foreignBackoff(count)
	}
	return time.Duration(min(longestHeldSeconds, 1+count)) * time.Second
}

// arrived is one reply of a receive.
type arrived struct {
	packed
	trace   string
	message int // index of the message that brought it
}

// unfold lists the replies that messages bring, and whether each message is a pack.
func (q *replyQueue) unfold(msgs []types.Message) (all []arrived, packs [maxBatch]bool) {
	all = make([]arrived, 0, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		if !isPack(m) {
			all = append(all, arrived{message: i, trace: attribute(m, TraceParent), packed: packed{
				id: attribute(m, attributeVirtualQueue), envelope: attribute(m, attributeEnvelope), body: deref(m.Body),
			}})
			continue
		}
		packs[i] = true
		replies, malformed := unpack(deref(m.Body))
		for _, reply := range replies {
			all = append(all, arrived{packed: reply, message: i})
		}
		q.r.cfg.stats.packs.Add(1)
		q.r.cfg.stats.packedReplies.Add(int64(len(replies)))
		q.r.cfg.stats.foreign.Add(int64(malformed)) // they can be nobody's
	}
	return all, packs
}

// dispatch delivers what calls wait for, and deals with the rest. A call is removed from the pending
// map before its answer is sent, so that the first reply wins and any other is a stray. A message is
// deleted when everything it brought is dealt with. ahead: some frame was too far ahead of its stream.
func (q *replyQueue) dispatch(msgs []types.Message, at, date time.Time) (replies int, ahead bool) {
	r := q.r
	var ours [maxBatch]bool // the message brought something for this process
	all, packs := q.unfold(msgs)
	verdicts := make([]deliveryVerdict, len(all))
	var streams []*call // by the index in all; nil unless there are any
	var putBack [maxBatch]time.Duration
	r.mu.Lock()
	for i := range all {
		a := &all[i]
		if c, ok := r.pending[a.id]; ok && c.queue == q && c.frames != nil {
			if streams == nil {
				streams = make([]*call, len(all))
			}
			streams[i] = c
			ours[a.message] = true
			continue
		}
		verdicts[i] = q.deliver(a, msgs, packs[a.message])
		if verdicts[i] != deliveryUnknown && verdicts[i] != deliveryHeld || hasNonce(a.id, r.nonce) {
			ours[a.message] = true
		}
	}
	r.mu.Unlock()
	for i, c := range streams { // a stream stays pending, and has a lock of its own
		if c != nil {
			n := all[i].message
			v, d := c.frames.put(all[i].answer(packs[n]), c.attempt)
			if v == deliveryFull {
				ahead = true
				if putBack[n] == 0 || d < putBack[n] {
					putBack[n] = d
				}
			}
			verdicts[i] = v
		}
	}

	if slices.ContainsFunc(verdicts, func(v deliveryVerdict) bool { return v != deliveryTaken }) {
		q.dated.Store(time.Now().Add(datedFor).UnixNano())
	}
	var back []visibilityChange
	var kept, held [maxBatch]bool
	var deliveries [maxBatch]delivery
	for i := range msgs {
		deliveries[i] = newDelivery(&msgs[i], at, date)
	}
	for i := range all {
		n := all[i].message
		switch verdicts[i] {
		case deliveryTaken:
		case deliveryHeld:
			kept[n], held[n] = true, true
		case deliveryFull:
			kept[n] = true // a pack's other replies are known when it comes again
		default:
			// A pack is put back whole or not at all: not when part of it was for this process.
			if q.stray(all[i].id, deliveries[n], verdicts[i] == deliveryStale, !(packs[n] && ours[n])) {
				kept[n] = true
			}
		}
	}
	for i := range msgs {
		handle := deref(msgs[i].ReceiptHandle)
		if !kept[i] {
			q.settler.delete(handle)
			continue
		}
		// Longer each time: among many that come again and again, the one that is looked for is not found.
		d := min(longestPutBack, putBack[i]*time.Duration(deliveries[i].count))
		switch {
		case held[i]: // it is here already
			d = max(d, heldBackoff(deliveries[i].count, deliveries[i].age(&r.clock, deliveries[i].local) < r.cfg.foreignGrace))
		case d == 0:
			d = foreignBackoff(deliveries[i].count)
		}
		back = append(back, visibilityChange{handle: handle, d: d})
	}
	// Before the next receive, which would compete with the process that waits for them.
	if len(back) > 0 {
		q.settler.changeVisibility(back)
	}
	return len(all), ahead
}

func (a *arrived) answer(inPack bool) answer {
	return answer{body: a.body, envelope: a.envelope, trace: a.trace, packed: inPack}
}

// deliver gives a reply to the call that waits for it alone. It is called with the lock held.
func (q *replyQueue) deliver(a *arrived, msgs []types.Message, inPack bool) deliveryVerdict {
	r := q.r
	n := a.answer(inPack)
	if c, ok := r.pending[a.id]; ok && c.queue == q {
		return c.delivered(n)
	}
	switch {
	case r.held.wasAnswered(a.id):
		return deliveryStale
	case r.cfg.heldGrace <= 0 || a.id == "" || hasNonce(a.id, r.nonce):
		return deliveryUnknown
	}
	handle := ""
	if !inPack {
		handle = deref(msgs[a.message].ReceiptHandle)
	}
	if r.held.hold(a.id, n, q, handle, r.cfg.heldGrace, time.Now()) {
		return deliveryHeld
	}
	return deliveryUnknown
}

// stray deals with a reply that changes nothing: one of ours is late or a copy (stale: of a call that is
// pending still) and is dropped; one of another process is left in the queue while it is young, if it may be. kept reports that.
func (q *replyQueue) stray(id string, d delivery, stale, mayKeep bool) (kept bool) {
	r := q.r
	s := StrayReply{Late: stale || hasNonce(id, r.nonce), Age: d.age(&r.clock, d.local)}
	if id != "" && len(r.hooks.stray) > 0 {
		s.CallID = hashCallID(id)
	}
	switch {
	case s.Late:
		r.cfg.stats.late.Add(1)
		s.Dropped = true
	case mayKeep && id != "" && s.Age < r.cfg.foreignGrace:
		r.cfg.stats.putBack.Add(1)
	default:
		r.cfg.stats.foreign.Add(1)
		s.Dropped = true
	}
	r.hooks.onStray(s)
	return !s.Dropped
}

// missingQueue tells a deleted queue from one that is not known everywhere yet.
type missingQueue struct {
	mu    sync.Mutex
	since time.Time
}

// confirmed notes a QueueDoesNotExist at now and reports whether it confirms an earlier one.
func (m *missingQueue) confirmed(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = now
	}
	return now.Sub(m.since) >= missingConfirm
}

// seen notes that the queue answered.
func (m *missingQueue) seen() {
	m.mu.Lock()
	m.since = time.Time{}
	m.mu.Unlock()
}

// attribute returns a message attribute's text, or "".
func attribute(m *types.Message, name string) string {
	if a, ok := m.MessageAttributes[name]; ok {
		return deref(a.StringValue)
	}
	return ""
}

// newDelivery reads what SQS tells of a receive.
func newDelivery(m *types.Message, at, date time.Time) delivery {
	d := delivery{local: at, serverDate: date, count: 1}
	if len(m.Attributes) == 0 { // they were not asked for
		return d
	}
	if n, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]); err == nil {
		d.count = n
	}
	d.sent = millis(m.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)])
	d.firstReceive = millis(m.Attributes[string(types.MessageSystemAttributeNameApproximateFirstReceiveTimestamp)])
	return d
}

func millis(text string) time.Time {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
