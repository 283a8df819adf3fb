package sqstest

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"
)

type receiveMessageIn struct {
	onQueue
	AttributeNames   []string
	SystemAttributes []string `json:"MessageSystemAttributeNames"`
	Attributes       []string `json:"MessageAttributeNames"`
	Max              *int     `json:"MaxNumberOfMessages"`
	Visibility       *int     `json:"VisibilityTimeout"`
	Wait             *int     `json:"WaitTimeSeconds"`
	Attempt          *string  `json:"ReceiveRequestAttemptId"`
}

func receiveMessage(c *call, in receiveMessageIn) (any, *apiError) {
	if err := in.checkNames(); err != nil {
		return nil, err
	}
	limit := 1
	if in.Max != nil {
		if limit = *in.Max; limit < 1 || limit > 10 {
			return nil, errParameter("MaxNumberOfMessages", limit, "Must be between 1 and 10, if provided.")
		}
	}
	visibility, err := optionalSeconds("VisibilityTimeout", in.Visibility, maxVisibility)
	if err != nil {
		return nil, err
	}
	wait, err := optionalSeconds("WaitTimeSeconds", in.Wait, maxWait)
	if err != nil {
		return nil, err
	}
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	if in.Attempt != nil {
		if q.fifo == nil {
			return nil, errParameter("ReceiveRequestAttemptId", *in.Attempt, "The request includes a parameter that is not valid for this queue type.")
		}
		if err := checkToken("ReceiveRequestAttemptId", *in.Attempt); err != nil {
			return nil, err
		}
	}
	limit = c.s.faults.shard(c, limit)
	found, err := q.receive(c.ctx, limit, visibility, wait, deref(in.Attempt))
	for i := range found {
		c.payload += found[i].size()
	}
	if err != nil {
		return nil, err
	}
	system := nameSet(append(in.SystemAttributes, in.AttributeNames...))
	return receiveMessageOut{found, system, in.Attributes}, nil
}

// messageSystemAttributes are the names that MessageSystemAttributeNames can have (ReceiveMessage, API reference).
var messageSystemAttributes = []string{
	"All", "ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "AWSTraceHeader", "SenderId", "SentTimestamp",
	"SequenceNumber", "MessageDeduplicationId", "MessageGroupId", "DeadLetterQueueSourceArn",
}

// checkNames refuses names of system attributes that there are none of. AttributeNames, the older list, is of the type that
// names queue attributes: those are taken, and mean nothing.
func (in *receiveMessageIn) checkNames() *apiError {
	for _, name := range in.SystemAttributes {
		if !isOneOf(name, messageSystemAttributes) {
			return errAttributeName("Unknown Attribute %s.", name)
		}
	}
	for _, name := range in.AttributeNames {
		if !isOneOf(name, messageSystemAttributes) && !isOneOf(name, settableAttributes) && !isOneOf(name, readOnlyAttributes) {
			return errAttributeName("Unknown Attribute %s.", name)
		}
	}
	return nil
}

// optionalSeconds is a parameter of 0 to high seconds in milliseconds, and -1 when it was not given.
func optionalSeconds(name string, value *int, high int) (int64, *apiError) {
	switch {
	case value == nil:
		return -1, nil
	case *value < 0 || *value > high:
		return 0, errParameter(name, *value, "Must be >= 0 and <= "+strconv.Itoa(high)+", if provided.")
	}
	return int64(*value) * 1000, nil
}

// nameSet holds the names asked for; nil when there are none, and everything when "All" is among them.
type nameSet []string

func (n nameSet) has(name string) bool { return isOneOf(name, n) || isOneOf("All", n) }

// wanted reports whether a message attribute is asked for: by name, by prefix ("foo.*"), or with all others.
func wanted(name string, names []string) bool {
	for _, n := range names {
		if n == name || n == "All" || n == ".*" {
			return true
		}
		if prefix, ok := strings.CutSuffix(n, "*"); ok && strings.HasSuffix(prefix, ".") && strings.HasPrefix(name, prefix[:len(prefix)-1]) {
			return true
		}
	}
	return false
}

type deleteMessageIn struct {
	onQueue
	Handle *string `json:"ReceiptHandle"`
}

func deleteMessage(c *call, in deleteMessageIn) (any, *apiError) {
	if in.Handle == nil {
		return nil, errMissing("ReceiptHandle")
	}
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	if _, err := q.lock(); err != nil {
		return nil, err
	}
	defer q.unlock()
	return nil, q.delete(*in.Handle)
}

// delete removes the message of a handle. On a standard queue the handle of an earlier receive does it too (recorded:
// getmoto/moto#4655), though the API reference promises less: see IgnoreOldHandles. A FIFO queue refuses a handle whose
// visibility timeout has passed (recorded: aws-sdk-java#1628, and LocalStack's snapshots).
func (q *queue) delete(handle string) *apiError {
	m, receipt, err := q.byHandle(handle)
	if err != nil || m == nil {
		return err
	}
	if q.fifo != nil && (m.state != stateInFlight || m.receipt != receipt) {
		return errHandleExpired(handle)
	}
	if m.receipt == receipt || !q.server.faults.ignoresOldHandle(q.key.name) {
		q.remove(m)
	}
	return nil
}

type changeMessageVisibilityIn struct {
	onQueue
	Handle  *string `json:"ReceiptHandle"`
	Timeout *int    `json:"VisibilityTimeout"`
}

func changeMessageVisibility(c *call, in changeMessageVisibilityIn) (any, *apiError) {
	if in.Handle == nil {
		return nil, errMissing("ReceiptHandle")
	}
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	if err := c.s.faults.notInFlight(c); err != nil {
		return nil, err
	}
	return nil, q.changeVisibility(*in.Handle, in.Timeout, now)
}

func (q *queue) changeVisibility(handle string, timeout *int, now int64) *apiError {
	if timeout == nil {
		return errMissing("VisibilityTimeout")
	}
	seconds := int64(*timeout)
	if seconds < 0 || seconds > maxVisibility {
		return errParameter("VisibilityTimeout", seconds, "Must be >= 0 and <= 43200, if provided.")
	}
	m, receipt, err := q.byHandle(handle)
	switch {
	case err != nil:
		return err
	case m == nil:
		return errNotAvailable(handle) // recorded: aws-sdk-net#1927, and LocalStack's tests
	case q.fifo != nil && (m.state != stateInFlight || m.receipt != receipt):
		return errHandleExpired(handle)
	case (now-m.received)/1000+seconds > maxVisibility:
		return errParameter("VisibilityTimeout", seconds, "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")
	}
	// On a standard queue, a message that is visible again is hidden once more, and the handle of an earlier receive will
	// do. MessageNotInflight, which the API reference has for this, is an answer that nobody could bring AWS to give
	// (getmoto/moto#4655, localstack#9632): see NotInFlight.
	q.hide(m, stateInFlight, now+seconds*1000)
	if seconds == 0 {
		q.show(m)
	}
	return nil
}

// A receipt handle names the queue's incarnation, the message in it and the receive, with a check so that garbage is told
// from a handle that is merely old.
func encodeHandle(incarnation, serial, receipt uint64) string {
	var b [32]byte
	binary.BigEndian.PutUint64(b[0:], incarnation)
	binary.BigEndian.PutUint64(b[8:], serial)
	binary.BigEndian.PutUint64(b[16:], receipt)
	binary.BigEndian.PutUint64(b[24:], handleCheck(b[:24]))
	return base64.StdEncoding.EncodeToString(b[:])
}

func handleCheck(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("sqstest receipt handle"))
	_, _ = h.Write(b)
	return h.Sum64()
}

// byHandle is the message of a receipt handle and the number of the receive; nil when the message is gone.
func (q *queue) byHandle(handle string) (*message, uint64, *apiError) {
	b, err := base64.StdEncoding.DecodeString(handle)
	if err != nil || len(b) != 32 || binary.BigEndian.Uint64(b[24:]) != handleCheck(b[:24]) ||
		binary.BigEndian.Uint64(b) != q.incarnation {
		return nil, 0, errReceiptHandle(handle)
	}
	m, receipt := q.messages[binary.BigEndian.Uint64(b[8:])], binary.BigEndian.Uint64(b[16:])
	if m != nil && receipt > m.receipt {
		return nil, 0, errReceiptHandle(handle) // of a receive that was never made, or was lost with what came after the last Save
	}
	return m, receipt, nil
}
