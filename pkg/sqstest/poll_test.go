package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// poll is one long poll for up to n messages.
func poll(ctx context.Context, c *sqs.Client, url string, n, seconds int32) ([]types.Message, error) {
	out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: n, WaitTimeSeconds: seconds,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

func mustPoll(t *testing.T, c *sqs.Client, url string, n, seconds int32) []types.Message {
	t.Helper()
	m, err := poll(t.Context(), c, url, n, seconds)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func send(t testing.TB, c *sqs.Client, url string, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if _, err := c.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &b}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLongPollWaitsItsTimeAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New().Client()
		url := create(t, c, "q", nil)
		start := time.Now()
		if m := mustPoll(t, c, url, 10, 20); len(m) != 0 {
			t.Fatalf("got %v", m)
		}
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("waited %v", d)
		}
	})
}

func TestLongPollEndsWithTheFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New().Client()
		url := create(t, c, "q", nil)
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { send(t, c, url, "x") })
		// Ten are asked for: the poll must not wait for the other nine.
		if m := mustPoll(t, c, url, 10, 20); len(m) != 1 {
			t.Fatalf("got %d messages", len(m))
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestLongPollSeesWhatBecomesVisible(t *testing.T) {
	for name, delay := range map[string]map[string]string{
		"delay": {"DelaySeconds": "4"}, "visibility timeout": {"VisibilityTimeout": "4"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := sqstest.New().Client()
				url := create(t, c, "q", delay)
				send(t, c, url, "x")
				mustPoll(t, c, url, 1, 0)
				start := time.Now()
				if m := mustPoll(t, c, url, 1, 20); len(m) != 1 {
					t.Fatalf("got %v", m)
				}
				if d := time.Since(start); d != 4*time.Second {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

func TestOneMessageWakesOnePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client()
		url := create(t, c, "q", nil)
		var mu sync.Mutex
		var order []int
		for i := range 5 {
			go func() {
				if m, err := poll(t.Context(), c, url, 10, 20); err == nil && len(m) == 1 {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		for n := range 5 {
			send(t, c, url, "x")
			synctest.Wait()
			mu.Lock()
			if len(order) != n+1 || order[n] != n {
				t.Errorf("after %d messages, polls %v were woken: want the longest waiting first", n+1, order)
			}
			mu.Unlock()
		}
		if q, _ := s.Queue("q"); q.InFlight != 5 || q.Pollers != 0 {
			t.Errorf("%d in flight, %d polls", q.InFlight, q.Pollers)
		}
	})
}

// No message may be lost between a poll that finds nothing and its wait, with senders and receivers at full speed.
func TestNoWakeUpIsLost(t *testing.T) {
	const senders, receivers, each = 8, 8, 400
	s := sqstest.New()
	c := s.Client()
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan string, senders*each)
	var polls, sends sync.WaitGroup
	for range receivers {
		polls.Go(func() {
			for ctx.Err() == nil {
				m, err := poll(ctx, c, url, 1, 20)
				if err != nil {
					return
				}
				for _, m := range m {
					got <- *m.Body
				}
			}
		})
	}
	for i := range senders {
		sends.Go(func() {
			for j := range each {
				send(t, c, url, fmt.Sprint(i, "-", j))
			}
		})
	}
	sends.Wait()
	seen := map[string]bool{}
	for len(seen) < senders*each {
		select {
		case b := <-got:
			if seen[b] {
				t.Fatalf("%s came twice", b)
			}
			seen[b] = true
		case <-ctx.Done():
			q, _ := s.Queue("q")
			t.Fatalf("%d of %d messages came; the queue: %+v", len(seen), senders*each, q)
		}
	}
	cancel()
	polls.Wait()
}

func TestCancelledPollTakesNothing(t *testing.T) {
	ways(t, func(t *testing.T, s *sqstest.Server, c *sqs.Client) {
		url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = poll(ctx, c, url, 1, 20)
			}()
			until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
			cancel()
			<-done
			until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 0 })
			send(t, c, url, "x")
			m := mustPoll(t, c, url, 1, 0)
			if len(m) != 1 {
				t.Fatal("the cancelled poll ate the message")
			}
			if n := m[0].Attributes["ApproximateReceiveCount"]; n != "1" {
				t.Fatalf("receive count %s", n)
			}
			remove(t, c, url, m[0])
		}
	})
}

// A batch wakes as many polls as it has messages for, and so do messages that become visible together.
func TestABatchWakesAsManyPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client()
		url := create(t, c, "q", map[string]string{"VisibilityTimeout": "5"})
		const n = 4
		for _, after := range []time.Duration{0, 5 * time.Second} {
			took := make(chan time.Duration, n)
			start := time.Now()
			for range n {
				go func() {
					if m := mustPoll(t, c, url, 1, 20); len(m) != 1 {
						t.Errorf("received %d messages", len(m))
					}
					took <- time.Since(start)
				}()
			}
			synctest.Wait()
			if after == 0 { // and 5 s later, the four are visible once more
				var entries []types.SendMessageBatchRequestEntry
				for i := range n {
					entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: aws.String("x")})
				}
				if _, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries}); err != nil {
					t.Error(err)
				}
			}
			for range n {
				if d := <-took; d != after {
					t.Errorf("woken after %v, want %v", d, after)
				}
			}
		}
	})
}

// Cancelling and sending at the same moment: whoever wins, the message must be there for the next receive, at once and
// with a count of 1, unless the poll returned it.
func TestPollCancelledWhileAMessageComes(t *testing.T) {
	s := sqstest.New()
	c := s.Client()
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	for range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		var polled []types.Message
		var wg sync.WaitGroup
		wg.Go(func() { polled, _ = poll(ctx, c, url, 1, 20) })
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
		wg.Go(func() { send(t, c, url, "x") })
		wg.Go(cancel)
		wg.Wait()
		if len(polled) == 0 {
			polled = mustPoll(t, c, url, 1, 0)
		}
		if len(polled) != 1 || polled[0].Attributes["ApproximateReceiveCount"] != "1" {
			t.Fatalf("got %+v", polled)
		}
		remove(t, c, url, polled[0])
	}
}

func TestAbandonedPollKeepsMessagesUnderFaults(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DropAfter, Action: "ReceiveMessage", Count: 1}}}))
	c := s.Client(noRetries)
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	send(t, c, url, "x")
	if _, err := poll(t.Context(), c, url, 1, 0); err == nil {
		t.Fatal("the dropped poll succeeded")
	}
	if q, _ := s.Queue("q"); q.InFlight != 1 {
		t.Errorf("in flight: %d", q.InFlight)
	}
}

func TestDeleteQueueEndsItsPolls(t *testing.T) {
	ways(t, func(t *testing.T, s *sqstest.Server, c *sqs.Client) {
		url := create(t, c, "q", nil)
		const n = 5
		errs := make(chan error, n)
		for range n {
			go func() {
				_, err := poll(t.Context(), c, url, 10, 20)
				errs <- err
			}()
		}
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == n })
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := <-errs; !isA[*types.QueueDoesNotExist](err) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestCloseEndsPolls(t *testing.T) {
	ways(t, func(t *testing.T, s *sqstest.Server, _ *sqs.Client) {
		c := s.Client(noRetries)
		if s.URL != "" {
			c = loopbackClient(s, noRetries)
		}
		url := create(t, c, "q", nil)
		errs := make(chan error, 1)
		go func() {
			_, err := poll(t.Context(), c, url, 10, 20)
			errs <- err
		}()
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
		s.Close()
		if err := <-errs; err == nil {
			t.Error("the poll succeeded")
		}
		if s.URL == "" {
			if _, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{}); !errors.Is(err, sqstest.ErrServerClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		s.Close()
	})
}

func noRetries(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

func remove(t testing.TB, c *sqs.Client, url string, m types.Message) {
	t.Helper()
	if _, err := c.DeleteMessage(context.Background(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// until yields until the condition holds, and fails the test when it does not within ten seconds.
func until(t testing.TB, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(end) {
			t.Fatal("the condition did not come to hold")
		}
		runtime.Gosched()
	}
}
