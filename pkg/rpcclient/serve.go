package rpcclient

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// requestVisibility bounds how long a received request stays hidden at a time; it is extended while
// its handler runs. Short, so that a responder that dies, or an answer that is lost, costs seconds and
// not the queue's timeout.
const requestVisibility = 10 * time.Second

// backlogAge is how long, by SQS's clock, a request has waited for its first receive when there are too few
// receives. SQS looks at some of its servers only, so that a receive need not be full though many wait.
const backlogAge = 25 * time.Millisecond

// channelServer serves one channel of a responder.
type channelServer struct {
	r         *Responder
	channel   ChannelConfig
	addresses *addressChecker
	pollers   *pollers
	settler   *settler
	extender  *extender
	// visibility asked for at each receive, in whole seconds.
	visibility time.Duration
	// share is the most messages one receive asks for.
	share int
	// alone is until when a FIFO queue is read message by message; Unix nanoseconds.
	alone atomic.Int64
	// warnedOfClock is when it was last said that a request is dropped for its sender's clock; Unix nanoseconds.
	warnedOfClock atomic.Int64
	// busy: the latest receive brought something.
	busy atomic.Bool
}

func newChannelServer(r *Responder, channel ChannelConfig) (*channelServer, error) {
	own, err := parseQueueURL(channel.URL)
	if err != nil {
		return nil, err
	}
	visibility := max(time.Second, min(channel.VisibilityTimeout, requestVisibility)).Truncate(time.Second)
	s := &channelServer{
		r: r, channel: channel, visibility: visibility,
		share: min(maxBatch, max(1, r.cfg.concurrency/(2*len(r.cfg.channels)))),
	}
	// A delete must leave while the message is still hidden: the extender renews at six tenths. On a FIFO
	// queue the next message of the group waits for it.
	linger := visibility / 5
	if channel.FIFO {
		linger = fifoDeleteLinger
	}
	s.settler = newSettler(r.work, r.api, channel.URL, linger)
	s.addresses = newAddressChecker(r.cfg.addresses, containedSource(r.cfg.addressSource, r.cfg.log), own)
	s.extender = newExtender(s.settler, visibility)
	s.pollers = &pollers{
		wanted:    func() bool { return !r.isStopping() },
		expecting: s.busy.Load, // silence is suspicious after traffic, not while idle
		poll:      s.poll, ctx: r.work, max: min(r.cfg.maxPollers, max(2, r.cfg.concurrency/len(r.cfg.channels))), log: r.cfg.log, url: channel.URL, crew: &r.api.crew,
	}
	return s, nil
}

// poll makes one receive and starts a goroutine for each request.
func (s *channelServer) poll(ctx context.Context) (full bool, err error) {
	r := s.r
	want := s.share
	if time.Now().UnixNano() < s.alone.Load() {
		want = 1
	}
	n := r.slots.acquire(ctx, r.stopping, want)
	if n == 0 {
		return false, nil
	}
	places := r.slots.lend(n)
	system := systemAttributes
	if s.channel.FIFO {
		system = fifoSystemAttributes
	}
	asked := time.Now()
	msgs, at, date, err := r.api.receive(ctx, longPoll{
		queueURL: s.channel.URL, attributes: requestAttributes, system: system,
		max: n, wait: r.cfg.receiveWait, visibility: s.visibility,
	})
	if err != nil {
		places.end(0)
		return false, err
	}
	s.busy.Store(len(msgs) > 0)
	if len(msgs) > 0 {
		s.pollers.stir()
	}
	r.cfg.stats.received.Add(int64(len(msgs)))
	full = len(msgs) == s.share // of several: one alone says little
	var latest time.Time        // FirstReceive among first deliveries
	each, all := make([]received, len(msgs)), make([]*received, len(msgs))
	for i := range msgs {
		all[i] = &each[i]
		all[i].message, all[i].delivery = &msgs[i], newDelivery(&msgs[i], at, date)
		if d := all[i].delivery; d.count == 1 && !d.firstReceive.IsZero() {
			full = full || d.firstReceive.Sub(d.sent) > backlogAge
			if d.firstReceive.After(latest) {
				latest = d.firstReceive
			}
		}
	}
	if len(msgs) > 0 {
		r.clock.observe(latest, asked, at)
	}
	if s.channel.FIFO {
		groups := byGroup(all)
		placed := places.end(len(groups)) // of each, one message runs at a time
		for i, group := range groups {
			group[0].placed = i < placed
			r.wg.Go(func() { s.serveGroup(group) })
		}
		return full, nil
	}
	placed := places.end(len(all))
	for i := range placed {
		each[i].placed = true
	}
	r.wg.Add(len(all))
	r.api.rousing.Add(int64(len(all)))
	for i := range all {
		go s.serveAlone(all[i : i+1])
	}
	// Before the next receive is made, which takes as long as all of them, and which nobody waits for.
	runtime.Gosched()
	return full, nil
}

// serveAlone serves a message that waits for no other.
func (s *channelServer) serveAlone(m []*received) {
	defer s.r.wg.Done()
	m[0].rousing = true
	defer s.roused(m[0])
	if !m[0].placed {
		s.roused(m[0]) // it may take a while
	}
	if !m[0].placed && !s.place(m) {
		s.putBack(m)
		return
	}
	if m[0].placed {
		defer s.r.slots.release(1)
	}
	s.serve(m[0])
}

// roused notes that a request has come to its handler, or to its end.
func (s *channelServer) roused(m *received) {
	if m != nil && m.rousing {
		m.rousing = false
		s.r.api.rousing.Add(-1)
	}
}

// received is one message of a receive.
type received struct {
	message  *types.Message
	delivery delivery
	held     *heldRequest  // while it waits for a place, or for the others of its group
	refusal  *request      // it was refused while it waited for a place
	placed   bool          // it has one of the responder's places
	rousing  bool          // it is counted as one that is about to run
	left     atomic.Bool   // it was left in the queue
	refused  chan struct{} // closed when it is known whether its refusal left it; nil: it was not refused on a FIFO queue
}

// serve takes one message from its receive to its settlement.
func (s *channelServer) serve(m *received) {
	r := s.r
	now := time.Now()
	q := &request{from: m, held: m.held}
	defer func() {
		if p := recover(); p != nil {
			s.abandon(q, p)
		}
	}()
	if q = m.refusal; q == nil {
		q = s.admit(m.message, m.delivery, now)
	}
	q.from, q.held = m, m.held
	if q.refusal != nil {
		s.conclude(q, q.situation, nil, q.refusal, 0)
		return
	}
	if q.key != "" {
		q.hash = r.hashRequest(q)
		entry, found := r.cache.begin(q.key, q.hash, q.info.Attempt, q.copy, now, s.retention(q, now))
		switch found {
		case runIt:
			q.entry = entry
		case joined:
			r.cfg.stats.duplicates.Add(1)
			s.extender.release(q.held)
			if held := entry.held.Load(); held != nil && q.peer == PeerNative { // nil: they came together
				s.extender.prolong(held, q.deadline)
			}
			return // hidden, answered and deleted with the one that runs
		case replayed:
			r.cfg.stats.duplicates.Add(1)
			if q.peer == PeerOneWay || entry.situation == Expired {
				s.settle(q, []messageCopy{q.copy}, true)
				return
			}
			s.send(q, entry.reply, entry.situation, nil, 0)
			return
		case conflicting:
			q.key = ""
			s.conclude(q, Undecodable, nil, Errorf(InvalidArgument, "%w", errOtherContent), 0)
			return
		}
	}
	s.hold(q)
	if q.entry != nil {
		q.entry.held.Store(q.held)
		if later := r.cache.deadline(q.entry, q.deadline); later.After(q.deadline) { // of one that joined before
			s.extender.prolong(q.held, later)
		}
	}
	if q.entry != nil && r.cfg.replyStore != nil && !s.claim(q) {
		return
	}
	s.run(q)
}

// hold keeps a request and its copies hidden until it is settled.
func (s *channelServer) hold(q *request) {
	waited := q.from != nil && q.from.held != nil
	if q.held != nil && !waited {
		return
	}
	copies := func() []messageCopy { return s.r.cache.unsettled(q.entry, q.copy) }
	if waited {
		s.extender.adopt(q.held, copies, q.deadline)
		q.from.held = nil
		return
	}
	q.held = s.extender.hold(copies, q.given, q.deadline)
}

// oneWayRetention is how long a one-way request is remembered after it was handled, beside its queue's
// visibility timeout: nobody waits for it, and its budget is how long it is worth handling. A send that is
// repeated is repeated within DefaultTimeout.
const oneWayRetention = time.Minute

// retention is how long copies of a request taken up at now are recognised.
func (s *channelServer) retention(q *request, now time.Time) retention {
	visibility := s.channel.VisibilityTimeout
	if q.peer == PeerOneWay {
		return retention{after: visibility + oneWayRetention}
	}
	kept := retention{until: now.Add(q.budget + visibility), after: visibility}
	if q.peer == PeerNative {
		kept.deadline, kept.due = q.deadline, q.due
	}
	return kept
}

// abandon leaves a request in the queue whose serving panicked outside its handler.
func (s *channelServer) abandon(q *request, p any) {
	s.r.cfg.log.Error("serving a request panicked; it is left in the queue", "channel", s.channel.Name,
		"panic", p, "stack", string(debug.Stack()))
	s.settle(q, s.r.cache.settleWithoutReply(q.entry, q.copy, ReplyNotSent), false)
}
