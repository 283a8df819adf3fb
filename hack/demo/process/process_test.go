package process

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const roleVariable = "PROCESS_TEST_ROLE"

// TestMain lets the test binary play the programs that the tests start.
func TestMain(m *testing.M) {
	ReapIfAsked()
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "polite": // Ends with status 3 when asked to.
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("started")
		<-c
		os.Exit(3)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("started")
		_, _ = io.Copy(io.Discard, blocked()) // A bare select{} would be reported as a deadlock.
	case "family": // Starts a child in its own group, and ends.
		child := exec.Command(os.Args[0])
		child.Env = []string{roleVariable + "=stubborn"}
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Println("started", child.Process.Pid)
	case "parent": // Starts a child and a reaper of the folder, says the child's ID, and hangs.
		folder := os.Args[1]
		if _, err := StartReaper(folder); err != nil {
			panic(err)
		}
		p, err := Start(Spec{
			Name: "child", Path: os.Args[0], Env: []string{roleVariable + "=stubborn"},
			Log: filepath.Join(folder, "child.log"),
		})
		if err != nil {
			panic(err)
		}
		fmt.Println(p.PID())
		select {}
	}
}

// blocked never has anything to read.
func blocked() io.Reader {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	neverClosed = w
	return r
}

var neverClosed *os.File

func start(t *testing.T, role string) *Process {
	t.Helper()
	p, err := Start(Spec{
		Name: role, Path: os.Args[0], Env: []string{roleVariable + "=" + role}, Log: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(0) })
	until(t, func() bool { return strings.Contains(Tail(p.Log(), 1), "started") })
	return p
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("did not happen within 20 s")
		}
	}
}

func TestStopAsksFirst(t *testing.T) {
	p := start(t, "polite")
	p.Stop(20 * time.Second)
	if e := p.Exit(); e.Code != 3 || e.Signal != 0 {
		t.Errorf("ended by %v, want exit status 3", e)
	}
}

func TestStopReachesAStoppedProcess(t *testing.T) {
	p := start(t, "polite")
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Stop(20 * time.Second)
	if e := p.Exit(); e.Code != 3 {
		t.Errorf("ended by %v, want exit status 3", e)
	}
}

func TestStopKillsAfterTheGrace(t *testing.T) {
	p := start(t, "stubborn")
	p.Stop(20 * time.Millisecond)
	if e := p.Exit(); e.Signal != syscall.SIGKILL || e.Code != 137 {
		t.Errorf("ended by %v (code %d), want SIGKILL and code 137", e, e.Code)
	}
}

func TestChildrenEndWithTheirProcess(t *testing.T) {
	p := start(t, "family")
	var child int
	if _, err := fmt.Sscanf(Tail(p.Log(), 1), "started %d", &child); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	until(t, func() bool { return gone(child) })
}

func TestEveryProcessLeadsItsOwnGroup(t *testing.T) {
	p := start(t, "polite")
	if g, err := syscall.Getpgid(p.PID()); err != nil || g != p.PID() {
		t.Errorf("group %d (%v), want %d", g, err, p.PID())
	}
}

// kill -9 of the demo leaves neither a process nor the folder behind.
func TestNothingOutlivesAKilledParent(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0], folder)
	parent.Env = append(os.Environ(), roleVariable+"=parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(bufio.NewReader(out), &child); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child does not run: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = parent.Wait()
	until(t, func() bool { return gone(child) })
	until(t, func() bool { _, err := os.Stat(folder); return os.IsNotExist(err) })
}

// gone also counts a process that nobody waits for any more: where the first process of a container waits
// for nobody, a killed orphan stays as a zombie.
func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// The reaper alone, without the kernel's part, kills what it was told of and not what has ended.
func TestReapKillsTheGroupsThatAreLeft(t *testing.T) {
	left, ended := start(t, "stubborn"), start(t, "stubborn")
	folder := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	told := fmt.Sprintf("+%d\n+%d\n-%d\nnonsense\n\n", left.PID(), ended.PID(), ended.PID())
	if err := reap(strings.NewReader(told), folder); err != nil {
		t.Fatal(err)
	}
	if e := left.Exit(); e.Signal != syscall.SIGKILL {
		t.Errorf("the one left ended by %v, want SIGKILL", e)
	}
	if !ended.Running() {
		t.Error("killed a group that was reported as ended")
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there (%v)", err)
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(file, 2); got != "two\nthree" {
		t.Errorf("got %q", got)
	}
	if got := Tail(file, 9); got != "one\ntwo\nthree" {
		t.Errorf("got %q", got)
	}
}
