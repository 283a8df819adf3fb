package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

// scripted answers CreateQueue with what the test says; every other method is a nil call and panics.
type scripted struct {
	API
	create func(context.Context) error
	calls  int
}

func (s *scripted) CreateQueue(ctx context.Context, _ *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	s.calls++
	if err := s.create(ctx); err != nil {
		return nil, err
	}
	url := "http://localhost/000000000000/q"
	return &sqs.CreateQueueOutput{QueueUrl: &url}, nil
}

func TestGuardPostponesWhatAWorkerShouldNotWaitFor(t *testing.T) {
	ctx := t.Context()
	clk := testingclock.NewFakeClock(time.Unix(0, 0))
	api := &scripted{create: func(context.Context) error { return nil }}
	metrics := NewMetrics(prometheus.NewRegistry())
	guarded := Guard(api, "p", Limits{Read: 1, Write: 2, Tag: 1}, metrics, clk)

	for range 2 {
		if _, err := guarded.CreateQueue(ctx, &sqs.CreateQueueInput{}); err != nil {
			t.Fatalf("within the burst: %v", err)
		}
	}
	var turns []time.Duration
	for _, name := range []string{"a", "b", "c"} {
		_, err := guarded.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
		after, ok := RetryAfter(err)
		if !ok || Classify(err) != Throttled {
			t.Fatalf("beyond the burst: %v", err)
		}
		turns = append(turns, after)
	}
	for i := 1; i < len(turns); i++ {
		if turns[i]-turns[i-1] != 500*time.Millisecond {
			t.Errorf("turns %v are not given out one by one at the rate", turns)
		}
	}
	if api.calls != 2 {
		t.Errorf("%d requests were sent, want 2", api.calls)
	}
	if got := testutil.ToFloat64(metrics.limited.WithLabelValues("p", "CreateQueue")); got != 3 {
		t.Errorf("%v postponed, want 3", got)
	}
	clk.Step(turns[0])
	if _, err := guarded.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("a")}); err != nil {
		t.Errorf("at its turn: %v", err)
	}
}

// line is a limiter for two writes a second that has nothing saved up, with somebody to stand in its line.
func line(t *testing.T) (*limiter, *testingclock.FakeClock, func(key string) (turn, time.Duration)) {
	t.Helper()
	clk := testingclock.NewFakeClock(time.Unix(0, 0))
	l := newLimiter(Limits{Read: 2, Write: 2, Tag: 2}, clk)
	ask := func(key string) (turn, time.Duration) {
		t.Helper()
		got, err := l.wait(t.Context(), write, "CreateQueue", key)
		after, _ := RetryAfter(err)
		return got, after
	}
	for _, key := range []string{"early", "earlier"} {
		if _, after := ask(key); after != 0 {
			t.Fatalf("within the burst: %s", after)
		}
	}
	return l, clk, ask
}

func TestFirstComeFirstServed(t *testing.T) {
	_, clk, ask := line(t)
	for _, key := range []string{"a", "b", "c"} {
		ask(key)
	}
	_, again := ask("c") // woken by something else
	if again != 1501*time.Millisecond {
		t.Errorf("c, who is the third in the line, waits for %s", again)
	}
	clk.Step(again)
	if _, after := ask("late"); after == 0 {
		t.Error("who came last went first, past three who waited")
	}
	for _, key := range []string{"a", "b"} {
		if _, after := ask(key); after != 0 {
			t.Errorf("%s waits for %s", key, after)
		}
	}
	_, c := ask("c") // no more than a second's turns are saved up
	if _, late := ask("late"); c == 0 || late <= c {
		t.Errorf("c waits for %s, and who came after it for %s", c, late)
	}
}

func TestWhoIsThrottledKeepsItsPlace(t *testing.T) {
	l, clk, ask := line(t)
	ask("a")
	ask("b")
	clk.Step(510 * time.Millisecond)
	first, after := ask("a")
	if after != 0 {
		t.Fatalf("a waits for %s", after)
	}
	l.answered(write, Throttled)
	if after = l.again(write, first); after < 950*time.Millisecond || after > 1100*time.Millisecond {
		t.Errorf("a is to come back after %s, want a second: the rate was halved", after)
	}
	if _, behind := ask("b"); behind <= after {
		t.Errorf("b, after %s, overtakes a, after %s", behind, after)
	}
	clk.Step(after)
	if _, after := ask("a"); after != 0 {
		t.Errorf("a waits for %s", after)
	}
}

func TestWhoNeverComesBackHoldsNobodyUp(t *testing.T) {
	_, clk, ask := line(t)
	for _, key := range []string{"gone", "gone too", "gone as well"} {
		ask(key)
	}
	clk.Step(time.Second + missed + time.Second)
	for _, key := range []string{"x", "y"} {
		if _, after := ask(key); after != 0 {
			t.Errorf("%s waits for %s", key, after)
		}
	}
}

func TestNothingSavedUpIsSpentOnAThrottlingService(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Unix(0, 0))
	l := newLimiter(Limits{Read: 8, Write: 8, Tag: 8}, clk)
	if _, err := l.wait(t.Context(), write, "CreateQueue", "a"); err != nil {
		t.Fatal(err)
	}
	l.answered(write, Throttled)
	if _, err := l.wait(t.Context(), write, "CreateQueue", "b"); err == nil {
		t.Error("the seven turns that were saved up are still to be had")
	}
}

func TestGuardSlowsDownWhenThrottledAndRecovers(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Unix(0, 0))
	l := newLimiter(Limits{Read: 8, Write: 8, Tag: 8}, clk)
	for _, want := range []float64{4, 2, 1, 1} {
		l.answered(write, Throttled)
		if got := float64(l.lanes[write].now.Limit()); got != want {
			t.Fatalf("rate after being throttled: %v, want %v", got, want)
		}
	}
	if got := float64(l.lanes[read].now.Limit()); got != 8 {
		t.Errorf("another class slowed down to %v", got)
	}
	for range recovery {
		l.answered(write, None)
	}
	if got := float64(l.lanes[write].now.Limit()); got != 8 {
		t.Errorf("rate after recovery: %v, want 8", got)
	}
}

func TestGuardHonoursTheContext(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Unix(0, 0))
	api := &scripted{create: func(context.Context) error { return nil }}
	guarded := Guard(api, "p", Limits{Read: 10, Write: 10, Tag: 10}, NewMetrics(prometheus.NewRegistry()), clk)
	for range 10 {
		if _, err := guarded.CreateQueue(t.Context(), &sqs.CreateQueueInput{}); err != nil {
			t.Fatal(err)
		}
	}
	cause := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := guarded.CreateQueue(ctx, &sqs.CreateQueueInput{}); !errors.Is(err, cause) {
		t.Errorf("got %v, want the context's cause", err)
	}
}

func TestGuardCountsByOutcomeAndBoundsEachRequest(t *testing.T) {
	api := &scripted{create: func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the request has no time limit")
		}
		return &types.QueueNameExists{}
	}}
	metrics := NewMetrics(prometheus.NewRegistry())
	guarded := Guard(api, "p", DefaultLimits, metrics, testingclock.NewFakeClock(time.Unix(0, 0)))
	if _, err := guarded.CreateQueue(t.Context(), &sqs.CreateQueueInput{}); Classify(err) != Exists {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(metrics.requests.WithLabelValues("p", "CreateQueue", "Exists")); got != 1 {
		t.Errorf("%v requests counted, want 1", got)
	}
	metrics.Forget("p")
	if got := testutil.CollectAndCount(metrics.requests); got != 0 {
		t.Errorf("%d series left of a provider that is gone", got)
	}
}

type capture struct{ body io.ReadCloser }

func (c *capture) Do(r *http.Request) (*http.Response, error) {
	c.body = r.Body
	return nil, errors.New("not sent")
}

// net/http copies a body that is an io.WriterTo by that method, which is what tears the connection down.
func TestRequestBodiesHideTheirWriterTo(t *testing.T) {
	body := struct {
		*bytes.Reader
		io.Closer
	}{bytes.NewReader([]byte("{}")), io.NopCloser(nil)}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", body)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Body.(io.WriterTo); !ok {
		t.Fatal("the test's body is no io.WriterTo to begin with")
	}
	c := &capture{}
	_, _ = hideBody{c}.Do(r) //nolint:bodyclose // There is no response.
	if _, ok := c.body.(io.WriterTo); ok {
		t.Error("the body is still an io.WriterTo")
	}
}

// What was under way when a QueueProvider went leaves nothing behind in the metrics.
func TestAnAnswerAfterTheProviderIsGoneIsNotMeasured(t *testing.T) {
	metrics := NewMetrics(prometheus.NewRegistry())
	var g *guard
	api := creating{create: func(context.Context) error { g.forget(); return nil }}
	g = Guard(api, "p", DefaultLimits, metrics, testingclock.NewFakeClock(time.Unix(0, 0))).(*guard)
	if _, err := g.CreateQueue(t.Context(), &sqs.CreateQueueInput{}); err != nil {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(metrics.requests) + testutil.CollectAndCount(metrics.duration); n != 0 {
		t.Errorf("%d series are left", n)
	}
}

// Nor do requests that are not sent any more, since those before them got no answer, or since our own limiter has no turn.
func TestWhatIsNotSentAfterTheProviderIsGoneIsNotMeasured(t *testing.T) {
	for name, limits := range map[string]Limits{"no answers": DefaultLimits, "no turns": {Read: 0.001, Write: 0.001, Tag: 0.001}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				metrics := NewMetrics(prometheus.NewRegistry())
				api := creating{create: func(ctx context.Context) error {
					if name == "no answers" {
						<-ctx.Done()
					}
					return ctx.Err()
				}}
				g := Guard(api, "p", limits, metrics, clock.RealClock{}).(*guard)
				for i := range 10 {
					if i == 5 {
						if testutil.CollectAndCount(metrics.limited) == 0 {
							t.Fatal("all was sent")
						}
						g.forget()
					}
					_, _ = g.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: ptr.To(strconv.Itoa(i))})
				}
				if n := testutil.CollectAndCount(metrics.requests) + testutil.CollectAndCount(metrics.limited); n != 0 {
					t.Errorf("%d series are left", n)
				}
			})
		})
	}
}
