package sqstest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var fifoAttributes = map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "1"}

func sendGrouped(t testing.TB, c *sqs.Client, url, body, group string) {
	t.Helper()
	_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, MessageGroupId: &group})
	if err != nil {
		t.Fatal(err)
	}
}

// A group whose first message nobody ever finishes must not keep other groups waiting.
func TestPoisonedGroupDoesNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New().Client()
		url := create(t, c, "q.fifo", fifoAttributes)
		for _, g := range []string{"poison", "good", "better"} {
			sendGrouped(t, c, url, g, g)
		}
		seen := map[string]int{}
		for range 30 {
			for _, m := range mustPoll(t, c, url, 1, 0) {
				seen[*m.Body]++
			}
			time.Sleep(1100 * time.Millisecond)
		}
		if seen["poison"] != 10 || seen["good"] != 10 || seen["better"] != 10 {
			t.Errorf("received %v, want ten of each", seen)
		}
	})
}

// Whose turn it is outlives a restart.
func TestTurnIsKeptOverSaveAndLoad(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client()
	url := create(t, c, "q.fifo", fifoAttributes)
	sendGrouped(t, c, url, "a", "a")
	sendGrouped(t, c, url, "b", "b")
	m := mustPoll(t, c, url, 1, 0)
	if _, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
	_, c = reborn(t, s, clock)
	if m := mustPoll(t, c, url, 2, 0); len(m) != 2 || aws.ToString(m[0].Body) != "b" || aws.ToString(m[1].Body) != "a" {
		t.Errorf("received %v", m)
	}
}
