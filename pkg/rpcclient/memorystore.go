package rpcclient

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// MemoryReplyStore is a ReplyStore in memory, for responders of one process and for tests. It shows what
// a store for many has to do.
//
// It holds a number of requests. For a new one it forgets the answer that is oldest, and what was claimed and
// not renewed; never a claim whose lease lasts, since the request would run twice. While all are such claims it
// answers ClaimBusy: a responder handles no more requests at a time than its store has room for.
type MemoryReplyStore struct {
	max int

	mu      sync.Mutex
	entries map[string]*list.Element // of *memoryEntry, by StoreKey.ID
	claimed list.List                // not complete; the latest made or renewed is last
	answers list.List                // complete, oldest first
}

type memoryEntry struct {
	key              StoreKey
	until            time.Time
	reply            []byte
	complete, failed bool
}

// NewMemoryReplyStore returns a store of at most entries requests, 1 or more. It should have room for all that
// come in the time in which copies may, as WithReplyCache says.
func NewMemoryReplyStore(entries int) *MemoryReplyStore {
	return &MemoryReplyStore{max: max(1, entries), entries: map[string]*list.Element{}}
}

// Claim implements ReplyStore.
func (m *MemoryReplyStore) Claim(ctx context.Context, key StoreKey, lease time.Time) ([]byte, ClaimState, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.entries[key.ID]; ok {
		e := at.Value.(*memoryEntry)
		switch {
		case !time.Now().Before(e.until), e.failed && e.key.Attempt < key.Attempt && e.key.Content == key.Content:
			m.remove(at)
		case e.key.Content != key.Content:
			return nil, ClaimConflict, nil
		case e.complete:
			return e.reply, ClaimAnswered, nil
		case key.Owner == "" || e.key.Owner != key.Owner:
			return nil, ClaimBusy, nil
		default:
			m.remove(at) // to be the latest
		}
	}
	if !m.insert(&memoryEntry{key: key, until: lease}) {
		return nil, ClaimBusy, nil
	}
	return nil, ClaimGranted, nil
}

// Complete implements ReplyStore. It fails when the claim was over, and its place is another's.
func (m *MemoryReplyStore) Complete(ctx context.Context, key StoreKey, reply []byte, failed bool, expires time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.entries[key.ID]; ok {
		if at.Value.(*memoryEntry).complete {
			return nil
		}
		m.remove(at)
	}
	if !m.insert(&memoryEntry{key: key, until: expires, reply: reply, complete: true, failed: failed}) {
		return errStoreFull
	}
	return nil
}

var errStoreFull = errors.New("the reply store has no room: as many requests as it holds are being handled")

// Release implements ReplyStore.
func (m *MemoryReplyStore) Release(ctx context.Context, key StoreKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.entries[key.ID]; ok {
		if e := at.Value.(*memoryEntry); !e.complete && e.key.Owner == key.Owner {
			m.remove(at)
		}
	}
	return nil
}

// insert makes room for a new entry, and reports whether there is any. It is called with the lock held.
func (m *MemoryReplyStore) insert(e *memoryEntry) bool {
	if len(m.entries) >= m.max && !m.makeRoom(time.Now()) {
		return false
	}
	into := &m.claimed
	if e.complete {
		into = &m.answers
	}
	m.entries[e.key.ID] = into.PushBack(e)
	return true
}

// makeRoom removes one entry, unless all are claims whose leases last.
func (m *MemoryReplyStore) makeRoom(now time.Time) bool {
	over := func(at *list.Element) bool { return !now.Before(at.Value.(*memoryEntry).until) }
	if at := m.claimed.Front(); at != nil && over(at) {
		m.remove(at)
		return true
	}
	if at := m.answers.Front(); at != nil {
		m.remove(at)
		return true
	}
	for at := m.claimed.Front(); at != nil; at = at.Next() { // leases may differ in length
		if over(at) {
			m.remove(at)
			return true
		}
	}
	return false
}

func (m *MemoryReplyStore) remove(at *list.Element) {
	e := at.Value.(*memoryEntry)
	delete(m.entries, e.key.ID)
	if e.complete {
		m.answers.Remove(at)
	} else {
		m.claimed.Remove(at)
	}
}
