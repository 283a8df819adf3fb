package rpcclient

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/middleware"
)

// queueAPI is the part of SQS this package uses, one attempt per method call, with time limits, counted.
type queueAPI struct {
	client *sqs.Client
	stats  *Stats
	hooks  hooks
	crew   crew // makes the calls that nobody's own goroutine makes

	// rousing is how many goroutines have been given something that they are about to run for, and are likely to
	// send something of their own then: callers of delivered replies, and requests that were received.
	rousing atomic.Int64

	// behind is how far this machine's clock is behind SQS's at least, by the latest answer to a send: nanoseconds, 0 or
	// more.
	behind atomic.Int64
}

// sendTime is the time to stamp on a message that is sent at now by this machine's clock. Where that is behind, it is
// SQS's, or up to a second before: what seems to have been sent minutes ago is dropped. One that is ahead harms nobody.
func (a *queueAPI) sendTime(now time.Time) time.Time { return now.Add(time.Duration(a.behind.Load())) }

func newQueueAPI(client *sqs.Client, stats *Stats, h hooks) *queueAPI {
	return &queueAPI{client: newClient(client), stats: stats, hooks: h}
}

// close ends what its calls have kept, when none is made any more: connections and goroutines.
func (a *queueAPI) close() {
	a.crew.close()
	if d, ok := a.client.Options().HTTPClient.(tracingDoer); ok && d.own != nil {
		d.own.CloseIdleConnections()
	}
}

// maxBatch is the most entries or messages in one SQS request.
const maxBatch = 10

// batchIDs are the entry IDs of a batch; the index is the entry's.
var batchIDs = [maxBatch]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

// entryIndex undoes batchIDs; -1 for an ID that is none of them or not below n.
func entryIndex(id *string, n int) int {
	if id == nil || len(*id) != 1 || (*id)[0] < '0' || int((*id)[0]-'0') >= n {
		return -1
	}
	return int((*id)[0] - '0')
}

func (a *queueAPI) count(action Action, queueURL string, entries int, started time.Time, err error) {
	a.stats.requests[action].Add(1)
	a.stats.entries[action].Add(int64(entries))
	if err != nil {
		a.stats.failures[action].Add(1)
	}
	a.hooks.onRequest(SQSRequest{
		Action: action, QueueURL: queueURL, Entries: entries, Took: time.Since(started), Err: err,
	})
}

// send makes one attempt; notSent reports that it certainly had no effect.
func (a *queueAPI) send(ctx context.Context, queueURL string, entries []types.SendMessageBatchRequestEntry) (out *sqs.SendMessageBatchOutput, notSent bool, err error) {
	started := time.Now()
	limit := sendTimeout
	for i := range entries {
		limit += time.Duration(len(deref(entries[i].MessageBody))) * time.Second / slowestLink
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var at attempt
	out, err = a.client.SendMessageBatch(at.attach(ctx), &sqs.SendMessageBatchInput{QueueUrl: &queueURL, Entries: entries})
	a.count(ActionSend, queueURL, len(entries), started, err)
	if err == nil {
		if date := dateOf(out.ResultMetadata); !date.IsZero() {
			a.behind.Store(max(0, int64(time.Until(date))))
		}
	}
	return out, err != nil && at.certainlyNotSent(err), err
}

// replyAttributes are what a requester asks for: only what it reads, so that agents' attributes cost
// nothing. requestAttributes are the responder's.
var (
	replyAttributes   = []string{attributeEnvelope, attributeVirtualQueue, TraceParent}
	requestAttributes = []string{attributeEnvelope, attributeReplyTo, attributeVirtualQueue, TraceParent}
	systemAttributes  = []types.MessageSystemAttributeName{
		types.MessageSystemAttributeNameSentTimestamp,
		types.MessageSystemAttributeNameApproximateFirstReceiveTimestamp,
		types.MessageSystemAttributeNameApproximateReceiveCount,
	}
	// replySystemAttributes leave out what only a request's deadline needs: strays are dated by the second.
	replySystemAttributes = []types.MessageSystemAttributeName{
		types.MessageSystemAttributeNameSentTimestamp,
		types.MessageSystemAttributeNameApproximateReceiveCount,
	}
	fifoSystemAttributes = append(systemAttributes[:len(systemAttributes):len(systemAttributes)],
		types.MessageSystemAttributeNameMessageGroupId)
)

// longPoll is what one receive asks for.
type longPoll struct {
	queueURL         string
	attributes       []string
	system           []types.MessageSystemAttributeName
	max              int           // messages, 1 to 10
	wait, visibility time.Duration // whole seconds
}

// receive makes one long poll. at is when the answer arrived, date what its Date header said (zero if
// nothing).
func (a *queueAPI) receive(ctx context.Context, p longPoll) (msgs []types.Message, at, date time.Time, err error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.wait+receiveSlack)
	defer cancel()
	out, err := a.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    &p.queueURL,
		MaxNumberOfMessages:         int32(p.max),
		WaitTimeSeconds:             int32(p.wait / time.Second),
		VisibilityTimeout:           int32(p.visibility / time.Second),
		MessageAttributeNames:       p.attributes,
		MessageSystemAttributeNames: p.system,
	})
	at = time.Now()
	if err == nil {
		msgs, date = out.Messages, dateOf(out.ResultMetadata)
	}
	a.count(ActionReceive, p.queueURL, len(msgs), started, err)
	return msgs, at, date, err
}

func (a *queueAPI) delete(ctx context.Context, queueURL string, entries []types.DeleteMessageBatchRequestEntry) (*sqs.DeleteMessageBatchOutput, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	out, err := a.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &queueURL, Entries: entries})
	a.count(ActionDelete, queueURL, len(entries), started, err)
	return out, err
}

func (a *queueAPI) changeVisibility(ctx context.Context, queueURL string, entries []types.ChangeMessageVisibilityBatchRequestEntry) (failed []types.BatchResultErrorEntry, date time.Time, err error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	out, err := a.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &queueURL, Entries: entries})
	a.count(ActionChangeVisibility, queueURL, len(entries), started, err)
	if err != nil {
		return nil, date, err
	}
	return out.Failed, dateOf(out.ResultMetadata), nil
}

// dateOf is what an answer's Date header says: SQS's clock in whole seconds, cut off; zero when there is none.
func dateOf(m middleware.Metadata) time.Time {
	date, _ := awsmiddleware.GetServerTime(m)
	return date
}

// backoff is the pause before try n (from 1): doubling from 50 ms to at most limit, half of it random.
func backoff(n int, limit time.Duration) time.Duration {
	d := min(limit, 50*time.Millisecond<<min(max(n-1, 0), 20))
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d or the end of ctx, and reports whether it waited in full.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
