package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// process is a child: a server, or one side of a row. It says one line of JSON when it is ready, and one for each that
// it is sent.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts this program as a child of that role, and takes what it says when it is ready.
func start(ctx context.Context, role string, spec, ready any) (*process, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, role, string(text))}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.ask(nil, ready); err != nil {
		p.end(false)
		return nil, err
	}
	return p, nil
}

// end ends the child. What it was measured for is over, so it is killed, unless it still has to write its profile.
func (p *process) end(profiled bool) {
	if profiled {
		_ = p.in.Close()
	} else {
		_ = p.cmd.Process.Kill()
	}
	_ = p.cmd.Wait()
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
