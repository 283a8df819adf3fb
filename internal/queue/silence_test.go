package queue

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
)

// creating answers CreateQueue, for many at once.
type creating struct {
	API
	create func(context.Context) error
}

func (c creating) CreateQueue(ctx context.Context, _ *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	return &sqs.CreateQueueOutput{}, c.create(ctx)
}

// A provider that gets no answers holds a worker for one request at a time, less and less often, and all are sent again as soon
// as one is answered. Others are not held up, wherever they lead.
func TestOneAtATimeWhereNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		away, sent, waited := true, 0, time.Duration(0)
		refusal := error(nil)
		api := creating{create: func(ctx context.Context) error {
			mu.Lock()
			sent++
			now := away
			mu.Unlock()
			if now {
				<-ctx.Done()
				return ctx.Err()
			}
			return refusal
		}}
		metrics, turns := NewMetrics(prometheus.NewRegistry()), &atomic.Pointer[limiter]{}
		turns.Store(newLimiter(DefaultLimits, clock.RealClock{}))
		guarded := guardWith(turns, api, "p", metrics, clock.RealClock{})
		// The same account and region, by another endpoint.
		neighbour := guardWith(turns, creating{create: func(context.Context) error { return nil }}, "n", metrics, clock.RealClock{})
		try := func(ctx context.Context) error {
			start := time.Now()
			_, err := guarded.CreateQueue(ctx, &sqs.CreateQueueInput{})
			mu.Lock()
			waited += time.Since(start)
			mu.Unlock()
			return err
		}
		stop, cancel := context.WithCancel(t.Context())
		defer cancel()
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for stop.Err() == nil {
					if err := try(t.Context()); err != nil && (Classify(err) != Transient || Explain(err) != "no answer in time") {
						t.Errorf("%v is %s, and told as %q", err, Classify(err), Explain(err))
					}
					if _, err := neighbour.CreateQueue(t.Context(), &sqs.CreateQueueInput{}); err != nil && Classify(err) != Throttled {
						t.Errorf("a neighbour's request: %v", err)
					}
					time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's time
				}
			})
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // the bubble's time
		mu.Lock()
		// Eight that began at once, and then one in every 4+1, 4+2, … and at last 4+16 seconds.
		if sent < 8+30 || sent > 8+36 {
			t.Errorf("%d requests were sent in ten minutes", sent)
		}
		if share := waited.Seconds() / (8 * 600); share > 0.05 {
			t.Errorf("workers spent %.0f %% of their time waiting", 100*share)
		}
		before := sent
		mu.Unlock()
		for range 3 {
			if err := try(Anyway(t.Context())); errors.As(err, new(*notSent)) {
				t.Error("who asks anyway is not sent either")
			}
		}
		mu.Lock()
		if sent < before+3 {
			t.Errorf("%d requests were sent of 3 that are to be sent anyway", sent-before)
		}
		away, before = false, sent
		mu.Unlock()
		time.Sleep(longestSilence + RequestTimeout + time.Second) //nolint:forbidigo // the bubble's time
		mu.Lock()
		if sent < before+8*5 {
			t.Errorf("%d requests in the moment after the place was back", sent-before)
		}
		mu.Unlock()
		cancel()
		workers.Wait()

		// What is refused is answered. Two without an answer are none too many, and neither are those that their callers gave up.
		refusal = &smithy.GenericAPIError{Code: "AccessDenied"}
		for i := range 20 {
			away = i%4 != 0
			ctx, end := t.Context(), context.CancelFunc(func() {})
			if i%4 == 3 {
				ctx, end = context.WithTimeout(ctx, time.Second)
			}
			err := try(ctx)
			end()
			if not := (*notSent)(nil); errors.As(err, &not) {
				t.Fatalf("request %d: %v", i, err)
			}
		}
	})
}

// The one request that tries whether anything answers again, and gets no turn of our own limiter's, leaves the try to the next.
func TestATryWithoutATurnIsLeftToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := false
		api := creating{create: func(ctx context.Context) error {
			if answers {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		turns := &atomic.Pointer[limiter]{}
		turns.Store(newLimiter(DefaultLimits, clock.RealClock{}))
		g := guardWith(turns, api, "p", NewMetrics(prometheus.NewRegistry()), clock.RealClock{})
		create := func() error {
			_, err := g.CreateQueue(t.Context(), &sqs.CreateQueueInput{})
			return err
		}
		for range silentAfter {
			if err := create(); !Unanswered(err) {
				t.Fatal(err)
			}
		}
		answers = true
		<-time.After(longestSilence)
		crowded := newLimiter(Limits{Read: 0.001, Write: 0.001, Tag: 0.001}, clock.RealClock{})
		for i := range 3 { // Others of the account have all turns.
			_, _ = crowded.wait(t.Context(), write, "CreateQueue", strconv.Itoa(i))
		}
		turns.Store(crowded)
		if err := create(); Classify(err) != Throttled {
			t.Fatalf("%v, want no turn", err)
		}
		turns.Store(newLimiter(DefaultLimits, clock.RealClock{}))
		if err := create(); err != nil {
			t.Errorf("the next: %v", err)
		}
	})
}
