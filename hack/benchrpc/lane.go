package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idleness before the first call, at least: no call, and nothing left to delete.
const idleness = time.Second

// lane is one row of a cell: its processes, which live for all rounds.
type lane struct {
	row                            string
	server, responders, requesters *process
	profiled                       bool

	idleSince time.Time
	settled   chan struct{} // closed when what the latest turn left is deleted, and its sample taken
	samples   []sample
	err       error // read when settled is closed
}

// openLane starts a row's processes and makes calls for a while, which are not counted. The lane is to be closed,
// whatever the error.
func openLane(ctx context.Context, s *settings, c cell, row string) (l *lane, err error) {
	l = &lane{row: row, profiled: s.profile != ""}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", row, err)
		}
	}()
	queues := c.requesters
	if row == "naive" {
		queues = max(queues, c.concurrency)
	}
	var at cost
	server := serverSpec{Kind: c.server, Queues: queues}
	if s.profile != "" {
		server.Profile = profileName(s.profile, row, "server", c.concurrency)
	}
	if l.server, err = start(ctx, "server", server, &at); err != nil {
		return l, err
	}
	of := spec{
		Row: row, URL: at.URL, Requesters: c.requesters, Responders: c.responders,
		Concurrency: c.concurrency, Handler: c.handler, Profile: s.profile,
	}
	of.Role = "responders"
	if l.responders, err = start(ctx, "side", of, &answer{}); err != nil {
		return l, err
	}
	of.Role = "requesters"
	if l.requesters, err = start(ctx, "side", of, &answer{}); err != nil {
		return l, err
	}
	var warm answer
	if err = l.requesters.ask(command{Op: "run", Duration: s.warmUp}, &warm); err != nil {
		return l, err
	}
	if warm.Calls == 0 && s.warmUp > 0 {
		return l, fmt.Errorf("no call succeeded, %d failed", warm.Failed)
	}
	if _, err = l.drained(ctx); err != nil {
		return l, err
	}
	l.idleSince = time.Now()
	return l, nil
}

// close ends the processes. cleanly: they write their profiles.
func (l *lane) close(cleanly bool) {
	for _, p := range []*process{l.requesters, l.responders, l.server} {
		if p != nil {
			p.end(cleanly && l.profiled)
		}
	}
}

// settle waits for the end of the latest turn's deletes.
func (l *lane) settle() error {
	if l.settled != nil {
		<-l.settled
	}
	return l.err
}

// turn makes one run. It returns when the last call has ended. The deletes, which wait for company for up to a second,
// are waited for beside the other rows' turns: they are a batch or two.
func (l *lane) turn(ctx context.Context, d time.Duration) error {
	if err := l.settle(); err != nil {
		return err
	}
	select {
	case <-time.After(time.Until(l.idleSince.Add(idleness))):
	case <-ctx.Done():
		return ctx.Err()
	}
	var before cost
	if err := l.server.ask(command{}, &before); err != nil {
		return err
	}
	used, err := l.usage()
	if err != nil {
		return err
	}
	var first, run answer
	if err := l.requesters.ask(command{Op: "call"}, &first); err != nil {
		return fmt.Errorf("first call: %w", err)
	}
	if err := l.requesters.ask(command{Op: "run", Duration: d}, &run); err != nil {
		return err
	}
	if run.Calls == 0 {
		return fmt.Errorf("no call succeeded, %d failed", run.Failed)
	}
	l.settled = make(chan struct{})
	go func() {
		defer close(l.settled)
		after, err := l.drained(ctx)
		if err == nil {
			l.idleSince = time.Now()
			err = l.take(first, run, before, after, used)
		}
		l.err = err
	}()
	return nil
}

// usage is what both sides have used up.
func (l *lane) usage() (sum answer, err error) {
	for _, p := range []*process{l.requesters, l.responders} {
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

// take makes a sample of a turn. The first call counts among the others, as what it costs does.
func (l *lane) take(first, run answer, before, after cost, used answer) error {
	usedAfter, err := l.usage()
	if err != nil {
		return err
	}
	calls := float64(run.Calls + 1)
	l.samples = append(l.samples, sample{
		Throughput: float64(run.Calls) / run.Elapsed.Seconds(), P50: run.P50, P99: run.P99, Most: run.Max, First: first.P50, Failed: run.Failed,
		Requests: float64(after.Started-before.Started) / calls,
		// Polls that are open are billed as one unit each when they end empty.
		Units:     float64(usedAfter.Units-used.Units+int64(after.Open-before.Open)) / calls,
		CPU:       time.Duration(float64(usedAfter.CPU-used.CPU) / calls),
		ServerCPU: time.Duration(float64(after.CPU-before.CPU) / calls),
		Allocs:    float64(usedAfter.Mallocs-used.Mallocs) / calls,
	})
	// Answers that are on their way at either count make a small difference; more is a miscount.
	const onTheirWay = 64
	counted, seen := usedAfter.Requests-used.Requests, int64(after.Started-after.Open-before.Started+before.Open)
	if diff := counted - seen; run.Failed == 0 && (diff < -onTheirWay || diff > onTheirWay) {
		return fmt.Errorf("the clients count %d requests and the server %d", counted, seen)
	}
	return nil
}

const (
	// drainLook is how often it is asked whether messages are left. Seldom: others are measured meanwhile.
	drainLook = 200 * time.Millisecond
	// drainLimit is how long every message must be deleted in.
	drainLimit = time.Minute
)

// drained waits until every message is deleted, and returns what the server has been asked for by then.
func (l *lane) drained(ctx context.Context) (cost, error) {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	for {
		var c cost
		if err := l.server.ask(command{}, &c); err != nil || c.Messages == 0 {
			return c, err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return c, errors.New("messages are left after a minute")
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}
