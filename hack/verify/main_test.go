package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRunNamesWhatTheGeneratorChanged(t *testing.T) {
	t.Chdir(t.TempDir())
	for file, text := range map[string]string{"same": "1", "stale": "1", "gone": "1", "bin/tool": "1", ".git/index": "1"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	generator := []string{"sh", "-c", "echo 1 > bin/tool; echo 2 > .git/index; touch same"}
	if err := run(t.Context(), generator); err != nil {
		t.Errorf("an unchanged tree: %v", err)
	}

	before, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	generator[2] = "echo 2 > stale; echo 1 > new; rm gone; echo 3 > bin/tool"
	if err := run(t.Context(), generator); err == nil || !strings.Contains(err.Error(), "stale") {
		t.Errorf("a changed tree: %v", err)
	}
	after, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"gone (no longer generated)", "new (was missing)", "stale"}
	if got := differences(before, after); !slices.Equal(got, want) {
		t.Errorf("differences %q, want %q", got, want)
	}

	if err := run(t.Context(), []string{"sh", "-c", "exit 3"}); err == nil {
		t.Error("no error from a generator that failed")
	}
}
