package sqstest

import (
	"strings"
	"testing"
)

// What a move task took, and could not bring to where it was to go, is where it was: before what came later.
func TestTakenBackMessageIsWhereItWas(t *testing.T) {
	for _, name := range []string{"q", "q.fifo"} {
		for _, between := range []string{"nothing", "a receive", "all received"} {
			s := New(WithClock(NewManualClock(defaultTestTime)))
			key := queueKey{s.region, s.account, name}
			q, _, apiErr := s.registry.create(s, key, defaultSettings(key.fifo()), nil, s.millis())
			if apiErr != nil {
				t.Fatal(apiErr)
			}
			for _, body := range []string{"1", "2", "3"} {
				now, _ := q.lock()
				q.send(&message{id: newMessageID(), body: body, group: "g", dedup: body}, now, 0)
				q.unlock()
			}
			now, _ := q.lock()
			m := q.messages[1]
			q.remove(m)
			want := "1 2 3"
			switch between {
			case "a receive":
				want = "1"
				if q.fifo == nil {
					want = "1 3"
				}
				q.take(1, 30_000, now)
			case "all received":
				want = "1"
				q.take(10, 30_000, now)
			}
			q.unlock()
			q.takeBack(m)
			found, _ := q.receive(t.Context(), 10, 30_000, 0, "")
			var bodies []string
			for _, d := range found {
				bodies = append(bodies, d.body)
			}
			if got := strings.Join(bodies, " "); got != want {
				t.Errorf("%s, %s between: received %q, want %q", name, between, got, want)
			}
			if q.visibleCount() != 3-q.inFlight {
				t.Errorf("%s, %s between: %d visible, %d in flight", name, between, q.visibleCount(), q.inFlight)
			}
		}
	}
}
