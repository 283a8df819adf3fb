package model

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// kind names a kind of object as the model stores it.
type kind string

const (
	pods      kind = "Pod"
	leases    kind = "Lease"
	records   kind = "ReplyQueue"
	hosts     kind = "ReplyHost"
	channels  kind = "RequestChannel"
	providers kind = "QueueProvider"
	configs   kind = "ConfigMap"
	spaces    kind = "Namespace"
)

var kinds = []kind{pods, leases, records, hosts, channels, providers, configs, spaces}

// kindOf is the kind of an object or a list.
func kindOf(o runtime.Object) kind {
	name := reflect.TypeOf(o).Elem().Name()
	return kind(strings.TrimSuffix(name, "List"))
}

func resourceOf(k kind) schema.GroupResource {
	group := ""
	switch k {
	case leases:
		group = coordinationv1.GroupName
	case records, hosts, channels, providers:
		group = v1alpha1.GroupVersion.Group
	}
	return schema.GroupResource{Group: group, Resource: strings.ToLower(string(k)) + "s"}
}

// hasStatus says that the kind's status is a subresource: its main resource ignores status.
func hasStatus(k kind) bool {
	switch k {
	case pods, records, hosts, channels, providers:
		return true
	}
	return false
}

// memory is an API server in memory: it does to objects what kube-apiserver does, as far as the operator and the actors
// of the model look. It has no goroutines and no time of its own.
type memory struct {
	client.Client // nil: what is not written here is not used

	now     func() metav1.Time
	version int
	uids    int
	// given are the UIDs of the first objects, in the order in which they come; the others get some of its own.
	given   []types.UID
	objects map[kind]map[types.NamespacedName]client.Object
}

var _ client.Client = (*memory)(nil)

func newMemory(now func() metav1.Time) *memory {
	return &memory{now: now, version: 1, objects: map[kind]map[types.NamespacedName]client.Object{}}
}

// clone is what a copy of etcd holds.
func (m *memory) clone() *memory {
	c := newMemory(m.now)
	c.version, c.uids = m.version, m.uids+1_000_000 // What is made in both is not the same.
	for k, all := range m.objects {
		c.objects[k] = maps.Clone(all) // Stored objects are never changed in place.
	}
	return c
}

func (m *memory) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	k := kindOf(into)
	o := m.objects[k][key]
	if o == nil {
		return apierrors.NewNotFound(resourceOf(k), key.Name)
	}
	assign(into, o)
	return nil
}

// assign makes into a copy of o.
func assign(into, o client.Object) {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
}

func (m *memory) List(_ context.Context, into client.ObjectList, options ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(options)
	list(into, m.objects[kindOf(into)], func(object client.Object) bool {
		return (o.Namespace == "" || o.Namespace == object.GetNamespace()) &&
			(o.LabelSelector == nil || o.LabelSelector.Matches(labels.Set(object.GetLabels())))
	})
	return nil
}

// list fills into with copies of those of all that are wanted, in the order of their keys.
func list(into client.ObjectList, all map[types.NamespacedName]client.Object, wanted func(client.Object) bool) {
	keys := make([]types.NamespacedName, 0, len(all))
	for key, o := range all {
		if wanted(o) {
			keys = append(keys, key)
		}
	}
	sortKeys(keys)
	items := make([]runtime.Object, len(keys))
	for i, key := range keys {
		items[i] = all[key].DeepCopyObject()
	}
	if err := meta.SetList(into, items); err != nil {
		panic(err)
	}
}

func sortKeys(keys []types.NamespacedName) {
	slices.SortFunc(keys, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
}

func (m *memory) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	k, key := kindOf(o), client.ObjectKeyFromObject(o)
	if m.objects[k][key] != nil {
		return apierrors.NewAlreadyExists(resourceOf(k), key.Name)
	}
	m.uids++
	if m.uids <= len(m.given) {
		o.SetUID(m.given[m.uids-1])
	} else {
		o.SetUID(types.UID(fmt.Sprintf("%08d-0000-4000-8000-000000000000", m.uids)))
	}
	o.SetGeneration(1)
	o.SetCreationTimestamp(m.now())
	if hasStatus(k) {
		clearStatus(o)
	}
	m.put(k, key, o)
	return nil
}

// clearStatus leaves out what a main resource ignores.
func clearStatus(o client.Object) { setStatus(o, nil) }

func setStatus(o, from client.Object) {
	status := reflect.ValueOf(o).Elem().FieldByName("Status")
	if from == nil {
		status.SetZero()
		return
	}
	status.Set(reflect.ValueOf(from).Elem().FieldByName("Status"))
}

// put stores a copy of o under a new version.
func (m *memory) put(k kind, key types.NamespacedName, o client.Object) {
	m.version++
	o.SetResourceVersion(fmt.Sprint(m.version))
	if m.objects[k] == nil {
		m.objects[k] = map[types.NamespacedName]client.Object{}
	}
	m.objects[k][key] = o.DeepCopyObject().(client.Object)
}

func (m *memory) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	return m.write(o, o.DeepCopyObject().(client.Object), false)
}

func (m *memory) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	return m.patch(o, p, false)
}

func (m *memory) Status() client.SubResourceWriter { return statusOf{m} }

// statusOf writes the status subresource.
type statusOf struct{ m *memory }

func (s statusOf) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.m.patch(o, p, true)
}

func (s statusOf) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.m.write(o, o.DeepCopyObject().(client.Object), true)
}

func (s statusOf) Create(context.Context, client.Object, client.Object, ...client.SubResourceCreateOption) error {
	panic("not used")
}

func (s statusOf) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	panic("not used")
}

func (m *memory) patch(o client.Object, p client.Patch, status bool) error {
	k, key := kindOf(o), client.ObjectKeyFromObject(o)
	current := m.objects[k][key]
	if current == nil {
		return apierrors.NewNotFound(resourceOf(k), key.Name)
	}
	data, err := p.Data(o)
	if err != nil {
		return err
	}
	if p.Type() == types.MergePatchType && !bytes.ContainsAny(data, "[") && !bytes.Contains(data, []byte("null")) {
		// What adds fields, and neither removes one nor replaces a list, can be read over a copy: RFC 7386 comes to the same.
		next := current.DeepCopyObject().(client.Object)
		if err := json.Unmarshal(data, next); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		return m.write(o, next, status)
	}
	was, err := json.Marshal(current)
	if err != nil {
		return err
	}
	var merged []byte
	switch p.Type() {
	case types.MergePatchType:
		merged, err = mergeJSON(was, data)
	case types.StrategicMergePatchType:
		merged, err = strategicpatch.StrategicMergePatch(was, data, current)
	default:
		panic("not used: " + p.Type())
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	next := reflect.New(reflect.TypeOf(current).Elem()).Interface().(client.Object)
	if err := json.Unmarshal(merged, next); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return m.write(o, next, status)
}

// mergeJSON is RFC 7386.
func mergeJSON(document, patch []byte) ([]byte, error) {
	var to, from map[string]any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&to); err != nil {
		return nil, err
	}
	d = json.NewDecoder(bytes.NewReader(patch))
	d.UseNumber()
	if err := d.Decode(&from); err != nil {
		return nil, err
	}
	return json.Marshal(mergeMaps(to, from))
}

func mergeMaps(to, from map[string]any) map[string]any {
	if to == nil {
		to = map[string]any{}
	}
	for key, value := range from {
		switch value := value.(type) {
		case nil:
			delete(to, key)
		case map[string]any:
			inner, _ := to[key].(map[string]any)
			to[key] = mergeMaps(inner, value)
		default:
			to[key] = value
		}
	}
	return to
}

// write makes next the state of its object, and into a copy of what came of it.
func (m *memory) write(into, next client.Object, status bool) error {
	k, key := kindOf(into), client.ObjectKeyFromObject(into)
	current := m.objects[k][key]
	switch {
	case current == nil && k == leases && next.GetUID() != "": // One that there is not can be written by an update, but not under a UID.
		return apierrors.NewConflict(resourceOf(k), key.Name, fmt.Errorf("the UID in the precondition is nobody's"))
	case current == nil:
		return apierrors.NewNotFound(resourceOf(k), key.Name)
	case next.GetResourceVersion() != "" && next.GetResourceVersion() != current.GetResourceVersion():
		return apierrors.NewConflict(resourceOf(k), key.Name, fmt.Errorf("the object has been modified"))
	case next.GetUID() != "" && next.GetUID() != current.GetUID():
		return apierrors.NewConflict(resourceOf(k), key.Name, fmt.Errorf("the UID in the precondition is another's"))
	}
	if status {
		// Only the status is written.
		whole := current.DeepCopyObject().(client.Object)
		setStatus(whole, next)
		next = whole
	} else {
		if hasStatus(k) {
			setStatus(next, current.DeepCopyObject().(client.Object))
		}
		next.SetUID(current.GetUID())
		next.SetCreationTimestamp(current.GetCreationTimestamp())
		next.SetDeletionTimestamp(current.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
		next.SetGeneration(current.GetGeneration())
		if !sameSpec(next, current) {
			next.SetGeneration(current.GetGeneration() + 1)
		}
	}
	if err := validate(next, current); err != nil {
		return err
	}
	next.SetResourceVersion(current.GetResourceVersion())
	if equality.Semantic.DeepEqual(next, current) {
		assign(into, current)
		return nil
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 && next.GetDeletionGracePeriodSeconds() == nil {
		m.version++
		next.SetResourceVersion(fmt.Sprint(m.version))
		delete(m.objects[k], key)
		assign(into, next)
		return nil
	}
	m.put(k, key, next)
	assign(into, next)
	return nil
}

func sameSpec(a, b client.Object) bool {
	spec := func(o client.Object) any {
		if f := reflect.ValueOf(o).Elem().FieldByName("Spec"); f.IsValid() {
			return f.Interface()
		}
		return nil
	}
	return equality.Semantic.DeepEqual(spec(a), spec(b))
}

// validate is the CRDs' rule that matters here: closing is never taken back.
func validate(next, current client.Object) error {
	now, ok := next.(*v1alpha1.ReplyQueue)
	if !ok {
		return nil
	}
	was := current.(*v1alpha1.ReplyQueue)
	if was.Status.Closing != nil && (now.Status.Closing == nil || !equality.Semantic.DeepEqual(*was.Status.Closing, *now.Status.Closing)) {
		return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("ReplyQueue").GroupKind(), now.Name, nil)
	}
	return nil
}

func (m *memory) Delete(_ context.Context, o client.Object, options ...client.DeleteOption) error {
	k, key := kindOf(o), client.ObjectKeyFromObject(o)
	current := m.objects[k][key]
	if current == nil {
		return apierrors.NewNotFound(resourceOf(k), key.Name)
	}
	opts := (&client.DeleteOptions{}).ApplyOptions(options)
	if p := opts.Preconditions; p != nil {
		if p.UID != nil && *p.UID != current.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != current.GetResourceVersion() {
			return apierrors.NewConflict(resourceOf(k), key.Name, fmt.Errorf("the precondition does not hold"))
		}
	}
	grace := int64(0)
	if pod, ok := current.(*corev1.Pod); ok && pod.Spec.NodeName != "" && !terminal(pod) {
		// A pod that may have containers is left to its kubelet.
		grace = ptr.Deref(opts.GracePeriodSeconds, 30)
	}
	if grace == 0 && len(current.GetFinalizers()) == 0 {
		m.version++
		delete(m.objects[k], key)
		return nil
	}
	if current.GetDeletionTimestamp() != nil {
		return nil
	}
	next := current.DeepCopyObject().(client.Object)
	next.SetDeletionTimestamp(ptr.To(m.now()))
	if k == pods {
		next.SetDeletionGracePeriodSeconds(&grace)
	}
	next.SetGeneration(next.GetGeneration() + 1)
	m.put(k, key, next)
	return nil
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Scheme is not asked for anything by the reconcilers.
func (m *memory) Scheme() *runtime.Scheme { return nil }

// SubResource answers "binding" alone.
func (m *memory) SubResource(string) client.SubResourceClient { return bindingOf{m: m} }

type bindingOf struct {
	client.SubResourceClient
	m *memory
}

func (b bindingOf) Create(_ context.Context, o, sub client.Object, _ ...client.SubResourceCreateOption) error {
	key := client.ObjectKeyFromObject(o)
	current, ok := b.m.objects[pods][key].(*corev1.Pod)
	if !ok {
		return apierrors.NewNotFound(resourceOf(pods), key.Name)
	}
	next := current.DeepCopy()
	next.Spec.NodeName = sub.(*corev1.Binding).Target.Name
	b.m.put(pods, key, next)
	return nil
}
