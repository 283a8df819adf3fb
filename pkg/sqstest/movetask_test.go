package sqstest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// deadLetters is a server with a queue, and n messages in its dead-letter queue.
func deadLetters(t *testing.T, n int) (s *sqstest.Server, c *sqs.Client, deadARN, otherARN *string) {
	t.Helper()
	s = sqstest.New()
	c = s.Client(noRetries)
	dead := create(t, c, "dead", nil)
	create(t, c, "q", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`})
	create(t, c, "other", nil)
	for i := range n {
		send(t, c, dead, fmt.Sprint(i))
	}
	return s, c, aws.String("arn:aws:sqs:us-east-1:000000000000:dead"), aws.String("arn:aws:sqs:us-east-1:000000000000:other")
}

func TestMoveTaskKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, dead, other := deadLetters(t, 10)
		task, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead, DestinationArn: other, MaxNumberOfMessagesPerSecond: aws.Int32(2)})
		if err != nil {
			t.Fatal(err)
		}
		for second := range 5 {
			time.Sleep(time.Second)
			synctest.Wait()
			if q, _ := s.Queue("other"); q.Visible != 2*(second+1) {
				t.Errorf("%d messages moved after %d s", q.Visible, second+1)
			}
		}
		list, err := c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: dead})
		if err != nil || len(list.Results) != 1 || *list.Results[0].Status != "COMPLETED" || list.Results[0].ApproximateNumberOfMessagesMoved != 10 {
			t.Errorf("%+v, %v", list, err)
		}
		_, err = c.CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle})
		if !isA[*types.UnsupportedOperation](err) {
			t.Errorf("a finished task was cancelled: %v", err)
		}
	})
}

func TestCancelledMoveTaskStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, dead, other := deadLetters(t, 10)
		task, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead, DestinationArn: other, MaxNumberOfMessagesPerSecond: aws.Int32(1)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond)
		out, err := c.CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle})
		if err != nil || out.ApproximateNumberOfMessagesMoved != 3 {
			t.Errorf("%+v, %v", out, err)
		}
		time.Sleep(time.Minute)
		if q, _ := s.Queue("other"); q.Visible != 3 {
			t.Errorf("%d messages moved", q.Visible)
		}
		if q, _ := s.Queue("dead"); q.Visible != 7 {
			t.Errorf("%d messages stayed", q.Visible)
		}
	})
}

// A task that has to find out where messages came from fails on one that was sent to the dead-letter queue directly.
func TestMoveTaskOfAMessageFromNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, dead, _ := deadLetters(t, 1)
		if _, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		list, err := c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: dead})
		if err != nil || len(list.Results) != 1 || *list.Results[0].Status != "FAILED" || *list.Results[0].FailureReason != "CouldNotDetermineMessageSource" {
			t.Errorf("%+v, %v", list, err)
		}
		if q, _ := s.Queue("dead"); q.Visible != 1 {
			t.Errorf("%d messages stayed", q.Visible)
		}
	})
}

// Message move tasks are their account's and region's own.
func TestMoveTasksOfOthers(t *testing.T) {
	s, c, dead, other := deadLetters(t, 1)
	started, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead, DestinationArn: other, MaxNumberOfMessagesPerSecond: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stranger := sqstest.WithAccessKey("THEIRS", "222222222222")
	stranger(s)
	elsewhere := s.Client(noRetries, func(o *sqs.Options) { o.Region = "eu-central-1" })
	theirs := s.Client(noRetries, func(o *sqs.Options) { o.Credentials = keyed("THEIRS") })
	theirDead := create(t, theirs, "theirs", nil)
	create(t, theirs, "source", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:222222222222:theirs","maxReceiveCount":1}`})
	send(t, theirs, theirDead, "x")
	for who, want := range map[*sqs.Client]string{theirs: "AccessDenied", elsewhere: "ResourceNotFoundException"} {
		_, start := who.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead, DestinationArn: other})
		_, list := who.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: dead})
		_, cancel := who.CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: started.TaskHandle})
		for what, err := range map[string]error{"start": start, "list": list, "cancel": cancel} {
			if errorCode(err) != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
	}
	_, err = theirs.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:222222222222:theirs"), DestinationArn: other})
	if errorCode(err) != "AccessDenied" {
		t.Errorf("to another account's queue: %v", err)
	}
}

// A queue that is deleted takes its tasks with it, running ones and what was kept of those before.
func TestMoveTasksEndWithTheirQueue(t *testing.T) {
	clock := sqstest.NewManualClock(time.Now())
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	dead := create(t, c, "dead", nil)
	create(t, c, "q", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`})
	create(t, c, "other", nil)
	send(t, c, dead, "a", "b")
	arn := aws.String("arn:aws:sqs:us-east-1:000000000000:dead")
	if _, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: arn, DestinationArn: aws.String("arn:aws:sqs:us-east-1:000000000000:other"), MaxNumberOfMessagesPerSecond: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &dead}); err != nil {
		t.Fatal(err)
	}
	if n := clock.Pending(); n != 0 {
		t.Errorf("%d timers are left", n)
	}
	clock.Advance(61 * time.Second)
	create(t, c, "dead", nil)
	list, err := c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: arn})
	if err != nil || len(list.Results) != 0 {
		t.Errorf("the next queue of the name has tasks: %+v, %v", list, err)
	}
}

// What a move task brings wakes a poll that waits for it.
func TestMovedMessageWakesAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, dead, other := deadLetters(t, 1)
		url, err := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("other")})
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		took := make(chan time.Duration)
		go func() {
			out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url.QueueUrl, WaitTimeSeconds: 20})
			if err != nil || len(out.Messages) != 1 {
				t.Errorf("received %+v, %v", out, err)
			}
			took <- time.Since(started)
		}()
		synctest.Wait()
		if _, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: dead, DestinationArn: other}); err != nil {
			t.Fatal(err)
		}
		if d := <-took; d > 5*time.Second {
			t.Errorf("it came after %s", d)
		}
	})
}
