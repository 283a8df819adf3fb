package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Requester sends requests and receives their replies on one reply queue. It is safe for concurrent
// use; a program needs one. While no call is pending it makes no SQS request.
type Requester struct {
	cfg    config
	api    *queueAPI
	hooks  hooks
	source ReplyQueueSource
	// closeSource closes source, once.
	closeSource func() error
	nonce       string
	clock       sqsClock
	calls       CallFunc      // perform within the interceptors
	slots       chan struct{} // one element per pending call
	timers      sync.Pool     // of calls that have ended

	ctx    context.Context // ends when Shutdown is over
	cancel context.CancelFunc
	wg     sync.WaitGroup // the watcher, put-backs, and the closing of lost queues
	// started counts the calls of Start.
	started sync.WaitGroup

	mu       sync.Mutex
	channels map[string]*Channel
	pending  map[string]*call
	queue    *replyQueue // where replies come to now; nil while there is none
	lostURL  string      // a queue that SQS no longer knows
	// queueless is since when there is no reply queue, while there is none.
	queueless time.Time
	changed   chan struct{} // closed when queue or closing changes
	closing   bool
	drained   chan struct{} // closed when closing and nothing is pending
	held      heldReplies
}

// NewRequester returns a requester that sends through client's configuration and awaits replies where
// source says. It makes no request and starts no poll before the first call; it watches source until
// Shutdown, which closes the connections too, unless client has an HTTP client of the application's. A time limit of
// the SDK's own HTTP client is not taken over; that of another must leave room for a long poll, and one that speaks
// HTTP/2 must ping its connections (http.HTTP2Config.SendPingTimeout, some seconds), as is done with the SDK's own: one that
// died without a word is used on otherwise. In a pod that the
// operator has injected, rpcenv.NewRequester is all that is needed.
func NewRequester(client *sqs.Client, source ReplyQueueSource, opts ...Option) (*Requester, error) {
	if source == nil {
		return nil, errors.New("requester: the reply queue source is nil")
	}
	cfg, err := newConfig(opts)
	if err == nil {
		err = checkClient(client, cfg.receiveWait)
	}
	if err != nil {
		return nil, fmt.Errorf("requester: %w", err)
	}
	r := &Requester{
		cfg: cfg, hooks: newHooks(cfg.hooks, cfg.log), source: source, nonce: newNonce(),
		slots:    make(chan struct{}, cfg.maxPending),
		channels: map[string]*Channel{}, pending: map[string]*call{},
		changed: make(chan struct{}), drained: make(chan struct{}), queueless: time.Now(),
	}
	r.api = newQueueAPI(client, cfg.stats, r.hooks)
	r.calls = intercepted(r.perform, cfg.callInterceptors)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for i := range cfg.channels {
		c := cfg.channels[i]
		r.channels[c.Name] = &Channel{
			config: c, requester: r, sender: newSender(r.ctx, r.api, c.URL), retries: newRetrier(cfg.retries, &c),
		}
	}
	url, changed := source.Current()
	if _, ok := source.(staticQueue); ok || url != "" {
		if err := checkReplyQueue(url); err != nil {
			r.cancel()
			return nil, fmt.Errorf("requester: reply queue URL %q: %w", url, err)
		}
	}
	r.closeSource = sync.OnceValue(func() error {
		if c, ok := source.(io.Closer); ok {
			return c.Close()
		}
		return nil
	})
	r.adopt(url)
	r.wg.Go(func() { r.watch(changed) })
	return r, nil
}

// timer is a timer for d, of an earlier call where there is one.
func (r *Requester) timer(d time.Duration) *time.Timer {
	t, ok := r.timers.Get().(*time.Timer)
	if !ok {
		return time.NewTimer(d)
	}
	t.Reset(d)
	return t
}

// putTimer keeps a timer that nobody waits for any more.
func (r *Requester) putTimer(t *time.Timer) {
	if !t.Stop() {
		select {
		case <-t.C: // nothing, unless the program wants timers as they were before Go 1.23
		default:
		}
	}
	r.timers.Put(t)
}

// Channel returns the channel of that name, or an error that says which names there are.
func (r *Requester) Channel(name string) (*Channel, error) {
	if ch, ok := r.channels[name]; ok {
		return ch, nil
	}
	return nil, unknownChannel(name, r.cfg.channels)
}

// Channels returns the names of the channels, sorted.
func (r *Requester) Channels() []string { return slices.Sorted(maps.Keys(r.channels)) }

// ReplyQueueURL is where replies come to now, or "" while there is no reply queue.
func (r *Requester) ReplyQueueURL() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue == nil {
		return ""
	}
	return r.queue.url
}

// Pending is the number of calls that wait for replies.
func (r *Requester) Pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

// Stats reads the counters.
func (r *Requester) Stats() StatsSnapshot { return r.cfg.stats.Snapshot() }

// watch follows the source until the requester is closed.
func (r *Requester) watch(changed <-chan struct{}) {
	for {
		select {
		case <-changed: // nil when there will be no change
		case <-r.ctx.Done():
			return
		}
		var url string
		url, changed = r.source.Current()
		r.adopt(url)
	}
}

// adopt switches to the reply queue at url ("": none). Calls that await replies on another fail.
func (r *Requester) adopt(url string) {
	r.mu.Lock()
	if url != "" {
		if err := checkReplyQueue(url); err != nil {
			r.cfg.log.Error("the reply queue's URL is none: there is no reply queue", "queueURL", url, "error", err)
			url = ""
		}
	}
	if url == r.lostURL {
		url = ""
	}
	if (r.queue == nil && url == "") || (r.queue != nil && r.queue.url == url) {
		r.mu.Unlock()
		return
	}
	lost := r.dropQueue()
	if url != "" {
		r.queue = newReplyQueue(r, url)
	}
	r.notify()
	r.mu.Unlock()

	r.cfg.log.Info("reply queue changed", "queueURL", url, "callsLost", len(lost))
	r.hooks.onReplyQueue(url)
	r.fail(lost, ErrReplyQueueLost, Unavailable, "the reply queue was closed")
}

// queueMissing is told by a reply queue that SQS no longer knows it.
func (r *Requester) queueMissing(q *replyQueue) {
	r.mu.Lock()
	if r.queue != q {
		r.mu.Unlock()
		return
	}
	r.lostURL = q.url
	lost := r.dropQueue()
	r.notify()
	r.mu.Unlock()

	r.cfg.log.Warn("reply queue does not exist any more", "queueURL", q.url, "callsLost", len(lost))
	r.hooks.onReplyQueue("")
	r.source.Lost(q.url)
	r.fail(lost, ErrReplyQueueLost, Unavailable, "the reply queue does not exist any more")
}

// dropQueue ends the current reply queue and removes its calls. It is called with the lock held.
func (r *Requester) dropQueue() []*call {
	q := r.queue
	if q == nil {
		return nil
	}
	r.queue, r.queueless = nil, time.Now()
	q.cancel()
	r.wg.Go(func() { q.close() })
	var lost []*call
	for id, c := range r.pending {
		if c.queue == q {
			delete(r.pending, id)
			c.closeFrames()
			lost = append(lost, c)
		}
	}
	q.pending.Store(0)
	r.checkDrained()
	return lost
}

// fail ends calls that were removed from the pending map.
func (r *Requester) fail(calls []*call, cause error, code Code, why string) {
	for _, c := range calls {
		outcome, err := c.abandon()
		c.done <- answer{err: c.failure(code, outcome, cause, "%s%s", why, because(err))}
	}
}

// notify wakes everything that waits for a change of queue or of state. It is called with the lock held.
func (r *Requester) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// checkDrained is called with the lock held.
func (r *Requester) checkDrained() {
	if r.closing && len(r.pending) == 0 {
		select {
		case <-r.drained:
		default:
			close(r.drained)
		}
	}
}

// Shutdown drains: new calls fail with ErrClosed, pending ones go on until they end or ctx does (then
// they fail with ErrClosed), reply pollers stop last, and deletes that are due are made, for at most a second
// after ctx's end. It returns ctx's cause if calls or deletes had to be cut off. A second call waits as the first
// does, within its own ctx.
func (r *Requester) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	if !r.closing {
		r.closing = true
		r.notify()
	}
	r.checkDrained()
	r.mu.Unlock()

	var cut error
	select {
	case <-r.drained:
	case <-ctx.Done():
		r.mu.Lock()
		calls := make([]*call, 0, len(r.pending))
		for id, c := range r.pending {
			delete(r.pending, id)
			c.closeFrames()
			calls = append(calls, c)
		}
		r.checkDrained()
		r.mu.Unlock()
		if len(calls) > 0 {
			cut = fmt.Errorf("%d calls were cut off: %w", len(calls), context.Cause(ctx))
		}
		r.fail(calls, ErrClosed, Canceled, "the requester was shut down")
	}

	endGrace := afterGrace(ctx, r.cancel)
	if !r.awaitStarted(ctx) && cut == nil {
		cut = fmt.Errorf("calls of Start have not returned from their interceptors: %w", context.Cause(ctx))
	}
	r.mu.Lock()
	q := r.queue
	r.mu.Unlock()
	if q != nil && !q.close() && cut == nil && ctx.Err() != nil { // an earlier call of Shutdown may have cut them off
		cut = fmt.Errorf("deletes of replies were cut off: %w", context.Cause(ctx))
	}
	endGrace()
	r.cancel()
	for _, ch := range r.channels {
		ch.sender.wait()
	}
	r.wg.Wait()
	r.api.close()
	if err := r.closeSource(); err != nil && cut == nil {
		return fmt.Errorf("close the reply queue source: %w", err)
	}
	return cut
}

// awaitStarted waits for the goroutines of Start, whose calls have ended by now. An interceptor may keep
// one.
func (r *Requester) awaitStarted(ctx context.Context) bool {
	returned := make(chan struct{})
	go func() { // ends when the last interceptor returns
		defer close(returned)
		r.started.Wait()
	}()
	select {
	case <-returned:
		return true
	case <-ctx.Done():
	}
	grace := time.NewTimer(cutOffGrace)
	defer grace.Stop()
	select {
	case <-returned:
		return true
	case <-grace.C:
		return false
	}
}

// replyQueue is one reply queue, from its first call to its loss.
type replyQueue struct {
	r       *Requester
	url     string
	pending atomic.Int64
	sated   atomic.Int64 // of pending: streams that want no messages for now
	dated   atomic.Int64 // until when receives ask for age and count; Unix nanoseconds
	pollers *pollers
	settler *settler

	ctx    context.Context // ends when messages on the queue no longer matter
	cancel context.CancelFunc

	missing missingQueue
}

func newReplyQueue(r *Requester, url string) *replyQueue {
	q := &replyQueue{r: r, url: url}
	q.ctx, q.cancel = context.WithCancel(r.ctx)
	q.settler = newSettler(r.ctx, r.api, url, deleteLinger)
	pending := func() bool { return q.pending.Load() > q.sated.Load() }
	q.pollers = &pollers{
		wanted: pending, expecting: pending, poll: q.poll,
		ctx: q.ctx, max: r.cfg.maxPollers, log: r.cfg.log, url: url, crew: &r.api.crew,
	}
	return q
}

// close ends polling, which nobody waits for any more, and makes the deletes that are due. complete is false when
// they were cut off.
func (q *replyQueue) close() (complete bool) {
	q.cancel()
	q.pollers.wait()
	return q.settler.flush()
}
