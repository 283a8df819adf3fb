package fence

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// What the leader before said of its sweeps is gone on with, but for what this process has judged, and what the fence finds.
func TestInherit(t *testing.T) {
	t.Parallel()
	before := &store{}
	before.trouble("default", v1alpha1.ConditionSweepHeld, "30 of 31\nand, provider of more: lines")
	before.trouble("eu.west", v1alpha1.ConditionSweepIncomplete, "AccessDenied: no, provider x: y")
	before.trouble("eu.west", v1alpha1.ConditionIdentityConflict, "a copy\nof another")
	before.trouble("eu.west", v1alpha1.ConditionQueuesMissing, "12 of 20")
	i := &identity{before: &corev1.ConfigMap{Data: map[string]string{keyStatus: before.status()}}}

	after := &store{}
	after.trouble("eu.west", v1alpha1.ConditionQueuesMissing, "")
	if told := after.inherit(i); len(told) != 2 {
		t.Errorf("told of %v, want two", told)
	}
	want := map[string]string{
		"default SweepHeld":       "30 of 31\nand, provider of more: lines",
		"eu.west SweepIncomplete": "AccessDenied: no, provider x: y",
	}
	if !maps.Equal(after.troubles, want) {
		t.Errorf("inherited %q", after.troubles)
	}
	if after.trouble("default", v1alpha1.ConditionSweepHeld, want["default SweepHeld"]) {
		t.Error("what was said before is news")
	}
	if !after.trouble("default", v1alpha1.ConditionSweepHeld, "") {
		t.Error("that it is over is no news")
	}
	if told := after.inherit(i); len(told) != 0 || after.troubleOf("default", v1alpha1.ConditionSweepHeld) != "" {
		t.Errorf("inherited again: %v", told)
	}
}
