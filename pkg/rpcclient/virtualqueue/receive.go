package virtualqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// host is a queue of SQS with virtual queues on it. Everything in it is guarded by the client's lock.
type host struct {
	client  *Client
	url     string
	queues  map[string]*queue
	waiting int  // receives that a poll is wanted for
	polling bool // a goroutine polls
}

// queue is one virtual queue.
type queue struct {
	host      *host
	name      string
	retention time.Duration
	buffer    []held
	receiving int
	waiting   int           // of the receives, those that a poll is wanted for
	expiry    *time.Timer   // runs while nobody receives
	changed   chan struct{} // closed, and made anew, when receives should look again
	gone      bool
	err       error // what the last poll failed with, for the receives that waited
	errs      int   // how often a poll has failed
}

// held is a message that was received and not handed over.
type held struct {
	message types.Message
	until   time.Time // it comes back to the host queue
}

// add is called with the lock held.
func (h *host) add(name string, retention time.Duration) {
	q := &queue{host: h, name: name, retention: retention, changed: make(chan struct{})}
	q.expiry = time.AfterFunc(retention, q.expire)
	h.queues[name] = q
}

// expire forgets the queue unless somebody receives from it.
func (q *queue) expire() {
	c := q.host.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.receiving == 0 && !q.gone {
		q.forget()
		q.host.discard(q.buffer)
		q.buffer = nil
	}
}

// forget is called with the lock held.
func (q *queue) forget() {
	q.gone = true
	q.expiry.Stop()
	delete(q.host.queues, q.name)
	if len(q.host.queues) == 0 && !q.host.polling {
		delete(q.host.client.hosts, q.host.url)
	}
	q.notify()
}

// notify wakes the receives; those that find nothing ask for a poll again, so that none starts for
// receives that are about to end. It is called with the lock held.
func (q *queue) notify() {
	q.host.waiting -= q.waiting
	q.waiting = 0
	close(q.changed)
	q.changed = make(chan struct{})
}

// ReceiveMessage receives from a virtual queue: at once what is there, otherwise it waits for up to
// WaitTimeSeconds (0 to 20; unset: 0, one short poll). It blocks for no longer, except for an SQS request
// under way. It ends with QueueDoesNotExist when the virtual queue is deleted or the client closed, with
// ctx's error, and with the error of a poll of the host queue that failed.
//
// MaxNumberOfMessages, VisibilityTimeout, MessageAttributeNames and the system attributes mean what they
// mean to SQS; ReceiveRequestAttemptId means nothing. The virtual queue's own attribute is left out unless
// it is asked for by name. A URL without # goes to the SDK.
func (c *Client) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, opts ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	hostURL, name, virtual := strings.Cut(aws.ToString(in.QueueUrl), "#")
	if !virtual {
		return c.api.ReceiveMessage(ctx, in, opts...)
	}
	if in.WaitTimeSeconds < 0 || in.WaitTimeSeconds > 20 || in.MaxNumberOfMessages < 0 || in.MaxNumberOfMessages > 10 {
		return nil, &types.InvalidAttributeValue{Message: aws.String("WaitTimeSeconds must be 0 to 20 and MaxNumberOfMessages 1 to 10")}
	}
	c.mu.Lock()
	q := c.queue(hostURL, name)
	if q == nil {
		c.mu.Unlock()
		return nil, notExist(hostURL, name)
	}
	q.receiving++
	q.expiry.Stop()
	c.mu.Unlock()
	defer q.idle()

	messages, err := q.await(ctx, max(1, int(in.MaxNumberOfMessages)), time.Duration(in.WaitTimeSeconds)*time.Second)
	if err != nil {
		return nil, err
	}
	out := &sqs.ReceiveMessageOutput{}
	for _, h := range messages {
		c.hide(ctx, q.host.url, h, in.VisibilityTimeout)
		out.Messages = append(out.Messages, asked(h.message, in))
	}
	return out, nil
}

// idle ends a receive.
func (q *queue) idle() {
	q.host.client.mu.Lock()
	defer q.host.client.mu.Unlock()
	q.receiving--
	if q.receiving == 0 && !q.gone {
		q.expiry.Reset(q.retention)
	}
}

// await returns 1 to limit messages, or none after wait.
func (q *queue) await(ctx context.Context, limit int, wait time.Duration) ([]held, error) {
	h, c := q.host, q.host.client
	timer := time.NewTimer(wait)
	defer timer.Stop()

	c.mu.Lock()
	defer c.mu.Unlock()
	if m := q.take(limit); len(m) > 0 {
		return m, nil
	}
	if wait == 0 && !h.polling && !q.gone {
		c.mu.Unlock()
		err := h.poll(ctx, 0)
		c.mu.Lock()
		if err != nil {
			return nil, err
		}
		return q.take(limit), nil
	}
	if wait == 0 {
		return nil, nil // the poll under way would have brought it
	}
	errs := q.errs
	for {
		switch m := q.take(limit); {
		case len(m) > 0:
			return m, nil
		case q.gone:
			return nil, notExist(h.url, q.name)
		case q.errs != errs:
			return nil, q.err
		}
		changed := q.changed
		q.waiting++
		h.waiting++
		h.start()
		c.mu.Unlock()
		over := false
		var err error
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			err = ended(ctx)
		}
		c.mu.Lock()
		if changed == q.changed { // not woken
			q.waiting--
			h.waiting--
		}
		switch {
		case err != nil:
			return nil, err
		case over:
			return q.take(limit), nil
		}
	}
}

// ended is the error of a context, with its cause when that says more.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// take removes up to limit messages that are still hidden from the buffer. It is called with the lock held.
func (q *queue) take(limit int) []held {
	now := time.Now()
	var out []held
	rest := q.buffer[:0]
	for _, m := range q.buffer {
		switch {
		case !now.Before(m.until): // it is on the host queue again
		case len(out) < limit:
			out = append(out, m)
		default:
			rest = append(rest, m)
		}
	}
	clear(q.buffer[len(rest):])
	q.buffer = rest
	return out
}

// idleBuffer is how many messages are kept of a virtual queue from which nobody receives: what one receive takes.
const idleBuffer = 10

// keep adds a message that was received, in place of an earlier receive of it. Of a queue from which nobody receives
// only some are kept; the others stay hidden and come back. It is called with the lock held.
func (q *queue) keep(m held) {
	now := time.Now()
	q.buffer = slices.DeleteFunc(q.buffer, func(h held) bool {
		return !now.Before(h.until) || aws.ToString(h.message.MessageId) == aws.ToString(m.message.MessageId)
	})
	if q.receiving > 0 || len(q.buffer) < idleBuffer {
		q.buffer = append(q.buffer, m)
	}
}

// hide gives a message that is handed over its time: what was asked for, or the client's when half of it
// went by in the buffer. When that fails it comes back sooner, as a duplicate.
func (c *Client) hide(ctx context.Context, hostURL string, m held, asked int32) {
	d := time.Duration(asked) * time.Second
	if asked == 0 {
		if time.Until(m.until) >= c.visibility/2 {
			return
		}
		d = c.visibility
	}
	_, _ = c.api.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &hostURL, ReceiptHandle: m.message.ReceiptHandle, VisibilityTimeout: int32(d / time.Second),
	})
}

// start polls the host queue until nobody waits. It is called with the lock held.
func (h *host) start() {
	if h.polling {
		return
	}
	h.polling = true
	h.client.work.Go(func() {
		c := h.client
		for failures := 0; ; {
			err := h.poll(c.ctx, 20*time.Second)
			if err == nil {
				failures = 0
			} else {
				failures++
				h.fail(err)
				pause(c.ctx, failures)
			}
			c.mu.Lock()
			if h.waiting == 0 || c.closed {
				h.polling = false
				if len(h.queues) == 0 {
					delete(c.hosts, h.url)
				}
				c.mu.Unlock()
				return
			}
			c.mu.Unlock()
		}
	})
}

// fail ends the receives that wait.
func (h *host) fail(err error) {
	h.client.mu.Lock()
	defer h.client.mu.Unlock()
	for _, q := range h.queues {
		q.err = err
		q.errs++
		q.notify()
	}
}

// pause waits 50 ms to 5 s, doubling, half of it random.
func pause(ctx context.Context, failures int) {
	d := min(5*time.Second, 50*time.Millisecond<<min(failures-1, 10))
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// poll receives once from the host queue and gives out what came.
func (h *host) poll(ctx context.Context, wait time.Duration) error {
	c := h.client
	out, err := c.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &h.url, MaxNumberOfMessages: 10, WaitTimeSeconds: int32(wait / time.Second),
		VisibilityTimeout:           int32(c.visibility / time.Second),
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return err
	}
	until := time.Now().Add(c.visibility)
	var drop []held
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range out.Messages {
		name := aws.ToString(m.MessageAttributes[QueueNameAttribute].StringValue)
		if q := h.queues[name]; q != nil {
			q.keep(held{message: m, until: until})
			q.notify()
			continue
		}
		if c.orphans(h.url, name, m) {
			drop = append(drop, held{message: m})
		}
	}
	h.discard(drop)
	return nil
}

// discard deletes messages from the host queue, while nobody waits for it. It is called with the lock held.
// After Close nothing is deleted: the messages come back to the host queue.
func (h *host) discard(messages []held) {
	if h.client.closed {
		return
	}
	for len(messages) > 0 {
		n := min(10, len(messages))
		in := &sqs.DeleteMessageBatchInput{QueueUrl: &h.url}
		for i, m := range messages[:n] {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.message.ReceiptHandle,
			})
		}
		messages = messages[n:]
		h.client.work.Go(func() {
			// What is not deleted comes back and is an orphan then.
			_, _ = h.client.api.DeleteMessageBatch(h.client.ctx, in)
		})
	}
}

// asked reduces a message to what the receive asked for.
func asked(m types.Message, in *sqs.ReceiveMessageInput) types.Message {
	attributes := map[string]types.MessageAttributeValue{}
	for name, v := range m.MessageAttributes {
		for _, want := range in.MessageAttributeNames {
			prefix, isPrefix := strings.CutSuffix(want, ".*")
			all := want == "All" || want == ".*"
			if want == name || (name != QueueNameAttribute && (all || (isPrefix && strings.HasPrefix(name, prefix)))) {
				attributes[name] = v
			}
		}
	}
	m.MessageAttributes = attributes
	m.MD5OfMessageAttributes = nil // it was of all of them
	system := map[string]string{}
	for name, v := range m.Attributes {
		for _, want := range in.MessageSystemAttributeNames {
			if string(want) == name || want == types.MessageSystemAttributeNameAll {
				system[name] = v
			}
		}
		for _, want := range in.AttributeNames { //nolint:staticcheck // what older code still asks with
			if string(want) == name || want == types.QueueAttributeNameAll {
				system[name] = v
			}
		}
	}
	m.Attributes = system
	return m
}
