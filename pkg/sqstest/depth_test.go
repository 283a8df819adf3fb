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
	"time"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// BenchmarkDepth is what listing, creating and deleting queues with a list between, sending, receiving and deleting cost on a server with more and more queues, and more and
// more in the queue: it must not depend on that.
//
//	go test ./pkg/sqstest -run - -bench Depth -benchtime 20000x
//
// Each of the five is measured apart, without the SDK. Messages have 1 KB, so at the last depth the heap is 1.4 GB, and what
// is slower there is the garbage collector going through it: GOGC=off in the environment leaves about a microsecond, for
// heaps of messages that do not fit the processor's caches.
func BenchmarkDepth(b *testing.B) {
	for _, depth := range []struct{ queues, messages int }{{1, 0}, {100, 1_000}, {1_000, 100_000}, {10_000, 1_000_000}} {
		b.Run(fmt.Sprintf("queues=%d/messages=%d", depth.queues, depth.messages), func(b *testing.B) {
			s := sqstest.New()
			fill(b, s, depth.messages)
			for i := range depth.queues - 1 {
				raw(b, s, "CreateQueue", fmt.Sprintf(`{"QueueName":"a%d"}`, i))
			}
			churned := 0
			body := strings.Repeat("x", benchBody)
			runtime.GC() // what filling left behind is not what is measured
			var list, churn, send, receive, remove time.Duration
			timed := func(sum *time.Duration, action, in string) []byte {
				start := time.Now()
				out := raw(b, s, action, in)
				*sum += time.Since(start)
				return out
			}
			for b.Loop() {
				timed(&list, "ListQueues", `{"QueueNamePrefix":"a9","MaxResults":10}`)
				// A queue that comes and goes makes no list dearer; the name is another each time, since a deleted one's is locked.
				churned++
				timed(&churn, "CreateQueue", fmt.Sprintf(`{"QueueName":"b%d"}`, churned))
				timed(&churn, "ListQueues", `{"QueueNamePrefix":"a9","MaxResults":10}`)
				timed(&churn, "DeleteQueue", fmt.Sprintf(`{"QueueUrl":"http://h/000000000000/b%d"}`, churned))
				timed(&send, "SendMessage", `{"QueueUrl":"http://h/000000000000/q","MessageBody":"`+body+`"}`)
				var out struct {
					Messages []struct{ ReceiptHandle string }
				}
				if err := json.Unmarshal(timed(&receive, "ReceiveMessage", `{"QueueUrl":"http://h/000000000000/q"}`), &out); err != nil {
					b.Fatal(err)
				}
				timed(&remove, "DeleteMessage", `{"QueueUrl":"http://h/000000000000/q","ReceiptHandle":"`+out.Messages[0].ReceiptHandle+`"}`)
			}
			b.ReportMetric(0, "ns/op")
			for unit, sum := range map[string]time.Duration{"list": list, "create-list-delete": churn, "send": send, "receive": receive, "delete": remove} {
				b.ReportMetric(float64(sum.Nanoseconds())/float64(b.N)/1000, "µs/"+unit)
			}
		})
	}
}

// fill puts messages of 1 KB into a new queue.
func fill(b *testing.B, s *sqstest.Server, depth int) {
	b.Helper()
	raw(b, s, "CreateQueue", `{"QueueName":"q"}`)
	var entries []string
	for i := range 10 {
		entries = append(entries, fmt.Sprintf(`{"Id":"%d","MessageBody":"%s"}`, i, strings.Repeat("x", benchBody)))
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
