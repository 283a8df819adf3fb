package sqstest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestManualClockCallsInOrder(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	c := sqstest.NewManualClock(start)
	var calls []string
	note := func(name string, then ...func()) func() {
		return func() {
			calls = append(calls, name+"@"+c.Now().Sub(start).String())
			for _, f := range then {
				f()
			}
		}
	}
	c.AfterFunc(3*time.Second, note("third"))
	c.AfterFunc(time.Second, note("first", func() { c.AfterFunc(time.Second, note("second")) }))
	stopped := c.AfterFunc(2*time.Second, note("never"))
	c.AfterFunc(time.Minute, note("late"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop")
	}
	c.Advance(500 * time.Millisecond)
	c.Advance(9*time.Second + 500*time.Millisecond)
	c.Advance(-time.Hour)
	if want := []string{"first@1s", "second@2s", "third@3s"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	if c.Pending() != 1 || !c.Now().Equal(start.Add(10*time.Second)) {
		t.Errorf("%d pending at %v", c.Pending(), c.Now())
	}
}

// A poll waits for the test's clock, and leaves nothing behind on it.
func TestPollByManualClock(t *testing.T) {
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client()
	url := create(t, c, "q", map[string]string{"DelaySeconds": "5"})
	send(t, c, url, "x")
	got := make(chan []types.Message, 1)
	go func() {
		m, err := poll(t.Context(), c, url, 1, 20)
		if err != nil {
			t.Error(err)
		}
		got <- m
	}()
	until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
	clock.Advance(4999 * time.Millisecond)
	if q, _ := s.Queue("q"); q.Pollers != 1 {
		t.Error("the poll ended too early")
	}
	clock.Advance(time.Millisecond)
	if m := <-got; len(m) != 1 {
		t.Errorf("%d messages", len(m))
	}
	until(t, func() bool { return clock.Pending() == 0 })
}
