package controller

import (
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	fluxconditions "github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// checkStatuses holds the conditions of every ReplyHost and ReplyQueue on the stage against Flux's rules, and against
// what kstatus makes of them.
func (s *stage) checkStatuses() {
	s.Helper()
	var hosts v1alpha1.ReplyHostList
	s.must(s.List(s.ctx, &hosts, client.InNamespace(s.namespace)))
	for i := range hosts.Items {
		s.checkStatus(&hosts.Items[i])
	}
	var records v1alpha1.ReplyQueueList
	s.must(s.List(s.ctx, &records, client.InNamespace(s.namespace)))
	for i := range records.Items {
		s.checkStatus(&records.Items[i])
	}
}

func (s *stage) checkStatus(o fluxconditions.Getter) {
	s.Helper()
	checker := check.NewChecker(s, &check.Conditions{
		NegativePolarity: []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling},
		PositivePolarity: []string{v1alpha1.ConditionReady},
	})
	fail, warn := checker.Check(s.ctx, o)
	if fail != nil || warn != nil {
		s.Errorf("%T %s: %v; %v: %+v", o, o.GetName(), fail, warn, o.GetConditions())
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	s.must(err)
	result, err := status.Compute(&unstructured.Unstructured{Object: object})
	s.must(err)
	want := status.InProgressStatus
	switch {
	case o.GetDeletionTimestamp() != nil:
		want = status.TerminatingStatus
	case meta.IsStatusConditionTrue(o.GetConditions(), v1alpha1.ConditionReady):
		want = status.CurrentStatus
	case meta.IsStatusConditionTrue(o.GetConditions(), v1alpha1.ConditionStalled):
		want = status.FailedStatus
	}
	if result.Status != want {
		s.Errorf("%T %s: kstatus says %s, want %s: %s", o, o.GetName(), result.Status, want, result.Message)
	}
}
