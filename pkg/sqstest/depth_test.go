package sqstest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

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
