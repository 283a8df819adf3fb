package rpcclient

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Action is an SQS API operation this package uses.
type Action uint8

// The actions. Each counts as one request, whatever the number of entries.
const (
	ActionSend Action = iota
	ActionReceive
	ActionDelete
	ActionChangeVisibility
	actionCount
)

// String is the API's own name.
func (a Action) String() string {
	switch a {
	case ActionSend:
		return "SendMessageBatch"
	case ActionReceive:
		return "ReceiveMessage"
	case ActionDelete:
		return "DeleteMessageBatch"
	default:
		return "ChangeMessageVisibilityBatch"
	}
}

// Stats are the live counters of a requester or responder. The zero value is ready; a program may give
// one to several of them with WithStats to count them together.
type Stats struct {
	requests, entries, failures [actionCount]atomic.Int64

	calls, ok, retries, late, foreign, putBack, packs, packedReplies atomic.Int64

	received, served, refused, expired, duplicates, left, forgotten atomic.Int64

	mu     sync.Mutex
	failed map[FailureKind]int64
}

// FailureKind is how failed calls are counted.
type FailureKind struct {
	Code    Code
	Outcome Outcome
}

// StatsSnapshot is the state of the counters at one moment. All count from the start.
type StatsSnapshot struct {
	// Requests made to SQS and their entries (or messages received), by action.
	Requests, Entries [actionCount]int64
	// RequestFailures are the requests among them that failed.
	RequestFailures [actionCount]int64

	// Calls ended, and OK of them; Failed has the others.
	Calls, OK int64
	Failed    map[FailureKind]int64
	// Retries are attempts beyond the first.
	Retries int64
	// LateReplies came after their call had ended, duplicates included.
	LateReplies int64
	// ForeignReplies were for no call of this process and were dropped; PutBack counts the times such a
	// reply was left for another reader of the queue.
	ForeignReplies, PutBack int64
	// Packs received, and PackedReplies in them.
	Packs, PackedReplies int64

	// Received requests of a responder; Served of them by a handler; Refused before one.
	Received, Served, Refused int64
	// Expired requests were dropped unhandled or unanswered; Duplicates were answered without running
	// the handler again; Left were left in the queue for redelivery or its dead-letter queue.
	Expired, Duplicates, Left int64
	// ForgottenEarly requests left the reply cache before their time for want of room: a copy that comes
	// later runs again. Not 0: the cache is too small, see WithReplyCache.
	ForgottenEarly int64
}

// SQSRequests is the sum of Requests.
func (s *StatsSnapshot) SQSRequests() int64 {
	var sum int64
	for _, n := range s.Requests {
		sum += n
	}
	return sum
}

// Snapshot reads the counters. It may be called at any time.
func (s *Stats) Snapshot() StatsSnapshot {
	var out StatsSnapshot
	for a := range actionCount {
		out.Requests[a] = s.requests[a].Load()
		out.Entries[a] = s.entries[a].Load()
		out.RequestFailures[a] = s.failures[a].Load()
	}
	out.Calls, out.OK, out.Retries = s.calls.Load(), s.ok.Load(), s.retries.Load()
	out.LateReplies, out.ForeignReplies, out.PutBack = s.late.Load(), s.foreign.Load(), s.putBack.Load()
	out.Packs, out.PackedReplies = s.packs.Load(), s.packedReplies.Load()
	out.Received, out.Served, out.Refused = s.received.Load(), s.served.Load(), s.refused.Load()
	out.Expired, out.Duplicates, out.Left = s.expired.Load(), s.duplicates.Load(), s.left.Load()
	out.ForgottenEarly = s.forgotten.Load()
	s.mu.Lock()
	out.Failed = maps.Clone(s.failed)
	s.mu.Unlock()
	return out
}

func (s *Stats) callEnded(err *Error) {
	s.calls.Add(1)
	if err == nil {
		s.ok.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = map[FailureKind]int64{}
	}
	s.failed[FailureKind{err.Code, err.Outcome}]++
}

// ByAction returns Requests by the API's names of the operations.
func (s *StatsSnapshot) ByAction() map[string]int64 {
	out := make(map[string]int64, actionCount)
	for a, n := range s.Requests {
		out[Action(a).String()] = n
	}
	return out
}
