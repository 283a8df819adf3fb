package rpcclient

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// failoverSuffix is what the Java client appends to a lost reply queue's name.
const failoverSuffix = "-Failover"

// replyContent is a reply without its destination, as it is kept in the reply cache.
type replyContent struct {
	body     string
	envelope string // empty: a Java or plain reply
	virtual  string // empty: no QueueName attribute
	trace    string // empty: no trace context
}

func (c replyContent) bytes() int {
	n := len(c.body)
	if c.envelope != "" {
		n += messageSize(attributeEnvelope, dataTypeString, c.envelope)
	}
	if c.virtual != "" {
		n += messageSize(attributeVirtualQueue, dataTypeString, c.virtual)
	}
	if c.trace != "" {
		n += messageSize(TraceParent, dataTypeString, c.trace)
	}
	return n
}

// packedEnvelope is the envelope for a line of a pack, which has no attributes of its own: it carries the
// trace context too.
func (c *replyContent) packedEnvelope() string {
	if c.trace == "" {
		return c.envelope
	}
	env, err := parseReplyEnvelope(c.envelope)
	if err != nil {
		return c.envelope
	}
	if env.Code == OK {
		env.Code = ""
	}
	env.Metadata = joinTrace(maps.Clone(env.Metadata), c.trace)
	text, err := marshalEnvelope(&env)
	if err != nil {
		return c.envelope
	}
	return text
}

// answerContent renders a handler's answer in the form its requester understands.
func answerContent(q *request, payload []byte) replyContent {
	body, encoding := encodeBody(payload)
	c := replyContent{body: body, virtual: q.to.virtual}
	if !q.native {
		return c
	}
	env := replyEnvelope{Kind: kindReply, Version: protocolVersion, Encoding: encoding, End: 1}
	if q.info.Codec != JSON.Name() && q.run == "" {
		env.Codec = q.info.Codec
	}
	c.trace = q.complete(&env)
	if text, ok := plainReplyText(&env); ok {
		c.envelope = text
		return c
	}
	c.envelope, _ = marshalEnvelope(&env) // of plain fields: cannot fail
	return c
}

// frameContent renders one reply of a stream, which is not its end.
func frameContent(q *request, payload []byte) replyContent {
	body, encoding := encodeBody(payload)
	env := replyEnvelope{Kind: kindReply, Version: protocolVersion, Encoding: encoding, Run: q.run, Sequence: q.sent}
	if q.info.Codec != JSON.Name() {
		env.Codec = q.info.Codec
	}
	c := replyContent{body: body, virtual: q.to.virtual}
	c.trace = q.complete(&env)
	c.envelope, _ = marshalEnvelope(&env)
	return c
}

// complete fills in what every native reply of a request carries, and returns the trace context to send
// beside it.
func (q *request) complete(env *replyEnvelope) (trace string) {
	env.Metadata = q.serving.metadata.take(env.End > 0)
	env.Metadata, trace = splitTrace(env.Metadata)
	if !isXMLText(trace) {
		trace = ""
	}
	if attempt := max(q.info.Attempt, q.answers); attempt > 1 {
		env.Attempt = attempt
	}
	env.Uncertain = env.Rejected && (q.uncertain || q.info.ReceiveCount > 1)
	if q.run != "" && env.End > 0 && !env.Rejected {
		env.Run, env.Sequence, env.End = q.run, q.sent, q.sent+1
	}
	return trace
}

// errorContent renders an error. The body of a native one is empty; a Java or plain requester, which
// gets one only by configuration, reads the text in the body and may read the attribute.
func errorContent(q *request, err error, rejected bool) replyContent {
	e := asError(err)
	env := newErrorEnvelope(e, rejected)
	c := replyContent{virtual: q.to.virtual, body: emptyBody}
	if q.native {
		c.trace = q.complete(&env)
	} else {
		if text := cutUTF8(e.Error(), maxMessageBytes); isXMLText(text) {
			c.body = text
		}
		env.Encoding = encodingText
	}
	text, err := marshalEnvelope(&env)
	if err != nil { // a detail that is valid JSON by itself cannot break the whole, but be safe
		env.Details = nil
		text, _ = marshalEnvelope(&env)
	}
	c.envelope = text
	return c
}

// asError gives any error a code. Of an *Error that is wrapped it keeps the wrapping's text too.
func asError(err error) *Error {
	switch e := errorAs(err); {
	case e != nil && error(e) != err: //nolint:errorlint // whether it is wrapped is the question
		outer := *e
		outer.Message = strings.Replace(err.Error(), e.Error(), e.Message, 1) // the code and this side's outcome are no part of the text
		return &outer
	case e != nil:
		return e
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errDeadline):
		return &Error{Code: DeadlineExceeded, Message: err.Error()}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: err.Error()}
	default:
		return &Error{Code: Unknown, Message: err.Error()}
	}
}

// replyMessage is a reply on its way.
type replyMessage struct {
	to         returnAddress
	content    replyContent
	reserve    int
	deadline   time.Time // zero: none known
	pack       bool      // the requester takes packed replies
	packed     string    // the line of a pack, once rendered
	failedOver bool
	replaced   bool // by an error, since SQS does not take it
	last       bool // its request is deleted: nothing sends it again
	out        outgoing
	done       func(err error)
}

func (m *replyMessage) size() int { return m.content.bytes() + m.reserve }

func (m *replyMessage) entry(now time.Time) (types.SendMessageBatchRequestEntry, bool) {
	if m.expired(now) {
		return types.SendMessageBatchRequestEntry{}, false
	}
	e := types.SendMessageBatchRequestEntry{MessageBody: &m.content.body}
	if m.content.envelope != "" || m.content.virtual != "" {
		e.MessageAttributes = make(map[string]types.MessageAttributeValue, 3)
	}
	if m.content.envelope != "" && !isImplied(m.content.envelope) {
		e.MessageAttributes[attributeEnvelope] = textAttribute(&m.content.envelope)
	}
	if m.content.virtual != "" {
		e.MessageAttributes[attributeVirtualQueue] = textAttribute(&m.content.virtual)
	}
	if m.content.trace != "" {
		e.MessageAttributes[TraceParent] = textAttribute(&m.content.trace)
	}
	return e, true
}

func (m *replyMessage) sent(err error, _ bool) { m.done(err) }

func (m *replyMessage) patient() bool { return m.last }

func (m *replyMessage) expired(now time.Time) bool {
	return !m.deadline.IsZero() && now.After(m.deadline)
}

func (m *replyMessage) packKey() string {
	if !m.pack {
		return ""
	}
	return packKey(m.content.virtual)
}

func (m *replyMessage) line() string {
	if m.packed == "" {
		m.packed = packed{id: m.content.virtual, envelope: m.content.packedEnvelope(), body: m.content.body}.line()
	}
	return m.packed
}

// replySenders are the senders to requesters' reply queues.
type replySenders struct {
	ctx     context.Context
	api     *queueAPI
	reserve int
	jam     jam
	absent  absent

	mu      sync.Mutex
	senders map[string]*sender
}

// maxIdleSenders is how many senders are kept before idle ones are let go.
const maxIdleSenders = 1024

// to returns the sender for a reply queue.
func (r *replySenders) to(url string) *sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.senders[url]; ok {
		return s
	}
	if len(r.senders) >= maxIdleSenders {
		for u, s := range r.senders {
			if s.idle() {
				delete(r.senders, u)
			}
		}
	}
	s := newSender(r.ctx, r.api, url)
	s.reserve, s.jam = r.reserve, &r.jam
	r.senders[url] = s
	return s
}

// jammed reports whether a reply to the queue would be given up now.
func (r *replySenders) jammed(url string) bool {
	r.mu.Lock()
	s, ok := r.senders[url]
	r.mu.Unlock()
	return ok && s.jammed()
}

// wait blocks until every reply has met its end.
func (r *replySenders) wait() {
	r.mu.Lock()
	all := make([]*sender, 0, len(r.senders))
	for _, s := range r.senders {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.wait()
	}
}
