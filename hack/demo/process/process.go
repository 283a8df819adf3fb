// Package process starts the programs of the demo and makes sure that none outlives it: each runs in a
// process group of its own, a reaper (see reaper.go) ends what is left when the demo itself is killed, and on Linux the kernel does so too.
package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec says what to start.
type Spec struct {
	// Name is what messages call the process.
	Name string
	// Path of the program, and its arguments without the program's name.
	Path string
	Args []string
	// Env is the whole environment; nil inherits this process's.
	Env []string
	// Dir is the working folder; empty: this process's.
	Dir string
	// Log is the file that standard output and error are appended to. Empty: they are this process's own.
	Log string
}

// Process is a started program.
type Process struct {
	spec  Spec
	cmd   *exec.Cmd
	began time.Time

	done  chan struct{}
	mu    sync.Mutex
	state *os.ProcessState
	ended time.Time
}

// Start starts a program in a process group of its own. What it starts in its group ends with it.
func Start(s Spec) (*Process, error) {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env, cmd.Dir = s.Env, s.Dir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if s.Log != "" {
		out, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("log of %s: %w", s.Name, err)
		}
		// The process writes to the file itself, so that nothing of ours stands between it and its output.
		defer func() { _ = out.Close() }()
		cmd.Stdout, cmd.Stderr = out, out
	}
	cmd.SysProcAttr = attributes()
	p := &Process{spec: s, cmd: cmd, began: time.Now(), done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	tellReaper('+', cmd.Process.Pid)
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	_ = p.cmd.Wait()                            // The state says everything the error would.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // As in a container, nothing outlives the first process.
	p.mu.Lock()
	p.state, p.ended = p.cmd.ProcessState, time.Now()
	p.mu.Unlock()
	tellReaper('-', p.PID())
	close(p.done)
}

// Name is the Spec's.
func (p *Process) Name() string { return p.spec.Name }

// Log is the file that holds the output.
func (p *Process) Log() string { return p.spec.Log }

// PID is the process's ID, and its group's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Began is when it was started.
func (p *Process) Began() time.Time { return p.began }

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Exit is how the process ended. Only valid once Done is closed.
type Exit struct {
	// Code is the exit status, or 128 and the signal's number, as shells and container runtimes give it.
	Code int
	// Signal that ended the process; 0: none.
	Signal syscall.Signal
	// At is when it was seen to have ended.
	At time.Time
}

// Exit waits for the end of the process and returns how it came.
func (p *Process) Exit() Exit {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	e := Exit{At: p.ended}
	if p.state == nil {
		e.Code = -1
		return e
	}
	e.Code = p.state.ExitCode()
	if w, ok := p.state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		e.Signal = w.Signal()
		e.Code = 128 + int(w.Signal())
	}
	return e
}

// String is the exit in words: "exit status 1" or "signal: killed".
func (e Exit) String() string {
	if e.Signal != 0 {
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Signal sends a signal to the process itself.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(s)
}

// Stop ends the process: SIGTERM, then, after grace, SIGKILL for its whole group. It blocks until the
// process has ended. A grace of 0 kills at once.
func (p *Process) Stop(grace time.Duration) {
	if grace > 0 && p.Running() {
		_ = p.Signal(syscall.SIGTERM)
		_ = p.Signal(syscall.SIGCONT) // A stopped process would not see the SIGTERM.
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
		}
	}
	if p.Running() {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// Tail returns the last n lines of a file, without the bytes before its last 64 KiB.
func Tail(file string, n int) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	const most = 64 << 10
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-most), io.SeekStart)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
