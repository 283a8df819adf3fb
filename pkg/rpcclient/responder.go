package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Responder serves the methods registered with it on its channels. It is safe for concurrent use.
type Responder struct {
	cfg   config
	api   *queueAPI
	hooks hooks
	clock sqsClock
	seed  maphash.Seed
	cache *replyCache
	slots *slots

	replies *replySenders

	work      context.Context // ends to cut off receives, handlers and sends
	stop      context.CancelFunc
	handlers  map[string]handler
	wg        sync.WaitGroup // requests being handled
	unsettled sync.WaitGroup // requests whose replies are on the way

	mu       sync.Mutex
	servers  []*channelServer
	serving  bool
	stopping chan struct{} // closed when Shutdown begins
	done     chan struct{} // closed when Shutdown is over
	result   error
}

// NewResponder returns a responder for the channels given WithChannels. Register handlers with
// Method.Handle, then call Serve. In a pod that the operator has injected, rpcenv.NewResponder is all
// that is needed.
func NewResponder(client *sqs.Client, opts ...Option) (*Responder, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	if len(cfg.channels) == 0 {
		return nil, errors.New("responder: no channel to serve: name one in the pod's annotation replyqueue.dev/serves, or pass it WithChannels")
	}
	r := &Responder{
		cfg: cfg, hooks: newHooks(cfg.hooks), seed: maphash.MakeSeed(),
		cache:    newReplyCache(cfg.cacheEntries, cfg.cacheBytes),
		slots:    newSlots(cfg.concurrency),
		handlers: map[string]handler{}, stopping: make(chan struct{}), done: make(chan struct{}),
	}
	r.api = newQueueAPI(client, cfg.stats, r.hooks)
	r.work, r.stop = context.WithCancel(context.Background())
	r.replies = &replySenders{ctx: r.work, api: r.api, senders: map[string]*sender{}}
	for i := range cfg.channels {
		s, err := newChannelServer(r, cfg.channels[i])
		if err != nil {
			r.stop()
			return nil, fmt.Errorf("responder: channel %q: %w", cfg.channels[i].Name, err)
		}
		r.servers = append(r.servers, s)
	}
	return r, nil
}

// Stats reads the counters.
func (r *Responder) Stats() StatsSnapshot { return r.cfg.stats.Snapshot() }

func (r *Responder) register(name string, h handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch _, twice := r.handlers[name]; {
	case r.serving:
		panic(fmt.Sprintf("rpcclient: method %q is registered after Serve", name))
	case twice:
		panic(fmt.Sprintf("rpcclient: method %q is registered twice", name))
	}
	r.handlers[name] = h
}

// Serve receives and answers requests until ctx ends or Shutdown is called, drains, and returns nil
// when everything received was settled. It blocks. Handlers' contexts do not end with ctx: requests
// that were received are finished, within the drain timeout.
func (r *Responder) Serve(ctx context.Context) error {
	r.mu.Lock()
	if r.serving {
		r.mu.Unlock()
		return errors.New("responder: Serve was called twice")
	}
	r.serving = true
	r.mu.Unlock()
	if d := r.cfg.defaultMethod; d != "" {
		if _, ok := r.handlers[d]; !ok {
			return fmt.Errorf("responder: the default method %q has no handler", d)
		}
	}
	for _, s := range r.servers {
		s.pollers.wake()
	}
	select {
	case <-ctx.Done():
		drain, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), r.cfg.drainTimeout, errDrainTimeout)
		defer cancel()
		return r.Shutdown(drain)
	case <-r.stopping:
		<-r.done
		return r.result
	}
}

var errDrainTimeout = errors.New("the drain timeout is over")

// Shutdown drains: no new receive starts; those under way are let run out, since SQS may have chosen
// messages for them; handlers finish, replies are flushed, deletes are made. When ctx ends first,
// receives and handlers are cut off, and it returns ctx's cause: requests without a reply come back to
// other responders when their visibility ends. A second call waits for the first.
func (r *Responder) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	select {
	case <-r.stopping:
		r.mu.Unlock()
		<-r.done
		return r.result
	default:
	}
	close(r.stopping)
	r.mu.Unlock()

	settled := make(chan struct{})
	go func() { // ends when the responder has stopped, at the latest when r.stop has cut everything off
		defer close(settled)
		for _, s := range r.servers {
			s.pollers.wait()
		}
		r.wg.Wait()
		r.unsettled.Wait()
	}()
	select {
	case <-settled:
	case <-ctx.Done():
		r.result = fmt.Errorf("responder: cut off: %w", context.Cause(ctx))
		r.stop()
		<-settled
	}
	for _, s := range r.servers {
		s.extender.close()
		s.settler.flush()
	}
	r.replies.wait()
	r.stop()
	close(r.done)
	return r.result
}

// isStopping reports whether Shutdown has begun.
func (r *Responder) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// slots bound what a responder works on: handlers that run, and requests whose replies are not
// accepted yet. A receive takes places for all it may bring before it starts, so that nothing waits
// in memory while other responders are free.
type slots struct {
	mu        sync.Mutex
	free      int // places for handlers
	total     int
	unsettled int // replies under way
	wake      chan struct{}
}

// unsettledPerSlot bounds replies under way: when SQS stops taking replies, requests stop being taken.
const unsettledPerSlot = 4

func newSlots(n int) *slots { return &slots{free: n, total: n, wake: make(chan struct{}, 1)} }

// acquire waits for at least one place and takes up to want; 0 when ctx ends or stop is closed.
func (s *slots) acquire(ctx context.Context, stop <-chan struct{}, want int) int {
	for {
		s.mu.Lock()
		n := min(want, s.free)
		if s.unsettled >= s.total*unsettledPerSlot {
			n = 0
		}
		s.free -= n
		more := n > 0 && s.free > 0
		s.mu.Unlock()
		if more {
			s.signal() // another poller may be waiting for the rest
		}
		if n > 0 {
			return n
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return 0
		case <-stop:
			return 0
		}
	}
}

func (s *slots) release(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	s.free += n
	s.mu.Unlock()
	s.signal()
}

func (s *slots) replying(n int) {
	s.mu.Lock()
	s.unsettled += n
	s.mu.Unlock()
	if n < 0 {
		s.signal()
	}
}

func (s *slots) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
