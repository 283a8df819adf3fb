package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// sample is what one run showed.
type sample struct {
	throughput float64 // calls per second
	p50, p99   time.Duration
	most       time.Duration // the slowest call
	requests   float64       // per call, to the drained end
	units      float64       // of 64 KB, per call
	cpu        time.Duration
	serverCPU  time.Duration
	allocs     float64
	first      time.Duration // call after idleness
	failed     int
}

// result is a cell's samples, by row and round.
type result struct {
	cell cell
	rows []string
	runs map[string][]sample
}

// measure lets the rows of a cell take turns.
func (s *settings) measure(ctx context.Context, c cell) (result, error) {
	r := result{cell: c, rows: s.rows, runs: map[string][]sample{}}
	for round := range s.rounds {
		for i := range s.rows {
			row := s.rows[(round+i)%len(s.rows)] // none always comes after the same
			one, err := s.runOnce(ctx, c, row)
			if err != nil {
				return r, fmt.Errorf("%s: %w", row, err)
			}
			r.runs[row] = append(r.runs[row], one)
		}
	}
	return r, nil
}

// idleness before the first call.
const idleness = time.Second

// runOnce makes one run with processes of its own.
func (s *settings) runOnce(ctx context.Context, c cell, row string) (sample, error) {
	srv, err := s.startServer(ctx, c.server)
	if err != nil {
		return sample{}, err
	}
	ended := false
	defer func() {
		if !ended {
			srv.end(false)
		}
	}()
	queues := c.requesters
	if row == "naive" {
		queues = max(queues, c.concurrency)
	}
	if err := createQueues(ctx, srv.url, queues); err != nil {
		return sample{}, err
	}
	responders, err := s.startSide(ctx, c, row, "responders", srv.url)
	if err != nil {
		return sample{}, err
	}
	defer responders.end(false)
	requesters, err := s.startSide(ctx, c, row, "requesters", srv.url)
	if err != nil {
		return sample{}, err
	}
	defer requesters.end(false)

	var first, warm, run answer
	if err := requesters.ask(command{Op: "run", Duration: s.warmUp}, &warm); err != nil {
		return sample{}, err
	}
	if _, err := srv.drained(ctx); err != nil {
		return sample{}, err
	}
	select {
	case <-time.After(idleness):
	case <-ctx.Done():
		return sample{}, ctx.Err()
	}
	if err := requesters.ask(command{Op: "call"}, &first); err != nil {
		return sample{}, fmt.Errorf("first call: %w", err)
	}
	before, err := srv.drained(ctx)
	if err != nil {
		return sample{}, err
	}
	usage := func() (sum answer, err error) {
		for _, p := range []*process{requesters, responders} {
			var a answer
			if err := p.ask(command{Op: "usage"}, &a); err != nil {
				return sum, err
			}
			sum.CPU += a.CPU
			sum.Mallocs += a.Mallocs
			sum.Requests += a.Requests
			sum.Units += a.Units
		}
		return sum, nil
	}
	used, err := usage()
	if err != nil {
		return sample{}, err
	}
	if err := requesters.ask(command{Op: "run", Duration: s.duration}, &run); err != nil {
		return sample{}, err
	}
	after, err := srv.drained(ctx)
	if err != nil {
		return sample{}, err
	}
	usedAfter, err := usage()
	if err != nil {
		return sample{}, err
	}
	if run.Calls == 0 {
		return sample{}, fmt.Errorf("no call succeeded, %d failed", run.Failed)
	}
	calls := float64(run.Calls)
	one := sample{
		throughput: calls / run.Elapsed.Seconds(), p50: run.P50, p99: run.P99, most: run.Max, first: first.P50, failed: run.Failed,
		requests: float64(after.started-before.started) / calls,
		// Polls that are open are billed as one unit each when they end empty.
		units:  float64(usedAfter.Units-used.Units+int64(after.open-before.open)) / calls,
		cpu:    time.Duration(float64(usedAfter.CPU-used.CPU) / calls),
		allocs: float64(usedAfter.Mallocs-used.Mallocs) / calls,
	}
	if counted, seen := usedAfter.Requests-used.Requests, int64(after.started-after.open-before.started+before.open); counted != seen && run.Failed == 0 {
		// Answers that are on their way at either count make a small difference; more is a miscount.
		if diff := counted - seen; diff < -64 || diff > 64 {
			return one, fmt.Errorf("the clients count %d requests and the server %d", counted, seen)
		}
	}
	requesters.end(s.profile != "")
	responders.end(s.profile != "")
	total := warm.Calls + run.Calls + 1
	one.serverCPU = srv.end(false) / time.Duration(total)
	ended = true
	return one, nil
}

func (s *settings) startSide(ctx context.Context, c cell, row, role, url string) (*process, error) {
	text, err := json.Marshal(spec{
		Role: role, Row: row, URL: url, Requesters: c.requesters, Responders: c.responders,
		Concurrency: c.concurrency, Handler: c.handler, Profile: s.profile,
	})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, self, "side", string(text))
	if err != nil {
		return nil, err
	}
	var ready answer
	if err := p.ask(nil, &ready); err != nil {
		p.end(false)
		return nil, err
	}
	return p, nil
}

func createQueues(ctx context.Context, url string, n int) error {
	client := newClient(url, &meter{})
	names := []string{requestQueue}
	for i := range n {
		names = append(names, replyQueue(i))
	}
	for _, name := range names {
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)}); err != nil {
			return err
		}
	}
	return nil
}

func column[T cmp.Ordered](runs []sample, of func(*sample) T) (median, least, most T) {
	all := make([]T, len(runs))
	for i := range runs {
		all[i] = of(&runs[i])
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n", r.cell)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\tcalls/s\tp50\tp99\tslowest\trequests/call\tunits/call\tCPU/call\tserver CPU/call\tallocs/call\tfirst call\tfailed")
	for _, row := range r.rows {
		runs := r.runs[row]
		cells := []string{
			row,
			spreadOf(runs, func(s *sample) float64 { return s.throughput }, "%.0f"),
			times(runs, func(s *sample) time.Duration { return s.p50 }),
			times(runs, func(s *sample) time.Duration { return s.p99 }),
			times(runs, func(s *sample) time.Duration { return s.most }),
			spreadOf(runs, func(s *sample) float64 { return s.requests }, "%.3f"),
			spreadOf(runs, func(s *sample) float64 { return s.units }, "%.3f"),
			times(runs, func(s *sample) time.Duration { return s.cpu }),
			times(runs, func(s *sample) time.Duration { return s.serverCPU }),
			spreadOf(runs, func(s *sample) float64 { return s.allocs }, "%.0f"),
			times(runs, func(s *sample) time.Duration { return s.first }),
		}
		failed := 0
		for i := range runs {
			failed += runs[i].failed
		}
		fmt.Fprintf(w, "%s\t%d\n", strings.Join(cells, "\t"), failed)
	}
	_ = w.Flush()
	if note := r.cell.loss(); note != "" {
		fmt.Fprintln(out, "  "+note)
	}
	if len(r.runs["raw"]) == 0 {
		return
	}
	for _, row := range r.rows {
		if row != "raw" {
			fmt.Fprintf(out, "  %s against raw: throughput %.2f, p50 %.2f, p99 %.2f\n", row,
				r.against(row, func(s *sample) float64 { return s.throughput }),
				r.against(row, func(s *sample) float64 { return float64(s.p50) }),
				r.against(row, func(s *sample) float64 { return float64(s.p99) }))
		}
	}
}

// loss says why a cell cannot have the requests per call of one requester and one responder at load.
func (c cell) loss() string {
	const full = 10
	switch each := c.concurrency / c.requesters; {
	case each == 0:
		return fmt.Sprintf("%d of the %d requesters make no calls: there are no more calls than that.", c.requesters-c.concurrency, c.requesters)
	case each < full*c.responders:
		return fmt.Sprintf("A batch goes from one process to one queue. %d calls of each requester are pending at once, and their replies come "+
			"from %d responders: %.1f at a time from each, where ten fill a batch.", each, c.responders, float64(each)/float64(c.responders))
	case c.server == "aws":
		return "Receives find 1 to 10 of what is there, so that receives and deletes are not full however many calls there are."
	default:
		return ""
	}
}

func spreadOf(runs []sample, of func(*sample) float64, format string) string {
	median, least, most := column(runs, of)
	return fmt.Sprintf(format+" ["+format+" "+format+"]", median, least, most)
}

func times(runs []sample, of func(*sample) time.Duration) string {
	median, least, most := column(runs, of)
	return fmt.Sprintf("%s [%s %s]", short(median), short(least), short(most))
}

// short rounds to three digits.
func short(d time.Duration) string {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
}

// against is the median of a row's ratio to raw within a round.
func (r *result) against(row string, of func(*sample) float64) float64 {
	var all []float64
	for i := range r.runs[row] {
		all = append(all, of(&r.runs[row][i])/of(&r.runs["raw"][i]))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// summary is the last line: what the plain 1×1 cells without a handler's time say.
func summary(results []result) string {
	var requests, packed, throughput, p50c1, p50c256, p99c256 = "-", "-", "-", "-", "-", "-"
	two := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	for i := range results {
		r := &results[i]
		c := r.cell
		if c.server != "plain" || c.requesters != 1 || c.responders != 1 || c.handler != 0 {
			continue
		}
		hasRaw := len(r.runs["raw"]) > 0 && len(r.runs["ours"]) > 0
		p50 := func(s *sample) float64 { return float64(s.p50) }
		switch c.concurrency {
		case 1:
			if hasRaw {
				p50c1 = two(r.against("ours", p50))
			}
		case 256:
			if runs := r.runs["ours"]; len(runs) > 0 {
				m, _, _ := column(runs, func(s *sample) float64 { return s.requests })
				requests = two(m)
			}
			if runs := r.runs["packed"]; len(runs) > 0 {
				m, _, _ := column(runs, func(s *sample) float64 { return s.requests })
				packed = two(m)
			}
			if hasRaw {
				throughput = two(r.against("ours", func(s *sample) float64 { return s.throughput }))
				p50c256 = two(r.against("ours", p50))
				p99c256 = two(r.against("ours", func(s *sample) float64 { return float64(s.p99) }))
			}
		}
	}
	return fmt.Sprintf("BENCH-RPC requests_per_call=%s packed=%s vs_raw_throughput=%s vs_raw_p50_c1=%s vs_raw_p50_c256=%s vs_raw_p99_c256=%s",
		requests, packed, throughput, p50c1, p50c256, p99c256)
}
