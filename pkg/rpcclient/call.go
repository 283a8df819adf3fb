package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// call is one request between its registration and its end. Whoever removes it from the pending map
// owns its end, and sends exactly one answer on done.
type call struct {
	requester *Requester
	channel   *Channel
	queue     *replyQueue
	method    string
	id        string
	started   time.Time
	deadline  time.Time

	stamp   requestStamp
	replyTo string
	body    string
	group   string
	bytes   int

	out  outgoing
	done chan answer // capacity 1
}

// answer is how a call ends: with a reply as it was received, or with an error found on this side.
type answer struct {
	body     string
	envelope string // absent: a Java responder's
	err      *Error
}

// callAttempt is the attempt number of every call: calls are sent once, however often SQS is tried.
const callAttempt = 1

// call makes one call. decode reads the answer's payload into the caller's value.
func (r *Requester) call(ctx context.Context, ch *Channel, method, codec string, payload []byte, cc callConfig, decode func([]byte) error) error {
	started := time.Now()
	c := &call{
		requester: r, channel: ch, method: method, id: newCallID(r.nonce), started: started,
		done: make(chan answer, 1), group: cc.group,
	}
	c.deadline = started.Add(firstPositive(cc.timeout, ch.config.Timeout, r.cfg.timeout))
	if d, ok := ctx.Deadline(); ok && d.Before(c.deadline) {
		c.deadline = d
	}
	err := c.run(ctx, codec, payload, cc, decode)
	r.cfg.stats.callEnded(err)
	r.onCallEnd(c, err)
	if err != nil {
		return err
	}
	return nil
}

func (r *Requester) onCallEnd(c *call, err *Error) {
	if len(r.hooks.callEnd) == 0 {
		return
	}
	end := CallEnd{Channel: c.channel.config.Name, Method: c.method, CallID: hashCallID(c.id), Took: time.Since(c.started)}
	if err != nil {
		end.Err = err
	}
	for _, h := range r.hooks.callEnd {
		h.OnCallEnd(end)
	}
}

// refused counts a call that ended before it began.
func (r *Requester) refused(ch *Channel, method string, err *Error) error {
	c := &call{requester: r, channel: ch, method: method, id: newCallID(r.nonce), started: time.Now()}
	err.CallID, err.Attempt = hashCallID(c.id), callAttempt
	r.cfg.stats.callEnded(err)
	r.onCallEnd(c, err)
	return err
}

func (c *call) run(ctx context.Context, codec string, payload []byte, cc callConfig, decode func([]byte) error) *Error {
	if err := c.prepare(codec, payload, cc); err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	if err := c.enter(ctx, timer.C); err != nil {
		return err
	}
	defer func() { <-c.requester.slots }()
	if err := c.register(ctx, timer.C); err != nil {
		return err
	}
	c.channel.sender.add(&c.out)

	select {
	case a := <-c.done:
		return c.read(a, decode)
	case <-ctx.Done():
	case <-timer.C:
	}
	if !c.requester.remove(c) {
		return c.read(<-c.done, decode) // its end was on the way
	}
	notSent, sendErr := c.channel.sender.abandon(&c.out)
	outcome := MaybeExecuted
	if notSent {
		outcome = NotSent
	}
	if ctx.Err() != nil {
		e := endedError(ctx, outcome, "waiting for the reply")
		e.Message += because(sendErr)
		return c.identify(e)
	}
	return c.failure(DeadlineExceeded, outcome, context.DeadlineExceeded, "no reply within %s%s",
		c.deadline.Sub(c.started).Round(time.Millisecond), because(sendErr))
}

// prepare renders the message and checks its size.
func (c *call) prepare(codec string, payload []byte, cc callConfig) *Error {
	body, encoding := encodeBody(payload)
	metadataBytes := 0
	for k, v := range cc.metadata {
		metadataBytes += len(k) + len(v)
	}
	if metadataBytes > maxMetadataBytes {
		return c.failure(InvalidArgument, NotSent, nil, "metadata of %d bytes, at most %d travel", metadataBytes, maxMetadataBytes)
	}
	env := requestEnvelope{
		Kind: kindRequest, Version: protocolVersion, CallID: c.id, Method: c.method,
		Encoding: encoding, Metadata: cc.metadata,
	}
	if codec != JSON.Name() {
		env.Codec = codec
	}
	if c.requester.cfg.packedReplies {
		env.Accept = acceptPacks
	}
	stamp, err := newRequestStamp(&env)
	if err != nil {
		return c.failure(Internal, NotSent, err, "encode the envelope: %v", err)
	}
	c.stamp, c.body, c.out.message = stamp, body, c
	// The return address is as long as SQS's longest URL at most; counted before it is known, so that a
	// call is refused before it waits.
	const longestReplyTo = 256
	c.bytes = messageSize(body, attributeEnvelope, dataTypeString, attributeReplyTo, dataTypeString) +
		stamp.size() + longestReplyTo + c.requester.cfg.reserve
	if limit := c.channel.config.MaxMessageBytes; c.bytes > limit {
		return c.failure(ResourceExhausted, NotSent, ErrPayloadTooLarge,
			"the request has %d bytes with its attributes and the reserve, the queue takes %d", c.bytes, limit)
	}
	return nil
}

// enter takes a place among the pending calls.
func (c *call) enter(ctx context.Context, timeout <-chan time.Time) *Error {
	r := c.requester
	if ctx.Err() != nil {
		return c.identify(endedError(ctx, NotSent, "before sending"))
	}
	select {
	case r.slots <- struct{}{}:
		return nil
	default:
	}
	if r.cfg.failOnPending {
		return c.failure(ResourceExhausted, NotSent, ErrTooManyPending, "%d calls are pending", r.cfg.maxPending)
	}
	r.mu.Lock()
	changed, closing := r.changed, r.closing
	r.mu.Unlock()
	for {
		if closing {
			return c.failure(Canceled, NotSent, ErrClosed, "the requester is shutting down")
		}
		select {
		case r.slots <- struct{}{}:
			return nil
		case <-changed:
			r.mu.Lock()
			changed, closing = r.changed, r.closing
			r.mu.Unlock()
		case <-ctx.Done():
			return c.identify(endedError(ctx, NotSent, "waiting for a place among the pending calls"))
		case <-timeout:
			return c.failure(DeadlineExceeded, NotSent, ErrTooManyPending,
				"the deadline passed while %d other calls were pending", r.cfg.maxPending)
		}
	}
}

// register makes the call known to the reply queue before anything is sent, so that no reply can be
// too fast. It waits for a reply queue while there is none.
func (c *call) register(ctx context.Context, timeout <-chan time.Time) *Error {
	r := c.requester
	for {
		r.mu.Lock()
		if r.closing {
			r.mu.Unlock()
			return c.failure(Canceled, NotSent, ErrClosed, "the requester is shutting down")
		}
		if q := r.queue; q != nil {
			c.queue, c.replyTo = q, q.url+"#"+c.id
			r.pending[c.id] = c
			first := q.pending.Add(1) == 1
			r.mu.Unlock()
			if first {
				q.pollers.wake()
			}
			return nil
		}
		changed, lost := r.changed, r.lostURL
		r.mu.Unlock()
		if _, more := r.source.Current(); more == nil {
			return c.failure(Unavailable, NotSent, ErrReplyQueueLost, "there is no reply queue, and none will come%s", was(lost))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return c.identify(endedError(ctx, NotSent, "waiting for a reply queue"))
		case <-timeout:
			return c.failure(DeadlineExceeded, NotSent, errNoReplyQueue, "the deadline passed while waiting for a reply queue%s", was(lost))
		}
	}
}

var errNoReplyQueue = errors.New("there is no reply queue yet")

func was(lost string) string {
	if lost == "" {
		return ""
	}
	return "; the last was " + lost
}

// remove takes a call out of the pending map and reports whether it was there.
func (r *Requester) remove(c *call) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[c.id] != c {
		return false
	}
	r.forget(c)
	return true
}

// forget removes a call that is in the map. It is called with the lock held.
func (r *Requester) forget(c *call) {
	delete(r.pending, c.id)
	c.queue.pending.Add(-1)
	if r.closing {
		r.checkDrained()
	}
}

// size implements outgoingMessage.
func (c *call) size() int { return c.bytes }

// entry implements outgoingMessage.
func (c *call) entry(now time.Time) (types.SendMessageBatchRequestEntry, bool) {
	budget := c.deadline.Sub(now)
	if budget <= 0 {
		return types.SendMessageBatchRequestEntry{}, false
	}
	e := types.SendMessageBatchRequestEntry{
		MessageBody: &c.body,
		MessageAttributes: map[string]types.MessageAttributeValue{
			attributeEnvelope: stringAttribute(c.stamp.render(budget, now, callAttempt)),
			attributeReplyTo:  stringAttribute(c.replyTo),
		},
	}
	if c.channel.config.FIFO {
		group := c.group
		if group == "" {
			group = c.id
		}
		e.MessageGroupId = &group
		e.MessageDeduplicationId = aws.String(fmt.Sprintf("%s-%d", c.id, callAttempt))
	} else if c.group != "" {
		e.MessageGroupId = &c.group
	}
	return e, true
}

// sent implements outgoingMessage.
func (c *call) sent(err error, notSent bool) {
	if err == nil || !c.requester.remove(c) {
		return
	}
	outcome := MaybeExecuted
	if notSent {
		outcome = NotSent
	}
	code := Unavailable
	switch {
	case errors.Is(err, context.DeadlineExceeded) && notSent:
		code = DeadlineExceeded
	case isMissingQueue(err):
		code = NotFound
	case isThrottle(err):
		code = ResourceExhausted
	case isDenied(err):
		code = PermissionDenied
	case isPermanent(err):
		code = FailedPrecondition
	}
	c.done <- answer{err: c.failure(code, outcome, err, "send the request: %v", err)}
}

// read turns an answer into the call's end.
func (c *call) read(a answer, decode func([]byte) error) *Error {
	if a.err != nil {
		return a.err
	}
	env := replyEnvelope{Code: OK}
	if a.envelope != "" {
		parsed, err := parseReplyEnvelope(a.envelope)
		switch {
		case err == nil:
			env = parsed
		case !errors.Is(err, errNotOurs):
			return c.failure(Internal, MaybeExecuted, err, "read the reply: %v", err)
		}
	}
	if env.Code != OK {
		e := c.failure(env.Code, Executed, nil, "%s", env.Message)
		if env.Rejected {
			e.Outcome = Rejected
		}
		e.Details, e.RetryAfter, e.remote = env.Details, time.Duration(env.RetryAfterMS)*time.Millisecond, true
		return e
	}
	payload, err := decodeBody(a.body, env.Encoding)
	if err == nil {
		err = decode(payload)
	}
	if err != nil {
		return c.failure(Internal, Executed, err, "decode the reply: %v", err)
	}
	return nil
}

func (c *call) failure(code Code, outcome Outcome, cause error, format string, args ...any) *Error {
	return c.identify(localError(code, outcome, cause, format, args...))
}

func (c *call) identify(e *Error) *Error {
	e.CallID, e.Attempt = hashCallID(c.id), callAttempt
	return e
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return "; the last attempt to send failed: " + err.Error()
}

func stringAttribute(v string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String(dataTypeString), StringValue: &v}
}

func firstPositive(ds ...time.Duration) time.Duration {
	for _, d := range ds {
		if d > 0 {
			return d
		}
	}
	return DefaultTimeout
}
