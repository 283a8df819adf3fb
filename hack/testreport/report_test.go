package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// The streams below are what go test -json prints, less the fields that the report does not read.
const (
	passing = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"chatter\n"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"    a_test.go:7: CRASHPOINTS thing=12\n"}
{"Action":"pass","Package":"m/a","Test":"TestOne","Elapsed":0.1}
{"Action":"run","Package":"m/a","Test":"TestTable"}
{"Action":"run","Package":"m/a","Test":"TestTable/x"}
{"Action":"pass","Package":"m/a","Test":"TestTable/x"}
{"Action":"run","Package":"m/a","Test":"TestTable/y"}
{"Action":"skip","Package":"m/a","Test":"TestTable/y"}
{"Action":"pass","Package":"m/a","Test":"TestTable"}
{"Action":"pass","Package":"m/a","Elapsed":0.5}
{"Action":"skip","Package":"m/empty"}
`
	failing = `{"Action":"run","Package":"m/b","Test":"TestTwo"}
{"Action":"run","Package":"m/b","Test":"TestTwo/z"}
{"Action":"output","Package":"m/b","Test":"TestTwo/z","Output":"b_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestTwo/z"}
{"Action":"fail","Package":"m/b","Test":"TestTwo"}
{"Action":"fail","Package":"m/b","Elapsed":0.5}
`
	panicking = `{"Action":"run","Package":"m/p","Test":"TestThree"}
{"Action":"output","Package":"m/p","Test":"TestThree","Output":"panic: boom\n"}
{"Action":"fail","Package":"m/p","Elapsed":0.5}
`
	notCompiling = `{"ImportPath":"m/c [m/c.test]","Action":"build-output","Output":"./c_test.go:5:2: undefined: y\n"}
{"ImportPath":"m/c [m/c.test]","Action":"build-fail"}
{"Action":"start","Package":"m/c"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c [build failed]\n"}
{"Action":"fail","Package":"m/c","Elapsed":0,"FailedBuild":"m/c [m/c.test]"}
`
	beside = `{"Action":"run","Package":"m/s","Test":"TestSuite"}
{"Action":"output","Package":"m/s","Test":"TestSuite","Output":"chatter of the suite\n"}
{"Action":"run","Package":"m/s","Test":"TestBeside"}
{"Action":"output","Package":"m/s","Test":"TestBeside","Output":"\u001b[91m[FAILED]\u001b[0m it was 2\n"}
{"Action":"pass","Package":"m/s","Test":"TestBeside"}
{"Action":"run","Package":"m/s","Test":"TestQuiet"}
{"Action":"output","Package":"m/s","Test":"TestQuiet","Output":"chatter of others\n"}
{"Action":"pass","Package":"m/s","Test":"TestQuiet"}
{"Action":"fail","Package":"m/s","Test":"TestSuite"}
{"Action":"fail","Package":"m/s","Elapsed":9}
`
	ginkgo = `{"Action":"run","Package":"m/g","Test":"TestSuite"}
{"Action":"output","Package":"m/g","Test":"TestSuite","Output":"\u001b[1mSUCCESS!\u001b[0m -- \u001b[32m12 Passed\u001b[0m | \u001b[91m0 Failed\u001b[0m | "}
{"Action":"output","Package":"m/g","Test":"TestSuite","Output":"\u001b[33m1 Pending\u001b[0m | \u001b[36m2 Skipped\u001b[0m\n"}
{"Action":"pass","Package":"m/g","Test":"TestSuite"}
{"Action":"pass","Package":"m/g","Elapsed":9}
`
)

func TestReport(t *testing.T) {
	exit1 := errors.New("exit status 1")
	for name, tc := range map[string]struct {
		stream string
		exit   error
		ok     bool
		counts string
		shows  []string
		hides  string
	}{
		"passing":            {passing, nil, true, "2 passed, 0 failed, 1 skipped", []string{"ok    m/a", ", crash points thing=12  0.5s\n", "TEST OK packages=1 tests=2 skipped=1"}, "chatter"},
		"failing":            {passing + failing, exit1, false, "2 passed, 1 failed, 1 skipped", []string{"got 1, want 2", "FAIL  m/b", "FAILED: m/b TestTwo/z\n", "TEST FAILED packages=2"}, "TEST OK"},
		"panicking":          {panicking, exit1, false, "0 passed, 1 failed, 0 skipped", []string{"panic: boom", "FAILED: m/p TestThree\n"}, "TEST OK"},
		"not compiling":      {notCompiling, exit1, false, "0 passed, 1 failed, 0 skipped", []string{"undefined: y", "FAIL  m/c"}, "TEST OK"},
		"ginkgo":             {ginkgo, nil, true, "12 passed, 0 failed, 3 skipped", []string{"TEST OK packages=1 tests=12 skipped=3"}, "SUCCESS"},
		"ginkgo beside":      {beside, exit1, false, "2 passed, 1 failed, 0 skipped", []string{"chatter of the suite", "it was 2"}, "chatter of others"},
		"nothing ran":        {`{"Action":"skip","Package":"m/empty"}` + "\n", nil, false, "0 passed, 0 failed, 0 skipped", []string{"no test ran"}, "TEST OK"},
		"go test itself":     {passing, exit1, false, "2 passed, 0 failed, 1 skipped", []string{"go test: exit status 1"}, "TEST OK"},
		"a line of no event": {"warning: odd\n" + passing, nil, true, "2 passed, 0 failed, 1 skipped", []string{"warning: odd"}, "TEST FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(tc.stream)); err != nil {
				t.Fatal(err)
			}
			if ok := r.finish(tc.exit, time.Second); ok != tc.ok {
				t.Errorf("finish = %t, want %t", ok, tc.ok)
			}
			if got := r.countsLine(); got != tc.counts {
				t.Errorf("counts %q, want %q", got, tc.counts)
			}
			for _, want := range append(tc.shows, "\n"+tc.counts+"\n") {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report does not say %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), tc.hides) {
				t.Errorf("the report says %q:\n%s", tc.hides, out.String())
			}
		})
	}
}
