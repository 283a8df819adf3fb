package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// copies puts copies of one request into the queue, as a send that was repeated does.
func (p *pair) copies(t *testing.T, n int, method, body string, attempt string) string {
	t.Helper()
	id := rpcclient.NewCallID()
	p.copiesOf(t, id, n, method, body, attempt)
	return id
}

func (p *pair) copiesOf(t *testing.T, id string, n int, method, body, attempt string) {
	t.Helper()
	for range n {
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.url, MessageBody: aws.String(body), MessageAttributes: attributes(
				"ResponseQueueUrl", p.replyURL+"#"+id,
				"replyqueue", `{"k":"q","v":1,"id":"`+id+`","m":"`+method+`","e":"t","b":60000,"t":0,"a":`+attempt+`}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// With a store, copies that reach different processes run once, and all get the one answer.
func TestReplyStoreAcrossResponders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		store := rpcclient.NewMemoryReplyStore(100)
		var runs atomic.Int64
		for range 3 {
			p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
				runs.Add(1)
				time.Sleep(3 * time.Second)
				return addUp(ctx, r)
			}, rpcclient.WithReplyStore(store), rpcclient.WithConcurrency(2))
		}
		for range 10 {
			p.copies(t, 5, "calculate_sum", `{"Numbers":[1,2]}`, "1")
		}
		time.Sleep(2 * time.Minute)
		if runs.Load() != 10 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d runs of 10 calls, %d requests are left", runs.Load(), p.messages(t, requestQueue))
		}
		bodies := map[string]int{}
		for range 50 {
			out, err := p.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &p.replyURL, MaxNumberOfMessages: 10})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out.Messages {
				bodies[*m.Body]++
			}
		}
		if len(bodies) != 1 || bodies[`{"Sum":3}`] < 10 {
			t.Errorf("replies: %v", bodies)
		}
	})
}

// A restarted responder knows what its predecessor answered, and what it did not.
func TestReplyStoreAcrossRestarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		store := rpcclient.NewMemoryReplyStore(100)
		var runs atomic.Int64
		fail := rpcclient.NewMethod[int, int]("fail")
		start := func() (stop func()) {
			return p.respond(t, func(r *rpcclient.Responder) {
				sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) {
					runs.Add(1)
					return addUp(ctx, q)
				})
				fail.Handle(r, func(context.Context, int) (int, error) {
					runs.Add(1)
					return 0, rpcclient.Errorf(rpcclient.Unavailable, "down")
				})
			}, rpcclient.WithReplyStore(store))
		}
		good, bad := rpcclient.NewCallID(), rpcclient.NewCallID()
		replies := func() []types.Message {
			time.Sleep(time.Second)
			out, err := p.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &p.replyURL, MaxNumberOfMessages: 10, VisibilityTimeout: 3600, MessageAttributeNames: []string{"All"}})
			if err != nil {
				t.Fatal(err)
			}
			return out.Messages
		}
		for i, want := range []int64{2, 2} { // the second responder runs nothing
			stop := start()
			p.copiesOf(t, good, 1, "calculate_sum", `{"Numbers":[1,2]}`, "1")
			p.copiesOf(t, bad, 1, "fail", `1`, "1")
			if got := replies(); len(got) != 2 || runs.Load() != want {
				t.Errorf("responder %d: %d replies after %d runs", i, len(got), runs.Load())
			}
			stop()
		}
		stop := start()
		p.copiesOf(t, bad, 1, "fail", `1`, "2") // the requester tries again
		p.copiesOf(t, good, 1, "calculate_sum", `{"Numbers":[1,2]}`, "2")
		if got := replies(); len(got) != 2 || runs.Load() != 3 {
			t.Errorf("the second attempt: %d replies, %d runs", len(got), runs.Load())
		}
		p.copiesOf(t, good, 1, "calculate_sum", `{"Numbers":[3]}`, "1")
		got := replies()
		if len(got) != 1 || runs.Load() != 3 || !contains(*got[0].MessageAttributes["replyqueue"].StringValue, `"s":"INVALID_ARGUMENT"`, `"x":true`) {
			t.Errorf("another body: %d replies, %d runs", len(got), runs.Load())
		}
		stop()
		if n := p.messages(t, requestQueue); n != 0 {
			t.Errorf("%d requests are left", n)
		}
	})
}

// brokenStore fails until it is mended.
type brokenStore struct {
	rpcclient.ReplyStore
	broken atomic.Bool
}

func (s *brokenStore) Claim(ctx context.Context, key rpcclient.StoreKey, lease time.Time) ([]byte, rpcclient.ClaimState, error) {
	if s.broken.Load() {
		return nil, 0, errors.New("no table")
	}
	return s.ReplyStore.Claim(ctx, key, lease)
}

func TestBrokenReplyStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		store := &brokenStore{ReplyStore: rpcclient.NewMemoryReplyStore(1)}
		store.broken.Store(true)
		p.serve(t, addUp, rpcclient.WithReplyStore(store))
		time.AfterFunc(5*time.Second, func() { store.broken.Store(false) })
		started := time.Now()
		p.call(t)
		if took := time.Since(started); took < 9*time.Second || took > 12*time.Second {
			t.Errorf("answered after %s", took)
		}
		if s := p.responder.Stats(); s.Left != 1 || s.Served != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestMemoryReplyStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		s := rpcclient.NewMemoryReplyStore(2)
		key := func(id, content string, attempt int) rpcclient.StoreKey {
			return rpcclient.StoreKey{ID: id, Content: content, Attempt: attempt}
		}
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		claim := func(k rpcclient.StoreKey, want rpcclient.ClaimState, reply string) {
			t.Helper()
			got, state, err := s.Claim(ctx, k, in(time.Minute))
			if err != nil || state != want || string(got) != reply {
				t.Errorf("%+v: %q, %d, %v; want %q, %d", k, got, state, err, reply, want)
			}
		}
		claim(key("1", "c", 1), rpcclient.ClaimGranted, "")
		claim(key("1", "c", 1), rpcclient.ClaimBusy, "")
		claim(key("1", "d", 1), rpcclient.ClaimConflict, "")
		if err := s.Release(ctx, key("1", "c", 1)); err != nil {
			t.Error(err)
		}
		claim(key("1", "c", 1), rpcclient.ClaimGranted, "")
		if err := s.Complete(ctx, key("1", "c", 1), []byte("no"), true, in(time.Hour)); err != nil {
			t.Error(err)
		}
		claim(key("1", "c", 1), rpcclient.ClaimAnswered, "no")
		claim(key("1", "c", 2), rpcclient.ClaimGranted, "")
		if err := s.Complete(ctx, key("1", "c", 2), []byte("yes"), false, in(time.Hour)); err != nil {
			t.Error(err)
		}
		_ = s.Release(ctx, key("1", "c", 2)) // too late
		claim(key("1", "c", 3), rpcclient.ClaimAnswered, "yes")
		time.Sleep(time.Hour)
		claim(key("1", "c", 3), rpcclient.ClaimGranted, "")
		time.Sleep(time.Minute) // the process that had it died
		claim(key("1", "c", 3), rpcclient.ClaimGranted, "")
		claim(key("2", "c", 1), rpcclient.ClaimGranted, "")
		claim(key("3", "c", 1), rpcclient.ClaimBusy, "") // those in progress stay
		if err := s.Complete(ctx, key("3", "c", 1), nil, false, in(time.Hour)); err == nil {
			t.Error("an answer found room among claims")
		}
		if err := s.Complete(ctx, key("2", "c", 1), []byte("two"), false, in(time.Hour)); err != nil {
			t.Error(err)
		}
		claim(key("3", "c", 1), rpcclient.ClaimGranted, "") // pushes the oldest answer out
		claim(key("2", "c", 1), rpcclient.ClaimBusy, "")
		time.Sleep(time.Minute) // nobody renewed 1 and 3
		claim(key("2", "c", 1), rpcclient.ClaimGranted, "")
		if _, state, err := s.Claim(ctx, key("4", "c", 1), in(time.Hour)); state != rpcclient.ClaimGranted || err != nil {
			t.Error(state, err)
		}
		claim(key("5", "c", 1), rpcclient.ClaimBusy, "")
		time.Sleep(time.Minute) // 2 is over; 4 is not, which is older in the store than its successor will be
		claim(key("5", "c", 1), rpcclient.ClaimGranted, "")
		claim(key("4", "c", 1), rpcclient.ClaimBusy, "")
	})
}

// A store with less room than there is to do holds requests up; it lets none run beside itself, nor become a dead
// letter.
func TestSmallReplyStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		store, stats := rpcclient.NewMemoryReplyStore(3), new(rpcclient.Stats)
		var mu sync.Mutex
		running, runs, most := map[int]int{}, 0, 0
		for range 2 {
			p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
				change := func(by int) {
					mu.Lock()
					defer mu.Unlock()
					runs += max(0, by)
					running[r.Numbers[0]] += by
					all := 0
					for _, n := range running {
						all += n
					}
					if most = max(most, all); running[r.Numbers[0]] > 1 {
						t.Errorf("request %d runs twice at a time", r.Numbers[0])
					}
				}
				change(1)
				defer change(-1)
				time.Sleep(3 * time.Second)
				return addUp(ctx, r)
			}, rpcclient.WithReplyStore(store), rpcclient.WithStats(stats))
		}
		for n := range 12 {
			p.copies(t, 4, "calculate_sum", fmt.Sprintf(`{"Numbers":[%d]}`, n), "1")
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if runs < 12 || most != 3 {
			t.Errorf("%d runs of 12 requests, %d at a time, of a store with room for 3", runs, most)
		}
		if n, left := p.messages(t, requestQueue), stats.Snapshot().Left; n != 0 || left != 0 {
			t.Errorf("%d requests are in the queue, %d were given back", n, left)
		}
	})
}
