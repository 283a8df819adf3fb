package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main() // a requester or responder of the test
		return
	}
	goleak.VerifyTestMain(m)
}

// The short form of `make soak`: a few seconds, without mutants, nothing may be broken.
func TestShortSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for ten seconds")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const seed = 1
	// Other tests run beside it, so that what takes time may take more of it; what is wrong is wrong.
	w := &world{child: self, duration: 4 * time.Second, log: t.Output(), slack: 20 * time.Second}
	rep, err := w.run(t.Context(), seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rep.violations(bar{calls: 100, refused: 1, untouched: 0.8}) {
		t.Errorf("%s: %s", v.kind, v.what)
	}
	var out strings.Builder
	rep.print(&out)
	t.Log(out.String())
}

func TestMutantsApply(t *testing.T) {
	t.Chdir("../..")
	for _, m := range slices.Concat(mutants, others) {
		if _, err := m.apply(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// What the ledger was told in one sentence, and the violation it must find.
func TestLedgerFindsViolations(t *testing.T) {
	began := time.Now()
	for name, tc := range map[string]struct {
		tell func(l *ledger)
		want string
	}{
		"well":            {func(l *ledger) { l.execute("k", "S1-1"); l.over("k", "OK", "OK", "k", time.Second) }, ""},
		"another's reply": {func(l *ledger) { l.execute("k", "S1-1"); l.over("k", "OK", "OK", "other", time.Second) }, "reply to the wrong call"},
		"forged":          {func(l *ledger) { l.over("k", "OK", "OK", "forged", time.Second) }, "reply to the wrong call"},
		"no end":          {func(*ledger) {}, "not one outcome by the deadline"},
		"two ends": {func(l *ledger) {
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
			l.over("k", "OK", "OK", "k", time.Second)
		}, "not one outcome by the deadline"},
		"too late":     {func(l *ledger) { l.execute("k", "S1-1"); l.over("k", "OK", "OK", "k", 6100*time.Millisecond) }, "not one outcome by the deadline"},
		"not executed": {func(l *ledger) { l.over("k", "OK", "OK", "k", time.Second) }, "answered, and not executed"},
		"not sent, executed": {func(l *ledger) { l.execute("k", "S1-1"); l.over("k", notSent, "UNAVAILABLE", "-", time.Second) },
			"NotSent or Rejected, and executed"},
		"rejected, executed": {func(l *ledger) { l.execute("k", "S1-1"); l.over("k", rejected, "UNAVAILABLE", "-", time.Second) },
			"NotSent or Rejected, and executed"},
		"rejected, and a copy of SQS's executed": {func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.handedOut([]string{"k"}, "S1-1")
			l.handedOut([]string{"k"}, "S2-1")
			l.execute("k", "S1-1")
			l.twinned([]string{"k"})
			l.touch([]string{"k"}, duplicate, false)
			l.over("k", rejected, "UNAVAILABLE", "-", time.Second)
		}, ""},
		"rejected, and executed when it came again": {func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.handedOut([]string{"k"}, "S1-1")
			l.handedOut([]string{"k"}, "S2-1")
			l.execute("k", "S2-1")
			l.over("k", rejected, "UNAVAILABLE", "-", time.Second)
		}, "NotSent or Rejected, and executed"},
		"pending on a replaced queue": {func(l *ledger) {
			l.asked([]string{"k"}, "old#id")
			l.took([]string{"k"}, requestQueue)
			l.queueReplaced("Q1-1", "new", began.Add(time.Second))
			l.touch([]string{"k"}, queueGone, false)
			l.over("k", maybeExecuted, "DEADLINE_EXCEEDED", "-", 5*time.Second)
		}, "pending after its reply queue was replaced"},
		"ended with its queue, and the other of its Gather later": {func(l *ledger) {
			l.began("k", "Q1-1", gather, began, 5*time.Second)
			l.asked([]string{"k"}, "old#id")
			l.took([]string{"k"}, requestQueue)
			l.queueReplaced("Q1-1", "new", began.Add(time.Second))
			l.touch([]string{"k"}, queueGone, false)
			l.over("k", maybeExecuted, "UNAVAILABLE", "-", 5*time.Second)
		}, ""},
		"of a Gather, pending on a replaced queue": {func(l *ledger) {
			l.began("k", "Q1-1", gather, began, 5*time.Second)
			l.asked([]string{"k"}, "old#id")
			l.took([]string{"k"}, requestQueue)
			l.queueReplaced("Q1-1", "new", began.Add(time.Second))
			l.touch([]string{"k"}, queueGone, false)
			l.over("k", maybeExecuted, "DEADLINE_EXCEEDED", "-", 5*time.Second)
		}, outlivedQueue},
		"ended with its queue": {func(l *ledger) {
			l.asked([]string{"k"}, "old#id")
			l.took([]string{"k"}, requestQueue)
			l.queueReplaced("Q1-1", "new", began.Add(time.Second))
			l.touch([]string{"k"}, queueGone, false)
			l.over("k", maybeExecuted, "UNAVAILABLE", "-", 1100*time.Millisecond)
		}, ""},
		"refused with doubt, and struck": {func(l *ledger) {
			l.began("k", "Q1-1", "busy", began, 5*time.Second)
			l.touch([]string{"k"}, dropBefore, true)
			l.over("k", maybeExecuted, "UNAVAILABLE", "-", time.Second)
		}, ""},
		"shown while it was handled": {func(l *ledger) {
			l.began("k", "Q1-1", slow, began, 20*time.Second)
			l.took([]string{"k"}, requestQueue)
			l.handedOut([]string{"k"}, "S1-1")
			l.execute("k", "S1-1")
			l.handedOut([]string{"k"}, "S2-1")
			l.over("k", "OK", "OK", "k", 13*time.Second)
		}, "handled by one, and given to another without need"},
		"given to one that was killed, and then handled": {func(l *ledger) {
			l.began("k", "Q1-1", slow, began, 20*time.Second)
			l.took([]string{"k"}, requestQueue)
			l.handedOut([]string{"k"}, "S1-1")
			l.handedOut([]string{"k"}, "S2-1")
			l.execute("k", "S2-1")
			l.over("k", "OK", "OK", "k", 13*time.Second)
		}, ""},
		"executed twice": {func(l *ledger) {
			l.asked([]string{"k"}, "old#id")
			l.asked([]string{"k"}, "new#id")
			l.execute("k", "S1-1")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, executedTwice},
		"a copy of SQS's executed beside an attempt with another reply queue": {func(l *ledger) {
			l.asked([]string{"k"}, "old#id")
			l.twinned([]string{"k"})
			l.execute("k", "S1-1")
			l.asked([]string{"k"}, "new#id")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, ""},
		"a copy of SQS's executed beside an attempt with the same reply queue": {func(l *ledger) {
			l.asked([]string{"k"}, "old#id")
			l.twinned([]string{"k"})
			l.execute("k", "S1-1")
			l.asked([]string{"k"}, "old#id")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, executedTwice},
		"rejected, and the only copy executed": {func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.handedOut([]string{"k"}, "S1-1")
			l.execute("k", "S1-1")
			l.over("k", rejected, "UNAVAILABLE", "-", time.Second)
		}, "NotSent or Rejected, and executed"},
		"not sent, taken": {func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.over("k", notSent, "UNAVAILABLE", "-", time.Second)
		}, "NotSent, and in the queue"},
		"not sent, though an answer was lost": {func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.touch([]string{"k"}, doubted, false)
			l.over("k", notSent, "RESOURCE_EXHAUSTED", "-", time.Second)
		}, sentAnyway},
		"throttled to the end": {func(l *ledger) {
			l.touch([]string{"k"}, starved, true)
			l.touch([]string{"k"}, throttled, true)
			l.over("k", notSent, "RESOURCE_EXHAUSTED", "-", time.Second)
		}, ""},
		"throttled to the end, and in doubt": {func(l *ledger) {
			l.touch([]string{"k"}, starved, true)
			l.over("k", maybeExecuted, "RESOURCE_EXHAUSTED", "-", time.Second)
		}, needlessDoubt},
		"a notification, throttled to the end, and in doubt": {func(l *ledger) {
			l.began("k", "Q1-1", notify, began, 5*time.Second)
			l.touch([]string{"k"}, starved, true)
			l.over("k", maybeExecuted, "UNAVAILABLE", "-", time.Second)
		}, needlessDoubt},
		"a notification, throttled after an answer was lost, and in doubt": {func(l *ledger) {
			l.began("k", "Q1-1", notify, began, 5*time.Second)
			l.touch([]string{"k"}, dropBefore, true)
			l.touch([]string{"k"}, starved, true)
			l.over("k", maybeExecuted, "UNAVAILABLE", "-", time.Second)
		}, "struck before the effect"},
		"throttled after an answer was lost, and in doubt": {func(l *ledger) {
			l.touch([]string{"k"}, dropBefore, true)
			l.touch([]string{"k"}, starved, true)
			l.over("k", maybeExecuted, "RESOURCE_EXHAUSTED", "-", time.Second)
		}, "struck before the effect"},
		"late, as its process was": {func(l *ledger) {
			l.stalls.add("Q1-1", stall{began.Add(4900 * time.Millisecond), began.Add(6050 * time.Millisecond)})
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", 7*time.Second)
		}, ""},
		"later than its process was": {func(l *ledger) {
			l.stalls.add("Q1-1", stall{began.Add(4900 * time.Millisecond), began.Add(6050 * time.Millisecond)})
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", 7100*time.Millisecond)
		}, "not one outcome by the deadline"},
		"late, as another process was": {func(l *ledger) {
			l.stalls.add("Q2-1", stall{began.Add(4900 * time.Millisecond), began.Add(9050 * time.Millisecond)})
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", 7*time.Second)
		}, "not one outcome by the deadline"},
		"failed untouched, while the machine stood still": {func(l *ledger) {
			l.stalls.add("S1-1", stall{began, began.Add(time.Second)})
			l.stalls.add("Q1-1", stall{began.Add(2 * time.Second), began.Add(3 * time.Second)})
			l.over("k", maybeExecuted, "DEADLINE_EXCEEDED", "-", 5*time.Second)
		}, ""},
		"failed untouched, while the machine stood still for a moment": {func(l *ledger) {
			l.stalls.add("S1-1", stall{began, began.Add(time.Second)})
			l.stalls.add("Q1-1", stall{began.Add(time.Second / 2), began.Add(3 * time.Second / 2)})
			l.over("k", maybeExecuted, "DEADLINE_EXCEEDED", "-", 5*time.Second)
		}, untouchedFailed},
		"twice": {func(l *ledger) {
			l.execute("k", "S1-1")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, executedTwice},
		"by two": {func(l *ledger) {
			l.execute("k", "S1-1")
			l.execute("k", "S2-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, ""},
		"failed untouched": {func(l *ledger) { l.over("k", "maybe_executed", "UNAVAILABLE", "-", time.Second) }, untouchedFailed},
		"failed, touched": {func(l *ledger) {
			l.touch([]string{"k"}, dropAfter, false)
			l.over("k", "maybe_executed", "UNAVAILABLE", "-", time.Second)
		}, ""},
		"failed, struck before": {func(l *ledger) {
			l.touch([]string{"k"}, throttled, true)
			l.over("k", "maybe_executed", "UNAVAILABLE", "-", time.Second)
		}, "struck before the effect, and neither NotSent nor successful"},
		"killed": {func(l *ledger) { l.requesterKilled("Q1-1") }, ""},
	} {
		l := newLedger()
		l.began("k", "Q1-1", "sum", began, 5*time.Second)
		tc.tell(l)
		rep := l.report()
		got := ""
		for _, v := range rep.violations(bar{untouched: wanted.untouched, before: wanted.before}) {
			got += v.kind
		}
		if !strings.HasPrefix(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s: found %q, want %q", name, got, tc.want)
		}
	}
	l := newLedger()
	l.began("k", "Q1-1", "sum", began.Add(-time.Minute), 5*time.Second)
	l.execute("k", "S1-1")
	l.over("k", "OK", "OK", "k", time.Second)
	rep := l.report()
	if v := rep.violations(bar{}); len(v) != 1 || v[0].kind != executedLate {
		t.Errorf("executed a minute late: %v", v)
	}
	if v := fmt.Sprint(rep.violations(bar{calls: 2, each: 1})); !strings.Contains(v, "too few calls") || !strings.Contains(v, "black hole") {
		t.Errorf("a run with too little in it: %s", v)
	}
}
