package rpcclient

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// ReplyStore remembers which requests were taken up and how they were answered, across responder
// processes and their restarts: a table with conditional writes, a Redis. Without one each process
// remembers its own (WithReplyCache), which recognises the copies that reach the same process.
//
// It is asked once per request that this process does not know, and told once how the request ended.
// Methods may block until ctx ends. An error of Claim leaves the request in the queue; one of Complete
// is logged, and the reply is sent.
type ReplyStore interface {
	// Claim looks key up, in one atomic step. When there is no entry, or one whose lease is over, or one
	// that Complete marked failed and whose Attempt is below key's, or a claim of key's own Owner, it makes
	// one for key until lease and returns ClaimGranted: a claim is renewed by claiming again, some seconds
	// before its lease ends, for as long as the request is handled. When the entry's Content is not key's it returns ClaimConflict; when the entry
	// is another's and not complete, ClaimBusy; otherwise ClaimAnswered and what Complete was given.
	Claim(ctx context.Context, key StoreKey, lease time.Time) (reply []byte, state ClaimState, err error)
	// Complete ends a claim with the reply to give to copies until expires, at least. failed: the reply is
	// an error. Replies are opaque and at most 1.4 MB. What is complete stays as it is.
	Complete(ctx context.Context, key StoreKey, reply []byte, failed bool, expires time.Time) error
	// Release gives a claim up that is still key.Owner's: nothing was answered.
	Release(ctx context.Context, key StoreKey) error
}

// StoreKey identifies a request for a ReplyStore.
type StoreKey struct {
	// ID is a hash of request queue, return address and call ID, or of request queue and message ID where a request has
	// no call ID of our kind: 64 hexadecimal digits.
	ID string
	// Content is a hash of method and payload, likewise.
	Content string
	// Attempt of the requester, from 1.
	Attempt int
	// Owner is who handles the request: another value for each execution.
	Owner string
}

// ClaimState is the answer of ReplyStore.Claim.
type ClaimState uint8

// The answers.
const (
	// ClaimGranted: handle the request, then Complete or Release.
	ClaimGranted ClaimState = iota
	// ClaimAnswered: give the stored reply.
	ClaimAnswered
	// ClaimBusy: another process is handling the request, or the store has no room until one has ended. The
	// request is kept hidden, and the store asked again every 2 s until the request's deadline.
	ClaimBusy
	// ClaimConflict: the call ID came before with other content.
	ClaimConflict
)

// WithReplyStore sets a store that responders share, for responders.
func WithReplyStore(s ReplyStore) Option { return func(c *config) { c.replyStore = s } }

// storeTimeout bounds one question to the store: the request is hidden for 10 s at first.
const storeTimeout = 3 * time.Second

// claimRetry is how long a request that another process handles waits until the store is asked again.
const claimRetry = 2 * time.Second

// claim is a request's claim in the store.
type claim struct {
	key StoreKey

	mu    sync.Mutex // what is asked about it is asked one after the other
	ended bool
}

// lease is how long a claim lasts that is not renewed: it is renewed with the visibility, at six tenths of
// that, and may fail to be some times. A process that dies holds up its requests for no longer.
func (s *channelServer) lease() time.Time {
	return time.Now().Add(max(s.visibility*3/2, storeTimeout))
}

// ask claims, or renews the claim.
func (s *channelServer) ask(ctx context.Context, c *claim) (raw []byte, state ClaimState, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, ClaimGranted, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = contained(func() (err error) {
		raw, state, err = s.r.cfg.replyStore.Claim(ctx, c.key, s.lease())
		return err
	})
	return raw, state, err
}

// storedReply is what the store keeps.
type storedReply struct {
	Body      string    `json:"body"`
	Envelope  string    `json:"envelope,omitempty"`
	Virtual   string    `json:"virtual,omitempty"`
	Trace     string    `json:"trace,omitempty"`
	Situation Situation `json:"situation"`
}

func storeKey(q *request) StoreKey {
	id := sha256.Sum256([]byte(q.key))
	content := sha256.New()
	_, _ = content.Write([]byte(q.method + "\x00"))
	_, _ = content.Write(q.payload)
	return StoreKey{ID: hex.EncodeToString(id[:]), Content: hex.EncodeToString(content.Sum(nil)), Attempt: max(1, q.info.Attempt), Owner: rand.Text()}
}

// claim asks the store about a request that this process does not know. It reports whether to run it;
// otherwise it has settled it.
func (s *channelServer) claim(q *request) bool {
	r := s.r
	c := &claim{key: storeKey(q)}
	raw, state, err := s.ask(r.work, c)
	for err == nil && state == ClaimBusy && s.awaitTurn(q) {
		raw, state, err = s.ask(r.work, c)
	}
	var stored storedReply
	if err == nil && state == ClaimAnswered {
		err = json.Unmarshal(raw, &stored)
	}
	switch {
	case err != nil:
		r.cfg.log.Warn("the reply store does not answer; the request is left in the queue", "channel", s.channel.Name, "callID", hashCallID(q.info.id), "error", err)
		s.settle(q, r.cache.settleWithoutReply(q.entry, q.copy, ReplyNotSent), false)
		return false
	case state == ClaimGranted:
		q.claim = c
		s.extender.renewClaim(q.held, func() error {
			_, _, err := s.ask(r.work, c)
			return err
		})
		return true
	case state == ClaimBusy:
		s.settle(q, r.cache.settleWithoutReply(q.entry, q.copy, ReplyNotSent), false)
		return false
	case state == ClaimConflict:
		s.conclude(q, Undecodable, nil, Errorf(InvalidArgument, "%w", errOtherContent), 0)
		return false
	}
	r.cfg.stats.duplicates.Add(1)
	if q.peer == PeerOneWay || stored.Situation == Expired {
		r.cache.finish(q.entry, replyContent{}, stored.Situation)
		s.settle(q, r.cache.settleWithoutReply(q.entry, q.copy, stored.Situation), true)
		return false
	}
	reply := replyContent{body: stored.Body, envelope: stored.Envelope, virtual: stored.Virtual, trace: stored.Trace}
	r.cache.finishStored(q.entry, reply, stored.Situation)
	s.send(q, reply, stored.Situation, nil, 0)
	return false
}

// awaitTurn waits before the store is asked again about a request that another process handles, and keeps it
// hidden meanwhile: it would be counted as received each time it came back. Its place is another's for that
// time. It reports false when the time to handle it, or to wait, is over.
func (s *channelServer) awaitTurn(q *request) bool {
	r := s.r
	if !time.Now().Before(q.deadline) {
		return false
	}
	r.slots.replying(1)
	r.slots.release(1)
	timer := time.NewTimer(claimRetry)
	defer timer.Stop()
	waited := false
	select {
	case <-timer.C:
		waited = true
	case <-r.stopping:
	case <-r.work.Done():
	}
	r.slots.replying(-1)
	if waited && r.slots.acquireFor(r.work, r.stopping) {
		return true
	}
	r.slots.release(-1) // it is given back by who serves the request
	return false
}

// remember tells the store how a claimed request ended. kept: reply is what copies get.
func (s *channelServer) remember(q *request, kept bool, reply replyContent, situation Situation) {
	if q.claim == nil {
		return
	}
	r := s.r
	q.claim.mu.Lock()
	defer q.claim.mu.Unlock()
	q.claim.ended = true
	// Also when the responder is cut off: other processes wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.work), storeTimeout)
	defer cancel()
	now := time.Now()
	from := now
	if situation != Succeeded { // of calls that are made again, one is to run
		from = q.deadline.Add(-q.budget)
	}
	err := contained(func() error {
		if !kept {
			return r.cfg.replyStore.Release(ctx, q.claim.key)
		}
		raw, _ := json.Marshal(storedReply{reply.body, reply.envelope, reply.virtual, reply.trace, situation})
		return r.cfg.replyStore.Complete(ctx, q.claim.key, raw, situation != Succeeded, s.retention(q, from).end(now, situation == Succeeded))
	})
	if err != nil {
		r.cfg.log.Warn("the reply store was not told", "channel", s.channel.Name, "callID", hashCallID(q.info.id), "error", err)
	}
}

// contained asks the store, and makes an error of its panic.
func contained(ask func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the reply store panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return ask()
}
