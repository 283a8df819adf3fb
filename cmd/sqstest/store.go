package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// store keeps a server's queues and messages in a file. Without a file it does nothing.
type store struct {
	server  *sqstest.Server
	file    string
	written bool   // whether this process has written the file, or read it
	saved   uint64 // the revision that is in the file
}

// load reads the file. That there is none yet is no error.
func (s *store) load() error {
	if s.file == "" {
		return nil
	}
	f, err := os.Open(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s.save() // so that a file which cannot be written is noticed now
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.server.Load(f); err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	s.written, s.saved = true, s.server.Revision()
	return nil
}

// keep saves every so often until ctx ends. A save that fails is reported, and tried again the next time.
func (s *store) keep(ctx context.Context, every time.Duration, stderr io.Writer) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.save(); err != nil {
				fmt.Fprintln(stderr, "sqstest: cannot save:", err)
			}
		}
	}
}

// save replaces the file, if anything changed since the last time.
func (s *store) save() error {
	revision := s.server.Revision() // before the picture, which may show more
	if s.file == "" || s.written && revision == s.saved {
		return nil
	}
	if err := replace(s.file, s.server.Save); err != nil {
		return err
	}
	s.written, s.saved = true, revision
	return nil
}

// replace writes a file beside the one of that name and puts it in its place, so that whoever reads finds the old or the
// new one whole, even after the machine went down.
func replace(name string, write func(io.Writer) error) (err error) {
	next := name + ".next" // always the same, so that killed processes leave no more than one behind
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	// The rename is in the folder, which has to reach the disk too.
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
