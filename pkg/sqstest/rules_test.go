package sqstest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestRulesThatCannotStrikeAreRefused(t *testing.T) {
	for _, rule := range []string{
		`{"fault":"Throttle","action":"SendMesage"}`, `{"fault":"Reorder","action":"SendMessageBatch"}`,
		`{"fault":"Duplicate","action":"SendMessage"}`, `{"fault":"PartialBatch","action":"SendMessage"}`,
		`{"fault":"NotInFlight","action":"ReceiveMessage"}`, `{"fault":"StaleReads","action":"ListQueues","duration":"1s"}`,
		`{"fault":"ListLag","queue":"rq_*","duration":"1s"}`, `{"fault":"Throttle","action":"ListQueues","queue":"q"}`,
		`{"fault":"Throttle","duration":"1s"}`, `{"fault":"CutBody","duration":"1s"}`,
	} {
		if _, err := sqstest.ParsePlan(`{"rules":[` + rule + `]}`); err == nil {
			t.Errorf("%s was taken", rule)
		}
	}
	for _, rule := range []string{
		`{"fault":"ListLag","duration":"1s"}`, `{"fault":"PartialBatch","action":"*Batch"}`, `{"fault":"Throttle","queue":"rq_*"}`,
		`{"fault":"AbandonPoll","duration":"1s"}`, `{"fault":"Duplicate","duration":"1s"}`, `{"fault":"Reorder","action":"Send*"}`,
	} {
		if _, err := sqstest.ParsePlan(`{"rules":[` + rule + `]}`); err != nil {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

func TestAccessRulesThatMeanNothingPanic(t *testing.T) {
	s := sqstest.New()
	for _, r := range []sqstest.AccessRule{{Queue: "rq_["}, {AccessKey: "["}, {Action: "SendMesage"}, {Action: "SendMessageBatch"}, {Action: "*Batch"}} {
		if !panics(func() { s.SetAccess(r) }) {
			t.Errorf("%+v was taken", r)
		}
	}
	s.SetAccess(sqstest.AccessRule{Action: "Send*"}, sqstest.AccessRule{})
}

func TestBatchesAreGovernedByTheSingleAction(t *testing.T) {
	s := sqstest.New()
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	batch := func() string {
		_, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{
			QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("a"), MessageBody: aws.String("x")}},
		})
		return errorCode(err)
	}
	s.SetAccess(sqstest.AccessRule{Deny: true, Action: "SendMessage"})
	if code := batch(); code != "AccessDenied" {
		t.Errorf("denied: %q", code)
	}
	s.SetAccess(sqstest.AccessRule{Action: "SendMessage"})
	if code := batch(); code != "" {
		t.Errorf("allowed: %q", code)
	}
}

func TestAccountsAreTwelveDigits(t *testing.T) {
	for _, account := range []string{"", "123", "12345678901x", "1234567890123"} {
		if !panics(func() { sqstest.New(sqstest.WithAccount(account)) }) || !panics(func() { sqstest.New(sqstest.WithAccessKey("K", account)) }) {
			t.Errorf("%q was taken", account)
		}
	}
}

func TestBilled(t *testing.T) {
	s := sqstest.New()
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	s.ResetRequests()
	send(t, c, url, strings.Repeat("x", 1<<20))
	m := mustPoll(t, c, url, 1, 0)
	remove(t, c, url, m[0])
	send(t, c, url, strings.Repeat("x", 64<<10), strings.Repeat("x", 64<<10+1))
	s.SetFaults(plan(sqstest.Rule{Fault: sqstest.DropBefore, Count: 1}))
	if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")}); err == nil {
		t.Error("not dropped")
	}
	for action, want := range map[string]int{"SendMessage": 16 + 1 + 2, "ReceiveMessage": 16, "DeleteMessage": 1} {
		if n := s.Billed(sqstest.Action(action)); n != want {
			t.Errorf("%s: %d billed, want %d", action, n, want)
		}
	}
	if n := s.Requests(sqstest.Action("SendMessage")); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

func TestAnswersWithoutABodyAreNoOccasionForItsFaults(t *testing.T) {
	for _, fault := range []sqstest.Fault{sqstest.CutBody, sqstest.SlowBody} {
		ways(t, func(t *testing.T, s *sqstest.Server, _ *sqs.Client) {
			c := s.Client(noRetries)
			if s.URL != "" {
				c = loopbackClient(s, noRetries)
			}
			url := create(t, c, "q", nil)
			send(t, c, url, "x")
			m := mustPoll(t, c, url, 1, 0)
			r := sqstest.Rule{Fault: fault}
			if fault == sqstest.SlowBody {
				r.Duration = time.Millisecond
			}
			s.SetFaults(plan(r))
			remove(t, c, url, m[0])
			if hits := s.FaultHits(); hits[0] != 0 {
				t.Errorf("%s: hits %v after an answer without a body", fault, hits)
			}
			_, err := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")})
			if hits := s.FaultHits(); hits[0] != 1 || (err != nil) != (fault == sqstest.CutBody) {
				t.Errorf("%s: hits %v, %v", fault, hits, err)
			}
		})
	}
}

// A poll waits on without its client, and takes what comes, until its Duration is over.
func TestAbandonedPollLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		defer s.Close()
		c := s.Client()
		url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
		s.SetFaults(plan(sqstest.Rule{Fault: sqstest.AbandonPoll, Duration: 5 * time.Second}))
		for _, after := range []time.Duration{4 * time.Second, 6 * time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _, _ = poll(ctx, c, url, 1, 20) }()
			synctest.Wait()
			cancel()
			synctest.Wait()
			time.Sleep(after)
			send(t, c, url, fmt.Sprint(after))
		}
		if q, _ := s.Queue("q"); q.InFlight != 1 || q.Visible != 1 || q.Pollers != 0 || s.FaultHits()[0] != 2 {
			t.Errorf("%d in flight, %d visible, %d polls, hits %v", q.InFlight, q.Visible, q.Pollers, s.FaultHits())
		}
	})
}

func TestLostSendsEndWithTheLockOnTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.LostSends, Duration: time.Hour})))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
		trySend := func() error {
			_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
			return err
		}
		time.Sleep(59 * time.Second)
		if err := trySend(); err != nil {
			t.Errorf("after 59 s: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := trySend(); err == nil {
			t.Error("still lost after 61 s")
		}
	})
}

func TestSkewOfUpToFiveMinutesIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for skew, refused := range map[time.Duration]bool{
			4*time.Minute + 59*time.Second: false, 5*time.Minute + time.Second: true, -4*time.Minute - 59*time.Second: false, -5*time.Minute - time.Second: true,
		} {
			s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.ClockSkew, Duration: skew})))
			_, err := s.Client(noRetries).ListQueues(t.Context(), &sqs.ListQueuesInput{})
			if (err != nil) != refused {
				t.Errorf("%v: %v", skew, err)
			}
		}
	})
}

func TestSourcesFollowPoliciesAndDeletions(t *testing.T) {
	c := sqstest.New().Client()
	dead, other := create(t, c, "dead", nil), create(t, c, "other", nil)
	to := func(name string) map[string]string {
		return map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:` + name + `","maxReceiveCount":1}`}
	}
	b, a := create(t, c, "b", to("dead")), create(t, c, "a", to("dead"))
	expect := func(url string, want ...string) {
		t.Helper()
		out, err := c.ListDeadLetterSourceQueues(t.Context(), &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &url})
		if err != nil || fmt.Sprint(out.QueueUrls) != fmt.Sprint(want) {
			t.Errorf("%v, %v, want %v", out, err, want)
		}
	}
	expect(dead, a, b)
	if _, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &b, Attributes: to("other")}); err != nil {
		t.Fatal(err)
	}
	expect(dead, a)
	expect(other, b)
	if _, err := c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &a}); err != nil {
		t.Fatal(err)
	}
	expect(dead)
}

func TestClocksBeginAfter1970(t *testing.T) {
	for _, start := range []time.Time{{}, time.Unix(0, 0)} {
		if !panics(func() { sqstest.NewManualClock(start) }) {
			t.Errorf("%v was taken", start)
		}
	}
}

// A request that a test made by hand, for httptest, may have no body at all.
func TestRequestWithoutABody(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS.ListQueues")
	w := httptest.NewRecorder()
	sqstest.New().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestSlowlyCreatedQueueHasNoMoveTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: sqstest.SlowCreate, Duration: time.Second})))
		c := s.Client(noRetries)
		create(t, c, "q", nil)
		list := func() string {
			_, err := c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:000000000000:q")})
			return errorCode(err)
		}
		if code := list(); code != "ResourceNotFoundException" {
			t.Errorf("at once: %q", code)
		}
		time.Sleep(time.Second)
		if code := list(); code != "" {
			t.Errorf("after a second: %q", code)
		}
	})
}
