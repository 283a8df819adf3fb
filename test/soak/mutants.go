package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// mutant is the library with one protection taken out, and the check that must notice.
type mutant struct {
	name    string
	changes []change
	want    string // kind of violation
}

// change replaces a piece of a file of pkg/rpcclient, which must be there exactly once.
type change struct{ file, old, new string }

var mutants = []mutant{
	{
		name: "no dedupe: every delivery of a request runs the handler",
		changes: []change{{
			"serve.go",
			"\tif q.key != \"\" {\n\t\tq.hash = r.hashRequest(q)\n",
			"\tif q.key == \"never\" {\n\t\tq.hash = r.hashRequest(q)\n",
		}},
		want: executedTwice,
	},
	{
		name: "deadline from FirstReceive alone: what passed since is not counted",
		changes: []change{{
			"deadline.go",
			"\tvar sample *clockSample\n\tswitch {\n",
			"\tif !d.firstReceive.IsZero() {\n\t\treturn max(0, d.firstReceive.Sub(d.sent))\n\t}\n\tvar sample *clockSample\n\tswitch {\n",
		}},
		want: executedLate,
	},
	{
		name: "cancelled poll: the end of a call cancels the poll that is under way",
		changes: []change{
			{
				"poller.go",
				"\tfull, err = p.poll(p.ctx)\n",
				"\tctx, cancel := context.WithCancel(p.ctx)\n\tunderWay.Store(p, cancel)\n\tfull, err = p.poll(ctx)\n\tcancel()\n",
			},
			{
				"poller.go",
				"func (p *pollers) wait() {",
				"var underWay sync.Map\n\nfunc (p *pollers) wait() {",
			},
			{
				"call.go",
				"\tdelete(r.pending, c.id)\n",
				"\tdelete(r.pending, c.id)\n\tif c.queue != nil { // a notification has none\n\t\tif cancel, ok := underWay.Load(c.queue.pollers); ok {\n\t\t\tcancel.(context.CancelFunc)()\n\t\t}\n\t}\n",
			},
		},
		want: untouchedFailed,
	},
}

const library = "pkg/rpcclient"

// caught reports whether a run with the mutant shows the violation that it must.
func (m *mutant) caught(ctx context.Context, bin string, d time.Duration, seed uint64, out, log io.Writer) (bool, error) {
	replace, err := m.apply()
	if err != nil {
		return false, err
	}
	name, _, _ := strings.Cut(m.name, ":")
	child, err := build(ctx, bin, strings.ReplaceAll(name, " ", "-"), replace, false)
	if err != nil {
		return false, err
	}
	rep, err := (&world{child: child, duration: d, log: log}).run(ctx, seed)
	if err != nil {
		return false, err
	}
	b := bar{untouched: wanted.untouched, before: wanted.before}
	for _, v := range rep.violations(b) {
		if v.kind == m.want {
			fmt.Fprintf(out, "caught: %s: %s: %s\n", name, v.kind, v.what)
			return true, nil
		}
	}
	fmt.Fprintf(out, "NOT caught: %s: %v\n", m.name, rep.violations(b))
	return false, nil
}

// apply returns the changed files' texts by path.
func (m *mutant) apply() (map[string]string, error) {
	files := map[string]string{}
	for _, c := range m.changes {
		path := filepath.Join(library, c.file)
		text, ok := files[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, c.old); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, not once: the library has changed, and so must the mutant", path, c.old, n)
		}
		files[path] = strings.Replace(text, c.old, c.new, 1)
	}
	return files, nil
}

// writeOverlay writes changed files beside the programs, and the overlay for go build that names them.
func writeOverlay(bin, name string, files map[string]string) (path string, err error) {
	folder, err := filepath.Abs(filepath.Join(bin, "overlay-"+name))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for original, text := range files {
		from, err := filepath.Abs(original)
		if err != nil {
			return "", err
		}
		to := filepath.Join(folder, filepath.Base(original)+".mutant") // no Go file, which ./... would find
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		overlay.Replace[from] = to
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path = filepath.Join(folder, "overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}
