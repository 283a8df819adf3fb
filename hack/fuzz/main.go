// Command fuzz finds every Fuzz function of the module and runs each for a while.
//
//	go run ./hack/fuzz -each 20s [-total 3m] [package folder]...
//
// As many run side by side as there are processors, each on one. -total bounds the sum of the fuzzing times (compiling
// not counted) by shortening each run. It stops at the first failure, after printing it whole; the Go tool then leaves
// the failing input in testdata/fuzz, to be committed with the fix.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	each := flag.Duration("each", 20*time.Second, "fuzzing time of each function")
	total := flag.Duration("total", 0, "most fuzzing time of all together; 0 sets no bound")
	flag.Parse()
	roots := flag.Args()
	if len(roots) == 0 {
		roots = []string{"."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, roots, *each, *total); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, roots []string, each, total time.Duration) error {
	targets, err := find(roots)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no Fuzz function under %s", strings.Join(roots, ", "))
	}
	limit := share(each, total, len(targets))
	fmt.Printf("%d fuzz functions, %s each\n", len(targets), limit)
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, t := range targets {
		group.Go(func() error {
			if running.Err() != nil {
				return nil // Another failed.
			}
			start := time.Now()
			last, err := t.run(running, limit)
			if err != nil {
				if running.Err() != nil {
					return context.Cause(running)
				}
				return fmt.Errorf("%s in %s: %w", t.name, t.dir, err)
			}
			fmt.Printf("ok    %-40s %-40s %s  %s\n", t.name, t.dir, time.Since(start).Round(time.Second), last)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fmt.Printf("FUZZ OK functions=%d\n", len(targets))
	return nil
}

// target is one Fuzz function.
type target struct{ dir, name string }

var fuzzFunction = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// find reads the test files under roots, but for other modules and what the Go tool ignores.
func find(roots []string) ([]target, error) {
	var out []target
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && path != root {
				_, notModule := os.Stat(filepath.Join(path, "go.mod"))
				if n := d.Name(); n == "testdata" || n == "bin" || n[0] == '.' || n[0] == '_' || notModule == nil {
					return filepath.SkipDir
				}
			}
			if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range fuzzFunction.FindAllStringSubmatch(string(text), -1) {
				out = append(out, target{dir: filepath.Dir(path), name: m[1]})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// share is how long each of n functions may run.
func share(each, total time.Duration, n int) time.Duration {
	if total > 0 && each*time.Duration(n) > total {
		return max((total / time.Duration(n)).Truncate(time.Second), time.Second)
	}
	return each
}

// minimizing is how long an input may be made shorter. The Go tool's own minute would be all of a short run, for one
// input whose coverage differs from run to run.
const minimizing = time.Second

var timeIsUp = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w* \([\d.]+s\)\n {4}context deadline exceeded\n+(exit status 1\n)?FAIL$`)

// endedByTime reports whether the Go tool calls the end of its own time a failure, as that of Go 1.26 may where a worker is
// busy then (go.dev/issue/75804). What an input shows, the tool writes to a file, and says so.
func endedByTime(output string) bool {
	return timeIsUp.MatchString(output) && !strings.Contains(output, "Failing input written to")
}

// run fuzzes one function for limit and returns the last progress the Go tool told.
func (t target) run(ctx context.Context, limit time.Duration) (last string, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", limit.String(),
		"-fuzzminimizetime", minimizing.String(), "-parallel", "1", ".")
	cmd.Dir = t.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var all strings.Builder // Printed whole: others print meanwhile.
	lines := bufio.NewScanner(io.TeeReader(out, &all))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "fuzz: elapsed: "); ok {
			_, last, _ = strings.Cut(rest, ", ")
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil && !endedByTime(all.String()) {
		if ctx.Err() == nil {
			fmt.Print(all.String())
		}
		return "", err
	}
	return last, nil
}
