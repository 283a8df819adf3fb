package model

import (
	"context"
	"maps"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// change is one event of a watch.
type change struct {
	// object is its state from now on, or its last one where it is gone; before is nil where it is new.
	object, before client.Object
	gone           bool
}

// cluster is an API server and everything that ever changed on it, in order. Every write of the model passes through it,
// so that the script decides who sees what, and when.
type cluster struct {
	server client.Client
	log    map[kind][]change
	// first is what it began with, before the log.
	first map[kind]map[types.NamespacedName]client.Object
	now   map[kind]map[types.NamespacedName]client.Object
	// birth is the order in which objects came, and created are the UIDs of those that were created, in that order.
	birth   map[types.UID]int
	created []types.UID
	// noticed is told of every change, with the call that made it; nil for what actors do.
	noticed func(kind, change, *call)
}

func newCluster(server client.Client) *cluster {
	return &cluster{server: server, log: map[kind][]change{}, now: map[kind]map[types.NamespacedName]client.Object{}, birth: map[types.UID]int{}}
}

// blank is a new object of a kind.
func blank(k kind) client.Object {
	switch k {
	case pods:
		return &corev1.Pod{}
	case leases:
		return &coordinationv1.Lease{}
	case records:
		return &v1alpha1.ReplyQueue{}
	case hosts:
		return &v1alpha1.ReplyHost{}
	case channels:
		return &v1alpha1.RequestChannel{}
	case providers:
		return &v1alpha1.QueueProvider{}
	case configs:
		return &corev1.ConfigMap{}
	case spaces:
		return &corev1.Namespace{}
	}
	panic("unknown kind " + k)
}

// note finds out what a write did, and logs it.
func (c *cluster) note(err error, o client.Object, by *call) error {
	if err != nil {
		return err
	}
	k, key := kindOf(o), client.ObjectKeyFromObject(o)
	before := c.now[k][key]
	current := blank(k)
	switch err := c.server.Get(context.Background(), key, current); {
	case err == nil:
		if before != nil && before.GetResourceVersion() == current.GetResourceVersion() {
			return nil
		}
		if c.now[k] == nil {
			c.now[k] = map[types.NamespacedName]client.Object{}
		}
		c.now[k][key] = current
		if _, known := c.birth[current.GetUID()]; !known {
			c.birth[current.GetUID()] = len(c.birth)
		}
		c.append(k, change{object: current, before: before}, by)
	case !apierrors.IsNotFound(err):
		return err
	case before != nil:
		delete(c.now[k], key)
		c.append(k, change{object: before, before: before, gone: true}, by)
	}
	return nil
}

func (c *cluster) append(k kind, ch change, by *call) {
	c.log[k] = append(c.log[k], ch)
	if c.noticed != nil {
		c.noticed(k, ch, by)
	}
}

func (c *cluster) create(o client.Object, by *call) error {
	err := c.server.Create(context.Background(), o)
	if err == nil {
		c.created = append(c.created, o.GetUID())
	}
	return c.note(err, o, by)
}

func (c *cluster) update(o client.Object, by *call) error {
	return c.note(c.server.Update(context.Background(), o), o, by)
}

func (c *cluster) patch(o client.Object, p client.Patch, by *call) error {
	return c.note(c.server.Patch(context.Background(), o, p), o, by)
}

func (c *cluster) patchStatus(o client.Object, p client.Patch, by *call) error {
	return c.note(c.server.Status().Patch(context.Background(), o, p), o, by)
}

func (c *cluster) remove(o client.Object, by *call, options ...client.DeleteOption) error {
	return c.note(c.server.Delete(context.Background(), o, options...), o, by)
}

// change edits an object as an actor would: read, change, write.
func (c *cluster) edit(o client.Object, apply func()) error {
	if err := c.server.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	before := o.DeepCopyObject().(client.Object)
	apply()
	return c.patch(o, client.MergeFrom(before), nil)
}

func (c *cluster) editStatus(o client.Object, apply func()) error {
	if err := c.server.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	before := o.DeepCopyObject().(client.Object)
	apply()
	return c.patchStatus(o, client.MergeFrom(before), nil)
}

// each calls f for every object of a kind, in the order in which they came.
func each[T client.Object](c *cluster, k kind, f func(T)) {
	for _, key := range c.keysOf(c.now[k]) {
		f(c.now[k][key].(T))
	}
}

// keysOf are the keys of objects in the order in which these came, which is the same on every API server.
func (c *cluster) keysOf(all map[types.NamespacedName]client.Object) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(all), func(a, b types.NamespacedName) int {
		return c.birth[all[a].GetUID()] - c.birth[all[b].GetUID()]
	})
}

// view is what one watch has delivered of a kind: its state at some time in the past.
type view struct {
	objects map[types.NamespacedName]client.Object
	at      int // position in the cluster's log
}

// asOf is what a list showed after so many events of a kind.
func (c *cluster) asOf(k kind, at int, wanted func(client.Object) bool) *view {
	v := &view{objects: map[types.NamespacedName]client.Object{}, at: at}
	if at == len(c.log[k]) {
		for key, o := range c.now[k] {
			if wanted(o) {
				v.objects[key] = o
			}
		}
		return v
	}
	for key, o := range c.first[k] {
		if wanted(o) {
			v.objects[key] = o
		}
	}
	for _, ch := range c.log[k][:at] {
		key := client.ObjectKeyFromObject(ch.object)
		delete(v.objects, key)
		if !ch.gone && wanted(ch.object) {
			v.objects[key] = ch.object
		}
	}
	return v
}

// present is the place in the log of now.
func (c *cluster) present(k kind) int { return len(c.log[k]) }

// copyInto answers a Get from a view.
func (v *view) copyInto(key types.NamespacedName, into client.Object) error {
	o := v.objects[key]
	if o == nil {
		return apierrors.NewNotFound(resourceOf(kindOf(into)), key.Name)
	}
	assign(into, o)
	return nil
}
