package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// books are the calls' results.
type books struct {
	mu       sync.Mutex
	calls    int64
	ok       int64
	wrong    int64 // answers to another question
	excused  int64 // failures because this process was stopped for a while
	cut      int64 // calls ended by this process's own shutdown
	failures map[string]int64
	recent   latencies // since the last line
	all      latencies
}

func (b *books) answered(took time.Duration, right bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if !right {
		b.wrong++
		return
	}
	b.ok++
	b.recent.add(took)
	b.all.add(took)
}

func (b *books) cutOff() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	b.cut++
}

func (b *books) failed(err error, excused bool) {
	kind := "UNKNOWN/unknown"
	var e *rpcclient.Error
	if errors.As(err, &e) {
		kind = fmt.Sprintf("%s/%s", e.Code, e.Outcome)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if excused {
		b.excused++
		return
	}
	if b.failures == nil {
		b.failures = map[string]int64{}
	}
	b.failures[kind]++
}

// line is what is printed. Counts are from the start; p50 and p99 are of the calls since the last line,
// in the final line of all.
type line struct {
	Caller   string           `json:"caller"`
	Calls    int64            `json:"calls"`
	OK       int64            `json:"ok"`
	Failed   int64            `json:"failed"`
	Failures map[string]int64 `json:"failures,omitempty"` // by code/outcome
	Wrong    int64            `json:"wrong"`
	// Excused calls failed because this process was stopped; CutOff ones by its own shutdown.
	Excused int64 `json:"excused"`
	CutOff  int64 `json:"cut_off"`
	// Late replies came after their call had ended; Foreign ones belonged to no call of this process.
	Late    int64   `json:"late"`
	Foreign int64   `json:"foreign"`
	PutBack int64   `json:"put_back"`
	Pending int     `json:"pending"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	// Latency counts the answered calls from the start by how long they took at most, in milliseconds: what
	// a reader needs to compute quantiles over several processes or any span of time.
	Latency       map[string]int64 `json:"latency_ms"`
	SQSRequests   int64            `json:"sqs_requests"`
	SQS           map[string]int64 `json:"sqs"`
	ReplyQueueURL string           `json:"reply_queue_url"`
	Final         bool             `json:"final"`
}

// print writes a line to standard output.
func (c *caller) print(final bool) {
	s := c.requester.Stats()
	b := &c.books
	b.mu.Lock()
	l := line{
		Caller: c.name, Calls: b.calls, OK: b.ok, Wrong: b.wrong, Excused: b.excused, CutOff: b.cut,
		Failures: maps.Clone(b.failures),
	}
	for _, n := range b.failures {
		l.Failed += n
	}
	which := &b.recent
	if final {
		which = &b.all
	}
	l.P50, l.P99 = which.quantile(0.50), which.quantile(0.99)
	b.recent = latencies{}
	l.Latency = b.all.byBound()
	b.mu.Unlock()

	l.Late, l.Foreign, l.PutBack = s.LateReplies, s.ForeignReplies, s.PutBack
	l.SQSRequests, l.SQS = s.SQSRequests(), s.ByAction()
	l.Pending, l.ReplyQueueURL, l.Final = c.requester.Pending(), c.requester.ReplyQueueURL(), final
	if out, err := json.Marshal(l); err == nil {
		fmt.Println(string(out))
	}
}

// latencies is a histogram whose buckets grow by 5 %, from 0.1 ms to about 10 minutes.
type latencies struct {
	count   int64
	buckets [320]int64
}

const (
	latencyFloor  = 0.1 // ms
	latencyGrowth = 1.05
)

func (l *latencies) add(d time.Duration) {
	ms := float64(d) / float64(time.Millisecond)
	i := 0
	if ms > latencyFloor {
		i = min(len(l.buckets)-1, int(math.Log(ms/latencyFloor)/math.Log(latencyGrowth)))
	}
	l.buckets[i]++
	l.count++
}

// quantile is the upper end of the bucket in which the quantile lies, in milliseconds; 0 without calls.
func (l *latencies) quantile(q float64) float64 {
	if l.count == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(l.count)))
	for i, n := range l.buckets {
		if rank -= n; rank <= 0 {
			return upperEnd(i)
		}
	}
	return 0
}

// upperEnd of a bucket, in milliseconds.
func upperEnd(bucket int) float64 {
	return math.Round(latencyFloor*math.Pow(latencyGrowth, float64(bucket+1))*1000) / 1000
}

// byBound is the buckets that hold any call, by their upper ends.
func (l *latencies) byBound() map[string]int64 {
	out := map[string]int64{}
	for i, n := range l.buckets {
		if n > 0 {
			out[strconv.FormatFloat(upperEnd(i), 'f', -1, 64)] = n
		}
	}
	return out
}
