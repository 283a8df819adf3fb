package sqstest_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestHitsAreDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		time.Sleep(time.Minute)
		s.SetFaults(plan(
			sqstest.Rule{Fault: sqstest.StaleReads, Duration: time.Second},
			sqstest.Rule{Fault: sqstest.SlowCreate, Duration: time.Second},
			sqstest.Rule{Fault: sqstest.ListLag, Duration: time.Second},
			sqstest.Rule{Fault: sqstest.LostSends, Duration: time.Second},
			sqstest.Rule{Fault: sqstest.Reorder},
			sqstest.Rule{Fault: sqstest.Sharded},
			sqstest.Rule{Fault: sqstest.DeleteUnderPoll, Duration: time.Minute},
		))
		send(t, c, url, "alone")
		mustPoll(t, c, url, 1, 0)
		if _, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		if hits := s.FaultHits(); !slices.Equal(hits[:6], make([]int, 6)) || hits[6] != 1 {
			t.Errorf("hits %v, of which only the last rule could make a difference", hits)
		}
		s.Close()
	})
}

func TestStaleCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		send(t, c, url, "x")
		s.SetFaults(plan(sqstest.Rule{Fault: sqstest.StaleReads, Action: "GetQueueAttributes", Duration: 5 * time.Second}))
		time.Sleep(time.Minute)
		counts := func() string {
			out, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"All"}})
			if err != nil {
				t.Fatal(err)
			}
			return out.Attributes["ApproximateNumberOfMessages"] + " " + out.Attributes["ApproximateNumberOfMessagesNotVisible"]
		}
		seen := []string{counts()}
		send(t, c, url, "y", "z")
		seen = append(seen, counts())
		time.Sleep(3 * time.Second)
		mustPoll(t, c, url, 1, 0)
		seen = append(seen, counts())
		time.Sleep(2 * time.Second)
		seen = append(seen, counts())
		time.Sleep(3 * time.Second)
		seen = append(seen, counts())
		if want := []string{"1 0", "1 0", "1 0", "3 0", "2 1"}; !slices.Equal(seen, want) {
			t.Errorf("saw %q, want %q", seen, want)
		}
	})
}

func TestDeliveryLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.DeliveryLag, Duration: 3 * time.Second})))
		c := s.Client()
		url := create(t, c, "q", nil)
		send(t, c, url, "x")
		start := time.Now()
		if m := mustPoll(t, c, url, 1, 20); len(m) != 1 || time.Since(start) != 3*time.Second {
			t.Errorf("%d messages after %v", len(m), time.Since(start))
		}
	})
}

func TestStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.StaleReads, Duration: 5 * time.Second})))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		if _, err := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")}); !isA[*types.QueueDoesNotExist](err) {
			t.Errorf("a new queue was seen at once: %v", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"DelaySeconds": "9"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
		read := func() (string, int) {
			a, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"All"}})
			if err != nil {
				t.Fatal(err)
			}
			tags, err := c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &url})
			if err != nil {
				t.Fatal(err)
			}
			return a.Attributes["DelaySeconds"], len(tags.Tags)
		}
		if delay, tags := read(); delay != "0" || tags != 0 {
			t.Errorf("the change was seen at once: %s, %d", delay, tags)
		}
		time.Sleep(5 * time.Second)
		if delay, tags := read(); delay != "9" || tags != 1 {
			t.Errorf("the change is not seen: %s, %d", delay, tags)
		}
	})
}

func TestStaleReadsOfADeletedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client(noRetries)
		url := create(t, c, "q", map[string]string{"DelaySeconds": "9"})
		if _, err := c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
		send(t, c, url, "x")
		s.SetFaults(plan(sqstest.Rule{Fault: sqstest.StaleReads, Duration: 5 * time.Second}))
		time.Sleep(5 * time.Second)
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		for _, seen := range []bool{true, false} {
			_, find := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")})
			a, attributes := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"All"}})
			tags, list := c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &url})
			for what, err := range map[string]error{"GetQueueUrl": find, "GetQueueAttributes": attributes, "ListQueueTags": list} {
				if (err == nil) != seen || err != nil && !isA[*types.QueueDoesNotExist](err) {
					t.Errorf("%s, to be seen %v: %v", what, seen, err)
				}
			}
			if seen && (a.Attributes["DelaySeconds"] != "9" || tags.Tags["a"] != "b") {
				t.Errorf("%v, %v", a.Attributes, tags.Tags)
			}
			if _, err := poll(t.Context(), c, url, 1, 0); !isA[*types.QueueDoesNotExist](err) {
				t.Errorf("a receive saw the deleted queue: %v", err)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

func TestSlowCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.SlowCreate, Duration: time.Second}))).Client(noRetries)
		url := create(t, c, "q", nil)
		trySend := func() error {
			_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
			return err
		}
		if err := trySend(); !isA[*types.QueueDoesNotExist](err) {
			t.Errorf("a send at once: %v", err)
		}
		time.Sleep(time.Second)
		if err := trySend(); err != nil {
			t.Errorf("a send after a second: %v", err)
		}
	})
}

func TestListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.ListLag, Duration: 5 * time.Second})))
		c := s.Client()
		list := func() int {
			out, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{})
			if err != nil {
				t.Fatal(err)
			}
			return len(out.QueueUrls)
		}
		url := create(t, c, "q", nil)
		seen := []int{list()}
		time.Sleep(5 * time.Second)
		seen = append(seen, list())
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, list())
		time.Sleep(5 * time.Second)
		seen = append(seen, list())
		if !slices.Equal(seen, []int{0, 1, 1, 0}) {
			t.Errorf("after creation, later, after deletion, later: %v", seen)
		}
	})
}

func TestLostSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.LostSends, Duration: 30 * time.Second})))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		send(t, c, url, "lost") // the SDK checks the answer's digest
		time.Sleep(30 * time.Second)
		_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
		if !isA[*types.QueueDoesNotExist](err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSixtySecondRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New().Client(noRetries)
		name := "q"
		url := create(t, c, name, nil)
		purge := func() error {
			_, err := c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &url})
			return err
		}
		recreate := func() error {
			_, err := c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
			return err
		}
		if err := purge(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - time.Millisecond)
		if err := purge(); !isA[*types.PurgeQueueInProgress](err) {
			t.Errorf("a second purge within the minute: %v", err)
		}
		time.Sleep(time.Millisecond)
		if err := purge(); err != nil {
			t.Errorf("a purge after a minute: %v", err)
		}
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - time.Millisecond)
		if err := recreate(); !isA[*types.QueueDeletedRecently](err) {
			t.Errorf("a new queue of the name within the minute: %v", err)
		}
		time.Sleep(time.Millisecond)
		if err := recreate(); err != nil {
			t.Errorf("a new queue of the name after a minute: %v", err)
		}
	})
}

// What is lost is answered as if it were not: with a sequence number by a FIFO queue, and with the errors that SQS has for it.
func TestLostSendsOfAFIFOQueue(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.LostSends, Duration: 30 * time.Second})))
	defer s.Close()
	c := s.Client()
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
		t.Fatal(err)
	}
	out, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"), MessageGroupId: aws.String("g")})
	if err != nil || out.SequenceNumber == nil {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")}); err == nil {
		t.Error("a message without a group was taken")
	}
	batch, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("0"), MessageBody: aws.String("\x01"), MessageGroupId: aws.String("g")},
		{Id: aws.String("1"), MessageBody: aws.String("y"), MessageGroupId: aws.String("g")},
	}})
	if err != nil || len(batch.Failed) != 1 || len(batch.Successful) != 1 || batch.Successful[0].SequenceNumber == nil {
		t.Errorf("%+v, %v", batch, err)
	}
}
