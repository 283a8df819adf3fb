package rpcclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// vectors reads a file of docs/protocol/vectors.
func vectors[T any](t *testing.T, name string) []T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no cases in %s", name)
	}
	return out
}

// vectorTime is "now" in the vectors: their envelopes' t.
var vectorTime = time.UnixMilli(1_700_000_000_000)

type vectorMessage struct {
	Body       string            `json:"body"`
	Attributes map[string]string `json:"attributes"`
}

func (v vectorMessage) message() *types.Message {
	m := &types.Message{Body: &v.Body, MessageId: aws.String("m"), ReceiptHandle: aws.String("h"), MessageAttributes: map[string]types.MessageAttributeValue{}}
	for name, value := range v.Attributes {
		m.MessageAttributes[name] = stringAttribute(value)
	}
	return m
}

// offlineServer is a channel's server that never touches the network.
func offlineServer(t *testing.T, defaultMethod string, opts ...Option) *channelServer {
	t.Helper()
	client := sqs.New(sqs.Options{Region: "eu-west-1"})
	r, err := NewResponder(client, append([]Option{
		WithChannels(ChannelConfig{Name: "login", URL: ownQueue}),
		WithReturnAddresses(ReturnAddressPolicy{Prefixes: []string{"rq_c_r_", "__RequesterClientQueues__"}}),
		WithDefaultMethod(defaultMethod, 30*time.Second),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	NewMethod[json.RawMessage, json.RawMessage]("calculate_sum").Handle(r, func(_ context.Context, m json.RawMessage) (json.RawMessage, error) { return m, nil })
	return r.servers[0]
}

// freshDelivery is a first receive of a message of that age.
func freshDelivery(age time.Duration) delivery {
	return delivery{sent: vectorTime.Add(-age), firstReceive: vectorTime, count: 1, local: vectorTime}
}

func TestRequestVectors(t *testing.T) {
	type vector struct {
		Name string `json:"name"`
		vectorMessage
		DefaultMethod *string `json:"defaultMethod"`
		AgeMS         int64   `json:"ageMs"`
		Want          struct {
			Peer      string            `json:"peer"`
			Method    string            `json:"method"`
			Payload   string            `json:"payload"`
			BudgetMS  int64             `json:"budgetMs"`
			Attempt   int               `json:"attempt"`
			Metadata  map[string]string `json:"metadata"`
			Situation string            `json:"situation"`
			Code      Code              `json:"code"`
		} `json:"want"`
	}
	for _, v := range vectors[vector](t, "requests.json") {
		t.Run(v.Name, func(t *testing.T) {
			method := "calculate_sum"
			if v.DefaultMethod != nil {
				method = *v.DefaultMethod
			}
			s := offlineServer(t, method)
			q := s.admit(v.message(), freshDelivery(time.Duration(v.AgeMS)*time.Millisecond), vectorTime)
			if v.Want.Peer != "" && q.peer.String() != v.Want.Peer {
				t.Errorf("peer %s, want %s", q.peer, v.Want.Peer)
			}
			if v.Want.Situation != "" {
				if q.refusal == nil || q.situation.String() != v.Want.Situation {
					t.Errorf("situation %s, %v; want %s", q.situation, q.refusal, v.Want.Situation)
				}
				if v.Want.Code != "" && CodeOf(q.refusal) != v.Want.Code {
					t.Errorf("refused with %v, want %s", q.refusal, v.Want.Code)
				}
				return
			}
			if q.refusal != nil {
				t.Fatalf("refused: %s: %v", q.situation, q.refusal)
			}
			if q.method != v.Want.Method || string(q.payload) != v.Want.Payload ||
				q.budget.Milliseconds() != v.Want.BudgetMS || q.info.Attempt != v.Want.Attempt || !maps.Equal(q.info.metadata, v.Want.Metadata) {
				t.Errorf("got %+v, want %+v", q, v.Want)
			}
		})
	}
}

func TestDuplicateVectors(t *testing.T) {
	type vector struct {
		Name     string `json:"name"`
		Received []struct {
			vectorMessage
			MessageID string `json:"messageId"`
			Want      string `json:"want"`
		} `json:"received"`
	}
	for _, v := range vectors[vector](t, "duplicates.json") {
		t.Run(v.Name, func(t *testing.T) {
			s := offlineServer(t, "calculate_sum")
			NewMethod[json.RawMessage, json.RawMessage]("other").Handle(s.r, func(_ context.Context, m json.RawMessage) (json.RawMessage, error) { return m, nil })
			for i, received := range v.Received {
				m := received.message()
				m.MessageId = &received.MessageID
				q := s.admit(m, freshDelivery(0), vectorTime)
				if q.refusal != nil {
					t.Fatal(q.refusal)
				}
				now := time.Now()
				entry, found := s.r.cache.begin(q.key, s.r.hashRequest(q), q.info.Attempt, q.copy, now, s.retention(q, now))
				got := map[verdict]string{runIt: "run", joined: "duplicate", replayed: "duplicate", conflicting: Undecodable.String()}[found]
				if got != received.Want {
					t.Errorf("message %d: %s, want %s", i, got, received.Want)
				}
				if found == runIt {
					s.r.cache.finish(entry, replyContent{}, Succeeded)
				}
			}
		})
	}
}

func TestReplyVectors(t *testing.T) {
	type vector struct {
		Name string `json:"name"`
		vectorMessage
		Attempt int `json:"attempt"` // that the requester awaits; 0: the first
		Want    struct {
			wantedReply
			Ignored bool `json:"ignored"`
		} `json:"want"`
	}
	for _, v := range vectors[vector](t, "replies.json") {
		t.Run(v.Name, func(t *testing.T) { readReply(t, v.message(), max(1, v.Attempt), v.Want.wantedReply, v.Want.Ignored) })
	}
}

// wantedReply is what a caller sees of a reply.
type wantedReply struct {
	Payload      string            `json:"payload"`
	Metadata     Metadata          `json:"metadata"`
	Code         Code              `json:"code"`
	Outcome      string            `json:"outcome"`
	Message      *string           `json:"message"`
	Details      []json.RawMessage `json:"details"`
	RetryAfterMS int64             `json:"retryAfterMs"`
}

// offlineRequester never touches the network.
func offlineRequester(t *testing.T, opts ...Option) *Requester {
	t.Helper()
	r, err := NewRequester(sqs.New(sqs.Options{Region: "eu-west-1"}), StaticReplyQueue(ownQueue), append([]Option{WithChannels(
		ChannelConfig{Name: "login", URL: ownQueue}, ChannelConfig{Name: "fifo", URL: ownQueue + ".fifo"})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown(context.Background()) })
	return r
}

// readReply gives a message to a call that awaits the reply to an attempt.
func readReply(t *testing.T, m *types.Message, attempt int, want wantedReply, ignored bool) {
	t.Helper()
	r := offlineRequester(t)
	c := &call{requester: r, id: newCallID(r.nonce), channel: r.channels["login"], attempt: attempt, queue: r.queue, done: make(chan answer, 1)}
	r.mu.Lock()
	r.pending[c.id] = c
	verdict := c.delivered(answer{body: *m.Body, envelope: attribute(m, attributeEnvelope), trace: attribute(m, TraceParent)})
	delete(r.pending, c.id)
	r.mu.Unlock()
	if (verdict == deliveryStale) != ignored {
		t.Fatalf("verdict %d; to be ignored: %t", verdict, ignored)
	}
	if ignored {
		return
	}
	var payload []byte
	var metadata Metadata
	err := c.read(<-c.done, func(b []byte, md Metadata) error {
		payload, metadata = b, md
		return nil
	})
	if want.Code == "" {
		if err != nil || string(payload) != want.Payload || !maps.Equal(metadata, want.Metadata) {
			t.Errorf("got %q with %v, %v; want %q with %v", payload, metadata, err, want.Payload, want.Metadata)
		}
		return
	}
	if err == nil || err.Code != want.Code || err.Outcome.String() != want.Outcome ||
		err.RetryAfter.Milliseconds() != want.RetryAfterMS || len(err.Details) != len(want.Details) {
		t.Fatalf("got %#v, want %+v", err, want)
	}
	if want.Message != nil && err.Message != *want.Message {
		t.Errorf("message %q, want %q", err.Message, *want.Message)
	}
}

func TestAnswerVectors(t *testing.T) {
	type vector struct {
		Name         string        `json:"name"`
		Request      vectorMessage `json:"request"`
		ReceiveCount int           `json:"receiveCount"` // 0: 1
		Result       struct {
			Payload       string            `json:"payload"`
			Metadata      Metadata          `json:"metadata"`
			PayloadBase64 string            `json:"payloadBase64"`
			Code          Code              `json:"code"`
			Message       string            `json:"message"`
			Details       []json.RawMessage `json:"details"`
			RetryAfterMS  int64             `json:"retryAfterMs"`
			Rejected      bool              `json:"rejected"`
		} `json:"result"`
		Want struct {
			To         string            `json:"to"`
			Body       string            `json:"body"`
			Attributes map[string]string `json:"attributes"`
		} `json:"want"`
	}
	for _, v := range vectors[vector](t, "answers.json") {
		t.Run(v.Name, func(t *testing.T) {
			s := offlineServer(t, "calculate_sum")
			NewRawMethod("blob", Raw.Name()).Handle(s.r, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
			d := freshDelivery(0)
			d.count = max(1, v.ReceiveCount)
			q := s.admit(v.Request.message(), d, vectorTime)
			if q.refusal != nil {
				t.Fatal(q.refusal)
			}
			for key, value := range v.Result.Metadata {
				SetReplyMetadata(context.WithValue(t.Context(), servingKey{}, &q.serving), key, value)
			}
			payload := []byte(v.Result.Payload)
			if v.Result.PayloadBase64 != "" {
				payload, _ = base64.StdEncoding.DecodeString(v.Result.PayloadBase64)
			}
			var content replyContent
			if v.Result.Code == "" {
				content = answerContent(q, payload)
			} else {
				content = errorContent(q, &Error{
					Code: v.Result.Code, Message: v.Result.Message, Details: compact(t, v.Result.Details),
					RetryAfter: time.Duration(v.Result.RetryAfterMS) * time.Millisecond,
				}, v.Result.Rejected)
			}
			m := &replyMessage{to: q.to, content: content}
			entry, ok := m.entry(vectorTime)
			if !ok {
				t.Fatal("not sent")
			}
			got := map[string]string{}
			for name, a := range entry.MessageAttributes {
				got[name] = *a.StringValue
			}
			if *entry.MessageBody != v.Want.Body || !maps.Equal(got, v.Want.Attributes) || m.to.queueURL != v.Want.To {
				t.Errorf("to %s\nbody %s\nattributes %v\nwant %+v", m.to.queueURL, *entry.MessageBody, got, v.Want)
			}

			// And back: the requester that gets it knows what the handler returned.
			want := wantedReply{Payload: string(payload), Metadata: v.Result.Metadata}
			if v.Result.Code != "" {
				outcome := Executed
				if v.Result.Rejected && v.ReceiveCount > 1 {
					outcome = MaybeExecuted
				} else if v.Result.Rejected {
					outcome = Rejected
				}
				want = wantedReply{
					Code: v.Result.Code, Outcome: outcome.String(), Message: &v.Result.Message,
					Details: v.Result.Details, RetryAfterMS: v.Result.RetryAfterMS,
				}
			} else if !q.native && len(payload) == 0 {
				want.Payload = emptyBody // nothing tells a Java requester
			}
			readReply(t, vectorMessage{Body: v.Want.Body, Attributes: v.Want.Attributes}.message(), max(1, q.info.Attempt), want, false)
		})
	}
}

// compact undoes the vectors' indentation.
func compact(t *testing.T, details []json.RawMessage) []json.RawMessage {
	t.Helper()
	var out []json.RawMessage
	for _, d := range details {
		var v any
		if err := json.Unmarshal(d, &v); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestBodyVectors(t *testing.T) {
	type vector struct {
		PayloadBase64 string `json:"payloadBase64"`
		Body          string `json:"body"`
		Encoding      string `json:"encoding"`
	}
	for _, v := range vectors[vector](t, "bodies.json") {
		payload, err := base64.StdEncoding.DecodeString(v.PayloadBase64)
		if err != nil {
			t.Fatal(err)
		}
		if body, encoding := encodeBody(payload); body != v.Body || encoding != v.Encoding {
			t.Errorf("%q: got %q as %s, want %q as %s", payload, body, encoding, v.Body, v.Encoding)
		}
		if back, err := decodeBody(v.Body, v.Encoding); err != nil || string(back) != string(payload) {
			t.Errorf("%q as %s: got %q, %v, want %q", v.Body, v.Encoding, back, err, payload)
		}
	}
}

func TestReturnAddressVectors(t *testing.T) {
	type vector struct {
		Name   string `json:"name"`
		Policy struct {
			Prefixes []string `json:"prefixes"`
			Accounts []string `json:"accounts"`
		} `json:"policy"`
		RequestQueue string  `json:"requestQueue"`
		Received     string  `json:"received"`
		Want         *string `json:"want"`
	}
	for _, v := range vectors[vector](t, "return-addresses.json") {
		t.Run(v.Name, func(t *testing.T) {
			got, err := checkReturnAddress(ReturnAddressPolicy{Prefixes: v.Policy.Prefixes, Accounts: v.Policy.Accounts}, v.RequestQueue, v.Received)
			switch {
			case v.Want == nil && err == nil:
				t.Errorf("accepted as %s", got)
			case v.Want != nil && (err != nil || got.String() != *v.Want):
				t.Errorf("got %s, %v; want %s", got, err, *v.Want)
			}
		})
	}
}

func TestPackVectors(t *testing.T) {
	type reply struct {
		ID       string `json:"id"`
		Envelope string `json:"envelope"`
		Body     string `json:"body"`
	}
	for _, v := range vectors[struct {
		Name string `json:"name"`
		Sent bool   `json:"sent"` // a responder sends exactly this
		vectorMessage
		Want struct {
			NotAPack  bool    `json:"notAPack"`
			Replies   []reply `json:"replies"`
			Malformed int     `json:"malformed"`
		} `json:"want"`
	}](t, "packs.json") {
		if isPack(v.message()) == v.Want.NotAPack {
			t.Errorf("%s: a pack: %t", v.Name, !v.Want.NotAPack)
		}
		if v.Want.NotAPack {
			continue
		}
		got, malformed := unpack(v.Body)
		if len(got) != len(v.Want.Replies) || malformed != v.Want.Malformed {
			t.Errorf("%s: %+v, %d malformed", v.Name, got, malformed)
			continue
		}
		for i, w := range v.Want.Replies {
			if got[i] != (packed{id: w.ID, envelope: w.Envelope, body: w.Body}) {
				t.Errorf("%s: got %+v, want %+v", v.Name, got[i], w)
			}
		}
		if !v.Sent {
			continue
		}
		var lines []string
		for _, w := range v.Want.Replies {
			lines = append(lines, (&replyMessage{content: replyContent{body: w.Body, envelope: w.Envelope, virtual: w.ID}}).line())
		}
		if e := packEntry(lines); *e.MessageBody != v.Body || *e.MessageAttributes[attributeEnvelope].StringValue != v.Attributes[attributeEnvelope] || len(e.MessageAttributes) != 1 {
			t.Errorf("%s: sent as\n%s\nwant\n%s", v.Name, *e.MessageBody, v.Body)
		}
	}
}
