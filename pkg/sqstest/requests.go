package sqstest

import (
	"sync"
	"time"
)

// Request is one request that the server answered, or refused, or dropped.
type Request struct {
	// Time is when it came, by the server's clock.
	Time time.Time
	// Action is the API's name for it, such as "SendMessage"; "" for a request that is none of the API's.
	Action string
	// Queue is the name of the queue that it is about, "" for none.
	Queue string
	// AccessKey is the access key ID that signed it.
	AccessKey string
	// Region is that of the signature.
	Region string
	// Entries is the number of messages or handles of a batch, 1 for everything else.
	Entries int
	// Status is the HTTP status of the answer, 0 when the connection was dropped instead.
	Status int
	// ErrorCode is the error as the SDK reports it (smithy.APIError), such as "AWS.SimpleQueueService.NonExistentQueue";
	// "" for success.
	ErrorCode string
	// Billed is the requests that it is on the bill: see Server.Billed.
	Billed int
	// Duration is how long the answer took, the wait of a long poll included.
	Duration time.Duration
}

// Filter chooses requests. Several together choose those that pass all of them.
type Filter func(*Request) bool

// Action chooses requests of any of the given actions, such as "SendMessage".
func Action(names ...string) Filter { return func(r *Request) bool { return isOneOf(r.Action, names) } }

// OnQueue chooses requests about the queue of that name, whatever its account and region.
func OnQueue(name string) Filter { return func(r *Request) bool { return r.Queue == name } }

// FromKey chooses requests signed with that access key ID.
func FromKey(accessKey string) Filter {
	return func(r *Request) bool { return r.AccessKey == accessKey }
}

// Failed chooses requests that did not end in success. A batch of which only some entries failed is a success.
func Failed() Filter { return func(r *Request) bool { return r.ErrorCode != "" } }

// WithError chooses requests that ended in this error code, in the form that the SDK reports.
func WithError(code string) Filter { return func(r *Request) bool { return r.ErrorCode == code } }

// logged is how many of the latest requests RequestLog remembers. The counters go on for ever.
const logged = 10_000

// requestLog counts every request and remembers the latest.
type requestLog struct {
	mu     sync.Mutex
	counts map[countKey]*count
	ring   []Request
	next   int
}

type countKey struct{ action, queue, accessKey, code string }

type count struct{ requests, entries, billed int }

func (l *requestLog) init() { l.counts = map[countKey]*count{} }

func (l *requestLog) add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := countKey{r.Action, r.Queue, r.AccessKey, r.ErrorCode}
	n := l.counts[k]
	if n == nil {
		n = &count{}
		l.counts[k] = n
	}
	n.requests++
	n.entries += r.Entries
	n.billed += r.Billed
	if len(l.ring) < logged {
		l.ring = append(l.ring, r)
		return
	}
	l.ring[l.next] = r
	l.next = (l.next + 1) % logged
}

func (l *requestLog) each(filters []Filter, f func(r *Request, n *count)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.counts {
		r := Request{Action: k.action, Queue: k.queue, AccessKey: k.accessKey, ErrorCode: k.code}
		if passes(&r, filters) {
			f(&r, n)
		}
	}
}

func passes(r *Request, filters []Filter) bool {
	for _, f := range filters {
		if !f(r) {
			return false
		}
	}
	return true
}

// Requests is how many requests passed all filters since the server started or ResetRequests was called, each retry of
// the SDK being one: what came to the server, large or small, answered or not. See Billed for what SQS would bill. Requests under way are not counted yet. The filters see Action, Queue, AccessKey
// and ErrorCode only.
func (s *Server) Requests(filters ...Filter) int {
	total := 0
	s.log.each(filters, func(_ *Request, n *count) { total += n.requests })
	return total
}

// Billed is Requests as SQS bills them: "every 64 KB chunk of a payload is billed as 1 request" (SQS pricing). The payload is
// what was taken in or given out: of a send, the messages accepted, of a batch those of its entries that succeeded, as a
// whole; of a receive, the messages that left for the client, though it was gone by then (AbandonPoll), or the answer was
// lost on its way (DropAfter, CutBody). A poll that AbandonPoll lets wait on is billed when its client goes, and what it
// takes after that is not.
//
// What SQS refused is one request, however large: a malformed body, one larger than any can be, a throttled or denied
// request. The pricing page excepts none of them, and says nothing of their size. What never came to SQS is not billed: what
// the fault plan dropped before its effect, lost in a black hole or answered with a page of HTML, and what is no action of
// the API.
func (s *Server) Billed(filters ...Filter) int {
	total := 0
	s.log.each(filters, func(_ *Request, n *count) { total += n.billed })
	return total
}

// billedChunk is as much payload, in bytes, as one billed request has.
const billedChunk = 64 << 10

// bill is how many requests one is on the bill.
func (c *call) bill() int {
	if !c.reached {
		return 0
	}
	return max(1, (c.payload+billedChunk-1)/billedChunk)
}

// Entries is how many messages and handles the requests carried that Requests counts: Requests/Entries is what batching saved.
func (s *Server) Entries(filters ...Filter) int {
	total := 0
	s.log.each(filters, func(_ *Request, n *count) { total += n.entries })
	return total
}

// RequestsByAction is Requests for each action apart. Actions that were not called are absent.
func (s *Server) RequestsByAction(filters ...Filter) map[string]int {
	out := map[string]int{}
	s.log.each(filters, func(r *Request, n *count) { out[r.Action] += n.requests })
	return out
}

// RequestLog is the latest requests (up to 10,000) that pass all filters, in the order in which they were answered.
func (s *Server) RequestLog(filters ...Filter) []Request {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	var out []Request
	for i := range s.log.ring {
		if r := &s.log.ring[(s.log.next+i)%len(s.log.ring)]; passes(r, filters) {
			out = append(out, *r)
		}
	}
	return out
}

// ResetRequests starts counting, and the log, anew.
func (s *Server) ResetRequests() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.counts, s.log.ring, s.log.next = map[countKey]*count{}, nil, 0
}

// errorHelper is the part of testing.TB that AssertRequests needs.
type errorHelper interface {
	Helper()
	Errorf(format string, args ...any)
}

// AssertRequests fails the test unless do made exactly the requests of want: action to count, of those that pass the
// filters. Other goroutines' requests during do count too; do must not call ResetRequests.
func (s *Server) AssertRequests(t errorHelper, want map[string]int, do func(), filters ...Filter) {
	t.Helper()
	before := s.RequestsByAction(filters...)
	do()
	after := s.RequestsByAction(filters...)
	for action, n := range after {
		if got := n - before[action]; got != want[action] {
			t.Errorf("%d requests of %s, want %d", got, action, want[action])
		}
	}
	for action, n := range want {
		if _, ok := after[action]; !ok && n != 0 {
			t.Errorf("0 requests of %s, want %d", action, n)
		}
	}
}
