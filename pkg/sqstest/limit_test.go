package sqstest

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// With 120,000 messages in flight, a short poll of a standard queue is refused, a long poll finds nothing until one is
// deleted, and a FIFO queue says nothing ("quotas for messages", developer guide).
func TestNoMoreThan120000InFlight(t *testing.T) {
	for name, fifo := range map[string]bool{"q": false, "q.fifo": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New()
				q, _, apiErr := s.registry.create(s, queueKey{s.region, s.account, name}, defaultSettings(fifo), nil, s.millis())
				if apiErr != nil {
					t.Fatal(apiErr)
				}
				for i := range maxInFlight + 10 {
					now, err := q.lock()
					if err != nil {
						t.Fatal(err)
					}
					q.send(&message{body: "x", group: strconv.Itoa(i / 10), dedup: strconv.Itoa(i)}, now, 0)
					q.unlock()
				}
				const visibility = 600_000
				var last []delivery
				for range maxInFlight / 10 {
					if last, apiErr = q.receive(t.Context(), 10, visibility, 0, ""); apiErr != nil || len(last) != 10 {
						t.Fatalf("%d messages: %v", len(last), apiErr)
					}
				}
				if q.inFlight != maxInFlight || q.visibleCount() != 10 {
					t.Fatalf("%d in flight, %d visible", q.inFlight, q.visibleCount())
				}

				found, apiErr := q.receive(t.Context(), 10, visibility, 0, "")
				if len(found) != 0 || (apiErr != nil) == fifo || !fifo && apiErr.shape != "OverLimit" {
					t.Errorf("a short poll: %d messages, %v", len(found), apiErr)
				}
				start := time.Now()
				if found, apiErr = q.receive(t.Context(), 10, visibility, 5000, ""); len(found) != 0 || apiErr != nil || time.Since(start) != 5*time.Second {
					t.Errorf("a long poll: %d messages, %v, after %v", len(found), apiErr, time.Since(start))
				}
				time.AfterFunc(3*time.Second, func() {
					if _, err := q.lock(); err != nil {
						t.Error(err)
						return
					}
					defer q.unlock()
					if err := q.delete(last[0].handle); err != nil {
						t.Error(err)
					}
				})
				start = time.Now()
				if found, apiErr = q.receive(t.Context(), 10, visibility, 20_000, ""); len(found) != 1 || apiErr != nil || time.Since(start) != 3*time.Second {
					t.Errorf("a long poll during which one was deleted: %d messages, %v, after %v", len(found), apiErr, time.Since(start))
				}
			})
		})
	}
}

func TestShortAgesAndRates(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "–", 0: "–", 1500 * time.Millisecond: "1.5 s", 61 * time.Second: "1 min 1 s", 100 * time.Minute: "1 h 40 min",
		14*24*time.Hour + time.Hour: "14 d 1 h",
	} {
		if got := shortAge(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for r, want := range map[float64]string{0: "–", 0.1: "0.1", 9.94: "9.9", 1234.5: "1234"} {
		if got := shortRate(r); got != want {
			t.Errorf("%v: %s, want %s", r, got, want)
		}
	}
}
