package controller

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// A QueueProvider that is being deleted takes no new ReplyHosts, and goes on serving those that have it.
func TestAProviderThatGoesTakesNoNewReplyHost(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.channel("login")
	provider := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "p-" + s.namespace}}
	provider.Spec.Namespaces.From = v1alpha1.NamespacesFromAll
	s.must(s.Create(s.ctx, provider))
	of := providersOf{s.pods.Providers, provider.Name}
	s.pods.Providers, s.hosts.Providers, s.records.Providers = of, of, of
	using := func(h *v1alpha1.ReplyHostSpec) { h.ProviderRef = &v1alpha1.ProviderReference{Name: provider.Name} }
	early := s.host("early", using)
	s.settle()
	s.reread(provider)
	if !controllerutil.ContainsFinalizer(provider, v1alpha1.FinalizerQueueProvider) {
		t.Fatal("a ReplyHost is admitted before its QueueProvider is held")
	}
	s.must(s.Delete(s.ctx, provider))
	late := s.host("late", using)
	refused := s.pod("refused", map[string]string{v1alpha1.AnnotationReplyHost: "late"})
	served := s.pod("served", map[string]string{v1alpha1.AnnotationReplyHost: "early"})
	s.settle()
	s.reread(late)
	if conditions.Reason(late, v1alpha1.ConditionReconciling) != v1alpha1.ReasonWaitingForProvider || controllerutil.ContainsFinalizer(late, v1alpha1.FinalizerReplyHost) {
		t.Errorf("finalizers %v, conditions %v; want it to wait, without a hold", late.Finalizers, late.Status.Conditions)
	}
	s.reread(early)
	if !conditions.Is(early, v1alpha1.ConditionReady, metav1.ConditionTrue) {
		t.Errorf("conditions %v of a ReplyHost that has the provider", early.Status.Conditions)
	}
	if n := len(s.recordsOf(refused)); n != 0 {
		t.Errorf("%d records by a ReplyHost that was not admitted", n)
	}
	if n := len(s.recordsOf(served)); n != 1 {
		t.Errorf("%d records for a pod of a ReplyHost that has the provider, want 1", n)
	}
	s.reread(provider)
	before := provider.DeepCopy()
	provider.Finalizers = nil
	s.must(s.Patch(s.ctx, provider, client.MergeFrom(before)))
}

// providersOf has one more provider, which is the first one by another name.
type providersOf struct {
	queue.Providers
	name string
}

func (p providersOf) Get(ctx context.Context, name, namespace string) (*queue.Provider, error) {
	if name == p.name {
		name = v1alpha1.DefaultProviderName
	}
	return p.Providers.Get(ctx, name, namespace)
}

func (p providersOf) ForDeletion(ctx context.Context, name string) (*queue.Provider, error) {
	return p.Get(ctx, name, "")
}
