package sweep

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// What is deleted, as metrics name it.
const (
	kindReply   = "reply"
	kindLease   = "lease"
	kindForeign = "foreign"
)

// Metrics counts what sweeps find and do. A nil *Metrics counts nothing.
type Metrics struct {
	passes, deletions                                   *prometheus.CounterVec
	orphaned, brake, missingQueues, unclaimedByChannels *prometheus.GaugeVec
	obstructed                                          *prometheus.GaugeVec

	mu sync.Mutex
	// seen are the providers of which something is shown.
	seen map[string]bool
}

// NewMetrics makes the metrics and registers them with registry. It panics when they are registered there already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"provider"}, labels...))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"provider"}, labels...))
	}
	m := &Metrics{
		seen:                map[string]bool{},
		passes:              counter("replyqueue_sweep_passes_total", "Sweeps of a provider, by outcome (OK or the class of the error).", "outcome"),
		deletions:           counter("replyqueue_sweep_deleted_total", "What sweeps deleted: reply queues without a record, Leases without pod and record, foreign queues.", "kind"),
		orphaned:            gauge("replyqueue_sweep_orphans", "Reply queues that the last sweep found without a record."),
		brake:               gauge("replyqueue_sweep_held", "1 while so many reply queues have no record that a human has to allow the sweep."),
		missingQueues:       gauge("replyqueue_sweep_missing_queues", "Records whose queue the last sweeps did not find."),
		obstructed:          gauge("replyqueue_sweep_unjudged_queues", "Queues that the last sweep could not look at, and left as they are; 1 too when it could not look at any."),
		unclaimedByChannels: gauge("replyqueue_sweep_unclaimed_queues", "Request and dead-letter queues of this cluster that no RequestChannel has. They are never deleted.", "kind"),
	}
	registry.MustRegister(m.passes, m.deletions, m.orphaned, m.brake, m.missingQueues, m.unclaimedByChannels, m.obstructed)
	return m
}

func (m *Metrics) pass(provider, outcome string) {
	if m != nil {
		m.passes.WithLabelValues(m.of(provider), outcome).Inc()
	}
}

func (m *Metrics) deleted(provider, kind string) {
	if m != nil {
		m.deletions.WithLabelValues(m.of(provider), kind).Inc()
	}
}

func (m *Metrics) orphans(provider string, n int) {
	if m != nil {
		m.orphaned.WithLabelValues(m.of(provider)).Set(float64(n))
	}
}

func (m *Metrics) held(provider string, held bool) {
	if m != nil {
		n := 0.0
		if held {
			n = 1
		}
		m.brake.WithLabelValues(m.of(provider)).Set(n)
	}
}

func (m *Metrics) unjudged(provider string, n int) {
	if m != nil {
		m.obstructed.WithLabelValues(m.of(provider)).Set(float64(n))
	}
}

func (m *Metrics) missing(provider string, n int) {
	if m != nil {
		m.missingQueues.WithLabelValues(m.of(provider)).Set(float64(n))
	}
}

func (m *Metrics) unclaimed(provider, kind string, n int) {
	if m != nil {
		m.unclaimedByChannels.WithLabelValues(m.of(provider), kind).Set(float64(n))
	}
}

// of is the provider's name, which is noted as one of which something is shown; empty: what is counted is of none.
func (m *Metrics) of(provider string) string {
	if provider != "" {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.seen[provider] = true
	}
	return provider
}

// keep drops what is shown of providers that are none of those.
func (m *Metrics) keep(providers map[string]bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.seen {
		if providers[name] {
			continue
		}
		for _, of := range []*prometheus.MetricVec{
			m.passes.MetricVec, m.deletions.MetricVec, m.orphaned.MetricVec, m.brake.MetricVec, m.missingQueues.MetricVec,
			m.unclaimedByChannels.MetricVec, m.obstructed.MetricVec,
		} {
			of.DeletePartialMatch(prometheus.Labels{"provider": name})
		}
		delete(m.seen, name)
	}
}
