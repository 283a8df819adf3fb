package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// offer says where to look for programs to download, and for how long.
type offer struct {
	index                         string // a URL; empty: setup-envtest's own
	indexTimeout, downloadTimeout time.Duration
}

// download installs in dir what setup-envtest offers for the wanted minor release. The patch may
// differ from the pinned one: within a minor release the programs work together.
func download(ctx context.Context, src, dir string, want pins, o offer) error {
	store, err := filepath.Abs(filepath.Join(dir, ".download"))
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(store) }()
	if err := errors.Join(os.RemoveAll(store), os.MkdirAll(store, 0o755)); err != nil {
		return err
	}

	// Built first, so that the limits below count only the network's time.
	tools := filepath.Join(src, "..", "..", "tools")
	tool := filepath.Join(store, "setup-envtest")
	text, err := goCommand(ctx, tools, "build", "-mod=readonly", "-o", tool, "sigs.k8s.io/controller-runtime/tools/setup-envtest").CombinedOutput()
	if err != nil {
		return fmt.Errorf("setup-envtest does not build: %s", firstLine(text))
	}
	envtest := func(limit time.Duration, args ...string) ([]byte, error) {
		limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s", limit))
		defer cancel()
		cmd := goCommand(limited, tools)
		cmd.Path, cmd.Args = tool, append([]string{tool, "--bin-dir", store}, args...)
		if o.index != "" {
			cmd.Args = append(cmd.Args, "--index", o.index)
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		switch {
		case limited.Err() != nil:
			return nil, context.Cause(limited)
		case err != nil:
			return nil, errors.New(firstLine(stderr.Bytes()))
		}
		return stdout.Bytes(), nil
	}

	release := want.minor() + ".x!"
	offered, err := envtest(o.indexTimeout, "list", release)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errors.New("the index of setup-envtest cannot be reached")
	}
	if !bytes.Contains(offered, []byte("available")) {
		return fmt.Errorf("no release %s offered", want.minor())
	}
	done := progress("  download etcd, kube-apiserver, kubectl " + want.minor())
	out, err := envtest(o.downloadTimeout, "use", release, "--print", "path")
	if err != nil {
		done("failed")
		return err
	}
	done("done")
	return installAll(strings.TrimSpace(string(out)), dir, want)
}

// installAll moves the programs that from holds into dir.
func installAll(from, dir string, want pins) error {
	if from == "" {
		return errors.New("setup-envtest names no folder")
	}
	for _, p := range programs {
		file := filepath.Join(from, p.name)
		if _, err := os.Stat(file); !p.offered || err != nil {
			continue
		}
		// The store is made read-only; moving a file needs a writable folder.
		if err := os.Chmod(from, 0o755); err != nil {
			return err
		}
		if err := install(file, dir, want, p); err != nil {
			return err
		}
	}
	return nil
}
