package fence

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what comparing nonces found. A nil *Metrics counts nothing.
type Metrics struct {
	conflict    *prometheus.GaugeVec
	comparisons *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them with registry. It panics when they are registered there already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		conflict: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "replyqueue_identity_conflict",
			Help: "1 while another cluster claims the provider's queues, and nothing is deleted there.",
		}, []string{"provider"}),
		comparisons: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "replyqueue_identity_comparisons_total",
			Help: "Comparisons of the nonces that tell a cluster from a copy of it, by provider and verdict.",
		}, []string{"provider", "verdict"}),
	}
	registry.MustRegister(m.conflict, m.comparisons)
	return m
}

func (m *Metrics) found(provider string, verdict Verdict) {
	if m == nil {
		return
	}
	conflict := 0.0
	if verdict == Conflict || verdict == Abandoned || verdict == Elsewhere {
		conflict = 1
	}
	m.conflict.WithLabelValues(provider).Set(conflict)
	m.comparisons.WithLabelValues(provider, string(verdict)).Inc()
}
