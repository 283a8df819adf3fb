package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	P50           float64          `json:"p50_ms"`
	P99           float64          `json:"p99_ms"`
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

// latency is what the lines read in a window say: the middle of the medians, and the worst 99th percentile.
func (m *meter) latency(from, to time.Time) (p50, p99 float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var medians []float64
	for _, f := range m.files {
		for _, l := range f.lines {
			if l.P50 > 0 && l.read.After(from) && !l.read.After(to) {
				medians = append(medians, l.P50)
				p99 = max(p99, l.P99)
			}
		}
	}
	if len(medians) == 0 {
		return 0, 0
	}
	slices.Sort(medians)
	return medians[len(medians)/2], p99
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
