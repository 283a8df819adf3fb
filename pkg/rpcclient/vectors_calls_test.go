package rpcclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The request that goes out is what the vector says, and a responder that gets it understands the call.
func TestCallVectors(t *testing.T) {
	type vector struct {
		Name string `json:"name"`
		Call struct {
			Method        string   `json:"method"`
			Payload       string   `json:"payload"`
			PayloadBase64 string   `json:"payloadBase64"`
			Codec         string   `json:"codec"` // empty: json
			Metadata      Metadata `json:"metadata"`
			CallID        string   `json:"callID"`
			ReturnAddress string   `json:"returnAddress"`
			BudgetMS      int64    `json:"budgetMs"`
			Attempt       int      `json:"attempt"`
			OneWay        bool     `json:"oneWay"`
			Stream        bool     `json:"stream"`
			Packs         bool     `json:"packs"`
			FIFO          bool     `json:"fifo"`
			MessageGroup  string   `json:"messageGroup"`
		} `json:"call"`
		Want struct {
			vectorMessage
			MessageGroupID         string `json:"messageGroupId"`
			MessageDeduplicationID string `json:"messageDeduplicationId"`
		} `json:"want"`
	}
	for _, v := range vectors[vector](t, "calls.json") {
		t.Run(v.Name, func(t *testing.T) {
			var opts []Option
			if v.Call.Packs {
				opts = append(opts, WithPackedReplies())
			}
			r := offlineRequester(t, opts...)
			r.nonce = v.Call.CallID[:nonceLength] // packs are for IDs of this process
			channel := r.channels["login"]
			if v.Call.FIFO {
				channel = r.channels["fifo"]
			}
			kind := KindCall
			switch {
			case v.Call.OneWay:
				kind = KindNotify
			case v.Call.Stream:
				kind = KindStream
			}
			payload := []byte(v.Call.Payload)
			if v.Call.PayloadBase64 != "" {
				payload, _ = base64.StdEncoding.DecodeString(v.Call.PayloadBase64)
			}
			codec := v.Call.Codec
			if codec == "" {
				codec = JSON.Name()
			}
			ends := vectorTime.Add(time.Duration(v.Call.BudgetMS) * time.Millisecond)
			c := &call{
				requester: r, channel: channel, kind: kind, method: v.Call.Method, id: v.Call.CallID, attempt: v.Call.Attempt,
				group: v.Call.MessageGroup, replyTo: v.Call.ReturnAddress, deadline: ends, expires: ends,
			}
			o := &OutgoingCall{codec: rawCodec{codec}, Request: payload, Metadata: v.Call.Metadata}
			if err := c.prepare(o); err != nil {
				t.Fatal(err)
			}
			e, ok := c.entry(vectorTime)
			if !ok {
				t.Fatal("not sent")
			}
			got := map[string]string{}
			for name, a := range e.MessageAttributes {
				got[name] = *a.StringValue
			}
			if *e.MessageBody != v.Want.Body || !maps.Equal(got, v.Want.Attributes) {
				t.Errorf("body %s\nattributes %v\nwant %+v", *e.MessageBody, got, v.Want)
			}
			if aws.ToString(e.MessageGroupId) != v.Want.MessageGroupID || aws.ToString(e.MessageDeduplicationId) != v.Want.MessageDeduplicationID {
				t.Errorf("group %q, deduplication %q", aws.ToString(e.MessageGroupId), aws.ToString(e.MessageDeduplicationId))
			}

			s := offlineServer(t, "calculate_sum")
			NewRawMethod("blob", Raw.Name()).Handle(s.r, func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
			NewMethod[int, int]("count_to").HandleStream(s.r, func(context.Context, int, func(int) error) error { return nil })
			q := s.admit(v.Want.message(), freshDelivery(0), vectorTime)
			if q.refusal != nil {
				t.Fatal(q.refusal)
			}
			peer := PeerNative
			if v.Call.OneWay {
				peer = PeerOneWay
			}
			if q.peer != peer || q.method != v.Call.Method || string(q.payload) != string(payload) || q.info.Codec != codec ||
				q.budget.Milliseconds() != v.Call.BudgetMS || q.info.Attempt != v.Call.Attempt || q.packs != v.Call.Packs ||
				(q.run != "") != v.Call.Stream || !maps.Equal(q.info.metadata, v.Call.Metadata) || !v.Call.OneWay && q.to.String() != v.Call.ReturnAddress {
				t.Errorf("understood as %+v", q)
			}
		})
	}
}

type streamVector struct {
	Name    string         `json:"name"`
	Request *vectorMessage `json:"request"` // nil: frames that no responder of ours sends so
	Run     string         `json:"run"`
	Error   *struct {
		Code    Code   `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Frames []vectorMessage `json:"frames"`
	Want   struct {
		Payloads   []string `json:"payloads"`
		Code       Code     `json:"code"`
		Outcome    string   `json:"outcome"`
		Message    *string  `json:"message"`
		Incomplete *struct {
			Received int `json:"received"`
			Expected int `json:"expected"`
		} `json:"incomplete"`
	} `json:"want"`
}

// The frames that go out are what the vector says.
func TestStreamVectorsSent(t *testing.T) {
	for _, v := range vectors[streamVector](t, "streams.json") {
		if v.Request == nil {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			s := offlineServer(t, "calculate_sum")
			NewMethod[int, int]("count_to").HandleStream(s.r, func(context.Context, int, func(int) error) error { return nil })
			q := s.admit(v.Request.message(), freshDelivery(0), vectorTime)
			if q.refusal != nil || q.run == "" {
				t.Fatalf("run %q, %v", q.run, q.refusal)
			}
			q.run = v.Run
			var contents []replyContent
			for _, payload := range v.Want.Payloads {
				contents = append(contents, frameContent(q, []byte(payload)))
				q.sent++
			}
			if v.Error != nil {
				contents = append(contents, errorContent(q, &Error{Code: v.Error.Code, Message: v.Error.Message}, false))
			} else {
				contents = append(contents, answerContent(q, nil))
			}
			if len(contents) != len(v.Frames) {
				t.Fatalf("%d frames, want %d", len(contents), len(v.Frames))
			}
			for i, want := range v.Frames {
				entry, ok := (&replyMessage{to: q.to, content: contents[i]}).entry(vectorTime)
				if !ok {
					t.Fatal("not sent")
				}
				got := map[string]string{}
				for name, a := range entry.MessageAttributes {
					got[name] = *a.StringValue
				}
				if *entry.MessageBody != want.Body || !maps.Equal(got, want.Attributes) {
					t.Errorf("frame %d: body %s, attributes %v; want %+v", i, *entry.MessageBody, got, want)
				}
			}
		})
	}
}

// The frames that come in are what the caller ranges over, one second apart.
func TestStreamVectorsReceived(t *testing.T) {
	for _, v := range vectors[streamVector](t, "streams.json") {
		t.Run(v.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { receiveFrames(t, &v) })
		})
	}
}

func receiveFrames(t *testing.T, v *streamVector) {
	server := sqstest.New()
	client := server.Client()
	queue := func(name string) string {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	replies := queue("rq_c_r_7f3a")
	r, err := NewRequester(client, StaticReplyQueue(replies), WithChannels(ChannelConfig{Name: "login", URL: queue("rq_c_ns_login")}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	id := v.Frames[0].Attributes[attributeVirtualQueue]
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, f := range v.Frames {
			time.Sleep(time.Second)
			in := &sqs.SendMessageInput{QueueUrl: &replies, MessageBody: &f.Body, MessageAttributes: f.message().MessageAttributes}
			if _, err := client.SendMessage(t.Context(), in); err != nil {
				t.Error(err)
			}
		}
	}()
	var payloads []string
	var ended error
	for payload, err := range NewMethod[json.RawMessage, json.RawMessage]("count_to").Stream(t.Context(), r.channels["login"], json.RawMessage("2"),
		WithCallID(id), CallTimeout(time.Minute), CallMaxAttempts(1)) {
		if err != nil {
			ended = err
			continue
		}
		payloads = append(payloads, string(payload))
	}
	<-sent
	if !slices.Equal(payloads, v.Want.Payloads) {
		t.Errorf("payloads %q, want %q", payloads, v.Want.Payloads)
	}
	if v.Want.Code == "" {
		if ended != nil {
			t.Error(ended)
		}
		return
	}
	e := errorAs(ended)
	if e == nil || e.Code != v.Want.Code || e.Outcome.String() != v.Want.Outcome || v.Want.Message != nil && e.Message != *v.Want.Message {
		t.Fatalf("ended with %v, want %+v", ended, v.Want)
	}
	var incomplete *Incomplete
	switch found := errors.As(ended, &incomplete); {
	case found != (v.Want.Incomplete != nil):
		t.Errorf("incomplete: %v, want %+v", incomplete, v.Want.Incomplete)
	case found && (incomplete.Received != v.Want.Incomplete.Received || incomplete.Expected != v.Want.Incomplete.Expected):
		t.Errorf("incomplete: %v, want %+v", incomplete, v.Want.Incomplete)
	}
}
