package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// event is one line of `go test -json` (go doc test2json); the build-* actions carry ImportPath.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// report gathers events and writes what a reader needs to w.
type report struct {
	w        io.Writer
	packages map[string]*pkg
	builds   map[string]*strings.Builder // output of builds by import path
	told     map[string]bool             // builds already printed

	passed, failed, skipped int      // tests, over all packages
	tested                  int      // packages that ran tests
	broken                  []string // what failed, said again at the end
}

type pkg struct {
	tests  map[string]*test
	order  []string
	output strings.Builder // what belongs to no test: panics, TestMain, the race detector
	cached bool
	points []string // crash points that tests which passed have counted
}

type test struct {
	output strings.Builder
	result string // pass, fail or skip; empty while it runs
	parent bool   // has subtests, which are counted instead
	others bool   // was told what a Ginkgo suite that runs beside it said of a failure
	ginkgo *specs
}

// specs are the numbers of Ginkgo's closing line.
type specs struct{ passed, failed, skipped int }

var ginkgoClosing = regexp.MustCompile(`(\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped`)

// ginkgoFailure begins what Ginkgo says of a spec that failed. test2json takes it for the words of whichever test ran last.
var ginkgoFailure = regexp.MustCompile(`\[(FAIL|FAILED|PANICKED|TIMEDOUT|INTERRUPTED)!?\]`)

// crashPoints is what crash-point tests say (hack/crashpoints).
var crashPoints = regexp.MustCompile(`CRASHPOINTS ([a-z]+=[0-9]+)\s*\n`)

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

func newReport(w io.Writer) *report {
	return &report{w: w, packages: map[string]*pkg{}, builds: map[string]*strings.Builder{}, told: map[string]bool{}}
}

// read takes events until the stream ends. A line that is no event is printed as it is.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = r.w.Write(line)
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		b := r.builds[e.ImportPath]
		if b == nil {
			b = &strings.Builder{}
			r.builds[e.ImportPath] = b
		}
		b.WriteString(e.Output)
		return
	case "build-fail":
		return // the package's own fail event names it
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		r.packages[e.Package] = p
	}
	if e.Test == "" {
		r.takePackage(e, p)
		return
	}
	r.takeTest(e, p)
}

func (r *report) takeTest(e event, p *pkg) {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{}
		p.tests[e.Test] = t
		p.order = append(p.order, e.Test)
		for name := e.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			if up := p.tests[name]; up != nil {
				up.parent = true
			}
		}
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.result = e.Action
		if m := ginkgoClosing.FindStringSubmatch(colour.ReplaceAllString(t.output.String(), "")); m != nil {
			t.ginkgo = &specs{passed: number(m[1]), failed: number(m[2]), skipped: number(m[3]) + number(m[4])}
		}
		if e.Action == "pass" {
			for _, m := range crashPoints.FindAllStringSubmatch(t.output.String(), -1) {
				p.points = append(p.points, m[1])
			}
			if t.others = ginkgoFailure.MatchString(colour.ReplaceAllString(t.output.String(), "")); !t.others {
				t.output.Reset()
			}
		}
	}
}

func (r *report) takePackage(e event, p *pkg) {
	switch e.Action {
	case "output":
		p.cached = p.cached || strings.Contains(e.Output, "\t(cached)")
		p.output.WriteString(e.Output)
	case "pass", "skip", "fail":
		r.packageDone(e, p)
	}
}

func (r *report) packageDone(e event, p *pkg) {
	passed, failed, skipped := p.count()
	if e.Action == "skip" || (e.Action == "pass" && passed+skipped == 0) {
		return // has no tests
	}
	r.tested++
	r.passed, r.skipped = r.passed+passed, r.skipped+skipped
	took := fmt.Sprintf("%.1fs", e.Elapsed)
	if p.cached {
		took = "cached"
	}
	if e.Action == "pass" {
		line := fmt.Sprintf("ok    %-60s %4d tests", short(e.Package), passed)
		if skipped > 0 {
			line += fmt.Sprintf(", %d skipped", skipped)
		}
		if len(p.points) > 0 {
			line += ", crash points " + strings.Join(p.points, " ")
		}
		fmt.Fprintf(r.w, "%s  %s\n", line, took)
		return
	}
	r.broken = append(r.broken, strings.TrimSpace(short(e.Package)+" "+strings.Join(p.failures(), " ")))
	if failed == 0 {
		failed = 1 // the package itself: it did not compile, panicked or was killed
	}
	r.failed += failed
	r.printFailure(e, p)
	fmt.Fprintf(r.w, "FAIL  %-60s %4d failed, %d passed  %s\n", short(e.Package), failed, passed, took)
}

// printFailure writes everything that the failed tests of a package said, and what the package said
// outside of tests.
func (r *report) printFailure(e event, p *pkg) {
	fmt.Fprintf(r.w, "\n======== FAIL %s\n", e.Package)
	if b := r.builds[e.FailedBuild]; b != nil && !r.told[e.FailedBuild] {
		r.told[e.FailedBuild] = true
		fmt.Fprint(r.w, b.String())
	}
	for _, name := range p.order {
		// A test without a result was running when its package died.
		if t := p.tests[name]; t.result == "fail" || t.result == "" || t.others {
			fmt.Fprint(r.w, t.output.String())
		}
	}
	fmt.Fprint(r.w, p.output.String())
	fmt.Fprintln(r.w, "========")
}

// count counts leaf tests; a test that runs a Ginkgo suite counts as its specs.
func (p *pkg) count() (passed, failed, skipped int) {
	for name, t := range p.tests {
		switch {
		case t.ginkgo != nil:
			passed, failed, skipped = passed+t.ginkgo.passed, failed+t.ginkgo.failed, skipped+t.ginkgo.skipped
			if t.result == "fail" && t.ginkgo.failed == 0 {
				failed++
			}
		case t.parent && (t.result == "pass" || t.result == "skip" || p.childFailed(name)):
			// Its subtests say it all.
		case t.result == "pass":
			passed++
		case t.result == "skip":
			skipped++
		default:
			failed++
		}
	}
	return passed, failed, skipped
}

// failures names the tests that failed or were running when their package died.
func (p *pkg) failures() []string {
	var out []string
	for _, name := range p.order {
		if t := p.tests[name]; (t.result == "fail" || t.result == "") && !p.childFailed(name) {
			out = append(out, name)
		}
	}
	return out
}

// childFailed tells whether a subtest of the named test failed.
func (p *pkg) childFailed(name string) bool {
	for sub, t := range p.tests {
		if strings.HasPrefix(sub, name+"/") && t.result != "pass" && t.result != "skip" {
			return true
		}
	}
	return false
}

// finish prints the summary and tells whether all is well. exitErr is how go test ended.
func (r *report) finish(exitErr error, took time.Duration) bool {
	// Build errors that no package's failure showed, such as those of `go vet` or a bad pattern.
	var rest []string
	for path := range r.builds {
		if !r.told[path] {
			rest = append(rest, path)
		}
	}
	sort.Strings(rest)
	for _, path := range rest {
		fmt.Fprint(r.w, r.builds[path].String())
	}

	fmt.Fprintln(r.w)
	for _, what := range r.broken {
		fmt.Fprintln(r.w, "FAILED:", what)
	}
	fmt.Fprintln(r.w, r.countsLine())
	numbers := fmt.Sprintf("packages=%d tests=%d skipped=%d", r.tested, r.passed+r.failed, r.skipped)
	switch {
	case r.failed > 0 || len(r.broken) > 0:
		fmt.Fprintf(r.w, "TEST FAILED %s failed=%d in %s\n", numbers, r.failed, took.Round(time.Second))
	case exitErr != nil:
		fmt.Fprintf(r.w, "TEST FAILED %s: go test: %v\n", numbers, exitErr)
	case r.passed == 0:
		fmt.Fprintf(r.w, "TEST FAILED %s: no test ran\n", numbers)
	default:
		fmt.Fprintf(r.w, "TEST OK %s\n", numbers)
		return true
	}
	return false
}

// countsLine is the plain line that log readers look for.
func (r *report) countsLine() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
}

// short is a package's path below the module, as one would give it to go test.
func short(path string) string {
	if rest, ok := strings.CutPrefix(path, "github.com/replyqueue/replyqueue"); ok {
		return "." + rest
	}
	return path
}

func number(digits string) int {
	n, _ := strconv.Atoi(digits) // the pattern admits digits only
	return n
}
