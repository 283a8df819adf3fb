package sqstest

import (
	"context"
	"io"
	"net/http"
	"time"
)

// effects are what a plan does to one request.
type effects struct {
	faults    *faults
	wait      time.Duration // before anything else; negative for ever
	drop      bool
	err       *apiError // instead of doing it
	page      *answer   // the same, not from SQS
	errAfter  bool
	dropAfter bool
	waitAfter time.Duration
	deleteIn  time.Duration // negative: not at all
	// What DeleteUnderPoll deletes.
	deleteQueue *queue
}

// before asks the plan about a request.
func (f *faults) before(c *call, h http.Header) effects {
	e := effects{faults: f, deleteIn: -1}
	if f.state.Load() == nil {
		return e
	}
	strikes := func(fault Fault) *Rule {
		r, _ := f.strike(fault, c.action, c.queue)
		return r
	}
	spread := func(fault Fault) time.Duration {
		if r, n := f.strike(fault, c.action, c.queue); r != nil {
			return r.spread(n)
		}
		return 0
	}
	e.wait = spread(Delay)
	skewed := f.skewed(c, h)
	switch {
	case strikes(BlackHole) != nil:
		e.wait = -1
	case strikes(DropBefore) != nil:
		e.drop = true
	case strikes(HTMLUnavailable) != nil:
		e.page = &answer{status: http.StatusServiceUnavailable, header: http.Header{"Content-Type": {"text/html"}}, body: []byte(unavailablePage)}
	case strikes(Throttle) != nil:
		e.err = senderError("RequestThrottled", "RequestThrottled", http.StatusForbidden, "The request was denied due to request throttling.")
	case strikes(ServerError) != nil:
		e.err = errInternal()
	case strikes(ExpiredCredentials) != nil:
		e.err = senderError("ExpiredTokenException", "ExpiredToken", http.StatusForbidden, "The security token included in the request is expired")
	case strikes(AccessDenied) != nil:
		e.err = denied(c.accessKey, permission(c.action), c.about)
	default:
		e.err = skewed
	}
	if e.wait < 0 || e.drop || e.page != nil || e.err != nil {
		return e
	}
	e.dropAfter = strikes(DropAfter) != nil
	e.errAfter = !e.dropAfter && strikes(ServerErrorAfter) != nil
	e.waitAfter = spread(DelayAfter)
	if c.action == "ReceiveMessage" {
		exists := func(*Rule) bool {
			e.deleteQueue = f.server.registry.get(c.about)
			return e.deleteQueue != nil
		}
		if r, _ := f.strikeIf(DeleteUnderPoll, c.action, c.queue, exists); r != nil {
			e.deleteIn = r.Duration
		}
	}
	return e
}

// onBody asks the plan about an answer that is ready. One without a body, as DeleteMessage's is, is no occasion.
func (f *faults) onBody(c *call, a *answer) {
	if len(a.body) == 0 {
		return
	}
	r, _ := f.strike(CutBody, c.action, c.queue)
	a.cut = r != nil
	if r, n := f.strike(SlowBody, c.action, c.queue); r != nil {
		a.slow = r.spread(n)
	}
}

const unavailablePage = "<html><head><title>503 Service Temporarily Unavailable</title></head>\n" +
	"<body><center><h1>503 Service Temporarily Unavailable</h1></center></body></html>\n"

// prepare sets in motion what is to happen while the request runs.
func (e *effects) prepare(c *call) {
	if e.deleteIn < 0 {
		return
	}
	s, q := c.s, e.deleteQueue
	s.after(e.deleteIn, func() { _ = s.deleteQueue(q) }) // it may be gone already
}

// maxSkew is how far a signature's time may be from the server's ("signature expired": AWS general reference).
const maxSkew = 5 * time.Minute

// skewed refuses a request whose signature is too old, or too new, for a skewed server.
func (f *faults) skewed(c *call, h http.Header) *apiError {
	r, _ := f.strike(ClockSkew, c.action, c.queue)
	if r == nil {
		return nil
	}
	c.skew = r.Duration
	now := f.server.clock.Now().Add(r.Duration)
	const form = "20060102T150405Z"
	// A request without a date is not signed, and so not refused: its time is zero.
	signed, _ := time.Parse(form, h.Get("X-Amz-Date"))
	if signed.IsZero() || signed.Sub(now).Abs() <= maxSkew {
		return nil
	}
	return senderError("InvalidSignatureException", "SignatureDoesNotMatch", http.StatusForbidden,
		"Signature expired: %s is now too far from %s", signed.Format(form), now.UTC().Format(form))
}

// keepsAbandoned reports whether messages stay in flight that were chosen for a poll whose client had gone.
func (f *faults) keepsAbandoned(queue string) bool {
	r, _ := f.strike(AbandonPoll, "ReceiveMessage", queue)
	return r != nil
}

// lingers is how long a poll without a client waits on for messages.
func (f *faults) lingers(queue string) time.Duration {
	r, _ := f.strikeIf(AbandonPoll, "ReceiveMessage", queue, func(r *Rule) bool { return r.Duration > 0 })
	if r == nil {
		return 0
	}
	return r.Duration
}

// duplicate is a copy of a message that is about to be received, for another receive to find, and how many milliseconds
// later; or nil.
func (f *faults) duplicate(queue string, m *message) (again *message, delay int64) {
	r, _ := f.strikeIf(Duplicate, "ReceiveMessage", queue, func(*Rule) bool { return !m.copy })
	if r == nil {
		return nil, 0
	}
	c := *m
	c.copy, c.tenant, c.next, c.prev = true, nil, nil, nil
	return &c, r.Duration.Milliseconds()
}

// reorder lets a message that was just added change places with another. The queue must be locked.
func (f *faults) reorder(q *queue, m *message) {
	could := func(*Rule) bool { return m.placeReady >= 0 && q.fair.peers(m).len() > 1 }
	if r, n := f.strikeIf(Reorder, "SendMessage", q.key.name, could); r != nil {
		q.fair.exchange(m, n)
	}
}

// lag is how long, in milliseconds, a message stays out of sight after it was sent.
func (f *faults) lag(queue string) int64 {
	r, n := f.strike(DeliveryLag, "SendMessage", queue)
	if r == nil {
		return 0
	}
	return max(1, r.spread(n).Milliseconds()) // the far end of a wide Spread is still a lag
}

// wakeUp is how many messages a long poll may get that found nothing at first.
func (f *faults) wakeUp(queue string, limit int) int {
	if r, _ := f.strike(LoneWakeUp, "ReceiveMessage", queue); r != nil {
		return 1
	}
	return limit
}

// ignoresOldHandle reports whether a delete by the handle of an earlier receive does nothing.
func (f *faults) ignoresOldHandle(queue string) bool {
	r, _ := f.strike(IgnoreOldHandles, "DeleteMessage", queue)
	return r != nil
}

// entry is the failure of one entry of a batch, or nil.
func (f *faults) entry(c *call) *apiError {
	if r, _ := f.strike(PartialBatch, c.action, c.queue); r != nil {
		return errInternal()
	}
	if c.action == "ChangeMessageVisibilityBatch" {
		return f.notInFlight(c)
	}
	return nil
}

func (f *faults) notInFlight(c *call) *apiError {
	if r, _ := f.strike(NotInFlight, c.action, c.queue); r != nil {
		return errNotInFlight()
	}
	return nil
}

// shard is how many messages a receive may find of those it asks for.
func (f *faults) shard(c *call, limit int) int {
	r, n := f.strikeIf(Sharded, c.action, c.queue, func(*Rule) bool { return limit > 1 })
	if r == nil {
		return limit
	}
	return min(limit, 1+int(n%9))
}

// stale is how long, in milliseconds, a read is behind the times; 0 for not, or when it makes no difference, which
// matters tells of a lag.
func (f *faults) stale(c *call, matters func(lag int64) bool) int64 {
	switch c.action {
	case "GetQueueAttributes", "GetQueueUrl", "ListQueueTags":
		return f.lagging(StaleReads, c, matters)
	}
	return 0
}

// unborn reports whether a queue of that age cannot be used yet.
func (f *faults) unborn(c *call, created, now int64) bool {
	return f.lagging(SlowCreate, c, func(lag int64) bool { return now < created+lag }) > 0
}

// listLag is how long, in milliseconds, ListQueues lags; 0 for not, or when it makes no difference.
func (f *faults) listLag(c *call, matters func(lag int64) bool) int64 {
	return f.lagging(ListLag, c, matters)
}

// lagging is the Duration, in milliseconds, of a fault that is an occasion only while its Duration matters.
func (f *faults) lagging(fault Fault, c *call, matters func(lag int64) bool) int64 {
	could := func(r *Rule) bool { return matters(r.Duration.Milliseconds()) }
	if r, _ := f.strikeIf(fault, c.action, c.queue, could); r != nil {
		return r.Duration.Milliseconds()
	}
	return 0
}

// remembered is for how long, in milliseconds, a queue has to remember its counts for reads that lag.
func (f *faults) remembered(queue string) int64 {
	st := f.state.Load()
	if st == nil {
		return 0
	}
	var longest time.Duration
	for i := range st.plan.Rules {
		if r := &st.plan.Rules[i]; r.Fault == StaleReads && matches(r.Queue, queue) {
			longest = max(longest, r.Duration)
		}
	}
	return longest.Milliseconds()
}

// swallows reports whether a send to a deleted queue is answered with success and lost, and what the queue was; nil when nobody
// knows any more.
func (f *faults) swallows(c *call, url string) (gone *queue, ok bool) {
	if f.state.Load() == nil {
		return nil, false
	}
	key, ok := c.parseQueue(url)
	if !ok {
		return nil, false
	}
	was, ok := f.server.registry.lately(key)
	if !ok {
		return nil, false
	}
	now := f.server.millis()
	return was.q, f.lagging(LostSends, c, func(lag int64) bool { return now < was.at+min(lag, nameLock) }) > 0
}

// faultyBody is an answer's body that comes slowly, or breaks off after its first half.
type faultyBody struct {
	server *Server
	ctx    context.Context //nolint:containedctx // the request's, which ends the body as it would end a connection's
	answer answer
	at     int
}

// slowPieces is in how many pieces a slow body comes at least.
const slowPieces = 8

func (b *faultyBody) Read(p []byte) (int, error) {
	body := b.answer.body
	end := len(body)
	if b.answer.cut {
		end /= 2
	}
	if b.at >= end {
		if b.answer.cut {
			return 0, errConnectionReset
		}
		return 0, io.EOF
	}
	piece := min(end-b.at, len(p))
	if b.answer.slow > 0 {
		piece = min(piece, len(body)/slowPieces+1)
		if !b.server.wait(b.ctx, b.answer.slow*time.Duration(piece)/time.Duration(len(body))) {
			return 0, errConnectionReset
		}
	}
	n := copy(p, body[b.at:b.at+piece])
	b.at += n
	return n, nil
}

func (b *faultyBody) Close() error { return nil }
