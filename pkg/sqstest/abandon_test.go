package sqstest

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// lateContext is that of a client which goes after messages were chosen for it: it is there when its poll begins and when a
// message comes, and gone when the poll is to be answered.
type lateContext struct {
	context.Context
	looks atomic.Int32
}

func (c *lateContext) Err() error {
	if c.looks.Add(1) <= 2 {
		return nil
	}
	return context.Canceled
}

func testQueue(t *testing.T, opts ...Option) *queue {
	t.Helper()
	s := New(append(opts, WithClock(NewManualClock(defaultTestTime)))...)
	q, _, err := s.registry.create(s, queueKey{s.region, s.account, "q"}, defaultSettings(false), nil, s.millis())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (q *queue) put(t *testing.T, body string) {
	t.Helper()
	now, err := q.lock()
	if err != nil {
		t.Fatal(err)
	}
	q.send(&message{id: newMessageID(), body: body}, now, 0)
	q.unlock()
}

// pollUntilGone starts a poll whose client goes away after messages were chosen for it, and lets a message of three billed
// chunks come.
func pollUntilGone(t *testing.T, q *queue) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		body := []byte(`{"QueueUrl":"q","WaitTimeSeconds":20,"VisibilityTimeout":600}`)
		q.server.answer(&lateContext{Context: context.Background()}, http.Header{"X-Amz-Target": {"AmazonSQS.ReceiveMessage"}}, "http://h", requestBody{bytes: body})
	}()
	waiting := func() int {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.waiters.len
	}
	for waiting() == 0 {
		select {
		case <-done:
			t.Fatal("the poll did not wait")
		default:
			runtime.Gosched()
		}
	}
	q.put(t, strings.Repeat("x", 3*billedChunk))
	if waiting() != 0 {
		q.server.Close()
		<-done
		t.Fatal("the message woke nobody")
	}
	<-done
}

func TestMessagesOfAnAbandonedPollComeBack(t *testing.T) {
	q := testQueue(t)
	pollUntilGone(t, q)
	found, _ := q.receive(context.Background(), 10, 0, 0, "")
	if len(found) != 1 || found[0].receives != 1 {
		t.Errorf("found %+v", found)
	}
}

func TestMessagesOfAnAbandonedPollStayInFlightUnderFaults(t *testing.T) {
	q := testQueue(t, WithFaults(Plan{Rules: []Rule{{Fault: AbandonPoll, Queue: "q", Count: 1}}}))
	pollUntilGone(t, q)
	if hits := q.server.FaultHits(); q.inFlight != 1 || hits[0] != 1 {
		t.Errorf("%d in flight, hits %v", q.inFlight, hits)
	}
	// The rule's only strike is spent.
	pollUntilGone(t, q)
	if q.inFlight != 1 || q.visibleCount() != 1 {
		t.Errorf("%d in flight, %d visible", q.inFlight, q.visibleCount())
	}
}

// What is left in flight was delivered, as far as the bill goes; what is put back was not.
func TestBilledOfAbandonedPolls(t *testing.T) {
	for _, kept := range []bool{false, true} {
		q := testQueue(t)
		if kept {
			q.server.SetFaults(Plan{Rules: []Rule{{Fault: AbandonPoll}}})
		}
		pollUntilGone(t, q)
		if n, want := q.server.Billed(), map[bool]int{false: 1, true: 3}[kept]; n != want || q.server.Requests() != 1 {
			t.Errorf("kept %t: %d of %d requests billed, want %d of 1", kept, n, q.server.Requests(), want)
		}
	}
}

func TestUnrelatedFaultsDoNotAbandon(t *testing.T) {
	q := testQueue(t, WithFaults(Plan{Rules: []Rule{{Fault: Throttle, Action: "ListQueues"}, {Fault: AbandonPoll, Queue: "other"}}}))
	pollUntilGone(t, q)
	if q.inFlight != 0 || q.visibleCount() != 1 {
		t.Errorf("%d in flight, %d visible", q.inFlight, q.visibleCount())
	}
}

func TestNobodyIsServedWhoIsGone(t *testing.T) {
	q := testQueue(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := &waiter{ctx: ctx, limit: 10, visibility: 600_000, answers: make(chan polled, 1)}
	q.waiters.push(gone)
	cancel()
	q.put(t, "x")
	if q.inFlight != 0 || q.visibleCount() != 1 {
		t.Errorf("%d in flight, %d visible", q.inFlight, q.visibleCount())
	}
}

// What is taken back from a poll that went wakes the next one: the clock stands still here.
func TestWhatIsPutBackWakesTheNext(t *testing.T) {
	q := testQueue(t)
	q.put(t, "x")
	now, err := q.lock()
	if err != nil {
		t.Fatal(err)
	}
	chosen := q.take(1, 600_000, now)
	q.unlock()
	got := make(chan int, 1)
	go func() {
		found, _ := q.receive(context.Background(), 1, 600_000, 20_000, "")
		got <- len(found)
	}()
	q.awaitPoll()
	q.abandon(polled{deliveries: chosen})
	left := q.polls()
	if left != 0 {
		t.Error("the poll that waits was not woken")
	}
	q.server.Close()
	if n := <-got; left == 0 && n != 1 {
		t.Errorf("it got %d", n)
	}
}

// A message that was chosen for a poll whose context ends at that moment is not eaten, in whichever order the poll sees
// the two.
func TestChosenThenCancelled(t *testing.T) {
	for range 100 {
		q := testQueue(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = q.receive(ctx, 1, 600_000, 20_000, "")
		}()
		q.awaitPoll()
		q.mu.Lock()
		w := q.waiters.pop()
		cancel()
		for range 100 {
			runtime.Gosched() // the poll comes to the lock
		}
		now := q.server.millis()
		q.send(&message{id: newMessageID(), body: "x"}, now, 0)
		chosen := q.take(1, 600_000, now)
		q.mu.Unlock()
		w.answer(polled{deliveries: chosen})
		<-done
		q.mu.Lock()
		inFlight, visible := q.inFlight, q.visibleCount()
		q.mu.Unlock()
		q.server.Close()
		if inFlight != 0 || visible != 1 {
			t.Fatalf("%d in flight, %d visible", inFlight, visible)
		}
	}
}

// awaitPoll returns when a poll waits.
func (q *queue) awaitPoll() {
	for q.polls() == 0 {
		runtime.Gosched()
	}
}

func (q *queue) polls() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters.len
}

// A poll is woken by a message that comes back to where a move task took it from, and by one that has been received too often.
func TestTakenInAndTakenBackWakeAPoll(t *testing.T) {
	for name, bring := range map[string]func(q *queue, m *message){"in": (*queue).takeIn, "back": (*queue).takeBack} {
		q := testQueue(t)
		q.put(t, "x")
		if _, err := q.lock(); err != nil {
			t.Fatal(err)
		}
		m := q.messages[1]
		q.remove(m)
		q.unlock()
		got := make(chan int, 1)
		go func() {
			found, _ := q.receive(context.Background(), 1, 600_000, 20_000, "")
			got <- len(found)
		}()
		q.awaitPoll()
		bring(q, m)
		left := q.polls()
		q.server.Close()
		if n := <-got; left != 0 || n != 1 {
			t.Errorf("taken %s: %d polls wait, %d received", name, left, n)
		}
	}
}
