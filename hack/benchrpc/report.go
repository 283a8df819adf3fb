package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

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
			spreadOf(runs, func(s *sample) float64 { return s.Throughput }, "%.0f"),
			times(runs, func(s *sample) time.Duration { return s.P50 }),
			times(runs, func(s *sample) time.Duration { return s.P99 }),
			times(runs, func(s *sample) time.Duration { return s.Most }),
			spreadOf(runs, func(s *sample) float64 { return s.Requests }, "%.3f"),
			spreadOf(runs, func(s *sample) float64 { return s.Units }, "%.3f"),
			times(runs, func(s *sample) time.Duration { return s.CPU }),
			times(runs, func(s *sample) time.Duration { return s.ServerCPU }),
			spreadOf(runs, func(s *sample) float64 { return s.Allocs }, "%.0f"),
			times(runs, func(s *sample) time.Duration { return s.First }),
		}
		failed := 0
		for i := range runs {
			failed += runs[i].Failed
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
				r.against(row, func(s *sample) float64 { return s.Throughput }),
				r.against(row, func(s *sample) float64 { return float64(s.P50) }),
				r.against(row, func(s *sample) float64 { return float64(s.P99) }))
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
		p50 := func(s *sample) float64 { return float64(s.P50) }
		switch c.concurrency {
		case 1:
			if hasRaw {
				p50c1 = two(r.against("ours", p50))
			}
		case 256:
			if runs := r.runs["ours"]; len(runs) > 0 {
				m, _, _ := column(runs, func(s *sample) float64 { return s.Requests })
				requests = two(m)
			}
			if runs := r.runs["packed"]; len(runs) > 0 {
				m, _, _ := column(runs, func(s *sample) float64 { return s.Requests })
				packed = two(m)
			}
			if hasRaw {
				throughput = two(r.against("ours", func(s *sample) float64 { return s.Throughput }))
				p50c256 = two(r.against("ours", p50))
				p99c256 = two(r.against("ours", func(s *sample) float64 { return float64(s.P99) }))
			}
		}
	}
	return fmt.Sprintf("BENCH-RPC requests_per_call=%s packed=%s vs_raw_throughput=%s vs_raw_p50_c1=%s vs_raw_p50_c256=%s vs_raw_p99_c256=%s",
		requests, packed, throughput, p50c1, p50c256, p99c256)
}
