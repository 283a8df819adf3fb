package sqstest_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ways are the three ways to reach a server.
func ways(t *testing.T, f func(t *testing.T, s *sqstest.Server, c *sqs.Client)) {
	t.Helper()
	t.Run("round tripper", func(t *testing.T) {
		s := sqstest.New()
		f(t, s, s.Client())
	})
	t.Run("loopback", func(t *testing.T) {
		s := sqstest.NewServer(t)
		f(t, s, loopbackClient(s))
	})
}

// loopbackClient goes through a socket.
func loopbackClient(s *sqstest.Server, optFns ...func(*sqs.Options)) *sqs.Client {
	return s.Client(append([]func(*sqs.Options){func(o *sqs.Options) { o.HTTPClient = socketClient() }}, optFns...)...)
}

func TestOneMessage(t *testing.T) {
	ways(t, func(t *testing.T, s *sqstest.Server, c *sqs.Client) {
		ctx := t.Context()
		url := create(t, c, "orders", nil)
		sent, err := c.SendMessage(ctx, &sqs.SendMessageInput{
			QueueUrl: &url, MessageBody: aws.String("grüße"),
			MessageAttributes: map[string]types.MessageAttributeValue{
				"kind":   {DataType: aws.String("String"), StringValue: aws.String("ü")},
				"binary": {DataType: aws.String("Binary.raw"), BinaryValue: []byte{0, 255}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Messages) != 1 || *got.Messages[0].MessageId != *sent.MessageId || *got.Messages[0].MD5OfMessageAttributes != *sent.MD5OfMessageAttributes {
			t.Fatalf("got %+v", got.Messages)
		}
		if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: got.Messages[0].ReceiptHandle}); err != nil {
			t.Fatal(err)
		}
		if q, _ := s.Queue("orders"); q.Visible+q.InFlight+q.Delayed != 0 {
			t.Errorf("left: %+v", q)
		}
		if n := s.Requests(sqstest.OnQueue("orders")); n != 4 {
			t.Errorf("%d requests, want 4", n)
		}
	})
}

func TestMissingQueueIsTypedAndCoded(t *testing.T) {
	ways(t, func(t *testing.T, _ *sqstest.Server, c *sqs.Client) {
		_, err := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("nothing")})
		var typed *types.QueueDoesNotExist
		if !errors.As(err, &typed) {
			t.Fatalf("got %v", err)
		}
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != "AWS.SimpleQueueService.NonExistentQueue" {
			t.Errorf("code %q", api.ErrorCode())
		}
	})
}

func create(t testing.TB, c *sqs.Client, name string, attributes map[string]string) (url string) {
	t.Helper()
	out, err := c.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return *out.QueueUrl
}

// Two kinds of encryption are refused however the value is spelled.
func TestTwoKindsOfEncryption(t *testing.T) {
	s := sqstest.New()
	defer s.Close()
	c := s.Client()
	for _, yes := range []string{"true", "True", "TRUE"} {
		_, err := c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q"), Attributes: map[string]string{"KmsMasterKeyId": "x", "SqsManagedSseEnabled": yes}})
		if err == nil || !strings.Contains(err.Error(), "InvalidAttributeName") {
			t.Errorf("%s: %v", yes, err)
		}
	}
}

// A receipt handle of another server, or of a message that was lost with an earlier life of this one, deletes nothing.
func TestHandlesOfOtherServers(t *testing.T) {
	a, b := sqstest.New(), sqstest.New()
	defer a.Close()
	defer b.Close()
	receive := func(c *sqs.Client, url string) *string {
		t.Helper()
		out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url})
		if err != nil || len(out.Messages) != 1 {
			t.Fatal(len(out.Messages), err)
		}
		return out.Messages[0].ReceiptHandle
	}
	refused := func(s *sqstest.Server, url string, handle *string) {
		t.Helper()
		_, err := s.Client().DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: handle})
		if err == nil || !strings.Contains(err.Error(), "ReceiptHandleIsInvalid") {
			t.Errorf("delete: %v", err)
		}
	}
	urlA, urlB := create(t, a.Client(), "q", nil), create(t, b.Client(), "q", nil)
	send(t, a.Client(), urlA, "a")
	send(t, b.Client(), urlB, "b")
	handle := receive(a.Client(), urlA)
	refused(b, urlB, handle)
	receive(b.Client(), urlB)
	refused(b, urlB, handle)
	if q, _ := b.Queue("q"); q.InFlight != 1 {
		t.Errorf("%d in flight", q.InFlight)
	}

	var saved bytes.Buffer
	if err := b.Save(&saved); err != nil {
		t.Fatal(err)
	}
	send(t, b.Client(), urlB, "lost")
	lost := receive(b.Client(), urlB)
	again := sqstest.New()
	defer again.Close()
	if err := again.Load(&saved); err != nil {
		t.Fatal(err)
	}
	send(t, again.Client(), urlB, "new")
	receive(again.Client(), urlB)
	if _, err := again.Client().DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &urlB, ReceiptHandle: lost}); err != nil {
		t.Error(err) // that of a message which is gone means nothing, as in SQS
	}
	if q, _ := again.Queue("q"); q.InFlight != 2 {
		t.Errorf("%d in flight", q.InFlight)
	}
}

// Nor does one of a queue that was made and lost, or of a receive that was.
func TestHandlesOfALostLife(t *testing.T) {
	b := sqstest.New()
	defer b.Close()
	receive := func(c *sqs.Client, url string) *string {
		t.Helper()
		out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url})
		if err != nil || len(out.Messages) != 1 {
			t.Fatal(len(out.Messages), err)
		}
		return out.Messages[0].ReceiptHandle
	}
	url := create(t, b.Client(), "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	if _, err := b.Client().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"), MessageGroupId: aws.String("g")}); err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := b.Save(&saved); err != nil {
		t.Fatal(err)
	}
	lostReceive := receive(b.Client(), url)
	other := create(t, b.Client(), "other", nil)
	send(t, b.Client(), other, "old")
	lostQueue := receive(b.Client(), other)

	again := sqstest.New()
	defer again.Close()
	if err := again.Load(&saved); err != nil {
		t.Fatal(err)
	}
	c := again.Client()
	receive(c, url)
	another := create(t, c, "another", nil)
	send(t, c, another, "new")
	receive(c, another)
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: lostReceive}); err == nil {
		t.Error("a receive that was lost deletes what another has received")
	}
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &another, ReceiptHandle: lostQueue}); err == nil {
		t.Error("a queue that was lost deletes from another")
	}
	for _, name := range []string{"q.fifo", "another"} {
		if q, _ := again.Queue(name); q.InFlight != 1 {
			t.Errorf("%s: %d in flight", name, q.InFlight)
		}
	}
}
