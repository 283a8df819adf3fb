package model

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// kube is the client that a manager gives its reconcilers: it reads from the operator's cache, but for the kinds that
// are never cached, and writes to the API server.
type kube struct {
	client.Client // nil: what is not written here is not used
	op            *operator
}

// cached says which kinds an operator reads from its cache.
func cached(k kind) bool {
	switch k {
	case pods, records, hosts, channels, providers, spaces:
		return true
	}
	return false
}

func (k kube) Scheme() *runtime.Scheme { return scheme }

func (k kube) Get(ctx context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if !cached(kindOf(into)) {
		err := reader{k.op}.Get(ctx, key, into)
		if cm, ok := into.(*corev1.ConfigMap); ok && err == nil && k.op.mutant.identity != nil {
			k.op.mutant.identity(cm)
		}
		return err
	}
	err := k.op.views[kindOf(into)].copyInto(key, into)
	if record, ok := into.(*v1alpha1.ReplyQueue); ok && err == nil && k.op.mutant.cachedRecord != nil {
		k.op.mutant.cachedRecord(k.op, record)
	}
	return err
}

func (k kube) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if !cached(kindOf(into)) {
		return reader{k.op}.List(ctx, into, options...)
	}
	k.op.listCached(into, options...)
	return nil
}

// listCached answers a List from the cache.
func (op *operator) listCached(into client.ObjectList, options ...client.ListOption) {
	o := (&client.ListOptions{}).ApplyOptions(options)
	wanted := func(object client.Object) bool {
		if o.Namespace != "" && o.Namespace != object.GetNamespace() {
			return false
		}
		if o.LabelSelector != nil && !o.LabelSelector.Matches(setOf(object)) {
			return false
		}
		return o.FieldSelector == nil || op.indexed(object, o.FieldSelector)
	}
	list(into, op.views[kindOf(into)].objects, wanted)
}

func (k kube) write(ctx context.Context, verb string, o client.Object, run func(*call) error) error {
	return k.writeAs(ctx, &call{verb: verb}, o, run)
}

func (k kube) writeAs(ctx context.Context, c *call, o client.Object, run func(*call) error) error {
	c.verb, c.target = c.verb+" "+string(kindOf(o)), o.GetName()
	_, err := ask(ctx, k.op, c, func(c *call) (struct{}, error) {
		if k.op.unreachable() {
			return struct{}{}, errUnreachable
		}
		return struct{}{}, run(c)
	})
	return err
}

func (k kube) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	return k.write(ctx, "create", o, func(c *call) error {
		if k.op.mutant.create != nil {
			k.op.mutant.create(o)
		}
		return k.op.cluster.create(o, c)
	})
}

func (k kube) Update(ctx context.Context, o client.Object, _ ...client.UpdateOption) error {
	if k.op.mutant.beforeUpdate != nil {
		k.op.mutant.beforeUpdate(ctx, k.op, o)
	}
	return k.write(ctx, "update", o, func(c *call) error {
		err := k.op.cluster.update(o, c)
		if _, ok := o.(*coordinationv1.Lease); ok && apierrors.IsConflict(err) {
			k.op.world.happened["a Lease was written to when it was about to be closed"]++
		}
		return err
	})
}

func (k kube) Patch(ctx context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	if k.op.mutant.beforePatch != nil {
		p = k.op.mutant.beforePatch(o, p)
	}
	return k.write(ctx, "patch", o, func(c *call) error { return k.op.cluster.patch(o, p, c) })
}

func (k kube) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	return k.write(ctx, "delete", o, func(c *call) error { return k.op.cluster.remove(o, c, options...) })
}

func (k kube) Status() client.SubResourceWriter { return kubeStatus{kube: k} }

type kubeStatus struct {
	client.SubResourceWriter // nil
	kube                     kube
}

func (k kubeStatus) Patch(ctx context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	if k.kube.op.mutant.beforeStatus != nil {
		p = k.kube.op.mutant.beforeStatus(p, o)
	}
	record, ok := o.(*v1alpha1.ReplyQueue)
	return k.kube.writeAs(ctx, &call{verb: "patch status of", closing: ok && record.Status.Closing != nil}, o, func(c *call) error { return k.kube.op.cluster.patchStatus(o, p, c) })
}

// reader reads from the API server.
type reader struct{ op *operator }

func (r reader) Get(ctx context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if v := r.op.views[kindOf(into)]; v != nil && (r.op.mutant.readsFromCache || r.op.mutant.takesByCaches && calledFrom("takeable")) {
		return v.copyInto(key, into)
	}
	c := &call{verb: "get " + string(kindOf(into)), target: key.Name}
	_, err := ask(ctx, r.op, c, func(c *call) (struct{}, error) {
		if r.op.unreachable() {
			return struct{}{}, errUnreachable
		}
		if c.task != nil && kindOf(into) == pods {
			c.task.podRead, c.task.podReadAt = r.op.world.step, r.op.world.now
		}
		return struct{}{}, r.op.cluster.server.Get(context.Background(), key, into)
	})
	if err != nil {
		return err
	}
	switch o := into.(type) {
	case *corev1.Pod:
		if r.op.mutant.podRead != nil {
			r.op.mutant.podRead(o)
		}
		if r.op.mutant.unlabelledGone && !optedIn(o) {
			return apierrors.NewNotFound(resourceOf(pods), key.Name)
		}
	case *coordinationv1.Lease:
		if r.op.mutant.looksAway && calledFrom("confirm") {
			r.op.asHeard(o)
		}
	}
	return nil
}

func (r reader) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if r.op.views[kindOf(into)] != nil && r.op.mutant.listsFromCache {
		r.op.listCached(into, options...)
		return nil
	}
	c := &call{verb: "list " + string(kindOf(into))}
	_, err := ask(ctx, r.op, c, func(*call) (struct{}, error) {
		if r.op.unreachable() {
			return struct{}{}, errUnreachable
		}
		return struct{}{}, r.op.cluster.server.List(context.Background(), into, options...)
	})
	return err
}
