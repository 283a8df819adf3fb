package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// ledger is what was really executed, kept by the handlers.
type ledger struct {
	mu   sync.Mutex
	runs map[int]map[string]int // call → responder → runs
}

func (l *ledger) ran(call int, responder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[call] == nil {
		l.runs[call] = map[string]int{}
	}
	l.runs[call][responder]++
}

// Whatever goes wrong: every call ends by its deadline, once, with its own reply or an error whose
// outcome is true; and no responder runs a call twice.
func TestPromisesUnderFaults(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { promises(t, uint64(seed)) })
		})
	}
}

func promises(t *testing.T, seed uint64) {
	p := newPair(t)
	plan := sqstest.Plan{Seed: seed, Rules: []sqstest.Rule{
		{Fault: sqstest.Throttle, Probability: 0.03},
		{Fault: sqstest.ServerError, Probability: 0.02},
		{Fault: sqstest.ServerErrorAfter, Probability: 0.02},
		{Fault: sqstest.HTMLUnavailable, Probability: 0.01},
		{Fault: sqstest.DropBefore, Probability: 0.02},
		{Fault: sqstest.DropAfter, Probability: 0.02},
		{Fault: sqstest.BlackHole, Probability: 0.003},
		{Fault: sqstest.CutBody, Probability: 0.01},
		{Fault: sqstest.Delay, Probability: 0.05, Duration: 700 * time.Millisecond},
		{Fault: sqstest.PartialBatch, Probability: 0.05},
		{Fault: sqstest.Duplicate, Probability: 0.1},
		{Fault: sqstest.Reorder, Probability: 0.2},
		{Fault: sqstest.DeliveryLag, Probability: 0.05, Duration: 3 * time.Second},
		{Fault: sqstest.Sharded, Probability: 0.3},
		{Fault: sqstest.AbandonPoll},
	}}
	books := &ledger{runs: map[int]map[string]int{}}
	for _, name := range []string{"a", "b"} {
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			n := r.Numbers[0]
			books.ran(n, name)
			switch n % 10 {
			case 0:
				return sumReply{}, rpcclient.Errorf(rpcclient.NotFound, "call %d", n)
			case 1: // longer than the call's deadline
				<-ctx.Done()
				return sumReply{}, context.Cause(ctx)
			case 2: // longer than a visibility timeout
				time.Sleep(12 * time.Second)
			}
			return addUp(ctx, r)
		})
	}
	p.server.SetFaults(plan)

	type end struct {
		call  int
		reply sumReply
		err   error
		late  time.Duration
	}
	const calls = 300
	ends := make(chan end, calls)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range calls {
		timeout := 5 * time.Second
		if i%10 == 2 {
			timeout = 25 * time.Second
		}
		go func() {
			started := time.Now()
			reply, err := sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{i, 1}}, rpcclient.CallTimeout(timeout))
			ends <- end{i, reply, err, time.Since(started) - timeout}
		}()
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
	}
	outcomes := map[string]int{}
	failed := map[int]*rpcclient.Error{}
	for range calls {
		e := <-ends
		if e.late > time.Second {
			t.Errorf("call %d ended %s after its deadline: %v", e.call, e.late, e.err)
		}
		var failure *rpcclient.Error
		switch {
		case e.err == nil:
			outcomes["ok"]++
			if e.reply.Sum != e.call+1 || e.call%10 < 2 {
				t.Errorf("call %d got the reply %v", e.call, e.reply)
			}
		case !errors.As(e.err, &failure):
			t.Errorf("call %d ended in %T: %v", e.call, e.err, e.err)
		default:
			outcomes[string(failure.Code)+"/"+failure.Outcome.String()]++
			if rpcclient.IsRemote(e.err) && failure.Code != rpcclient.DeadlineExceeded && failure.Message != fmt.Sprintf("call %d", e.call) {
				t.Errorf("call %d got another's error: %v", e.call, e.err)
			}
			failed[e.call] = failure
		}
	}
	time.Sleep(2 * time.Minute) // deadlines, visibility and lags are over
	books.mu.Lock()
	defer books.mu.Unlock()
	for call, failure := range failed {
		ran := len(books.runs[call]) > 0
		if ran && (failure.Outcome == rpcclient.NotSent || failure.Outcome == rpcclient.Rejected) {
			t.Errorf("call %d was executed, and ended in %v", call, failure)
		}
		if !ran && failure.Outcome == rpcclient.Executed {
			t.Errorf("call %d was not executed, and ended in %v", call, failure)
		}
	}
	for call, by := range books.runs {
		for responder, n := range by {
			if n > 1 {
				t.Errorf("responder %s ran call %d %d times", responder, call, n)
			}
		}
	}
	if outcomes["ok"] < calls/2 {
		t.Errorf("outcomes: %v", outcomes)
	}
	if n := p.requester.Pending(); n != 0 {
		t.Errorf("%d calls are pending for ever", n)
	}
	t.Logf("outcomes: %v; hits by rule: %v", outcomes, p.server.FaultHits())
}
