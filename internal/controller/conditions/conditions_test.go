package conditions

import (
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Whatever is set in whatever order: Ready is there, Reconciling and Stalled are there only while true and never
// together nor beside Ready, and what is told to have changed is what changed.
func TestRulesHoldInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := []Object{&v1alpha1.RequestChannel{}, &v1alpha1.ReplyHost{}, &v1alpha1.ReplyQueue{}, &v1alpha1.QueueProvider{}}
		o := rapid.SampledFrom(kinds).Draw(t, "kind")
		o.SetGeneration(1)
		Reconciling(o, "First", "first")
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 5), 1, 20).Draw(t, "steps") {
			before := append([]metav1.Condition(nil), o.GetConditions()...)
			generation := ObservedGeneration(o)
			reason := rapid.SampledFrom([]string{"A", "B"}).Draw(t, "reason")
			var changed bool
			switch step {
			case 0:
				changed = Ready(o, reason, "m")
			case 1:
				changed = Reconciling(o, reason, "m")
			case 2:
				changed = Stalled(o, reason, "m")
			case 3:
				changed = Set(o, v1alpha1.ConditionDrifted, metav1.ConditionTrue, reason, "m")
			case 4:
				changed = Remove(o, v1alpha1.ConditionDrifted)
			case 5:
				o.SetGeneration(o.GetGeneration() + 1)
				continue
			}
			if differs := !same(before, o.GetConditions()) || generation != ObservedGeneration(o); changed != differs {
				t.Fatalf("told %t, changed %t", changed, differs)
			}
			check(t, o, step)
		}
	})
}

func check(t *rapid.T, o Object, step int) {
	ready := meta.FindStatusCondition(o.GetConditions(), v1alpha1.ConditionReady)
	reconciling := meta.FindStatusCondition(o.GetConditions(), v1alpha1.ConditionReconciling)
	stalled := meta.FindStatusCondition(o.GetConditions(), v1alpha1.ConditionStalled)
	if ready == nil {
		t.Fatal("Ready is missing")
	}
	if reconciling != nil && stalled != nil {
		t.Fatal("Reconciling and Stalled at once")
	}
	for _, abnormal := range []*metav1.Condition{reconciling, stalled} {
		if abnormal != nil && (abnormal.Status != metav1.ConditionTrue || ready.Status != metav1.ConditionFalse || ready.Reason != abnormal.Reason) {
			t.Fatalf("Ready is %+v beside %+v", ready, abnormal)
		}
	}
	if step > 2 {
		return
	}
	if ObservedGeneration(o) != o.GetGeneration() {
		t.Fatalf("judged, and observed %d of %d", ObservedGeneration(o), o.GetGeneration())
	}
	for _, c := range o.GetConditions() {
		if c.Type == v1alpha1.ConditionDrifted && step > 0 {
			continue // Nobody judged that; what is Ready is so in every part.
		}
		if c.ObservedGeneration != o.GetGeneration() {
			t.Fatalf("%s was judged by generation %d of %d", c.Type, c.ObservedGeneration, o.GetGeneration())
		}
	}
}

func same(a, b []metav1.Condition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestIsAndReason(t *testing.T) {
	o := &v1alpha1.QueueProvider{}
	if !Is(o, v1alpha1.ConditionReady, metav1.ConditionUnknown) || Is(o, v1alpha1.ConditionReady, metav1.ConditionFalse) || Reason(o, v1alpha1.ConditionReady) != "" {
		t.Error("a condition that is not there is Unknown, for no reason")
	}
	Ready(o, "Here", "m")
	if !Is(o, v1alpha1.ConditionReady, metav1.ConditionTrue) || Reason(o, v1alpha1.ConditionReady) != "Here" {
		t.Error("a condition that is there is not seen")
	}
}

func TestMessagesAreCutBetweenCharacters(t *testing.T) {
	o := &v1alpha1.QueueProvider{}
	Stalled(o, "Long", strings.Repeat("ä", 2000))
	message := meta.FindStatusCondition(o.GetConditions(), v1alpha1.ConditionStalled).Message
	if len(message) > longestMessage || !utf8.ValidString(message) || !strings.HasSuffix(message, "ä…") {
		t.Errorf("%d bytes, ends in %q", len(message), message[len(message)-5:])
	}
	if Stalled(o, "Long", strings.Repeat("ä", 2001)) {
		t.Error("what is cut off changed something")
	}
}

// A condition that nobody set for a generation does not claim to tell of it, until the object is Ready.
func TestOnlyWhatWasJudgedHasTheGeneration(t *testing.T) {
	o := &v1alpha1.RequestChannel{}
	o.SetGeneration(1)
	Set(o, v1alpha1.ConditionQueueReady, metav1.ConditionTrue, "Available", "m")
	for _, judge := range []func(Object, string, string) bool{Reconciling, Stalled} {
		o.SetGeneration(o.GetGeneration() + 1)
		if judge(o, "Why", "m"); Judged(o, v1alpha1.ConditionQueueReady) || !Judged(o, v1alpha1.ConditionReady) {
			t.Errorf("%+v", o.Status.Conditions)
		}
	}
	if Set(o, v1alpha1.ConditionQueueReady, metav1.ConditionTrue, "Available", "m"); !Judged(o, v1alpha1.ConditionQueueReady) {
		t.Errorf("judged just now: %+v", o.Status.Conditions)
	}
	o.SetGeneration(o.GetGeneration() + 1)
	if Ready(o, "Available", "m"); !Judged(o, v1alpha1.ConditionQueueReady) {
		t.Errorf("Ready: %+v", o.Status.Conditions)
	}
	if Judged(o, v1alpha1.ConditionDrifted) {
		t.Error("there is no such condition")
	}
}
