package sqstest_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The model is a plain list, looked through from end to end: everything that the server does with heaps and lists of its
// own is checked against that. It knows no order on a standard queue, as SQS promises none, and the exact one of a FIFO queue,
// that of its groups included.

const modelMaxReceives = 3

type modelMessage struct {
	body, group string
	sent        time.Time
	first       time.Time
	receives    int
	visible     time.Time
	handle      string
	received    bool // in flight, rather than delayed, while hidden
	dead        bool // in the dead-letter queue
	failures    int  // receives in the queue it is in

	handleOfDead bool // handle is from a receive on the dead-letter queue

	turn int // FIFO: groups come in the order of their first messages' turns
}

// oldHandle is a handle of a message that was received again since.
type oldHandle struct {
	of     *modelMessage
	handle string
	dead   bool // from a receive on the dead-letter queue
}

func (m *modelMessage) hidden(now time.Time) bool { return m.visible.After(now) }

// exhausted messages go to the dead-letter queue when a receive comes across them.
func (m *modelMessage) exhausted() bool { return !m.dead && m.failures >= modelMaxReceives }

type model struct {
	fifo       bool
	clock      *sqstest.ManualClock
	server     *sqstest.Server
	client     *sqs.Client
	url, dead  string
	name       string
	messages   []*modelMessage
	oldHandles []oldHandle
	serial     int
	turns      int
}

// takesTurn puts a message's group behind all others: it was sent, or is visible again after a receive.
func (m *model) takesTurn(msg *modelMessage) {
	m.turns++
	msg.turn = m.turns
}

func TestStandardQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newModel(t, false).run(t) })
}

func TestFIFOQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newModel(t, true).run(t) })
}

func newModel(t *rapid.T, fifo bool) *model {
	m := &model{fifo: fifo, name: "q", clock: sqstest.NewManualClock(time.Unix(1_800_000_000, 0))}
	m.server = sqstest.New(sqstest.WithClock(m.clock))
	m.client = m.server.Client()
	attributes := map[string]string{"VisibilityTimeout": "30"}
	deadName := "dead"
	if fifo {
		m.name, deadName = "q.fifo", "dead.fifo"
		attributes["FifoQueue"] = "true"
	}
	m.dead = m.create(t, deadName, attributes)
	attributes["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:%s","maxReceiveCount":%d}`, deadName, modelMaxReceives)
	m.url = m.create(t, m.name, attributes)
	return m
}

func (m *model) create(t *rapid.T, name string, attributes map[string]string) string {
	out, err := m.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return *out.QueueUrl
}

func (m *model) run(t *rapid.T) {
	t.Repeat(map[string]func(*rapid.T){
		"send":       m.send,
		"receive":    func(t *rapid.T) { m.receive(t, m.url, false) },
		"receive dl": func(t *rapid.T) { m.receive(t, m.dead, true) },
		"delete":     m.delete,
		"delete old": m.deleteOld,
		"visibility": m.changeVisibility,
		"time":       m.pass,
		"":           m.check,
	})
}

func (m *model) send(t *rapid.T) {
	m.serial++
	msg := &modelMessage{body: strconv.Itoa(m.serial), sent: m.clock.Now(), visible: m.clock.Now()}
	in := &sqs.SendMessageInput{QueueUrl: &m.url, MessageBody: &msg.body}
	if m.fifo {
		msg.group = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "group")
		in.MessageGroupId, in.MessageDeduplicationId = &msg.group, &msg.body
	} else {
		in.DelaySeconds = rapid.SampledFrom([]int32{0, 0, 5, 40}).Draw(t, "delay")
		msg.visible = msg.sent.Add(time.Duration(in.DelaySeconds) * time.Second)
		if msg.group = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant"); msg.group != "" {
			in.MessageGroupId = &msg.group
		}
	}
	if _, err := m.client.SendMessage(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	m.takesTurn(msg)
	m.messages = append(m.messages, msg)
}

// nextGroup is, on a FIFO queue, the messages that can be had of the group whose turn it is, exhausted ones included.
func (m *model) nextGroup(dead bool, taken map[*modelMessage]bool) []*modelMessage {
	now := m.clock.Now()
	heads := map[string]*modelMessage{}
	var first *modelMessage
	for _, msg := range m.messages {
		if msg.dead != dead || heads[msg.group] != nil {
			continue
		}
		heads[msg.group] = msg
		if !msg.hidden(now) && !taken[msg] && (first == nil || msg.turn < first.turn) {
			first = msg
		}
	}
	var out []*modelMessage
	for _, msg := range m.messages {
		if first == nil || msg.dead != dead || msg.group != first.group {
			continue
		}
		if msg.hidden(now) {
			break
		}
		out = append(out, msg)
	}
	return out
}

// expected is what a receive on a FIFO queue gets, to the letter. Exhausted messages at a group's head move on the way.
func (m *model) expected(dead bool, limit int) (out []string) {
	taken := map[*modelMessage]bool{}
	for len(out) < limit {
		group := m.nextGroup(dead, taken)
		if len(group) == 0 {
			return out
		}
		if group[0].exhausted() {
			group[0].toDeadLetter()
			m.takesTurn(group[0])
			continue
		}
		for _, msg := range group {
			if len(out) == limit || msg.exhausted() {
				break
			}
			taken[msg] = true
			out = append(out, msg.body)
		}
	}
	return out
}

func (m *model) receive(t *rapid.T, url string, dead bool) {
	limit := rapid.Int32Range(1, 10).Draw(t, "max")
	timeout := rapid.SampledFrom([]int32{1, 10, 30, 60}).Draw(t, "timeout")
	out, err := m.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: limit, VisibilityTimeout: timeout,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	now := m.clock.Now()
	if m.fifo {
		var bodies []string
		for _, got := range out.Messages {
			bodies = append(bodies, *got.Body)
		}
		if want := m.expected(dead, int(limit)); !slices.Equal(bodies, want) {
			t.Fatalf("received %v, want %v", bodies, want)
		}
	}
	for i, got := range out.Messages {
		msg := m.find(*got.Body)
		switch {
		case msg == nil:
			t.Fatalf("%q is not in the queue", *got.Body)
		case dead && !msg.dead && msg.exhausted():
			msg.toDeadLetter() // an earlier receive on the source came across it
		case msg.dead != dead:
			t.Fatalf("%q came from the wrong queue", *got.Body)
		}
		switch {
		case msg.hidden(now):
			t.Fatalf("%q is hidden until %v", msg.body, msg.visible)
		case msg.exhausted():
			t.Fatalf("%q was delivered once more, after %d receives", msg.body, msg.failures)
		case m.fifo && m.blocked(msg, now, out.Messages[:i]):
			t.Fatalf("%q came while its group was locked", msg.body)
		case m.fifo && m.overtakes(msg, out.Messages[:i]):
			t.Fatalf("%q came before an earlier message of its group", msg.body)
		}
		msg.receives++
		msg.failures++
		if msg.first.IsZero() {
			msg.first = now
		}
		msg.visible, msg.received = now.Add(time.Duration(timeout)*time.Second), true
		if msg.handle != "" {
			m.oldHandles = append(m.oldHandles, oldHandle{msg, msg.handle, msg.handleOfDead})
		}
		msg.handle, msg.handleOfDead = *got.ReceiptHandle, dead
		want(t, msg.body+" count", got.Attributes["ApproximateReceiveCount"], strconv.Itoa(msg.receives))
		want(t, msg.body+" first", got.Attributes["ApproximateFirstReceiveTimestamp"], strconv.FormatInt(msg.first.UnixMilli(), 10))
		want(t, msg.body+" sent", got.Attributes["SentTimestamp"], strconv.FormatInt(msg.sent.UnixMilli(), 10))
		if _, marked := got.Attributes["DeadLetterQueueSourceArn"]; marked != dead {
			t.Fatalf("%q: dead %v, marked %v", msg.body, dead, marked)
		}
	}
	if len(out.Messages) == int(limit) {
		return
	}
	// The receive went through everything: nothing that could be had may be left.
	for _, msg := range m.messages {
		if msg.dead == dead && !msg.hidden(now) && !msg.exhausted() && (!m.fifo || !m.blocked(msg, now, nil)) {
			t.Fatalf("%q was not received (%d of %d)", msg.body, len(out.Messages), limit)
		}
	}
	if dead {
		return
	}
	for _, msg := range m.messages {
		if msg.exhausted() && !msg.hidden(now) && (!m.fifo || !m.blocked(msg, now, nil)) {
			msg.toDeadLetter()
		}
	}
}

func (m *modelMessage) toDeadLetter() { m.dead, m.failures = true, 0 }

// blocked reports whether an earlier message of the group is hidden, other than by this receive.
func (m *model) blocked(msg *modelMessage, now time.Time, same []types.Message) bool {
	for _, other := range m.messages {
		if other == msg {
			return false
		}
		if other.group != msg.group || other.dead != msg.dead || !other.hidden(now) {
			continue
		}
		if !slices.ContainsFunc(same, func(s types.Message) bool { return *s.Body == other.body }) {
			return true
		}
	}
	return false
}

// overtakes reports whether a message of the group that could be had was passed over.
func (m *model) overtakes(msg *modelMessage, before []types.Message) bool {
	for _, other := range m.messages {
		if other == msg {
			return false
		}
		if other.group == msg.group && other.dead == msg.dead && !other.exhausted() &&
			!slices.ContainsFunc(before, func(s types.Message) bool { return *s.Body == other.body }) {
			return true
		}
	}
	return false
}

func (m *model) find(body string) *modelMessage {
	for _, msg := range m.messages {
		if msg.body == body {
			return msg
		}
	}
	return nil
}

func (m *model) someReceived(t *rapid.T) *modelMessage {
	var some []*modelMessage
	for _, msg := range m.messages {
		if msg.handle != "" && !msg.exhausted() {
			some = append(some, msg)
		}
	}
	if len(some) == 0 {
		t.Skip("nothing was received")
	}
	return rapid.SampledFrom(some).Draw(t, "message")
}

func (m *model) urlOf(msg *modelMessage) *string {
	if msg.dead {
		return &m.dead
	}
	return &m.url
}

func (m *model) delete(t *rapid.T) {
	msg := m.someReceived(t)
	if msg.dead && msg.failures == 0 {
		t.Skip("its handle is the source's")
	}
	_, err := m.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: m.urlOf(msg), ReceiptHandle: &msg.handle})
	if m.fifo && !msg.hidden(m.clock.Now()) {
		if err == nil {
			t.Fatalf("%q was deleted after its timeout", msg.body)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.messages = slices.DeleteFunc(m.messages, func(other *modelMessage) bool { return other == msg })
}

// deleteOld uses a handle that a later receive has replaced: on a standard queue it still deletes the message, if that
// is still in the queue that it was received from.
func (m *model) deleteOld(t *rapid.T) {
	if len(m.oldHandles) == 0 {
		t.Skip("no old handles")
	}
	old := rapid.SampledFrom(m.oldHandles).Draw(t, "handle")
	if old.of.exhausted() {
		t.Skip("it is open which queue holds the message")
	}
	for dead, url := range map[bool]string{false: m.url, true: m.dead} {
		_, err := m.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: &old.handle})
		switch {
		case dead != old.dead && !isA[*types.ReceiptHandleIsInvalid](err):
			t.Fatalf("a handle of another queue: %v", err)
		case dead == old.dead && !m.fifo && err != nil:
			t.Fatal(err)
		}
	}
	if !m.fifo && old.of.dead == old.dead {
		m.messages = slices.DeleteFunc(m.messages, func(other *modelMessage) bool { return other == old.of })
	}
}

func (m *model) changeVisibility(t *rapid.T) {
	msg := m.someReceived(t)
	if msg.dead && msg.failures == 0 || m.fifo && !msg.hidden(m.clock.Now()) {
		t.Skip("not in flight")
	}
	timeout := rapid.SampledFrom([]int32{0, 5, 100}).Draw(t, "timeout")
	if _, err := m.client.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{
		QueueUrl: m.urlOf(msg), ReceiptHandle: &msg.handle, VisibilityTimeout: timeout,
	}); err != nil {
		t.Fatal(err)
	}
	msg.visible = m.clock.Now().Add(time.Duration(timeout) * time.Second)
	if timeout == 0 {
		m.takesTurn(msg)
	}
}

// nextShown is in how many milliseconds the first hidden message is visible; 0 when none is hidden.
func (m *model) nextShown(now time.Time) int {
	next := 0
	for _, msg := range m.messages {
		if d := int(msg.visible.Sub(now).Milliseconds()); msg.hidden(now) && (next == 0 || d < next) {
			next = d
		}
	}
	return next
}

func (m *model) pass(t *rapid.T) {
	before := m.clock.Now()
	ms := rapid.IntRange(1, 20_000).Draw(t, "ms")
	if hidden := m.nextShown(before); hidden > 0 && rapid.Bool().Draw(t, "to the boundary") {
		ms = max(1, hidden+rapid.IntRange(-1, 1).Draw(t, "off by"))
	}
	m.clock.Advance(time.Duration(ms) * time.Millisecond)
	var shown []*modelMessage
	for _, msg := range m.messages {
		if msg.hidden(before) && !msg.hidden(m.clock.Now()) {
			shown = append(shown, msg)
		}
	}
	slices.SortFunc(shown, func(a, b *modelMessage) int {
		return cmp.Or(a.visible.Compare(b.visible), cmp.Compare(a.turn, b.turn))
	})
	for _, msg := range shown {
		m.takesTurn(msg)
	}
}

// check compares the counts: how many are visible, in flight and delayed.
func (m *model) check(t *rapid.T) {
	var visible, inFlight, delayed int
	for _, msg := range m.messages {
		switch {
		case !msg.hidden(m.clock.Now()):
			visible++
		case msg.received:
			inFlight++
		default:
			delayed++
		}
	}
	q, _ := m.server.Queue(m.name)
	d, _ := m.server.Queue(map[bool]string{false: "dead", true: "dead.fifo"}[m.fifo])
	// Between two receives it is open which queue holds an exhausted message, so the queues are counted together.
	want(t, "visible", q.Visible+d.Visible, visible)
	want(t, "in flight", q.InFlight+d.InFlight, inFlight)
	want(t, "delayed", q.Delayed+d.Delayed, delayed)
}

func want[T comparable](t *rapid.T, what string, got, want T) {
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
