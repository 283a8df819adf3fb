// Command verify proves that generated files are up to date: it runs the generators and fails, naming
// the files, when one of them changed the tree. The regenerated files stay, ready to be committed.
//
//	go run ./hack/verify make generate manifests
//
// It compares the tree with itself, so it needs no git and does not mind uncommitted work.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: verify command [argument]...")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, command []string) error {
	before, err := snapshot()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w", command, err)
	}
	after, err := snapshot()
	if err != nil {
		return err
	}
	stale := differences(before, after)
	if len(stale) == 0 {
		fmt.Printf("VERIFY OK files=%d\n", len(after))
		return nil
	}
	fmt.Println("These files were not up to date; they are now, and need to be committed:")
	for _, line := range stale {
		fmt.Println("  " + line)
	}
	return errors.New("generated files are stale")
}

// outside are the folders at the root that are no part of the project's source (.gitignore).
var outside = []string{".git", "bin", ".cache", ".demo"}

// snapshot digests every file of the tree.
func snapshot() (map[string][sha256.Size]byte, error) {
	files := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(outside, path) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil // a worktree's .git is a file
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files[path] = sha256.Sum256(text)
		return nil
	})
	return files, err
}

// differences lists the files that changed from before to after, sorted.
func differences(before, after map[string][sha256.Size]byte) []string {
	var out []string
	for path, digest := range after {
		if old, ok := before[path]; !ok {
			out = append(out, path+" (was missing)")
		} else if old != digest {
			out = append(out, path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			out = append(out, path+" (no longer generated)")
		}
	}
	slices.Sort(out)
	return out
}
