package rpcclient

import (
	"slices"
	"sync"
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
	entries  map[string]*cacheEntry
	base     time.Time  // what expiries are counted from, by the monotonic clock
	finished expiryHeap // those of entries whose handler does not run; the others are not evicted
	bytes    int
}

// expiryHeap has what expires next at its head. It looks at no entry to keep its order: there are many, all over
// memory.
type expiryHeap []expiry

// expiry is when the time of a key's entry is over, from the cache's base. That of an entry which was removed
// before stays until it comes to the head.
type expiry struct {
	at  time.Duration
	key string
}

func (h *expiryHeap) push(x expiry) {
	all := append(*h, x)
	*h = all
	for i := len(all) - 1; i > 0; {
		parent := (i - 1) / 2
		if all[parent].at <= x.at {
			break
		}
		all[i], all[parent] = all[parent], x
		i = parent
	}
}

// pop removes the head.
func (h *expiryHeap) pop() {
	all := *h
	last := len(all) - 1
	x := all[last]
	all[last] = expiry{}
	all = all[:last]
	*h = all
	if last == 0 {
		return
	}
	all[0] = x
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if right := child + 1; right < last && all[right].at < all[child].at {
			child = right
		}
		if x.at <= all[child].at {
			return
		}
		all[i], all[child] = all[child], x
		i = child
	}
}

type cacheEntry struct {
	key     string
	hash    uint64
	attempt int
	kept    retention
	bytes   int

	// Under the cache's lock:
	finished bool
	expires  time.Time     // once finished
	copies   []messageCopy // not settled yet
	// Written once, before finished:
	reply     replyContent
	situation Situation
}

// retention is how long a request is remembered: until a time, and for so long after it was handled.
type retention struct {
	until time.Time
	after time.Duration
}

// end is when a request that was handled at now is forgotten.
func (r retention) end(now time.Time) time.Time {
	if after := now.Add(r.after); after.After(r.until) {
		return after
	}
	return r.until
}

// entryOverhead is a rough size of an entry without its reply.
const entryOverhead = 512

func newReplyCache(entries, bytes int, early func(left time.Duration)) *replyCache {
	return &replyCache{maxEntries: max(1, entries), maxBytes: bytes, early: early, base: time.Now(), entries: map[string]*cacheEntry{}}
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
// again, and runs.
func (c *replyCache) begin(key string, hash uint64, attempt int, copied messageCopy, now time.Time, kept retention) (*cacheEntry, verdict) {
	c.mu.Lock()
	early := c.evict(now)
	e, found := c.enter(key, hash, attempt, copied, now, kept)
	c.mu.Unlock()
	for _, left := range early {
		c.early(left)
	}
	return e, found
}

// enter is begin's decision. It is called with the lock held.
func (c *replyCache) enter(key string, hash uint64, attempt int, copied messageCopy, now time.Time, kept retention) (*cacheEntry, verdict) {
	e, ok := c.entries[key]
	if ok && e.hash == hash && e.finished && e.situation != Succeeded && attempt > e.attempt {
		c.remove(e)
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
		c.prolong(e, now)
		return e, replayed
	default:
		e.attempt = max(e.attempt, attempt)
		e.join(copied)
		return e, joined
	}
}

// prolong keeps an answer of which a copy came at now for as long as one of what was handled just now: what has no
// deadline comes again until SQS has deleted it. It is called with the lock held.
func (c *replyCache) prolong(e *cacheEntry, now time.Time) {
	if until := now.Add(e.kept.after); until.After(e.expires) {
		e.expires = until
		c.finished.push(expiry{until.Sub(c.base), e.key})
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

func (c *replyCache) finishLocked(e *cacheEntry, reply replyContent, situation Situation) {
	if e.finished {
		return
	}
	e.reply, e.situation, e.finished = reply, situation, true
	e.expires = e.kept.end(time.Now())
	if c.entries[e.key] == e {
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
	c.remove(e)
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

// replace gives copies that come from now on another reply than the one that was finished.
func (c *replyCache) replace(e *cacheEntry, reply replyContent, situation Situation) {
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.key] != e {
		return
	}
	n := &cacheEntry{ // others may be reading the old one
		key: e.key, hash: e.hash, attempt: e.attempt, kept: e.kept, bytes: entryOverhead + reply.bytes(),
		finished: true, expires: e.expires, reply: reply, situation: situation,
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
		c.remove(e)
	}
	copies := e.copies
	e.copies = nil
	return copies
}

// takeCopies returns the copies to settle after the reply, and keeps the entry.
func (c *replyCache) takeCopies(e *cacheEntry, one messageCopy) []messageCopy {
	if e == nil {
		return []messageCopy{one}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
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
		if e := c.entries[first.key]; e != nil && e.finished && e.expires.Sub(c.base) == first.at {
			if now.Before(e.expires) {
				if len(c.entries) < c.maxEntries && c.bytes <= c.maxBytes {
					return early
				}
				early = append(early, e.expires.Sub(now))
			}
			c.remove(e)
		}
		c.finished.pop()
	}
	return early
}

// remove forgets an entry. What the heap has of it is small until its time comes.
func (c *replyCache) remove(e *cacheEntry) {
	if c.entries[e.key] != e {
		return
	}
	delete(c.entries, e.key)
	c.bytes -= e.bytes
}
