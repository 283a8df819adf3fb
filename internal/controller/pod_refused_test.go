package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// A quota on ReplyQueues, or a policy of the cluster, refuses a pod's record: the pod says so, and gets it once it is let.
func TestARecordThatIsRefusedIsToldToThePod(t *testing.T) {
	t.Parallel()
	s := newReadyStage(t)
	s.settle()
	refusal := apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("replyqueues").GroupResource(), "web-1", errors.New("exceeded quota"))
	s.intercept = func(verb string, o client.Object) error {
		if _, ok := o.(*v1alpha1.ReplyQueue); ok && verb == "create" {
			return refusal
		}
		return nil
	}
	p := s.pod("web-1", caller())
	for range 3 {
		result, err := s.pods.Reconcile(s.ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)})
		if err != nil || result.RequeueAfter != time.Minute {
			t.Fatalf("error %v, again after %v; want a look every minute", err, result.RequeueAfter)
		}
	}
	s.drainEvents()
	s.reread(p)
	if !gated(p) || !strings.Contains(p.Annotations[v1alpha1.AnnotationWaitingFor], "exceeded quota") || s.heardEvent("exceeded quota") != 1 {
		t.Errorf("gated %v, waiting for %q, said %v", gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor], s.said)
	}
	s.intercept = nil
	s.settle()
	if s.reread(p); gated(p) || p.Annotations[v1alpha1.AnnotationWaitingFor] != "" {
		t.Errorf("gated %v, waiting for %q once it is let", gated(p), p.Annotations[v1alpha1.AnnotationWaitingFor])
	}
}
