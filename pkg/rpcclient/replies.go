package rpcclient

import (
	"context"
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
	// foreignBackoffLimit bounds how long another process's reply is hidden at a time.
	foreignBackoffLimit = 8 * time.Second
)

// poll makes one receive from the reply queue and hands each reply to its call.
func (q *replyQueue) poll(ctx context.Context) (full bool, err error) {
	r := q.r
	msgs, at, date, err := r.api.receive(ctx, longPoll{
		queueURL: q.url, attributes: replyAttributes, system: systemAttributes,
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
	q.dispatch(msgs, at, date)
	return len(msgs) == maxBatch, nil
}

// dispatch delivers what calls wait for, and deals with the rest. A call is removed from the pending
// map before its answer is sent, so that the first reply wins and any other is a stray.
func (q *replyQueue) dispatch(msgs []types.Message, at, date time.Time) {
	r := q.r
	var waiting [maxBatch]*call
	var ids [maxBatch]string
	for i := range msgs {
		ids[i] = attribute(&msgs[i], attributeVirtualQueue)
	}
	r.mu.Lock()
	for i := range msgs {
		if c, ok := r.pending[ids[i]]; ok && c.queue == q {
			r.forget(c)
			waiting[i] = c
		}
	}
	r.mu.Unlock()

	var back []visibilityChange
	for i := range msgs {
		m := &msgs[i]
		d := newDelivery(m, at, date)
		if d.count == 1 && !d.firstReceive.IsZero() {
			r.clock.observe(d.firstReceive, at)
		}
		if c := waiting[i]; c != nil {
			c.done <- answer{body: deref(m.Body), envelope: attribute(m, attributeEnvelope)}
			q.settler.delete(deref(m.ReceiptHandle))
			continue
		}
		if change, ok := q.stray(m, ids[i], d); ok {
			back = append(back, change)
		}
	}
	if len(back) > 0 {
		r.wg.Go(func() { q.settler.changeVisibility(back) })
	}
}

// stray deals with a reply that no call waits for: one of ours is late or a copy and is deleted; one of
// another process is put back while it is young.
func (q *replyQueue) stray(m *types.Message, id string, d delivery) (back visibilityChange, ok bool) {
	r := q.r
	s := StrayReply{Late: hasNonce(id, r.nonce), Age: d.age(&r.clock, d.local)}
	if id != "" && len(r.hooks.stray) > 0 {
		s.CallID = hashCallID(id)
	}
	switch {
	case s.Late:
		r.cfg.stats.late.Add(1)
		s.Dropped = true
	case id != "" && s.Age < r.cfg.foreignGrace:
		r.cfg.stats.putBack.Add(1)
		back = visibilityChange{
			handle: deref(m.ReceiptHandle),
			d:      min(foreignBackoffLimit, time.Second<<min(max(d.count-1, 0), 10)),
		}
	default:
		r.cfg.stats.foreign.Add(1)
		s.Dropped = true
	}
	if s.Dropped {
		q.settler.delete(deref(m.ReceiptHandle))
	}
	r.hooks.onStray(s)
	return back, !s.Dropped
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
