package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// agenda is a workqueue by the test's clock: what is due is reconciled when it is due, in the order in which it came, and
// comes back when the reconciler says so, or when something about it was written.
type agenda struct {
	*stage
	due []entry
}

type entry struct {
	at     time.Time
	pod    string
	record string // empty: the pod itself
}

func (a *agenda) add(e entry) {
	for i, had := range a.due {
		if had.pod == e.pod && had.record == e.record {
			if !e.at.Before(had.at) {
				return
			}
			a.due = slices.Delete(a.due, i, i+1)
			break
		}
	}
	at, _ := slices.BinarySearchFunc(a.due, e.at, func(x entry, t time.Time) int {
		if x.at.After(t) {
			return 1
		}
		return -1 // behind those that are due at the same time
	})
	a.due = slices.Insert(a.due, at, e)
}

// run lets time go by until then.
func (a *agenda) run(until time.Time) {
	a.Helper()
	for len(a.due) > 0 && !a.due[0].at.After(until) {
		e := a.due[0]
		a.due = a.due[1:]
		if wait := e.at.Sub(a.clock.Now()); wait > 0 {
			a.clock.Step(wait)
		}
		a.work(e)
	}
	if wait := until.Sub(a.clock.Now()); wait > 0 {
		a.clock.Step(wait)
	}
}

func (a *agenda) work(e entry) {
	a.Helper()
	name, r := e.pod, reconcile.Reconciler(a.pods)
	if e.record != "" {
		name, r = e.record, a.records
	}
	writes := a.writes
	result, err := r.Reconcile(a.ctx, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: a.namespace, Name: name}})
	a.must(err) // throttling is no failure
	now := a.clock.Now()
	if result.RequeueAfter > 0 {
		a.add(entry{at: now.Add(result.RequeueAfter), pod: e.pod, record: e.record})
	}
	if a.writes == writes {
		return
	}
	if e.record != "" {
		a.add(entry{at: now, pod: e.pod})
		return
	}
	var pod corev1.Pod
	a.must(a.Get(a.ctx, types.NamespacedName{Namespace: a.namespace, Name: e.pod}, &pod))
	for _, q := range a.recordsOf(&pod) {
		if q.Status.QueueURL == "" {
			a.add(entry{at: now, pod: e.pod, record: q.Name})
		}
	}
}

// stamped notes when, by the stage's clock, queues were asked for, and which were made.
type stamped struct {
	queue.API
	stage *stage
	asked []time.Time
	made  []string
}

func (m *stamped) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	m.asked = append(m.asked, m.stage.clock.Now())
	out, err := m.API.CreateQueue(ctx, in, o...)
	if err == nil {
		m.made = append(m.made, in.Tags[v1alpha1.TagPodName])
	}
	return out, err
}

// most is the largest number of requests in any second after that time.
func (m *stamped) most(after time.Time) (most int) {
	for i, from := range m.asked {
		if from.Before(after) {
			continue
		}
		n := 0
		for _, t := range m.asked[i:] {
			if t.Sub(from) < time.Second {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// stepping is a clock for the limiter that lets time go by instead of waiting.
type stepping struct{ *testingclock.FakeClock }

func (c stepping) NewTimer(d time.Duration) clock.Timer {
	c.Step(d)
	fired := make(chan time.Time, 1)
	fired <- c.Now()
	return elapsed(fired)
}

type elapsed chan time.Time

func (e elapsed) C() <-chan time.Time    { return e }
func (elapsed) Stop() bool               { return false }
func (elapsed) Reset(time.Duration) bool { return false }

// SQS throttles nine of ten control requests for ten minutes: pods wait at their gates, in the order in which they came,
// and say why; none is lost, and when it is over the requests grow to their usual rate without a burst.
func TestWorldSQSThrottles(t *testing.T) {
	t.Parallel()
	// Half of the pods come at once, and the others when the throttling has been on for a while.
	const pods = 40
	s := newReadyStage(t)
	s.settle() // the ReplyHost's finalizer
	api := &stamped{API: s.sqs.Client(noRetries), stage: s}
	provider := onlyProvider{&queue.Provider{Name: "default", Region: "us-east-1", Prefix: "rq", Cluster: "c", ClusterUID: "uid",
		API: queue.Guard(api, "default", queue.DefaultLimits, queue.NewMetrics(prometheus.NewRegistry()), stepping{s.clock})}}
	s.pods.Providers, s.records.Providers = provider, provider
	s.sqs.SetFaults(sqstest.Plan{Seed: 5, Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Probability: 0.9}}})

	began := s.clock.Now()
	a := &agenda{stage: s}
	var want []string
	for i := range pods {
		p := s.pod(fmt.Sprintf("web-%02d", i), caller())
		want = append(want, p.Name)
		comes := time.Duration(i) * 100 * time.Millisecond
		if i >= pods/2 {
			comes += 9 * time.Minute
		}
		a.add(entry{at: began.Add(comes), pod: p.Name})
	}
	over := began.Add(10 * time.Minute)
	a.run(began.Add(time.Minute))
	s.drainEvents()
	waiting := 0
	var list corev1.PodList
	s.must(s.List(s.ctx, &list, client.InNamespace(s.namespace)))
	for i := range list.Items {
		p := &list.Items[i]
		if gated(p) && strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], v1alpha1.ReasonThrottled) {
			waiting++
		}
	}
	if got := s.heardEvent(v1alpha1.ReasonThrottled); waiting < pods/8 || waiting != pods/2-len(api.made) || got < waiting || got > pods/2 {
		t.Errorf("after a minute %d pods wait and say why, %d have a queue, with %d events about it; want one for each pod that waited", waiting, len(api.made), got)
	}
	a.run(over)
	during, made := len(api.asked), len(api.made)
	s.sqs.SetFaults(sqstest.Plan{})
	a.run(over.Add(5 * time.Minute))

	last := api.asked[len(api.asked)-1].Sub(over)
	t.Logf("%d requests in ten minutes of throttling made %d queues; afterwards at most %d in a second, in its first second %d; the last pod started %s after it was over",
		during, made, api.most(over), first(api.asked, over), last.Round(time.Second))
	if made == 0 || made == pods {
		t.Errorf("%d of %d pods had a queue when the throttling ended: it did not matter", made, pods)
	}
	if !slices.Equal(api.made, want) {
		t.Errorf("queues were made for %v, want them in the order in which the pods came", api.made)
	}
	if during > 2*600 {
		t.Errorf("%d requests in ten minutes of throttling, want about one a second", during)
	}
	if limit := int(queue.DefaultLimits.Write); api.most(over) > limit || first(api.asked, over) > 3 {
		t.Errorf("at most %d requests in a second after it was over, %d in its first; want no more than %d, and a slow start", api.most(over), first(api.asked, over), limit)
	}
	s.must(s.List(s.ctx, &list, client.InNamespace(s.namespace)))
	for i := range list.Items {
		if p := &list.Items[i]; gated(p) {
			t.Errorf("pod %s is still gated: %s", p.Name, p.Annotations[v1alpha1.AnnotationWaitingFor])
		}
	}
	if n := len(s.queues()); n != pods {
		t.Errorf("%d queues for %d pods", n, pods)
	}
}

// first is how many requests there were in the second after that time.
func first(asked []time.Time, after time.Time) (n int) {
	for _, t := range asked {
		if !t.Before(after) && t.Sub(after) < time.Second {
			n++
		}
	}
	return n
}
