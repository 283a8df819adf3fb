// Command benchrpc measures pkg/rpcclient beside what SQS allows and beside what one writes first.
//
//	go run ./hack/benchrpc [-quick] [-concurrency 1,256] [-topologies 1x1] [-handlers 0s] [-servers plain] [-rows ours,raw]
//
// Every row has processes of its own: its SQS server (pkg/sqstest, on loopback), one with all requesters and
// one with all responders. A cell is one server, topology, handler and concurrency. Its rows take turns for
// -rounds rounds, and what is shown is the median, with the least and the most in brackets. Ratios are the
// medians of the ratios within a round, so that a machine which is busy for a while counts for both.
//
// A turn is the first call after a second of idleness or more, and then calls for 2 s (-duration) in the two
// cells that the last line tells of: plain, 1x1, a handler that takes no time, 1 and 256 calls at once. In
// all others, which are only printed, for 1.5 s (-brief). All 48 cells take about half an hour.
//
// A cell is printed as soon as it is measured, and kept in -results. With -resume, cells that are there
// already, measured by the same program in the same way, are not measured again. A cell that fails is
// reported and the next one begun; the last line is printed whatever happens, of what there is by then.
//
// The rows:
//
//	ours    pkg/rpcclient with its defaults, replies not packed
//	packed  the same, accepting packed replies
//	raw     the ceiling: batches of ten both ways and batched deletes, written by hand for this one purpose,
//	        with our client options, number of pollers and window, and nothing that tells one call from another
//	naive   the floor: send, receive one, delete, in a loop, with a reply queue for each caller
//
// The columns: calls per second; p50 and p99 of a call; SQS requests per call and billed units of 64 KB per
// call, from the first call until every message is deleted and including the polls that are still open
// then; CPU time and allocations per call of requesters and responders together (the server's apart); the
// first call after idleness.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "side":
		err = side(ctx, os.Args[2], os.Stdin, os.Stdout)
	case len(os.Args) == 3 && os.Args[1] == "server":
		err = serverSide(ctx, os.Args[2], os.Stdin, os.Stdout)
	default:
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchrpc:", err)
		os.Exit(1)
	}
}

// settings are what is measured, and for how long.
type settings struct {
	cells    []cell
	rows     []string
	rounds   int
	duration time.Duration // of a run in the cells that the last line tells of
	brief    time.Duration // of a run in the others
	warmUp   time.Duration
	results  string // file
	resume   bool
	profile  string
}

// cell is one combination of the matrix.
type cell struct {
	server      string // "plain" or "aws"
	requesters  int
	responders  int
	handler     time.Duration
	concurrency int
}

func (c cell) String() string {
	return fmt.Sprintf("server=%s topology=%dx%d handler=%s concurrency=%d", c.server, c.requesters, c.responders, c.handler, c.concurrency)
}

var allRows = []string{"ours", "packed", "raw", "naive"}

// decisive reports whether the last line tells of the cell.
func (c cell) decisive() bool {
	return c.server == "plain" && c.requesters == 1 && c.responders == 1 && c.handler == 0 && (c.concurrency == 1 || c.concurrency == 256)
}

// length is that of one run.
func (s *settings) length(c cell) time.Duration {
	if c.decisive() {
		return s.duration
	}
	return s.brief
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	kept, err := openResults(&s)
	if err != nil {
		return err
	}
	defer kept.close()
	var results []result
	var failures []error
	defer func() { fmt.Fprintln(out, summary(results)) }()
	for _, c := range s.cells {
		r, err := kept.orMeasure(ctx, &s, c)
		switch {
		case err == nil:
			r.print(out)
			results = append(results, r)
		case ctx.Err() != nil:
			return errors.Join(append(failures, context.Cause(ctx))...)
		default:
			failures = append(failures, fmt.Errorf("%s: %w", c, err))
			fmt.Fprintf(out, "\n%s\n  not measured: %v\n", c, err)
		}
	}
	return errors.Join(failures...)
}

func parse(args []string) (settings, error) {
	f := flag.NewFlagSet("benchrpc", flag.ContinueOnError)
	servers := f.String("servers", "plain,aws", "servers: plain, and aws with latency and shards like AWS's")
	topologies := f.String("topologies", "1x1,8x4,32x8", "requesters x responders")
	handlers := f.String("handlers", "0s,5ms", "time that a handler takes")
	concurrency := f.String("concurrency", "1,16,256,2048", "calls pending at once, over all requesters")
	rows := f.String("rows", strings.Join(allRows, ","), "what to measure")
	s := settings{}
	f.IntVar(&s.rounds, "rounds", 5, "runs of each row, which take turns")
	f.DurationVar(&s.duration, "duration", 2*time.Second, "time of one run in the cells that the last line tells of")
	f.DurationVar(&s.brief, "brief", 1500*time.Millisecond, "time of one run in the other cells")
	f.DurationVar(&s.warmUp, "warmup", 500*time.Millisecond, "time of calls before the first run, not counted")
	f.StringVar(&s.results, "results", filepath.Join("bin", "benchrpc.jsonl"), "`file` for what was measured, a line for each cell")
	f.BoolVar(&s.resume, "resume", false, "do not measure anew what is in -results, if it was measured by this program in this way")
	f.StringVar(&s.profile, "profile", "", "`folder` for profiles of CPU and allocations, two files for each process")
	quick := f.Bool("quick", false, "only 1x1, plain, handler 0, at 1 and 256: what the last line tells")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if *quick {
		*servers, *topologies, *handlers, *concurrency = "plain", "1x1", "0s", "1,256"
	}
	s.rows = strings.Split(*rows, ",")
	for _, r := range s.rows {
		if !slices.Contains(allRows, r) {
			return s, fmt.Errorf("no row %q; there are %s", r, strings.Join(allRows, ", "))
		}
	}
	for _, server := range strings.Split(*servers, ",") {
		if server != "plain" && server != "aws" {
			return s, fmt.Errorf("no server %q", server)
		}
		for _, topology := range strings.Split(*topologies, ",") {
			c := cell{server: server}
			if _, err := fmt.Sscanf(topology, "%dx%d", &c.requesters, &c.responders); err != nil || c.requesters < 1 || c.responders < 1 {
				return s, fmt.Errorf("topology %q is not <requesters>x<responders>", topology)
			}
			for _, handler := range strings.Split(*handlers, ",") {
				var err error
				if c.handler, err = time.ParseDuration(handler); err != nil {
					return s, err
				}
				for _, n := range strings.Split(*concurrency, ",") {
					if c.concurrency, err = strconv.Atoi(n); err != nil || c.concurrency < 1 {
						return s, fmt.Errorf("concurrency %q is not a positive number", n)
					}
					s.cells = append(s.cells, c)
				}
			}
		}
	}
	if s.rounds < 1 || s.duration <= 0 || s.brief <= 0 {
		return s, errors.New("rounds, duration and brief must be positive")
	}
	return s, nil
}
