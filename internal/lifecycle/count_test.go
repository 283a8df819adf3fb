package lifecycle

import (
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

func TestNoteEvery(t *testing.T) {
	for enough, want := range map[time.Duration]time.Duration{
		0:                   0,
		30 * time.Second:    0,
		10 * time.Minute:    0,
		11 * time.Minute:    5 * time.Minute,
		time.Hour:           6 * time.Minute,
		5 * time.Hour:       30 * time.Minute,
		14 * 24 * time.Hour: time.Hour,
	} {
		if got := (Count{Enough: enough}).NoteEvery(); got != want {
			t.Errorf("of %s, %s is noted at a time, want %s", enough, got, want)
		}
	}
}

// TestDecideByEarlierCounts: what was counted before counts, but something has to be counted afresh.
func TestDecideByEarlierCounts(t *testing.T) {
	long := func(terms Terms) Terms { terms.IdleRetention = 10 * time.Hour; return terms }
	for _, c := range []struct {
		name  string
		in    Observation
		want  Action
		again time.Duration
	}{
		{"silent, half of it before", Observation{Terms: long(podTerms), Pod: PodPresent, Before: 5 * time.Hour, Heartbeat: silent(5 * time.Hour)}, Keep, time.Millisecond},
		{"silent, half of it before, and a second more", Observation{Terms: long(podTerms), Pod: PodPresent, Before: 5 * time.Hour, Heartbeat: silent(5*time.Hour + time.Second)}, Close, 0},
		{"silent, all of it before", Observation{Terms: long(podTerms), Pod: PodPresent, Before: 10 * time.Hour, Heartbeat: silent(4 * time.Minute)}, Keep, time.Minute + time.Millisecond},
		{"silent, all of it before, and five heartbeats", Observation{Terms: long(podTerms), Pod: PodPresent, Before: 10 * time.Hour, Heartbeat: silent(5*time.Minute + time.Second)}, Close, 0},
		{"absent, half of it before", Observation{Terms: long(stable), Pod: PodGone, Continuous: true, PodSince: ago(4 * time.Hour), Before: 5 * time.Hour}, Drain, time.Hour + time.Millisecond},
		{"absent, half of it before, and the rest", Observation{Terms: long(stable), Pod: PodGone, Continuous: true, PodSince: ago(5 * time.Hour), Before: 5 * time.Hour}, Close, 0},
		{"absent, all of it before", Observation{Terms: long(stable), Pod: PodGone, Continuous: true, PodSince: ago(2 * time.Minute), Before: 10 * time.Hour}, Drain, 10*time.Second + time.Millisecond},
		{"absent, all of it before, and the safe time", Observation{Terms: long(stable), Pod: PodGone, Continuous: true, PodSince: ago(130 * time.Second), Before: 10 * time.Hour}, Close, 0},
		{"absent, all of it before, in a gap", Observation{Terms: long(stable), Pod: PodGone, PodSince: ago(time.Hour), Before: 10 * time.Hour}, Drain, ViewRecheck},
		{"gone, all of it before", Observation{Terms: podTerms, Pod: PodGone, Continuous: true, PodSince: ago(129 * time.Second), Before: time.Hour}, Drain, time.Second + time.Millisecond},
	} {
		if got := Decide(c.in, now); got.Action != c.want || got.Again != c.again {
			t.Errorf("%s: got %s again %s (%s), want %s again %s", c.name, got.Action, got.Again, got.Message, c.want, c.again)
		}
	}
}

func TestCounting(t *testing.T) {
	for name, c := range map[string]struct {
		in Observation
		of v1alpha1.CountedOf
	}{
		"present":                      {Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: silent(0)}, v1alpha1.CountedSilence},
		"present, mode Pod":            {Observation{Terms: podMode, Pod: PodPresent, Heartbeat: silent(0)}, ""},
		"present, Stable":              {Observation{Terms: stable, Pod: PodPresent, Heartbeat: silent(0)}, ""},
		"present, in a gap":            {Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: Heartbeat{Counting: true}}, ""},
		"present, not running":         {Observation{Terms: podTerms, Pod: PodPresent, Heartbeat: Heartbeat{Continuous: true}}, ""},
		"terminating":                  {Observation{Terms: podTerms, Pod: PodTerminating, Continuous: true, Heartbeat: silent(0)}, ""},
		"unknown":                      {Observation{Terms: podTerms, Continuous: true, Heartbeat: silent(0)}, ""},
		"gone":                         {Observation{Terms: podTerms, Pod: PodGone, Continuous: true}, v1alpha1.CountedAbsence},
		"stopped":                      {Observation{Terms: stable, Pod: PodStopped, Continuous: true}, v1alpha1.CountedAbsence},
		"gone, in a gap":               {Observation{Terms: stable, Pod: PodGone}, ""},
		"gone, and a successor":        {Observation{Terms: stable, Pod: PodGone, Continuous: true, Successor: true}, ""},
		"gone, and may be heard":       {Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true}, ""},
		"gone, and could be heard now": {Observation{Terms: podTerms, Pod: PodGone, Continuous: true, Audible: true, Heartbeat: silent(0)}, v1alpha1.CountedAbsence},
	} {
		if got, ok := c.in.Counting(); ok != (c.of != "") || ok && got.Of != c.of {
			t.Errorf("%s: %+v %t, want %q", name, got, ok, c.of)
		}
	}
}

// TestCarry: what was noted counts from when a count began; what the same count notes of itself does not count twice.
func TestCarry(t *testing.T) {
	var s Sightings
	for i, c := range []struct {
		of          string
		since       time.Time
		noted, want time.Duration
	}{
		{"a", ago(time.Hour), time.Minute, time.Minute},
		{"a", ago(time.Hour), time.Hour, time.Minute},
		{"a", ago(time.Second), time.Hour, time.Hour},
		{"b", ago(time.Second), 0, 0},
		{"b", ago(time.Second), time.Hour, 0},
	} {
		if got := s.Carry("u", c.of, c.since, c.noted); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}
