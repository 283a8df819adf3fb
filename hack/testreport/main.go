// Command testreport runs `go test` and reports it for people and for logs: a line per package as it
// ends, the whole output of what failed, and the counts.
//
//	go run ./hack/testreport [flags] [--] <arguments of go test>
//
// The race detector is on where a C compiler makes that possible, and the report says when it is not.
// It exits with 1 when anything failed, did not compile, or when no test ran.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	race := flag.Bool("race", true, "use the race detector where this machine can")
	counts := flag.String("counts", "", "also write the line of counts to this file")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, *race, *counts, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, race bool, countsFile string, args []string) (ok bool, err error) {
	if countsFile != "" {
		// An old count must not be taken for this run's.
		if err := os.Remove(countsFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	// The longest packages wait for control planes most of the time, so that one more than there are processors fits.
	testArgs := []string{"test", "-json", "-p", strconv.Itoa(runtime.GOMAXPROCS(0) + 1)}
	if race {
		if raceWorks(ctx) {
			testArgs = append(testArgs, "-race")
		} else {
			fmt.Println("No C compiler that works: testing without the race detector.")
		}
	}

	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", append(testArgs, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second // tests with a control plane stop it first
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	r := newReport(os.Stdout)
	readErr := r.read(events)
	exitErr := cmd.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if readErr != nil {
		return false, fmt.Errorf("read the output of go test: %w", readErr)
	}

	ok = r.finish(exitErr, time.Since(start))
	if countsFile != "" {
		return ok, os.WriteFile(countsFile, []byte(r.countsLine()+"\n"), 0o644)
	}
	return ok, nil
}

// raceWorks: the race detector needs cgo, and cgo a C compiler with its headers.
func raceWorks(ctx context.Context) bool {
	return exec.CommandContext(ctx, "go", "build", "-race", "runtime/cgo").Run() == nil
}
