package rpcclient

import "time"

// CallOption configures one call.
type CallOption func(*callConfig)

type callConfig struct {
	timeout       *time.Duration
	group         string
	metadata      Metadata
	replyMetadata *Metadata
	callID        string
	maxAttempts   int
	idempotent    bool // the method's
	expiry        *time.Duration
	nilOption     bool // one of the options was nil
}

func (c *callConfig) apply(opts []CallOption) {
	for _, o := range opts {
		if o == nil {
			c.nilOption = true
			continue
		}
		o(c)
	}
}

// CallTimeout ends the call after d, measured from the moment of the call. An earlier deadline of the
// context still counts. With 0 or less, what is left of some budget perhaps, the call ends at once and
// nothing is sent.
func CallTimeout(d time.Duration) CallOption { return func(c *callConfig) { c.timeout = &d } }

// CallGroup sets the message group, 1 to 128 letters, digits or punctuation of ASCII: on a FIFO channel, calls of one group are
// handled in the order in which SQS took them, which is that of calls that were made one after the other,
// but any of calls that were under way together (Start, or several goroutines); on a standard one, it is the tenant of SQS's fair queues. Without it a FIFO call
// is a group by itself.
func CallGroup(key string) CallOption { return func(c *callConfig) { c.group = key } }

// CallMetadata sends a key and value with the request, at most 4 KiB in all.
func CallMetadata(key, value string) CallOption {
	return func(c *callConfig) {
		if c.metadata == nil {
			c.metadata = Metadata{}
		}
		c.metadata[key] = value
	}
}

// CallReplyMetadata stores in md what the handler sent with SetReplyMetadata, when the call has ended;
// nil if that is nothing.
func CallReplyMetadata(md *Metadata) CallOption { return func(c *callConfig) { c.replyMetadata = md } }

// CallMaxAttempts bounds the attempts of the call, 1 (never repeat) to 10, in place of the channel's and
// the requester's.
func CallMaxAttempts(n int) CallOption {
	return func(c *callConfig) { c.maxAttempts = min(max(1, n), maxAttemptsLimit) }
}

// WithCallID sets the call's identifier, so that a later process can Resume the call: store what NewCallID returns
// before calling. 16 to 120 letters, digits, "-" or "_"; it must not be guessable. A second call on the same channel
// with the same identifier, method and body is answered with the first one's reply for as long as the responder keeps
// it, also when that came after the first one's deadline: an answer for longer the oftener it is asked for, an error
// for the first call's time and the queue's visibility timeout, after which the next is executed. While the first one's
// handler runs it waits for it with the first one's deadline: where the handler gives up, or gave up, for that, it is
// executed for the second one, if that has time, by a later deadline than others of them, and a receive left; with a
// shared ReplyStore only if it reached the same responder before that, and has that error otherwise. The replies of a
// stream are not kept: made again, it is not answered. On another channel it is another call, but give that an
// identifier of its own: a reply that SQS delivers twice would be taken for its. On a FIFO channel SQS itself drops a
// second one for five minutes: there Resume is the way to the reply. Its replies are never packed. Like any call's, an
// error's Outcome is of this call alone: of one that repeats an identifier, NotSent and Rejected say nothing about
// those before it.
func WithCallID(id string) CallOption { return func(c *callConfig) { c.callID = id } }

// NotifyExpiry drops the request of a Notify when it was not taken up within d. Without it the request
// is valid as long as SQS keeps it, 14 days at most. With 0 or less it is not sent.
func NotifyExpiry(d time.Duration) CallOption { return func(c *callConfig) { c.expiry = &d } }
