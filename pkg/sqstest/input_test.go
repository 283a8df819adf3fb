package sqstest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const rawURL = `"QueueUrl":"http://h/000000000000/q"`

// Of several mistakes in one request, always the same one is reported.
func TestOneOfSeveralMistakesIsChosenByName(t *testing.T) {
	s := sqstest.New()
	create(t, s.Client(), "q", nil)
	for action, body := range map[string]string{
		"SendMessage":        `{` + rawURL + `,"MessageBody":"x","MessageSystemAttributes":{"AWSTraceHeader":{"DataType":"String","StringValue":"x"},"a":{},"b":{},"c":{},"d":{}}}`,
		"SendMessageBatch":   `{` + rawURL + `,"Entries":[{"Id":"1","MessageBody":"x","MessageAttributes":{"a":{},"b":{},"c":{},"d":{},"e":{}}}]}`,
		"SetQueueAttributes": `{` + rawURL + `,"Attributes":{"a":"","b":"","c":"","d":""}}`,
		"TagQueue":           `{` + rawURL + `,"Tags":{"":"","aws:a":"","aws:b":"","x":"` + strings.Repeat("y", 257) + `"}}`,
	} {
		seen := map[string]bool{}
		for range 50 {
			seen[serve(s, http.MethodPost, "/", "AmazonSQS."+action, body).Body.String()] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s: %d different answers", action, len(seen))
		}
	}
}

// The protocol's answer, and not just a status, for what is larger than any request can be.
func TestTooLargeARequest(t *testing.T) {
	ways(t, func(t *testing.T, s *sqstest.Server, _ *sqs.Client) {
		client := s.Client(noRetries)
		if s.URL != "" {
			client = loopbackClient(s, noRetries)
		}
		url := create(t, client, "q", nil)
		_, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String(strings.Repeat("x", 9<<20))})
		if code := errorCode(err); code != "RequestEntityTooLargeException" {
			t.Errorf("got code %q of %v", code, err)
		}
		if n := s.Requests(sqstest.Action("SendMessage"), sqstest.Failed()); n != 1 {
			t.Errorf("%d failures counted, want 1", n)
		}
	})
}

// Half a surrogate pair, or a byte that is no UTF-8, is no character: it must not be taken for U+FFFD, and a whole one must
// be left alone.
func TestWhatIsNoUnicodeIsRefused(t *testing.T) {
	s := sqstest.New()
	c := s.Client()
	url := create(t, c, "q", nil)
	for text, code := range map[string]string{
		`\ud800`: "InvalidMessageContents", `a\uDC00b`: "InvalidMessageContents", `\ud83d\ud83d\ude00`: "InvalidMessageContents",
		"\xff": "InvalidMessageContents", `\u0041` + "\xc3\x28": "InvalidMessageContents", `\ud800\n`: "InvalidMessageContents",
		`\ud83d\ude00`: "", `\\ud800`: "", `\ufffd`: "", "\uFFFD": "", `\u00e4 \"\/`: "",
	} {
		w := serve(s, http.MethodPost, "/", "AmazonSQS.SendMessage", `{`+rawURL+`,"MessageBody":"`+text+`"}`)
		if got, _, _ := strings.Cut(w.Header().Get("X-Amzn-Query-Error"), ";"); got != code {
			t.Errorf("%q: code %q, want %q", text, got, code)
		}
		attribute := serve(s, http.MethodPost, "/", "AmazonSQS.SendMessage", `{`+rawURL+`,"MessageBody":"x","MessageAttributes":{"a":{"DataType":"String","StringValue":"`+text+`"}}}`)
		if (attribute.Code == http.StatusOK) != (code == "") {
			t.Errorf("%q as an attribute: %s", text, attribute.Body)
		}
	}
	var bodies []string
	for _, m := range mustPoll(t, c, url, 10, 0) {
		if len(m.MessageAttributes) == 0 && *m.Body != "x" {
			bodies = append(bodies, *m.Body)
		}
	}
	slices.Sort(bodies)
	want := []string{"\\ud800", "ä \"/", "\uFFFD", "\uFFFD", "😀"}
	slices.Sort(want)
	if !slices.Equal(bodies, want) {
		t.Errorf("got %q, want %q", bodies, want)
	}
}

func TestPolicyMustBeADocument(t *testing.T) {
	c := sqstest.New().Client(noRetries)
	url := create(t, c, "q", nil)
	for _, policy := range []string{"null", "[]", `"x"`, "1"} {
		_, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"Policy": policy}})
		if !isA[*types.InvalidAttributeValue](err) {
			t.Errorf("Policy %s: %v", policy, err)
		}
	}
}

func TestUnknownSystemAttributesCannotBeAskedFor(t *testing.T) {
	c := sqstest.New().Client(noRetries)
	url := create(t, c, "q", nil)
	for _, in := range []*sqs.ReceiveMessageInput{
		{MessageSystemAttributeNames: []types.MessageSystemAttributeName{"SenderId", "Nonsense"}},
		{MessageSystemAttributeNames: []types.MessageSystemAttributeName{"Policy"}},
		{AttributeNames: []types.QueueAttributeName{"Nonsense"}},
	} {
		in.QueueUrl = &url
		if _, err := c.ReceiveMessage(t.Context(), in); errorCode(err) != "InvalidAttributeName" {
			t.Errorf("%v %v: %v", in.MessageSystemAttributeNames, in.AttributeNames, err) //nolint:staticcheck // see above
		}
	}
	for _, name := range types.MessageSystemAttributeName("").Values() {
		if _, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MessageSystemAttributeNames: []types.MessageSystemAttributeName{name}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range types.QueueAttributeName("").Values() {
		if _, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{name}}); err != nil { //nolint:staticcheck // see above
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPermissionLimits(t *testing.T) {
	c := sqstest.New().Client(noRetries)
	url := create(t, c, "q", nil)
	add := func(label string, actions ...string) error {
		_, err := c.AddPermission(t.Context(), &sqs.AddPermissionInput{QueueUrl: &url, Label: &label, AWSAccountIds: []string{"111111111111"}, Actions: actions})
		return err
	}
	eight := []string{"SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl", "PurgeQueue", "ListDeadLetterSourceQueues"}
	if err := add("eight", eight...); !isA[*types.OverLimit](err) {
		t.Errorf("eight actions: %v", err)
	}
	if err := add("seven", eight[:7]...); err != nil {
		t.Errorf("seven actions: %v", err)
	}
	for i := range 19 {
		if err := add("l"+string(rune('a'+i)), "SendMessage"); err != nil {
			t.Fatal(err)
		}
	}
	if err := add("more", "SendMessage"); !isA[*types.OverLimit](err) {
		t.Errorf("a twenty-first statement: %v", err)
	}
}

// A policy's Statement may be a single one, without a list around it.
func TestPermissionsBesideASingleStatement(t *testing.T) {
	c := sqstest.New().Client(noRetries)
	const own = `{"Version":"2012-10-17","Id":"own","Statement":{"Sid":"mine","Effect":"Deny","Principal":"*","Action":"sqs:*","Resource":"*"}}`
	url := create(t, c, "q", map[string]string{"Policy": own})
	label := "theirs"
	if _, err := c.AddPermission(t.Context(), &sqs.AddPermissionInput{QueueUrl: &url, Label: &label, AWSAccountIds: []string{"111111111111"}, Actions: []string{"SendMessage"}}); err != nil {
		t.Fatal(err)
	}
	sids := func() []string {
		out, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"Policy"}})
		if err != nil {
			t.Fatal(err)
		}
		var p struct {
			ID        string `json:"Id"`
			Statement []struct{ Sid, Effect string }
		}
		if err := json.Unmarshal([]byte(out.Attributes["Policy"]), &p); err != nil || p.ID != "own" {
			t.Fatalf("%v: %s", err, out.Attributes["Policy"])
		}
		var all []string
		for _, s := range p.Statement {
			all = append(all, s.Sid+" "+s.Effect)
		}
		return all
	}
	if got := sids(); !slices.Equal(got, []string{"mine Deny", "theirs Allow"}) {
		t.Errorf("after AddPermission: %q", got)
	}
	if _, err := c.RemovePermission(t.Context(), &sqs.RemovePermissionInput{QueueUrl: &url, Label: &label}); err != nil {
		t.Fatal(err)
	}
	if got := sids(); !slices.Equal(got, []string{"mine Deny"}) {
		t.Errorf("after RemovePermission: %q", got)
	}
}

// A denial names the queue that was asked about, whose account may be another than the caller's.
func TestDenialsNameTheQueuesAccount(t *testing.T) {
	s := sqstest.New(sqstest.WithAccessKey("THEIRS", "222222222222"))
	url := create(t, s.Client(), "q", nil)
	theirs := s.Client(noRetries, func(o *sqs.Options) { o.Credentials = keyed("THEIRS") })
	s.SetAccess(sqstest.AccessRule{Deny: true, AccessKey: "THEIRS"})
	const arn = "arn:aws:sqs:us-east-1:000000000000:q"
	_, send := theirs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
	_, find := theirs.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q"), QueueOwnerAWSAccountId: aws.String("000000000000")})
	_, tasks := theirs.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: aws.String(arn)})
	for _, err := range []error{send, find, tasks} {
		if err == nil || !strings.HasSuffix(err.Error(), "on resource: "+arn) {
			t.Errorf("got %v", err)
		}
	}
}

// A FIFO group whose first message is in flight is locked; when that message grows too old, whoever polls gets the next.
func TestRetentionUnlocksAGroupForAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sqstest.New().Client(noRetries)
		url := create(t, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true", "MessageRetentionPeriod": "60", "VisibilityTimeout": "600"})
		sendFIFO := func(body string) {
			if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body, MessageGroupId: aws.String("g")}); err != nil {
				t.Fatal(err)
			}
		}
		sendFIFO("first")
		mustPoll(t, c, url, 1, 0)
		time.Sleep(50 * time.Second)
		sendFIFO("second")
		start := time.Now()
		if m := mustPoll(t, c, url, 1, 20); len(m) != 1 || *m[0].Body != "second" || time.Since(start) != 10*time.Second {
			t.Errorf("%d messages after %v, want the second after 10 s", len(m), time.Since(start))
		}
	})
}

// tickingClock is a second later whenever it is asked.
type tickingClock struct {
	*sqstest.ManualClock
	asked atomic.Int64
}

func (c *tickingClock) Now() time.Time {
	return c.ManualClock.Now().Add(time.Duration(c.asked.Add(1)) * time.Second)
}

// A queue's time does not go back, however long a request takes between looking and changing.
func TestSettingAttributesTakesTheTimeOfTheChange(t *testing.T) {
	clock := &tickingClock{ManualClock: sqstest.NewManualClock(time.Unix(1_800_000_000, 0))}
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	dead := "arn:aws:sqs:us-east-1:000000000000:dead"
	create(t, c, "dead", nil)
	url := create(t, c, "q", nil)
	before := clock.asked.Load()
	if _, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + dead + `","maxReceiveCount":1}`}}); err != nil {
		t.Fatal(err)
	}
	q, _ := s.Queue("q")
	// The request looks at the clock as it comes, then at the queue, at the dead-letter queue, and at the queue again.
	want := strconv.FormatInt(1_800_000_000+before+4, 10)
	if got := q.Attributes["LastModifiedTimestamp"]; got < want {
		t.Errorf("modified at %s, want %s or later", got, want)
	}
}

func errorCode(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	return api.ErrorCode()
}

func keyed(accessKey string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: "x"}, nil
	})
}
