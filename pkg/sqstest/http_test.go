package sqstest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func serve(s *sqstest.Server, method, path, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestErrorsOnTheWire(t *testing.T) {
	s := sqstest.New()
	for _, c := range []struct{ target, body, shape, query string }{
		{"AmazonSQS.GetQueueUrl", `{"QueueName":"none"}`, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue;Sender"},
		{"AmazonSQS.SendMessage", `{}`, "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter;Sender"},
		{"AmazonSQS.SendMessage", `{`, "com.amazon.coral.service#SerializationException", "MalformedInput;Sender"},
		{"AmazonSQS.SendMessage", `{"QueueUrl":1}`, "com.amazon.coral.service#SerializationException", "MalformedInput;Sender"},
		{"AmazonSQS.SendMessage", `[]`, "com.amazon.coral.service#SerializationException", "MalformedInput;Sender"},
		{"AmazonSQS.Nonsense", `{}`, "com.amazon.coral.service#UnknownOperationException", "InvalidAction;Sender"},
		{"DynamoDB.SendMessage", `{}`, "com.amazon.coral.service#UnknownOperationException", "InvalidAction;Sender"},
		{"", `{}`, "com.amazon.coral.service#UnknownOperationException", "InvalidAction;Sender"},
	} {
		w := serve(s, http.MethodPost, "/", c.target, c.body)
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatalf("%s %s: %v", c.target, c.body, err)
		}
		if w.Code != http.StatusBadRequest || e.Type != c.shape || e.Message == "" || w.Header().Get("X-Amzn-Query-Error") != c.query {
			t.Errorf("%s %s: %d %v %s", c.target, c.body, w.Code, e, w.Header().Get("X-Amzn-Query-Error"))
		}
		if w.Header().Get("Content-Type") != "application/x-amz-json-1.0" || w.Header().Get("X-Amzn-Requestid") == "" {
			t.Errorf("headers %v", w.Header())
		}
	}
}

// An answer is sent with its length, not in chunks, however long it is.
func TestAnswersHaveTheirLength(t *testing.T) {
	s := sqstest.NewServer(t)
	c := s.Client()
	url := create(t, c, "q", nil)
	send(t, c, url, strings.Repeat("x", 10_000))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader(`{"QueueUrl":"`+url+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS.ReceiveMessage")
	answer, err := socketClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || len(body) < 10_000 || answer.ContentLength != int64(len(body)) || len(answer.TransferEncoding) > 0 {
		t.Errorf("%d bytes, %v, of %d in the header, %v", len(body), err, answer.ContentLength, answer.TransferEncoding)
	}
}

func TestOtherMethodsAndPaths(t *testing.T) {
	s := sqstest.New()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/", 200}, {http.MethodHead, "/", 200}, {http.MethodGet, "/healthz", 200},
		{http.MethodGet, "/_sqstest/state", 200}, {http.MethodGet, "/nothing", 404}, {http.MethodPut, "/", 405},
	} {
		if w := serve(s, c.method, c.path, "", ""); w.Code != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.status)
		}
	}
}

func TestStatusPage(t *testing.T) {
	s := sqstest.New()
	c := s.Client()
	url := create(t, c, "orders", nil)
	if _, err := c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"<b>": `"><script>alert(1)</script>`}}); err != nil {
		t.Fatal(err)
	}
	send(t, c, url, "x", "y")
	mustPoll(t, c, url, 1, 0)
	_, _ = c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("<i>")})

	page := serve(s, http.MethodGet, "/", "", "").Body.String()
	for _, want := range []string{"orders", "<title>1 visible · 1 in flight", "SendMessage", "&lt;b&gt;", `http-equiv="refresh"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<script", "<b>", "<i>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}

	var state sqstest.State
	if err := json.Unmarshal(serve(s, http.MethodGet, "/_sqstest/state", "", "").Body.Bytes(), &state); err != nil {
		t.Fatal(err)
	}
	if state.Requests["SendMessage"] != 2 || state.Failed["GetQueueUrl"] != 1 || len(state.Queues) != 1 || state.Queues[0].Visible != 1 || state.Queues[0].InFlight != 1 {
		t.Errorf("%+v", state)
	}
	if u := state.Queues[0].URL; u != "http://example.com/000000000000/orders" { // the host of httptest's requests
		t.Errorf("URL %s", u)
	}
}

func TestStatusPageOfManyAndOfNoQueues(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	page := func() string { return serve(s, http.MethodGet, "/", "", "").Body.String() }
	for _, want := range []string{"No queue has a message or a poll", "None yet"} {
		if !strings.Contains(page(), want) {
			t.Errorf("without queues, the page lacks %q", want)
		}
	}
	c := s.Client()
	for i := range 1700 {
		create(t, c, fmt.Sprintf("q-%04d", i), nil)
	}
	send(t, c, "http://h/000000000000/q-0007", slices.Repeat([]string{"x"}, 20)...)
	clock.Advance(61 * time.Second)
	send(t, c, "http://h/000000000000/q-0008", slices.Repeat([]string{"x"}, 5)...)
	got := page()
	for _, want := range []string{
		"polls (1698)", ">q-1001<", "and 698 more", "1 min 1 s", `style="--n: 100%"`, `style="--n: 25%"`,
		"<td>SendMessage</td><td>25</td><td>0.5</td><td>25</td>", // five in ten seconds
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(got, "q-1002") {
		t.Error("the page lists every queue")
	}
}

func TestListenRefusesOtherAddresses(t *testing.T) {
	for _, a := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0", "nonsense"} {
		s := sqstest.New()
		if err := s.Listen(a); err == nil {
			s.Close()
			t.Errorf("%s was taken", a)
		}
	}
	s := sqstest.New()
	if err := s.Listen("localhost:0"); err != nil {
		t.Error(err)
	}
	s.Close()
}

func TestAccountsAndRegionsAreApart(t *testing.T) {
	s := sqstest.New(sqstest.WithAccessKey("OTHER", "222222222222"), sqstest.WithRegion("eu-central-1"))
	other := s.Client(func(o *sqs.Options) {
		o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "OTHER", SecretAccessKey: "x"}, nil
		})
	})
	elsewhere := s.Client(func(o *sqs.Options) { o.Region = "ap-southeast-2" })
	for _, c := range []*sqs.Client{s.Client(), other, elsewhere} {
		create(t, c, "q", nil)
		out, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{})
		if err != nil || len(out.QueueUrls) != 1 {
			t.Errorf("%v %v", out, err)
		}
	}
	var arns []string
	for _, q := range s.Queues() {
		arns = append(arns, q.ARN)
	}
	want := "arn:aws:sqs:ap-southeast-2:000000000000:q arn:aws:sqs:eu-central-1:000000000000:q arn:aws:sqs:eu-central-1:222222222222:q"
	if got := strings.Join(arns, " "); got != want {
		t.Errorf("got %s", got)
	}
}

func TestOtherAccountsQueues(t *testing.T) {
	s := sqstest.New(sqstest.WithAccessKey("OTHER", "222222222222"))
	url := create(t, s.Client(), "q", nil)
	other := s.Client(noRetries, func(o *sqs.Options) {
		o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "OTHER", SecretAccessKey: "x"}, nil
		})
	})
	send(t, other, url, "x")
	_, err := other.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q"), QueueOwnerAWSAccountId: aws.String(sqstest.DefaultAccount)})
	if err != nil {
		t.Error(err)
	}
	_, drop := other.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
	_, tag := other.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{"a": "b"}})
	for _, err := range []error{drop, tag} {
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("got %v", err)
		}
	}
}

// Without MaxResults, a list is the first thousand and has no token.
func TestListOfMoreThanAThousand(t *testing.T) {
	s := sqstest.New()
	c := s.Client()
	for i := range 1005 {
		raw(t, s, "CreateQueue", fmt.Sprintf(`{"QueueName":"q%d"}`, i))
	}
	out, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{})
	if err != nil || len(out.QueueUrls) != 1000 || out.NextToken != nil {
		t.Errorf("%d queues, token %v, %v", len(out.QueueUrls), out.NextToken, err)
	}
	total := 0
	for p := sqs.NewListQueuesPaginator(c, &sqs.ListQueuesInput{MaxResults: aws.Int32(1000)}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += len(page.QueueUrls)
	}
	if total != 1005 {
		t.Errorf("%d queues in pages", total)
	}
}

func TestRequestsAreCountedAndLogged(t *testing.T) {
	s := sqstest.New()
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	s.AssertRequests(t, map[string]int{"SendMessage": 2}, func() { send(t, c, url, "a", "b") }, sqstest.OnQueue("q"))
	var failed recorder
	s.AssertRequests(&failed, map[string]int{"SendMessage": 1, "DeleteMessage": 1}, func() { send(t, c, url, "c", "d") })
	if failed.errors != 2 {
		t.Errorf("a wrong expectation made %d errors, want 2", failed.errors)
	}
	_, _ = c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("none")})
	log := s.RequestLog(sqstest.Failed())
	if len(log) != 1 || log[0].Queue != "none" || log[0].Status != 400 || log[0].AccessKey != sqstest.AccessKey || log[0].Region != sqstest.DefaultRegion {
		t.Errorf("log %+v", log)
	}
	if n := s.Requests(sqstest.Action("SendMessage", "CreateQueue")); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
	s.ResetRequests()
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests after the reset", n)
	}
}

type recorder struct{ errors int }

func (*recorder) Helper()                 {}
func (r *recorder) Errorf(string, ...any) { r.errors++ }

func TestLogKeepsTheLatest(t *testing.T) {
	s := sqstest.New()
	for range 10_010 {
		serve(s, http.MethodPost, "/", "AmazonSQS.ListQueues", "{}")
	}
	serve(s, http.MethodPost, "/", "AmazonSQS.GetQueueUrl", `{"QueueName":"last"}`)
	log := s.RequestLog()
	if len(log) != 10_000 || log[len(log)-1].Queue != "last" || s.Requests() != 10_011 {
		t.Errorf("%d remembered, %d counted, last %+v", len(log), s.Requests(), log[len(log)-1])
	}
}

// A receive of much more than 4 KB is where the SDK's early close of the request body breaks connections.
func TestLargeAnswersByLoopback(t *testing.T) {
	s := sqstest.NewServer(t)
	c := loopbackClient(s, noRetries)
	url := create(t, c, "q", nil)
	body := strings.Repeat("x", 8192)
	for range 300 {
		send(t, c, url, body)
		m := mustPoll(t, c, url, 1, 1)
		if len(m) != 1 || len(*m[0].Body) != len(body) {
			t.Fatal("no message")
		}
		remove(t, c, url, m[0])
	}
}

func TestRoundTripNeedsAnSQSRequest(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://sqs.us-east-1.sqstest.invalid/", nil)
	if resp, err := sqstest.New().RoundTrip(r); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		t.Error("GET was answered")
	}
}
