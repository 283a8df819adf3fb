package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// process is a child: the server, or one side of a run, which answers one line of JSON for each that it is sent.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(ctx context.Context, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, path, args...)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 1<<16)
	return p, p.cmd.Start()
}

// end ends the child and returns the CPU time that it has had. What it was measured for is over, so it is
// killed, unless it still has to write its profile.
func (p *process) end(profiled bool) time.Duration {
	if profiled {
		_ = p.in.Close()
	} else {
		_ = p.cmd.Process.Kill()
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.SystemTime() + p.cmd.ProcessState.UserTime()
}

// ask sends a command and waits for its answer.
func (p *process) ask(command, answer any) error {
	if command != nil {
		if err := json.NewEncoder(p.in).Encode(command); err != nil {
			return err
		}
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the child has ended: %w", err)
	}
	var failed struct{ Error string }
	if err := json.Unmarshal([]byte(line), &failed); err != nil {
		return fmt.Errorf("%w: %s", err, line)
	}
	if failed.Error != "" {
		return errors.New(failed.Error)
	}
	return json.Unmarshal([]byte(line), answer)
}

// server is the SQS server in its process.
type server struct {
	*process
	url string
}

func (s *settings) startServer(ctx context.Context, kind string) (*server, error) {
	args := []string{"--listen", "127.0.0.1:0"}
	if kind == "aws" {
		args = append(args, "--faults", "aws-like")
	}
	p, err := start(ctx, filepath.Join(s.bin, "sqstest"), args...)
	if err != nil {
		return nil, err
	}
	line, err := p.out.ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 4 {
		p.end(false)
		return nil, fmt.Errorf("the server said %q: %w", line, err)
	}
	return &server{process: p, url: fields[3]}, nil
}

// cost is what a server has been asked for.
type cost struct {
	started  int // requests, those under way included
	open     int // long polls under way
	messages int // that are not deleted
}

func (s *server) cost(ctx context.Context) (cost, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/_sqstest/state", nil)
	if err != nil {
		return cost{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return cost{}, err
	}
	defer resp.Body.Close()
	var state sqstest.State
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		return cost{}, err
	}
	var c cost
	for _, n := range state.Requests {
		c.started += n
	}
	for i := range state.Queues {
		q := &state.Queues[i]
		c.open += q.Pollers
		c.messages += q.Visible + q.InFlight + q.Delayed
	}
	c.started += c.open
	return c, nil
}

// drained waits until every message is deleted, and returns what that took. Deletes wait up to a second for company.
func (s *server) drained(ctx context.Context) (cost, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		c, err := s.cost(ctx)
		if err != nil || c.messages == 0 {
			return c, err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return c, fmt.Errorf("%d messages are left after a minute", c.messages)
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}
