package virtualqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Names on the wire and in CreateQueue, fixed by the Amazon SQS Temporary Queue Client for Java.
const (
	// HostQueueURL is the attribute of CreateQueue that makes a virtual queue on the queue it names.
	HostQueueURL = "HostQueueUrl"
	// IdleRetention is the attribute of CreateQueue that says after how many seconds (1 or more; unset:
	// 300) without a receive a virtual queue is forgotten.
	IdleRetention = "IdleQueueRetentionPeriodSeconds"
	// QueueNameAttribute is the message attribute that holds a virtual queue's name.
	QueueNameAttribute = "__AmazonSQSVirtualQueuesClient.QueueName"

	// documentedHostQueueURL is how AWS's documentation spells HostQueueURL.
	documentedHostQueueURL = "HostQueueURL"
)

// DefaultIdleRetention of a virtual queue (the Java client's).
const DefaultIdleRetention = 300 * time.Second

// API is what Client needs of an SQS client. *sqs.Client has it.
type API interface {
	CreateQueue(context.Context, *sqs.CreateQueueInput, ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error)
	DeleteQueue(context.Context, *sqs.DeleteQueueInput, ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error)
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessage(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
	ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
}

// Client has SQS's operations on real and virtual queues. It is safe for concurrent use.
type Client struct {
	api        API
	visibility time.Duration
	orphans    func(hostQueueURL, name string, m types.Message) (drop bool)

	ctx    context.Context // ends when Close gives up waiting
	cancel context.CancelFunc
	work   sync.WaitGroup // polls, and deletes that nobody waits for

	mu     sync.Mutex
	closed bool
	hosts  map[string]*host
}

// Option configures a Client.
type Option func(*Client)

// WithVisibility sets for how long a message is hidden that was received for a virtual queue, 1 s to
// 12 h, in whole seconds; the default is 30 s, SQS's. ReceiveMessageInput.VisibilityTimeout overrides it
// for one receive, at the cost of a ChangeMessageVisibility for each message.
func WithVisibility(d time.Duration) Option { return func(c *Client) { c.visibility = d } }

// WithOrphans sets what is asked about a message for a virtual queue that this process does not have
// (name is empty when the message names none): true deletes it, false leaves it to come back to the host
// queue. It must not block.
func WithOrphans(f func(hostQueueURL, name string, m types.Message) (drop bool)) Option {
	return func(c *Client) { c.orphans = f }
}

// orphanReceives is how often a message nobody knows is seen before it is dropped.
const orphanReceives = 3

// New returns a client that makes its requests through api. It makes none before it is used.
func New(api API, opts ...Option) *Client {
	c := &Client{
		api: api, visibility: 30 * time.Second, hosts: map[string]*host{},
		orphans: func(_, _ string, m types.Message) bool {
			n, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
			return err != nil || n >= orphanReceives
		},
	}
	for _, o := range opts {
		o(c)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close forgets all virtual queues; receives that wait on them end with QueueDoesNotExist. It waits for
// polls under way, 20 s at most, because SQS may have chosen messages for them; when ctx ends first they
// are cut off and it returns ctx's cause.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	for _, h := range c.hosts {
		for _, q := range h.queues {
			q.forget()
		}
	}
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends when the polls have, at the latest once c.cancel has cut them off
		defer close(done)
		c.work.Wait()
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.cancel()
	<-done
	return err
}

// CreateQueue makes a virtual queue when the attribute HostQueueURL is given: QueueName is then the
// virtual queue's name, 1 to 256 printable ASCII characters without #, and the only other attribute is
// IdleRetention. Nothing is sent. As with SQS, creating it again with the same retention returns it, and
// with another fails with QueueNameExists. Without HostQueueURL it is the SDK's CreateQueue.
func (c *Client) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, opts ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	hostURL, virtual := in.Attributes[HostQueueURL]
	if !virtual {
		hostURL, virtual = in.Attributes[documentedHostQueueURL]
	}
	if !virtual {
		if _, idle := in.Attributes[IdleRetention]; idle {
			return nil, &types.InvalidAttributeName{Message: aws.String(IdleRetention +
				" without " + HostQueueURL + ": queues of SQS itself are not deleted when idle here; a ReplyHost makes such")}
		}
		return c.api.CreateQueue(ctx, in, opts...)
	}
	retention, err := idleRetention(in.Attributes)
	if err != nil {
		return nil, err
	}
	if err := checkHost(hostURL); err != nil {
		return nil, err
	}
	name := aws.ToString(in.QueueName)
	if !namePattern.MatchString(name) {
		return nil, &types.InvalidAttributeValue{Message: aws.String(fmt.Sprintf(
			"QueueName %q of a virtual queue must have 1 to 256 printable ASCII characters without #", name))}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	h := c.hosts[hostURL]
	if h == nil {
		h = &host{client: c, url: hostURL, queues: map[string]*queue{}}
		c.hosts[hostURL] = h
	}
	q := h.queues[name]
	switch {
	case q == nil:
		h.add(name, retention)
	case q.retention != retention:
		return nil, &types.QueueNameExists{Message: aws.String(fmt.Sprintf(
			"the virtual queue %s exists with %s of %.0f", name, IdleRetention, q.retention.Seconds()))}
	}
	return &sqs.CreateQueueOutput{QueueUrl: aws.String(hostURL + "#" + name)}, nil
}

var (
	errClosed   = errors.New("virtualqueue: the client was closed")
	namePattern = regexp.MustCompile(`^[!-"$-~]{1,256}$`)
	// nativeHost is the form of the operator's reply queues. Their names are never used again, so there is
	// no fail-over queue for them.
	nativeHost = regexp.MustCompile(`/[A-Za-z0-9-]+_[A-Za-z0-9-]+_r_[A-Za-z0-9-]+$`)
)

func idleRetention(attributes map[string]string) (time.Duration, error) {
	retention := DefaultIdleRetention
	for name, value := range attributes {
		switch name {
		case HostQueueURL, documentedHostQueueURL:
		case IdleRetention:
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n < 1 {
				return 0, &types.InvalidAttributeValue{Message: aws.String(fmt.Sprintf("%s %q must be a number of seconds, 1 or more", IdleRetention, value))}
			}
			retention = time.Duration(n) * time.Second
		default:
			return 0, &types.InvalidAttributeName{Message: aws.String("a virtual queue has no attribute " + name +
				": only " + HostQueueURL + " and " + IdleRetention)}
		}
	}
	return retention, nil
}

func checkHost(hostURL string) error {
	var problem string
	switch {
	case hostURL == "":
		problem = "is empty: is there no reply queue yet?"
	case strings.Contains(hostURL, "#"):
		problem = "is itself a virtual queue"
	case strings.HasSuffix(hostURL, ".fifo"):
		problem = "is a FIFO queue, which cannot be a host"
	default:
		return nil
	}
	return &types.InvalidAttributeValue{Message: aws.String(HostQueueURL + " " + problem)}
}

// DeleteQueue forgets a virtual queue: receives that wait on it end with QueueDoesNotExist, and messages
// that were received for it but not handed over are deleted. Messages that come later are orphans. The
// queue of a URL without # is deleted by the SDK.
func (c *Client) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, opts ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	hostURL, name, virtual := strings.Cut(aws.ToString(in.QueueUrl), "#")
	if !virtual {
		return c.api.DeleteQueue(ctx, in, opts...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queue(hostURL, name)
	if q == nil {
		return nil, notExist(hostURL, name)
	}
	q.forget()
	q.host.discard(q.buffer)
	q.buffer = nil
	return &sqs.DeleteQueueOutput{}, nil
}

// queue returns a live virtual queue or nil. It is called with the lock held.
func (c *Client) queue(hostURL, name string) *queue {
	if h := c.hosts[hostURL]; h != nil {
		return h.queues[name]
	}
	return nil
}

func notExist(hostURL, name string) error {
	return &types.QueueDoesNotExist{Message: aws.String(fmt.Sprintf(
		"there is no virtual queue %s on %s: it was deleted, or nobody received from it for its idle retention", name, hostURL))}
}

// SendMessage sends to a virtual queue of any process over its host queue, with one attribute more than
// the message has. Where the host queue is a Java client's and gone, it is tried once at <host>-Failover,
// where that client goes on. A URL without # goes to the SDK.
func (c *Client) SendMessage(ctx context.Context, in *sqs.SendMessageInput, opts ...func(*sqs.Options)) (*sqs.SendMessageOutput, error) {
	hostURL, name, virtual := strings.Cut(aws.ToString(in.QueueUrl), "#")
	if !virtual {
		return c.api.SendMessage(ctx, in, opts...)
	}
	if !namePattern.MatchString(name) {
		return nil, notExist(hostURL, name)
	}
	send := *in
	send.QueueUrl = &hostURL
	send.MessageAttributes = maps.Clone(in.MessageAttributes)
	if send.MessageAttributes == nil {
		send.MessageAttributes = map[string]types.MessageAttributeValue{}
	}
	send.MessageAttributes[QueueNameAttribute] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &name}
	out, err := c.api.SendMessage(ctx, &send, opts...)
	var gone *types.QueueDoesNotExist
	if errors.As(err, &gone) && !nativeHost.MatchString(hostURL) {
		failover := hostURL + "-Failover"
		send.QueueUrl = &failover
		if again, err := c.api.SendMessage(ctx, &send, opts...); err == nil {
			return again, nil
		}
	}
	return out, err
}

// DeleteMessage deletes a message that ReceiveMessage handed over, from the host queue when the URL is a
// virtual queue's. The virtual queue may be gone by then.
func (c *Client) DeleteMessage(ctx context.Context, in *sqs.DeleteMessageInput, opts ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error) {
	onHost := *in
	onHost.QueueUrl = hostOf(in.QueueUrl)
	return c.api.DeleteMessage(ctx, &onHost, opts...)
}

// ChangeMessageVisibility changes when a message comes back that ReceiveMessage handed over.
func (c *Client) ChangeMessageVisibility(ctx context.Context, in *sqs.ChangeMessageVisibilityInput, opts ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	onHost := *in
	onHost.QueueUrl = hostOf(in.QueueUrl)
	return c.api.ChangeMessageVisibility(ctx, &onHost, opts...)
}

func hostOf(url *string) *string {
	hostURL, _, virtual := strings.Cut(aws.ToString(url), "#")
	if !virtual {
		return url
	}
	return &hostURL
}
