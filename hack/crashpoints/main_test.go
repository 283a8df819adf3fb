package main

import (
	"io"
	"strings"
	"testing"
)

func TestCountsWhatPassed(t *testing.T) {
	const (
		channel = `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: CRASHPOINTS channel=12\n"}` + "\n"
		passed  = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		failed  = `{"Action":"fail","Package":"p","Test":"TestA"}` + "\n"
		zero    = `{"Action":"output","Package":"p","Test":"TestB","Output":"CRASHPOINTS sweeper=0\n"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestB"}` + "\n"
		sweeper = `{"Action":"output","Package":"p","Test":"TestC","Output":"CRASHPOINTS sweeper=3\n"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestC"}` + "\n"
		quoted  = `{"Action":"output","Package":"p","Test":"TestD","Output":"want CRASHPOINTS sweeper=3 at least\n"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestD"}` + "\n"
	)
	for _, tc := range []struct{ name, events, want, err string }{
		{"all that is wanted", channel + passed + sweeper, "CRASHPOINTS OK channel=12 sweeper=3", ""},
		{"a test that failed", channel + failed + sweeper, "", "channel"},
		{"a test that never ended", channel + sweeper, "", "channel"},
		{"one that is missing", channel + passed, "", "sweeper"},
		{"no point", channel + passed + zero, "", "sweeper"},
		{"another text", channel + passed + quoted, "", "sweeper"},
		{"counted twice", channel + passed + channel + passed + sweeper, "", "two tests"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found := &tally{out: io.Discard}
			err := found.read(strings.NewReader(tc.events))
			var line string
			if err == nil {
				line, err = found.line([]string{"channel", "sweeper"})
			}
			if line != tc.want || (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %q, %v; want %q, %q", line, err, tc.want, tc.err)
			}
		})
	}
}
