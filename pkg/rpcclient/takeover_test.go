package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A renewal of the visibility that fails is made again in time.
func TestFailedExtensionIsRepeated(t *testing.T) {
	for name, rule := range map[string]sqstest.Rule{
		"errors":     {Fault: sqstest.ServerError, Count: 2},
		"black hole": {Fault: sqstest.BlackHole, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				rule.Action, rule.Queue = "ChangeMessageVisibilityBatch", requestQueue
				p.fault(rule)
				var runs atomic.Int64
				for range 2 {
					p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
						runs.Add(1)
						time.Sleep(25 * time.Second)
						return addUp(ctx, r)
					})
				}
				p.call(t)
				time.Sleep(30 * time.Second)
				if runs.Load() != 1 {
					t.Errorf("%d runs", runs.Load())
				}
			})
		})
	}
}

// Every copy of a request that is handled stays hidden, and until its reply is accepted: none is counted as
// received so often that it becomes a dead letter.
func TestCopiesStayHiddenUntilSettled(t *testing.T) {
	for name, rules := range map[string][]sqstest.Rule{
		"sent twice":      {{Fault: sqstest.DropAfter, Action: "SendMessageBatch", Queue: requestQueue, Count: 1}},
		"delivered twice": {{Fault: sqstest.Duplicate, Queue: requestQueue, Count: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.queue(t, "dead")
				if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &p.url, Attributes: map[string]string{
					"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"2"}`,
				}}); err != nil {
					t.Fatal(err)
				}
				p.fault(rules...)
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					time.Sleep(time.Minute)
					return addUp(ctx, r)
				})
				if _, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(2*time.Minute)); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if d, n := p.messages(t, "dead"), p.messages(t, requestQueue); d != 0 || n != 0 {
					t.Errorf("%d dead letters, %d requests left", d, n)
				}
			})
		})
	}
}

// killed starts a responder whose handler never ends by itself, and returns what cuts it off.
func (p *pair) killed(t *testing.T, opts ...rpcclient.Option) (kill func()) {
	t.Helper()
	r, err := rpcclient.NewResponder(p.client, append(append([]rpcclient.Option{}, p.options...), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	sum.Handle(r, func(ctx context.Context, _ sumRequest) (sumReply, error) {
		<-ctx.Done()
		return sumReply{}, context.Cause(ctx)
	})
	served := make(chan error, 1)
	go func() { served <- r.Serve(context.Background()) }()
	return func() {
		now, cancel := context.WithCancel(t.Context())
		cancel()
		_ = r.Shutdown(now)
		if err := <-served; err == nil {
			t.Error("it was not cut off")
		}
	}
}

// muteStore is a store that a process no longer reaches: the process has died.
type muteStore struct {
	rpcclient.ReplyStore
	dead atomic.Bool
}

func (s *muteStore) Claim(ctx context.Context, key rpcclient.StoreKey, lease time.Time) ([]byte, rpcclient.ClaimState, error) {
	if s.dead.Load() {
		return nil, 0, errors.New("dead")
	}
	if d := time.Until(lease); d > 20*time.Second {
		return nil, 0, fmt.Errorf("a lease of %s", d)
	}
	return s.ReplyStore.Claim(ctx, key, lease)
}

func (s *muteStore) Release(ctx context.Context, key rpcclient.StoreKey) error {
	if s.dead.Load() {
		return errors.New("dead")
	}
	return s.ReplyStore.Release(ctx, key)
}

// Whoever dies or is cut off holds up its requests for seconds, one-way requests too; who lives is not
// disturbed, however long it takes.
func TestClaimsAreTakenOver(t *testing.T) {
	for name, tc := range map[string]struct {
		dies   bool
		within time.Duration
	}{
		"cut off": {within: 13 * time.Second}, // its visibility
		"dies":    {dies: true, within: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				store := rpcclient.NewMemoryReplyStore(100)
				mute := &muteStore{ReplyStore: store}
				kill := p.killed(t, rpcclient.WithReplyStore(mute))
				ended := make(chan error, 1)
				go func() {
					_, err := sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallTimeout(5*time.Minute))
					ended <- err
				}()
				if err := sum.Notify(t.Context(), p.channel, sumRequest{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					runs.Add(1)
					return addUp(ctx, r)
				}, rpcclient.WithReplyStore(store))
				time.Sleep(time.Minute)
				if runs.Load() != 0 {
					t.Error("another took up what was being handled")
				}
				mute.dead.Store(tc.dies)
				kill()
				time.Sleep(tc.within)
				if runs.Load() != 2 {
					t.Errorf("%d of 2 requests were taken up", runs.Load())
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				if n := p.messages(t, requestQueue); n != 0 {
					t.Errorf("%d requests are left", n)
				}
			})
		})
	}
}

// A copy that another process handles waits hidden, and takes nobody's place.
func TestBusyCopyWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		store := rpcclient.NewMemoryReplyStore(100)
		var runs atomic.Int64
		slow := func(ctx context.Context, r sumRequest) (sumReply, error) {
			if len(r.Numbers) == 2 {
				runs.Add(1)
				time.Sleep(40 * time.Second)
			}
			return addUp(ctx, r)
		}
		for range 2 {
			p.serve(t, slow, rpcclient.WithReplyStore(store), rpcclient.WithConcurrency(1))
		}
		p.copies(t, 2, "calculate_sum", `{"Numbers":[1,2]}`, "1")
		time.Sleep(5 * time.Second)
		p.call(t) // in the place of the copy that waits
		time.Sleep(50 * time.Second)
		if runs.Load() != 1 || p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != 2 {
			t.Errorf("%d runs, %d requests left, %d replies", runs.Load(), p.messages(t, requestQueue), p.messages(t, replyQueue))
		}
	})
}

// A FIFO group is handled in order, also when one of its messages has to come again; those behind it are not
// counted as received with each of its attempts.
func TestFIFOGroupStopsAtWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := sqstest.New()
		p := &pair{server: s, client: s.Client()}
		p.url, p.replyURL = p.queue(t, "rq_test_ns_f.fifo"), p.queue(t, replyQueue)
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
		r, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		defer func() { _ = r.Shutdown(t.Context()) }()
		for i := range 5 {
			if err := sum.Notify(t.Context(), channel, sumRequest{Numbers: []int{i}}, rpcclient.CallGroup("g")); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var order []int
		failures, most := 0, 0
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			mu.Lock()
			defer mu.Unlock()
			if r.Numbers[0] == 1 && failures < 4 {
				failures++
				return sumReply{}, errors.New("not now")
			}
			order = append(order, r.Numbers[0])
			if info, _ := rpcclient.InfoFromContext(ctx); r.Numbers[0] > 1 {
				most = max(most, info.ReceiveCount)
			}
			return addUp(ctx, r)
		})
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(order) != "[0 1 2 3 4]" || most > 3 { // together at first, and by a poll that was under way
			t.Errorf("the order is %v, and another than the one that failed was received %d times", order, most)
		}
	})
}

// Nor does a message of a group go before one whose refusal left it in the queue.
func TestFIFOGroupStopsAtARefusal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		url := p.queue(t, "rq_test_ns_f.fifo")
		p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: url})}
		_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.queue(t, "rq_test_r_0002")))
		first := rpcclient.NewMethod[int, int]("unknown").Start(t.Context(), channel, 1, rpcclient.CallGroup("g"), rpcclient.CallTimeout(time.Minute))
		time.Sleep(time.Second)
		second := sum.Start(t.Context(), channel, sumRequest{}, rpcclient.CallGroup("g"), rpcclient.CallTimeout(time.Minute))
		time.Sleep(time.Second)
		p.fault(sqstest.Rule{Fault: sqstest.DropBefore, Action: "DeleteMessageBatch", Count: 3})
		started := time.Now()
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if since := time.Since(started); since < 5*time.Second { // the first comes again when its visibility ends
				t.Errorf("the second was handled after %s, before the first", since)
			}
			return addUp(ctx, r)
		})
		_, err := first.Wait(t.Context())
		wantOutcome(t, err, rpcclient.Unimplemented, rpcclient.MaybeExecuted) // it was received twice
		if _, err := second.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
