package sweep_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/sweep"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestJavasAbandonedQueuesAreSweptWhereListed(t *testing.T) {
	const prefix = "__RequesterClientQueues__"
	s := newStage(t, sqstest.NewServer(t))
	at := func(ago time.Duration) string {
		return strconv.FormatInt(s.clock.Now().Add(-ago).UnixMilli(), 10)
	}
	java := func(name, retention, heartbeat string) string {
		tags := map[string]string{}
		if retention != "" {
			tags["__IdleQueueRetentionPeriodSeconds"] = retention
		}
		if heartbeat != "" {
			tags["__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp"] = heartbeat
		}
		return s.queue(prefix+name, tags)
	}
	abandoned := java("abandoned", "300", at(time.Hour))
	alive := java("alive", "300", at(time.Hour))
	full := java("full", "300", at(time.Hour))
	slow := java("slow", "7200", at(48*time.Hour))
	kept := map[string]string{
		"no retention":               java("a", "", at(time.Hour)),
		"no heartbeat":               java("b", "300", ""),
		"a retention that is none":   java("c", "soon", at(time.Hour)),
		"a heartbeat in the future":  java("d", "300", at(-48*time.Hour)),
		"a longer retention":         java("e", "86400", at(time.Hour)),
		"a queue of another program": s.queue(prefix+"f", nil),
		"another prefix":             s.queue("__Other__", map[string]string{"__IdleQueueRetentionPeriodSeconds": "300", "__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp": at(time.Hour)}),
		"one of ours":                s.queue(prefix+"g", map[string]string{"__IdleQueueRetentionPeriodSeconds": "300", "__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp": at(time.Hour), v1alpha1.TagCluster: "any"}),
	}
	url, err := s.provider.QueueURL(s.ctx, full)
	s.must(err)
	body := "unread"
	_, err = s.sqs.Client().SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	s.must(err)
	aliveURL, err := s.provider.QueueURL(s.ctx, alive)
	s.must(err)

	s.passes(3)
	s.expect(abandoned, true, "no prefix is listed")
	s.provider.ForeignPrefixes = []string{prefix}
	for range 4 {
		// A client whose clock is an hour behind, and which heartbeats.
		s.clock.Step(sweep.DefaultGrace)
		_, err := s.sqs.Client().TagQueue(s.ctx, &sqs.TagQueueInput{QueueUrl: &aliveURL, Tags: map[string]string{
			"__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp": at(time.Hour),
		}})
		s.must(err)
		s.must(s.sweeper.Pass(s.ctx))
	}
	s.expect(abandoned, false, "abandoned")
	s.expect(alive, true, "its heartbeat changes, by a clock that is an hour behind")
	s.expect(full, true, "it holds a message")
	s.expect(slow, true, "its heartbeat, though by its clock it is of days ago, has stood still for less than its retention")
	for what, name := range kept {
		s.expect(name, true, what)
	}
	s.passes(7)
	s.expect(slow, false, "its heartbeat has stood still for its retention")
}

// A prefix that an administrator lists may be one of our own names' as well. Those are not looked at: they cost no request, and what is
// counted against the brake is the Java client's.
func TestOurQueuesAreNotJavas(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.provider.ForeignPrefixes = []string{"rq_"}
	ago := strconv.FormatInt(s.clock.Now().Add(-48*time.Hour).UnixMilli(), 10)
	tags := map[string]string{"__IdleQueueRetentionPeriodSeconds": "300", "__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp": ago}
	javas := s.queue("rq_java", tags)
	ours := s.queue(s.provider.ReplyQueueName(newUID()), tags)
	_, live := s.live("web-1")
	s.sqs.ResetRequests()
	s.passes(4)
	s.expect(javas, false, "abandoned, under a prefix that is listed")
	s.expect(ours, true, "by its name it is ours")
	if n := s.sqs.Requests(sqstest.OnQueue(live)); n != 0 {
		t.Errorf("%d requests for a queue that has a record", n)
	}
}
