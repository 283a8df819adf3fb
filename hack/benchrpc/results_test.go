package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is resumed is what this program measured in the same way, and the last line is printed whatever happens.
func TestResume(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	args := []string{"-quick", "-rows", "ours,raw", "-rounds", "1", "-results", file}
	s, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := openResults(&s)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range s.cells {
		one := result{cell: c, rows: s.rows, runs: map[string][]sample{
			"ours": {{Throughput: 90, P50: 300, P99: 600, Requests: 0.61}},
			"raw":  {{Throughput: 100, P50: 200, P99: 400, Requests: 0.60}},
		}}
		if i == 1 {
			kept.program, kept.known = "another", nil // this line must not count
			if err := kept.add(&s, &one); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := kept.add(&s, &one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kept.file.WriteString(`{"Program":"cut o`); err != nil {
		t.Fatal(err)
	}
	kept.close()

	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	var out bytes.Buffer
	if err := run(ctx, append(args, "-resume"), &out); !errors.Is(err, interrupted) {
		t.Errorf("an interrupted run: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "BENCH-RPC requests_per_call=- packed=- vs_raw_throughput=- vs_raw_p50_c1=1.50 vs_raw_p50_c256=- vs_raw_p99_c256=-" {
		t.Errorf("%s", out.String())
	}

	s.resume = true
	s.rounds = 2
	other, err := openResults(&s)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if _, known := other.of(&s, s.cells[0]); known {
		t.Error("what was measured in another way is taken for this")
	}
	s.resume = false
	anew, err := openResults(&s)
	if err != nil {
		t.Fatal(err)
	}
	anew.close()
	if all, err := os.ReadFile(file); err != nil || len(all) > 0 {
		t.Errorf("%d bytes are left of an earlier run, %v", len(all), err)
	}
}
