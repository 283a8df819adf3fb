package sqstest

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"time"
)

// queueKey is what makes a queue's identity on AWS.
type queueKey struct{ region, account, name string }

func (k queueKey) arn() string { return "arn:aws:sqs:" + k.region + ":" + k.account + ":" + k.name }

func (k queueKey) fifo() bool { return strings.HasSuffix(k.name, ".fifo") }

// queue is one queue and everything in it. Time passes in it only when somebody looks: every entry point first calls
// settle, which makes visible what is due and drops what is too old. While long polls wait, and only then, a timer of
// the server's clock does the looking.
//
// Locks: a queue's lock may be held while taking the registry's, never the other way round, and never two queues' at once.
type queue struct {
	server      *Server
	key         queueKey
	arn         string
	incarnation uint64 // of this name: a receipt handle of an earlier queue is not one of this
	created     int64  // milliseconds

	mu       sync.Mutex
	deleted  bool
	modified int64
	settings settings
	previous settings // before the last change, for reads that lag
	tags     map[string]string
	// The tags before the last change, and when that was; 0 for never.
	previousTags map[string]string
	tagged       int64
	purged       int64 // milliseconds of the last purge, 0 for never

	serial   uint64
	leap     uint64 // what the next serial is higher by, after Load
	orders   uint64
	messages map[uint64]*message
	hidden   indexed[*message] // delayed and in flight, by the time they become visible
	fair     *fairState        // what is ready on a standard queue; nil for a FIFO queue
	age      indexed[*message] // all, by the time retention counts from
	delayed  int
	inFlight int
	fifo     *fifoState // nil for a standard queue
	looked   int64      // when settle was last called

	seen counted // for reads that lag

	waiters waiterList
	wake    Timer // fires at wakeAt, while somebody waits
	wakeAt  int64
	moves   []move // found beyond repair while the lock was held; see unlock
}

// move is a message on its way to a dead-letter queue.
type move struct {
	m  *message
	to *queue
}

func newQueue(s *Server, key queueKey, incarnation uint64, set settings, tags map[string]string, now int64) *queue {
	q := &queue{
		server: s, key: key, arn: key.arn(), incarnation: incarnation,
		created: now, modified: now, settings: set, tags: tags,
		messages: map[uint64]*message{},
	}
	q.hidden.less = func(a, b *message) bool {
		return a.visible < b.visible || a.visible == b.visible && a.order < b.order
	}
	q.hidden.place = func(m *message) *int32 { return &m.placeHidden }
	q.age.less = func(a, b *message) bool { return a.enqueued < b.enqueued }
	q.age.place = func(m *message) *int32 { return &m.placeAge }
	if set.fifo {
		q.fifo = newFIFO()
	} else {
		q.fair = newFair()
	}
	return q
}

// lock takes the queue's lock and brings it up to date. It fails on a queue that was deleted meanwhile.
func (q *queue) lock() (now int64, err *apiError) {
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return 0, errNoQueue()
	}
	now = q.server.millis()
	q.settle(now)
	return now, nil
}

// unlock gives up the lock, and hands over what has to go to dead-letter queues, whose locks must not be taken under it.
func (q *queue) unlock() {
	if q.waiters.len > 0 && !q.deleted {
		q.serve(q.server.millis())
	}
	moves := q.moves
	q.moves = nil
	q.arm()
	q.note(q.looked)
	q.mu.Unlock()
	for _, mv := range moves {
		mv.to.takeIn(mv.m)
	}
}

// settle makes visible what is due, forgets what is older than the retention period, and serves those who wait.
func (q *queue) settle(now int64) {
	q.noteFirst()
	q.looked = now
	for q.hidden.len() > 0 && q.hidden.first().visible <= now {
		q.show(q.hidden.first())
	}
	retention := int64(q.settings.retention) * 1000
	for q.age.len() > 0 && q.age.first().enqueued+retention <= now {
		q.remove(q.age.first())
	}
	if q.fifo != nil {
		q.fifo.forget(now)
	}
	q.serve(now)
}

// show makes a hidden message ready. In a FIFO queue, a group that becomes available again after a receive goes behind those
// that are ready, as if its message had just been sent (recorded: LocalStack's tests of zero, terminated, changed and
// shared visibility timeouts, which AWS passes); so a group that is never done does not keep the others waiting. One that a
// delete unlocks has the place of its next message (recorded: test_fifo_message_group_visibility_after_delete).
func (q *queue) show(m *message) {
	if q.fifo != nil && m.state == stateInFlight {
		q.hidden.remove(m) // before its key changes
		q.orders++
		m.order = q.orders
		q.hidden.push(m)
	}
	q.reveal(m)
}

// reveal is show with the message in its old place.
func (q *queue) reveal(m *message) {
	q.touch()
	q.hidden.remove(m)
	q.uncount(m)
	q.processed(m)
	m.state = stateReady
	q.enterReady(m)
}

func (q *queue) enterReady(m *message) {
	if q.fifo != nil {
		q.fifo.headChanged(m.group)
		return
	}
	// A message that failed three times goes to the back, so that poison does not keep the rest waiting ("standard
	// queues", developer guide).
	if m.failures >= 3 {
		q.orders++
		m.order = q.orders
	}
	q.fair.push(m)
}

// hide takes a message out of the ready ones until the given time.
func (q *queue) hide(m *message, state messageState, until int64) {
	q.touch()
	if m.state != stateReady {
		q.hidden.remove(m)
		q.uncount(m)
	} else if m.placeReady >= 0 {
		q.fair.remove(m)
	}
	m.state, m.visible = state, until
	switch state {
	case stateDelayed:
		q.delayed++
	case stateInFlight:
		q.inFlight++
		if m.tenant != nil {
			m.tenant.inFlight++
		}
	}
	q.hidden.push(m)
	if q.fifo != nil {
		q.fifo.headChanged(m.group)
	}
}

func (q *queue) uncount(m *message) {
	switch m.state {
	case stateDelayed:
		q.delayed--
	case stateInFlight:
		q.inFlight--
		if m.tenant != nil {
			m.tenant.inFlight--
		}
	}
}

// processed tells the fair queue how long a message that is in flight no more was so.
func (q *queue) processed(m *message) {
	if q.fair != nil && m.state == stateInFlight {
		q.fair.processed(m, min(m.visible, q.looked)-m.received, q.looked)
	}
}

// add puts a message in, hidden for delay milliseconds. The message's order is set here; q must be locked.
func (q *queue) add(m *message, now, delay int64) {
	q.touch()
	q.serial += 1 + q.leap
	q.leap = 0
	q.orders++
	m.serial, m.order = q.serial, q.orders
	m.receipt = 0
	m.state = stateReady
	m.placeHidden, m.placeReady, m.placeAge = -1, -1, -1
	q.messages[m.serial] = m
	q.age.push(m)
	if q.fifo != nil {
		m.sequence = q.fifo.nextSequence()
		q.fifo.append(m)
	} else {
		q.fair.join(m, now)
	}
	if delay > 0 {
		q.hide(m, stateDelayed, now+delay)
		return
	}
	q.enterReady(m)
}

// remove forgets a message wherever it is.
func (q *queue) remove(m *message) {
	q.touch()
	delete(q.messages, m.serial)
	q.age.remove(m)
	if q.hidden.has(m) {
		q.hidden.remove(m)
		q.uncount(m)
		q.processed(m)
	}
	if q.fifo != nil {
		q.fifo.remove(m)
		return
	}
	if m.placeReady >= 0 {
		q.fair.remove(m)
	}
	q.fair.leave(m)
}

// take chooses up to limit messages, and hides them for the visibility timeout (milliseconds). Messages that have used up
// their receives leave for the dead-letter queue instead.
func (q *queue) take(limit int, visibility, now int64) []delivery {
	limit = min(limit, maxInFlight-q.inFlight)
	if q.fifo != nil {
		return q.takeFIFO(limit, visibility, now)
	}
	out := make([]delivery, 0, max(0, min(limit, q.visibleCount())))
	var again []*message // chosen, and still to be had by the next receive
	type late struct {
		m     *message
		delay int64
	}
	var copies []late
	for len(out) < limit {
		m := q.fair.next(q.inFlight, now)
		if m == nil {
			break
		}
		if to := q.deadLetterFor(m); to != nil {
			q.expel(m, to, now)
			continue
		}
		if c, delay := q.server.faults.duplicate(q.key.name, m); c != nil {
			copies = append(copies, late{c, delay})
		}
		out = append(out, q.deliver(m, visibility, now))
		if visibility == 0 {
			again = append(again, m)
		}
	}
	for _, m := range again {
		q.show(m)
	}
	for _, c := range copies {
		q.add(c.m, now, c.delay)
	}
	return out
}

// deliver counts a receive of a ready message and hides it.
func (q *queue) deliver(m *message, visibility, now int64) delivery {
	m.receives++
	m.failures++
	m.receipt += 1 + m.leap
	m.leap = 0
	m.received = now
	if m.firstReceived == 0 {
		m.firstReceived = now
	}
	q.hide(m, stateInFlight, now+visibility)
	return delivery{message: *m, handle: q.handle(m)}
}

// delivery is a message as it was at the moment a receive chose it.
type delivery struct {
	message
	handle string
}

// putBack undoes a take whose receiver went away before it could be answered.
func (q *queue) putBack(deliveries []delivery) {
	for _, d := range deliveries {
		m := q.messages[d.serial]
		if m == nil || m.receipt != d.receipt || m.replays != d.replays || m.state != stateInFlight {
			continue
		}
		if q.fifo != nil {
			q.fifo.forgetAttempt(d.serial)
		}
		m.receives--
		m.failures--
		if m.receives == 0 {
			m.firstReceived = 0
		}
		q.reveal(m)
	}
}

// deadLetterFor is where a message goes instead of being delivered once more, or nil.
func (q *queue) deadLetterFor(m *message) *queue {
	r := q.settings.redrive
	if r == nil || m.failures < r.maxReceives {
		return nil
	}
	to := q.server.registry.byARN(r.target)
	if to == q {
		// AWS takes a queue as its own dead-letter queue (recorded: LocalStack's test_set_empty_redrive_policy). The message
		// goes from here to here: it stays.
		return nil
	}
	return to
}

// expel sends a message to its dead-letter queue, where it arrives with unlock. The receive count goes on there, the
// first-receive time too.
func (q *queue) expel(m *message, to *queue, now int64) {
	q.remove(m)
	m.failures, m.source = 0, q.arn
	if q.fifo != nil {
		// "For FIFO queues, the enqueue timestamp resets when the message is moved" (dead-letter queues, developer guide); and
		// the deduplication ID becomes the message's ID, so that two messages that share one, minutes apart, can both be
		// there (dead-letter queue redrive, developer guide; recorded: awsdocs/amazon-sqs-developer-guide#54).
		m.enqueued, m.dedup = now, m.id
	}
	mv := move{m, to}
	q.moves = append(q.moves, mv)
	q.server.moving.add(mv)
}

// takeIn receives a message that another queue expelled.
func (q *queue) takeIn(m *message) {
	q.mu.Lock()
	q.server.moving.remove(m)
	if q.deleted {
		// Deleted between the choice and the move: the message has nowhere to be.
		q.mu.Unlock()
		return
	}
	now := q.server.millis()
	q.settle(now) // earlier comers first
	q.add(m, now, 0)
	q.unlock()
}

// takeBack puts a message where it was that left as the first to be received, and could not arrive.
func (q *queue) takeBack(m *message) {
	now, err := q.lock()
	if err != nil {
		return
	}
	q.touch()
	q.messages[m.serial] = m
	q.age.push(m)
	if q.fifo != nil {
		q.fifo.prepend(m)
	} else {
		q.fair.join(m, now)
		q.fair.push(m)
	}
	q.unlock()
}

// close ends the queue: those who wait are told, and the messages are gone.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noteFirst()
	q.deleted = true
	for w := q.waiters.pop(); w != nil; w = q.waiters.pop() {
		w.answer(polled{err: errNoQueue()})
	}
	q.arm()
	q.messages = nil
	q.forgetMessages()
	if q.fifo != nil {
		sequence := q.fifo.sequence // goes on for what is sent and lost: see LostSends
		q.fifo = newFIFO()
		q.fifo.sequence = sequence
	}
}

// forgetMessages empties what lists messages by state.
func (q *queue) forgetMessages() {
	q.hidden.items, q.age.items = nil, nil
	q.delayed, q.inFlight = 0, 0
	if q.fair != nil {
		q.fair = newFair()
	}
}

// clear drops all messages, as PurgeQueue does.
func (q *queue) clear() {
	q.messages = map[uint64]*message{}
	q.forgetMessages()
	if q.fifo != nil {
		sequence := q.fifo.sequence
		q.fifo = newFIFO()
		q.fifo.sequence = sequence
	}
}

func (q *queue) visibleCount() int { return len(q.messages) - q.delayed - q.inFlight }

// touch notes that the queue changes: see Server.Revision.
func (q *queue) touch() { q.server.revision.Add(1) }

// newMessageID is a random UUID, as SQS's are.
func newMessageID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	out[8] = '-'
	hex.Encode(out[9:13], b[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], b[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], b[8:10])
	out[23] = '-'
	hex.Encode(out[24:], b[10:])
	return string(out[:])
}

// handle is the receipt handle of the message's latest receive.
func (q *queue) handle(m *message) string {
	return encodeHandle(q.incarnation, m.serial, m.receipt)
}

// next is when time will change what can be received: a message becomes visible, or one grows too old, which unlocks its
// FIFO group, or makes room in flight. It is 0 for never.
func (q *queue) next() int64 {
	if q.hidden.len() == 0 {
		return 0
	}
	return min(q.hidden.first().visible, q.age.first().enqueued+int64(q.settings.retention)*1000)
}

// arm sets the timer for what time brings while somebody waits for a message, and stops it otherwise.
func (q *queue) arm() {
	var at int64
	if q.waiters.len > 0 && !q.deleted {
		at = q.next()
	}
	if at == q.wakeAt && (q.wake != nil) == (at != 0) {
		return
	}
	if q.wake != nil {
		q.wake.Stop()
		q.wake = nil
	}
	q.wakeAt = at
	if at == 0 {
		return
	}
	delay := time.UnixMilli(at).Sub(q.server.clock.Now())
	q.wake = q.server.clock.AfterFunc(max(delay, 0), func() { q.awake(at) })
}

func (q *queue) awake(at int64) {
	q.mu.Lock()
	if q.deleted || q.wakeAt != at {
		q.mu.Unlock()
		return
	}
	q.wake, q.wakeAt = nil, 0
	q.settle(q.server.millis())
	q.unlock()
}
