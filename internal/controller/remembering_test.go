package controller

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// remembering makes a client that remembers what it has read until it writes something of that kind: most of what a stage
// reads, it reads again and again, and nobody else writes there. To the API server that is most of the work.
func remembering(c client.WithWatch) client.WithWatch {
	m := &memory{written: map[string]int{}, read: map[string]remembered{}}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return m.reading(ctx, o, key.Namespace, "get "+key.String(), func() error { return c.Get(ctx, key, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			options := (&client.ListOptions{}).ApplyOptions(opts)
			if options.FieldSelector != nil || options.Limit != 0 {
				return c.List(ctx, l, opts...)
			}
			return m.reading(ctx, l, options.Namespace, fmt.Sprintf("list %s %v", options.Namespace, options.LabelSelector), func() error { return c.List(ctx, l, opts...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			defer m.writing(o)()
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			defer m.writing(o)()
			return c.Update(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			defer m.writing(o)()
			return c.Patch(ctx, o, p, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			defer m.writing(o)()
			return c.Delete(ctx, o, opts...)
		},
		DeleteAllOf: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteAllOfOption) error {
			defer m.writing(o)()
			return c.DeleteAllOf(ctx, o, opts...)
		},
		SubResourceCreate: func(ctx context.Context, c client.Client, sub string, o, with client.Object, opts ...client.SubResourceCreateOption) error {
			defer m.writing(o)()
			return c.SubResource(sub).Create(ctx, o, with, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			defer m.writing(o)()
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			defer m.writing(o)()
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

type memory struct {
	mu sync.Mutex
	// written counts writes, begun and ended, by type and namespace.
	written map[string]int
	read    map[string]remembered
}

// remembered is what a read brought, and how often had been written before it.
type remembered struct {
	written int
	found   runtime.Object
	err     error
}

func (m *memory) writing(o client.Object) (done func()) {
	count := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, t := range []string{reflect.TypeOf(o).String(), reflect.TypeOf(o).String() + "List"} {
			m.written[t+" "+o.GetNamespace()]++
			if o.GetNamespace() != "" {
				m.written[t+" "]++ // for those who read all namespaces
			}
		}
	}
	count()
	return count
}

func (m *memory) reading(ctx context.Context, into runtime.Object, namespace, what string, read func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	counted := reflect.TypeOf(into).String() + " " + namespace
	key := counted + " " + what
	m.mu.Lock()
	had, known := m.read[key]
	written := m.written[counted]
	m.mu.Unlock()
	if known && had.written == written {
		if had.err == nil {
			reflect.ValueOf(into).Elem().Set(reflect.ValueOf(had.found.DeepCopyObject()).Elem())
		}
		return had.err
	}
	err := read()
	if err == nil || apierrors.IsNotFound(err) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.read[key] = remembered{written: written, found: into.DeepCopyObject(), err: err}
	}
	return err
}
