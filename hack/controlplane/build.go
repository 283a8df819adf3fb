package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// build makes one program from src and installs it in dir.
func build(ctx context.Context, src, dir string, want pins, p program, nth, of int) error {
	out, err := filepath.Abs(filepath.Join(dir, "."+p.name+".partial"))
	if err != nil {
		return err
	}
	// A run that was killed may have left a part, which go build does not always overwrite.
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	done := progress(fmt.Sprintf("  [%d/%d] build %s %s", nth, of, p.name, want.version(p)))
	cmd := goCommand(ctx, src, "build", "-mod=readonly", "-trimpath", "-ldflags", ldflags(want), "-o", out, p.pkg)
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0") // none of them needs a C compiler
	text, err := cmd.CombinedOutput()
	if err != nil {
		done("failed")
		_ = os.Remove(out)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("build %s: %w\n%s", p.pkg, err, text)
	}
	if err := install(out, dir, want, p); err != nil {
		done("failed")
		return fmt.Errorf("install %s: %w", p.name, err)
	}
	done("done")
	return nil
}

// ldflags strips the symbols and tells Kubernetes its version, without which it calls itself v0.0.0
// and clients that compare versions refuse it. etcd has its version in its source.
func ldflags(want pins) string {
	const at = "k8s.io/component-base/version"
	major, minor, _ := strings.Cut(want.minor(), ".")
	var b strings.Builder
	b.WriteString("-s -w")
	for _, kv := range [][2]string{
		{"gitVersion", want.kubernetes}, {"gitMajor", major}, {"gitMinor", minor}, {"gitTreeState", "clean"},
	} {
		fmt.Fprintf(&b, " -X %s.%s=%s", at, kv[0], kv[1])
	}
	return b.String()
}

// goCommand is `go args...` in src, ended by an interrupt when ctx ends.
func goCommand(ctx context.Context, src string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// progress shows what is being done and for how long: every second on a terminal, every half minute
// elsewhere. The function it returns ends the display with a word on how it went.
func progress(what string) func(how string) {
	start := time.Now()
	tty := false
	if fi, err := os.Stdout.Stat(); err == nil {
		tty = fi.Mode()&os.ModeCharDevice != 0
	}
	every, format := 30*time.Second, "%s … %s\n"
	if tty {
		every, format = time.Second, "\r%s … %s "
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				fmt.Printf(format, what, time.Since(start).Round(time.Second))
			}
		}
	}()
	return func(how string) {
		close(stop)
		<-stopped
		if tty {
			fmt.Print("\r")
		}
		fmt.Printf("%s: %s in %s\n", what, how, time.Since(start).Round(time.Second))
	}
}

// firstLine is what a failed command said first, short enough for one line.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(bytes.TrimSpace(text)), "\n")
	if len(line) > 160 {
		line = line[:160] + "…"
	}
	return line
}
