package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"time"
)

// spec says to a child which side of which run it is.
type spec struct {
	Role        string // "requesters" or "responders"
	Row         string
	URL         string // of the server
	Requesters  int
	Responders  int
	Concurrency int
	Handler     time.Duration
	Profile     string // folder for profiles; empty: none
}

const (
	requestQueue = "rq_bench_ns_login"
	bodyBytes    = 1 << 10
	// liveHeap is what each side has besides, as a service does. With nothing else alive the garbage
	// collector would run a hundred times a second, and its cost would be what is measured.
	liveHeap = 64 << 20
)

// replyQueue is the name of requester i's queue.
func replyQueue(i int) string { return fmt.Sprintf("rq_bench_r_%04d", i) }

// command is what the parent asks.
type command struct {
	// Op is "call" (one call, after being idle), "run" (calls for Duration) or "usage".
	Op       string
	Duration time.Duration
}

// answer is what the child says.
type answer struct {
	Error string `json:",omitempty"`

	Calls, Failed int
	Elapsed       time.Duration
	P50, P99, Max time.Duration

	CPU      time.Duration
	Mallocs  uint64
	Requests int64 // ended, counted in the client
	Units    int64 // of 64 KB that they are billed as
}

// caller makes calls in one of the ways that are compared.
type caller interface {
	// run makes calls for d, Concurrency at once, and returns how long each took, and how many failed. It
	// returns when all have ended.
	run(ctx context.Context, d time.Duration) (took []time.Duration, failed int)
	// one makes one call.
	one(ctx context.Context) error
}

// side is a child's main function.
func side(ctx context.Context, text string, in io.Reader, out io.Writer) error {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	if s.Profile != "" {
		stop, err := profile(profileName(s.Profile, s.Row, s.Role, s.Concurrency))
		if err != nil {
			return err
		}
		defer stop()
	}
	ballast := make([]byte, liveHeap)
	defer runtime.KeepAlive(ballast)
	m := &meter{}
	client := newClient(s.URL, m)
	say := json.NewEncoder(out)
	var c caller
	var err error
	if s.Role == "requesters" {
		c, err = newCaller(ctx, s, client)
	} else {
		err = serve(ctx, s, client)
	}
	if err != nil {
		return say.Encode(answer{Error: err.Error()})
	}
	if err := say.Encode(answer{}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			return err
		}
		if err := say.Encode(do(ctx, cmd, c, m)); err != nil {
			return err
		}
	}
	return nil
}

func do(ctx context.Context, cmd command, c caller, m *meter) answer {
	var a answer
	switch cmd.Op {
	case "call":
		started := time.Now()
		if err := c.one(ctx); err != nil {
			return answer{Error: err.Error()}
		}
		a.P50 = time.Since(started)
	case "run":
		started := time.Now()
		took, failed := c.run(ctx, cmd.Duration)
		a.Elapsed, a.Calls, a.Failed = time.Since(started), len(took), failed
		if len(took) > 0 {
			slices.Sort(took)
			a.P50, a.P99, a.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
		}
	}
	a.CPU = cpuTime()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	a.Mallocs = mem.Mallocs
	a.Requests, a.Units = m.requests.Load(), m.units.Load()
	return a
}

// spread divides n calls among k callers; the first ones get one more.
func spread(n, k int) []int {
	out := make([]int, k)
	for i := range out {
		out[i] = n / k
		if i < n%k {
			out[i]++
		}
	}
	return out
}

// loops runs f in n goroutines for each entry of share, again and again for d, and collects how long each took.
func loops(d time.Duration, share []int, f func(who, n int) error) (took []time.Duration, failed int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for who, n := range share {
		for i := range n {
			wg.Go(func() {
				var mine []time.Duration
				bad := 0
				for time.Now().Before(end) {
					started := time.Now()
					if err := f(who, i); err != nil {
						if bad++; bad == 1 {
							fmt.Fprintln(os.Stderr, "benchrpc: a call failed:", err)
						}
						continue
					}
					mine = append(mine, time.Since(started))
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, mine...)
				failed += bad
			})
		}
	}
	wg.Wait()
	return took, failed
}

func profileName(folder, row, role string, concurrency int) string {
	return filepath.Join(folder, fmt.Sprintf("%s-%s-%d-%d", row, role, concurrency, time.Now().UnixNano()))
}

// profile begins profiles of CPU and allocations, which stop writes to files whose names begin with name.
func profile(name string) (stop func(), err error) {
	cpu, err := os.Create(name + ".cpu.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = cpu.Close()
		allocs, err := os.Create(name + ".allocs.pprof")
		if err == nil {
			_ = pprof.Lookup("allocs").WriteTo(allocs, 0)
			_ = allocs.Close()
		}
	}, nil
}
