package queue

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func registry(t *testing.T, objects ...client.Object) *Registry {
	t.Helper()
	// Nothing of the machine's own configuration takes part.
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "",
	} {
		t.Setenv(name, value)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return &Registry{
		Reader:  fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(),
		Cluster: "c1", ClusterUID: "uid", Version: "v1.2.3", Metrics: NewMetrics(prometheus.NewRegistry()),
	}
}

func queueProvider(name string, edit func(*v1alpha1.QueueProviderSpec)) *v1alpha1.QueueProvider {
	p := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "1", Generation: 1}}
	p.Spec.Namespaces.From = v1alpha1.NamespacesFromAll
	if edit != nil {
		edit(&p.Spec)
	}
	return p
}

func TestTheDefaultProviderIsTheOperatorsEnvironment(t *testing.T) {
	server := sqstest.NewServer(t)
	r := registry(t)
	t.Setenv("AWS_ENDPOINT_URL_SQS", server.URL)
	for _, name := range []string{"", "default"} {
		p, err := r.Get(t.Context(), name, "shop")
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != "default" || p.Region != "eu-central-1" || p.Endpoint != server.URL || p.Prefix != "rq" || p.Cluster != "c1" || p.ClusterUID != "uid" || p.AllowPolicies || p.AllowedQueueNames != nil {
			t.Errorf("got %+v", p)
		}
		if _, err := p.CreateReplyQueue(t.Context(), "q", nil, nil); err != nil {
			t.Errorf("through a socket, as the operator does: %v", err)
		}
	}
}

func TestRequestsCarryTheUserAgentAndAreNotRetried(t *testing.T) {
	var agents []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents = append(agents, r.UserAgent())
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	r := registry(t, queueProvider("p", func(spec *v1alpha1.QueueProviderSpec) { spec.Region, spec.Endpoint = "eu-west-1", server.URL }))
	p, err := r.Get(t.Context(), "p", "shop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateReplyQueue(t.Context(), "q", nil, nil); Classify(err) != Transient {
		t.Errorf("got %v", err)
	}
	if len(agents) != 1 || !strings.Contains(agents[0], "replyqueue/v1.2.3") {
		t.Errorf("requests with the agents %q", agents)
	}
	if p.Region != "eu-west-1" || p.Endpoint != server.URL {
		t.Errorf("got %+v", p)
	}
}

func TestAProviderKeepsItsClientUntilItsSpecChanges(t *testing.T) {
	object := queueProvider("p", func(spec *v1alpha1.QueueProviderSpec) {
		spec.NamePrefix, spec.AllowedQueueNames, spec.AllowPolicies, spec.DefaultTags = "team", []string{"*"}, ptr.To(true), v1alpha1.Tags{"a": "b"}
	})
	r := registry(t, object)
	get := func() *Provider {
		t.Helper()
		p, err := r.Get(t.Context(), "p", "shop")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := get()
	if first.Prefix != "team" || !first.AllowPolicies || first.DefaultTags["a"] != "b" || first.Region != "eu-central-1" {
		t.Errorf("got %+v", first)
	}
	if get() != first {
		t.Error("another client for the same spec")
	}
	object = object.DeepCopy()
	object.Generation++
	if err := r.Reader.(client.Client).Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	second := get()
	if second == first {
		t.Error("the old client for a new spec")
	}
	r.Forget("p")
	if get() == second {
		t.Error("the client of a provider that was gone")
	}
}

func TestWhoMayUseAProvider(t *testing.T) {
	namespaces := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "shop"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bank", Labels: map[string]string{"team": "bank"}}},
	}
	chosen := queueProvider("chosen", func(spec *v1alpha1.QueueProviderSpec) {
		spec.Namespaces = v1alpha1.ProviderNamespaces{From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "shop"}}}
	})
	r := registry(t, append(namespaces, queueProvider("all", nil), chosen)...)
	for _, tc := range []struct {
		provider, namespace string
		want                error
	}{
		{"all", "bank", nil},
		{"chosen", "shop", nil},
		{"chosen", "bank", ErrProviderNotAllowed},
		{"missing", "shop", ErrProviderNotFound},
		{"", "bank", nil},
	} {
		if _, err := r.Get(t.Context(), tc.provider, tc.namespace); !errors.Is(err, tc.want) {
			t.Errorf("%s from %s: got %v, want %v", tc.provider, tc.namespace, err, tc.want)
		}
	}
	if _, err := r.ForDeletion(t.Context(), "chosen"); err != nil {
		t.Errorf("for deletion: %v", err)
	}
	if _, err := r.ForDeletion(t.Context(), "missing"); !errors.Is(err, ErrProviderNotFound) {
		t.Errorf("for deletion: %v", err)
	}
}

func TestWithoutARegionThereIsNoClient(t *testing.T) {
	r := registry(t)
	t.Setenv("AWS_REGION", "")
	_, err := r.Get(t.Context(), "", "shop")
	if !errors.Is(err, ErrProviderInvalid) || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v", err)
	}
	t.Setenv("AWS_REGION", "eu-central-1")
	if _, err := r.Get(t.Context(), "", "shop"); err != nil {
		t.Errorf("once there is one: %v", err)
	}
}

func TestARoleIsAssumed(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/queues"
	var assumed []string
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assumed = append(assumed, r.FormValue("Action")+" "+r.FormValue("RoleArn"))
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write([]byte(`<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>` +
			`<SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`))
	}))
	t.Cleanup(sts.Close)
	server := sqstest.NewServer(t)
	r := registry(t, queueProvider("p", func(spec *v1alpha1.QueueProviderSpec) { spec.RoleARN, spec.Endpoint = role, server.URL }))
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	p, err := r.Get(t.Context(), "p", "shop")
	if err != nil {
		t.Fatal(err)
	}
	if len(assumed) != 0 {
		t.Error("making a client called AWS")
	}
	for range 2 {
		if _, err := p.CreateReplyQueue(context.WithoutCancel(t.Context()), "q", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(assumed) != 1 || assumed[0] != "AssumeRole "+role {
		t.Errorf("assumed %q", assumed)
	}
	if server.Requests(sqstest.FromKey("ASSUMED")) != 2 {
		t.Errorf("%d requests with the role's credentials, want 2", server.Requests(sqstest.FromKey("ASSUMED")))
	}
}
