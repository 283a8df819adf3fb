package sqstest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// constant is the ceiling that the benchmarks measure against: a server that reads each request and answers from constants,
// with the bytes and the headers that ours answers with. What lies between the two is what SQS itself costs; the rest is
// the SDK and, by loopback, net/http.
type constant struct {
	answers map[string][]byte
	header  http.Header
	// With a wake, a receive waits for a send.
	wake    chan struct{}
	waiting atomic.Int32
}

const benchBody = 1024

func newConstant(b *testing.B) *constant {
	b.Helper()
	// What the answers are comes from our own server, once.
	s := sqstest.New()
	body := strings.Repeat("x", benchBody)
	const url = "http://h/000000000000/q"
	raw(b, s, "CreateQueue", `{"QueueName":"q"}`)
	c := &constant{answers: map[string][]byte{}}
	c.answers["AmazonSQS.SendMessage"] = raw(b, s, "SendMessage", `{"QueueUrl":"`+url+`","MessageBody":"`+body+`"}`)
	received := raw(b, s, "ReceiveMessage", `{"QueueUrl":"`+url+`","MessageSystemAttributeNames":["All"]}`)
	c.answers["AmazonSQS.ReceiveMessage"] = received
	c.answers["AmazonSQS.DeleteMessage"] = nil
	c.header = http.Header{
		"Content-Type": {"application/x-amz-json-1.0"}, "Date": {"Sun, 22 Nov 2026 00:00:00 GMT"},
		"X-Amzn-Requestid": {"00000000-0000-4000-8000-000000000000"},
	}
	var check struct {
		Messages []struct{ ReceiptHandle string }
	}
	if err := json.Unmarshal(received, &check); err != nil || len(check.Messages) != 1 {
		b.Fatalf("%v: %s", err, received)
	}
	return c
}

func newWakingConstant(b *testing.B) *constant {
	b.Helper()
	c := newConstant(b)
	c.wake = make(chan struct{}, 1)
	return c
}

func (c *constant) answer(r *http.Request) []byte {
	if r.Body != nil {
		// As our own server does: a body of known length is read at once.
		body := make([]byte, max(r.ContentLength, 0))
		_, _ = io.ReadFull(r.Body, body)
	}
	target := r.Header.Get("X-Amz-Target")
	if c.wake != nil {
		switch target {
		case "AmazonSQS.SendMessage":
			c.wake <- struct{}{}
		case "AmazonSQS.ReceiveMessage":
			c.waiting.Add(1)
			<-c.wake
			c.waiting.Add(-1)
		}
	}
	return c.answers[target]
}

func (c *constant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := c.answer(r)
	header := w.Header()
	for k, v := range c.header {
		header[k] = v
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}

func (c *constant) RoundTrip(r *http.Request) (*http.Response, error) {
	body := c.answer(r)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.header.Clone(), Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}, nil
}

// listen serves on loopback with the http.Server that Server.Serve uses.
func (c *constant) listen(b *testing.B) string {
	b.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	front := &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = front.Serve(l)
	}()
	b.Cleanup(func() {
		_ = front.Close()
		<-served
	})
	return "http://" + l.Addr().String()
}

// way is one of the three ways to reach a server, for ours and the constant one alike.
type way struct {
	name string
	ours func(b *testing.B, s *sqstest.Server) *sqs.Client
	like func(b *testing.B, c *constant) *sqs.Client
}

var waysIn = []way{
	{
		"Handler",
		func(_ *testing.B, s *sqstest.Server) *sqs.Client { return by(handlerTransport{s}, "") },
		func(_ *testing.B, c *constant) *sqs.Client { return by(handlerTransport{c}, "") },
	}, {
		"RoundTripper",
		func(_ *testing.B, s *sqstest.Server) *sqs.Client { return by(s, "") },
		func(_ *testing.B, c *constant) *sqs.Client { return by(c, "") },
	}, {
		"Loopback",
		func(b *testing.B, s *sqstest.Server) *sqs.Client {
			if err := s.Listen("127.0.0.1:0"); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(s.Close)
			return by(socketTransport(b), s.URL)
		},
		func(b *testing.B, c *constant) *sqs.Client { return by(socketTransport(b), c.listen(b)) },
	},
}

// handlerTransport reaches a handler without a socket.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return w.Result(), nil
}

func by(t http.RoundTripper, endpoint string) *sqs.Client {
	return sqstest.New().Client(func(o *sqs.Options) {
		o.HTTPClient = &http.Client{Transport: t}
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
}

func socketTransport(b *testing.B) http.RoundTripper {
	b.Helper()
	t := plainBodies{&http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(t.CloseIdleConnections)
	return t
}
