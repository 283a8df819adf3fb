package sqstest

import (
	"testing"
	"time"
)

// A receive that was given to its retry is the retry's: the request before, whose client went away, puts nothing back.
func TestReplayedReceiveIsNotPutBack(t *testing.T) {
	s := New(WithClock(NewManualClock(time.Unix(1_800_000_000, 0))))
	q, _, apiErr := s.registry.create(s, queueKey{s.region, s.account, "q.fifo"}, defaultSettings(true), nil, s.millis())
	if apiErr != nil {
		t.Fatal(apiErr)
	}
	now, apiErr := q.lock()
	if apiErr != nil {
		t.Fatal(apiErr)
	}
	q.send(&message{body: "x", group: "g", dedup: "1"}, now, 0)
	q.unlock()
	receive := func(attempt string) []delivery {
		d, apiErr := q.receive(t.Context(), 1, 30_000, 0, attempt)
		if apiErr != nil {
			t.Fatal(apiErr)
		}
		return d
	}
	first, retry := receive("A"), receive("A")
	q.abandon(polled{deliveries: first})
	if other := receive(""); len(retry) != 1 || len(other) != 0 {
		t.Errorf("the retry got %d, another receiver %d; want 1 and none", len(retry), len(other))
	}
	q.abandon(polled{deliveries: retry})
	if other := receive(""); len(other) != 1 {
		t.Errorf("%d messages are there after the retry went away too, want 1", len(other))
	}
}
