package rpcclient

// ReplyQueueSource says where replies come to now. A Requester owns its source: when it has shut down
// it calls Close, if the source has such a method.
type ReplyQueueSource interface {
	// Current returns the URL of the reply queue, "" while there is none, and a channel that is closed
	// at the next change; nil when there will be none. It must not block.
	Current() (url string, changed <-chan struct{})
	// Lost tells the source that SQS no longer knows the queue. It must not block.
	Lost(url string)
}

// StaticReplyQueue is a standard queue for replies that never changes. If it is deleted, calls fail. NewRequester
// refuses an empty URL: of a variable that is not set, perhaps.
func StaticReplyQueue(url string) ReplyQueueSource { return staticQueue(url) }

type staticQueue string

func (q staticQueue) Current() (string, <-chan struct{}) { return string(q), nil }
func (q staticQueue) Lost(string)                        {}
