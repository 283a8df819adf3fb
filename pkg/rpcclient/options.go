package rpcclient

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Option configures a Requester or a Responder. Each says which of the two it is for; the other ignores it.
type Option func(*config)

type config struct {
	channels      []ChannelConfig
	hooks         []Hook
	stats         *Stats
	log           *slog.Logger
	receiveWait   time.Duration
	reserve       int
	timeout       time.Duration
	maxPending    int
	failOnPending bool
	foreignGrace  time.Duration
	concurrency   int
	addresses     ReturnAddressPolicy

	addressSource  func() ReturnAddressPolicy // nil: addresses do not change
	nilSource      bool
	returnPrefixes []string
	defaultMethod  string
	defaultBudget  time.Duration
	errorReplies   bool
	maxQueueAge    time.Duration
	cacheEntries   int
	cacheBytes     int
	drainTimeout   time.Duration
	maxPollers     int
	packedReplies  bool
	retries        RetryPolicy
	heldGrace      time.Duration
	replyStore     ReplyStore

	callInterceptors    []CallInterceptor
	handlerInterceptors []HandlerInterceptor
}

// Defaults of the options.
const (
	// DefaultMaxPending calls of one Requester may wait for replies.
	DefaultMaxPending = 10_000
	// DefaultConcurrency handlers run at once in one Responder.
	DefaultConcurrency = 64
	// DefaultReserve bytes of every message are left to agents that add attributes on the way out.
	DefaultReserve = 4 << 10
	// DefaultDrainTimeout is what Serve gives itself to finish when its context ends: less than
	// Kubernetes' grace of 30 s.
	DefaultDrainTimeout = 25 * time.Second
	// DefaultCacheEntries and DefaultCacheBytes bound the reply cache of one Responder: with answers of
	// 100 bytes, budgets of 30 s and a visibility timeout of 30 s enough for 3,500 requests a second.
	DefaultCacheEntries = 250_000
	DefaultCacheBytes   = 128 << 20
)

func newConfig(opts []Option) (config, error) {
	c := config{
		stats: &Stats{}, log: slog.New(slog.DiscardHandler), receiveWait: DefaultReceiveWait, reserve: DefaultReserve,
		timeout: DefaultTimeout, maxPending: DefaultMaxPending, foreignGrace: DefaultTimeout,
		concurrency: DefaultConcurrency, defaultBudget: DefaultTimeout,
		cacheEntries: DefaultCacheEntries, cacheBytes: DefaultCacheBytes, drainTimeout: DefaultDrainTimeout,
		maxPollers: maxPollers,
	}
	for _, o := range opts {
		if o == nil {
			return c, errors.New("an option given is nil")
		}
		o(&c)
	}
	if c.stats == nil || c.log == nil {
		return c, errors.New("the stats or the logger given is nil")
	}
	if slices.Contains(c.hooks, nil) || slices.ContainsFunc(c.callInterceptors, func(i CallInterceptor) bool { return i == nil }) ||
		slices.ContainsFunc(c.handlerInterceptors, func(i HandlerInterceptor) bool { return i == nil }) {
		return c, errors.New("a hook or an interceptor given is nil")
	}
	for _, h := range c.hooks {
		if !isHook(h) {
			return c, fmt.Errorf("the hook %T has none of the On… methods: see the Hook… interfaces for what they take", h)
		}
	}
	c.retries.setDefaults()
	if err := c.retries.validate(); err != nil {
		return c, err
	}
	if slices.Contains(c.returnPrefixes, "") {
		return c, errors.New("a prefix of reply queues' names is empty: it would allow every queue")
	}
	if c.nilSource {
		return c, errors.New("the source of return addresses given is nil")
	}
	if c.addressSource != nil {
		c.addresses = c.addressSource()
	}
	c.addresses.more = c.returnPrefixes
	seen := map[string]bool{}
	for i := range c.channels {
		ch := &c.channels[i]
		if _, err := parseQueueURL(ch.URL); err != nil {
			return c, fmt.Errorf("channel %q: queue URL %q: %w", ch.Name, ch.URL, err)
		}
		if ch.Name == "" || seen[ch.Name] {
			return c, fmt.Errorf("channel name %q is empty or given twice", ch.Name)
		}
		if ch.MaxAttempts < 0 || ch.MaxAttempts > maxAttemptsLimit {
			return c, fmt.Errorf("channel %q: %d attempts; at most %d are allowed", ch.Name, ch.MaxAttempts, maxAttemptsLimit)
		}
		seen[ch.Name] = true
		ch.setDefaults()
	}
	switch {
	case c.receiveWait < time.Second || c.receiveWait > 20*time.Second:
		return c, errors.New("the receive wait must be between 1 s and 20 s")
	case c.timeout <= 0 || c.timeout > maxBudget:
		return c, errors.New("the timeout must be positive and at most 14 days")
	case c.maxPending < 1 || c.concurrency < 1:
		return c, errors.New("the limits on pending calls and on concurrency must be at least 1")
	case c.defaultMethod != "" && (c.defaultBudget < time.Millisecond || c.defaultBudget > maxBudget):
		return c, errors.New("the default method's time must be between 1 ms and 14 days")
	case c.defaultBudget <= 0 || c.defaultBudget > maxBudget:
		return c, errors.New("the default method's time must be positive and at most 14 days")
	case c.foreignGrace < 0 || c.heldGrace < 0 || c.maxQueueAge < 0 || c.drainTimeout < 0:
		return c, errors.New("the graces, the queue age and the drain timeout must not be negative")
	case c.reserve < 0 || c.reserve > 25<<10:
		return c, errors.New("the reserve must be between 0 and 25 KiB")
	}
	return c, nil
}

// WithChannels names the request queues to send to (Requester) or to serve (Responder).
func WithChannels(channels ...ChannelConfig) Option {
	return func(c *config) { c.channels = append(c.channels, channels...) }
}

// WithHooks adds instrumentation, for both sides. Each has at least one of the On… methods (see Hook).
func WithHooks(all ...Hook) Option { return func(c *config) { c.hooks = append(c.hooks, all...) } }

// WithStats counts into s, which several requesters and responders may share.
func WithStats(s *Stats) Option { return func(c *config) { c.stats = s } }

// WithLogger logs state changes, for both sides. Without it nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithReceiveWait sets the length of long polls, 1 s to 20 s (the default), rounded down to seconds, for
// both sides. A shorter wait costs more requests while idle; it shortens the shutdown of an idle
// responder, which lets its polls run out.
func WithReceiveWait(d time.Duration) Option { return func(c *config) { c.receiveWait = d } }

// WithReserve sets the bytes of every message that are left to agents which add attributes, 0 to 25 KiB,
// for both sides.
func WithReserve(bytes int) Option { return func(c *config) { c.reserve = bytes } }

// WithTimeout sets what ends a call when its context, its options and its channel name no earlier time,
// for requesters.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout = d } }

// WithMaxPending bounds the calls waiting for replies, for requesters. One more call waits for a place,
// within its deadline; with fail it ends at once with ErrTooManyPending. The places are the requester's: calls to a
// channel that nobody serves may take all of them until their deadlines, so give such calls short ones, or a requester
// of their own.
func WithMaxPending(n int, fail bool) Option {
	return func(c *config) { c.maxPending, c.failOnPending = n, fail }
}

// WithForeignGrace sets the age up to which a reply of another process (a second container on the same
// queue, or a predecessor) is put back for it rather than dropped, for requesters.
func WithForeignGrace(d time.Duration) Option { return func(c *config) { c.foreignGrace = d } }

// WithConcurrency bounds the handlers that run at once, for responders: on all channels together. No more
// requests are received than there are places for, but for two kinds. Those of one message group of a FIFO channel that
// come together take one place, since they run one after the other. And polls that have waited for 100 ms lend their
// places, so that there may be fewer places than channels: what such a poll brings when all are taken is kept hidden
// until there is one. So that other responders may have it, it is put back after 1 s, and after twice as long at each
// further receive, up to the length of a poll, or an eighth of the time that the call has left; but only where the channel
// has no dead-letter queue, or one that two receives more do not bring it to, or one more where the responder is shut down
// and the call has less than 30 s left (ChannelConfig.MaxReceiveCount).
func WithConcurrency(n int) Option { return func(c *config) { c.concurrency = n } }

// WithReturnAddresses sets which reply queues may be answered, for responders. It takes the place of what was set
// before, by rpcenv from what the operator has injected for instance; WithReturnPrefixes adds to that.
func WithReturnAddresses(p ReturnAddressPolicy) Option {
	return func(c *config) { c.addresses, c.addressSource, c.nilSource = p, nil, false }
}

// WithReturnAddressSource is WithReturnAddresses for a policy that changes while the responder runs: current is asked at
// the start, and then when a request comes: once in 10 s at most, or in a second where its return address would be
// refused. It is called with a lock held: it must return soon, and not use the responder. Where it panics, what it said
// before stands.
func WithReturnAddressSource(current func() ReturnAddressPolicy) Option {
	return func(c *config) { c.addressSource, c.nilSource = current, current == nil }
}

// WithReturnPrefixes allows reply queues to be answered whose names start with one of prefixes, besides those that
// the ReturnAddressPolicy allows, for responders: "__RequesterClientQueues__" are those of Java requesters that name no
// prefix of their own. All else in the policy counts for them too.
func WithReturnPrefixes(prefixes ...string) Option {
	return func(c *config) { c.returnPrefixes = append(c.returnPrefixes, prefixes...) }
}

// WithDefaultMethod serves requests that name no method (Java's and hand-written ones) as the named
// method, each for at most maxTime (1 ms to 14 days), for responders. Without it they are left in the queue.
func WithDefaultMethod(name string, maxTime time.Duration) Option {
	return func(c *config) { c.defaultMethod, c.defaultBudget = name, maxTime }
}

// WithErrorReplies answers failures of Java and hand-written requests too, with the error's text as the
// body, for responders. Such requesters take any reply for success, so by default they get none and
// their request is left for redelivery.
func WithErrorReplies() Option { return func(c *config) { c.errorReplies = true } }

// WithMaxQueueAge sheds native requests that waited longer than d in the queue, for responders: their
// requester is told Unavailable with RetryAfter d. One-way, Java and hand-written requests are served
// whatever their age: nobody can be told to try again. 0, the default: never.
func WithMaxQueueAge(d time.Duration) Option { return func(c *config) { c.maxQueueAge = d } }

// WithReplyCache bounds the memory that recognises duplicates, for responders. A request is remembered from
// when it is taken up for its budget and its queue's visibility timeout, a one-way request for that timeout
// and a minute after it was handled, and each for that timeout after a copy came; it takes about half a kilobyte and its reply. Where the bounds leave
// less room, what would expire first is forgotten first, StatsSnapshot.ForgottenEarly counts it, and a copy
// that comes later runs again: make room for the requests of that time at the highest rate.
func WithReplyCache(entries, bytes int) Option {
	return func(c *config) { c.cacheEntries, c.cacheBytes = entries, bytes }
}

// WithDrainTimeout sets how long Serve drains when its context ends, for responders.
func WithDrainTimeout(d time.Duration) Option { return func(c *config) { c.drainTimeout = d } }

// WithMaxPollers bounds the long polls at one queue, for both sides; the default is 4.
func WithMaxPollers(n int) Option { return func(c *config) { c.maxPollers = max(1, n) } }

// WithPackedReplies lets responders answer with several replies in one SQS message, up to 64 KiB, SQS's
// billing unit, for requesters. A busy requester then needs up to half as many SQS requests; a lone reply
// still comes at once, and by itself. Responders that do not know packs ignore it. What is lost in the
// network is lost for all replies of a message, until it comes again after 5 s.
func WithPackedReplies() Option { return func(c *config) { c.packedReplies = true } }
