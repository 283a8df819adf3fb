package sqstest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A message that failed three times goes to the back ("standard queues", developer guide).
func TestPoisonGoesToTheBack(t *testing.T) {
	c := sqstest.New().Client()
	url := create(t, c, "q", nil)
	send(t, c, url, "poison", "second", "third")
	fail := func() string {
		m := mustPoll(t, c, url, 1, 0)
		if len(m) != 1 {
			t.Fatal("nothing received")
		}
		if _, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle}); err != nil {
			t.Fatal(err)
		}
		return *m[0].Body
	}
	if got := strings.Join([]string{fail(), fail(), fail(), fail()}, " "); got != "poison poison poison second" {
		t.Errorf("received %s", got)
	}
}

// "For FIFO queues the per-queue delay setting is retroactive" (delay queues, developer guide); for standard ones it is not.
func TestDelayOfFIFOQueuesIsRetroactive(t *testing.T) {
	for name, fifo := range map[string]bool{"q": false, "q.fifo": true} {
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New()
			c := s.Client()
			attributes := map[string]string{"DelaySeconds": "100"}
			var group *string
			if fifo {
				attributes["FifoQueue"], attributes["ContentBasedDeduplication"] = "true", "true"
				group = aws.String("g")
			}
			url := create(t, c, name, attributes)
			if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"), MessageGroupId: group}); err != nil {
				t.Fatal(err)
			}
			set := func(delay string) {
				if _, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"DelaySeconds": delay}}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(5 * time.Second)
			set("5")
			if q, _ := s.Queue(name); (q.Visible == 1) != fifo {
				t.Errorf("%s: after a shorter delay: %d visible, %d delayed", name, q.Visible, q.Delayed)
			}
			set("200")
			time.Sleep(100 * time.Second)
			if q, _ := s.Queue(name); (q.Delayed == 1) != fifo {
				t.Errorf("%s: after a longer delay: %d visible, %d delayed", name, q.Visible, q.Delayed)
			}
		})
	}
}

func TestLostSendsOfABatch(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.LostSends, Duration: 30 * time.Second})))
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
		t.Fatal(err)
	}
	out, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("a"), MessageBody: aws.String("x")},
		{Id: aws.String("b"), MessageBody: aws.String("y"), MessageAttributes: map[string]types.MessageAttributeValue{"n": {DataType: aws.String("String"), StringValue: aws.String("v")}}},
	}})
	if err != nil || len(out.Successful) != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	if n := s.Entries(sqstest.Action("SendMessageBatch")); n != 2 {
		t.Errorf("%d entries counted", n)
	}
	if len(s.Queues()) != 0 {
		t.Error("there is a queue")
	}
}

func TestAccountAndRegionOfTheServer(t *testing.T) {
	s := sqstest.New(sqstest.WithAccount("123456789012"), sqstest.WithRegion("eu-central-1"))
	url := create(t, s.Client(), "q", nil)
	q, ok := s.Queue("q")
	if !ok || q.ARN != "arn:aws:sqs:eu-central-1:123456789012:q" || !strings.HasSuffix(url, "/123456789012/q") {
		t.Errorf("%+v at %s", q, url)
	}
	if _, ok := s.Queue("none"); ok {
		t.Error("found a queue that is not there")
	}
}
