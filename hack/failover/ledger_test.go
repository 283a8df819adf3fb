package main

import (
	"strings"
	"testing"
	"time"
)

// The judge has to bite: what must not happen is said, and what may happen is not.
func TestLedger(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for name, c := range map[string]struct {
		happens func(l *ledger)
		want    string
	}{
		"deleted while it heartbeats": {func(l *ledger) {
			l.beat(l.begin("p", "q", at(0)), at(20))
			l.deleted("q", at(25))
		}, "under the living process of pod p, last heard 5s before"},
		"deleted just after it started": {func(l *ledger) {
			l.begin("p", "q", at(0))
			l.deleted("q", at(9))
		}, "last heard 9s before"},
		"deleted in silence": {func(l *ledger) {
			s := l.begin("p", "q", at(0))
			l.beat(s, at(5))
			l.deleted("q", at(15))
			l.beat(s, at(16)) // too late for that one
		}, ""},
		"deleted after its end": {func(l *ledger) {
			l.end(l.begin("p", "q", at(0)), at(3))
			l.deleted("q", at(4))
		}, ""},
		"deleted before it was told": {func(l *ledger) {
			l.begin("p", "q", at(5))
			l.deleted("q", at(4))
		}, ""},
		"deleted for one process and not for its successor": {func(l *ledger) {
			l.end(l.begin("p", "q", at(0)), at(3))
			l.begin("p2", "q", at(4))
			l.deleted("q", at(5))
		}, "pod p2"},
		"not there": {func(l *ledger) {
			l.begin("p", "q", at(0))
			l.missing(func(string) bool { return false }, at(1))
		}, "does not exist"},
		"there": {func(l *ledger) {
			l.begin("p", "q", at(0))
			l.missing(func(string) bool { return true }, at(1))
		}, ""},
		"a stranger's": {func(l *ledger) { l.foreign("DeleteQueue", "theirs", at(1)) }, "not ours"},
	} {
		l := newLedger(10 * time.Second)
		c.happens(l)
		got := strings.Join(l.verdict(), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTimes(t *testing.T) {
	if got := (times{3, 1, 2}).quantile(0.5); got != 2 {
		t.Errorf("median %d, want 2", got)
	}
	if got := (times{3, 1, 2}).quantile(1); got != 3 {
		t.Errorf("maximum %d, want 3", got)
	}
}
