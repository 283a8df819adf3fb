package sqstest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The benchmarks measure against a ceiling: a server that reads the request and answers from constants, reached the same
// way. What lies between is what SQS's state costs; the rest is the SDK and, by loopback, net/http.

const benchBody = 1024

// constantAnswers answers every action of a cycle without looking at it.
func constantAnswers(b *testing.B) http.Handler {
	b.Helper()
	// The digests have to be right, so they come from a real server once.
	s := sqstest.New()
	c := s.Client()
	body := strings.Repeat("x", benchBody)
	url := create(b, c, "q", nil)
	sent, err := c.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	if err != nil {
		b.Fatal(err)
	}
	m, err := poll(context.Background(), c, url, 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	send, _ := json.Marshal(map[string]string{"MessageId": *sent.MessageId, "MD5OfMessageBody": *sent.MD5OfMessageBody})
	receive, _ := json.Marshal(map[string]any{"Messages": []any{map[string]any{
		"MessageId": m[0].MessageId, "ReceiptHandle": m[0].ReceiptHandle, "MD5OfBody": m[0].MD5OfBody, "Body": m[0].Body, "Attributes": m[0].Attributes,
	}}})
	answers := map[string][]byte{"AmazonSQS.SendMessage": send, "AmazonSQS.ReceiveMessage": receive, "AmazonSQS.DeleteMessage": nil}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = w.Write(answers[r.Header.Get("X-Amz-Target")])
	})
}

// handlerTransport reaches a handler without a socket.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if r.Body != nil {
		r.Body.Close()
	}
	return w.Result(), nil
}

func by(s *sqstest.Server, t http.RoundTripper, endpoint string) *sqs.Client {
	return s.Client(func(o *sqs.Options) {
		o.HTTPClient = &http.Client{Transport: t}
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
}

func socketTransport() http.RoundTripper {
	return plainBodies{&http.Transport{MaxIdleConnsPerHost: 64}}
}

// BenchmarkCycle is send, receive and delete of one message of 1 KB, by 16 clients.
func BenchmarkCycle(b *testing.B) {
	for name, client := range map[string]func(b *testing.B) *sqs.Client{
		"RoundTripper/sqstest":  func(*testing.B) *sqs.Client { return sqstest.New().Client() },
		"RoundTripper/constant": func(b *testing.B) *sqs.Client { return by(sqstest.New(), handlerTransport{constantAnswers(b)}, "") },
		"Handler/sqstest": func(*testing.B) *sqs.Client {
			s := sqstest.New()
			return by(s, handlerTransport{s}, "")
		},
		"Loopback/sqstest": func(b *testing.B) *sqs.Client {
			s := sqstest.NewServer(b)
			return by(s, socketTransport(), s.URL)
		},
		"Loopback/constant": func(b *testing.B) *sqs.Client {
			front := httptest.NewServer(constantAnswers(b))
			b.Cleanup(front.Close)
			return by(sqstest.New(), socketTransport(), front.URL)
		},
	} {
		b.Run(name, func(b *testing.B) { cycles(b, client(b)) })
	}
}

func cycles(b *testing.B, c *sqs.Client) {
	const clients = 16
	url := "http://sqs.us-east-1.sqstest.invalid/000000000000/q"
	if out, err := c.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String("q")}); err == nil && out.QueueUrl != nil {
		url = *out.QueueUrl
	}
	body := strings.Repeat("x", benchBody)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := cycle(c, url, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cycles/s")
}

func cycle(c *sqs.Client, url, body string) error {
	ctx := context.Background()
	if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
		return err
	}
	m, err := poll(ctx, c, url, 1, 20)
	if err != nil || len(m) == 0 {
		return fmt.Errorf("%d messages: %w", len(m), err)
	}
	_, err = c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle})
	return err
}

// BenchmarkWakeUp is the time from the start of a send to the return of a poll that was waiting for it.
func BenchmarkWakeUp(b *testing.B) {
	for name, client := range map[string]func(b *testing.B) (*sqstest.Server, *sqs.Client){
		"RoundTripper": func(*testing.B) (*sqstest.Server, *sqs.Client) { s := sqstest.New(); return s, s.Client() },
		"Loopback": func(b *testing.B) (*sqstest.Server, *sqs.Client) {
			s := sqstest.NewServer(b)
			return s, by(s, socketTransport(), s.URL)
		},
	} {
		b.Run(name, func(b *testing.B) {
			s, c := client(b)
			url := create(b, c, "q", nil)
			var took []time.Duration
			for b.Loop() {
				done := make(chan time.Time)
				go func() {
					_, err := poll(context.Background(), c, url, 1, 20)
					if err != nil {
						b.Error(err)
					}
					done <- time.Now()
				}()
				until(b, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
				start := time.Now()
				send(b, c, url, "x")
				took = append(took, (<-done).Sub(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs/p99")
		})
	}
}

// BenchmarkDepth is a cycle on a queue with more and more in it: what it costs must not depend on that.
func BenchmarkDepth(b *testing.B) {
	for _, depth := range []int{0, 1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			s := sqstest.New()
			fill(b, s, depth)
			b.ResetTimer()
			for b.Loop() {
				raw(b, s, "SendMessage", `{"QueueUrl":"http://h/000000000000/q","MessageBody":"x"}`)
				var out struct {
					Messages []struct{ ReceiptHandle string }
				}
				if err := json.Unmarshal(raw(b, s, "ReceiveMessage", `{"QueueUrl":"http://h/000000000000/q"}`), &out); err != nil {
					b.Fatal(err)
				}
				raw(b, s, "DeleteMessage", `{"QueueUrl":"http://h/000000000000/q","ReceiptHandle":"`+out.Messages[0].ReceiptHandle+`"}`)
			}
		})
	}
}

// fill puts messages of 10 bytes into a new queue.
func fill(b *testing.B, s *sqstest.Server, depth int) {
	b.Helper()
	raw(b, s, "CreateQueue", `{"QueueName":"q"}`)
	var entries []string
	for i := range 10 {
		entries = append(entries, fmt.Sprintf(`{"Id":"%d","MessageBody":"0123456789"}`, i))
	}
	batch := `{"QueueUrl":"http://h/000000000000/q","Entries":[` + strings.Join(entries, ",") + `]}`
	for range depth / 10 {
		raw(b, s, "SendMessageBatch", batch)
	}
}

// raw sends a request without the SDK.
func raw(b testing.TB, s *sqstest.Server, action, body string) []byte {
	b.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://h/", bytes.NewReader([]byte(body)))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	resp, err := s.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %d %v %s", action, resp.StatusCode, err, out)
	}
	return out
}

// BenchmarkMemory is what ten thousand queues with a million messages of 1 KB take (run it with -benchtime 1x). Most of it
// is the bodies themselves.
func BenchmarkMemory(b *testing.B) {
	const queues, batches = 10_000, 10
	body := strings.Repeat("x", benchBody)
	for b.Loop() {
		before := heap()
		s := sqstest.New()
		for i := range queues {
			name := fmt.Sprint("q", i)
			raw(b, s, "CreateQueue", `{"QueueName":"`+name+`"}`)
			var entries []string
			for j := range 10 {
				entries = append(entries, fmt.Sprintf(`{"Id":"%d","MessageBody":"%s"}`, j, body))
			}
			batch := `{"QueueUrl":"http://h/000000000000/` + name + `","Entries":[` + strings.Join(entries, ",") + `]}`
			for range batches {
				raw(b, s, "SendMessageBatch", batch)
			}
		}
		used := heap() - before
		b.ReportMetric(float64(used)/(1<<20), "MiB")
		b.ReportMetric(float64(used)/(queues*batches*10), "B/message")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
