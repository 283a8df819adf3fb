package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// check is one thing that SQS does.
type check struct {
	name string
	// source is where it is written, or who recorded it, in the forms that sources_test.go explains and checks: "API <page>,
	// <section>" is the API reference and "guide <page>" the developer guide; "recorded <test>" is a test of LocalStack's
	// that was validated against AWS, and "recorded <owner>/<repository>#<number>" a public thread that shows what AWS
	// answered; several are separated by "; ". A check that no stranger passes has its evidence in citations_test.go besides.
	source string
	// wait is how long the check waits for time to pass, at most.
	wait time.Duration
	run  func(k *kit)
}

// kit is what a check works with. Its methods end the check by panicking with a failure.
type kit struct {
	ctx  context.Context
	c    *sqs.Client
	urls []string
}

type failure string

func (k *kit) failf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// run is the check's outcome: nil when it passed.
func (c check) outcome(ctx context.Context, client *sqs.Client) (err error) {
	k := &kit{ctx: ctx, c: client}
	defer k.clean()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = errors.New(string(r))
		default:
			panic(r)
		}
	}()
	c.run(k)
	return nil
}

func (k *kit) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), 10*time.Second)
	defer cancel()
	for _, u := range k.urls {
		_, _ = k.c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &u})
	}
}

func name(fifo bool) string {
	n := "c-" + strings.ToLower(rand.Text()[:16])
	if fifo {
		n += ".fifo"
	}
	return n
}

type attrs map[string]string

// queue creates a queue, FIFO when the attributes say so.
func (k *kit) queue(a attrs) string { return k.named(name(a["FifoQueue"] == "true"), a) }

func (k *kit) named(n string, a attrs) string {
	out, err := k.c.CreateQueue(k.ctx, &sqs.CreateQueueInput{QueueName: &n, Attributes: a})
	k.ok("CreateQueue", err)
	k.urls = append(k.urls, *out.QueueUrl)
	return *out.QueueUrl
}

// fifo creates a FIFO queue, content-deduplicated unless the attributes say otherwise.
func (k *kit) fifo(a attrs) string {
	all := attrs{"FifoQueue": "true", "ContentBasedDeduplication": "true"}
	for n, v := range a {
		all[n] = v
	}
	return k.queue(all)
}

func (k *kit) attributes(url string, names ...types.QueueAttributeName) map[string]string {
	if len(names) == 0 {
		names = []types.QueueAttributeName{types.QueueAttributeNameAll}
	}
	out, err := k.c.GetQueueAttributes(k.ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	k.ok("GetQueueAttributes", err)
	return out.Attributes
}

func (k *kit) set(url string, a attrs) {
	_, err := k.c.SetQueueAttributes(k.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: a})
	k.ok("SetQueueAttributes", err)
}

func (k *kit) arn(url string) string { return k.attributes(url, "QueueArn")["QueueArn"] }

func (k *kit) send(url, body string, change ...func(*sqs.SendMessageInput)) *sqs.SendMessageOutput {
	out, err := k.trySend(url, body, change...)
	k.ok("SendMessage", err)
	return out
}

func (k *kit) trySend(url, body string, change ...func(*sqs.SendMessageInput)) (*sqs.SendMessageOutput, error) {
	in := &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}
	for _, f := range change {
		f(in)
	}
	return k.c.SendMessage(k.ctx, in)
}

func group(id string) func(*sqs.SendMessageInput) {
	return func(in *sqs.SendMessageInput) { in.MessageGroupId = &id }
}

func dedup(id string) func(*sqs.SendMessageInput) {
	return func(in *sqs.SendMessageInput) { in.MessageDeduplicationId = &id }
}

func delay(seconds int32) func(*sqs.SendMessageInput) {
	return func(in *sqs.SendMessageInput) { in.DelaySeconds = seconds }
}

func attribute(name, kind, value string) func(*sqs.SendMessageInput) {
	return func(in *sqs.SendMessageInput) {
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
		}
		v := types.MessageAttributeValue{DataType: &kind}
		if strings.HasPrefix(kind, "Binary") {
			v.BinaryValue = []byte(value)
		} else {
			v.StringValue = &value
		}
		in.MessageAttributes[name] = v
	}
}

// receive asks for up to n messages with all attributes and waits for up to the given seconds. A standard queue may hold
// some back, so callers that expect several loop: see receiveAll.
func (k *kit) receive(url string, n, wait int32, change ...func(*sqs.ReceiveMessageInput)) []types.Message {
	in := &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: n, WaitTimeSeconds: wait, MessageAttributeNames: []string{"All"},
		// Under both names, since a server may know the old one only.
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		AttributeNames:              []types.QueueAttributeName{types.QueueAttributeNameAll}, //nolint:staticcheck // see above
	}
	for _, f := range change {
		f(in)
	}
	out, err := k.c.ReceiveMessage(k.ctx, in)
	k.ok("ReceiveMessage", err)
	return out.Messages
}

func visibility(seconds int32) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = seconds }
}

// one receives exactly one message, waiting for up to five seconds.
func (k *kit) one(url string, change ...func(*sqs.ReceiveMessageInput)) types.Message {
	m := k.receive(url, 1, 5, change...)
	if len(m) != 1 {
		k.failf("received %d messages, want 1", len(m))
	}
	return m[0]
}

// woken makes sure that a poll of five seconds, which something was to wake one second after start, did not end by itself.
func (k *kit) woken(start time.Time) {
	if d := time.Since(start); d > 4*time.Second {
		k.failf("woken after %v, want about a second", d)
	}
}

// none makes sure that there is nothing to receive.
func (k *kit) none(url string) {
	if m := k.receive(url, 10, 1); len(m) != 0 {
		k.failf("received %d messages, want none", len(m))
	}
}

// receiveAll receives until n messages came, or nothing comes for two seconds.
func (k *kit) receiveAll(url string, n int) []types.Message {
	var all []types.Message
	for len(all) < n {
		m := k.receive(url, 10, 2)
		if len(m) == 0 {
			k.failf("received %d messages, want %d", len(all), n)
		}
		all = append(all, m...)
	}
	if len(all) > n {
		k.failf("received %d messages, want %d", len(all), n)
	}
	return all
}

func (k *kit) delete(url string, m types.Message) {
	_, err := k.c.DeleteMessage(k.ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	k.ok("DeleteMessage", err)
}

func (k *kit) change(url string, m types.Message, seconds int32) error {
	_, err := k.c.ChangeMessageVisibility(k.ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds,
	})
	return err
}

// pass lets time pass: virtual time where there is a bubble.
func (k *kit) pass(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.ctx.Done():
		k.failf("%v", context.Cause(k.ctx))
	}
}

func (k *kit) ok(what string, err error) {
	if err != nil {
		k.failf("%s: %v", what, err)
	}
}

// refused makes sure that err is SQS's error of that code (the query protocol's, which the SDK reports) and HTTP status.
func (k *kit) refused(err error, code string, status int) {
	var api smithy.APIError
	var response *smithyhttp.ResponseError
	switch {
	case err == nil:
		k.failf("succeeded, want %s", code)
	case !errors.As(err, &api):
		k.failf("got %v, want %s", err, code)
	case api.ErrorCode() != code:
		k.failf("got code %s (%s), want %s", api.ErrorCode(), api.ErrorMessage(), code)
	case !errors.As(err, &response):
		k.failf("%s came without a response: %v", code, err)
	case response.HTTPStatusCode() != status:
		k.failf("got status %d, want %d", response.HTTPStatusCode(), status)
	}
}

// code makes sure that err is SQS's error of that code, whatever the status.
func code(k *kit, err error, want string) {
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != want {
		k.failf("got %v, want %s", err, want)
	}
}

// typed makes sure that the SDK made its own type of the error.
func typed[E error](k *kit, err error) {
	var e E
	if !errors.As(err, &e) {
		k.failf("got %T (%v), want %T", errors.Unwrap(errors.Unwrap(err)), err, e)
	}
}

func (k *kit) contains(err error, part string) {
	if err == nil || !strings.Contains(err.Error(), part) {
		k.failf("got %v, want a message with %q", err, part)
	}
}

func equal[T comparable](k *kit, what string, got, want T) {
	if got != want {
		k.failf("%s: got %v, want %v", what, got, want)
	}
}

func str(s *string) string { return aws.ToString(s) }

func bodies(messages []types.Message) string {
	var all []string
	for _, m := range messages {
		all = append(all, str(m.Body))
	}
	return strings.Join(all, " ")
}
