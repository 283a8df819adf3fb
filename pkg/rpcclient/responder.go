package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

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
	gone    goneRequesters

	work      context.Context // ends to cut off receives, handlers and sends
	stop      context.CancelFunc
	handlers  map[string]*handler
	wg        sync.WaitGroup // requests being handled
	unsettled sync.WaitGroup // requests whose replies are on the way

	mu       sync.Mutex
	servers  []*channelServer
	serving  bool
	stopping chan struct{} // closed when Shutdown begins
	done     chan struct{} // closed when Shutdown is over
	result   error
}

// NewResponder returns a responder for the channels given WithChannels. As for NewRequester, client's HTTP client must
// leave a receive its time, unless it is the SDK's own. Register handlers with
// Method.Handle, then call Serve. In a pod that the operator has injected, rpcenv.NewResponder is all
// that is needed.
func NewResponder(client *sqs.Client, opts ...Option) (*Responder, error) {
	cfg, err := newConfig(opts)
	if err == nil {
		err = checkClient(client, cfg.receiveWait)
	}
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	if len(cfg.channels) == 0 {
		return nil, errors.New("responder: no channel to serve: name one in the pod's annotation replyqueue.dev/serves, or pass it WithChannels")
	}
	r := &Responder{
		cfg: cfg, hooks: newHooks(cfg.hooks, cfg.log), seed: maphash.MakeSeed(),
		slots:    newSlots(cfg.concurrency),
		handlers: map[string]*handler{}, stopping: make(chan struct{}), done: make(chan struct{}),
	}
	var warn sync.Once
	r.cache = newReplyCache(cfg.cacheEntries, cfg.cacheBytes, func(left time.Duration) {
		cfg.stats.forgotten.Add(1)
		r.hooks.onForgottenEarly(left)
		warn.Do(func() {
			cfg.log.Warn("the reply cache is too small: requests are forgotten before their time, and copies of them run again; see WithReplyCache")
		})
	})
	r.api = newQueueAPI(client, cfg.stats, r.hooks)
	r.work, r.stop = context.WithCancel(context.Background())
	r.replies = &replySenders{ctx: r.work, api: r.api, reserve: cfg.reserve, senders: map[string]*sender{}}
	r.replies.jam.limit = int64(cfg.concurrency) // of unsettledPerSlot times as many that may be under way
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

// register adds a handler; the name "" is the default handler's.
func (r *Responder) register(name string, h *handler, opts []HandleOption) {
	for _, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("rpcclient: an option of the handler of method %q is nil", name))
		}
		o(h)
	}
	if len(r.cfg.handlerInterceptors) > 0 {
		h.serve = withCallID(intercepted(once(h.serve), r.cfg.handlerInterceptors))
	}
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
	r.mu.Lock()
	if !r.isStopping() { // Shutdown may have begun, and waits for no poll that starts later
		for _, s := range r.servers {
			s.pollers.wake()
		}
	}
	r.mu.Unlock()
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
// receives and handlers are cut off, and deletes with them, or a second later where only those were left, and it
// returns ctx's cause: requests that were not deleted come back to other responders when their visibility ends. It returns within about a second of ctx's end. A
// second call waits for the first.
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
		grace := time.NewTimer(cutOffGrace)
		defer grace.Stop()
		select {
		case <-settled:
		case <-grace.C:
			r.result = fmt.Errorf("responder: handlers still run, and do not heed their contexts: %w", context.Cause(ctx))
			close(r.done)
			return r.result
		}
	}
	endGrace := afterGrace(ctx, r.stop)
	for _, s := range r.servers {
		s.extender.close()
		if !s.settler.flush() && r.result == nil {
			r.result = fmt.Errorf("responder: deletes of answered requests were cut off: %w", context.Cause(ctx))
		}
	}
	endGrace()
	r.replies.wait()
	r.api.close()
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
