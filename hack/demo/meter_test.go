package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestMeter(t *testing.T) {
	logs := t.TempDir()
	first := filepath.Join(logs, "demo_a_uid-a", "requester", "0.log")
	tenth := filepath.Join(logs, "demo_a_uid-a", "requester", "10.log")
	ninth := filepath.Join(logs, "demo_a_uid-a", "requester", "9.log")
	other := filepath.Join(logs, "demo_b_uid-b", "requester", "0.log")
	responder := filepath.Join(logs, "demo_c_uid-c", "responder", "0.log")
	m := newMeter(logs)

	write(t, first, "a log line\n"+`{"caller":"a/1","calls":5,"ok":4,"pending":2,"latency_ms":{"3":3,"9":1}}`+"\n"+`{"caller":"a/1","calls":7,"o`)
	write(t, responder, `{"caller":"c","calls":1000}`+"\n")
	m.read()
	if got := m.latest("uid-a"); got.Calls != 5 {
		t.Errorf("half a line was taken: %+v", got)
	}
	write(t, first, `k":6,"excused":1,"latency_ms":{"3":4,"9":1}}`+"\n")
	write(t, ninth, `{"caller":"a/9","calls":1}`+"\n")
	write(t, tenth, `{"caller":"a/10","calls":2,"pending":3}`+"\n"+`{"not":"statistics"}`+"\n")
	write(t, other, `{"caller":"b/1","calls":10,"ok":7,"failed":2,"wrong":1,"failures":{"UNAVAILABLE/NotSent":2},"foreign":4,"latency_ms":{"3":5,"20":1},"pending":9,"final":true}`+"\n")
	got := m.sum()
	if want := int64(7 + 1 + 2 + 10); got.calls != want {
		t.Errorf("%d calls, want %d: the latest line of each process, and no responder's", got.calls, want)
	}
	if got.ok != 13 || got.failed != 2 || got.wrong != 1 || got.excused != 1 || got.foreign != 4 {
		t.Errorf("got %+v", got)
	}
	if got.pending != 3 {
		t.Errorf("%d pending, want 3: a process that said its last word waits for nothing", got.pending)
	}
	if w := words(got.failures); w != "2 UNAVAILABLE/NotSent" {
		t.Errorf("failures %q", w)
	}
	if l := m.latest("uid-a"); l.Caller != "a/10" {
		t.Errorf("the newest process of pod a is %q, want a/10", l.Caller)
	}
	if l := m.latest("nobody"); l.Caller != "" {
		t.Errorf("got a line of nobody: %+v", l)
	}
	all := m.latencies()
	for q, want := range map[float64]float64{0: 3, 0.5: 3, 0.82: 9, 0.9: 9, 0.99: 20, 1: 20} {
		if got := all.quantile(q); got != want {
			t.Errorf("quantile %v of %v is %v, want %v", q, all, got, want)
		}
	}
	if n := all.slower(3); n != 2 {
		t.Errorf("%d calls took more than 3 ms, want 2", n)
	}
	if since := all.since(latencies{3: 9, 9: 1}); len(since) != 1 || since[20] != 1 {
		t.Errorf("since then: %v, want one call of 20 ms", since)
	}
	if got := (latencies{}).quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
}

// A call that is under way in one line and done in the next is not stuck, nor is one that only looks so because
// an old line is compared.
func TestStuck(t *testing.T) {
	logs := t.TempDir()
	file := filepath.Join(logs, "demo_a_uid-a", "requester", "0.log")
	m := newMeter(logs)
	write(t, file, `{"caller":"a/1","pending":5}`+"\n")
	m.read()
	since := time.Now()
	for _, c := range []struct{ pending, want int64 }{{4, 0}, {0, 0}, {3, 0}, {2, 2}, {7, 2}} {
		write(t, file, fmt.Sprintf(`{"caller":"a/1","pending":%d}`+"\n", c.pending))
		if got := m.stuck(since); got != c.want {
			t.Errorf("after a line with %d pending: %d stuck, want %d", c.pending, got, c.want)
		}
	}
}
