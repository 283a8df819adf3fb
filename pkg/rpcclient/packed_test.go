package rpcclient_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// many makes n calls at once, which must succeed.
func (p *pair) many(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { p.call(t) })
	}
	wg.Wait()
}

func TestPackedReplies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: 5 * time.Millisecond})
		const calls = 200
		p.many(t, calls)
		s := p.requester.Stats()
		if s.OK != calls || s.Packs == 0 || s.PackedReplies < calls/2 || s.LateReplies+s.ForeignReplies != 0 {
			t.Errorf("stats: %+v", s)
		}
		if n := p.server.Entries(sqstest.Action("SendMessageBatch"), sqstest.OnQueue(replyQueue)); n > calls/4 {
			t.Errorf("%d messages for %d replies", n, calls)
		}
		time.Sleep(2 * time.Second)
		if n := p.messages(t, requestQueue) + p.messages(t, replyQueue); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// Without company a reply is an ordinary one, and as fast.
func TestLoneReplyIsNotPacked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.serve(t, addUp)
		started := time.Now()
		for range 10 {
			p.call(t)
		}
		if took := time.Since(started); took != 0 {
			t.Errorf("ten calls took %s in a world without delays", took)
		}
		if s := p.requester.Stats(); s.Packs != 0 {
			t.Errorf("%d packs", s.Packs)
		}
	})
}

func TestRepliesArePackedOnRequestOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: 5 * time.Millisecond})
		p.many(t, 100)
		synctest.Wait() // a reply may be read before the request that sent it is answered, and counted
		if n := p.server.Entries(sqstest.Action("SendMessageBatch"), sqstest.OnQueue(replyQueue)); n != 100 {
			t.Errorf("%d messages for 100 replies", n)
		}
	})
}

// A request is deleted when SQS has its reply, and not before.
func TestPackedRequestsAreDeletedAfterTheirPack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.Throttle, Action: "SendMessageBatch", Queue: replyQueue})
		const calls = 40
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() { p.call(t, rpcclient.CallTimeout(time.Minute)) })
		}
		time.Sleep(1500 * time.Millisecond) // deletes wait for a second at most
		if n := p.messages(t, requestQueue); n != calls {
			t.Errorf("%d requests of %d are left before any reply was sent", n, calls)
		}
		p.server.SetFaults(sqstest.Plan{})
		wg.Wait()
		time.Sleep(2 * time.Second)
		if n := p.messages(t, requestQueue); n != 0 {
			t.Errorf("%d requests are left", n)
		}
	})
}

// Two processes on one reply queue: a pack holds replies of one of them, and is put back whole for it.
func TestPacksOfTwoProcesses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		other := *p
		other.requester, other.channel = p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		p.serve(t, addUp)
		p.fault(sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: 5 * time.Millisecond})
		var wg sync.WaitGroup
		wg.Go(func() { p.many(t, 60) })
		wg.Go(func() { other.many(t, 60) })
		wg.Wait()
		a, b := p.requester.Stats(), other.requester.Stats()
		if a.OK != 60 || b.OK != 60 || a.Packs+b.Packs == 0 || a.LateReplies+b.LateReplies+a.ForeignReplies+b.ForeignReplies != 0 {
			t.Errorf("stats:\n%+v\n%+v", a, b)
		}
	})
}

// A pack that comes again changes nothing, and a line that nobody can read fails nobody else.
func TestPackThatIsBrokenOrComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithPackedReplies())
		p.serve(t, addUp)
		p.fault(
			sqstest.Rule{Fault: sqstest.Delay, Action: "SendMessageBatch", Queue: replyQueue, Duration: 5 * time.Millisecond},
			sqstest.Rule{Fault: sqstest.Duplicate, Queue: replyQueue},
		)
		p.sendReply(t, "not a line\n[\"?\"]", `{"k":"p","v":1}`)
		p.many(t, 50)
		synctest.Wait()
		time.Sleep(30 * time.Second)
		s := p.requester.Stats()
		if s.OK != 50 || s.ForeignReplies < 2 || s.LateReplies == 0 || s.PutBack != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// sendReply sends a message to the reply queue with only an envelope.
func (p *pair) sendReply(t *testing.T, body, envelope string) {
	t.Helper()
	if _, err := p.client.SendMessage(context.Background(), rawMessage(p.replyURL, body, "replyqueue", envelope)); err != nil {
		t.Fatal(err)
	}
}
