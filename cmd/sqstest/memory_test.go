package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkProcess is the command as a process of its own, with ten thousand queues and a million messages of 1 KB in it:
// how much memory it has had at most, and how long listing, receiving and deleting take before and after by loopback.
//
//	go test ./cmd/sqstest -run - -bench Process -benchtime 1x
func BenchmarkProcess(b *testing.B) {
	const queues, batches = 10_000, 10
	for b.Loop() {
		p := startProcess(b)
		base := p.url
		each(b, 1, func(int) { post(b, base, "CreateQueue", `{"QueueName":"probe"}`) })
		empty := p.probe(b)
		body := strings.Repeat("x", 1024)
		each(b, queues, func(i int) {
			name := fmt.Sprintf("q%05d", i)
			post(b, base, "CreateQueue", `{"QueueName":"`+name+`"}`)
			var entries []string
			for j := range 10 {
				entries = append(entries, fmt.Sprintf(`{"Id":"%d","MessageBody":"%s"}`, j, body))
			}
			for range batches {
				post(b, base, "SendMessageBatch", `{"QueueUrl":"`+base+`/000000000000/`+name+`","Entries":[`+strings.Join(entries, ",")+`]}`)
			}
		})
		full := p.probe(b)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(p.memory(b, "VmHWM"), "MB-peak")
		b.ReportMetric(p.memory(b, "VmRSS"), "MB-now")
		for what, t := range empty {
			b.ReportMetric(float64(t.Nanoseconds())/1000, "µs/"+what+"-empty")
			b.ReportMetric(float64(full[what].Nanoseconds())/1000, "µs/"+what+"-full")
		}
		p.stop(b)
	}
}

type process struct {
	url  string
	pid  int
	kill func() error
}

func startProcess(b *testing.B) *process {
	b.Helper()
	k := startKillable(b, filepath.Join(b.TempDir(), "unused"), "--save-every", "10h")
	return &process{*k.client.Options().BaseEndpoint, k.cmd.Process.Pid, func() error {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
		return nil
	}}
}

func (p *process) stop(b *testing.B) {
	b.Helper()
	if err := p.kill(); err != nil {
		b.Error(err)
	}
}

// memory is a line of the process's status, in MB (10^6 bytes). It needs Linux.
func (p *process) memory(b *testing.B, line string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Skip("no /proc to read the memory from: ", err)
	}
	m := regexp.MustCompile(line + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		b.Fatalf("no %s in %s", line, status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		b.Fatal(err)
	}
	return float64(kib) * 1024 / 1e6
}

// probe is how long each of some requests takes, on average.
func (p *process) probe(b *testing.B) map[string]time.Duration {
	b.Helper()
	const n = 3000
	times := map[string]time.Duration{}
	handle := regexp.MustCompile(`"ReceiptHandle":"([^"]+)"`)
	timed := func(what, action, body string) []byte {
		start := time.Now()
		out := post(b, p.url, action, body)
		times[what] += time.Since(start) / n
		return out
	}
	queue := `{"QueueUrl":"` + p.url + `/000000000000/probe"`
	for range n {
		timed("list", "ListQueues", `{"QueueNamePrefix":"q0","MaxResults":10}`)
		timed("send", "SendMessage", queue+`,"MessageBody":"x"}`)
		m := handle.FindSubmatch(timed("receive", "ReceiveMessage", queue+"}"))
		if m == nil {
			b.Fatal("nothing received")
		}
		timed("delete", "DeleteMessage", queue+`,"ReceiptHandle":"`+string(m[1])+`"}`)
	}
	return times
}

// each calls f with the numbers below n, several at a time.
func each(b *testing.B, n int, f func(i int)) {
	b.Helper()
	var wg sync.WaitGroup
	work := make(chan int)
	for range min(n, 8) {
		wg.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

var plainClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

func post(b *testing.B, url, action, body string) []byte {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		b.Error(err)
		return nil
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	answer, err := plainClient.Do(r)
	if err != nil {
		b.Error(err)
		return nil
	}
	defer answer.Body.Close()
	out, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.Errorf("%s: %d %v %s", action, answer.StatusCode, err, out)
	}
	return out
}
