package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// call is one attempt of a call, between its registration and its end. Whoever removes it from the
// pending map owns its end, and sends exactly one answer on done.
type call struct {
	requester *Requester
	channel   *Channel
	queue     *replyQueue // nil: no reply is awaited
	kind      CallKind
	method    string
	id        string
	attempt   int // from 1
	started   time.Time
	deadline  time.Time
	expires   time.Time // the end of the request's budget: the deadline, or later when nobody waits
	resumed   bool
	// repeats is up to which attempt the call is made again though nobody can say whether it was executed; 0: never.
	repeats int

	stamp   requestStamp
	trace   string
	replyTo string
	body    string
	group   string
	bytes   int

	out    outgoing
	done   chan answer // capacity 1
	frames *frames     // of a stream; nil otherwise
}

// answer is how a call ends: with a reply as it was received, or with an error found on this side.
type answer struct {
	body     string
	envelope string // absent: a Java responder's
	trace    string
	packed   bool // it came with others
	rousing  bool // the caller is counted as one that is about to run
	err      *Error
}

// newCall is the first attempt.
func (r *Requester) newCall(o *OutgoingCall) *call {
	c := &call{
		requester: r, channel: o.channel, kind: o.Kind, method: o.Method, id: o.id, attempt: 1,
		started: o.started, deadline: o.Deadline, expires: o.Deadline, group: o.cfg.group, resumed: o.resumed,
		done: make(chan answer, 1),
	}
	if o.cfg.idempotent {
		c.repeats = o.channel.retries.limit(o)
	}
	switch o.Kind {
	case KindStream:
		c.frames = newFrames()
	case KindNotify:
		c.expires = o.started.Add(maxBudget)
		if o.cfg.expiry != nil {
			c.expires = o.started.Add(min(*o.cfg.expiry, maxBudget))
		}
	}
	return c
}

// again is the next attempt: the same message under the same identifier.
func (c *call) again() *call {
	next := &call{
		requester: c.requester, channel: c.channel, kind: c.kind, method: c.method, id: c.id, attempt: c.attempt + 1,
		started: c.started, deadline: c.deadline, expires: c.expires, group: c.group,
		repeats: c.repeats, stamp: c.stamp, trace: c.trace, body: c.body, bytes: c.bytes, done: make(chan answer, 1),
	}
	next.out.message = next
	if c.frames != nil {
		next.frames = newFrames()
	}
	return next
}

// run makes the attempt and hands on what it brings.
func (c *call) run(ctx context.Context, timeout <-chan time.Time, o *OutgoingCall, receive func(reply any) error) *Error {
	if err := c.register(ctx, timeout); err != nil {
		return err
	}
	if !c.resumed {
		c.channel.sender.add(&c.out)
	}
	if c.frames != nil {
		return c.stream(ctx, timeout, o, receive)
	}
	select {
	case a := <-c.done:
		return c.end(c.roused(a), o, receive)
	case <-ctx.Done():
	case <-timeout:
	}
	if !c.requester.remove(c) {
		return c.end(c.roused(<-c.done), o, receive) // its end was on the way
	}
	return c.givenUp(ctx)
}

// roused notes that the caller runs.
func (c *call) roused(a answer) answer {
	if a.rousing {
		c.requester.api.rousing.Add(-1)
	}
	return a
}

// givenUp is the error of an attempt that was removed because its context or its time ended. What was
// not sent by now never is.
func (c *call) givenUp(ctx context.Context) *Error {
	outcome, sendErr := c.abandon()
	why := because(sendErr)
	var receiveErr error
	if c.queue != nil {
		if _, receiveErr = c.queue.pollers.failing(); receiveErr != nil {
			why += "; the last receive from the reply queue failed: " + receiveErr.Error()
		}
	}
	if ctx.Err() != nil {
		e := endedError(ctx, outcome, "waiting for the reply")
		e.Message += why
		if receiveErr != nil {
			e.cause = errors.Join(e.cause, receiveErr)
		}
		return c.identify(e)
	}
	return c.failure(DeadlineExceeded, outcome, errors.Join(context.DeadlineExceeded, receiveErr, sendErr), "no reply within %s%s",
		c.deadline.Sub(c.started).Round(time.Millisecond), why)
}

// abandon takes the message back unless it may be on its way.
func (c *call) abandon() (Outcome, error) {
	if c.resumed {
		return MaybeExecuted, nil
	}
	notSent, err := c.channel.sender.abandon(&c.out)
	if notSent {
		return NotSent, err
	}
	return MaybeExecuted, err
}

// end hands on the one answer of a call.
func (c *call) end(a answer, o *OutgoingCall, receive func(reply any) error) *Error {
	if c.kind == KindNotify {
		return a.err
	}
	if a.err == nil {
		// An answer can come before the end of the attempt that sent the request. Should that end without
		// certainty, no copy may follow: what was refused would be handled after all.
		_, _ = c.abandon()
	}
	var received error
	err := c.read(a, func(payload []byte, metadata Metadata) error {
		o.addReplyMetadata(metadata)
		reply, err := o.decode(payload)
		if err == nil {
			received = receive(reply)
		}
		return err
	})
	if err != nil || received == nil {
		return err
	}
	return c.failure(CodeOf(received), Executed, received, "%v", received)
}

func (o *OutgoingCall) addReplyMetadata(m Metadata) {
	for k, v := range m {
		if o.ReplyMetadata == nil {
			o.ReplyMetadata = Metadata{}
		}
		o.ReplyMetadata[k] = v
	}
}

// maxGroupBytes is the length of a message group at most (SendMessage, API reference).
const maxGroupBytes = 128

// encoded is a request's payload in the form in which it travels.
type encoded struct {
	body, encoding string
	err            error
}

func (o *OutgoingCall) encode() encoded {
	payload, err := o.codec.Marshal(o.Request)
	if err != nil {
		return encoded{err: err}
	}
	body, encoding := encodeBody(payload)
	return encoded{body: body, encoding: encoding}
}

// prepare renders the message and checks its size.
func (c *call) prepare(o *OutgoingCall) *Error {
	var request encoded
	if o.early != nil {
		request = *o.early
	} else {
		request = o.encode()
	}
	if request.err != nil {
		return c.failure(InvalidArgument, NotSent, request.err, "encode the request: %v", request.err)
	}
	if g := o.cfg.group; len(g) > maxGroupBytes || !isPrintableASCII(g) {
		return c.failure(InvalidArgument, NotSent, nil, "the group %.200q is not 1 to %d printable ASCII characters without spaces", g, maxGroupBytes)
	}
	body, codec, metadata := request.body, o.codec.Name(), o.Metadata
	metadataBytes := 0
	for k, v := range metadata {
		metadataBytes += len(k) + len(v)
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return c.failure(InvalidArgument, NotSent, nil, "the metadata %q is not UTF-8", k)
		}
	}
	if metadataBytes > maxMetadataBytes {
		return c.failure(InvalidArgument, NotSent, nil, "metadata of %d bytes, at most %d travel", metadataBytes, maxMetadataBytes)
	}
	metadata, c.trace = splitTrace(metadata)
	if c.trace != "" && !isXMLText(c.trace) {
		return c.failure(InvalidArgument, NotSent, nil, "the trace context has characters that SQS refuses")
	}
	env := requestEnvelope{
		Kind: kindRequest, Version: protocolVersion, CallID: c.id, Method: c.method,
		Encoding: request.encoding, Metadata: metadata,
	}
	if codec != JSON.Name() {
		env.Codec = codec
	}
	// A pack that reaches another process is known by its nonce: an application's identifiers have none.
	if c.requester.cfg.packedReplies && hasNonce(c.id, c.requester.nonce) {
		env.Accept = append(env.Accept, featurePack)
	}
	if c.kind == KindStream {
		env.Accept = append(env.Accept, featureStream)
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
	if c.trace != "" {
		c.bytes += messageSize(TraceParent, dataTypeString, c.trace)
	}
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
	if !time.Now().Before(c.deadline) {
		return c.failure(DeadlineExceeded, NotSent, context.DeadlineExceeded, "the call's time was over before it began")
	}
	if c.kind == KindNotify && !time.Now().Before(c.expires) {
		return c.failure(DeadlineExceeded, NotSent, context.DeadlineExceeded, "the request's time was over before it was sent")
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
		switch _, twice := r.pending[c.id]; {
		case r.closing:
			r.mu.Unlock()
			return c.failure(Canceled, NotSent, ErrClosed, "the requester is shutting down")
		case twice:
			r.mu.Unlock()
			return c.failure(AlreadyExists, NotSent, nil, "a call with this ID is pending")
		case c.kind == KindNotify:
			r.pending[c.id] = c
			r.mu.Unlock()
			return nil
		}
		if c.resumed {
			if held, ok := r.held.take(c.id, time.Now()); ok {
				r.mu.Unlock()
				if held.handle != "" {
					held.queue.settler.delete(held.handle)
				}
				c.done <- held.answer
				return nil
			}
		}
		if q := r.queue; q != nil {
			c.queue, c.replyTo = q, q.url+"#"+c.id
			r.pending[c.id] = c
			first := q.pending.Add(1) <= 1+q.sated.Load()
			if c.frames != nil {
				c.frames.open(q)
			}
			r.mu.Unlock()
			if first {
				q.pollers.wake()
			} else {
				q.pollers.stir()
			}
			return nil
		}
		changed, lost := r.changed, r.lostURL
		r.mu.Unlock()
		if _, more := r.source.Current(); more == nil {
			return c.failure(Unavailable, NotSent, errNoQueueWillCome, "there is no reply queue, and none will come%s", was(lost))
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

var (
	errNoReplyQueue    = errors.New("there is no reply queue yet")
	errNoQueueWillCome = fmt.Errorf("%w, and there will be no other", ErrReplyQueueLost)
)

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
	c.closeFrames()
	if c.queue != nil {
		c.queue.pending.Add(-1)
	}
	if r.closing {
		r.checkDrained()
	}
}

func (c *call) closeFrames() {
	if c.frames != nil {
		c.frames.close()
	}
}

// delivered takes in the one answer of this call, which is removed from the pending map. It is called
// with the requester's lock held.
func (c *call) delivered(a answer) deliveryVerdict {
	if c.attempt > 1 && a.envelope != "" {
		// An earlier attempt's failure, come twice, says nothing of this one. Its success does.
		env, err := parseReplyEnvelope(a.envelope)
		if err == nil && env.Code != OK && replyAttempt(&env) < c.attempt {
			return deliveryStale
		}
	}
	c.requester.forget(c)
	if !hasNonce(c.id, c.requester.nonce) {
		c.requester.held.note(c.id, time.Now())
	}
	a.rousing = true
	c.requester.api.rousing.Add(1)
	c.done <- a
	return deliveryTaken
}

// size implements outgoingMessage.
func (c *call) size() int { return c.bytes }

// entry implements outgoingMessage.
func (c *call) entry(now time.Time) (types.SendMessageBatchRequestEntry, bool) {
	if !now.Before(c.deadline) {
		return types.SendMessageBatchRequestEntry{}, false
	}
	e := types.SendMessageBatchRequestEntry{
		MessageBody: &c.body,
		MessageAttributes: map[string]types.MessageAttributeValue{
			attributeEnvelope: stringAttribute(c.stamp.render(min(c.expires.Sub(now), maxBudget), c.requester.api.sendTime(now), c.attempt)),
		},
	}
	if c.replyTo != "" {
		e.MessageAttributes[attributeReplyTo] = textAttribute(&c.replyTo)
	}
	if c.trace != "" {
		e.MessageAttributes[TraceParent] = stringAttribute(c.trace)
	}
	if c.channel.config.FIFO {
		group := c.group
		if group == "" {
			group = c.id
		}
		e.MessageGroupId = &group
		e.MessageDeduplicationId = aws.String(fmt.Sprintf("%s-%d", c.id, c.attempt))
	} else if c.group != "" {
		e.MessageGroupId = &c.group
	}
	return e, true
}

// sent implements outgoingMessage.
func (c *call) sent(err error, notSent bool) {
	if err != nil && !notSent && c.kind != KindNotify && !c.channel.retries.repeats(c) {
		return // its reply may come until the deadline, and nothing else can be done for it
	}
	if err == nil && c.kind != KindNotify || !c.requester.remove(c) {
		return
	}
	if err == nil {
		c.done <- answer{}
		return
	}
	outcome := MaybeExecuted
	if notSent {
		outcome = NotSent
	}
	code := Unavailable
	switch {
	case !notSent: // why the last attempt failed is no more than its cause: an earlier one may have arrived
	case errors.Is(err, context.DeadlineExceeded):
		code = DeadlineExceeded
	case isMissingQueue(err):
		code = NotFound
	case isThrottle(err):
		code = ResourceExhausted
	case isDenied(err):
		code = PermissionDenied
	case isTooLarge(err): // the queue takes less than this side was told
		code, err = ResourceExhausted, fmt.Errorf("%w: %w", ErrPayloadTooLarge, err)
	case isPermanent(err):
		code = FailedPrecondition
	}
	c.done <- answer{err: c.failure(code, outcome, err, "send the request: %v", err)}
}

// read turns an answer into the call's end.
func (c *call) read(a answer, take func(payload []byte, metadata Metadata) error) *Error {
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
		return c.remoteError(&env)
	}
	if env.Run != "" {
		return c.failure(Internal, Executed, nil, "the method answers with a stream")
	}
	payload, err := decodeBody(a.body, env.Encoding)
	if err == nil {
		err = take(payload, joinTrace(env.Metadata, a.trace))
	}
	if err != nil {
		return c.failure(Internal, Executed, err, "decode the reply: %v", err)
	}
	return nil
}

// remoteError is the error that a responder sent.
func (c *call) remoteError(env *replyEnvelope) *Error {
	e := c.failure(env.Code, Executed, nil, "%s", env.Message)
	switch {
	case env.Rejected && (env.Uncertain || c.resumed || c.channel.sender.mayHaveCopies(&c.out)):
		e.Outcome = MaybeExecuted // this copy was refused; another may have been handled
	case env.Rejected:
		e.Outcome = Rejected
	}
	// Bounded, as nobody knows who wrote it: a pause beyond the longest deadline is one beyond any.
	wait := min(max(env.RetryAfterMS, 0), int64(maxBudget/time.Millisecond))
	e.Details, e.RetryAfter, e.remote = env.Details, time.Duration(wait)*time.Millisecond, true
	return e
}

func (c *call) failure(code Code, outcome Outcome, cause error, format string, args ...any) *Error {
	return c.identify(localError(code, outcome, cause, format, args...))
}

func (c *call) identify(e *Error) *Error {
	e.CallID, e.Attempt = hashCallID(c.id), c.attempt
	return e
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return "; the last attempt to send failed: " + err.Error()
}

func textAttribute(v *string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &stringType, StringValue: v}
}

func stringAttribute(v string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &stringType, StringValue: &v}
}

var stringType = dataTypeString // for its address

func firstPositive(ds ...time.Duration) time.Duration {
	for _, d := range ds {
		if d > 0 {
			return d
		}
	}
	return DefaultTimeout
}
