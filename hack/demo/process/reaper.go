package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

// reaperVariable in the environment makes a program that calls ReapIfAsked a reaper of that folder.
const reaperVariable = "REPLYQUEUE_DEMO_REAPER"

// The reaper reads, from a pipe, which process groups run. The kernel closes the pipe when the demo ends,
// however it ends; then the reaper kills the groups that are left and removes the folder.
var reaper struct {
	mu   sync.Mutex
	pipe io.WriteCloser
	cmd  *exec.Cmd
}

// StartReaper starts a copy of this program as the reaper: of every process started from now on, and of
// folder. main must begin with ReapIfAsked. The function returned ends the reaper, and with it everything
// that still runs, and blocks until the folder is gone.
func StartReaper(folder string) (end func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), reaperVariable+"="+folder)
	cmd.Stderr = os.Stderr
	// Its own group, so that Ctrl-C does not reach it; no death with the parent, since that is when it works.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	if reaper.cmd != nil {
		_ = pipe.Close()
		return nil, errors.New("reaper: started already")
	}
	reaper.pipe, reaper.cmd = pipe, cmd
	return endReaper, nil
}

func endReaper() error {
	reaper.mu.Lock()
	pipe, cmd := reaper.pipe, reaper.cmd
	reaper.pipe, reaper.cmd = nil, nil
	reaper.mu.Unlock()
	if cmd == nil {
		return nil
	}
	_ = pipe.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("reaper: %w", err)
	}
	return nil
}

func tellReaper(what byte, pid int) {
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	if reaper.pipe != nil {
		// A reaper that is gone cannot be told; the processes still have their parent.
		_, _ = fmt.Fprintf(reaper.pipe, "%c%d\n", what, pid)
	}
}

// ReapIfAsked turns this process into a reaper when StartReaper started it, and then does not return.
func ReapIfAsked() {
	folder := os.Getenv(reaperVariable)
	if folder == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := reap(os.Stdin, folder); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func reap(from io.Reader, folder string) error {
	running := map[int]bool{}
	for lines := bufio.NewScanner(from); lines.Scan(); {
		line := lines.Text()
		if pid, err := strconv.Atoi(line[min(1, len(line)):]); err == nil && pid > 1 {
			running[pid] = line[0] == '+'
		}
	}
	for pid, is := range running {
		if is {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	}
	return os.RemoveAll(folder)
}
