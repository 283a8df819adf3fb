package rpcclient

import (
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// messageCopy is one receive of one SQS message. A request can be in the queue as several messages (a
// send that was repeated), and be received several times: the latest handle is the good one, unless SQS has
// two copies of the message.
type messageCopy struct {
	id, handle string
	count      int       // receives of the message so far, by SQS's count
	given      time.Time // when SQS gave it out, by SQS's clock; zero: not known
}

// replyCache recognises the copies of a request: while one is handled, others join it; afterwards they
// get the same reply. Entries live until their time is over, and are bounded in number and bytes: what
// would expire first goes first, and early is told when its time was not over.
type replyCache struct {
	maxEntries, maxBytes int
	early                func(left time.Duration) // called without the lock

	mu       sync.Mutex
	entries  map[cacheKey]*cacheEntry // of requests that are being dealt with
	settled  map[cacheKey]settledEntry
	base     time.Time  // what expiries are counted from, by the monotonic clock
	finished expiryHeap // those of entries whose handler does not run; the others are not evicted
	bytes    int
}

// cacheKey is a digest of what identifies a call, which is long, and of which there are many.
type cacheKey [16]byte

func newCacheKey(text string) cacheKey {
	var room [512]byte // for most: no allocation
	sum := sha256.Sum256(append(room[:0], text...))
	return cacheKey(sum[:16])
}

type cacheEntry struct {
	key     cacheKey
	hash    uint64
	attempt int
	kept    retention
	bytes   int

	held atomic.Pointer[heldRequest] // keeps the copies hidden while the handler runs; nil: nothing does yet

	// Under the cache's lock:
	finished bool
	cutOff   bool          // its error is that the deadline was over: no answer to a call that is made again
	expires  time.Time     // once finished
	copies   []messageCopy // not settled yet
	again    time.Time     // the latest deadline of calls that were made again and joined; zero: there is none
	// Written once, before finished:
	reply     replyContent
	situation Situation
}

// retention is how long a request is remembered: until a time, and for so long after it was handled.
type retention struct {
	until time.Time
	after time.Duration
	// deadline is when nobody waits for its answer any more; zero: not known.
	deadline time.Time
	// due is the deadline by its sender's clock, in Unix milliseconds; 0: not known. It is one for all messages of a call,
	// however often one is sent, and of calls that joined the latest.
	due int64
}

// isMadeAgain reports whether r is of another call than first, made again under its identifier with a later deadline.
func (r retention) isMadeAgain(first retention) bool {
	return first.due > 0 && r.due-first.due > clockAgreement.Milliseconds()
}

// end is when a request that was handled at now is forgotten. Calls that joined it keep what it succeeded with for
// their own time, and no error: some such call has to run.
func (r retention) end(now time.Time, succeeded bool) time.Time {
	end := now.Add(r.after)
	if r.until.After(end) {
		end = r.until
	}
	if joined := r.deadline.Add(r.after); succeeded && joined.After(end) {
		end = joined
	}
	return end
}

// entryOverhead is a rough size of an entry without its reply.
const entryOverhead = 512

func newReplyCache(entries, bytes int, early func(left time.Duration)) *replyCache {
	return &replyCache{maxEntries: max(1, entries), maxBytes: bytes, early: early, base: time.Now(),
		entries: map[cacheKey]*cacheEntry{}, settled: map[cacheKey]settledEntry{}}
}

type verdict uint8

const (
	runIt       verdict = iota // the first: handle it
	joined                     // another copy is being handled and will answer for this one
	replayed                   // answered before: send the entry's reply again
	conflicting                // the same identifier with other content
)

// begin looks a call up and enters it when it is new.
//
// An error is kept for copies of the attempt that met it. A later attempt is the requester's wish to try
// again, and runs; so does a call that is made again, when the error is that the one before was out of time.
func (c *replyCache) begin(key string, hash uint64, attempt int, copied messageCopy, now time.Time, kept retention) (*cacheEntry, verdict) {
	c.mu.Lock()
	early := c.evict(now)
	e, found := c.enter(newCacheKey(key), hash, attempt, copied, now, kept)
	c.mu.Unlock()
	for _, left := range early {
		c.early(left)
	}
	return e, found
}

// enter is begin's decision. It is called with the lock held.
func (c *replyCache) enter(key cacheKey, hash uint64, attempt int, copied messageCopy, now time.Time, kept retention) (*cacheEntry, verdict) {
	e, ok := c.find(key)
	if ok && e.hash == hash && e.finished && e.situation != Succeeded &&
		(attempt > e.attempt || e.cutOff && kept.isMadeAgain(e.kept)) {
		c.remove(key)
		ok = false
	}
	switch {
	case !ok:
		e = &cacheEntry{key: key, hash: hash, attempt: attempt, kept: kept, bytes: entryOverhead, copies: []messageCopy{copied}}
		c.entries[key] = e
		c.bytes += e.bytes
		return e, runIt
	case e.hash != hash:
		return nil, conflicting
	case e.finished:
		// Copies of one call are over with its deadline. An error is not kept for longer by a call that is made again
		// under the identifier: some such call has to run.
		if e.situation == Succeeded || kept.deadline.IsZero() {
			c.prolong(e, now)
		}
		return e, replayed
	default:
		e.attempt = max(e.attempt, attempt)
		if kept.deadline.After(e.kept.deadline) {
			e.kept.deadline = kept.deadline
		}
		if kept.isMadeAgain(e.kept) {
			e.kept.due = kept.due
			if kept.deadline.After(e.again) {
				e.again = kept.deadline
			}
		}
		e.join(copied)
		return e, joined
	}
}

// find returns what is known of a call. Of one that is settled it is a copy. It is called with the lock held.
func (c *replyCache) find(key cacheKey) (*cacheEntry, bool) {
	if e, ok := c.entries[key]; ok {
		return e, true
	}
	if s, ok := c.settled[key]; ok {
		return s.entry(key, c.base), true
	}
	return nil, false
}

// prolong keeps an answer of which a copy came at now for as long as one of what was handled just now: what has no
// deadline comes again until SQS has deleted it. It is called with the lock held.
func (c *replyCache) prolong(e *cacheEntry, now time.Time) {
	if until := now.Add(e.kept.after); until.After(e.expires) {
		e.expires = until
		at := until.Sub(c.base)
		if s, ok := c.settled[e.key]; ok {
			s.expires = at
			c.settled[e.key] = s
		}
		c.finished.push(expiry{at, e.key})
	}
}

// join adds a copy. Every handle is kept: SQS may have two copies of one message, and deletes the one that
// the handle is of.
func (e *cacheEntry) join(copied messageCopy) {
	if !slices.Contains(e.copies, copied) {
		e.copies = append(e.copies, copied)
	}
}

// finish stores the reply that later copies get.
func (c *replyCache) finish(e *cacheEntry, reply replyContent, situation Situation) {
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishLocked(e, reply, situation)
}

// finishStored is finish for what the reply store had. An error is the store's to keep: copies that come later ask it anew.
func (c *replyCache) finishStored(e *cacheEntry, reply replyContent, situation Situation) {
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if situation != Succeeded {
		e.kept = retention{}
	}
	c.finishLocked(e, reply, situation)
}

func (c *replyCache) finishLocked(e *cacheEntry, reply replyContent, situation Situation) {
	if e.finished {
		return
	}
	e.reply, e.situation, e.finished = reply, situation, true
	e.expires = e.kept.end(time.Now(), situation == Succeeded)
	if c.has(e) {
		c.finished.push(expiry{e.expires.Sub(c.base), e.key})
		c.bytes += reply.bytes()
		e.bytes += reply.bytes()
	}
}

// finishError is finish for an error, rendered for the latest attempt that waits for it: a requester takes
// an earlier one's error for a copy.
func (c *replyCache) finishError(e *cacheEntry, render func(attempt int) replyContent, situation Situation) replyContent {
	if e == nil {
		return render(0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := render(e.attempt)
	c.finishLocked(e, reply, situation)
	return reply
}

// refuse forgets a call that is refused, so that what comes of it later is decided anew, and returns its copies
// and the latest attempt that waits for it. The copies stay known to unsettled until they are settled.
func (c *replyCache) refuse(e *cacheEntry, one messageCopy) (attempt int, copies []messageCopy) {
	if e == nil {
		return 0, []messageCopy{one}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(e)
	return e.attempt, slices.Clone(e.copies)
}

// attempt is the latest that waits for a call's reply; 0: nothing is known of the call.
func (c *replyCache) attempt(e *cacheEntry) int {
	if e == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.attempt
}

// deadline is until when somebody waits for a call's reply: the latest of its copies'. own is that of the one that is run.
func (c *replyCache) deadline(e *cacheEntry, own time.Time) time.Time {
	if e == nil {
		return own
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.kept.deadline.After(own) {
		return e.kept.deadline
	}
	return own
}

// madeAgain is until when somebody waits who made the call again while it is handled; zero: nobody does.
func (c *replyCache) madeAgain(e *cacheEntry) time.Time {
	if e == nil {
		return time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.again
}

// cutOff notes, before an error is stored, that it is of a handler whose call's deadline was over.
func (c *replyCache) cutOff(e *cacheEntry) {
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.cutOff = true
}

// replace gives copies that come from now on another reply than the one that was finished.
func (c *replyCache) replace(e *cacheEntry, reply replyContent, situation Situation) {
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.has(e) {
		return
	}
	n := &cacheEntry{ // others may be reading the old one
		key: e.key, hash: e.hash, attempt: e.attempt, kept: e.kept, bytes: entryOverhead + reply.bytes(),
		finished: true, cutOff: e.cutOff, expires: e.expires, reply: reply, situation: situation,
	}
	c.entries[n.key] = n
	c.bytes += n.bytes - e.bytes
}

// settleWithoutReply returns the copies to settle of a call that gets no reply; without an entry that is
// the one copy. A one-way request that was handled is remembered, and so is whatever was finished since its handler
// ended too late; any other is forgotten, so that a redelivery is handled anew.
func (c *replyCache) settleWithoutReply(e *cacheEntry, one messageCopy, s Situation) []messageCopy {
	if e == nil {
		return []messageCopy{one}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s == Succeeded:
		c.finishLocked(e, replyContent{}, s)
	case e.finished: // too late
	default:
		c.forget(e)
	}
	return c.take(e)
}

// takeCopies returns the copies to settle after the reply, and keeps the entry.
func (c *replyCache) takeCopies(e *cacheEntry, one messageCopy) []messageCopy {
	if e == nil {
		return []messageCopy{one}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(e)
}

// take takes an entry's copies, which are being settled, and keeps what later ones get. It is called with the lock held.
func (c *replyCache) take(e *cacheEntry) []messageCopy {
	if now := c.entries[e.key]; now != nil && now.finished && (now == e || len(now.copies) == 0) {
		delete(c.entries, e.key)
		c.settled[e.key] = newSettledEntry(now, c.base)
	}
	copies := e.copies
	e.copies = nil
	return copies
}

// unsettled returns all copies that are not settled.
func (c *replyCache) unsettled(e *cacheEntry, one messageCopy) []messageCopy {
	if e == nil {
		return []messageCopy{one}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(e.copies)
}

// evict makes room, and returns how long each entry would have stayed that had to go before its time. Entries
// whose handler runs stay, whatever their number. It is called with the lock held.
func (c *replyCache) evict(now time.Time) (early []time.Duration) {
	for len(c.finished) > 0 {
		first := c.finished[0]
		if at, ok := c.expiryOf(first.key); ok && at == first.at {
			if left := first.at - now.Sub(c.base); left > 0 {
				if len(c.entries)+len(c.settled) < c.maxEntries && c.bytes <= c.maxBytes {
					return early
				}
				early = append(early, left)
			}
			c.remove(first.key)
		}
		c.finished.pop()
	}
	return early
}

// expiryOf is when what is known of a call that was handled is forgotten. It is called with the lock held.
func (c *replyCache) expiryOf(key cacheKey) (at time.Duration, ok bool) {
	if s, ok := c.settled[key]; ok {
		return s.expires, true
	}
	if e := c.entries[key]; e != nil && e.finished {
		return e.expires.Sub(c.base), true
	}
	return 0, false
}

// has reports whether an entry is the one of its call, and not settled. It is called with the lock held.
func (c *replyCache) has(e *cacheEntry) bool { return c.entries[e.key] == e }

// forget removes an entry, unless another took its place. It is called with the lock held.
func (c *replyCache) forget(e *cacheEntry) {
	if c.has(e) {
		c.remove(e.key)
	}
}

// remove forgets a call. What the heap has of it is small until its time comes. It is called with the lock held.
func (c *replyCache) remove(key cacheKey) {
	if e, ok := c.entries[key]; ok {
		c.bytes -= e.bytes
		delete(c.entries, key)
	}
	if s, ok := c.settled[key]; ok {
		c.bytes -= s.bytes
		delete(c.settled, key)
	}
}
