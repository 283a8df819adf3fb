package sqstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// reborn saves a server and loads the result into another one with the same clock.
func reborn(t *testing.T, s *sqstest.Server, clock sqstest.Clock) (*sqstest.Server, *sqs.Client) {
	t.Helper()
	var saved bytes.Buffer
	if err := s.Save(&saved); err != nil {
		t.Fatal(err)
	}
	again := sqstest.New(sqstest.WithClock(clock))
	if err := again.Load(&saved); err != nil {
		t.Fatal(err)
	}
	var second bytes.Buffer
	if err := again.Save(&second); err != nil {
		t.Fatal(err)
	}
	var first bytes.Buffer
	if err := s.Save(&first); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Errorf("saved, loaded and saved again:\n%s\n%s", first.String(), second.String())
	}
	return again, again.Client(noRetries)
}

func TestSavedStandardQueueGoesOn(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	dead := create(t, c, "dead", nil)
	url := create(t, c, "q", map[string]string{
		"VisibilityTimeout": "60",
		"RedrivePolicy":     `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":2}`,
	})
	if _, err := c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"k": "<v>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{
		QueueUrl: &url, MessageBody: aws.String("in flight \u2028 <&>"), MessageGroupId: aws.String("g"),
		MessageAttributes: map[string]types.MessageAttributeValue{"n": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}}},
	}); err != nil {
		t.Fatal(err)
	}
	send(t, c, url, "second", "third")
	held := mustPoll(t, c, url, 1, 0)
	if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("delayed"), DelaySeconds: 100}); err != nil {
		t.Fatal(err)
	}
	gone := create(t, c, "gone", nil)
	if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &gone}); err != nil {
		t.Fatal(err)
	}

	s, c = reborn(t, s, clock)
	if q, _ := s.Queue("q"); q.Visible != 2 || q.InFlight != 1 || q.Delayed != 1 || q.Tags["k"] != "<v>" || q.Attributes["VisibilityTimeout"] != "60" {
		t.Errorf("%+v", q)
	}
	if _, err := c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("gone")}); !isA[*types.QueueDeletedRecently](err) {
		t.Errorf("the deleted name: %v", err)
	}
	if m := mustPoll(t, c, url, 2, 0); len(m) != 2 || *m[0].Body != "second" || *m[1].Body != "third" {
		t.Errorf("received %v", m)
	}
	clock.Advance(61 * time.Second)
	again, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
	if err != nil || len(again.Messages) != 3 {
		t.Fatalf("%v, %v", again, err)
	}
	m := again.Messages[slices.IndexFunc(again.Messages, func(m types.Message) bool { return *m.MessageId == *held[0].MessageId })]
	if *m.Body != *held[0].Body || m.Attributes["ApproximateReceiveCount"] != "2" ||
		m.Attributes["MessageGroupId"] != "g" || string(m.MessageAttributes["n"].BinaryValue) != "\x00\xff" {
		t.Errorf("%+v", m)
	}
	// The handle from before the restart is still the message's.
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: held[0].ReceiptHandle}); err != nil {
		t.Error(err)
	}
	clock.Advance(61 * time.Second)
	mustPoll(t, c, url, 10, 0)
	if q, _ := s.Queue("dead"); q.Visible != 2 {
		t.Errorf("%d messages in the dead-letter queue %s", q.Visible, dead)
	}
	if q, _ := s.Queue("q"); q.InFlight+q.Visible+q.Delayed != 1 {
		t.Errorf("%+v", q)
	}
	reborn(t, s, clock)
}

func TestSavedFIFOQueueGoesOn(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true"})
	put := func(body string) (id, sequence string) {
		out, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, MessageGroupId: aws.String("g"), MessageDeduplicationId: &body})
		if err != nil {
			t.Fatal(err)
		}
		return *out.MessageId, *out.SequenceNumber
	}
	first, sequence := put("1")
	put("2")
	if m := mustPoll(t, c, url, 1, 0); len(m) != 1 {
		t.Fatal("nothing")
	}

	s, c = reborn(t, s, clock)
	if m := mustPoll(t, c, url, 1, 0); len(m) != 0 {
		t.Error("the group is not locked")
	}
	if id, _ := put("1"); id != first {
		t.Error("the duplicate was not recognised")
	}
	if _, next := put("3"); next <= sequence {
		t.Errorf("sequence number %s after %s", next, sequence)
	}
	clock.Advance(31 * time.Second)
	var bodies []string
	for _, m := range mustPoll(t, c, url, 10, 0) {
		bodies = append(bodies, *m.Body)
	}
	if got := strings.Join(bodies, " "); got != "1 2 3" {
		t.Errorf("received %s", got)
	}
	reborn(t, s, clock)
}

func TestSavedReceiveAttemptsAreRemembered(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "600"})
	sendGrouped(t, c, url, "x", "g")
	first := attemptOf(t, c, url, "1", 1, 0)
	s, c = reborn(t, s, clock)
	if again := attemptOf(t, c, url, "1", 1, 0); len(again) != 1 || *again[0].ReceiptHandle != *first[0].ReceiptHandle {
		t.Errorf("the attempt got %v, and after a restart %v", first, again)
	}
	clock.Advance(5 * time.Minute)
	if again := attemptOf(t, c, url, "1", 1, 0); len(again) != 0 {
		t.Errorf("after five minutes the attempt still gets %v", again)
	}
	reborn(t, s, clock)
}

func TestLoadRefuses(t *testing.T) {
	s := sqstest.New()
	c := s.Client()
	send(t, c, create(t, c, "q", nil), "x", "y")
	var saved bytes.Buffer
	if err := s.Save(&saved); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(bytes.NewReader(saved.Bytes())); err == nil {
		t.Error("loaded into a server with queues")
	}
	again := sqstest.New()
	for n := range saved.Len() - 1 {
		if err := again.Load(bytes.NewReader(saved.Bytes()[:n])); err == nil {
			t.Fatalf("loaded the first %d of %d bytes", n, saved.Len())
		}
	}
	for _, bad := range []string{"", "{}", "nonsense", `{"Format":"sqstest","Version":99}`, saved.String() + "{}", saved.String() + "x"} {
		if err := again.Load(strings.NewReader(bad)); err == nil {
			t.Errorf("loaded %.40q", bad)
		}
	}
	if len(again.Queues()) != 0 {
		t.Error("a failed Load left queues")
	}
	if err := again.Load(&saved); err != nil {
		t.Errorf("after failures: %v", err)
	}
	broken := errors.New("disk full")
	if err := again.Save(writer(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("saved to a full disk: %v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// While messages move from queue to queue, every picture has each of them exactly once.
func TestSavedWhileMessagesMove(t *testing.T) {
	s := sqstest.New()
	defer s.Close()
	c := s.Client(noRetries)
	create(t, c, "dead", nil)
	url := create(t, c, "a", map[string]string{
		"VisibilityTimeout": "0",
		"RedrivePolicy":     `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`,
	})
	const n = 400
	for i := range n {
		send(t, c, url, fmt.Sprint("body-", i))
	}
	var moving sync.WaitGroup
	stop := make(chan struct{})
	moving.Go(func() {
		defer close(stop)
		for {
			m, err := poll(t.Context(), c, url, 10, 0)
			if err != nil {
				t.Error(err)
			}
			if q, _ := s.Queue("dead"); err != nil || len(m) == 0 && q.Visible == n {
				return
			}
		}
	})
	pictures := 0
	for done := false; !done; pictures++ {
		select {
		case <-stop:
			done = true
		default:
		}
		var saved bytes.Buffer
		if err := s.Save(&saved); err != nil {
			t.Fatal(err)
		}
		again := sqstest.New()
		text := saved.String()
		if err := again.Load(&saved); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if got := strings.Count(text, fmt.Sprintf(`"body-%d"`, i)); got != 1 {
				t.Fatalf("picture %d has message %d %d times", pictures, i, got)
			}
		}
	}
	moving.Wait()
}

func BenchmarkSave(b *testing.B) {
	s := sqstest.New()
	fill(b, s, 100_000)
	for b.Loop() {
		if err := s.Save(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(100_000*b.N)/b.Elapsed().Seconds(), "messages/s")
}
