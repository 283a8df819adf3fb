package rpcclient

import (
	"fmt"
	"strings"
	"time"
)

// ChannelConfig describes a request queue to the side that uses it.
type ChannelConfig struct {
	// Name by which the program knows the channel, e.g. "login" or "pricing.shop".
	Name string
	// URL of the request queue.
	URL string
	// FIFO is set when the queue is one; also told by a URL that ends in .fifo.
	FIFO bool
	// Timeout of calls that name none; 0: the requester's.
	Timeout time.Duration
	// MaxAttempts of a call, 1 to 10; 0: the requester's.
	MaxAttempts int
	// VisibilityTimeout of the queue; 0: AWS's default of 30 s.
	VisibilityTimeout time.Duration
	// DeadLetter is true when the queue has a dead-letter queue.
	DeadLetter bool
	// MaxReceiveCount is how often a message of such a queue may be received before it is moved, 1 to 1000; 0: not known.
	// A responder that has no place for a request which it was given puts it back for others only where that leaves two
	// receives, or one where it is shut down and the call has less than 30 s left, and otherwise keeps it until it has a place.
	MaxReceiveCount int
	// MaxMessageBytes is the queue's limit, 1,024 to 1,048,576; 0: 1,048,576, AWS's default.
	MaxMessageBytes int
}

// defaultVisibility is a queue's visibility timeout where none is set (SetQueueAttributes, API reference).
const defaultVisibility = 30 * time.Second

func (c *ChannelConfig) setDefaults() {
	c.FIFO = c.FIFO || strings.HasSuffix(c.URL, ".fifo")
	if c.VisibilityTimeout <= 0 {
		c.VisibilityTimeout = defaultVisibility
	}
	if c.MaxMessageBytes <= 0 || c.MaxMessageBytes > maxSQSBytes {
		c.MaxMessageBytes = maxSQSBytes
	}
}

// Channel is a request queue as one Requester sends to it. It is safe for concurrent use.
type Channel struct {
	config    ChannelConfig
	requester *Requester
	sender    *sender
	retries   *retrier
}

// Name is the name under which the channel was asked for.
func (c *Channel) Name() string { return c.config.Name }

// URL of the request queue.
func (c *Channel) URL() string { return c.config.URL }

// unknownChannel says what a program can call, and what to do.
func unknownChannel(name string, known []ChannelConfig) error {
	names := make([]string, len(known))
	for i := range known {
		names[i] = known[i].Name
	}
	have := "none"
	if len(names) > 0 {
		have = strings.Join(names, ", ")
	}
	return fmt.Errorf("no channel %q: this requester knows %s; name it in the pod's annotation replyqueue.dev/calls, or pass it WithChannels", name, have)
}
