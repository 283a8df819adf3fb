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
