package main

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// incomplete is an error as the library makes it.
func incomplete(received, expected int) error {
	return fmt.Errorf("stream: %w", &rpcclient.Incomplete{Received: received, Expected: expected})
}

func TestJudgeStream(t *testing.T) {
	// replies are numbers and errors, in their order.
	play := func(replies ...any) iter.Seq2[result, error] {
		return func(yield func(result, error) bool) {
			for _, r := range replies {
				switch r := r.(type) {
				case int:
					if !yield(result{Key: "k", Sum: r}, nil) {
						return
					}
				case result:
					if !yield(r, nil) {
						return
					}
				case error:
					if !yield(result{}, r) {
						return
					}
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		replies iter.Seq2[result, error]
		want    string
	}{
		"whole":                     {play(0, 1, 2), ""},
		"of two executions":         {play(0, result{Key: "k", Sum: 1, Run: "S2"}, 2), "of another execution"},
		"cut off, and said so":      {play(0, 1, incomplete(2, 3)), ""},
		"cut off, end unknown":      {play(0, incomplete(1, -1)), ""},
		"nothing, and an error":     {play(errors.New("no")), ""},
		"one lost in the middle":    {play(0, 2, incomplete(2, 3)), "reply 2 in place of 1"},
		"out of order":              {play(0, 2, 1), "reply 2 in place of 1"},
		"twice":                     {play(0, 0, 1, 2), "reply 0 in place of 1"},
		"lost, and not said":        {play(0, 1), "2 of 3 replies, and no error"},
		"too many":                  {play(0, 1, 2, 3), "4 of 3 replies"},
		"lost, and said vaguely":    {play(0, errors.New("no")), "does not say so"},
		"lost, and said wrong":      {play(0, incomplete(2, 3)), "the error is"},
		"of another number":         {play(0, incomplete(1, 2)), "the error is"},
		"two ends":                  {play(incomplete(0, 3), incomplete(0, 3)), "2 errors"},
		"a reply after the end":     {play(0, incomplete(1, 3), 1), "after the end"},
		"incomplete, and yet whole": {play(0, 1, 2, incomplete(2, 3)), "the error is"},
	} {
		answer, wrong, _ := judgeStream(tc.replies, "k", 3)
		if got := strings.Join(wrong, "; "); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") || answer != "k" {
			t.Errorf("%s: %q, want %q; answer %s", name, got, tc.want, answer)
		}
	}
	if answer, _, _ := judgeStream(play(0, 1, 2), "mine", 3); answer != "k" {
		t.Errorf("another's replies pass for %s", answer)
	}
}

func TestJudgeGather(t *testing.T) {
	channels := []*rpcclient.Channel{{}, {}}
	no := errors.New("no")
	for name, tc := range map[string]struct {
		errs [2]error
		err  error
		want int
		bad  string
	}{
		"all":               {[2]error{nil, nil}, nil, 2, ""},
		"the first":         {[2]error{no, nil}, nil, 1, ""},
		"one is missing":    {[2]error{no, nil}, incomplete(1, 2), 2, ""},
		"missing, not said": {[2]error{no, nil}, nil, 2, "1 answers of 2"},
		"whole, and failed": {[2]error{nil, nil}, incomplete(1, 2), 2, "2 answers of 2"},
		"said vaguely":      {[2]error{no, nil}, no, 2, "the error says"},
		"said wrong":        {[2]error{no, no}, incomplete(1, 2), 2, "the error says"},
	} {
		got := []rpcclient.Gathered[result]{{Channel: channels[0], Err: tc.errs[0]}, {Channel: channels[1], Err: tc.errs[1]}}
		wrong := strings.Join(judgeGather(got, tc.err, channels, tc.want), "; ")
		if !strings.Contains(wrong, tc.bad) || (tc.bad == "") != (wrong == "") {
			t.Errorf("%s: %q, want %q", name, wrong, tc.bad)
		}
	}
	swapped := []rpcclient.Gathered[result]{{Channel: channels[1]}, {Channel: channels[0]}}
	if wrong := judgeGather(swapped, nil, channels, 2); len(wrong) == 0 {
		t.Error("swapped answers pass")
	}
}

// What is known of streams, notifications and a shared store, and the violation it must be.
func TestLedgerOfOtherForms(t *testing.T) {
	kept := keyOn(keptQueue, "k")
	for name, tc := range map[string]struct {
		key, what string
		tell      func(l *ledger)
		want      string
	}{
		"stream, run again untouched": {"k", stream, func(l *ledger) {
			l.execute("k", "S1-1")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, executedTwice},
		"stream, run again after a frame was lost": {"k", stream, func(l *ledger) {
			l.execute("k", "S1-1")
			l.execute("k", "S1-1")
			l.touch([]string{"k"}, dropAfter, false)
			l.over("k", "OK", "OK", "k", time.Second)
		}, ""},
		"stream, untouched and incomplete": {"k", stream, func(l *ledger) {
			l.execute("k", "S1-1")
			l.over("k", executed, "DATA_LOSS", "-", time.Second)
		}, untouchedFailed},
		"a contradiction": {"k", stream, func(l *ledger) {
			l.execute("k", "S1-1")
			l.contradicted("k: reply 2 in place of 1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, "an answer that contradicts itself"},
		"notified": {"k", notify, func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, ""},
		"notified, in the queue and not executed": {"k", notify, func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.over("k", "OK", "OK", "k", time.Second)
		}, "notified, and not executed"},
		"notified, and not in the queue": {"k", notify, func(l *ledger) {
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, "notified, and not executed"},
		"notified, executed twice": {"k", notify, func(l *ledger) {
			l.took([]string{"k"}, requestQueue)
			l.execute("k", "S1-1")
			l.execute("k", "S1-1")
			l.over("k", "OK", "OK", "k", time.Second)
		}, executedTwice},
		"not notified, executed": {"k", notify, func(l *ledger) {
			l.execute("k", "S1-1")
			l.over("k", notSent, "UNAVAILABLE", "-", time.Second)
		}, "NotSent or Rejected, and executed"},
		"by two that share a store": {kept, "sum", func(l *ledger) {
			l.execute(kept, "S1-1")
			l.execute(kept, "S2-1")
			l.over(kept, "OK", "OK", kept, time.Second)
		}, "executed by two processes that share a reply store"},
		"by two of which one was killed": {kept, "sum", func(l *ledger) {
			l.execute(kept, "S1-1")
			l.responderKilled("S1-1")
			l.execute(kept, "S2-1")
			l.over(kept, "OK", "OK", kept, time.Second)
		}, ""},
		"not needed": {"k", first, func(l *ledger) { l.over("k", "maybe_executed", "CANCELLED", "-", time.Second) }, ""},
		"not all":    {"k", gather, func(l *ledger) { l.over("k", "maybe_executed", "CANCELLED", "-", time.Second) }, untouchedFailed},
	} {
		l := newLedger()
		l.began(tc.key, "Q1-1", tc.what, time.Now(), 5*time.Second)
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
}

// The gate knows a call by its ID where a message says no key.
func TestRepliesWithoutAKeyAreTheirCalls(t *testing.T) {
	l := newLedger()
	l.began("k", "Q1-1", stream, time.Now(), time.Second)
	const id = "nnnnnnnnnnnnAAAAAAAAAAAAAAAAAAAAAA"
	l.asked([]string{"k"}, "http://q#"+id)
	for _, text := range []string{id + " -", `["` + id + `",{"k":"r","v":1},"-"]`, `{"QueueName":{"StringValue":"` + id + `"}}`} {
		if got := l.keysOfReplies(text); len(got) != 1 || got[0] != "k" {
			t.Errorf("%s: %v", text, got)
		}
	}
	if got := l.keysOfReplies("another " + strings.Repeat("b", 34)); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
