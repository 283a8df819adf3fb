package virtualqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/virtualqueue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a host queue in memory and a client over it.
type world struct {
	t      *testing.T
	server *sqstest.Server
	sqs    *sqs.Client
	host   string
	queues *virtualqueue.Client
}

func newWorld(t *testing.T, opts ...virtualqueue.Option) *world {
	t.Helper()
	w := &world{t: t, server: sqstest.New()}
	w.sqs = w.server.Client()
	w.host = w.createReal("rq_c_r_1")
	w.queues = virtualqueue.New(w.sqs, opts...)
	t.Cleanup(func() {
		if err := w.queues.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	w.server.ResetRequests()
	return w
}

func (w *world) createReal(name string) string {
	w.t.Helper()
	out, err := w.sqs.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.QueueUrl
}

func (w *world) create(name string, retention ...string) string {
	w.t.Helper()
	attributes := map[string]string{virtualqueue.HostQueueURL: w.host}
	if len(retention) > 0 {
		attributes[virtualqueue.IdleRetention] = retention[0]
	}
	out, err := w.queues.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.QueueUrl
}

func (w *world) send(url, body string) {
	w.t.Helper()
	if _, err := w.queues.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) receive(url string, wait int32) ([]types.Message, error) {
	out, err := w.queues.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: wait, MaxNumberOfMessages: 10})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

func bodies(messages []types.Message) string {
	var out []string
	for _, m := range messages {
		out = append(out, *m.Body)
	}
	return strings.Join(out, ",")
}

func (w *world) expect(url string, wait int32, want string) []types.Message {
	w.t.Helper()
	messages, err := w.receive(url, wait)
	if err != nil || bodies(messages) != want {
		w.t.Fatalf("received %q, %v; want %q", bodies(messages), err, want)
	}
	return messages
}

func (w *world) delete(url string, m types.Message) {
	w.t.Helper()
	if _, err := w.queues.DeleteMessage(context.Background(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
		w.t.Fatal(err)
	}
}

func isGone(err error) bool {
	var gone *types.QueueDoesNotExist
	return errors.As(err, &gone)
}

func TestMessagesReachTheirVirtualQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ann, bob := w.create("ann"), w.create("bob")
		w.send(bob, "to bob")
		w.send(ann, "to ann")
		w.delete(ann, w.expect(ann, 5, "to ann")[0])
		w.delete(bob, w.expect(bob, 0, "to bob")[0])
		w.expect(ann, 0, "")
		if n := w.server.Requests(sqstest.Action("CreateQueue", "DeleteQueue")); n != 0 {
			t.Errorf("virtual queues made %d requests for queues", n)
		}
	})
}

func TestAVirtualQueueCostsNothingWhileNobodyReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a", "100000")
		time.Sleep(time.Hour)
		if n := w.server.Requests(); n != 0 {
			t.Errorf("%d requests before the first receive", n)
		}
		w.expect(url, 1, "")
		time.Sleep(20 * time.Second) // the poll that was under way runs out
		before := w.server.Requests()
		time.Sleep(time.Hour)
		if n := w.server.Requests() - before; n != 0 {
			t.Errorf("%d requests in an hour without a receive", n)
		}
	})
}

func TestOnePollServesManyReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 50
		urls := make([]string, n)
		for i := range urls {
			urls[i] = w.create(fmt.Sprintf("q%d", i))
		}
		var empty sync.WaitGroup
		for _, url := range urls {
			empty.Go(func() {
				if messages, err := w.receive(url, 15); err != nil || len(messages) != 0 {
					t.Errorf("received %q, %v", bodies(messages), err)
				}
			})
		}
		empty.Wait()
		time.Sleep(time.Minute)
		if got := w.server.Requests(); got != 1 {
			t.Errorf("%d requests for %d receives of nothing", got, n)
		}
		var wg sync.WaitGroup
		for i := range n {
			url, body := urls[i], fmt.Sprintf("to %d", i)
			wg.Go(func() {
				messages, err := w.receive(url, 20)
				if err != nil || bodies(messages) != body {
					t.Errorf("received %q, %v; want %q", bodies(messages), err, body)
					return
				}
				w.delete(url, messages[0])
			})
		}
		for i := range n {
			w.send(urls[n-1-i], fmt.Sprintf("to %d", n-1-i))
		}
		wg.Wait()
	})
}

func TestWhatIsNotDeletedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, virtualqueue.WithVisibility(10*time.Second))
		url := w.create("a")
		w.send(url, "x")
		w.expect(url, 0, "x")
		w.expect(url, 5, "")
		first := w.expect(url, 10, "x")
		w.delete(url, first[0])
		w.expect(url, 20, "")
	})
}

func TestVisibilityIsThatOfTheReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a")
		w.send(url, "x")
		out, err := w.queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, VisibilityTimeout: 3})
		if err != nil || bodies(out.Messages) != "x" {
			t.Fatalf("received %v, %v", out, err)
		}
		started := time.Now()
		m := w.expect(url, 20, "x")
		if took := time.Since(started); took != 3*time.Second {
			t.Errorf("came back after %s, want 3 s", took)
		}
		if _, err := w.queues.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{
			QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle, VisibilityTimeout: 0,
		}); err != nil {
			t.Fatal(err)
		}
		w.expect(url, 0, "x")
	})
}

// A message that waited in the buffer for most of its visibility gets a fresh one when it is handed over.
func TestTimeInTheBufferIsNotTheReadersLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ann, bob := w.create("ann"), w.create("bob")
		w.send(bob, "to bob")
		w.send(ann, "to ann")
		w.expect(ann, 1, "to ann")
		time.Sleep(25 * time.Second)
		m := w.expect(bob, 0, "to bob")
		time.Sleep(25 * time.Second)
		w.expect(bob, 0, "")
		w.delete(bob, m[0])

		// And one that waited for all of it is on the host queue again, not handed over from here.
		w.send(bob, "again")
		w.expect(ann, 1, "to ann")
		time.Sleep(31 * time.Second)
		if m := w.expect(bob, 0, "again"); len(m[0].Attributes) != 0 {
			t.Errorf("system attributes %v were not asked for", m[0].Attributes)
		}
	})
}

func TestAnIdleVirtualQueueIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a", "10")
		for range 4 { // a receive keeps it, also one longer than the retention
			w.expect(url, 15, "")
			time.Sleep(9 * time.Second)
		}
		time.Sleep(2 * time.Second)
		if _, err := w.receive(url, 0); !isGone(err) {
			t.Errorf("received from an idle queue: %v", err)
		}
	})
}

func TestDeleteQueueEndsReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url, other := w.create("a"), w.create("b")
		w.send(url, "unread")
		w.expect(other, 1, "") // the poll brought "unread" along
		ended := make(chan error, 1)
		waiting := w.create("waiting")
		go func() {
			_, err := w.receive(waiting, 20)
			ended <- err
		}()
		synctest.Wait()
		for _, u := range []string{url, waiting} {
			if _, err := w.queues.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &u}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-ended; !isGone(err) {
			t.Errorf("the receive ended with %v", err)
		}
		if _, err := w.queues.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); !isGone(err) {
			t.Errorf("deleted twice: %v", err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		for _, q := range w.server.Queues() {
			if q.Visible+q.InFlight != 0 {
				t.Errorf("%d messages of a deleted queue are left", q.Visible+q.InFlight)
			}
		}
	})
}

func TestOrphansAreLeftForOthersAndThenDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, virtualqueue.WithVisibility(15*time.Second))
		url := w.create("a")
		w.send(w.host+"#nobody", "x")
		w.expect(url, 10, "") // two polls, of which the second runs out after the receive
		time.Sleep(20 * time.Second)
		if n := w.server.Requests(sqstest.Action("DeleteMessageBatch")); n != 0 {
			t.Fatalf("%d deletes after two receives", n)
		}
		w.expect(url, 10, "")
		time.Sleep(time.Minute)
		if n := w.server.Entries(sqstest.Action("DeleteMessageBatch")); n != 1 {
			t.Errorf("%d orphans were deleted, want 1", n)
		}
	})
}

func TestAttributesAreThoseAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a")
		text := func(v string) types.MessageAttributeValue {
			return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
		}
		sent := map[string]types.MessageAttributeValue{"user.name": text("ann"), "user.id": text("7"), "trace": text("t")}
		for _, tc := range []struct {
			ask  []string
			want int
		}{{nil, 0}, {[]string{"trace"}, 1}, {[]string{"user.*"}, 2}, {[]string{"All"}, 3}, {[]string{"All", virtualqueue.QueueNameAttribute}, 4}} {
			if _, err := w.queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"), MessageAttributes: sent}); err != nil {
				t.Fatal(err)
			}
			if len(sent) != 3 {
				t.Fatal("SendMessage changed the caller's attributes")
			}
			out, err := w.queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
				QueueUrl: &url, MessageAttributeNames: tc.ask,
				MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameSentTimestamp},
			})
			if err != nil || len(out.Messages) != 1 {
				t.Fatalf("received %v, %v", out, err)
			}
			m := out.Messages[0]
			if len(m.MessageAttributes) != tc.want || len(m.Attributes) != 1 {
				t.Errorf("asked for %v, got %v and %v", tc.ask, m.MessageAttributes, m.Attributes)
			}
			w.delete(url, m)
		}
	})
}

func TestBadInputNamesWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create("a", "60")
		for name, tc := range map[string]struct {
			queue      string
			attributes map[string]string
			want       string
		}{
			"no host":            {"b", map[string]string{virtualqueue.HostQueueURL: ""}, "HostQueueUrl"},
			"virtual host":       {"b", map[string]string{virtualqueue.HostQueueURL: w.host + "#a"}, "virtual"},
			"FIFO host":          {"b", map[string]string{virtualqueue.HostQueueURL: w.host + ".fifo"}, "FIFO"},
			"no name":            {"", map[string]string{virtualqueue.HostQueueURL: w.host}, "QueueName"},
			"name with #":        {"b#c", map[string]string{virtualqueue.HostQueueURL: w.host}, "QueueName"},
			"long name":          {strings.Repeat("x", 257), map[string]string{virtualqueue.HostQueueURL: w.host}, "QueueName"},
			"another attribute":  {"b", map[string]string{virtualqueue.HostQueueURL: w.host, "DelaySeconds": "1"}, "DelaySeconds"},
			"retention 0":        {"b", map[string]string{virtualqueue.HostQueueURL: w.host, virtualqueue.IdleRetention: "0"}, virtualqueue.IdleRetention},
			"retention alone":    {"b", map[string]string{virtualqueue.IdleRetention: "60"}, "ReplyHost"},
			"exists differently": {"a", map[string]string{virtualqueue.HostQueueURL: w.host}, "exists"},
		} {
			_, err := w.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &tc.queue, Attributes: tc.attributes})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want one that says %s", name, err, tc.want)
			}
		}
		if w.create("a", "60") != w.host+"#a" {
			t.Error("creating the same again is no error")
		}
		out, err := w.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("b"), Attributes: map[string]string{"HostQueueURL": w.host}})
		if err != nil || *out.QueueUrl != w.host+"#b" {
			t.Errorf("the documented spelling: %v, %v", out, err)
		}
		if n := w.server.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestTheErrorOfAPollReachesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a")
		if _, err := w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &w.host}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, wait := range []int32{0, 20} {
			if _, err := w.receive(url, wait); !isGone(err) {
				t.Errorf("wait %d: %v", wait, err)
			}
		}
	})
}

func TestACancelledReceiveEatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := w.queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		w.send(url, "x")
		synctest.Wait()
		w.expect(url, 0, "x")
	})
}

func TestRealQueuesGoToTheSDK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		out, err := w.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("real")})
		if err != nil {
			t.Fatal(err)
		}
		url := *out.QueueUrl
		w.send(url, "x")
		w.delete(url, w.expect(url, 0, "x")[0])
		if _, err := w.queues.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		if n := len(w.server.Queues()); n != 1 {
			t.Errorf("%d queues, want the host alone", n)
		}
	})
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		javaHost := w.createReal("__RequesterClientQueues__1-0-Failover")
		w.send(strings.TrimSuffix(javaHost, "-Failover")+"#x", "late")
		native := strings.TrimSuffix(w.host, "1") + "2"
		w.createReal("rq_c_r_2-Failover")
		if _, err := w.queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(native + "#x"), MessageBody: aws.String("x")}); !isGone(err) {
			t.Errorf("sent to a native queue that is gone: %v", err)
		}
		for _, q := range w.server.Queues() {
			if want := map[string]int{"__RequesterClientQueues__1-0-Failover": 1}[q.Name]; q.Visible != want {
				t.Errorf("%s has %d messages, want %d", q.Name, q.Visible, want)
			}
		}
	})
}

// A hand-written requester with a virtual queue, and a Responder.
func TestAResponderAnswersToAVirtualQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		requests := w.createReal("rq_c_ns_login")
		echo := rpcclient.NewMethod[[]byte, []byte]("echo", rpcclient.WithCodec(rpcclient.Raw))
		responder, err := rpcclient.NewResponder(w.sqs,
			rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: requests}), rpcclient.WithDefaultMethod("echo", time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		echo.Handle(responder, func(_ context.Context, b []byte) ([]byte, error) { return append([]byte("you said "), b...), nil })
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- responder.Serve(ctx) }()

		reply := w.create("reply-1")
		if _, err := w.queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &requests, MessageBody: aws.String("hello"),
			MessageAttributes: map[string]types.MessageAttributeValue{"ResponseQueueUrl": {DataType: aws.String("String"), StringValue: &reply}},
		}); err != nil {
			t.Fatal(err)
		}
		w.delete(reply, w.expect(reply, 20, "you said hello")[0])
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestReturnAddressesCanBeChecked(t *testing.T) {
	policy, requests := rpcclient.ReturnAddressPolicy{}, "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login"
	got, err := policy.Check(requests, "https://eu-west-1.queue.amazonaws.com/111122223333/rq_c_r_1#abc")
	if err != nil || got != "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_1#abc" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := policy.Check(requests, "https://sqs.eu-west-1.amazonaws.com/111122223333/payroll#abc"); err == nil {
		t.Errorf("%q may be answered", got)
	}
}

func TestCloseForgetsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		url := w.create("a")
		ended := make(chan error, 1)
		go func() {
			_, err := w.receive(url, 20)
			ended <- err
		}()
		synctest.Wait()
		started := time.Now()
		if err := w.queues.Close(context.Background()); err != nil || time.Since(started) != 20*time.Second {
			t.Errorf("closed after %s with %v; want the poll to run out", time.Since(started), err)
		}
		if err := <-ended; !isGone(err) {
			t.Errorf("the receive ended with %v", err)
		}
		if _, err := w.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("b"), Attributes: map[string]string{virtualqueue.HostQueueURL: w.host}}); err == nil {
			t.Error("created a queue after Close")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.queues.Close(ctx); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
}

func Example() {
	ctx := context.Background()
	server := sqstest.New()
	client := server.Client() // or sqs.NewFromConfig
	host, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("rq_c_r_1")})
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("REPLYQUEUE_REPLY_QUEUE_URL", *host.QueueUrl); err != nil { // in a pod it is there
		panic(err)
	}

	queues := virtualqueue.New(client)
	created, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName:  aws.String("replies-to-42"),
		Attributes: map[string]string{virtualqueue.HostQueueURL: os.Getenv("REPLYQUEUE_REPLY_QUEUE_URL")},
	})
	if err != nil {
		panic(err)
	}
	// Somewhere else, with the same package or the Java client:
	if _, err := queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: created.QueueUrl, MessageBody: aws.String("42 is ready")}); err != nil {
		panic(err)
	}
	received, err := queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: created.QueueUrl})
	if err != nil {
		panic(err)
	}
	m := received.Messages[0]
	fmt.Println(*m.Body)
	if _, err := queues.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: created.QueueUrl, ReceiptHandle: m.ReceiptHandle}); err != nil {
		panic(err)
	}
	if err := queues.Close(ctx); err != nil {
		panic(err)
	}
	// Output: 42 is ready
}
