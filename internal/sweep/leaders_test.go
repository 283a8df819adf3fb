package sweep_test

import (
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A sweep is held, and the leader changes: it is said all the time, and told of by no second event; a human's word stays until
// the new one can judge whether it is needed, and is not used up for nothing.
func TestANewLeaderGoesOnSayingWhatIsHeld(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	orphans := make([]string, 30)
	for i := range orphans {
		orphans[i] = s.orphan()
	}
	s.passes(3)
	held := s.status()
	if !strings.Contains(held, v1alpha1.ConditionSweepHeld) {
		t.Fatalf("not held: %q", held)
	}
	for range 3 {
		s.restart()
		for range 3 {
			s.fence.Round(s.ctx)
			if said := s.status(); said != held {
				t.Fatalf("a new leader says %q", said)
			}
			if s.trouble(v1alpha1.ConditionSweepHeld) == "" {
				t.Fatal("no condition")
			}
		}
		s.passes(1)
		if said := s.status(); said != held {
			t.Fatalf("after its first sweep it says %q", said)
		}
	}
	s.passes(2)
	if said := s.status(); said != held {
		t.Errorf("when it can judge it says %q", said)
	}
	if n := s.heard(v1alpha1.ConditionSweepHeld); n != 0 {
		t.Errorf("%d events of what was told", n)
	}
	s.restart()
	s.annotate(v1alpha1.AnnotationAllowSweep, s.provider.Name+"=30")
	s.passes(1)
	for _, name := range orphans {
		s.expect(name, true, "found for the first time by this leader")
	}
	s.passes(1)
	for _, name := range orphans {
		s.expect(name, false, "a human allowed that number")
	}
	if said := s.status(); said != "" {
		t.Errorf("it still says %q", said)
	}
	if left := s.configMap().Annotations[v1alpha1.AnnotationAllowSweep]; left != "" {
		t.Errorf("the allowance %q stays open", left)
	}
}

// What a new leader does not find any more it un-says, once it has looked for long enough.
func TestANewLeaderUnsaysWhatIsOver(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	orphans := make([]string, 30)
	for i := range orphans {
		orphans[i] = s.orphan()
	}
	s.passes(3)
	for _, name := range orphans {
		s.deleteInSQS(name)
	}
	s.restart()
	s.passes(1)
	if !strings.Contains(s.status(), v1alpha1.ConditionSweepHeld) {
		t.Error("un-said before it can be judged")
	}
	s.passes(1)
	if said := s.status(); said != "" {
		t.Errorf("it still says %q", said)
	}
}
