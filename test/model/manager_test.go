package model

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// fakeManager is what SetupWithManager needs of a manager. The event handlers that a controller registers are kept, and
// called when the script delivers events; its workers are never started.
type fakeManager struct {
	manager.Manager // nil
	op              *operator
	added           []warmer
}

func (m *fakeManager) GetControllerOptions() config.Controller {
	return config.Controller{SkipNameValidation: ptr.To(true), EnableWarmup: ptr.To(true)}
}
func (m *fakeManager) GetLogger() logr.Logger     { return logr.Discard() }
func (m *fakeManager) GetScheme() *runtime.Scheme { return scheme }
func (m *fakeManager) GetCache() cache.Cache      { return &fakeCache{op: m.op} }
func (m *fakeManager) GetRESTMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	mapper.Add(v1alpha1.GroupVersion.WithKind("ReplyHost"), meta.RESTScopeNamespace)
	return mapper
}

// Add takes a controller and gives it a queue that the script empties. It has no sources yet.
func (m *fakeManager) Add(r manager.Runnable) error {
	// controller-runtime keeps the queue's constructor in a field of a type in an internal package.
	fields := reflect.ValueOf(r).Elem()
	q := &requests{now: func() time.Duration { return m.op.world.now }, dirty: map[reconcile.Request]bool{}, processing: map[reconcile.Request]bool{}, failures: map[reconcile.Request]int{}}
	name := fields.FieldByName("Name").String()
	if loses := m.op.mutant.loses; loses != nil && name == "pod" {
		q.loses = func(r reconcile.Request) bool { return loses(m.op, r) }
	}
	fields.FieldByName("NewQueue").Set(reflect.ValueOf(
		func(string, workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
			return q
		}))
	m.op.controllers = append(m.op.controllers, &workers{
		name: name, queue: q, do: fields.FieldByName("Do").Interface().(reconcile.Reconciler),
	})
	m.added = append(m.added, r.(warmer))
	return nil
}

// warmer is a controller that can start its sources without its workers.
type warmer interface{ Warmup(context.Context) error }

type fakeCache struct {
	cache.Cache // nil
	op          *operator
}

var registering sync.Mutex

func (c *fakeCache) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return &fakeInformer{op: c.op, kind: kindOf(o)}, nil
}
func (c *fakeCache) WaitForCacheSync(context.Context) bool { return true }

type fakeInformer struct {
	cache.Informer // nil
	op             *operator
	kind           kind
}

func (i *fakeInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, _ toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	registering.Lock()
	defer registering.Unlock()
	i.op.handlers[i.kind] = append(i.op.handlers[i.kind], h)
	return registration{}, nil
}

type registration struct {
	toolscache.ResourceEventHandlerRegistration
}

func (registration) HasSynced() bool { return true }

// requests is a controller's queue: what is ready, in order, and what has to wait. An item that is worked on is not
// given out again before that is done.
type requests struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request] // nil
	now                                                     func() time.Duration
	order                                                   []reconcile.Request
	dirty, processing                                       map[reconcile.Request]bool
	later                                                   []timed
	failures                                                map[reconcile.Request]int
	// loses says that a request is never taken; nil: none is lost.
	loses func(reconcile.Request) bool
}

type timed struct {
	request reconcile.Request
	at      time.Duration
	// retry says that it waits because it failed.
	retry bool
}

func (q *requests) Add(r reconcile.Request) {
	if q.dirty[r] || q.loses != nil && q.loses(r) {
		return
	}
	q.dirty[r] = true
	if !q.processing[r] {
		q.order = append(q.order, r)
	}
}

func (q *requests) AddAfter(r reconcile.Request, d time.Duration) {
	if d <= 0 {
		q.Add(r)
		return
	}
	q.wait(timed{request: r, at: q.now() + d})
}

func (q *requests) wait(t timed) {
	for i := range q.later {
		if q.later[i].request == t.request {
			if t.at < q.later[i].at {
				q.later[i] = t
			}
			return
		}
	}
	q.later = append(q.later, t)
}

// AddRateLimited is the workqueue's default: from 5 ms, doubling, to 1000 s.
func (q *requests) AddRateLimited(r reconcile.Request) {
	d := min(5*time.Millisecond<<min(q.failures[r], 18), 1000*time.Second)
	q.failures[r]++
	q.wait(timed{request: r, at: q.now() + d, retry: true})
}

func (q *requests) Forget(r reconcile.Request) { delete(q.failures, r) }

func (q *requests) Done(r reconcile.Request) {
	delete(q.processing, r)
	if q.dirty[r] {
		q.order = append(q.order, r)
	}
}

func (q *requests) ShutDown() {}

// ready is how many requests can be taken; impatient takes retries before their time.
func (q *requests) ready(impatient bool) int {
	q.later = slices.DeleteFunc(q.later, func(t timed) bool {
		if t.at <= q.now() || impatient && t.retry {
			q.Add(t.request)
			return true
		}
		return false
	})
	return len(q.order)
}

func (q *requests) take(n int) reconcile.Request {
	r := q.order[n]
	q.order = slices.Delete(q.order, n, n+1)
	delete(q.dirty, r)
	q.processing[r] = true
	return r
}
