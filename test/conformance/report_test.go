package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// servers are those that a whole run asks.
var servers = []string{"sqstest", "moto", "local-aws-sqs"}

// strangers are those of them that are not ours.
var strangers = servers[1:]

// report prints the table, and fails the test unless everything that was asked for ran and is as known.
func report(t *testing.T, results []result) {
	t.Helper()
	known := map[string]map[string]string{}
	for _, s := range strangers {
		known[s] = readKnown(t, s)
	}
	for i := range results {
		if r := &results[i]; r.server == "sqstest" {
			r.unexpected = append(r.unexpected, unconfirmed(r, results, known)...)
		}
		for _, u := range results[i].unexpected {
			t.Errorf("%s: %s", results[i].server, u)
		}
	}
	line, ok := verdict(results, len(checks()))
	if !ok {
		t.Error(line)
	}
	table := tableOf(results) + line + "\n"
	fmt.Print("\n", table)
	if *reportFile != "" {
		if err := os.WriteFile(*reportFile, []byte(table), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func tableOf(results []result) string {
	var table strings.Builder
	fmt.Fprintf(&table, "%-24s %8s %18s %11s\n", "server", "passed", "known differences", "unexpected")
	for i := range results {
		r := &results[i]
		if r.notThere != "" {
			fmt.Fprintf(&table, "%-24s NOT ASKED: %s\n", r.server, r.notThere)
			continue
		}
		fmt.Fprintf(&table, "%-24s %8d %18d %11d", r.server, len(r.passed), r.known, len(r.unexpected))
		if r.skipped > 0 {
			fmt.Fprintf(&table, "  (%d left out: CONFORMANCE_PATIENCE)", r.skipped)
		}
		fmt.Fprintln(&table)
	}
	return table.String()
}

// verdict is the last line, and whether the run is a success. It says OK only when all three servers ran every check and
// nothing was unexpected. PARTIAL is a success too: less was asked for, and the line says what is missing. INCOMPLETE is not:
// a server that was to be asked could not be.
func verdict(results []result, number int) (line string, ok bool) {
	unexpected, ours, leftOut := 0, 0, 0
	var absent, unasked []string
	for i := range results {
		r := &results[i]
		if r.notThere != "" {
			absent = append(absent, r.server)
			continue
		}
		if r.server == "sqstest" {
			ours = len(r.passed)
		}
		unexpected += len(r.unexpected)
		leftOut += r.skipped
	}
	for _, name := range servers {
		if !slices.ContainsFunc(results, func(r result) bool { return r.server == name }) {
			unasked = append(unasked, name)
		}
	}
	figures := fmt.Sprintf("checks=%d sqstest=%d unexpected=%d", number, ours, unexpected)
	switch {
	case unexpected > 0:
		return "CONFORMANCE FAILED " + figures, false
	case len(absent) > 0:
		return "CONFORMANCE INCOMPLETE " + figures + " absent=" + strings.Join(absent, ","), false
	case len(unasked) > 0 || leftOut > 0:
		line = "CONFORMANCE PARTIAL " + figures
		if len(unasked) > 0 {
			line += " not-asked-for=" + strings.Join(unasked, ",")
		}
		if leftOut > 0 {
			line += fmt.Sprintf(" left-out=%d", leftOut)
		}
		return line, true
	}
	return "CONFORMANCE OK " + figures, true
}

// unconfirmed is the checks that ours passes, no stranger does, and citations has no evidence for. A stranger that ran a
// check has shown how it does; of one that did not, its list of known differences tells.
func unconfirmed(ours *result, all []result, known map[string]map[string]string) []string {
	passes := func(stranger, check string) bool {
		i := slices.IndexFunc(all, func(r result) bool { return r.server == stranger })
		if i >= 0 && all[i].ran[check] {
			return all[i].passed[check]
		}
		return slices.Contains(strangers, stranger) && known[stranger][check] == ""
	}
	others := slices.Clone(strangers)
	for i := range all {
		if r := &all[i]; r.server != ours.server && !slices.Contains(others, r.server) && r.notThere == "" {
			others = append(others, r.server)
		}
	}
	var out []string
	for name := range ours.passed {
		_, cited := citations[name]
		if !cited && !slices.ContainsFunc(others, func(s string) bool { return passes(s, name) }) {
			out = append(out, name+": nobody else passes it, and citations_test.go has no evidence for it")
		}
	}
	return out
}

func TestLastLine(t *testing.T) {
	ran := func(server string, unexpected ...string) result {
		r := newResult(server)
		r.passed["a"], r.passed["b"] = true, true
		r.unexpected = unexpected
		return r
	}
	absent := result{server: "moto", notThere: "no moto_server on the PATH"}
	impatient := ran("moto")
	impatient.skipped = 3
	for want, c := range map[string]struct {
		results []result
		ok      bool
	}{
		"CONFORMANCE OK checks=2 sqstest=2 unexpected=0":                                               {[]result{ran("sqstest"), ran("moto"), ran("local-aws-sqs")}, true},
		"CONFORMANCE FAILED checks=2 sqstest=2 unexpected=1":                                           {[]result{ran("sqstest"), ran("moto", "x"), ran("local-aws-sqs")}, false},
		"CONFORMANCE INCOMPLETE checks=2 sqstest=2 unexpected=0 absent=moto":                           {[]result{ran("sqstest"), absent, ran("local-aws-sqs")}, false},
		"CONFORMANCE PARTIAL checks=2 sqstest=2 unexpected=0 not-asked-for=moto,local-aws-sqs":         {[]result{ran("sqstest")}, true},
		"CONFORMANCE PARTIAL checks=2 sqstest=2 unexpected=0 left-out=3":                               {[]result{ran("sqstest"), impatient, ran("local-aws-sqs")}, true},
		"CONFORMANCE PARTIAL checks=2 sqstest=0 unexpected=0 not-asked-for=sqstest,moto,local-aws-sqs": {[]result{ran("http://127.0.0.1:4566")}, true},
		"CONFORMANCE PARTIAL checks=2 sqstest=2 unexpected=0 not-asked-for=local-aws-sqs left-out=3":   {[]result{ran("sqstest"), impatient}, true},
	} {
		if line, ok := verdict(c.results, 2); line != want || ok != c.ok {
			t.Errorf("%q, %v; want %q, %v", line, ok, want, c.ok)
		}
	}
	if table := tableOf([]result{ran("sqstest"), absent}); !strings.Contains(table, "moto                     NOT ASKED: no moto_server on the PATH") {
		t.Errorf("the table does not say what is missing:\n%s", table)
	}
}

// A check that only ours passes needs evidence however many strangers were asked.
func TestEvidenceIsAskedForWhoeverRan(t *testing.T) {
	known := map[string]map[string]string{"moto": {"lonely": "differs"}, "local-aws-sqs": {"lonely": "differs"}}
	ours := newResult("sqstest")
	ours.passed["lonely"], ours.passed["shared"] = true, true
	moto := newResult("moto")
	moto.ran, moto.passed = map[string]bool{"lonely": true, "shared": true}, map[string]bool{"shared": true}
	for _, all := range [][]result{{ours}, {ours, moto}, {ours, {server: "moto", notThere: "absent"}}} {
		if got := unconfirmed(&ours, all, known); len(got) != 1 || !strings.HasPrefix(got[0], "lonely: ") {
			t.Errorf("with %d servers: %q", len(all), got)
		}
	}
	moto.passed["lonely"] = true
	if got := unconfirmed(&ours, []result{ours, moto}, known); len(got) != 0 {
		t.Errorf("a stranger passes it, and yet: %q", got)
	}
}

// Each stranger has its list, and each list its stranger.
func TestListsAreTheStrangers(t *testing.T) {
	lists, err := filepath.Glob(filepath.Join("known", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, l := range lists {
		of = append(of, strings.TrimSuffix(filepath.Base(l), ".txt"))
	}
	want := slices.Sorted(slices.Values(strangers))
	if slices.Sort(of); !slices.Equal(of, want) {
		t.Errorf("lists of known differences of %v, want %v", of, want)
	}
}
