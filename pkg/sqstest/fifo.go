package sqstest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// dedupWindow is how long a deduplication ID, and a receive request attempt ID, is remembered: five minutes (SendMessage
// and ReceiveMessage, API reference).
const dedupWindow = 5 * 60 * 1000

// fifoState is what a FIFO queue keeps besides its messages: the order within groups, and what was seen lately.
//
// A group is ready when its first message is. A receive gets the messages of a group from the first up to, and without,
// the first one that is hidden; so a message in flight locks everything behind it.
type fifoState struct {
	groups   map[string]*group
	ready    indexed[*group] // groups whose first message is ready, by that message's order: see queue.show
	sequence uint64
	sent     seen[sentRecord]
	received seen[[]attempted]
}

type group struct {
	name       string
	head, tail *message
	place      int32
}

// sentRecord is what a repeated send is answered with.
type sentRecord struct{ id, sequence string }

// attempted is one message of a receive that named its attempt.
type attempted struct {
	serial, receipt uint64
	visible         int64
}

func newFIFO() *fifoState {
	f := &fifoState{groups: map[string]*group{}}
	f.ready.less = func(a, b *group) bool { return a.head.order < b.head.order }
	f.ready.place = func(g *group) *int32 { return &g.place }
	return f
}

// nextSequence is a SequenceNumber: 20 digits, rising, not consecutive.
func (f *fifoState) nextSequence() string {
	f.sequence++
	return sequenceNumber(f.sequence)
}

func sequenceNumber(n uint64) string { return fmt.Sprintf("%020d", 10_000_000_000_000_000_000+n*256) }

// append puts a message at the end of its group.
func (f *fifoState) append(m *message) {
	g := f.groups[m.group]
	if g == nil {
		g = &group{name: m.group, place: -1}
		f.groups[m.group] = g
	}
	m.next, m.prev = nil, g.tail
	if g.tail == nil {
		g.head = m
	} else {
		g.tail.next = m
	}
	g.tail = m
}

// prepend puts a message back at the head of its group. It must be ready.
func (f *fifoState) prepend(m *message) {
	g := f.groups[m.group]
	if g == nil {
		f.append(m)
	} else {
		if f.ready.has(g) {
			f.ready.remove(g) // before its key, the head, changes
		}
		m.next, m.prev = g.head, nil
		g.head.prev, g.head = m, m
	}
	f.headChanged(m.group)
}

func (f *fifoState) remove(m *message) {
	g := f.groups[m.group]
	if g == nil {
		return
	}
	if f.ready.has(g) {
		f.ready.remove(g) // before its key, the head, changes
	}
	if m.prev == nil {
		g.head = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		g.tail = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.next, m.prev = nil, nil
	if g.head == nil {
		delete(f.groups, g.name)
		return
	}
	f.headChanged(g.name)
}

// headChanged puts a group among the ready ones, or takes it out, after a message of it changed its state.
func (f *fifoState) headChanged(name string) {
	g := f.groups[name]
	if g == nil {
		return
	}
	ready := g.head.state == stateReady
	switch {
	case ready && !f.ready.has(g):
		f.ready.push(g)
	case !ready && f.ready.has(g):
		f.ready.remove(g)
	}
}

// next is the first message of the ready group whose turn it is.
func (f *fifoState) next() *message {
	if f.ready.len() == 0 {
		return nil
	}
	return f.ready.first().head
}

// takeFIFO chooses up to limit messages: as many as possible of one group before the next ("FIFO delivery logic",
// developer guide), each group in order up to its first hidden message.
func (q *queue) takeFIFO(limit int, visibility, now int64) []delivery {
	var out []delivery
	var again []*message
	for len(out) < limit {
		m := q.fifo.next()
		if m == nil {
			break
		}
		if to := q.deadLetterFor(m); to != nil {
			q.expel(m, to, now)
			continue
		}
		// The rest of the group while it is ready: once its first message is hidden, the group is locked.
		for m != nil && m.state == stateReady && len(out) < limit && q.deadLetterFor(m) == nil {
			out = append(out, q.deliver(m, visibility, now))
			if visibility == 0 {
				again = append(again, m)
			}
			m = m.next
		}
	}
	for _, m := range again {
		q.show(m)
	}
	return out
}

// dedupKey is what makes two sends the same within the window.
func (q *queue) dedupKey(groupID, dedupID string) string {
	if q.settings.dedupScope == scopeGroup {
		return groupID + "\x00" + dedupID
	}
	return dedupID
}

// contentDedup is the deduplication ID of a body: its SHA-256 (CreateQueue, API reference).
func contentDedup(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// replay answers a receive whose attempt ID was used before: the same messages with the same handles, their visibility
// timeout started anew, if none of them was touched since. It fails when one was deleted or its visibility timeout changed
// (recorded: awslabs/amazon-sqs-java-messaging-lib#101). When their timeout has passed, the receive is a new one.
// One that asks for fewer than the first got has the first of them.
func (q *queue) replay(attempt string, limit int, visibility, now int64) ([]delivery, *apiError) {
	records, ok := q.fifo.received.get(attempt)
	if !ok {
		return nil, nil
	}
	out := make([]delivery, 0, len(records))
	for _, r := range records {
		m := q.messages[r.serial]
		switch {
		case r.visible <= now:
			return nil, nil
		case m == nil || m.receipt != r.receipt || m.state != stateInFlight || m.visible != r.visible:
			return nil, errParameter("ReceiveRequestAttemptId", attempt, "The receiveRequestAttemptId is not valid anymore since the receive call is not retryable.")
		}
		out = append(out, delivery{message: *m, handle: q.handle(m)})
	}
	out = out[:min(limit, len(out))]
	for i := range out {
		m := q.messages[out[i].serial]
		q.hide(m, stateInFlight, now+visibility)
		records[i].visible = m.visible
		m.replays++ // it is this request's now: the one before may no longer put it back
		out[i].replays = m.replays
	}
	return out, nil
}

// remember notes a receive under its attempt ID.
func (q *queue) remember(attempt string, deliveries []delivery, now int64) {
	records := make([]attempted, len(deliveries))
	for i, d := range deliveries {
		records[i] = attempted{d.serial, d.receipt, q.messages[d.serial].visible}
	}
	q.fifo.received.put(attempt, records, now)
}

// forgetAttempt makes the receive that brought a message one that nobody made.
func (f *fifoState) forgetAttempt(serial uint64) {
	for id, e := range f.received.entries {
		if slices.ContainsFunc(e.value, func(a attempted) bool { return a.serial == serial }) {
			e.value = nil
			f.received.entries[id] = e
		}
	}
}

func (f *fifoState) forget(now int64) {
	f.sent.forget(now)
	f.received.forget(now)
}

// seen is a map whose entries last for dedupWindow from the moment they were put.
type seen[V any] struct {
	entries map[string]seenEntry[V]
	queue   []seenKey // in the order put, which is the order they end in
}

type seenEntry[V any] struct {
	value V
	until int64
}

type seenKey struct {
	key   string
	until int64
}

func (s *seen[V]) get(key string) (V, bool) {
	e, ok := s.entries[key]
	return e.value, ok
}

func (s *seen[V]) put(key string, value V, now int64) {
	if s.entries == nil {
		s.entries = map[string]seenEntry[V]{}
	}
	until := now + dedupWindow
	s.entries[key] = seenEntry[V]{value, until}
	s.queue = append(s.queue, seenKey{key, until})
}

// each calls f with every entry, in the order in which they end.
func (s *seen[V]) each(f func(key string, value V, until int64)) {
	for _, k := range s.queue {
		if e, ok := s.entries[k.key]; ok && e.until == k.until {
			f(k.key, e.value, k.until)
		}
	}
}

func (s *seen[V]) forget(now int64) {
	n := 0
	for ; n < len(s.queue) && s.queue[n].until <= now; n++ {
		if k := s.queue[n]; s.entries[k.key].until == k.until {
			delete(s.entries, k.key)
		}
	}
	s.queue = s.queue[n:]
	if n > 0 && len(s.queue) == 0 {
		s.queue = nil
	}
}
