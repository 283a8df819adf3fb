package sqstest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// tenants is a standard queue by whose messages' bodies one sees whose they are: a1, a2, b1, ...
type tenants struct {
	t     *testing.T
	clock *sqstest.ManualClock
	c     *sqs.Client
	url   string
	sent  map[string]int
	held  map[string][]string // handles in flight, by tenant
}

func newTenants(t *testing.T) *tenants {
	t.Helper()
	clock := sqstest.NewManualClock(time.Unix(1_800_000_000, 0))
	c := sqstest.New(sqstest.WithClock(clock)).Client(noRetries)
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "3600"})
	return &tenants{t: t, clock: clock, c: c, url: url, sent: map[string]int{}, held: map[string][]string{}}
}

// send sends n messages of a tenant; "-" has no group.
func (q *tenants) send(tenant string, n int) {
	q.t.Helper()
	for range n {
		q.sent[tenant]++
		body := fmt.Sprint(tenant, q.sent[tenant])
		in := &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: &body}
		if tenant != "-" {
			in.MessageGroupId = &tenant
		}
		if _, err := q.c.SendMessage(q.t.Context(), in); err != nil {
			q.t.Fatal(err)
		}
	}
}

// receive is the bodies of n receives of one message each, which stay in flight.
func (q *tenants) receive(n int) []string {
	q.t.Helper()
	var bodies []string
	for range n {
		for _, m := range mustPoll(q.t, q.c, q.url, 1, 0) {
			bodies = append(bodies, *m.Body)
			tenant := (*m.Body)[:1]
			q.held[tenant] = append(q.held[tenant], *m.ReceiptHandle)
		}
	}
	return bodies
}

func (q *tenants) finish(tenant string, n int) {
	q.t.Helper()
	for _, handle := range q.held[tenant][:n] {
		if _, err := q.c.DeleteMessage(q.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &handle}); err != nil {
			q.t.Fatal(err)
		}
	}
	q.held[tenant] = q.held[tenant][n:]
}

func (q *tenants) expect(want ...string) {
	q.t.Helper()
	if got := q.receive(len(want)); !slices.Equal(got, want) {
		q.t.Errorf("received %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func TestQuietTenantsGoBeforeANoisyOne(t *testing.T) {
	q := newTenants(t)
	q.send("a", 100)
	q.receive(29)
	q.send("b", 2)
	q.send("-", 1)
	q.expect("a30") // 29 in flight are not yet too many
	q.expect("b1", "b2", "-1")
	q.expect("a31", "a32") // nobody else is waiting
	q.send("c", 1)
	q.expect("c1")
}

func TestANoisyTenantIsQuietAgain(t *testing.T) {
	t.Run("when less of it is in flight", func(t *testing.T) {
		q := newTenants(t)
		q.send("a", 40)
		q.receive(30)
		q.finish("a", 1)
		q.send("b", 1)
		q.expect("a31", "b1") // the older one first, and then a is noisy again
	})
	t.Run("when it sent nothing for five minutes", func(t *testing.T) {
		q := newTenants(t)
		q.send("a", 40)
		q.receive(30)
		q.clock.Advance(5*time.Minute - time.Millisecond)
		q.send("b", 2)
		q.expect("b1")
		q.clock.Advance(time.Millisecond)
		q.expect("a31", "a32")
	})
}

func TestAShareOfATenthIsNotNoisy(t *testing.T) {
	q := newTenants(t)
	q.send("-", 270)
	q.receive(270)
	q.send("a", 40)
	q.receive(30) // 30 of 300
	q.send("b", 1)
	q.expect("a31", "b1")
	q.send("a", 1)
	q.send("b", 1)
	q.finish("-", 10) // 31 of 291
	q.expect("b2", "a32")
}

func TestTheLeastNoisyTenantGoesFirst(t *testing.T) {
	q := newTenants(t)
	q.send("a", 60)
	q.receive(50)
	q.send("b", 50)
	// b is quiet up to its thirtieth, and then the one of two noisy tenants that has less in flight.
	for i := range 50 {
		q.expect(fmt.Sprint("b", i+1))
	}
	q.expect("a51")
}

func TestSlowProcessingIsNoisy(t *testing.T) {
	q := newTenants(t)
	q.send("a", 3)
	q.receive(1)
	q.clock.Advance(2 * time.Minute)
	q.finish("a", 1)
	q.send("b", 1)
	q.expect("b1", "a2") // a took all of the recent processing time, with one message
	q.finish("a", 1)
	q.finish("b", 1)

	quick := newTenants(t)
	quick.send("a", 3)
	quick.receive(1)
	quick.clock.Advance(10 * time.Second)
	quick.finish("a", 1)
	quick.send("b", 1)
	quick.expect("a2", "a3", "b1") // too little to speak of
}

func TestEveryMessageOfANoisyQueueComesOnce(t *testing.T) {
	q := newTenants(t)
	for i := range 20 {
		q.send("a", 10)
		q.send(string(rune('b'+i%3)), 1)
		q.send("-", 1)
		q.receive(5)
		q.clock.Advance(time.Second)
		q.finish("a", min(2, len(q.held["a"])))
	}
	q.clock.Advance(time.Hour) // what is held comes back
	seen := map[string]bool{}
	for {
		m := mustPoll(t, q.c, q.url, 10, 0)
		if len(m) == 0 {
			break
		}
		for _, m := range m {
			if seen[*m.Body] {
				t.Errorf("%s came twice", *m.Body)
			}
			seen[*m.Body] = true
		}
	}
	deleted := 0
	for tenant, n := range q.sent {
		for i := range n {
			if !seen[fmt.Sprint(tenant, i+1)] {
				deleted++
			}
		}
	}
	if total := 20 * 12; len(seen)+deleted != total || deleted == 0 || deleted > 40 {
		t.Errorf("%d came, %d did not, of %d", len(seen), deleted, total)
	}
}
