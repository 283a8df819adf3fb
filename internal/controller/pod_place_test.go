package controller

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// places is a queue.Providers of several, by name, open to all.
type places map[string]*queue.Provider

func (p places) Get(_ context.Context, name, _ string) (*queue.Provider, error) {
	if provider := p[name]; provider != nil {
		return provider, nil
	}
	return nil, queue.ErrProviderNotFound
}

func (p places) ForDeletion(ctx context.Context, name string) (*queue.Provider, error) {
	return p.Get(ctx, name, "")
}

// account is the one that sqstest's queues are in.
const account = "000000000000"

// newPlaces is a stage with the providers default, same (its place, with another prefix), region, endpoint and account (each
// another place by that alone), each with an object, and for each a channel of its name in which the queue's URL is of the
// right account.
func newPlaces(t *testing.T) (*stage, places) {
	t.Helper()
	s := newStage(t)
	own := s.pods.Providers.(onlyProvider).Provider
	other := func(name, region, endpoint string) *queue.Provider {
		return &queue.Provider{Name: name, Region: region, Endpoint: endpoint, Prefix: name, Cluster: "c", ClusterUID: "uid", API: own.API}
	}
	all := places{
		v1alpha1.DefaultProviderName: own,
		"same":                       other("same", "us-east-1", ""),
		"region":                     other("region", "eu-west-1", ""),
		"endpoint":                   other("endpoint", "us-east-1", "https://vpce.example"),
		"account":                    other("account", "us-east-1", ""),
	}
	all["account"].RoleAccount = "222222222222"
	s.pods.Providers, s.hosts.Providers, s.records.Providers = all, all, all
	for name, provider := range all {
		c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
		if name != v1alpha1.DefaultProviderName {
			s.providerObject(name)
			c.Spec.ProviderRef = &v1alpha1.ProviderReference{Name: name}
		}
		s.must(s.Create(s.ctx, c))
		before := c.DeepCopy()
		c.Status.AccountID = account
		if provider.RoleAccount != "" {
			c.Status.AccountID = provider.RoleAccount
		}
		c.Status.QueueURL = "https://sqs." + provider.Region + ".amazonaws.com/" + c.Status.AccountID + "/" + name
		s.must(s.Status().Patch(s.ctx, c, client.MergeFrom(before)))
	}
	return s, all
}

// providerObject writes a QueueProvider, which says nothing but that there is one of that name.
func (s *stage) providerObject(name string) {
	s.Helper()
	o := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.QueueProviderSpec{Namespaces: v1alpha1.ProviderNamespaces{From: v1alpha1.NamespacesFromAll}}}
	s.must(s.Create(s.ctx, o))
	s.Cleanup(func() {
		ctx := context.WithoutCancel(s.ctx)
		s.must(s.Delete(ctx, o))
		s.must(client.IgnoreNotFound(s.Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))))
	})
}

// hostAt is a ReplyHost with a QueueProvider.
func (s *stage) hostAt(name string) {
	s.host(name, func(spec *v1alpha1.ReplyHostSpec) { spec.ProviderRef = &v1alpha1.ProviderReference{Name: name} })
}

// A pod whose queues are in two places is not started with the terms of one: its application has one client.
func TestAPodOfTwoPlacesWaits(t *testing.T) {
	s, _ := newPlaces(t)
	s.host("web", nil)
	s.hostAt("region")
	queues := len(s.sqs.Queues())
	for name, tc := range map[string]struct {
		annotations map[string]string
		waits       []string
	}{
		"regions":   {map[string]string{v1alpha1.AnnotationServes: "default,region"}, []string{"RequestChannel NS/default uses QueueProvider default (region us-east-1, account 000000000000)", "RequestChannel NS/region uses QueueProvider region (region eu-west-1"}},
		"endpoints": {map[string]string{v1alpha1.AnnotationCalls: "default,endpoint"}, []string{"RequestChannel NS/default uses QueueProvider default", "RequestChannel NS/endpoint uses QueueProvider endpoint (region us-east-1, account 000000000000, endpoint https://vpce.example)"}},
		"accounts":  {map[string]string{v1alpha1.AnnotationCalls: "account", v1alpha1.AnnotationServes: "same"}, []string{"RequestChannel NS/account uses QueueProvider account (region us-east-1, account 222222222222)", "RequestChannel NS/same uses QueueProvider same"}},
		"host":      {map[string]string{v1alpha1.AnnotationCalls: "region", v1alpha1.AnnotationReplyHost: "web"}, []string{"RequestChannel NS/region uses QueueProvider region", "ReplyHost NS/web uses QueueProvider default"}},
		"channel":   {map[string]string{v1alpha1.AnnotationCalls: "default", v1alpha1.AnnotationReplyHost: "region"}, []string{"RequestChannel NS/default uses QueueProvider default", "ReplyHost NS/region uses QueueProvider region"}},
	} {
		p := s.pod(name, tc.annotations)
		s.settle()
		s.reread(p)
		if !gated(p) {
			t.Errorf("%s: the pod is started", name)
		}
		waits := p.Annotations[v1alpha1.AnnotationWaitingFor]
		for _, words := range append(tc.waits, "one account and region and at one endpoint") {
			if words = strings.ReplaceAll(words, "NS", s.namespace); !strings.Contains(waits, words) {
				t.Errorf("%s: waits for %q, which does not say %q", name, waits, words)
			}
		}
		if !slices.ContainsFunc(s.said, func(e string) bool {
			return strings.HasPrefix(e, corev1.EventTypeWarning+" "+EventWaiting) && strings.Contains(e, waits)
		}) {
			t.Errorf("%s: no event says so: %q", name, s.said)
		}
	}
	if got := len(s.sqs.Queues()); got != queues {
		t.Errorf("%d reply queues were made for pods that cannot start", got-queues)
	}
}

// A pod that starts without waiting is told of what is in one place, and of the rest by an event.
func TestABestEffortPodOfTwoPlaces(t *testing.T) {
	s, _ := newPlaces(t)
	s.hostAt("region")
	p := s.pod("both", map[string]string{v1alpha1.AnnotationServes: "default,region", v1alpha1.AnnotationReplyHost: "region"}, func(p *corev1.Pod) {
		p.Labels[v1alpha1.LabelInject] = v1alpha1.InjectBestEffort
		p.Spec.SchedulingGates = nil
	})
	s.settle()
	s.reread(p)
	channels, err := injected.ParseChannels(p.Annotations[v1alpha1.AnnotationChannels])
	if err != nil || len(channels) != 1 || channels["default"].URL == "" {
		t.Errorf("the pod is told of %v, %v", channels, err)
	}
	if region := p.Annotations[v1alpha1.AnnotationRegion]; region != "us-east-1" {
		t.Errorf("region %q", region)
	}
	if url := p.Annotations[v1alpha1.AnnotationReplyQueueURL]; url != "" {
		t.Errorf("the pod is told of reply queue %s, which its client cannot reach", url)
	}
	for _, words := range []string{"RequestChannel " + s.namespace + "/region uses", "ReplyHost " + s.namespace + "/region uses"} {
		if !slices.ContainsFunc(s.said, func(e string) bool {
			return strings.HasPrefix(e, corev1.EventTypeWarning+" "+EventWaiting) && strings.Contains(e, words)
		}) {
			t.Errorf("no event says %q: %q", words, s.said)
		}
	}
}

// Providers of one place have one account's queues, whatever their prefixes: a pod may use them together, and a responder
// answers whoever has a reply queue by any of them, also of one that is written later.
func TestAPodOfOnePlaceAndTwoProviders(t *testing.T) {
	s, all := newPlaces(t)
	s.hostAt("same")
	caller := s.pod("caller", map[string]string{v1alpha1.AnnotationCalls: "default", v1alpha1.AnnotationReplyHost: "same"})
	responder := s.pod("responder", map[string]string{v1alpha1.AnnotationServes: "default,same"})
	s.settle()
	s.reread(caller)
	s.reread(responder)
	if gated(caller) || gated(responder) {
		t.Fatalf("the pods wait for %q and %q", caller.Annotations[v1alpha1.AnnotationWaitingFor], responder.Annotations[v1alpha1.AnnotationWaitingFor])
	}
	s.answers(responder, caller, "rq_c_r_", "same_c_r_")

	all["later"] = &queue.Provider{Name: "later", Region: "us-east-1", Prefix: "later", Cluster: "c", ClusterUID: "uid", API: all["same"].API}
	s.providerObject("later")
	s.settle()
	s.reread(responder)
	s.answers(responder, caller, "later_c_r_", "rq_c_r_", "same_c_r_")
}

// answers checks which prefixes of names a responder may answer, and that the caller's reply queue is among them.
func (s *stage) answers(responder, caller *corev1.Pod, want ...string) {
	s.Helper()
	policy, err := injected.ParseReturnAddresses(responder.Annotations[v1alpha1.AnnotationReturnAddresses])
	if err != nil {
		s.Fatalf("return addresses %v, %v", policy, err)
	}
	if !slices.Equal(policy.Prefixes, want) {
		s.Errorf("the responder may answer %v, want %v", policy.Prefixes, want)
	}
	url := caller.Annotations[v1alpha1.AnnotationReplyQueueURL]
	name := url[strings.LastIndexByte(url, '/')+1:]
	if !slices.ContainsFunc(policy.Prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
		s.Errorf("the caller's %q is not among %v", url, policy.Prefixes)
	}
}
