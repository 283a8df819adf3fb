// Command soak runs requesters and responders of pkg/rpcclient against an SQS server that goes wrong in every
// way, kills them, and compares what callers were told with what really happened.
//
//	go run ./test/soak -duration 60s -seed 1
//
// Requesters call in every form: Call, Stream, Gather, GatherFirst and Notify, on two channels. The responders of one
// share a reply store.
//
// The server, its gate, the store and the ledger are in this process; each requester and responder is a process of its
// own. The gate strikes SQS requests (throttling, 5xx and closed connections before and after the effect, black
// holes, replies that come late); the server hands messages out twice and out of order, and fails single
// entries. Processes are killed with SIGKILL and started anew, reply queues are deleted and moved under
// their requesters, and replies are forged. The ledger knows which requests the queue took, which handlers ran,
// and what callers said of their calls.
//
// What is promised does not depend on the machine: a run goes on beyond its duration until there is enough in it, and
// where a plain timer of a process came late, its calls may have, by as much (stall.go).
//
// Then each mutant, the library with one protection taken out (go build -overlay), must be caught by the
// check that is there for it; -all tries a mutant for nearly every check.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if os.Getenv(roleVariable) != "" {
		if err := side(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "soak:", os.Getenv(roleVariable), err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// raceSlack is what may take longer under the race detector.
const raceSlack = 20 * time.Second

func run(ctx context.Context, args []string, out, log io.Writer) error {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	duration := f.Duration("duration", time.Minute, "time of the run")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults and the harm; the machine's pace still differs")
	bin := f.String("bin", filepath.Join("bin", "soak"), "`folder` for the programs")
	only := f.String("mutant", "", "run only mutants whose `name` begins so")
	race := f.Bool("race", false, "build requesters and responders with the race detector, at whose pace fewer calls are made; a race ends the run")
	all := f.Bool("all", false, "try more mutants than the three that a run must catch, one for each other check (minutes)")
	mutantTime := f.Duration("mutants", 25*time.Second, "time of each mutant's run; 0: none")
	if err := f.Parse(args); err != nil {
		return err
	}
	b := wanted
	if *duration < time.Minute || *race {
		b = bar{calls: 100, untouched: b.untouched, before: b.before} // a short run shows that nothing is broken, and not how much was tried
	}
	slack := time.Duration(0)
	if *race {
		b.untouched, b.before, slack = 0, 0, raceSlack
	}
	child, err := build(ctx, *bin, "rpc", nil, *race)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "soak: %s with seed %d\n", *duration, *seed)
	enough := func(rep *report) bool { return len(rep.tooFew(b)) == 0 }
	rep, err := (&world{child: child, duration: *duration, log: log, slack: slack, slow: true, enough: enough}).run(ctx, *seed)
	if err != nil {
		return err
	}
	rep.print(out)
	bad := rep.violations(b)
	for _, v := range bad {
		fmt.Fprintf(out, "VIOLATION %s: %s\n", v.kind, v.what)
	}
	caught, tried := 0, 0
	if *mutantTime > 0 && len(bad) == 0 {
		tryAll := mutants
		if *all {
			tryAll = slices.Concat(mutants, others)
		}
		for _, m := range tryAll {
			if !strings.HasPrefix(m.name, *only) {
				continue
			}
			tried++
			ok, err := m.caught(ctx, *bin, *mutantTime, *seed, out, log)
			if err != nil {
				return fmt.Errorf("mutant %q: %w", m.name, err)
			}
			if ok {
				caught++
			} else {
				bad = append(bad, violation{"mutant survives", m.name})
			}
		}
	}
	verdict := "OK"
	if len(bad) > 0 {
		verdict = "FAILED"
	}
	fmt.Fprintf(out, "SOAK %s calls=%d outcomes=%d misrouted=%d overdue=%d notsent_but_executed=%d faults=%d mutants_caught=%d/%d\n",
		verdict, rep.calls, rep.outcomes, len(rep.misrouted), len(rep.overdue), len(rep.executedAnyway)+len(rep.takenAnyway), rep.faults, caught, tried)
	if len(bad) > 0 {
		return errors.New(bad[0].kind)
	}
	return nil
}

func (rep *report) print(out io.Writer) {
	fmt.Fprintf(out, "  %s; processes stood still for %s of it, %s at once at most, which took half the time of %d calls\n",
		rep.took.Round(time.Second), rep.stoodStill.Round(10*time.Millisecond), rep.longestStill.Round(time.Millisecond), rep.stalled)
	fmt.Fprintf(out, "  %d of %d calls that no fault touched succeeded (%.2f %%); %d of %d struck before the effect were not sent or succeeded (%.2f %%)\n",
		rep.untouchedWell, rep.untouched, 100*ratio(rep.untouchedWell, rep.untouched),
		rep.beforeEffectWell, rep.beforeEffect, 100*ratio(rep.beforeEffectWell, rep.beforeEffect))
	fmt.Fprintf(out, "  outcomes: %s\n", table(rep.outcomesBy))
	fmt.Fprintf(out, "  ended well: %s; %d copies were recalled by the reply store that responders share\n", table(rep.kinds), rep.recalled)
	strikes := map[string]int{}
	for f, n := range rep.strikes {
		strikes[string(f)] = n
	}
	fmt.Fprintf(out, "  faults: %s\n", table(strikes))
}

func table(m map[string]int) string {
	var all []string
	for k, n := range m {
		all = append(all, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// build builds this program, with files of the library replaced.
func build(ctx context.Context, bin, name string, replace map[string]string, race bool) (program string, err error) {
	program, err = filepath.Abs(filepath.Join(bin, name))
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", program}
	if race {
		args = append(args, "-race")
	}
	if len(replace) > 0 {
		overlay, err := writeOverlay(bin, name, replace)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./test/soak")...)
	cmd.Stderr = os.Stderr
	return program, cmd.Run()
}
