package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// results keeps what was measured in a file, so that what was interrupted can be resumed.
type results struct {
	file    *os.File
	program string
	known   map[string]map[string][]sample // by how and what
}

// record is one line of the file.
type record struct {
	Program string // digest of the program that measured
	How     string
	Runs    map[string][]sample // by row
}

// how says what was measured, and in which way.
func (s *settings) how(c cell) string {
	return fmt.Sprintf("%s rows=%s rounds=%d run=%s warmup=%s", c, strings.Join(s.rows, ","), s.rounds, s.length(c), s.warmUp)
}

func openResults(s *settings) (*results, error) {
	r := &results{known: map[string]map[string][]sample{}}
	var err error
	if r.program, err = ownDigest(); err != nil {
		return nil, err
	}
	if s.resume {
		if err := r.read(s.results); err != nil {
			return nil, fmt.Errorf("read %s: %w", s.results, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.results), 0o755); err != nil {
		return nil, err
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if !s.resume {
		mode |= os.O_TRUNC
	}
	r.file, err = os.OpenFile(s.results, mode, 0o644)
	return r, err
}

// ownDigest tells this program from another: what another version has measured is no result of this one.
func ownDigest() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// read takes in a file. Its last line may be cut off.
func (r *results) read(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one record
		if json.Unmarshal(lines.Bytes(), &one) == nil && one.Program == r.program {
			r.known[one.How] = one.Runs
		}
	}
	return lines.Err()
}

// orMeasure is what is known of a cell, measured and kept when nothing is.
func (r *results) orMeasure(ctx context.Context, s *settings, c cell) (result, error) {
	if known, ok := r.of(s, c); ok {
		return known, nil
	}
	one, err := s.measure(ctx, c)
	if err == nil {
		err = r.add(s, &one)
	}
	return one, err
}

// of is what is known of a cell.
func (r *results) of(s *settings, c cell) (result, bool) {
	runs, ok := r.known[s.how(c)]
	return result{cell: c, rows: s.rows, runs: runs}, ok
}

// add keeps a result.
func (r *results) add(s *settings, of *result) error {
	line, err := json.Marshal(record{Program: r.program, How: s.how(of.cell), Runs: of.runs})
	if err != nil {
		return err
	}
	_, err = r.file.Write(append(line, '\n'))
	return err
}

func (r *results) close() { _ = r.file.Close() }
