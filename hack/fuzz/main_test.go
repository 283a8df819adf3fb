package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestFindTakesThisModulesFuzzFunctionsOnly(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"a_test.go":            "func FuzzA(f *testing.F) {}\n\tfunc FuzzIndented(f *testing.F) {}\nfunc Fuzzy(t *testing.T) {}\n",
		"b/b_test.go":          "func FuzzB1(f *testing.F) {\n}\n\nfunc FuzzB2(f *testing.F) {}\n",
		"b/b.go":               "func FuzzNoTest(f *testing.F) {}\n",
		"b/testdata/x_test.go": "func FuzzData(f *testing.F) {}\n",
		"nested/go.mod":        "module nested\n",
		"nested/n_test.go":     "func FuzzNested(f *testing.F) {}\n",
		".hidden/h_test.go":    "func FuzzHidden(f *testing.F) {}\n",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := find([]string{root})
	if err != nil {
		t.Fatal(err)
	}
	want := []target{{root, "FuzzA"}, {filepath.Join(root, "b"), "FuzzB1"}, {filepath.Join(root, "b"), "FuzzB2"}}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

func TestShare(t *testing.T) {
	for _, tc := range []struct {
		each, total time.Duration
		n           int
		want        time.Duration
	}{
		{20 * time.Second, 0, 100, 20 * time.Second},
		{20 * time.Second, 3 * time.Minute, 9, 20 * time.Second},
		{20 * time.Second, 3 * time.Minute, 18, 10 * time.Second},
		{20 * time.Second, 3 * time.Second, 7, time.Second},
	} {
		if got := share(tc.each, tc.total, tc.n); got != tc.want {
			t.Errorf("share(%s, %s, %d) = %s, want %s", tc.each, tc.total, tc.n, got, tc.want)
		}
	}
}

func TestEndedByTime(t *testing.T) {
	const (
		told = "fuzz: elapsed: 21s, execs: 34 (0/sec), new interesting: 0 (total: 33)\n"
		end  = "FAIL\nexit status 1\nFAIL\texample.com/a\t21.065s\n"
		time = "--- FAIL: FuzzA (21.04s)\n    context deadline exceeded\n"
	)
	for output, want := range map[string]bool{
		told + time + end: true,
		told + "--- FAIL: FuzzA (2.85s)\n    --- FAIL: FuzzA (0.00s)\n        a_test.go:1: context deadline exceeded\n    \n" +
			"    Failing input written to testdata/fuzz/FuzzA/3c83b8cf531bf1f6\n" + end: false,
		told + time + "    \n    Failing input written to testdata/fuzz/FuzzA/3c83b8cf531bf1f6\n" + end:               false,
		told + "--- FAIL: FuzzA (21.04s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\n" + end: false,
		"--- FAIL: FuzzA (1.00s)\n    a_test.go:1: context deadline exceeded\n" + end:                                 false,
	} {
		if got := endedByTime(output); got != want {
			t.Errorf("%t of\n%s", got, output)
		}
	}
}
