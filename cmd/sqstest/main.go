// The command sqstest serves Amazon SQS out of memory, for demonstrations and for tests in other processes.
//
//	go run ./cmd/sqstest --listen 127.0.0.1:4566
//
// With --data FILE, queues and messages outlive the process: they are read from the file at the start, and written to it
// every --save-every and at the end. The file is always whole, replaced at once and never changed in place; what happened
// after the last time it was written is lost when the process is killed. Without --data nothing is kept.
//
// A million messages of 1 KB in ten thousand queues take less than 2 GB: from 1.8 GB on, the garbage collector works harder
// to keep it so, and messages beyond that cost time. GOMEMLIMIT, in the environment, puts that elsewhere.
//
// --faults makes it behave worse, or just more like AWS, by a fault plan (package sqstest, type Plan) in one of three forms:
//
//	--faults aws-like        requests take about 10 ms, lognormally spread; receives find 1 to 10 of what is there; no
//	                         message shares a wake-up with another. Nothing fails. For benchmarks.
//	--faults @FILE           the plan in that file
//	--faults '{"seed":7,"rules":[{"fault":"Throttle","action":"Send*","probability":0.01}]}'
//
// The plan is printed in the last form at the start, so that a run can be repeated from its log.
//
// It checks no signatures, so it serves loopback addresses only, unless --allow-non-loopback is given. A browser finds a
// status page at /; GET /_sqstest/state is the same as JSON and GET /healthz answers "ok". It ends on SIGINT and SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "sqstest:", err)
		os.Exit(1)
	}
}

// memoryLimit, in bytes, is soft: see debug.SetMemoryLimit.
const memoryLimit = 1800 << 20

// errUsage is a mistake on the command line, about which the flag package has said what there is to say.
var errUsage = errors.New("usage")

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sqstest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:4566", "address to serve, `host:port`; port 0 takes a free one")
	beyond := flags.Bool("allow-non-loopback", false, "serve an address that other machines or containers may reach, without any access control")
	region := flags.String("region", sqstest.DefaultRegion, "region of requests whose signature names none")
	account := flags.String("account", sqstest.DefaultAccount, "account that owns the queues, 12 digits")
	data := flags.String("data", "", "`file` to keep queues and messages in; none by default")
	every := flags.Duration("save-every", 2*time.Second, "how often to write --data, when something changed")
	faults := flags.String("faults", "", "fault `plan`: JSON as sqstest.ParsePlan reads it, @FILE with such, or aws-like")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if !sqstest.IsAccount(*account) {
		return fmt.Errorf("--account %q is not 12 digits", *account)
	}
	opts := []sqstest.Option{sqstest.WithRegion(*region), sqstest.WithAccount(*account)}
	plan, err := faultPlan(*faults)
	if err != nil {
		return err
	}
	opts = append(opts, sqstest.WithFaults(plan))
	if *every <= 0 {
		return fmt.Errorf("--save-every %v is not positive", *every)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	server := sqstest.New(opts...)
	store := store{server: server, file: *data}
	if err := store.load(); err != nil {
		return err
	}
	if err := start(server, *listen, *beyond); err != nil {
		return err
	}
	defer server.Close()
	if _, err := fmt.Fprintf(stdout, "serving SQS at %s (status page at /, JSON at /_sqstest/state)\n", server.URL); err != nil {
		return err
	}
	if len(plan.Rules) > 0 {
		if _, err := fmt.Fprintf(stdout, "fault plan: %s\n", plan); err != nil {
			return err
		}
	}
	store.keep(ctx, *every, stderr)
	server.Close() // so that nothing is answered that is not saved
	return store.save()
}

// awsLike is the name of sqstest.AWSLike on the command line.
const awsLike = "aws-like"

// faultPlan is the plan that --faults names; none is the empty plan.
func faultPlan(value string) (sqstest.Plan, error) {
	switch {
	case value == "":
		return sqstest.Plan{}, nil
	case value == awsLike:
		return sqstest.AWSLike(1), nil
	case strings.HasPrefix(value, "@"):
		b, err := os.ReadFile(value[1:])
		if err != nil {
			return sqstest.Plan{}, fmt.Errorf("fault plan: %w", err)
		}
		value = string(b)
	}
	return sqstest.ParsePlan(value)
}

func start(server *sqstest.Server, address string, beyondLoopback bool) error {
	if !beyondLoopback {
		if err := server.Listen(address); err != nil {
			if errors.Is(err, sqstest.ErrNotLoopback) {
				return fmt.Errorf("%w; --allow-non-loopback serves any address", err)
			}
			return err
		}
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	server.Serve(l)
	return nil
}
