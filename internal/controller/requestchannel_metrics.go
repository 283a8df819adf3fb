package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// ChannelMetrics are what RequestChannels' queues are measured by. A nil *ChannelMetrics measures nothing.
type ChannelMetrics struct {
	drift    *prometheus.CounterVec
	messages *prometheus.GaugeVec
	failed   *prometheus.CounterVec
}

// NewChannelMetrics makes the metrics and registers them with registry. It panics, as MustRegister does, when they
// are registered there already.
func NewChannelMetrics(registry prometheus.Registerer) *ChannelMetrics {
	m := &ChannelMetrics{
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "replyqueue_drift_total",
			Help: "Queues found to differ from a spec that they had been brought to, by the channel's namespace and reason (AttributesDiffer or DeletedOutOfBand).",
		}, []string{"namespace", "reason"}),
		messages: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "replyqueue_queue_messages",
			Help: "Messages in a channel's queue by SQS's own, approximate count, with --message-counts-interval; by namespace, channel, queue (request or dead-letter) and state (visible, in-flight or delayed).",
		}, []string{"namespace", "channel", "queue", "state"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "replyqueue_message_counts_failed_total",
			Help: "Counts of messages that could not be had, by the class of the error. The queue's series are gone until the next that can.",
		}, []string{"class"}),
	}
	registry.MustRegister(m.drift, m.messages, m.failed)
	return m
}

// drifted counts one find of drift.
func (m *ChannelMetrics) drifted(namespace, reason string) {
	if m != nil {
		m.drift.WithLabelValues(namespace, reason).Inc()
	}
}

// forget drops what was counted of a namespace that has no RequestChannel any more.
func (m *ChannelMetrics) forget(namespace string) {
	if m != nil {
		m.drift.DeletePartialMatch(prometheus.Labels{"namespace": namespace})
	}
}

// LeastMessageCountsInterval is the shortest time between two counts of a queue's messages: SQS's counts settle within
// about a minute (GetQueueAttributes, API reference), so asking more often buys nothing.
const LeastMessageCountsInterval = time.Minute

// MessageCounter asks SQS at intervals how many messages the queues of RequestChannels hold, and shows it as metrics.
// It costs one GetQueueAttributes for each request queue, and one for each dead-letter queue made beside one, in each
// interval; the requests are spread over half of it. Only queues that their channels have are counted, also where an edit cannot be
// carried out on them, none where the provider leads elsewhere by now, and none of a channel that is suspended.
//
// It runs on the leader alone.
type MessageCounter struct {
	// Reader reads RequestChannels; a cache will do.
	Reader    client.Reader
	Providers queue.Providers
	Metrics   *ChannelMetrics
	// Interval between two counts, at least LeastMessageCountsInterval.
	Interval time.Duration
	// Clock is the operator's own; nil: the real one.
	Clock clock.WithTicker

	shown map[shownQueue]bool
}

// shownQueue is a queue whose messages are shown: a channel's, of a kind.
type shownQueue struct {
	channel types.NamespacedName
	queue   string
}

func (q shownQueue) labels() prometheus.Labels {
	return prometheus.Labels{"namespace": q.channel.Namespace, "channel": q.channel.Name, "queue": q.queue}
}

var (
	_ manager.LeaderElectionRunnable = (*MessageCounter)(nil)
	_ manager.Runnable               = (*MessageCounter)(nil)
)

// SetupWithManager has mgr start it.
func (c *MessageCounter) SetupWithManager(mgr ctrl.Manager) error { return mgr.Add(c) }

// NeedLeaderElection is true.
func (c *MessageCounter) NeedLeaderElection() bool { return true }

// Start counts until ctx is done, at once and then in each interval.
func (c *MessageCounter) Start(ctx context.Context) error {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	defer c.Metrics.messages.Reset()
	ticker := c.Clock.NewTicker(c.Interval)
	defer ticker.Stop()
	for {
		if err := c.Count(ctx, c.spread); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot count messages")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// spread waits so long that n requests fill half of the interval.
func (c *MessageCounter) spread(ctx context.Context, n int) {
	timer := c.Clock.NewTimer(c.Interval / 2 / time.Duration(n))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}

// counted is one queue whose messages are counted.
type counted struct {
	shownQueue
	name           string
	provider       *queue.Provider
	providerFailed error
}

// Count asks once for every queue, calling pause before each request but the first with the number of all. What cannot
// be counted is shown no more, and counted as failed; the error is the list's.
func (c *MessageCounter) Count(ctx context.Context, pause func(ctx context.Context, n int)) error {
	all, err := c.queues(ctx)
	if err != nil {
		return err
	}
	shown := map[shownQueue]bool{}
	for i, q := range all {
		if i > 0 {
			pause(ctx, len(all))
		}
		if ctx.Err() != nil {
			return nil
		}
		shown[q.shownQueue] = true
		counts, err := q.count(ctx)
		if err != nil {
			c.Metrics.messages.DeletePartialMatch(q.labels())
			c.Metrics.failed.WithLabelValues(string(queue.Classify(err))).Inc()
			continue
		}
		for state, n := range map[string]int{"visible": counts.Visible, "in-flight": counts.InFlight, "delayed": counts.Delayed} {
			c.Metrics.messages.WithLabelValues(q.channel.Namespace, q.channel.Name, q.queue, state).Set(float64(n))
		}
	}
	for q := range c.shown {
		if !shown[q] {
			c.Metrics.messages.DeletePartialMatch(q.labels())
		}
	}
	c.shown = shown
	return nil
}

func (q counted) count(ctx context.Context) (queue.Counts, error) {
	if q.providerFailed != nil {
		return queue.Counts{}, q.providerFailed
	}
	return q.provider.CountMessages(ctx, q.name)
}

// queues are those that channels have. Their names are computed: nothing that stands in
// a status decides which queue is asked about.
func (c *MessageCounter) queues(ctx context.Context) ([]counted, error) {
	var channels v1alpha1.RequestChannelList
	if err := c.Reader.List(ctx, &channels); err != nil {
		return nil, fmt.Errorf("list RequestChannels: %w", err)
	}
	var all []counted
	for i := range channels.Items {
		channel := &channels.Items[i]
		if !channel.DeletionTimestamp.IsZero() || isTrue(channel.Spec.Suspend) || !has(channel, v1alpha1.ConditionQueueReady, channel.Status.QueueURL) {
			continue
		}
		provider, err := c.Providers.Get(ctx, providerName(channel), channel.Namespace)
		if err == nil && elsewhere(channel, provider) != nil {
			continue // What has its name there is another queue.
		}
		q := counted{shownQueue: shownQueue{client.ObjectKeyFromObject(channel), v1alpha1.TagKindRequest}, provider: provider, providerFailed: err}
		if err == nil {
			q.name = provider.ChannelQueueName(channel)
		}
		all = append(all, q)
		if d := channel.Spec.DeadLetter; d != nil && d.Queue != nil && has(channel, v1alpha1.ConditionDeadLetterReady, channel.Status.DeadLetterQueueURL) {
			q.queue = v1alpha1.TagKindDeadLetter
			if err == nil {
				q.name = provider.DeadLetterQueueName(channel.Namespace, channel.Name, channel.Spec.FIFO != nil)
			}
			all = append(all, q)
		}
	}
	return all, nil
}

// has reports whether a channel has the queue with that URL, by what the condition part says of it for the spec as it is: it need not be as asked
// for, but must not be another's.
func has(channel *v1alpha1.RequestChannel, part, url string) bool {
	return url != "" && conditions.Judged(channel, part) && conditions.Reason(channel, part) != v1alpha1.ReasonNotOwned
}
