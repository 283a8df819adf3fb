package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutant is the library with one protection taken out, and the check that must notice.
type mutant struct {
	name    string
	changes []change
	want    string // kind of violation
	slow    bool   // calls that take longer than a request stays hidden by itself must show it
}

// others are mutants beyond the three that a run must catch: one for each of the other checks, for those who change the
// ledger or the library.
var others = []mutant{
	{
		name:    "maybe forgotten: a send that certainly failed undoes the doubt of one before it",
		changes: []change{{"sender.go", "\t\tif !notSent {\n\t\t\to.maybe = true //", "\t\tif o.maybe = !notSent; o.maybe { //"}},
		want:    sentAnyway,
	},
	{
		name:    "maybe always: a send that certainly failed leaves a doubt",
		changes: []change{{"sender.go", "\t\tif !notSent {\n\t\t\to.maybe = true //", "\t\to.maybe = true\n\t\tif !notSent { //"}},
		want:    needlessDoubt,
	},
	{
		name:    "no doubt: every failed send certainly failed",
		changes: []change{{"transport.go", "\tdefault:\n\t\treturn isRefusal(err)\n\t}\n}", "\tdefault:\n\t\treturn true\n\t}\n}"}},
		want:    sentAnyway,
	},
	{
		name:    "not taken back: what its caller gave up is sent all the same",
		changes: []change{{"sender.go", "\tif before == sendQueued || before == sendFlying {\n\t\to.state = sendAbandoned\n\t}\n", ""}},
		want:    sentAnyway,
	},
	{
		name:    "repeated in doubt: any unavailable call is made again",
		changes: []change{{"retry.go", "\t\treturn o.cfg.idempotent && e.Code == Unavailable", "\t\treturn e.Code == Unavailable"}},
		want:    executedTwice,
	},
	{
		name:    "runs mixed: frames of any execution make one stream",
		changes: []change{{"frames.go", "\tcase f.pinned && n.env.Run != f.run:\n\t\treturn f.breakOff(DataLoss, errAnotherRun)\n", ""}},
		want:    contradicted,
	},
	{
		name:    "never extended: a request stays hidden for its visibility and no longer",
		changes: []change{{"extender.go", "\tif x.closed {\n\t\treturn\n\t}\n\tvar due", "\tif x.closed || x.visibility > 0 {\n\t\treturn\n\t}\n\tvar due"}},
		want:    shownMeanwhile,
		slow:    true,
	},
	{
		name:    "lost queue unnoticed: calls on a reply queue that was replaced go on waiting",
		changes: []change{{"requester.go", "\t\tif c.queue == q {\n\t\t\tdelete(r.pending, id)", "\t\tif c.queue == q && r.closing {\n\t\t\tdelete(r.pending, id)"}},
		want:    outlivedQueue,
	},
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
			"\tif !d.firstReceive.IsZero() {\n\t\treturn d.firstReceive\n\t}\n\tvar sample *clockSample\n\tswitch {\n",
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
	b := bar{untouched: wanted.untouched, before: wanted.before}
	wanted := func(rep *report) (v violation, shown bool) {
		all := rep.violations(b)
		if n := slices.IndexFunc(all, func(v violation) bool { return v.kind == m.want }); n >= 0 {
			return all[n], true
		}
		return v, false
	}
	shown := func(rep *report) bool { _, shown := wanted(rep); return shown }
	rep, err := (&world{child: child, duration: d, log: log, slow: m.slow, enough: shown}).run(ctx, seed)
	if err != nil {
		return false, err
	}
	if v, shown := wanted(&rep); shown {
		fmt.Fprintf(out, "caught: %s: %s: %s\n", name, v.kind, v.what)
		return true, nil
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
