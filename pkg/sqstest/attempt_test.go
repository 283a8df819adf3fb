package sqstest_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func attemptOf(t *testing.T, c *sqs.Client, url, id string, limit, wait int32) []types.Message {
	t.Helper()
	out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: limit, WaitTimeSeconds: wait, ReceiveRequestAttemptId: &id,
	})
	if err != nil {
		t.Error(err)
		return nil
	}
	return out.Messages
}

func TestRepeatedAttemptGetsNoMoreThanItAsksFor(t *testing.T) {
	c := sqstest.New().Client()
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	for _, b := range []string{"a", "b", "c"} {
		sendGrouped(t, c, url, b, "g")
	}
	if m := attemptOf(t, c, url, "1", 3, 0); len(m) != 3 {
		t.Fatalf("first: %d", len(m))
	}
	if m := attemptOf(t, c, url, "1", 1, 0); len(m) != 1 || *m[0].Body != "a" {
		t.Errorf("again, for one: %v", m)
	}
	if m := attemptOf(t, c, url, "1", 10, 0); len(m) != 3 {
		t.Errorf("again, for ten: %d", len(m))
	}
}

func TestRepeatedAttemptTakesOverFromTheOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client()
		url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
		var first, other, again []types.Message
		go func() { other = attemptOf(t, c, url, "2", 10, 10) }()
		synctest.Wait()
		go func() { first = attemptOf(t, c, url, "1", 10, 20) }()
		synctest.Wait()
		go func() { again = attemptOf(t, c, url, "1", 10, 20) }()
		synctest.Wait()
		if q, _ := s.Queue("q.fifo"); q.Pollers != 2 {
			t.Errorf("%d polls wait, want 2", q.Pollers)
		}
		time.Sleep(11 * time.Second)
		sendGrouped(t, c, url, "x", "g")
		synctest.Wait()
		if len(first) != 0 || len(other) != 0 || len(again) != 1 {
			t.Errorf("first %d, other %d, again %d", len(first), len(other), len(again))
		}
		// What a poll that waited got is its attempt's as well.
		if m := attemptOf(t, c, url, "1", 10, 0); len(m) != 1 || aws.ToString(m[0].ReceiptHandle) != aws.ToString(again[0].ReceiptHandle) {
			t.Errorf("third: %v", m)
		}
	})
}

func TestRepeatedAttemptStartsTheVisibilityTimeoutAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client()
		url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "10"})
		sendGrouped(t, c, url, "x", "g")
		attemptOf(t, c, url, "1", 1, 0)
		time.Sleep(6 * time.Second)
		attemptOf(t, c, url, "1", 1, 0)
		time.Sleep(6 * time.Second)
		if q, _ := s.Queue("q.fifo"); q.InFlight != 1 {
			t.Errorf("%d in flight 12 s after the first and 6 s after the second attempt", q.InFlight)
		}
		time.Sleep(4 * time.Second)
		if q, _ := s.Queue("q.fifo"); q.Visible != 1 {
			t.Errorf("%d visible 10 s after the second attempt", q.Visible)
		}
	})
}

func TestPurgeForgetsDeduplicationIDs(t *testing.T) {
	c := sqstest.New().Client()
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	sendGrouped(t, c, url, "x", "g")
	if _, err := c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &url}); err != nil {
		t.Fatal(err)
	}
	sendGrouped(t, c, url, "x", "g")
	if m := mustPoll(t, c, url, 1, 0); len(m) != 1 {
		t.Error("the deduplication ID outlived the purge")
	}
}

func TestRetentionBeginsAnewInAFIFODeadLetterQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client()
		a := map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true", "MessageRetentionPeriod": "60", "VisibilityTimeout": "1"}
		create(t, c, "dead.fifo", a)
		a["RedrivePolicy"] = `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead.fifo","maxReceiveCount":1}`
		url := create(t, c, "q.fifo", a)
		sendGrouped(t, c, url, "x", "g")
		mustPoll(t, c, url, 1, 0)
		time.Sleep(50 * time.Second)
		mustPoll(t, c, url, 1, 0) // moves it
		time.Sleep(50 * time.Second)
		if d, _ := s.Queue("dead.fifo"); d.Visible != 1 {
			t.Errorf("%d messages 100 s after the send and 50 s after the move, want 1", d.Visible)
		}
		time.Sleep(11 * time.Second)
		if d, _ := s.Queue("dead.fifo"); d.Visible != 0 {
			t.Errorf("%d messages 61 s after the move", d.Visible)
		}
	})
}

// A receive cannot be repeated whose messages were deleted or changed; one whose client hung up can, and one whose time is over.
func TestReceiveThatCannotBeRepeated(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	defer s.Close()
	c := s.Client()
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "VisibilityTimeout": "30"})
	for _, id := range []string{"a", "b"} {
		if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &id, MessageGroupId: aws.String("g"), MessageDeduplicationId: &id}); err != nil {
			t.Fatal(err)
		}
	}
	receive := func() ([]types.Message, error) {
		out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10, ReceiveRequestAttemptId: aws.String("1")})
		if err != nil {
			return nil, err
		}
		return out.Messages, nil
	}
	first, err := receive()
	if err != nil || len(first) != 2 {
		t.Fatal(len(first), err)
	}
	if again, err := receive(); err != nil || len(again) != 2 {
		t.Errorf("repeated: %d, %v", len(again), err)
	}
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: first[0].ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
	var api smithy.APIError
	if _, err := receive(); !errors.As(err, &api) || api.ErrorCode() != "InvalidParameterValue" || !strings.Contains(api.ErrorMessage(), "not retryable") {
		t.Errorf("after a delete: %v", err)
	}
	clock.Advance(31 * time.Second)
	if again, err := receive(); err != nil || len(again) != 1 || *again[0].Body != "b" {
		t.Errorf("after the time: %d, %v", len(again), err)
	}
}
