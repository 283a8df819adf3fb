package rpcclient

import (
	"context"
	"errors"
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

// fifoDeleteLinger is how long a delete on a FIFO queue waits for company.
const fifoDeleteLinger = 5 * time.Millisecond

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
	s.addresses = newAddressChecker(r.cfg.addresses, own)
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
	placed := places.end(len(msgs))
	if err != nil {
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
		all[i].placed, all[i].message, all[i].delivery = i < placed, &msgs[i], newDelivery(&msgs[i], at, date)
		if d := all[i].delivery; d.count == 1 && !d.firstReceive.IsZero() {
			full = full || d.firstReceive.Sub(d.sent) > backlogAge
			if d.firstReceive.After(latest) {
				latest = d.firstReceive
			}
		}
	}
	if !latest.IsZero() {
		r.clock.observe(latest, asked, at)
	}
	if s.channel.FIFO {
		for _, group := range byGroup(all) {
			r.wg.Go(func() { s.serveGroup(group) })
		}
		return full, nil
	}
	r.wg.Add(len(all))
	r.api.rousing.Add(int64(len(all)))
	for i := range all {
		go s.serveAlone(all[i : i+1])
	}
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
	if !s.place(m[0]) {
		s.putBack(m)
		return
	}
	defer s.r.slots.release(1)
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
	held     *heldRequest  // while it waits for the others of its group
	placed   bool          // it has one of the responder's places
	rousing  bool          // it is counted as one that is about to run
	left     atomic.Bool   // it was left in the queue
	refused  chan struct{} // closed when it is known whether its refusal left it; nil: it was not refused on a FIFO queue
}

// placePatience is how long a message whose receive had lent its place waits for another, before it is put
// back for other responders.
const placePatience = time.Second

// place waits for a place for a message that has none. It reports false when there is none for it.
func (s *channelServer) place(m *received) bool {
	if !m.placed {
		ctx, cancel := context.WithTimeout(s.r.work, min(placePatience, s.visibility/5))
		defer cancel()
		m.placed = s.r.slots.acquireFor(ctx, s.r.stopping)
	}
	return m.placed
}

// byGroup splits a receive of a FIFO queue by message group, in order.
func byGroup(all []*received) [][]*received {
	index := map[string]int{}
	var groups [][]*received
	for _, m := range all {
		name := m.message.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]
		i, ok := index[name]
		if !ok {
			i = len(groups)
			index[name] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// serveGroup serves the messages of one FIFO group, which a receive may bring together, one after the
// other. SQS gives out no more of the group before these are settled. Those that wait are kept hidden. When
// one is left in the queue, so are those that follow it: SQS gives them out in order again.
func (s *channelServer) serveGroup(group []*received) {
	for _, m := range group[1:] {
		if m.held == nil {
			q := s.admit(m.message, m.delivery, m.delivery.local)
			m.held = s.extender.hold(func() []messageCopy { return []messageCopy{q.copy} }, q.given, q.deadline)
		}
	}
	first, rest := group[0], group[1:]
	if !s.place(first) {
		s.putBack(group)
		return
	}
	// Deferred, since a handler that calls runtime.Goexit returns to nobody.
	defer func() {
		s.r.slots.release(1)
		if first.refused != nil {
			<-first.refused
		}
		left := first.left.Load()
		if left {
			s.alone.Store(time.Now().Add(aloneFor * s.visibility).UnixNano())
		}
		switch {
		case len(rest) == 0:
		case left:
			s.putBack(rest)
		default:
			s.r.wg.Go(func() { s.serveGroup(rest) })
		}
	}()
	s.extender.release(first.held)
	s.serve(first)
}

// aloneFor is for how many times the visibility a FIFO queue is read message by message after one was left:
// what is received with it is counted by SQS as received each time, and would come to the dead-letter queue
// together with it.
const aloneFor = 3

// putBack leaves what follows a message that was left, or finds no place.
func (s *channelServer) putBack(rest []*received) {
	placed := 0
	changes := make([]visibilityChange, len(rest))
	for i, m := range rest {
		s.extender.release(m.held)
		changes[i].handle = deref(m.message.ReceiptHandle)
		if m.placed {
			placed++
		}
	}
	s.r.cfg.stats.left.Add(int64(len(rest)))
	s.settler.changeVisibility(changes)
	s.r.slots.release(placed)
}

// serve takes one message from its receive to its settlement.
func (s *channelServer) serve(m *received) {
	r := s.r
	now := time.Now()
	q := &request{}
	defer func() {
		if p := recover(); p != nil {
			s.abandon(q, p)
		}
	}()
	q = s.admit(m.message, m.delivery, now)
	q.from = m
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
	if q.entry != nil && r.cfg.replyStore != nil && !s.claim(q) {
		return
	}
	s.run(q)
}

// hold keeps a request and its copies hidden until it is settled.
func (s *channelServer) hold(q *request) {
	if q.held == nil {
		q.held = s.extender.hold(func() []messageCopy { return s.r.cache.unsettled(q.entry, q.copy) }, q.given, q.deadline)
	}
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
	return retention{until: now.Add(q.budget + visibility), after: visibility}
}

// abandon leaves a request in the queue whose serving panicked outside its handler.
func (s *channelServer) abandon(q *request, p any) {
	s.r.cfg.log.Error("serving a request panicked; it is left in the queue", "channel", s.channel.Name,
		"panic", p, "stack", string(debug.Stack()))
	s.settle(q, s.r.cache.settleWithoutReply(q.entry, q.copy, ReplyNotSent), false)
}

// execution is one run of a request's handler, as far as it got.
type execution struct {
	stream  *frameSender // of a streaming handler
	payload []byte
	err     error
	panic   any // what the handler, its codec or its error's methods panicked with; nil: nothing
	stack   []byte
	whole   bool // the handler returned, or panicked; otherwise it ended its goroutine
	took    time.Duration
}

// run calls the handler and settles.
func (s *channelServer) run(q *request) {
	r := s.r
	ctx, cancel := context.WithDeadlineCause(r.work, q.deadline, errDeadline)
	defer cancel()
	ctx = context.WithValue(ctx, servingKey{}, &q.serving)
	if l := q.handler.limit; l != nil {
		entered, retryAfter := l.enter(ctx)
		if !entered {
			s.turnedAway(q, retryAfter)
			return
		}
	}
	x := &execution{}
	started := time.Now()
	// Deferred, since a handler that calls runtime.Goexit returns to nobody.
	defer func() {
		x.took = time.Since(started)
		if q.handler.limit != nil {
			q.handler.limit.leave(x.took)
		}
		s.ended(q, x)
	}()
	if q.handler.stream {
		x.stream = newFrameSender(s, q)
	}
	s.roused(q.from)
	x.run(ctx, q)
}

// run calls the handler. Whatever is the application's is called here, where panics are contained: the
// methods of an error too.
func (x *execution) run(ctx context.Context, q *request) {
	defer func() {
		if p := recover(); p != nil {
			x.whole, x.panic, x.stack = true, p, debug.Stack()
		}
	}()
	if x.stream != nil {
		x.err = x.stream.run(ctx)
	} else {
		x.payload, x.err = q.handler.answer(ctx, &q.info, q.payload)
	}
	if isNil(x.err) {
		x.err = nil
	}
	if x.err != nil {
		_ = asError(x.err)
	}
	x.whole = true
}

var errExited = errors.New("the handler ended its goroutine")

// ended settles what was run.
func (s *channelServer) ended(q *request, x *execution) {
	r := s.r
	situation, err := Succeeded, x.err
	switch {
	case x.panic != nil:
		situation, err = Panicked, Errorf(Internal, "the handler panicked")
		r.cfg.log.Error("handler panicked", "channel", s.channel.Name, "method", q.method, "callID", hashCallID(q.info.id),
			"panic", x.panic, "stack", string(x.stack))
	case !x.whole:
		situation, err = Panicked, Errorf(Internal, "%w", errExited)
		r.cfg.log.Error("handler ended its goroutine", "channel", s.channel.Name, "method", q.method, "callID", hashCallID(q.info.id))
	case err != nil && r.work.Err() != nil: // it was cut off, and says so in its own words
		situation = ReplyNotSent
	case err != nil:
		situation = HandlerFailed
		if errors.As(err, new(*undecodable)) {
			situation = Undecodable
			err = Errorf(InvalidArgument, "%w", err)
		}
	}
	if situation != Undecodable {
		r.cfg.stats.served.Add(1)
	}
	if q.native && time.Now().After(q.deadline) && (q.peer == PeerNative || situation != Succeeded) {
		// What is left of a deadline is estimated too long rather than too short: nobody waits any more, or wants it done.
		// But it was run: a copy of which more seems to be left must not be.
		q.late = true
		r.cache.finish(q.entry, replyContent{}, Expired)
		if q.peer == PeerNative {
			s.conclude(q, Expired, nil, errDeadline, x.took)
			return
		}
	}
	if x.stream != nil && situation != Undecodable {
		if broken := x.stream.failure(); broken != nil {
			// Without every frame its end must not be sent: a redelivery is another run.
			situation, err = ReplyNotSent, broken
			switch {
			case isMissingQueue(broken):
				situation = RequesterGone
			case isUnacceptable(broken): // nor would SQS take it of another run
				situation, err = ReplyTooLarge, errorOfUnacceptable(broken)
				x.stream.endAtRefused()
			}
		}
	}
	s.conclude(q, situation, x.payload, err, x.took)
}

// turnedAway settles a request whose method had no place for it: shed, or out of time.
func (s *channelServer) turnedAway(q *request, retryAfter time.Duration) {
	switch {
	case retryAfter > 0:
		s.conclude(q, Shed, nil, &Error{Code: Unavailable, Message: errMethodBusy.Error(), RetryAfter: retryAfter, cause: errMethodBusy}, 0)
	case time.Now().Before(q.deadline): // cut off
		s.conclude(q, ReplyNotSent, nil, ErrClosed, 0)
	default:
		s.conclude(q, Expired, nil, errDeadline, 0)
	}
}

var errMethodBusy = errors.New("the method has as many requests running and waiting as it may")

// conclude settles a request by the table.
func (s *channelServer) conclude(q *request, situation Situation, payload []byte, err error, took time.Duration) {
	r := s.r
	var reply replyContent
	if situation == Succeeded {
		reply = answerContent(q, payload)
		if reply.bytes()+r.cfg.reserve > maxSQSBytes {
			situation, err = ReplyTooLarge, &Error{Code: ResourceExhausted, Message: "the reply is over the limit of a message", cause: ErrPayloadTooLarge}
		}
	}
	st := settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies)
	switch situation {
	case BadAddress, Shed, UnknownMethod, Undecodable:
		r.cfg.stats.refused.Add(1)
	case Expired:
		r.cfg.stats.expired.Add(1)
	}
	if st.reply && st.rejected {
		s.refuse(q, situation, err, took)
		return
	}
	if !st.reply {
		if q.late {
			s.remember(q, true, replyContent{}, Expired)
		} else {
			s.remember(q, situation == Succeeded, reply, situation)
		}
		copies := r.cache.settleWithoutReply(q.entry, q.copy, situation)
		s.settle(q, copies, st.delete)
		s.served(q, situation, err, took)
		return
	}
	if situation == Succeeded {
		r.cache.finish(q.entry, reply, situation)
	} else {
		reply = r.cache.finishError(q.entry, func(attempt int) replyContent {
			q.answers = attempt
			return errorContent(q, err, false)
		}, situation)
	}
	s.remember(q, true, reply, situation)
	s.send(q, reply, situation, err, took)
}

// send sends a reply and settles its request when SQS has answered.
func (s *channelServer) send(q *request, reply replyContent, situation Situation, err error, took time.Duration) {
	r := s.r
	r.unsettled.Add(1)
	r.slots.replying(1)
	s.hold(q)
	m := &replyMessage{to: q.to, content: reply, reserve: r.cfg.reserve, pack: q.packs, last: q.deleted}
	if q.peer == PeerNative {
		m.deadline = q.deadline
	} else {
		s.extender.prolong(q.held, time.Now().Add(DefaultTimeout)) // which has no deadline that its reply must meet
	}
	m.done = func(sendErr error) {
		defer r.unsettled.Done()
		defer r.slots.replying(-1)
		if sendErr != nil && isMissingQueue(sendErr) && q.peer != PeerNative && !m.failedOver {
			// The Java client keeps a second queue under this name for when the first is lost.
			m.failedOver = true
			m.to.queueURL += failoverSuffix
			s.sendAgain(m)
			return
		}
		if q.deleted && sendErr != nil && !isPermanent(sendErr) && r.work.Err() == nil && time.Now().Before(m.deadline) {
			s.sendAgain(m) // nobody else can say it any more
			return
		}
		if s.notFoundYet(q, m, sendErr, func() { s.sendAgain(m) }) {
			return
		}
		switch {
		case sendErr == nil:
			r.gone.answered(q.to.queueURL)
			if m.replaced {
				r.cache.replace(q.entry, m.content, situation)
			}
		case isMissingQueue(sendErr):
			situation, err = RequesterGone, sendErr
		case !m.deadline.IsZero() && time.Now().After(m.deadline):
			situation, err = Expired, sendErr
			r.cfg.stats.expired.Add(1)
		case isUnacceptable(sendErr) && !m.replaced && !q.deleted:
			m.replaced = true
			situation, err = ReplyTooLarge, errorOfUnacceptable(sendErr)
			if settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies).reply {
				q.answers = r.cache.attempt(q.entry)
				m.content, m.packed = errorContent(q, err, false), ""
				s.sendAgain(m)
				return
			}
		default:
			situation, err = ReplyNotSent, sendErr
		}
		st := settle(situation, q.peer, s.channel.DeadLetter, r.cfg.errorReplies)
		s.settle(q, r.cache.takeCopies(q.entry, q.copy), st.delete)
		s.served(q, situation, err, took)
	}
	m.out.message = m
	if to := r.replies.to(m.to.queueURL); q.deleted || !to.jammed() {
		to.add(&m.out)
	} else {
		m.done(errJammed)
	}
}

// notFoundYet has a native requester's reply, or frame, sent again in a while whose queue was not found, and reports
// that it does: SQS may not know a new queue at first. It does not when SQS has said so for long enough, or when the
// reply's time is over.
func (s *channelServer) notFoundYet(q *request, m *replyMessage, err error, again func()) bool {
	r := s.r
	if !isMissingQueue(err) || q.peer != PeerNative || r.gone.missing(q.to.queueURL, time.Now()) || !time.Now().Before(m.deadline) {
		return false
	}
	r.unsettled.Add(1)
	go func() { // ends when the responder is cut off, at the latest
		defer r.unsettled.Done()
		sleep(r.work, missingRetry)
		again()
	}()
	return true
}

// sendAgain sends a reply anew, from its end.
func (s *channelServer) sendAgain(m *replyMessage) {
	r := s.r
	m.out = outgoing{message: m}
	r.unsettled.Add(1)
	r.slots.replying(1)
	r.replies.to(m.to.queueURL).add(&m.out)
}

// settle deletes a request's copies or leaves them in the queue, and lets go of them.
func (s *channelServer) settle(q *request, copies []messageCopy, remove bool) {
	defer s.extender.release(q.held)
	if q.deleted {
		return
	}
	if !remove {
		s.r.cfg.stats.left.Add(int64(len(copies)))
		if q.from != nil {
			q.from.left.Store(true)
		}
		return
	}
	for _, c := range copies {
		s.settler.delete(c.handle)
	}
}

func (s *channelServer) served(q *request, situation Situation, err error, took time.Duration) {
	if len(s.r.hooks.served) == 0 {
		return
	}
	e := Served{
		Channel: s.channel.Name, QueueURL: s.channel.URL, Method: q.method, Registered: q.info.Registered, Peer: q.peer,
		Attempt: q.info.Attempt, ReceiveCount: q.info.ReceiveCount, Age: q.info.Age,
		Replies: q.sent, Situation: situation, Took: took, Err: err,
	}
	if q.run == "" && situation == Succeeded && q.peer != PeerOneWay {
		e.Replies = 1
	}
	if q.info.id != "" {
		e.CallID = hashCallID(q.info.id)
	}
	s.r.hooks.onServed(e)
}
