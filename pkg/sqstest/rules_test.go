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

// What could never strike is refused, with the name of the field that is wrong.
func TestRulesThatCannotStrikeAreRefused(t *testing.T) {
	for rule, field := range map[string]string{
		`{"fault":"Throtle"}`:                        "fault",
		`{"fault":"Throttle","action":"SendMesage"}`: "action", `{"fault":"Reorder","action":"SendMessageBatch"}`: "action",
		`{"fault":"Duplicate","action":"SendMessage"}`: "action", `{"fault":"PartialBatch","action":"SendMessage"}`: "action",
		`{"fault":"NotInFlight","action":"ReceiveMessage"}`: "action", `{"fault":"StaleReads","action":"ListQueues","duration":"1s"}`: "action",
		`{"fault":"SlowCreate","action":"CreateQueue","duration":"1s"}`: "action", `{"fault":"SlowCreate","action":"ListQueues","duration":"1s"}`: "action",
		`{"fault":"Throttle","action":"["}`: "action", `{"fault":"Throttle","action":"Send[z-a]*"}`: "action",
		`{"fault":"ListLag","queue":"rq_*","duration":"1s"}`: "queue", `{"fault":"Throttle","action":"ListQueues","queue":"q"}`: "queue",
		`{"fault":"Duplicate","queue":"*.fifo"}`: "queue", `{"fault":"Reorder","queue":"q?.fif[o]"}`: "queue",
		`{"fault":"DeliveryLag","queue":"q.*","duration":"1s"}`: "queue", `{"fault":"IgnoreOldHandles","queue":"q.fifo"}`: "queue",
		`{"fault":"Throttle","queue":"q.a"}`: "queue", `{"fault":"Throttle","queue":".fifo"}`: "queue", `{"fault":"Throttle","queue":"my queue"}`: "queue",
		`{"fault":"Throttle","queue":"http://127.0.0.1/000000000000/q"}`: "queue", `{"fault":"Throttle","queue":"arn:aws:sqs:*"}`: "queue",
		`{"fault":"Throttle","queue":"` + strings.Repeat("q", 81) + `"}`: "queue", `{"fault":"Throttle","queue":"` + strings.Repeat("?", 76) + `.fifo*"}`: "queue",
		`{"fault":"Throttle","queue":"q["}`: "queue", `{"fault":"Throttle","queue":"ä*"}`: "queue",
		`{"fault":"Throttle","duration":"1s"}`: "duration", `{"fault":"CutBody","duration":"1s"}`: "duration", `{"fault":"Delay"}`: "duration",
		`{"fault":"StaleReads","duration":"999µs"}`: "duration", `{"fault":"DeliveryLag","duration":"1ns"}`: "duration", `{"fault":"SlowCreate","duration":"-1s"}`: "duration",
		`{"fault":"ListLag","duration":"1us"}`: "duration", `{"fault":"LostSends","duration":"1us"}`: "duration", `{"fault":"Duplicate","duration":"1us"}`: "duration",
		`{"fault":"Throttle","probability":1e-10}`: "probability", `{"fault":"Throttle","probability":-0.1}`: "probability", `{"fault":"Throttle","probability":1.1}`: "probability",
		`{"fault":"Throttle","skip":-1}`: "skip", `{"fault":"Throttle","count":-1}`: "count", `{"fault":"Throttle","spread":1}`: "spread",
	} {
		_, err := sqstest.ParsePlan(`{"rules":[` + rule + `]}`)
		if err == nil || !strings.HasPrefix(err.Error(), "fault plan: rule 0: "+field+": ") {
			t.Errorf("%s: %v", rule, err)
		}
	}
	for _, rule := range []string{
		`{"fault":"ListLag","duration":"1s"}`, `{"fault":"PartialBatch","action":"*Batch"}`, `{"fault":"Throttle","queue":"rq_*"}`,
		`{"fault":"AbandonPoll","duration":"1s"}`, `{"fault":"Duplicate","duration":"1s"}`, `{"fault":"Reorder","action":"Send*"}`,
		`{"fault":"Duplicate","queue":"*[o]"}`, `{"fault":"Throttle","queue":"*.fifo"}`, `{"fault":"Sharded","queue":"q.fifo"}`,
		`{"fault":"Throttle","queue":"` + strings.Repeat("?", 75) + `.fifo"}`, `{"fault":"Throttle","queue":"` + strings.Repeat("q", 80) + `"}`,
		`{"fault":"Throttle","queue":"[^a-y]\\-*"}`, `{"fault":"Throttle","action":"ListQueues","queue":"*"}`, `{"fault":"SlowCreate","action":"*Queue*","duration":"1s"}`,
		`{"fault":"StaleReads","duration":"1ms"}`, `{"fault":"Delay","duration":"1us"}`, `{"fault":"Throttle","probability":1e-9}`,
	} {
		if _, err := sqstest.ParsePlan(`{"rules":[` + rule + `]}`); err != nil {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// A rule whose occasions another takes first, all of them, could never strike either.
func TestHiddenRulesAreRefused(t *testing.T) {
	for rules, hidden := range map[string]int{
		`{"fault":"Throttle"},{"fault":"Throttle","queue":"q"}`:                                                   1,
		`{"fault":"Throttle","queue":"q"},{"fault":"Throttle"}`:                                                   -1,
		`{"fault":"Throttle","action":"SendMessage"},{"fault":"Throttle","action":"SendMessage","probability":1}`: 1,
		`{"fault":"Throttle","count":1},{"fault":"Throttle"}`:                                                     -1,
		`{"fault":"Throttle","skip":1},{"fault":"Throttle"}`:                                                      -1,
		`{"fault":"Throttle","probability":0.5},{"fault":"Throttle"}`:                                             -1,
		`{"fault":"ServerError","queue":"q"},{"fault":"Throttle"}`:                                                0,
		`{"fault":"ServerError"},{"fault":"Throttle","queue":"q"}`:                                                -1,
		`{"fault":"BlackHole"},{"fault":"AbandonPoll","duration":"10s"}`:                                          -1, // of a poll that waited before
		`{"fault":"DropBefore"},{"fault":"DropAfter"}`:                                                            -1,
		`{"fault":"DropBefore","action":"Send*"},{"fault":"DropAfter"}`:                                           -1,
		`{"fault":"Throttle"},{"fault":"Delay","duration":"1s"}`:                                                  -1,
		`{"fault":"Throttle","action":"Send*"},{"fault":"Throttle","action":"SendMessage"}`:                       1,
		`{"fault":"Throttle","queue":"a*"},{"fault":"Throttle","queue":"ab"}`:                                     1,
		`{"fault":"Throttle","queue":"a*"},{"fault":"Throttle","queue":"b*"}`:                                     -1,
		`{"fault":"Duplicate","action":"ReceiveMessage"},{"fault":"Duplicate"}`:                                   1,
		`{"fault":"SlowCreate","duration":"10s"},{"fault":"SlowCreate","duration":"5s"}`:                          1,
		`{"fault":"StaleReads","duration":"1s"},{"fault":"StaleReads","duration":"2s"}`:                           -1,
		`{"fault":"StaleReads","duration":"2s"},{"fault":"StaleReads","duration":"1s"}`:                           -1, // counts may have been other between
		`{"fault":"StaleReads","duration":"1s"},{"fault":"StaleReads","duration":"1s"}`:                           1,
		`{"fault":"Delay","duration":"1s"},{"fault":"Delay","duration":"2s"}`:                                     1,
		`{"fault":"AbandonPoll"},{"fault":"AbandonPoll","duration":"2s"}`:                                         -1,
	} {
		_, err := sqstest.ParsePlan(`{"rules":[` + rules + `]}`)
		if (err != nil) != (hidden >= 0) || err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("fault plan: rule %d: ", hidden)) {
			t.Errorf("%s: %v, want rule %d refused", rules, err, hidden)
		}
	}
}

// panicked is what f panics with, nil when it does not.
func panicked(f func()) (with any) {
	defer func() { with = recover() }()
	f()
	return nil
}

func panics(f func()) bool { return panicked(f) != nil }

func TestAccessRulesThatMeanNothingPanic(t *testing.T) {
	s := sqstest.New()
	for field, rules := range map[string][]sqstest.AccessRule{
		"AccessKey": {{AccessKey: "["}},
		"Action":    {{Action: "SendMesage"}, {Action: "SendMessageBatch"}, {Action: "*Batch"}, {Action: "["}},
		"Queue": {
			{Queue: "rq_["}, {Action: "ListQueues", Queue: "rq_*"}, {Queue: "rq a"}, {Queue: "http://h/000000000000/q"}, {Deny: true, Queue: "q.fi"},
		},
	} {
		for _, r := range rules {
			said := panicked(func() { s.SetAccess(r) })
			if !strings.HasPrefix(fmt.Sprint(said), "sqstest: access rule 0: "+field+": ") {
				t.Errorf("%+v: %v", r, said)
			}
		}
	}
	s.SetAccess(sqstest.AccessRule{Action: "Send*", Queue: "*.fifo"}, sqstest.AccessRule{}, sqstest.AccessRule{Action: "ListQueues"})
}

// However a request names a queue, what is said of that queue holds for it.
func TestDenialsHoldForEveryNameOfAQueue(t *testing.T) {
	s := sqstest.New()
	c := s.Client(noRetries)
	create(t, c, "victim", nil)
	names := []string{
		"http://h/000000000000/victim", "arn:://h/000000000000/victim", "arn:aws:sqs://000000000000/victim", "/000000000000/victim",
		"000000000000/victim", "victim", "http://h/a:b/c/000000000000/victim", "x://y://h/000000000000/victim",
		"arn:aws:sqs:us-east-1:000000000000:victim", "http://h/000000000000/victim/", "http://h/000000000000/victim?a=/b",
	}
	trySend := func(url string) string {
		_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
		return errorCode(err)
	}
	for _, name := range names {
		s.SetAccess()
		s.ResetRequests()
		before := trySend(name)
		s.SetAccess(sqstest.AccessRule{Deny: true, Queue: "victim"})
		after := trySend(name)
		if before == "" && after != "AccessDenied" || before != "" && after != before {
			t.Errorf("%s: %q, and %q when denied", name, before, after)
		}
		// The log and the faults call it by the same name.
		if log := s.RequestLog(); before == "" && log[0].Queue != "victim" {
			t.Errorf("%s is logged as %q", name, log[0].Queue)
		}
	}
	if q, _ := s.Queue("victim"); q.Visible < 5 {
		t.Errorf("%d of the names work", q.Visible)
	}
}

// Whoever may not send to a queue cannot have messages moved to it, nor moved from one that cannot be received from.
func TestMoveTasksNeedThePermissionsOfWhatTheyDo(t *testing.T) {
	s := sqstest.New()
	c := s.Client(noRetries)
	dead := create(t, c, "dead", nil)
	create(t, c, "victim", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`})
	create(t, c, "other", nil)
	send(t, c, dead, "x")
	start := func(to string) string {
		in := &sqs.StartMessageMoveTaskInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:000000000000:dead")}
		if to != "" {
			in.DestinationArn = aws.String("arn:aws:sqs:us-east-1:000000000000:" + to)
		}
		_, err := c.StartMessageMoveTask(t.Context(), in)
		return errorCode(err)
	}
	s.SetAccess(sqstest.AccessRule{Deny: true, Action: "SendMessage", Queue: "victim"})
	if named, back := start("victim"), start(""); named != "AccessDenied" || back != "AccessDenied" {
		t.Errorf("to a queue that may not be sent to: %q, and %q as the messages' source", named, back)
	}
	for _, permission := range []string{"ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "StartMessageMoveTask"} {
		s.SetAccess(sqstest.AccessRule{Deny: true, Action: permission, Queue: "dead"})
		if code := start("other"); code != "AccessDenied" {
			t.Errorf("without %s on the dead-letter queue: %q", permission, code)
		}
	}
	s.SetAccess(sqstest.AccessRule{Deny: true, Action: "SendMessage", Queue: "victim"})
	if code := start("other"); code != "" {
		t.Errorf("with what it takes: %q", code)
	}
	s.Close()
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
	const chunk = 64 << 10
	large := strings.Repeat("x", 3*chunk)
	for what, test := range map[string]struct {
		do     func(t *testing.T, s *sqstest.Server, c *sqs.Client, url string)
		action string
		want   int
	}{
		"a mebibyte sent": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			send(t, c, url, strings.Repeat("x", 1<<20))
		}, "SendMessage", 16},
		"a chunk, and a byte more": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			send(t, c, url, large[:chunk], large[:chunk+1])
		}, "SendMessage", 3},
		"a receive of three chunks": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			send(t, c, url, large)
			mustPoll(t, c, url, 1, 0)
		}, "ReceiveMessage", 3},
		"a receive of nothing": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) { mustPoll(t, c, url, 1, 0) }, "ReceiveMessage", 1},
		"a batch, as a whole": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			sendTwo(t, c, url, large[:chunk], large[:chunk])
		}, "SendMessageBatch", 2},
		"a batch's accepted entry": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			sendTwo(t, c, url, large, large+"\x00")
		}, "SendMessageBatch", 3},
		"a refused batch": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) {
			sendTwo(t, c, url, strings.Repeat(large, 5), large)
		}, "SendMessageBatch", 1},
		"a refused message": {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) { trySend(t, c, url, large+"\x00") }, "SendMessage", 1},
		"no queue":          {func(t *testing.T, _ *sqstest.Server, c *sqs.Client, url string) { trySend(t, c, url+"-not", large) }, "SendMessage", 1},
		"a malformed body": {func(_ *testing.T, s *sqstest.Server, _ *sqs.Client, _ string) {
			serve(s, http.MethodPost, "/", "AmazonSQS.SendMessage", large)
		}, "SendMessage", 1},
		"a body larger than any": {func(_ *testing.T, s *sqstest.Server, _ *sqs.Client, _ string) {
			serve(s, http.MethodPost, "/", "AmazonSQS.SendMessage", strings.Repeat(large, 50))
		}, "SendMessage", 1},
		"no action of the API": {func(_ *testing.T, s *sqstest.Server, _ *sqs.Client, _ string) {
			serve(s, http.MethodPost, "/", "AmazonSQS.Nonsense", "{}")
		}, "", 0},
		"a denied send":               {struck(sqstest.AccessDenied, large), "SendMessage", 1},
		"a throttled send":            {struck(sqstest.Throttle, large), "SendMessage", 1},
		"a send dropped before":       {struck(sqstest.DropBefore, large), "SendMessage", 0},
		"a send lost to a proxy":      {struck(sqstest.HTMLUnavailable, large), "SendMessage", 0},
		"a send dropped after":        {struck(sqstest.DropAfter, large), "SendMessage", 3},
		"an error after a send":       {struck(sqstest.ServerErrorAfter, large), "SendMessage", 3},
		"a receive dropped after":     {receiveStruck(sqstest.DropAfter, large), "ReceiveMessage", 3},
		"a receive broken off":        {receiveStruck(sqstest.CutBody, large), "ReceiveMessage", 3},
		"a receive refused afterward": {receiveStruck(sqstest.ServerErrorAfter, large), "ReceiveMessage", 3},
	} {
		t.Run(what, func(t *testing.T) {
			s := sqstest.New()
			c := s.Client(noRetries)
			test.do(t, s, c, create(t, c, "q", nil))
			if n := s.Billed(sqstest.Action(test.action)); n != test.want {
				t.Errorf("%d billed, want %d", n, test.want)
			}
		})
	}
}

func trySend(t *testing.T, c *sqs.Client, url, body string) {
	t.Helper()
	if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err == nil {
		t.Error("the send succeeded")
	}
}

// sendTwo sends a batch, of which not all may succeed.
func sendTwo(t *testing.T, c *sqs.Client, url, first, second string) {
	t.Helper()
	_, _ = c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("1"), MessageBody: &first}, {Id: aws.String("2"), MessageBody: &second},
	}})
}

func struck(fault sqstest.Fault, body string) func(*testing.T, *sqstest.Server, *sqs.Client, string) {
	return func(t *testing.T, s *sqstest.Server, c *sqs.Client, url string) {
		s.SetFaults(plan(sqstest.Rule{Fault: fault}))
		trySend(t, c, url, body)
	}
}

func receiveStruck(fault sqstest.Fault, body string) func(*testing.T, *sqstest.Server, *sqs.Client, string) {
	return func(t *testing.T, s *sqstest.Server, c *sqs.Client, url string) {
		send(t, c, url, body)
		s.SetFaults(plan(sqstest.Rule{Fault: fault}))
		if m, err := poll(t.Context(), c, url, 1, 0); err == nil {
			t.Errorf("received %v", m)
		}
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
