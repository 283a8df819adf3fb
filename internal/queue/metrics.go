package queue

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what the operator asks of SQS.
type Metrics struct {
	requests *prometheus.CounterVec
	limited  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them with registry. It panics, as MustRegister does, when they are
// registered there already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "replyqueue_sqs_requests_total",
			Help: "SQS requests sent by the operator, by provider, action and outcome (OK or the class of the error).",
		}, []string{"provider", "action", "outcome"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "replyqueue_sqs_requests_postponed_total",
			Help: "SQS requests not sent because the operator's own limiter postponed them, or since nothing answers there, by provider and action.",
		}, []string{"provider", "action"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "replyqueue_sqs_request_duration_seconds",
			Help:    "Time from sending an SQS request to its answer, by provider and action.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"provider", "action"}),
	}
	registry.MustRegister(m.requests, m.limited, m.duration)
	return m
}

// Forget drops what was counted for a provider that is gone.
func (m *Metrics) Forget(provider string) {
	labels := prometheus.Labels{"provider": provider}
	m.requests.DeletePartialMatch(labels)
	m.limited.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
}
