package sqstest

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// What Save writes is lines of JSON: a header, then each queue with its messages after it. It is for Load of the same
// version of this package, and for curious eyes.
const (
	savedFormat  = "sqstest"
	savedVersion = 1
)

type savedHeader struct {
	Format       string
	Version      int
	Queues       int
	Incarnations uint64
	Gone         []savedGone `json:",omitempty"`
}

// savedGone is a deleted queue whose name is still locked.
type savedGone struct {
	Region, Account, Name string
	Deleted               int64
}

type savedQueue struct {
	Region, Account, Name string
	Incarnation           uint64
	Created, Modified     int64
	Purged                int64 `json:",omitempty"`
	Attributes            map[string]string
	Tags                  map[string]string `json:",omitempty"`
	Serial, Orders        uint64
	Sequence              uint64         `json:",omitempty"`
	Deduplication         []savedSent    `json:",omitempty"`
	Attempts              []savedAttempt `json:",omitempty"`
	Messages              int
}

// savedSent is a deduplication ID that a FIFO queue remembers.
type savedSent struct {
	Key, ID, Sequence string
	Until             int64
}

// savedAttempt is a receive attempt ID that a FIFO queue remembers, and what the receive got.
type savedAttempt struct {
	ID       string
	Until    int64
	Messages []savedReceive
}

type savedReceive struct {
	Serial, Receipt uint64
	Visible         int64
}

type savedMessage struct {
	Serial        uint64
	ID            string
	Body          string
	Attributes    attributes `json:",omitempty"`
	Trace         string     `json:",omitempty"`
	Group         string     `json:",omitempty"`
	Deduplication string     `json:",omitempty"`
	Sender        string
	Sequence      string `json:",omitempty"`
	Sent          int64
	Enqueued      int64
	FirstReceived int64  `json:",omitempty"`
	Received      int64  `json:",omitempty"`
	Receives      int    `json:",omitempty"`
	Failures      int    `json:",omitempty"`
	Receipt       uint64 `json:",omitempty"`
	Source        string `json:",omitempty"`
	Copy          bool   `json:",omitempty"`
	State         messageState
	Order         uint64
	Visible       int64 `json:",omitempty"`
}

// Save writes all queues with their messages, tags and attributes, for Load. It is a picture of one moment; requests wait
// while it is taken, and go on while it is written; until then, each message takes some 300 bytes more. Receipt handles,
// what is in flight and until when, deduplication IDs, receive attempt IDs and the locks on names of deleted queues are in
// it. Polls, message move tasks, the requests counted and the fault plan are not.
func (s *Server) Save(w io.Writer) error {
	header, queues := s.picture()
	buffered := bufio.NewWriterSize(w, 1<<16)
	lines := json.NewEncoder(buffered)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(header); err != nil {
		return err
	}
	for i := range queues {
		q := &queues[i]
		if err := lines.Encode(&q.queue); err != nil {
			return err
		}
		for j := range q.messages {
			if err := lines.Encode(saveMessage(&q.messages[j])); err != nil {
				return err
			}
		}
	}
	return buffered.Flush()
}

// pictured is a queue at the moment of the picture.
type pictured struct {
	queue    savedQueue
	messages []message
}

// picture copies everything while no queue can change.
func (s *Server) picture() (savedHeader, []pictured) {
	all := s.lockAll()
	defer unlockAll(all)
	header := savedHeader{Format: savedFormat, Version: savedVersion}
	now := s.millis()
	s.registry.mu.RLock()
	header.Incarnations = s.registry.incarnations
	for k, g := range s.registry.gone {
		if now < g.at+nameLock {
			header.Gone = append(header.Gone, savedGone{k.region, k.account, k.name, g.at})
		}
	}
	s.registry.mu.RUnlock()
	moving := s.moving.toQueues()
	out := make([]pictured, 0, len(all))
	for _, q := range all {
		if !q.deleted {
			out = append(out, q.picture(moving[q]))
		}
	}
	header.Queues = len(out)
	return header, out
}

// lockAll locks every queue there is. Nobody else holds the locks of two.
func (s *Server) lockAll() []*queue {
	for {
		before := s.registry.generation()
		all := s.registry.all()
		for _, q := range all {
			q.mu.Lock()
		}
		// A queue that was made meanwhile may have got a message that one of these lost.
		if s.registry.generation() == before {
			return all
		}
		unlockAll(all)
	}
}

func unlockAll(all []*queue) {
	for _, q := range all {
		q.mu.Unlock()
	}
}

// picture copies the queue, and the messages that are on their way to it. The queue must be locked.
func (q *queue) picture(moving []move) pictured {
	p := pictured{messages: make([]message, 0, len(q.messages)+len(moving))}
	for _, m := range q.messages {
		p.messages = append(p.messages, *m)
	}
	// By arrival: Load adds them to their groups in this order.
	slices.SortFunc(p.messages, func(a, b message) int { return cmp.Compare(a.serial, b.serial) })
	serial, orders, sequence := q.serial, q.orders, uint64(0)
	if q.fifo != nil {
		sequence = q.fifo.sequence
	}
	for _, mv := range moving {
		m := *mv.m
		serial, orders = serial+1, orders+1
		m.serial, m.order, m.receipt, m.state = serial, orders, 0, stateReady
		if m.sequence = ""; q.fifo != nil {
			sequence++
			m.sequence = sequenceNumber(sequence)
		}
		p.messages = append(p.messages, m)
	}
	p.queue = savedQueue{
		Region: q.key.region, Account: q.key.account, Name: q.key.name, Incarnation: q.incarnation,
		Created: q.created, Modified: q.modified, Purged: q.purged, Attributes: map[string]string{}, Tags: maps.Clone(q.tags),
		Serial: serial, Orders: orders, Messages: len(p.messages),
	}
	for _, name := range settableAttributes {
		if v, ok := q.settings.get(name); ok {
			p.queue.Attributes[name] = v
		}
	}
	if q.fifo != nil {
		p.queue.Sequence = sequence
		q.fifo.sent.each(func(key string, first sentRecord, until int64) {
			p.queue.Deduplication = append(p.queue.Deduplication, savedSent{key, first.id, first.sequence, until})
		})
		q.fifo.received.each(func(id string, got []attempted, until int64) {
			a := savedAttempt{ID: id, Until: until}
			for _, r := range got {
				a.Messages = append(a.Messages, savedReceive{r.serial, r.receipt, r.visible})
			}
			p.queue.Attempts = append(p.queue.Attempts, a)
		})
	}
	return p
}

func saveMessage(m *message) *savedMessage {
	out := &savedMessage{
		Serial: m.serial, ID: m.id, Body: m.body, Attributes: m.attrs, Trace: m.trace, Group: m.group, Deduplication: m.dedup,
		Sender: m.sender, Sequence: m.sequence, Sent: m.sent, Enqueued: m.enqueued, FirstReceived: m.firstReceived,
		Received: m.received, Receives: m.receives, Failures: m.failures, Receipt: m.receipt, Source: m.source,
		Copy: m.copy, State: m.state, Order: m.order,
	}
	if m.state != stateReady {
		out.Visible = m.visible
	}
	return out
}

// Load adds what Save wrote to a Server that has no queues yet. Time has passed meanwhile by the server's clock, for visibility
// timeouts, delays and retention too. After an error the Server holds nothing, and may be used. Call it before the server's
// first request.
func (s *Server) Load(r io.Reader) error {
	if len(s.registry.all()) > 0 {
		return errors.New("sqstest: Load into a server that has queues")
	}
	header, queues, err := s.read(json.NewDecoder(bufio.NewReaderSize(r, 1<<16)))
	if err != nil {
		return fmt.Errorf("sqstest: load: %w", err)
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	s.registry.incarnations, s.registry.leap = header.Incarnations, leap()
	for _, g := range header.Gone {
		s.registry.gone[queueKey{g.Region, g.Account, g.Name}] = goneQueue{at: g.Deleted}
	}
	for _, q := range queues {
		s.registry.add(q)
	}
	return nil
}

func (s *Server) read(lines *json.Decoder) (savedHeader, []*queue, error) {
	var header savedHeader
	if err := lines.Decode(&header); err != nil {
		return header, nil, err
	}
	if header.Format != savedFormat || header.Version != savedVersion {
		return header, nil, fmt.Errorf("format %q version %d, want %q version %d", header.Format, header.Version, savedFormat, savedVersion)
	}
	seen := map[queueKey]bool{}
	var queues []*queue
	for range header.Queues {
		q, err := s.readQueue(lines)
		if err != nil {
			return header, nil, err
		}
		if seen[q.key] {
			return header, nil, fmt.Errorf("queue %s is there twice", q.arn)
		}
		seen[q.key] = true
		header.Incarnations = max(header.Incarnations, q.incarnation)
		queues = append(queues, q)
	}
	if _, err := lines.Token(); !errors.Is(err, io.EOF) {
		return header, nil, errors.New("there is more after the last queue")
	}
	return header, queues, nil
}

func (s *Server) readQueue(lines *json.Decoder) (*queue, error) {
	var in savedQueue
	if err := lines.Decode(&in); err != nil {
		return nil, noEOF(err)
	}
	key := queueKey{in.Region, in.Account, in.Name}
	if err := checkQueueName(key.name, key.fifo()); err != nil {
		return nil, err
	}
	set, err := defaultSettings(key.fifo()).apply(in.Attributes)
	if err != nil {
		return nil, err
	}
	q := newQueue(s, key, in.Incarnation, set, in.Tags, in.Created)
	q.modified, q.purged, q.previous = in.Modified, in.Purged, set
	q.serial, q.orders = in.Serial, in.Orders
	for range in.Messages {
		var m savedMessage
		if err := lines.Decode(&m); err != nil {
			return nil, noEOF(err)
		}
		if err := q.restore(&m); err != nil {
			return nil, err
		}
	}
	if q.fifo != nil {
		q.fifo.sequence = in.Sequence
		for _, d := range in.Deduplication {
			q.fifo.sent.put(d.Key, sentRecord{d.ID, d.Sequence}, d.Until-dedupWindow)
		}
		for _, a := range in.Attempts {
			var got []attempted
			for _, r := range a.Messages {
				got = append(got, attempted{r.Serial, r.Receipt, r.Visible})
			}
			q.fifo.received.put(a.ID, got, a.Until-dedupWindow)
		}
	}
	// Messages that were sent after the file was written are lost; their numbers must not be given again, since whoever
	// received them has their handles.
	q.leap = leap()
	return q, nil
}

// leap is a step over the numbers that may have been given after the file was written.
func leap() uint64 { return 1<<32 | rand.Uint64()>>32 }

// noEOF makes an error of the end of a file that should go on.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// restore puts a saved message where it was.
func (q *queue) restore(in *savedMessage) error {
	switch {
	case q.messages[in.Serial] != nil || in.Serial == 0 || in.Serial > q.serial || in.Order > q.orders:
		return fmt.Errorf("message %s of %s: serial %d, order %d", in.ID, q.arn, in.Serial, in.Order)
	case in.State > stateInFlight:
		return fmt.Errorf("message %s of %s: state %d", in.ID, q.arn, in.State)
	}
	m := &message{
		serial: in.Serial, id: in.ID, body: in.Body, bodyMD5: md5Hex(in.Body), trace: in.Trace, group: in.Group,
		dedup: in.Deduplication, sender: in.Sender, sequence: in.Sequence, sent: in.Sent, enqueued: in.Enqueued,
		firstReceived: in.FirstReceived, received: in.Received, receives: in.Receives, failures: in.Failures,
		receipt: in.Receipt, leap: leap(), source: in.Source, copy: in.Copy, order: in.Order,
		placeHidden: -1, placeReady: -1, placeAge: -1,
	}
	if len(in.Attributes) > 0 {
		if err := in.Attributes.check(); err != nil {
			return err
		}
		m.attrs, m.attrsMD5 = in.Attributes, in.Attributes.digest()
	}
	q.messages[m.serial] = m
	q.age.push(m)
	if q.fifo != nil {
		q.fifo.append(m)
	} else {
		q.fair.join(m, m.sent)
	}
	if in.State != stateReady {
		q.hide(m, in.State, in.Visible)
		return nil
	}
	if q.fifo != nil {
		q.fifo.headChanged(m.group)
	} else {
		q.fair.push(m)
	}
	return nil
}

// inTransit is the messages that left a queue and have not reached the other yet: two queues are never locked at once.
type inTransit struct {
	mu    sync.Mutex
	moves map[*message]transit
	last  uint64
}

// transit is a move and its number: messages arrive in the order in which they left.
type transit struct {
	move
	number uint64
}

// add notes a message that leaves. Its old queue must still be locked.
func (t *inTransit) add(mv move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moves == nil {
		t.moves = map[*message]transit{}
	}
	t.last++
	t.moves[mv.m] = transit{mv, t.last}
}

// remove notes that a message arrived, or has nowhere to. Its new queue must still be locked, if there is one.
func (t *inTransit) remove(m *message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.moves, m)
}

func (t *inTransit) toQueues() map[*queue][]move {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[*queue][]move{}
	inOrder := slices.SortedFunc(maps.Values(t.moves), func(a, b transit) int { return cmp.Compare(a.number, b.number) })
	for _, mv := range inOrder {
		out[mv.to] = append(out[mv.to], mv.move)
	}
	return out
}
