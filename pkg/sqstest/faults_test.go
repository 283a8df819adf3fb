package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func plan(rules ...sqstest.Rule) sqstest.Plan { return sqstest.Plan{Seed: 1, Rules: rules} }

// A fault of a single send: how it looks to the client, and whether the message was sent all the same.
func TestFaultsOfRequests(t *testing.T) {
	for _, c := range []struct {
		fault  sqstest.Fault
		code   string // what the SDK reports; "" for an error without one
		status int
		sent   int
	}{
		{sqstest.Throttle, "RequestThrottled", 403, 0},
		{sqstest.ServerError, "InternalError", 500, 0},
		{sqstest.ServerErrorAfter, "InternalError", 500, 1},
		{sqstest.HTMLUnavailable, "", 503, 0},
		{sqstest.DropBefore, "", 0, 0},
		{sqstest.DropAfter, "", 0, 1},
		{sqstest.CutBody, "", 200, 1},
		{sqstest.ExpiredCredentials, "ExpiredToken", 403, 0},
		{sqstest.AccessDenied, "AccessDenied", 403, 0},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			ways(t, func(t *testing.T, s *sqstest.Server, _ *sqs.Client) {
				client := s.Client(noRetries)
				if s.URL != "" {
					client = loopbackClient(s, noRetries)
				}
				url := create(t, client, "q", nil)
				s.SetFaults(plan(sqstest.Rule{Fault: c.fault, Action: "SendMessage", Queue: "q", Count: 1}))
				_, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
				if err == nil {
					t.Fatal("the send succeeded")
				}
				var api smithy.APIError
				if errors.As(err, &api) != (c.code != "") || c.code != "" && api.ErrorCode() != c.code {
					t.Errorf("got %v, want code %q", err, c.code)
				}
				var response *awshttp.ResponseError
				if errors.As(err, &response) && response.HTTPStatusCode() != c.status {
					t.Errorf("status %d, want %d", response.HTTPStatusCode(), c.status)
				}
				if q, _ := s.Queue("q"); q.Visible != c.sent {
					t.Errorf("%d messages sent, want %d", q.Visible, c.sent)
				}
				send(t, client, url, "the next one is well")
				if hits := s.FaultHits(); !slices.Equal(hits, []int{1}) {
					t.Errorf("hits %v", hits)
				}
			})
		})
	}
}

func TestRetriesGetOverFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the SDK's back-off takes no time
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.ServerError, Action: "SendMessage", Count: 2})))
		c := s.Client()
		send(t, c, create(t, c, "q", nil), "x")
		if n := s.Requests(sqstest.Action("SendMessage")); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
		if n := s.Requests(sqstest.Action("SendMessage"), sqstest.WithError("InternalError")); n != 2 {
			t.Errorf("%d failures, want 2", n)
		}
	})
}

func TestBlackHoleHoldsUntilTheClientGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.BlackHole, Action: "ListQueues"})))
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Client(noRetries).ListQueues(ctx, &sqs.ListQueuesInput{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestSlowFaults(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.Delay, sqstest.SlowBody} {
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New()
			c := s.Client(noRetries)
			url := create(t, c, "q", nil)
			send(t, c, url, strings.Repeat("x", 100_000))
			s.SetFaults(plan(sqstest.Rule{Fault: fault, Action: "ReceiveMessage", Duration: 8 * time.Second}))
			start := time.Now()
			if m := mustPoll(t, c, url, 1, 0); len(m) != 1 {
				t.Errorf("%s: %d messages", fault, len(m))
			}
			if d := time.Since(start).Round(time.Second); d != 8*time.Second && d != 9*time.Second {
				t.Errorf("%s: took %v", fault, d)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.ClockSkew, Duration: time.Hour})))
		_, err := s.Client(noRetries).ListQueues(t.Context(), &sqs.ListQueuesInput{})
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != "SignatureDoesNotMatch" {
			t.Fatalf("got %v", err)
		}
		// The SDK learns the server's time from the Date header, and signs again.
		if _, err := s.Client().ListQueues(t.Context(), &sqs.ListQueuesInput{}); err != nil {
			t.Errorf("with retries: %v", err)
		}
	})
}

func TestDuplicateDelivery(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.Duplicate, Queue: "q", Count: 1})))
	c := s.Client()
	url := create(t, c, "q", nil)
	send(t, c, url, "x")
	first, second, third := mustPoll(t, c, url, 10, 0), mustPoll(t, c, url, 10, 0), mustPoll(t, c, url, 10, 0)
	if len(first) != 1 || len(second) != 1 || len(third) != 0 || *first[0].MessageId != *second[0].MessageId {
		t.Errorf("received %d, %d, %d messages", len(first), len(second), len(third))
	}
}

// The copy of a message comes although the original was deleted in time, as a standard queue's may.
func TestDuplicateComesAfterTheDelete(t *testing.T) {
	for _, later := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.Duplicate, Duration: later})))
			c := s.Client()
			url := create(t, c, "q", nil)
			send(t, c, url, "x", "y")
			remove := func(m types.Message) {
				if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
					t.Fatal(err)
				}
			}
			ids := map[string]int{}
			for range 4 { // each of the two, and its copy
				start := time.Now()
				m := mustPoll(t, c, url, 1, 20)
				if len(m) != 1 {
					t.Fatalf("nothing after %v, having received %v", time.Since(start), ids)
				}
				ids[*m[0].MessageId]++
				remove(m[0])
			}
			for id, n := range ids {
				if n != 2 {
					t.Errorf("%s came %d times", id, n)
				}
			}
			if m := mustPoll(t, c, url, 10, 20); len(m) != 0 {
				t.Errorf("%d more", len(m))
			}
			if hits := s.FaultHits(); !slices.Equal(hits, []int{2}) {
				t.Errorf("hits %v, want those that made a copy: 2", hits)
			}
		})
	}
}

// A hit is a difference made: what a rule could not have changed is no occasion.
func TestClockSkewShowsOnlyWhereItStrikes(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.ClockSkew, Duration: time.Hour, Count: 1})))
	for _, want := range []time.Duration{time.Hour, 0} {
		w := serve(s, http.MethodPost, "/", "AmazonSQS.ListQueues", `{}`)
		date, err := http.ParseTime(w.Header().Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Until(date).Round(10 * time.Minute); got != want {
			t.Errorf("the clock is off by %v, want %v", got, want)
		}
	}
}

// Approximate numbers lag as the other attributes do.
func TestReorderedMessagesAllCome(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.Reorder, Probability: 0.7})))
	c := s.Client()
	url := create(t, c, "q", nil)
	var sent, got []string
	for i := range 30 {
		sent = append(sent, fmt.Sprintf("%02d", i))
	}
	send(t, c, url, sent...)
	for range 3 {
		for _, m := range mustPoll(t, c, url, 10, 0) {
			got = append(got, *m.Body)
		}
	}
	if slices.Equal(got, sent) {
		t.Error("they came in the order in which they were sent")
	}
	slices.Sort(got)
	if !slices.Equal(got, sent) {
		t.Errorf("got %v", got)
	}
}

func TestPartialBatch(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.PartialBatch, Action: "SendMessageBatch", Skip: 1, Count: 2})))
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	var entries []types.SendMessageBatchRequestEntry
	for _, id := range []string{"a", "b", "c", "d"} {
		entries = append(entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &id})
	}
	out, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Successful) != 2 || len(out.Failed) != 2 || *out.Failed[0].Id != "b" || *out.Failed[1].Id != "c" || out.Failed[0].SenderFault {
		t.Errorf("%+v", out)
	}
	if q, _ := s.Queue("q"); q.Visible != 2 {
		t.Errorf("%d messages", q.Visible)
	}
}

func TestShardedReceives(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.Sharded})))
	c := s.Client()
	url := create(t, c, "q", nil)
	send(t, c, url, slices.Repeat([]string{"x"}, 100)...)
	total, receives := 0, 0
	for total < 100 {
		n := len(mustPoll(t, c, url, 10, 0))
		if n < 1 || n > 9 {
			t.Fatalf("%d messages in one receive", n)
		}
		total += n
		receives++
	}
	if receives < 13 {
		t.Errorf("%d receives", receives)
	}
}

func TestQueueDeletedUnderAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.DeleteUnderPoll, Duration: 2 * time.Second, Count: 1})))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		start := time.Now()
		_, err := poll(t.Context(), c, url, 10, 20)
		if !isA[*types.QueueDoesNotExist](err) || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestPlanIsReplayable(t *testing.T) {
	p := sqstest.Plan{Seed: 42, Rules: []sqstest.Rule{
		{Fault: sqstest.Throttle, Action: "Send*", Queue: "a*", Probability: 0.3},
		{Fault: sqstest.Delay, Duration: 90 * time.Second, Skip: 1, Count: 2, Action: "List*"},
	}}
	again, err := sqstest.ParsePlan(p.String())
	if err != nil || again.String() != p.String() {
		t.Fatalf("%v: %s became %s", err, p, again)
	}
	play := func(p sqstest.Plan, others bool) (outcome string) {
		s := sqstest.New(sqstest.WithFaults(p))
		c := s.Client(noRetries)
		url, other := create(t, c, "abc", nil), create(t, c, "other", nil)
		for range 100 {
			_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
			outcome += map[bool]string{true: ".", false: "T"}[err == nil]
			if others {
				send(t, c, other, "x")
			}
		}
		return outcome
	}
	first := play(p, false)
	if n := strings.Count(first, "T"); n < 15 || n > 45 {
		t.Errorf("%d of 100 throttled at 30 %%: %s", n, first)
	}
	if second := play(again, true); second != first {
		t.Errorf("another run, with other queues' traffic:\n%s\n%s", first, second)
	}
	p.Seed++
	if play(p, false) == first {
		t.Error("another seed, the same outcome")
	}
}

func TestBadPlansAreRefused(t *testing.T) {
	for _, s := range []string{
		``, `{`, `{"rules":[{"fault":"Nonsense"}]}`, `{"rules":[{"fault":"Delay"}]}`, `{"rules":[{"fault":"Throttle","probability":2}]}`,
		`{"rules":[{"fault":"Throttle","count":-1}]}`, `{"rules":[{"fault":"Throttle","action":"["}]}`, `{"rules":[{"fault":"Delay","duration":"-1s"}]}`,
		`{"rules":[{"fault":"Throttle","typo":1}]}`, `{"typo":1,"rules":[]}`,
	} {
		if _, err := sqstest.ParsePlan(s); err == nil {
			t.Errorf("%s was taken", s)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("SetFaults took a bad plan")
		}
	}()
	sqstest.New().SetFaults(plan(sqstest.Rule{Fault: "Nonsense"}))
}

func TestAccess(t *testing.T) {
	s := sqstest.New()
	as := func(key string) *sqs.Client {
		return s.Client(noRetries, func(o *sqs.Options) {
			o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: key, SecretAccessKey: "x"}, nil
			})
		})
	}
	url := create(t, as("ADMIN"), "rq_a", nil)
	otherURL := create(t, as("ADMIN"), "other", nil)
	s.SetAccess(
		sqstest.AccessRule{AccessKey: "POD", Action: "SendMessage", Queue: "rq_*"},
		sqstest.AccessRule{AccessKey: "POD", Action: "ListQueues"},
		sqstest.AccessRule{Deny: true, AccessKey: "ADMIN", Action: "DeleteQueue"},
	)
	trySend := func(key, url string) error {
		_, err := as(key).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
		return err
	}
	drop := func(key string) error {
		_, err := as(key).DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
		return err
	}
	_, list := as("POD").ListQueues(t.Context(), &sqs.ListQueuesInput{})
	for what, got := range map[string]struct {
		err     error
		allowed bool
	}{
		"pod sends":           {trySend("POD", url), true},
		"pod sends elsewhere": {trySend("POD", otherURL), false},
		"pod lists":           {list, true},
		"pod deletes":         {drop("POD"), false},
		"admin deletes":       {drop("ADMIN"), false},
		"admin sends":         {trySend("ADMIN", otherURL), true},
		"somebody else sends": {trySend("OTHER", otherURL), true},
	} {
		var response *awshttp.ResponseError
		if got.allowed != (got.err == nil) || got.err != nil && (!errors.As(got.err, &response) || response.HTTPStatusCode() != http.StatusForbidden) {
			t.Errorf("%s: %v", what, got.err)
		}
	}
	if n := s.Requests(sqstest.FromKey("POD"), sqstest.WithError("AccessDenied")); n != 2 {
		t.Errorf("%d denials counted, want 2", n)
	}
}

func TestIgnoredOldHandles(t *testing.T) {
	for _, ignored := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New()
			if ignored {
				s.SetFaults(plan(sqstest.Rule{Fault: sqstest.IgnoreOldHandles, Queue: "q"}))
			}
			c := s.Client()
			url := create(t, c, "q", map[string]string{"VisibilityTimeout": "1"})
			send(t, c, url, "x")
			old := mustPoll(t, c, url, 1, 0)
			mustPoll(t, c, url, 1, 2)
			if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: old[0].ReceiptHandle}); err != nil {
				t.Error(err)
			}
			if m := mustPoll(t, c, url, 1, 2); (len(m) == 1) != ignored {
				t.Errorf("ignored %v: %d messages are left", ignored, len(m))
			}
		})
	}
}

func TestNotInFlight(t *testing.T) {
	s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.NotInFlight, Count: 1})))
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	send(t, c, url, "x")
	m := mustPoll(t, c, url, 1, 0)
	change := &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle, VisibilityTimeout: 9}
	batch := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
		{Id: aws.String("a"), ReceiptHandle: m[0].ReceiptHandle, VisibilityTimeout: 9},
	}}
	if _, err := c.ChangeMessageVisibility(t.Context(), change); !isA[*types.MessageNotInflight](err) {
		t.Errorf("got %v", err)
	}
	out, err := c.ChangeMessageVisibilityBatch(t.Context(), batch)
	if err != nil || len(out.Failed) != 1 || *out.Failed[0].Code != "AWS.SimpleQueueService.MessageNotInflight" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := c.ChangeMessageVisibility(t.Context(), change); err != nil {
		t.Error(err)
	}
}

// The rules about 60 s need no plan: they hold always.
