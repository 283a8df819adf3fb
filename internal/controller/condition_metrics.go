package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// ConditionMetrics turns every condition of every kind into metrics: how many objects have it, since when the longest
// does, and how often it came. What is, is counted in the cache at each scrape, so it cannot go stale; objects are
// summed up by namespace, so there are as many series as namespaces and reasons, however many objects there are.
//
// It runs on the leader alone, so that replicas do not count the same twice.
type ConditionMetrics struct {
	// Reader reads from the manager's cache.
	Reader client.Reader
	// Informers are the manager's cache.
	Informers cache.Informers
	// Registry is where the metrics are shown while Start runs.
	Registry prometheus.Registerer

	transitions *prometheus.CounterVec
}

var (
	_ manager.LeaderElectionRunnable = (*ConditionMetrics)(nil)
	_ manager.Runnable               = (*ConditionMetrics)(nil)
	_ prometheus.Collector           = (*ConditionMetrics)(nil)
)

var (
	descObjects = prometheus.NewDesc("replyqueue_objects",
		"Objects, by kind and namespace.", []string{"kind", "namespace"}, nil)
	descConditions = prometheus.NewDesc("replyqueue_conditions",
		"Objects that have a condition, by kind, namespace, and the condition's type, status and reason. Alert on type=\"Stalled\".",
		conditionLabels, nil)
	descSince = prometheus.NewDesc("replyqueue_condition_since_timestamp_seconds",
		"When the condition came, of the object that has had it longest, in seconds since 1970. Alert on what lasts: time() - this.",
		conditionLabels, nil)
	conditionLabels = []string{"kind", "namespace", "type", "status", "reason"}
)

// kinds are those with conditions, and how they are listed.
var kinds = []struct {
	name   string
	object client.Object
	list   func() client.ObjectList
}{
	{"RequestChannel", &v1alpha1.RequestChannel{}, func() client.ObjectList { return &v1alpha1.RequestChannelList{} }},
	{"ReplyHost", &v1alpha1.ReplyHost{}, func() client.ObjectList { return &v1alpha1.ReplyHostList{} }},
	{"ReplyQueue", &v1alpha1.ReplyQueue{}, func() client.ObjectList { return &v1alpha1.ReplyQueueList{} }},
	{"QueueProvider", &v1alpha1.QueueProvider{}, func() client.ObjectList { return &v1alpha1.QueueProviderList{} }},
}

// SetupWithManager has mgr start it.
func (m *ConditionMetrics) SetupWithManager(mgr ctrl.Manager) error { return mgr.Add(m) }

// NeedLeaderElection is true.
func (m *ConditionMetrics) NeedLeaderElection() bool { return true }

// Start shows the metrics until ctx is done.
func (m *ConditionMetrics) Start(ctx context.Context) error {
	m.transitions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "replyqueue_condition_transitions_total",
		Help: "Conditions that came, or changed their status or reason, by kind and the condition's type, status and reason. Many for one kind mean that something flaps.",
	}, []string{"kind", "type", "status", "reason"})
	for _, kind := range kinds {
		informer, err := m.Informers.GetInformer(ctx, kind.object)
		if err != nil {
			return fmt.Errorf("watch the conditions of %ss: %w", kind.name, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			UpdateFunc: func(before, after any) { m.compare(kind.name, before, after) },
		})
		if err != nil {
			return fmt.Errorf("watch the conditions of %ss: %w", kind.name, err)
		}
		defer func() { _ = informer.RemoveEventHandler(registration) }()
	}
	if err := m.Registry.Register(m); err != nil {
		// Another operator of this process shows its own; this one goes without.
		ctrl.LoggerFrom(ctx).Info("Conditions are not shown as metrics", "reason", err.Error())
	} else {
		defer m.Registry.Unregister(m)
	}
	<-ctx.Done()
	return nil
}

// compare counts the conditions that are new, or other than they were.
func (m *ConditionMetrics) compare(kind string, before, after any) {
	was, ok := before.(conditions.Object)
	is, both := after.(conditions.Object)
	if !ok || !both {
		return
	}
	for _, c := range is.GetConditions() {
		old := meta.FindStatusCondition(was.GetConditions(), c.Type)
		if old == nil || old.Status != c.Status || old.Reason != c.Reason {
			m.transitions.WithLabelValues(kind, c.Type, string(c.Status), c.Reason).Inc()
		}
	}
}

// Describe implements prometheus.Collector.
func (m *ConditionMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- descObjects
	descs <- descConditions
	descs <- descSince
	m.transitions.Describe(descs)
}

// held is one series: what a condition is, and where.
type held struct{ kind, namespace, conditionType, status, reason string }

func (h held) labels() []string {
	return []string{h.kind, h.namespace, h.conditionType, h.status, h.reason}
}

// Collect implements prometheus.Collector. It reads the cache.
func (m *ConditionMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.transitions.Collect(metrics)
	for _, kind := range kinds {
		list := kind.list()
		// Nothing is changed, so nothing need be copied.
		if err := m.Reader.List(context.Background(), list, client.UnsafeDisableDeepCopy); err != nil {
			metrics <- prometheus.NewInvalidMetric(descObjects, fmt.Errorf("list %ss: %w", kind.name, err))
			continue
		}
		objects, count, since := map[string]int{}, map[held]int{}, map[held]metav1.Time{}
		_ = meta.EachListItem(list, func(o runtime.Object) error {
			object := o.(conditions.Object)
			objects[object.GetNamespace()]++
			for _, c := range object.GetConditions() {
				h := held{kind.name, object.GetNamespace(), c.Type, string(c.Status), c.Reason}
				count[h]++
				if first, there := since[h]; !there || c.LastTransitionTime.Before(&first) {
					since[h] = c.LastTransitionTime
				}
			}
			return nil
		})
		for _, namespace := range sortedBy(objects, cmp.Compare[string]) {
			metrics <- prometheus.MustNewConstMetric(descObjects, prometheus.GaugeValue, float64(objects[namespace]), kind.name, namespace)
		}
		for _, h := range sortedBy(count, func(a, b held) int { return slices.Compare(a.labels(), b.labels()) }) {
			metrics <- prometheus.MustNewConstMetric(descConditions, prometheus.GaugeValue, float64(count[h]), h.labels()...)
			metrics <- prometheus.MustNewConstMetric(descSince, prometheus.GaugeValue, float64(since[h].Unix()), h.labels()...)
		}
	}
}

func sortedBy[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compare)
	return keys
}
