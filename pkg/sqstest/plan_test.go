package sqstest_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestPlansWithoutANumberAreRefused(t *testing.T) {
	for _, r := range []sqstest.Rule{
		{Fault: sqstest.Throttle, Probability: math.NaN()},
		{Fault: sqstest.Delay, Duration: time.Second, Spread: math.NaN()},
		{Fault: sqstest.Delay, Duration: time.Second, Spread: 4},
		{Fault: sqstest.Throttle, Spread: 0.5},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("SetFaults took %+v", r)
				}
			}()
			sqstest.New().SetFaults(plan(r))
		}()
	}
}

func TestNothingMayFollowAPlan(t *testing.T) {
	for _, more := range []string{`{"rules":[]}`, `x`, `]`, `,`} {
		if p, err := sqstest.ParsePlan(`{"rules":[{"fault":"Throttle"}]} ` + more); err == nil || len(p.Rules) > 0 {
			t.Errorf("with %q after it: %v, %v", more, p, err)
		}
	}
	if _, err := sqstest.ParsePlan("{\"rules\":[{\"fault\":\"Throttle\"}]}\n"); err != nil {
		t.Errorf("with a line's end after it: %v", err)
	}
}

func TestAPlanIsCopied(t *testing.T) {
	p := plan(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessage"})
	s := sqstest.New(sqstest.WithFaults(p))
	p.Rules[0].Action = "ListQueues"
	if _, err := s.Client(noRetries).ListQueues(t.Context(), &sqs.ListQueuesInput{}); err != nil {
		t.Errorf("the plan was changed from outside: %v", err)
	}
}

// Counts are each queue's own: however the requests to several queues interleave, each queue sees the same.
func TestReplayUnderConcurrency(t *testing.T) {
	p := plan(
		sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessage", Probability: 0.4, Count: 3},
		sqstest.Rule{Fault: sqstest.ServerError, Action: "SendMessage", Skip: 2, Count: 1},
	)
	queues := []string{"a", "b", "c", "d"}
	play := func(order func(ask map[string]func())) map[string]string {
		s := sqstest.New(sqstest.WithFaults(p))
		c := s.Client(noRetries)
		var mu sync.Mutex
		outcome := map[string]string{}
		ask := map[string]func(){}
		for _, q := range queues {
			url := create(t, c, q, nil)
			ask[q] = func() {
				_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
				mark := "."
				switch {
				case isA[*types.RequestThrottled](err):
					mark = "T"
				case err != nil:
					mark = "E"
				}
				mu.Lock()
				defer mu.Unlock()
				outcome[q] += mark
			}
		}
		order(ask)
		return outcome
	}
	const each = 20
	oneByOne := play(func(ask map[string]func()) {
		for _, q := range queues {
			for range each {
				ask[q]()
			}
		}
	})
	atOnce := play(func(ask map[string]func()) {
		var wg sync.WaitGroup
		for _, q := range queues {
			wg.Go(func() {
				for range each {
					ask[q]()
				}
			})
		}
		wg.Wait()
	})
	for _, q := range queues {
		if n := strings.Count(oneByOne[q], "T"); n != 3 {
			t.Errorf("queue %s: %d throttled, want 3: %s", q, n, oneByOne[q])
		}
	}
	if fmt.Sprint(oneByOne) != fmt.Sprint(atOnce) {
		t.Errorf("one queue after the other:\n%v\nall at once:\n%v", oneByOne, atOnce)
	}
}

// The delays of a spread rule are lognormal: their median is the Duration, and their logarithms' deviation the Spread.
func TestSpreadDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []sqstest.Fault{sqstest.Delay, sqstest.DelayAfter} {
			s := sqstest.New(sqstest.WithFaults(plan(sqstest.Rule{Fault: fault, Duration: 10 * time.Millisecond, Spread: 0.5})))
			c := s.Client(noRetries)
			logs := make([]float64, 2000)
			for i := range logs {
				start := time.Now()
				if _, err := c.ListQueues(t.Context(), &sqs.ListQueuesInput{}); err != nil {
					t.Fatal(err)
				}
				logs[i] = math.Log(float64(time.Since(start)) / float64(10*time.Millisecond))
			}
			slices.Sort(logs)
			if median := logs[len(logs)/2]; math.Abs(median) > 0.05 {
				t.Errorf("%s: the median is 10 ms times e^%.3f", fault, median)
			}
			// Of a normal distribution, 15.87 % lie below the mean less a deviation, and as many beyond the other side.
			low, high := logs[len(logs)*1587/10000], logs[len(logs)*8413/10000]
			if math.Abs(low+0.5) > 0.05 || math.Abs(high-0.5) > 0.05 {
				t.Errorf("%s: a deviation from the median is %.3f and %.3f, want -0.5 and 0.5", fault, low, high)
			}
		}
	})
}

// The way back takes its time after the effect, and messages are in flight meanwhile.
func TestDelayAfterHasTheEffectFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqstest.New()
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		s.SetFaults(plan(sqstest.Rule{Fault: sqstest.DelayAfter, Duration: time.Second}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			send(t, c, url, "x")
		}()
		synctest.Wait()
		if q, _ := s.Queue("q"); q.Visible != 1 {
			t.Errorf("%d messages while the answer is under way", q.Visible)
		}
		<-done
		start := time.Now()
		if m := mustPoll(t, c, url, 1, 20); len(m) != 1 || time.Since(start) != time.Second {
			t.Errorf("%d messages after %v", len(m), time.Since(start))
		}
	})
}

// A batch wakes a poll with its first message; the others are there for the next receive.
func TestLoneWakeUps(t *testing.T) {
	for _, lone := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := sqstest.New()
			if lone {
				s.SetFaults(plan(sqstest.Rule{Fault: sqstest.LoneWakeUp, Queue: "q"}))
			}
			c := s.Client(noRetries)
			url := create(t, c, "q", nil)
			polled := make(chan []types.Message)
			go func() { polled <- mustPoll(t, c, url, 10, 20) }()
			synctest.Wait()
			var entries []types.SendMessageBatchRequestEntry
			for _, id := range []string{"a", "b", "c", "d"} {
				entries = append(entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &id})
			}
			if _, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries}); err != nil {
				t.Fatal(err)
			}
			first, rest := <-polled, mustPoll(t, c, url, 10, 0)
			if want := map[bool]int{false: 4, true: 1}[lone]; len(first) != want || len(first)+len(rest) != 4 {
				t.Errorf("lone %v: woken with %d messages, then %d", lone, len(first), len(rest))
			}
		})
	}
}

func TestAWSLike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := sqstest.AWSLike(7)
		again, err := sqstest.ParsePlan(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%v: %s became %s", err, p, again)
		}
		s := sqstest.New(sqstest.WithFaults(p))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		var took []time.Duration
		for range 500 {
			start := time.Now()
			send(t, c, url, "x")
			took = append(took, time.Since(start))
		}
		sizes := map[int]int{}
		for left := 500; left > 0; {
			n := len(mustPoll(t, c, url, 10, 0))
			sizes[n]++
			left -= n
		}
		slices.Sort(took)
		if median, late := took[250], took[495]; median < 9*time.Millisecond || median > 12*time.Millisecond || late > 30*time.Millisecond {
			t.Errorf("median %v, 99 %% within %v", median, late)
		}
		for n := 1; n <= 10; n++ {
			if sizes[n] == 0 {
				t.Errorf("no receive found %d messages: %v", n, sizes)
			}
		}
	})
}
