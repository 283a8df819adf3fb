// Command crashpoints runs the crash-point tests and counts the points that they passed.
//
//	go run ./hack/crashpoints -want channel,lifecycle
//
// A crash-point test stops the process under test after each single external call (to Kubernetes or to SQS) in turn,
// starts it again, and expects the same end. Its contract with this command:
//
//   - it is a Go test whose name contains CrashPoints, or a Ginkgo spec whose text contains "Crash points" in a package
//     named in ginkgoPackages;
//   - when every point has passed, and not before, it writes a line that contains "CRASHPOINTS <name>=<n>": n is the
//     number of points that it stopped at and saw through to the end, as in t.Logf("CRASHPOINTS sweeper=%d", n).
//
// A line counts only if the test that wrote it passed. The command fails when a test failed, or when a wanted name has
// no line or a count of zero; else its last line is "CRASHPOINTS OK channel=<n> lifecycle=<n> …".
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ginkgoPackages have crash points in a Ginkgo suite.
var ginkgoPackages = []string{"./internal/controller"}

func main() {
	want := flag.String("want", "channel,lifecycle,sweeper", "names that must have points, in the order in which to report them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, strings.Split(*want, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "crashpoints:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, want []string) error {
	found := &tally{out: out}
	for _, args := range [][]string{
		append([]string{"-run=CrashPoints"}, "./internal/..."),
		append(append([]string{"-run=^TestControllers$"}, ginkgoPackages...), "-ginkgo.focus=Crash points", "-every-point"),
	} {
		if err := found.test(ctx, args); err != nil {
			return err
		}
	}
	line, err := found.line(want)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, line)
	return nil
}

// tally is what the tests have said.
type tally struct {
	out    io.Writer
	points map[string]int
}

// test runs `go test` with args and takes in what it says.
func (t *tally) test(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1", "-timeout=60m"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second // tests with a control plane stop it first
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := t.read(events)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return readErr
}

// event is one line of `go test -json` (go doc test2json).
type event struct{ Action, Package, Test, Output string }

var pointsLine = regexp.MustCompile(`CRASHPOINTS ([a-z]+)=([0-9]+)\s*$`)

// read takes events until the stream ends: the counts of tests that passed, and everything that failed tests said.
func (t *tally) read(events io.Reader) error {
	said, counted := map[string]*strings.Builder{}, map[string]map[string]int{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if len(line) > 0 && json.Unmarshal(line, &e) != nil {
			_, _ = t.out.Write(line)
		}
		test := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			if said[test] == nil {
				said[test] = &strings.Builder{}
			}
			said[test].WriteString(e.Output)
			if m := pointsLine.FindStringSubmatch(e.Output); m != nil && e.Test != "" {
				n, err := strconv.Atoi(m[2])
				if err != nil {
					return err
				}
				if counted[test] == nil {
					counted[test] = map[string]int{}
				}
				counted[test][m[1]] = n
			}
		case "pass":
			if err := t.add(counted[test]); err != nil {
				return err
			}
			delete(said, test)
		case "fail", "build-fail":
			if s := said[test]; s != nil {
				fmt.Fprint(t.out, s.String())
			}
		case "build-output":
			fmt.Fprint(t.out, e.Output)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

func (t *tally) add(counted map[string]int) error {
	for name, n := range counted {
		if _, twice := t.points[name]; twice {
			return fmt.Errorf("two tests count the points of %s", name)
		}
		if t.points == nil {
			t.points = map[string]int{}
		}
		t.points[name] = n
		fmt.Fprintf(t.out, "%s: %d points passed\n", name, n)
	}
	return nil
}

// line is the last line of the report; an error, when a name that is wanted has no points.
func (t *tally) line(want []string) (string, error) {
	line := "CRASHPOINTS OK"
	for _, name := range want {
		n := t.points[name]
		if n == 0 {
			return "", fmt.Errorf("no crash point of %s has passed", name)
		}
		line += fmt.Sprintf(" %s=%d", name, n)
	}
	return line, nil
}
