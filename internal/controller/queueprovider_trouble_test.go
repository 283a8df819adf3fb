package controller

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// Whatever brake holds, and whatever sweeps cannot do, stands on the QueueProvider as long as it lasts.
func TestTroublesStandOnTheirProvider(t *testing.T) {
	troubles := map[string]string{}
	r := &QueueProviderReconciler{Trouble: func(provider, what string) string {
		if provider != "eu" {
			t.Errorf("asked of %q", provider)
		}
		return troubles[what]
	}}
	provider := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "eu"}}
	for _, condition := range []string{
		v1alpha1.ConditionIdentityConflict, v1alpha1.ConditionSweepHeld, v1alpha1.ConditionForeignSweepHeld,
		v1alpha1.ConditionQueuesMissing, v1alpha1.ConditionSweepIncomplete,
	} {
		troubles[condition] = "why"
		r.showTrouble(provider)
		if !conditions.Is(provider, condition, metav1.ConditionTrue) || conditions.Reason(provider, condition) == "" || len(provider.Status.Conditions) != 1 {
			t.Errorf("%s: the conditions are %v", condition, provider.Status.Conditions)
		}
		delete(troubles, condition)
		if r.showTrouble(provider); len(provider.Status.Conditions) != 0 {
			t.Errorf("%s is over, and the conditions are %v", condition, provider.Status.Conditions)
		}
	}
}
