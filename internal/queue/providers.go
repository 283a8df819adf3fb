package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Providers finds the provider that an object names.
type Providers interface {
	// Get returns the provider called name for use from namespace. "" and "default" are the operator's own
	// environment, which every namespace may use; any other name is a QueueProvider. It fails with
	// ErrProviderNotFound, ErrProviderNotAllowed or ErrProviderInvalid, or with the API server's error.
	Get(ctx context.Context, name, namespace string) (*Provider, error)
	// ForDeletion returns the provider whoever may use it: what was made while it was given to a namespace is
	// still deleted after it was taken away. It fails as Get does, but never with ErrProviderNotAllowed.
	ForDeletion(ctx context.Context, name string) (*Provider, error)
}

var (
	// ErrProviderNotFound: there is no QueueProvider of that name. It may come.
	ErrProviderNotFound = errors.New("no such QueueProvider")
	// ErrProviderNotAllowed: the QueueProvider is not given to that namespace.
	ErrProviderNotAllowed = errors.New("QueueProvider may not be used from this namespace")
	// ErrProviderInvalid: no client can be made from the QueueProvider, or from the operator's environment.
	ErrProviderInvalid = errors.New("no SQS client can be made")
)

// Registry finds providers in QueueProvider objects and in the operator's environment, and keeps one client for
// each as long as its spec stays the same. The exported fields are set before its first use.
type Registry struct {
	// Reader reads QueueProviders and Namespaces; a cache will do.
	Reader client.Reader
	// Prefix is the first part of queue names where a QueueProvider sets none; empty: DefaultPrefix.
	Prefix string
	// Cluster is the second part of queue names; letters, digits and hyphens.
	Cluster string
	// ClusterUID is the UID of the kube-system namespace: the ownership tag's value.
	ClusterUID string
	// ForeignPrefixes are Provider.ForeignPrefixes of the operator's own environment.
	ForeignPrefixes []string
	// Version of the operator, for the user agent; empty: what the build says, else "devel".
	Version string
	// Limits for each account and region, whichever providers use it; zero: DefaultLimits.
	Limits Limits
	// Metrics counts requests.
	Metrics *Metrics
	// Clock is what limits and durations are measured with; nil: the real one.
	Clock clock.Clock
	// Fence says whether queues may be deleted; nil: always.
	Fence Fence
	// Wrap, if set, stands between every provider's client and its guard, for tests that stop or fail requests.
	Wrap func(API) API
	// Connect, if set, replaces the AWS SDK's client: tests return one that talks to a server in process.
	Connect func(ctx context.Context, region, endpoint, roleARN string) (api API, usedRegion, usedEndpoint string, err error)

	mu    sync.Mutex
	built map[string]entry
	turns map[counted]*atomic.Pointer[limiter]
	// own is the account of the operator's own credentials, by endpoint.
	own map[string]string
}

// entry is a provider as built from one generation of its object.
type entry struct {
	uid        types.UID
	generation int64
	provider   *Provider
}

var _ Providers = (*Registry)(nil)

// Get implements Providers.
func (r *Registry) Get(ctx context.Context, name, namespace string) (*Provider, error) {
	object, err := r.object(ctx, name)
	if err != nil {
		return nil, err
	}
	if object.Name != v1alpha1.DefaultProviderName {
		allowed, err := r.allows(ctx, object, namespace)
		if err != nil {
			return nil, err
		}
		if !allowed {
			return nil, fmt.Errorf("%w: %s from namespace %s", ErrProviderNotAllowed, name, namespace)
		}
	}
	return r.build(ctx, object)
}

// ForDeletion implements Providers.
func (r *Registry) ForDeletion(ctx context.Context, name string) (*Provider, error) {
	object, err := r.object(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.build(ctx, object)
}

// object reads the QueueProvider; the operator's own environment is one with an empty spec.
func (r *Registry) object(ctx context.Context, name string) (*v1alpha1.QueueProvider, error) {
	object := &v1alpha1.QueueProvider{}
	if name == "" || name == v1alpha1.DefaultProviderName {
		object.Name = v1alpha1.DefaultProviderName
		object.Spec.SweepForeignPrefixes = r.ForeignPrefixes
		return object, nil
	}
	if err := r.Reader.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%w: %s", ErrProviderNotFound, name)
		}
		return nil, fmt.Errorf("get QueueProvider %s: %w", name, err)
	}
	return object, nil
}

// Check returns the provider of a QueueProvider, whoever may use it. It does not call AWS; it fails with
// ErrProviderInvalid.
func (r *Registry) Check(ctx context.Context, object *v1alpha1.QueueProvider) (*Provider, error) {
	return r.build(ctx, object)
}

// Forget drops the client and the metrics of a QueueProvider that is gone.
func (r *Registry) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, known := r.built[name]; known && name != v1alpha1.DefaultProviderName {
		delete(r.built, name)
		if g, ok := was.provider.API.(*guard); ok {
			g.forget()
		}
	}
}

func (r *Registry) allows(ctx context.Context, object *v1alpha1.QueueProvider, namespace string) (bool, error) {
	if object.Spec.Namespaces.From == v1alpha1.NamespacesFromAll {
		return true, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(object.Spec.Namespaces.Selector)
	if err != nil {
		return false, fmt.Errorf("%w: spec.namespaces.selector of %s: %w", ErrProviderInvalid, object.Name, err)
	}
	var ns corev1.Namespace
	if err := r.Reader.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		return false, fmt.Errorf("get namespace %s: %w", namespace, err)
	}
	return selector.Matches(labels.Set(ns.Labels)), nil
}

func (r *Registry) build(ctx context.Context, object *v1alpha1.QueueProvider) (*Provider, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.built[object.Name]; ok && e.uid == object.UID && e.generation == object.Generation {
		return e.provider, nil
	}
	provider, err := r.connect(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("%w for provider %s: %w", ErrProviderInvalid, object.Name, err)
	}
	if r.built == nil {
		r.built = map[string]entry{}
	}
	r.built[object.Name] = entry{uid: object.UID, generation: object.Generation, provider: provider}
	return provider, nil
}

func (r *Registry) connect(ctx context.Context, object *v1alpha1.QueueProvider) (*Provider, error) {
	spec := &object.Spec
	connectTo := r.Connect
	if connectTo == nil {
		connectTo = func(ctx context.Context, region, endpoint, roleARN string) (API, string, string, error) {
			return connect(ctx, connection{region: region, endpoint: endpoint, roleARN: roleARN}, firstOf(r.Version, buildVersion()))
		}
	}
	api, region, endpoint, err := connectTo(ctx, spec.Region, spec.Endpoint, spec.RoleARN)
	if err != nil {
		return nil, err
	}
	if r.Wrap != nil {
		api = r.Wrap(api)
	}
	limits, clk := r.Limits, r.Clock
	if limits == (Limits{}) {
		limits = DefaultLimits
	}
	if clk == nil {
		clk = clock.RealClock{}
	}
	at := counted{region: region, endpoint: notAWSs(endpoint), account: accountOf(spec.RoleARN)}
	provider := &Provider{
		Name:              object.Name,
		Region:            region,
		Endpoint:          endpoint,
		RoleAccount:       at.account,
		Prefix:            firstOf(spec.NamePrefix, r.Prefix, DefaultPrefix),
		Cluster:           r.Cluster,
		ClusterUID:        r.ClusterUID,
		DefaultTags:       spec.DefaultTags.Strings(),
		AllowedQueueNames: spec.AllowedQueueNames,
		AllowPolicies:     spec.AllowPolicies != nil && *spec.AllowPolicies,
		ForeignPrefixes:   spec.SweepForeignPrefixes,
		Fence:             r.Fence,
		API:               guardWith(r.turnsAt(at, limits, clk), api, object.Name, r.Metrics, clk),
	}
	if at.account == "" {
		provider.onAccount = func(account string) { r.owns(at.endpoint, account) }
	}
	return provider, nil
}

// accountOf is the account of a role to assume; empty for the operator's own.
func accountOf(roleARN string) string {
	parts := strings.SplitN(roleARN, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[4]
}

// buildVersion is the module's version as the go command stamped it; a build from a checkout has none.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
