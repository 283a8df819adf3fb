package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// terminal is where the story is told. It is safe for use by several goroutines.
type terminal struct {
	mu    sync.Mutex
	out   io.Writer
	began time.Time
	steps int
}

// step begins a part of the story. The time is that since the start.
func (t *terminal) step(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps++
	title := fmt.Sprintf("%d. %s", t.steps, fmt.Sprintf(format, args...))
	_, _ = fmt.Fprintf(t.out, "\n%-86s %6.1f s\n", title, time.Since(t.began).Seconds())
}

// say tells something under the step.
func (t *terminal) say(format string, args ...any) {
	t.block("   ", fmt.Sprintf(format, args...))
}

// kept tells that a promise was kept.
func (t *terminal) kept(format string, args ...any) {
	t.block("   ok  ", fmt.Sprintf(format, args...))
}

// show prints what a command printed.
func (t *terminal) show(command, output string) {
	t.block("   ", "$ "+command)
	t.block("   | ", strings.TrimRight(output, "\n"))
}

// number prints a name and a value, aligned.
func (t *terminal) number(name, format string, args ...any) {
	t.block("   ", fmt.Sprintf("%-34s %s", name, fmt.Sprintf(format, args...)))
}

func (t *terminal) block(margin, text string) {
	for i, l := range strings.Split(text, "\n") {
		if i > 0 && strings.HasSuffix(margin, "ok  ") {
			margin = strings.Repeat(" ", len(margin))
		}
		t.line("%s", strings.TrimRight(margin+l, " "))
	}
}

func (t *terminal) line(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.out, format+"\n", args...)
}

// broken is a promise that was not kept, with what shows it.
type broken struct {
	promise  string
	evidence []evidence
}

type evidence struct{ what, text string }

func (b *broken) Error() string { return "broken promise: " + b.promise }

// failure prints why the demo failed.
func (t *terminal) failure(err error) {
	t.line("")
	var b *broken
	if !errors.As(err, &b) {
		t.line("FAILED: %v", err)
		return
	}
	t.line("BROKEN PROMISE: %s", b.promise)
	for _, e := range b.evidence {
		t.line("")
		t.line("-- %s", e.what)
		t.line("%s", strings.TrimRight(e.text, "\n"))
	}
	t.line("")
	t.line("DEMO FAILED: %s", strings.SplitN(b.promise, "\n", 2)[0])
}
