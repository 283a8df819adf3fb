package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// line is what a requester prints about itself; the counts are from its process's start.
type line struct {
	Caller        string           `json:"caller"`
	Calls         int64            `json:"calls"`
	OK            int64            `json:"ok"`
	Failed        int64            `json:"failed"`
	Failures      map[string]int64 `json:"failures"`
	Wrong         int64            `json:"wrong"`
	Excused       int64            `json:"excused"`
	CutOff        int64            `json:"cut_off"`
	Late          int64            `json:"late"`
	Foreign       int64            `json:"foreign"`
	PutBack       int64            `json:"put_back"`
	Pending       int64            `json:"pending"`
	Latency       map[string]int64 `json:"latency_ms"` // answered calls by the most they took
	ReplyQueueURL string           `json:"reply_queue_url"`
	Final         bool             `json:"final"`

	// read is when the line was read here.
	read time.Time
}

// meter follows the output of every requester that runs or ran.
type meter struct {
	logs string // the agent's folder of logs

	mu    sync.Mutex
	files map[string]*follower
}

// follower is one process's output.
type follower struct {
	offset int64
	rest   []byte // an incomplete last line
	lines  []line
}

func newMeter(logs string) *meter { return &meter{logs: logs, files: map[string]*follower{}} }

// run reads until ctx ends.
func (m *meter) run(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.read()
		}
	}
}

// read takes in what was printed since the last time.
func (m *meter) read() {
	files, err := filepath.Glob(filepath.Join(m.logs, "*", "requester", "*.log"))
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, file := range files {
		f := m.files[file]
		if f == nil {
			f = &follower{}
			m.files[file] = f
		}
		f.read(file)
	}
}

func (f *follower) read(file string) {
	in, err := os.Open(file)
	if err != nil {
		return
	}
	defer func() { _ = in.Close() }()
	if _, err := in.Seek(f.offset, io.SeekStart); err != nil {
		return
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return
	}
	f.offset += int64(len(text))
	f.take(append(f.rest, text...), time.Now())
}

// take parses whole lines; what is no statistics (a log line) is passed over.
func (f *follower) take(text []byte, now time.Time) {
	for {
		one, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			f.rest = slices.Clone(text)
			return
		}
		text = rest
		l := line{read: now}
		if json.Unmarshal(one, &l) == nil && l.Caller != "" {
			f.lines = append(f.lines, l)
		}
	}
}

// latest is the newest line of a pod's newest process; zero before the first.
func (m *meter) latest(podUID string) line {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := ""
	for file := range m.files {
		if strings.Contains(file, podUID) && (len(file) > len(newest) || (len(file) == len(newest) && file > newest)) {
			newest = file
		}
	}
	if f := m.files[newest]; f != nil && len(f.lines) > 0 {
		return f.lines[len(f.lines)-1]
	}
	return line{}
}

// totals is the sum of what every process said last.
type totals struct {
	calls, ok, failed, wrong int64
	// Not failures: calls of processes that were stopped for a while, or were shutting down.
	excused, cutOff        int64
	late, foreign, putBack int64
	failures               map[string]int64 // by code and outcome
	// pending are calls under way, in processes that have not said their last word.
	pending int64
}

// sum adds up what all processes said until now.
func (m *meter) sum() totals {
	m.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := totals{failures: map[string]int64{}}
	for _, f := range m.files {
		if len(f.lines) == 0 {
			continue
		}
		l := f.lines[len(f.lines)-1]
		t.calls += l.Calls
		t.ok += l.OK
		t.failed += l.Failed
		t.wrong += l.Wrong
		t.excused += l.Excused
		t.cutOff += l.CutOff
		t.late += l.Late
		t.foreign += l.Foreign
		t.putBack += l.PutBack
		for kind, n := range l.Failures {
			t.failures[kind] += n
		}
		if !l.Final {
			t.pending += l.Pending
		}
	}
	return t
}

// latencies are how long answered calls took: milliseconds, rounded up by at most 5 %, and how many calls.
type latencies map[float64]int64

// latencies sums up what all processes have said until now.
func (m *meter) latencies() latencies {
	m.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	all := latencies{}
	for _, f := range m.files {
		if len(f.lines) == 0 {
			continue
		}
		for bound, n := range f.lines[len(f.lines)-1].Latency {
			if ms, err := strconv.ParseFloat(bound, 64); err == nil {
				all[ms] += n
			}
		}
	}
	return all
}

// since leaves out what was counted before.
func (l latencies) since(before latencies) latencies {
	out := latencies{}
	for ms, n := range l {
		if n -= before[ms]; n > 0 {
			out[ms] = n
		}
	}
	return out
}

// quantile of 0.5 is the time that half of the calls did not exceed; 1: none did. 0 without calls.
func (l latencies) quantile(q float64) float64 {
	var total int64
	for _, n := range l {
		total += n
	}
	rank := max(1, int64(math.Ceil(q*float64(total))))
	for _, ms := range slices.Sorted(maps.Keys(l)) {
		if rank -= l[ms]; rank <= 0 {
			return ms
		}
	}
	return 0
}

// slower counts the calls that took longer than the time given, in milliseconds.
func (l latencies) slower(than float64) (n int64) {
	for ms, k := range l {
		if ms > than {
			n += k
		}
	}
	return n
}

// stuck counts the calls that were under way in two consecutive lines of their process, both printed after since,
// and so for as long as the time between the two.
func (m *meter) stuck(since time.Time) (n int64) {
	m.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		if len(f.lines) < 2 {
			continue
		}
		before, last := f.lines[len(f.lines)-2], f.lines[len(f.lines)-1]
		if !last.Final && before.read.After(since) {
			n += min(before.Pending, last.Pending)
		}
	}
	return n
}

// words lists failures by kind.
func words(failures map[string]int64) string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(failures)) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		_, _ = fmt.Fprintf(&b, "%d %s", failures[kind], kind)
	}
	return b.String()
}
