package sqstest

import "strings"

// sendEntry is a message to send, alone or in a batch.
type sendEntry struct {
	Body       *string    `json:"MessageBody"`
	Delay      *int       `json:"DelaySeconds"`
	Attributes attributes `json:"MessageAttributes"`
	System     attributes `json:"MessageSystemAttributes"`
	Dedup      *string    `json:"MessageDeduplicationId"`
	Group      *string    `json:"MessageGroupId"`
}

type sendMessageIn struct {
	onQueue
	sendEntry
}

func (e *sendEntry) bytes() int { return len(deref(e.Body)) + e.Attributes.size() }

type sendResult struct {
	MessageID, MD5, MD5Attributes, MD5System, Sequence string
}

func sendMessage(c *call, in sendMessageIn) (any, *apiError) {
	q, err := c.find(in.QueueURL)
	if err != nil {
		gone, ok := c.s.faults.swallows(c, in.QueueURL)
		if !ok {
			return nil, err
		}
		out, err := gone.pretend(c, &in.sendEntry)
		if err != nil {
			return nil, err
		}
		c.payload = in.bytes()
		return out, nil
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	m, delay, err := q.prepare(c, &in.sendEntry)
	if err != nil {
		return nil, err
	}
	c.payload = m.size()
	return q.send(m, now, delay), nil
}

// prepare makes a message of an entry, or says why SQS would refuse it. The queue must be locked.
func (q *queue) prepare(c *call, e *sendEntry) (m *message, delay int64, err *apiError) {
	if e.Body == nil || *e.Body == "" {
		return nil, 0, errMissing("MessageBody")
	}
	delay = int64(q.settings.delay) * 1000
	if q.fifo != nil {
		err = q.checkFIFOEntry(e)
	} else {
		if e.Dedup != nil {
			return nil, 0, errParameter("MessageDeduplicationId", *e.Dedup, "The request includes a parameter that is not valid for this queue type.")
		}
		if e.Delay != nil {
			delay = int64(*e.Delay) * 1000
		}
		err = checkStandardEntry(e)
	}
	if err != nil {
		return nil, 0, err
	}
	if err := e.Attributes.check(); err != nil {
		return nil, 0, err
	}
	trace, err := traceOf(e.System)
	if err != nil {
		return nil, 0, err
	}
	m = &message{
		id: newMessageID(), body: *e.Body, bodyMD5: md5Hex(*e.Body), trace: trace,
		group: deref(e.Group), dedup: deref(e.Dedup), sender: senderID(c.accessKey),
	}
	if len(e.Attributes) > 0 {
		m.attrs, m.attrsMD5 = e.Attributes, e.Attributes.digest()
	}
	if size := m.size(); size > q.settings.maxSize {
		return nil, 0, errInvalidParameter("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", q.settings.maxSize)
	}
	if !validText(m.body) {
		return nil, 0, errContents()
	}
	if q.fifo != nil && m.dedup == "" {
		m.dedup = contentDedup(m.body)
	}
	return m, delay, nil
}

func checkStandardEntry(e *sendEntry) *apiError {
	if e.Delay != nil && (*e.Delay < 0 || *e.Delay > maxDelay) {
		return errParameter(attrDelay, *e.Delay, "DelaySeconds must be >= 0 and <= 900.")
	}
	if e.Group != nil {
		return checkToken("MessageGroupId", *e.Group)
	}
	return nil
}

// checkFIFOEntry is about what a FIFO queue wants besides. Delays are the queue's: a message's own may only be 0, and means nothing.
func (q *queue) checkFIFOEntry(e *sendEntry) *apiError {
	if e.Group == nil {
		return errMissing("MessageGroupId")
	}
	if err := checkToken("MessageGroupId", *e.Group); err != nil {
		return err
	}
	if e.Dedup != nil {
		if err := checkToken("MessageDeduplicationId", *e.Dedup); err != nil {
			return err
		}
	} else if !q.settings.contentDedup {
		return errInvalidParameter("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	}
	if e.Delay != nil && *e.Delay != 0 {
		return errParameter(attrDelay, *e.Delay, "The request include parameter that is not valid for this queue type.")
	}
	return nil
}

func checkToken(name, value string) *apiError {
	if isToken(value) {
		return nil
	}
	return errParameter(name, value, name+" can only include alphanumeric and punctuation characters. 1 to 128 in length.")
}

// traceOf is the one system attribute that a sender can set.
func traceOf(system attributes) (string, *apiError) {
	var trace *attribute
	for i := range system {
		if system[i].name != traceHeader {
			return "", errInvalidParameter("Message system attribute name '%s' is invalid.", system[i].name)
		}
		trace = &system[i]
	}
	switch {
	case trace == nil:
		return "", nil
	case trace.DataType != "String" || deref(trace.StringValue) == "":
		return "", errInvalidParameter("Message system attribute '%s' must contain a non-empty value of type 'String'.", traceHeader)
	default:
		return *trace.StringValue, nil
	}
}

// send puts the message in, or recognises it as a duplicate and answers as the first time.
func (q *queue) send(m *message, now, delay int64) sendResult {
	out := resultOf(m)
	m.sent, m.enqueued = now, now
	if q.fifo == nil {
		q.add(m, now, delay+q.server.faults.lag(q.key.name))
		q.server.faults.reorder(q, m)
		return out
	}
	key := q.dedupKey(m.group, m.dedup)
	if first, ok := q.fifo.sent.get(key); ok {
		out.MessageID, out.Sequence = first.id, first.sequence
		return out
	}
	q.add(m, now, delay)
	q.fifo.sent.put(key, sentRecord{m.id, m.sequence}, now)
	out.Sequence = m.sequence
	return out
}

func resultOf(m *message) sendResult {
	out := sendResult{MessageID: m.id, MD5: m.bodyMD5, MD5Attributes: m.attrsMD5}
	if m.trace != "" {
		trace := m.trace
		out.MD5System = attributes{{traceHeader, attributeValue{DataType: "String", StringValue: &trace}}}.digest()
	}
	return out
}

// pretend answers a send to a queue that was deleted, and keeps nothing. What SQS would refuse, it refuses. q may be nil:
// then nobody knows any more how it was.
func (q *queue) pretend(c *call, e *sendEntry) (sendResult, *apiError) {
	if q == nil {
		m := &message{id: newMessageID(), bodyMD5: md5Hex(deref(e.Body))}
		if len(e.Attributes) > 0 && e.Attributes.check() == nil {
			m.attrsMD5 = e.Attributes.digest()
		}
		return resultOf(m), nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	m, _, err := q.prepare(c, e)
	if err != nil {
		return sendResult{}, err
	}
	out := resultOf(m)
	if q.fifo != nil {
		out.Sequence = q.fifo.nextSequence()
	}
	return out, nil
}

// senderID is the SenderId of a caller: what AWS gives a user has this form.
func senderID(accessKey string) string { return "AIDA" + strings.ToUpper(accessKey) }
