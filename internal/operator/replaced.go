package operator

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// newCache is the cache of all controllers. An object that is gone, and whose name another has, is one that was deleted and one
// that was added: who only compares two states of one object takes the second for the first.
func newCache(config *rest.Config, options cache.Options) (cache.Cache, error) {
	c, err := cache.New(config, options)
	if err != nil {
		return nil, err
	}
	return tellingCache{c}, nil
}

// tellingCache is a cache whose informers tell of objects that were replaced under their names.
type tellingCache struct{ cache.Cache }

func (c tellingCache) GetInformer(ctx context.Context, o client.Object, options ...cache.InformerGetOption) (cache.Informer, error) {
	informer, err := c.Cache.GetInformer(ctx, o, options...)
	if err != nil {
		return nil, err
	}
	return tellingInformer{informer}, nil
}

func (c tellingCache) GetInformerForKind(ctx context.Context, kind schema.GroupVersionKind, options ...cache.InformerGetOption) (cache.Informer, error) {
	informer, err := c.Cache.GetInformerForKind(ctx, kind, options...)
	if err != nil {
		return nil, err
	}
	return tellingInformer{informer}, nil
}

type tellingInformer struct{ cache.Informer }

func (i tellingInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.Informer.AddEventHandler(telling{h})
}

func (i tellingInformer) AddEventHandlerWithResyncPeriod(h toolscache.ResourceEventHandler, resync time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.Informer.AddEventHandlerWithResyncPeriod(telling{h}, resync)
}

func (i tellingInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, options toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.Informer.AddEventHandlerWithOptions(telling{h}, options)
}

// telling hands on events. Where a list took the place of a watch, and an object has another UID than the one that was
// known by its name, client-go tells of an update; the end of the first was missed, and so is its last state.
type telling struct {
	toolscache.ResourceEventHandler
}

func (t telling) OnUpdate(before, now any) {
	was, err := meta.Accessor(before)
	is, err2 := meta.Accessor(now)
	if err != nil || err2 != nil || was.GetUID() == is.GetUID() {
		t.ResourceEventHandler.OnUpdate(before, now)
		return
	}
	t.OnDelete(toolscache.DeletedFinalStateUnknown{Key: client.ObjectKey{Namespace: was.GetNamespace(), Name: was.GetName()}.String(), Obj: before})
	t.OnAdd(now, false)
}
