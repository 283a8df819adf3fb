package sqstest

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
)

// nameLock is how long SQS refuses the name of a deleted queue: 60 s (DeleteQueue and CreateQueue, API reference).
const nameLock = 60 * 1000

// registry is which queues exist, and which did until lately.
type registry struct {
	mu           sync.RWMutex
	queues       map[queueKey]*queue
	gone         map[queueKey]goneQueue // those deleted in the last minute, and some before
	incarnations uint64
	deletions    uint64
	sorted       []*queue // by key; nil when it has to be made again
}

// goneQueue is a deleted queue.
type goneQueue struct {
	at int64  // milliseconds
	q  *queue // as it was, without its messages; nil after Load
}

func (r *registry) get(key queueKey) *queue {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.queues[key]
}

func (r *registry) byARN(arn string) *queue {
	key, ok := parseARN(arn)
	if !ok {
		return nil
	}
	return r.get(key)
}

// generation changes with every queue that is made or deleted.
func (r *registry) generation() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.incarnations + r.deletions
}

// lately is the deleted queue of that name, and false when none was deleted lately.
func (r *registry) lately(key queueKey) (goneQueue, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g, ok := r.gone[key]
	return g, ok
}

// create makes the queue, unless there is one of that name (which is returned, with false) or was until lately.
func (r *registry) create(s *Server, key queueKey, set settings, tags map[string]string, now int64) (*queue, bool, *apiError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.queues[key]; q != nil {
		return q, false, nil
	}
	if g, ok := r.gone[key]; ok && now < g.at+nameLock {
		return nil, false, errDeletedRecently()
	}
	delete(r.gone, key)
	r.incarnations++
	q := newQueue(s, key, r.incarnations, set, tags, now)
	r.queues[key] = q
	r.sorted = nil
	q.touch()
	return q, true, nil
}

// delete takes the queue out of the registry. It is false when that queue is not in it any more.
func (r *registry) delete(q *queue, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queues[q.key] != q {
		return false
	}
	delete(r.queues, q.key)
	r.sorted = nil
	q.touch()
	r.gone[q.key] = goneQueue{now, q}
	// Now and then, so that many deletions are not quadratic.
	if r.deletions++; r.deletions%1024 == 0 {
		maps.DeleteFunc(r.gone, func(_ queueKey, g goneQueue) bool { return now >= g.at+nameLock })
	}
	return true
}

// all is every queue, by region, account and name.
func (r *registry) all() []*queue {
	r.mu.RLock()
	sorted := r.sorted
	r.mu.RUnlock()
	if sorted != nil {
		return sorted
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sorted == nil {
		r.sorted = make([]*queue, 0, len(r.queues))
		for _, q := range r.queues {
			r.sorted = append(r.sorted, q)
		}
		slices.SortFunc(r.sorted, func(a, b *queue) int { return compareKeys(a.key, b.key) })
	}
	return r.sorted
}

func compareKeys(a, b queueKey) int {
	if c := strings.Compare(a.region, b.region); c != 0 {
		return c
	}
	if c := strings.Compare(a.account, b.account); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

// page is one page of the names that start with from's, in order, after the one given ("" for the first page). more is
// true when others follow. With a lag, it is what was there that many milliseconds ago.
func (r *registry) page(from queueKey, after string, limit int, now, lag int64) (names []string, more bool) {
	var found []string
	all := r.all()
	start := queueKey{from.region, from.account, max(from.name, after)}
	i, _ := slices.BinarySearchFunc(all, start, func(q *queue, k queueKey) int { return compareKeys(q.key, k) })
	for ; i < len(all) && len(found) <= limit; i++ {
		k := all[i].key
		if !k.under(from) {
			break
		}
		if k.name != after && (lag == 0 || now >= all[i].created+lag) {
			found = append(found, k.name)
		}
	}
	if lag > 0 {
		found = r.withGone(found, from, after, now-lag)
	}
	if len(found) > limit {
		return found[:limit], true
	}
	return found, false
}

// withGone adds the queues that were deleted after the given time.
func (r *registry) withGone(names []string, from queueKey, after string, since int64) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for k, g := range r.gone {
		if k.under(from) && k.name > after && g.at > since {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// under reports whether a queue is of the same region and account, with a name that starts with the other's.
func (k queueKey) under(from queueKey) bool {
	return k.region == from.region && k.account == from.account && strings.HasPrefix(k.name, from.name)
}

// A page token is the last name of the page before.
func pageToken(last string) string {
	return base64.URLEncoding.EncodeToString([]byte("sqstest:" + last))
}

func parsePageToken(token string) (string, bool) {
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(b), "sqstest:")
}
