package fence

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what comparing nonces found. A nil *Metrics counts nothing.
type Metrics struct {
	conflict    *prometheus.GaugeVec
	comparisons *prometheus.CounterVec

	mu sync.Mutex
	// seen are the providers of which something is shown.
	seen map[string]bool
}

// NewMetrics makes the metrics and registers them with registry. It panics when they are registered there already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		seen: map[string]bool{},
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[provider] = true
	conflict := 0.0
	if verdict == Conflict || verdict == Abandoned || verdict == Elsewhere {
		conflict = 1
	}
	m.conflict.WithLabelValues(provider).Set(conflict)
	m.comparisons.WithLabelValues(provider, string(verdict)).Inc()
}

// keep drops what is shown of providers that are none of those.
func (m *Metrics) keep(providers map[string]bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.seen {
		if !providers[name] {
			m.conflict.DeletePartialMatch(prometheus.Labels{"provider": name})
			m.comparisons.DeletePartialMatch(prometheus.Labels{"provider": name})
			delete(m.seen, name)
		}
	}
}
