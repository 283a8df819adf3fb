// Command demo shows the whole of Replyqueue at work on one machine: a real control plane, the real
// operator under its own permissions, an SQS server in memory, and real programs that call each other. It
// needs Go and nothing else: no root, no containers, no AWS.
//
//	go run ./hack/demo         tells the story, checks every promise in it, and ends by itself
//	go run ./hack/demo --up    leaves everything running, with a KUBECONFIG to play with, until Ctrl-C
//
// Everything it starts and writes is gone afterwards, also when it is interrupted or killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/replyqueue/replyqueue/hack/demo/process"
)

const (
	exitBroken      = 1
	exitInterrupted = 130
)

func main() {
	process.ReapIfAsked()
	up := flag.Bool("up", false, "leave everything running until Ctrl-C")
	programs := flag.String("controlplane", "", "folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl; unset: hack/controlplane gets them into bin/k8s")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	// What Kubernetes' libraries would say to the terminal, the story says better.
	ctrllog.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())

	ctx, stop := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		stop(interruption{s.String()})
	}()
	go watchStarter(ctx, stop)

	out := &terminal{out: os.Stdout, began: time.Now()}
	err := run(ctx, out, *up, *programs)
	var by interruption
	switch {
	case errors.As(context.Cause(ctx), &by):
		out.line("")
		out.line("Ended by %s; everything that was started has been stopped and removed.", by.what)
		if !*up {
			os.Exit(exitInterrupted)
		}
	case err != nil:
		out.failure(err)
		os.Exit(exitBroken)
	}
}

// interruption is the end by somebody's wish.
type interruption struct{ what string }

func (i interruption) Error() string { return "ended by " + i.what }

// watchStarter ends the demo when `go run` is gone: a SIGTERM for make or go run does not reach their
// children. A program that was built by itself may outlive its shell.
func watchStarter(ctx context.Context, stop context.CancelCauseFunc) {
	self, err := os.Executable()
	if err != nil || !strings.Contains(self, "go-build") {
		return
	}
	starter := os.Getppid()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if os.Getppid() != starter {
				stop(interruption{"the end of go run"})
				return
			}
		}
	}
}

// run does the demo in a folder of its own and leaves nothing running.
func run(ctx context.Context, out *terminal, up bool, programs string) (err error) {
	root, err := repository()
	if err != nil {
		return err
	}
	dir, err := workFolder(root)
	if err != nil {
		return err
	}
	end, err := process.StartReaper(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !errors.As(context.Cause(ctx), new(interruption)) {
			keepLogs(out, dir, filepath.Join(root, ".demo", "failed"))
		}
		err = errors.Join(err, end())
		_ = os.Remove(filepath.Join(root, ".demo")) // Unless something else is in it.
	}()
	s := &stage{root: root, dir: dir, out: out, restart: up}
	defer s.stop()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.fail = fail
	if err := s.build(ctx, programs); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return firstCause(ctx, err)
	}
	if up {
		return firstCause(ctx, stayUp(ctx, s))
	}
	return firstCause(ctx, tell(ctx, s))
}

// firstCause prefers what ended ctx over the errors that followed from it.
func firstCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// repository is the folder with our go.mod, this one or one above.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if text, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(text), "module github.com/replyqueue/replyqueue\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run this inside the repository")
		}
		dir = up
	}
}

// workFolder makes the folder of this run and removes what earlier runs left: logs of a failure, and folders of runs
// that were killed together with their reaper.
func workFolder(root string) (string, error) {
	base := filepath.Join(root, ".demo")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	_ = os.RemoveAll(filepath.Join(base, "failed"))
	old, err := filepath.Glob(filepath.Join(base, "run-*"))
	if err != nil {
		return "", err
	}
	for _, o := range old {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(o), "run-%d", &pid); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(o)
		}
	}
	dir := filepath.Join(base, fmt.Sprintf("run-%d", os.Getpid()))
	return dir, os.MkdirAll(dir, 0o700)
}

// keepLogs copies the logs of a failed run to where the next failed run replaces them.
func keepLogs(out *terminal, from, to string) {
	if err := os.RemoveAll(to); err != nil {
		return
	}
	err := filepath.WalkDir(from, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".log" {
			return err
		}
		inside, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, inside)), 0o700); err != nil {
			return err
		}
		return os.Rename(file, filepath.Join(to, inside))
	})
	if err == nil {
		out.line("Logs of this run: %s", to)
	}
}
