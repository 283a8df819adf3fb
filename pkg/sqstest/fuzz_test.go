package sqstest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// FuzzRequest sends any body to any action of a server with queues in it: there must be no panic, no 5xx, and an answer in
// the protocol's form; what is no JSON object must be a SerializationException.
func FuzzRequest(f *testing.F) {
	const url = `"QueueUrl":"http://h/000000000000/q"`
	for _, s := range [][2]string{
		{"SendMessage", `{` + url + `,"MessageBody":"x","MessageAttributes":{"a":{"DataType":"Number","StringValue":"1"}}}`},
		{"SendMessage", `{` + url + `,"MessageBody":"x","DelaySeconds":901}`},
		{"SendMessage", `{"QueueUrl":"http://h/000000000000/f.fifo","MessageBody":"x","MessageGroupId":"g"}`},
		{"SendMessage", `{` + url + `,"MessageBody":"\ud800"}`},
		{"SendMessage", `{` + url + `,"MessageBody":"` + strings.Repeat(`\n`, 50) + `"}`},
		{"SendMessageBatch", `{` + url + `,"Entries":[{"Id":"1","MessageBody":"x"},null]}`},
		{"ReceiveMessage", `{` + url + `,"MaxNumberOfMessages":10,"WaitTimeSeconds":0,"VisibilityTimeout":0}`},
		{"ReceiveMessage", `{"QueueUrl":"http://h/000000000000/f.fifo","ReceiveRequestAttemptId":"a"}`},
		{"ReceiveMessage", `{"QueueUrl":"http://h/000000000000/f.fifo","WaitTimeSeconds":20}`},
		{"ReceiveMessage", `{` + url + `,"WaitTimeSeconds":21,"MessageSystemAttributeNames":["x"]}`},
		{"DeleteMessage", `{` + url + `,"ReceiptHandle":"AAAA"}`},
		{"DeleteMessageBatch", `{` + url + `,"Entries":[]}`},
		{"ChangeMessageVisibility", `{` + url + `,"ReceiptHandle":"","VisibilityTimeout":-1}`},
		{"CreateQueue", `{"QueueName":"n","Attributes":{"RedrivePolicy":"{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:000000000000:q\",\"maxReceiveCount\":1}"},"tags":{"a":"b"}}`},
		{"SetQueueAttributes", `{` + url + `,"Attributes":{"Policy":"[]","RedriveAllowPolicy":"{}"}}`},
		{"GetQueueAttributes", `{` + url + `,"AttributeNames":["All",""]}`},
		{"GetQueueUrl", `{"QueueName":"","QueueOwnerAWSAccountId":"1"}`},
		{"ListQueues", `{"MaxResults":1,"NextToken":"c3FzdGVzdDo="}`},
		{"TagQueue", `{` + url + `,"Tags":{"":""}}`},
		{"UntagQueue", `{` + url + `,"TagKeys":[""]}`},
		{"AddPermission", `{` + url + `,"Label":"l","AWSAccountIds":["1"],"Actions":["*"]}`},
		{"RemovePermission", `{` + url + `,"Label":"l"}`},
		{"StartMessageMoveTask", `{"SourceArn":"arn:aws:sqs:us-east-1:000000000000:q"}`},
		{"CancelMessageMoveTask", `{"TaskHandle":"eyJ0YXNrSWQiOiJ4Iiwic291cmNlQXJuIjoiYXJuOiJ9"}`},
		{"ListMessageMoveTasks", `{"SourceArn":"arn:"}`},
		{"ListDeadLetterSourceQueues", `{"QueueUrl":"q"}`},
		{"PurgeQueue", `null`}, {"DeleteQueue", ``}, {"Nonsense", `{}`}, {"ListQueueTags", `[1]`},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, action, body string) {
		if strings.ContainsAny(action, "\r\n\x00") {
			t.Skip("no header")
		}
		clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
		s := sqstest.New(sqstest.WithClock(clock))
		defer s.Close()
		serve(s, http.MethodPost, "/", "AmazonSQS.CreateQueue", `{"QueueName":"q"}`)
		serve(s, http.MethodPost, "/", "AmazonSQS.CreateQueue", `{"QueueName":"f.fifo","Attributes":{"FifoQueue":"true","ContentBasedDeduplication":"true"}}`)
		serve(s, http.MethodPost, "/", "AmazonSQS.SendMessage", `{`+url+`,"MessageBody":"x"}`)
		answered := make(chan *httptest.ResponseRecorder, 1)
		go func() { answered <- serve(s, http.MethodPost, "/", "AmazonSQS."+action, body) }()
		for {
			select {
			case w := <-answered:
				checkAnswer(t, body, w)
				return
			default:
				clock.Advance(time.Second) // a long poll ends when its time has passed
				runtime.Gosched()
			}
		}
	})
}

func checkAnswer(t *testing.T, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if w.Code == http.StatusOK {
		if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("the answer is no JSON: %s", w.Body)
		}
		return
	}
	var e struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Type == "" || !strings.HasSuffix(w.Header().Get("X-Amzn-Query-Error"), ";Sender") {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	unknown := strings.HasSuffix(e.Type, "#UnknownOperationException")
	malformed := strings.HasSuffix(e.Type, "#SerializationException")
	if !unknown && body != "" && !json.Valid([]byte(body)) && !malformed {
		t.Fatalf("no JSON, and yet %s", e.Type)
	}
}

// FuzzLoad: whatever a file holds, Load refuses it or makes queues that work; it does not panic.
func FuzzLoad(f *testing.F) {
	s := sqstest.New()
	c := s.Client()
	create(f, c, "dead", nil)
	url := create(f, c, "q", map[string]string{
		"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`,
	})
	fifo := create(f, c, "q.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	send(f, c, url, "x", "y")
	for _, g := range []string{"a", "b"} {
		if _, err := c.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &fifo, MessageBody: &g, MessageGroupId: &g}); err != nil {
			f.Fatal(err)
		}
	}
	for _, u := range []string{url, fifo} {
		if _, err := poll(f.Context(), c, u, 1, 0); err != nil {
			f.Fatal(err)
		}
	}
	var saved bytes.Buffer
	if err := s.Save(&saved); err != nil {
		f.Fatal(err)
	}
	f.Add(saved.Bytes())
	f.Add([]byte(`{"Format":"sqstest","Version":1,"Queues":1}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		s := sqstest.New()
		if s.Load(bytes.NewReader(file)) != nil {
			return
		}
		for _, q := range s.Queues() {
			for _, action := range []string{"ReceiveMessage", "GetQueueAttributes", "SendMessage", "DeleteQueue"} {
				body, err := json.Marshal(map[string]any{"QueueUrl": q.URL, "WaitTimeSeconds": 0, "MessageBody": "x", "MessageGroupId": "g"})
				if err != nil {
					t.Fatal(err)
				}
				if w := serve(s, http.MethodPost, "/", "AmazonSQS."+action, string(body)); w.Code >= 500 {
					t.Errorf("%s %s: %d %s", action, q.URL, w.Code, w.Body)
				}
			}
		}
		if err := s.Save(io.Discard); err != nil {
			t.Error(err)
		}
	})
}
