package sqstest

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// nameLock is how long SQS refuses the name of a deleted queue: 60 s (DeleteQueue and CreateQueue, API reference).
const nameLock = 60 * 1000

// registry is which queues exist, and which did until lately.
type registry struct {
	mu           sync.RWMutex
	queues       map[queueKey]*queue
	gone         map[queueKey]goneQueue // those deleted in the last minute, and some before
	incarnations uint64                 // counted from a random number: handles of another server mean nothing here
	leap         uint64                 // what the next incarnation is higher by, after Load: queues may have been made and lost
	deletions    uint64
	// By key. Readers keep what all gave them, so it is copied before a change when it was given to any.
	sorted []*queue
	shared atomic.Bool
	// The queues of which an ARN is the dead-letter queue, and the ARN that each of them has.
	sources map[string]map[*queue]bool
	targets map[*queue]string
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
	r.incarnations += 1 + r.leap
	r.leap = 0
	q := newQueue(s, key, r.incarnations, set, tags, now)
	r.add(q)
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
	if i, ok := slices.BinarySearchFunc(r.own(), q.key, byKey); ok {
		r.sorted = slices.Delete(r.sorted, i, i+1)
	}
	r.link(q, nil)
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
	defer r.mu.RUnlock()
	r.shared.Store(true)
	return r.sorted
}

// own is sorted, to be changed in place. r must be locked.
func (r *registry) own() []*queue {
	if r.shared.Swap(false) {
		r.sorted = append(make([]*queue, 0, len(r.sorted)+len(r.sorted)/4+1), r.sorted...)
	}
	return r.sorted
}

// add puts a queue in. r must be locked.
func (r *registry) add(q *queue) {
	r.queues[q.key] = q
	i, _ := slices.BinarySearchFunc(r.own(), q.key, byKey)
	r.sorted = slices.Insert(r.sorted, i, q)
	r.link(q, q.settings.redrive)
}

// link notes which dead-letter queue a queue has by now. r must be locked.
func (r *registry) link(q *queue, p *redrivePolicy) {
	if old, ok := r.targets[q]; ok {
		delete(r.targets, q)
		if delete(r.sources[old], q); len(r.sources[old]) == 0 {
			delete(r.sources, old)
		}
	}
	if p == nil {
		return
	}
	r.targets[q] = p.target
	if r.sources[p.target] == nil {
		r.sources[p.target] = map[*queue]bool{}
	}
	r.sources[p.target][q] = true
}

// relink is link for a queue whose settings changed. The queue must be locked.
func (r *registry) relink(q *queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queues[q.key] == q { // and was not deleted this moment
		r.link(q, q.settings.redrive)
	}
}

// sourcesOf is the names of the queues of which dead is the dead-letter queue, in order.
func (r *registry) sourcesOf(dead *queue) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := make([]string, 0, len(r.sources[dead.arn]))
	for q := range r.sources[dead.arn] {
		names = append(names, q.key.name) // in its region and account: see checkRedrive
	}
	slices.Sort(names)
	return names
}

func byKey(q *queue, k queueKey) int { return compareKeys(q.key, k) }

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
	i, _ := slices.BinarySearchFunc(all, start, byKey)
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
