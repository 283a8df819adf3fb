package sqstest

import (
	"math"
	"slices"
	"time"
)

// Fair queues: on a standard queue, messages with the same MessageGroupId belong to one tenant, and a message without one
// is a tenant of its own. A tenant that takes more than its share of the consumers is noisy, and gets its messages
// delivered only while no quiet tenant has any ("How Amazon SQS fair queues work", developer guide, for all rules here).
const (
	// A tenant with this many messages in flight or more is noisy when they are more than a tenth of the queue's.
	noisyInFlight = 30
	noisyTenth    = 10
	// A tenant is noisy, too, when its messages took more than a tenth of the recent processing time. The guide does not
	// say what recent is; here a second of processing counts half after every minute.
	processingHalfLife = time.Minute
	// Below this much processing there are no shares to speak of: a test with a handful of messages sees them in order.
	processingFloor = 30 * time.Second
	// A tenant that sent nothing for this long is quiet again.
	quietAfter = 5 * time.Minute
)

// tenant is the messages of one MessageGroupId on a standard queue. It exists while the queue holds any.
type tenant struct {
	name       string
	ready      indexed[*message]
	messages   int // hidden ones included
	inFlight   int
	sent       int64 // milliseconds: its latest send
	processing decaying
	noisy      bool // in fairState.noisy rather than fairState.quiet, if it has anything ready
	place      int32
}

// fairState is what a standard queue has ready, by tenant.
type fairState struct {
	alone      indexed[*message]  // messages without a group: always quiet, being one each
	quiet      indexed[*tenant]   // tenants with something ready, by the order of their first message
	noisy      []*tenant          // with something ready, and too much in flight
	tenants    map[string]*tenant // made with the first group
	processing decaying           // of all messages
}

func newFair() *fairState {
	f := &fairState{alone: messagesByOrder()}
	f.quiet.less = func(a, b *tenant) bool { return a.ready.first().order < b.ready.first().order }
	f.quiet.place = func(t *tenant) *int32 { return &t.place }
	return f
}

func messagesByOrder() indexed[*message] {
	return indexed[*message]{
		less:  func(a, b *message) bool { return a.order < b.order },
		place: func(m *message) *int32 { return &m.placeReady },
	}
}

// join makes a message that was just added one of its tenant's.
func (f *fairState) join(m *message, now int64) {
	if m.group == "" {
		return
	}
	t := f.tenants[m.group]
	if t == nil {
		t = &tenant{name: m.group, ready: messagesByOrder(), place: -1}
		if f.tenants == nil {
			f.tenants = map[string]*tenant{}
		}
		f.tenants[m.group] = t
	}
	t.messages++
	t.sent = now
	m.tenant = t
}

// leave undoes join. The message must be neither ready nor in flight any more.
func (f *fairState) leave(m *message) {
	t := m.tenant
	if t == nil {
		return
	}
	m.tenant = nil
	if t.messages--; t.messages == 0 {
		delete(f.tenants, t.name)
	}
}

// push makes a message ready.
func (f *fairState) push(m *message) {
	if m.tenant == nil {
		f.alone.push(m)
		return
	}
	f.change(m.tenant, func(ready *indexed[*message]) { ready.push(m) })
}

// remove takes a ready message out.
func (f *fairState) remove(m *message) {
	if m.tenant == nil {
		f.alone.remove(m)
		return
	}
	f.change(m.tenant, func(ready *indexed[*message]) { ready.remove(m) })
}

// peers are those that a ready message waits among: its tenant's, or those without one.
func (f *fairState) peers(m *message) *indexed[*message] {
	if m.tenant != nil {
		return &m.tenant.ready
	}
	return &f.alone
}

// exchange lets a ready message change places with another of its peers, of which there must be one. which, a number of any
// size, chooses the other.
func (f *fairState) exchange(m *message, which uint64) {
	peers := f.peers(m)
	other := peers.items[which%uint64(peers.len()-1)]
	if other == m {
		other = peers.items[peers.len()-1]
	}
	m.order, other.order = other.order, m.order
	peers.swap(int(m.placeReady), int(other.placeReady)) // each order stays where it was: the heap is as good as before
}

// change changes what a tenant has ready, and puts the tenant where it belongs by then.
func (f *fairState) change(t *tenant, do func(ready *indexed[*message])) {
	if f.quiet.has(t) {
		f.quiet.remove(t) // before its key, the first message, changes
	}
	do(&t.ready)
	switch {
	case t.ready.len() == 0:
		if t.noisy {
			f.calm(t) // "the tenant's backlog is consumed"
		}
	case !t.noisy:
		f.quiet.push(t)
	}
}

// calm takes a tenant off the noisy ones.
func (f *fairState) calm(t *tenant) {
	t.noisy = false
	f.noisy = slices.DeleteFunc(f.noisy, func(other *tenant) bool { return other == t })
}

func (f *fairState) empty() bool {
	return f.alone.len() == 0 && f.quiet.len() == 0 && len(f.noisy) == 0
}

// next is the message whose turn it is: the first of the quiet tenants', and if there is none, the first of the noisy
// tenant that has the least in flight. inFlight is the whole queue's. It is nil when nothing is ready.
func (f *fairState) next(inFlight int, now int64) *message {
	for i := len(f.noisy) - 1; i >= 0; i-- {
		if t := f.noisy[i]; !f.isNoisy(t, inFlight, now) {
			f.calm(t)
			f.quiet.push(t)
		}
	}
	for f.quiet.len() > 0 {
		t := f.quiet.first()
		if !f.isNoisy(t, inFlight, now) {
			break
		}
		f.quiet.remove(t)
		t.noisy = true
		f.noisy = append(f.noisy, t)
	}
	switch {
	case f.quiet.len() == 0 && f.alone.len() == 0:
		return f.leastNoisy()
	case f.quiet.len() == 0:
		return f.alone.first()
	case f.alone.len() == 0 || f.quiet.first().ready.first().order < f.alone.first().order:
		return f.quiet.first().ready.first()
	}
	return f.alone.first()
}

func (f *fairState) leastNoisy() *message {
	if len(f.noisy) == 0 {
		return nil
	}
	least := slices.MinFunc(f.noisy, func(a, b *tenant) int {
		if a.inFlight != b.inFlight {
			return a.inFlight - b.inFlight
		}
		return int(a.ready.first().order) - int(b.ready.first().order)
	})
	return least.ready.first()
}

func (f *fairState) isNoisy(t *tenant, inFlight int, now int64) bool {
	switch {
	case now-t.sent >= quietAfter.Milliseconds():
		return false
	case t.inFlight >= noisyInFlight && t.inFlight*noisyTenth > inFlight:
		return true
	}
	all := f.processing.at(now)
	return all >= float64(processingFloor.Milliseconds()) && t.processing.at(now)*noisyTenth > all
}

// processed counts the time, in milliseconds, that a message was in flight.
func (f *fairState) processed(m *message, took, now int64) {
	if took <= 0 {
		return
	}
	f.processing.add(took, now)
	if m.tenant != nil {
		m.tenant.processing.add(took, now)
	}
}

// decaying is a sum whose parts lose half their weight with every processingHalfLife.
type decaying struct {
	sum   float64
	since int64 // milliseconds: when sum was right
}

func (d *decaying) add(n, now int64) {
	d.sum, d.since = d.at(now)+float64(n), now
}

func (d *decaying) at(now int64) float64 {
	if d.sum == 0 || now == d.since {
		return d.sum
	}
	return d.sum * math.Exp2(-float64(now-d.since)/float64(processingHalfLife.Milliseconds()))
}
