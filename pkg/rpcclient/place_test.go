package rpcclient_test

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// fleet is a requester of channels "heavy" and "light", whose dead letters go to the queue "dead".
func fleet(t *testing.T, maxReceives int, channel rpcclient.ChannelConfig) (p *pair, channels map[string]*rpcclient.Channel) {
	t.Helper()
	s := sqstest.New()
	p = &pair{server: s, client: s.Client()}
	p.replyURL = p.queue(t, replyQueue)
	p.queue(t, "dead")
	configs := []rpcclient.ChannelConfig{channel, channel}
	for i, name := range []string{"heavy", "light"} {
		configs[i].Name, configs[i].URL = name, p.queue(t, "rq_test_ns_"+name)
		if _, err := p.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &configs[i].URL, Attributes: map[string]string{
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"%d"}`, maxReceives),
		}}); err != nil {
			t.Fatal(err)
		}
	}
	p.options = []rpcclient.Option{rpcclient.WithChannels(configs...)}
	r, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(p.replyURL), p.options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	channels = map[string]*rpcclient.Channel{}
	for _, c := range configs {
		if channels[c.Name], err = r.Channel(c.Name); err != nil {
			t.Fatal(err)
		}
	}
	return p, channels
}

// occupy has a handler run for as long as took.
func occupy(channel *rpcclient.Channel, took time.Duration) *rpcclient.Pending[sumReply] {
	return sum.Start(context.Background(), channel, sumRequest{Numbers: []int{int(took)}}, rpcclient.CallTimeout(time.Hour))
}

func sleepFor(ctx context.Context, r sumRequest) (sumReply, error) {
	if len(r.Numbers) > 0 {
		time.Sleep(time.Duration(r.Numbers[0]))
	}
	return addUp(ctx, r)
}

// What comes to responders that are all busy, by polls that were under way when they became so, waits for one of them. It
// is nobody's dead letter, however few receives that takes.
func TestBusyRespondersMakeNoDeadLetters(t *testing.T) {
	for _, tc := range []struct{ responders, places, maxReceives, known int }{
		{5, 1, 1, 0}, {5, 1, 3, 0}, {5, 1, 2, 2}, {5, 1, 3, 3}, {12, 2, 5, 5}, {3, 8, 3, 3},
	} {
		for _, to := range []string{"heavy", "light"} {
			t.Run(fmt.Sprintf("%+v %s", tc, to), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p, channels := fleet(t, tc.maxReceives, rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: tc.known})
					for range tc.responders {
						p.serve(t, sleepFor, rpcclient.WithConcurrency(tc.places))
					}
					time.Sleep(time.Second)
					var all []*rpcclient.Pending[sumReply]
					for range tc.responders * tc.places {
						all = append(all, occupy(channels["heavy"], 40*time.Second))
						time.Sleep(10 * time.Millisecond)
					}
					time.Sleep(time.Second)
					for range 3 {
						all = append(all, occupy(channels[to], 0))
					}
					started := time.Now()
					for _, c := range all {
						if _, err := c.Wait(t.Context()); err != nil {
							t.Error(err)
						}
					}
					if took := time.Since(started); took > 90*time.Second {
						t.Errorf("it took %s", took)
					}
					if n := p.messages(t, "dead"); n != 0 {
						t.Errorf("%d dead letters", n)
					}
				})
			})
		}
	}
}

// What waits at a busy responder is for another that is free, where being received again does no harm.
func TestWaitingRequestGoesToAFreeResponder(t *testing.T) {
	for name, tc := range map[string]struct {
		channel rpcclient.ChannelConfig
		busy    int // responders to which it comes first
		want    time.Duration
	}{
		"no dead-letter queue":   {channel: rpcclient.ChannelConfig{}, busy: 1, want: time.Second},
		"receives left":          {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 5}, busy: 1, want: time.Second},
		"receives left, twice":   {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 5}, busy: 2, want: 3 * time.Second},
		"three times":            {channel: rpcclient.ChannelConfig{}, busy: 3, want: 7 * time.Second},
		"no receives left":       {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 2}, busy: 1, want: 2 * time.Minute},
		"none left after one":    {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 3}, busy: 2, want: 2 * time.Minute},
		"receives are not known": {channel: rpcclient.ChannelConfig{DeadLetter: true}, busy: 1, want: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, channels := fleet(t, 5, tc.channel)
				for range tc.busy {
					p.serve(t, sleepFor, rpcclient.WithConcurrency(1))
				}
				time.Sleep(time.Second)
				for range tc.busy {
					job := occupy(channels["heavy"], 2*time.Minute)
					defer func() { _, _ = job.Wait(context.Background()) }()
				}
				time.Sleep(time.Second)
				started := time.Now()
				waiting := occupy(channels["light"], 0)
				time.Sleep(500 * time.Millisecond)
				free := time.AfterFunc(time.Duration(tc.busy-1)*time.Second, func() { p.serve(t, sleepFor, rpcclient.WithConcurrency(1)) })
				defer free.Stop()
				if _, err := waiting.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(started); took < tc.want-2*time.Second || took > tc.want+2*time.Second {
					t.Errorf("it took %s, want about %s", took, tc.want)
				}
			})
		})
	}
}

// A call is in time for the responder that is free, however many that are full have its request first.
func TestWaitingRequestIsInTimeElsewhere(t *testing.T) {
	const full = 8
	bubble(t, func(t *testing.T) {
		p, channels := fleet(t, 1000, rpcclient.ChannelConfig{})
		for range full {
			p.serve(t, sleepFor, rpcclient.WithConcurrency(1))
		}
		time.Sleep(time.Second)
		for range full {
			job := occupy(channels["heavy"], 2*time.Minute)
			defer func() { _, _ = job.Wait(context.Background()) }()
		}
		time.Sleep(time.Second)
		waiting := sum.Start(t.Context(), channels["light"], sumRequest{}, rpcclient.CallTimeout(20*time.Second))
		time.Sleep(time.Second / 2)
		p.serve(t, sleepFor, rpcclient.WithConcurrency(1))
		if _, err := waiting.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// While a request waits for a place its time runs on.
func TestWaitingRequestIsRefusedInTime(t *testing.T) {
	for name, tc := range map[string]struct {
		opts []rpcclient.Option
		code rpcclient.Code
		want time.Duration
	}{
		"deadline":  {code: rpcclient.DeadlineExceeded, want: 20 * time.Second},
		"queue age": {opts: []rpcclient.Option{rpcclient.WithMaxQueueAge(12 * time.Second)}, code: rpcclient.Unavailable, want: 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, channels := fleet(t, 1, rpcclient.ChannelConfig{DeadLetter: true, MaxAttempts: 1})
				var ran atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					ran.Add(1)
					return sleepFor(ctx, r)
				}, append(tc.opts, rpcclient.WithConcurrency(1))...)
				time.Sleep(time.Second)
				job := occupy(channels["heavy"], time.Minute)
				time.Sleep(time.Second)
				started := time.Now()
				_, err := sum.Call(t.Context(), channels["light"], sumRequest{}, rpcclient.CallTimeout(20*time.Second))
				if took := time.Since(started); rpcclient.CodeOf(err) != tc.code || took < tc.want || took > tc.want+2*time.Second {
					t.Errorf("after %s: %v", took, err)
				}
				time.Sleep(3 * time.Second)
				if n := p.messages(t, "rq_test_ns_light") + p.messages(t, "dead"); n != 0 {
					t.Errorf("%d messages are left", n)
				}
				if _, err := job.Wait(t.Context()); err != nil || ran.Load() != 1 {
					t.Errorf("%d handlers ran; the first call: %v", ran.Load(), err)
				}
			})
		})
	}
}

// What is answered just before its deadline is deleted before it is given out again: this was its last receive.
func TestLastMomentsMakeNoDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, channels := fleet(t, 1, rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 1})
		p.serve(t, sleepFor, rpcclient.WithConcurrency(1))
		time.Sleep(time.Second)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "DeleteMessageBatch", Duration: 100 * time.Millisecond})
		// Renewed at 6 s, for what is left.
		if _, err := sum.Call(t.Context(), channels["light"], sumRequest{Numbers: []int{int(11040 * time.Millisecond)}}, rpcclient.CallTimeout(11300*time.Millisecond)); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		if n := p.messages(t, "dead"); n != 0 {
			t.Errorf("%d dead letters", n)
		}
	})
}

// A responder that is shut down serves what waits for a place, or puts it back for others at once.
func TestShutdownWithAWaitingRequest(t *testing.T) {
	for name, tc := range map[string]struct {
		channel rpcclient.ChannelConfig
		timeout time.Duration // of the call that waits
		back    int           // requests that others can receive
	}{
		"served":                {channel: rpcclient.ChannelConfig{DeadLetter: true}},
		"served, last receive":  {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 1}},
		"put back":              {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 5}, back: 1},
		"put back, one is left": {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 2}, timeout: 20 * time.Second, back: 1},
		"served, one is left":   {channel: rpcclient.ChannelConfig{DeadLetter: true, MaxReceiveCount: 2}, timeout: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p, channels := fleet(t, 5, tc.channel)
				stop := p.serve(t, sleepFor, rpcclient.WithConcurrency(1))
				time.Sleep(time.Second)
				job := occupy(channels["heavy"], 10*time.Second)
				time.Sleep(time.Second)
				waiting := sum.Start(context.Background(), channels["light"], sumRequest{}, rpcclient.CallTimeout(cmp.Or(tc.timeout, time.Hour)))
				time.Sleep(500 * time.Millisecond)
				go stop()
				time.Sleep(500 * time.Millisecond)
				if n := p.visible(t, "rq_test_ns_light"); n != tc.back {
					t.Errorf("%d requests can be received by others, want %d", n, tc.back)
				}
				if tc.back > 0 {
					p.serve(t, sleepFor)
				}
				for _, c := range []*rpcclient.Pending[sumReply]{job, waiting} {
					if _, err := c.Wait(t.Context()); err != nil {
						t.Error(err)
					}
				}
				stop()
			})
		})
	}
}

// visible is how many messages of a queue can be received.
func (p *pair) visible(t *testing.T, queue string) int {
	t.Helper()
	q, ok := p.server.Queue(queue)
	if !ok {
		t.Fatalf("no queue %s", queue)
	}
	return q.Visible
}

// The messages of one group that come together take one place: the others run handlers of other groups.
func TestGroupTakesOnePlace(t *testing.T) {
	for _, places := range []int{1, 10, 64} {
		t.Run(fmt.Sprint(places), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := sqstest.New()
				p := &pair{server: s, client: s.Client()}
				p.url, p.replyURL = p.queue(t, "rq_test_ns_login.fifo"), p.queue(t, replyQueue)
				p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
				_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
				var all []*rpcclient.Pending[sumReply]
				for g := range 2 * places {
					for range 10 {
						all = append(all, sum.Start(context.Background(), channel, sumRequest{}, rpcclient.CallGroup(fmt.Sprint(g)), rpcclient.CallTimeout(20*time.Minute)))
					}
				}
				time.Sleep(2 * time.Second)
				var mu sync.Mutex
				now, most := 0, 0
				started := time.Now()
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					now--
					mu.Unlock()
					return addUp(ctx, r)
				}, rpcclient.WithConcurrency(places))
				for _, c := range all {
					if _, err := c.Wait(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(started); most != places || took > 28*time.Second {
					t.Errorf("at most %d handlers ran at once, and it took %s; want %d, and 20 s with all of them", most, took, places)
				}
			})
		})
	}
}
