package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// sample is what one run showed.
type sample struct {
	Throughput float64 // calls per second
	P50, P99   time.Duration
	Most       time.Duration // the slowest call
	Requests   float64       // per call, to the drained end
	Units      float64       // of 64 KB, per call
	CPU        time.Duration
	ServerCPU  time.Duration
	Allocs     float64
	First      time.Duration // call after idleness
	Failed     int
}

// result is a cell's samples, by row and round.
type result struct {
	cell cell
	rows []string
	runs map[string][]sample
}

// measure lets the rows of a cell take turns. All their processes live side by side, and those whose turn it is not
// have nothing to do.
func (s *settings) measure(ctx context.Context, c cell) (result, error) {
	lanes := make([]*lane, len(s.rows))
	errs := make([]error, len(s.rows))
	var wg sync.WaitGroup
	for i, row := range s.rows {
		wg.Go(func() { lanes[i], errs[i] = openLane(ctx, s, c, row) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil {
		err = s.rotate(ctx, lanes, s.length(c))
	}
	r := result{cell: c, rows: s.rows, runs: map[string][]sample{}}
	for _, l := range lanes {
		if settled := l.settle(); err == nil && settled != nil {
			err = fmt.Errorf("%s: %w", l.row, settled)
		}
		r.runs[l.row] = l.samples
		l.close(err == nil)
	}
	return r, err
}

// rotate gives each lane as many turns as there are rounds.
func (s *settings) rotate(ctx context.Context, lanes []*lane, d time.Duration) error {
	for round := range s.rounds {
		for i := range lanes {
			l := lanes[(round+i)%len(lanes)] // none always comes after the same
			if err := l.turn(ctx, d); err != nil {
				return fmt.Errorf("%s: %w", l.row, err)
			}
		}
	}
	return nil
}
