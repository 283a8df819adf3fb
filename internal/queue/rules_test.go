package queue

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// unsureOfAll is a queue of which it is not known what was set, for a while still.
func unsureOfAll(observed Observed) Observed {
	observed.unsure = func(string) time.Duration { return time.Second }
	observed.unsureTag = func(string) time.Duration { return 2 * time.Second }
	return observed
}

// SQS refuses the attributes of FIFO queues for standard queues, so they are never sent there, not even where it is not known
// what they were last set to.
func TestNoFIFOAttributeIsSentToAStandardQueue(t *testing.T) {
	owner := Owner{Cluster: "c", Kind: v1alpha1.TagKindRequest, Namespace: "shop", Name: "login"}
	for _, fifo := range []bool{false, true} {
		desired := Desired{Name: "login", Owner: owner}
		observed := Observed{Exists: true, Attributes: map[string]string{}, Tags: owner.Tags()}
		if fifo {
			desired.Fixed = map[string]string{FIFOQueue: "true"}
			for name := range fifoOnly {
				observed.Attributes[name] = defaults[name]
			}
		}
		plan := MakePlan(desired, Remembered{Attributes: Restorable()}, unsureOfAll(observed), Terms{})
		for name := range fifoOnly {
			if _, sent := plan.Attributes[name]; sent != fifo {
				t.Errorf("FIFO %v: %s is sent: %v", fifo, name, sent)
			}
		}
	}
}

// A plan for a queue that was as asked for is settled in all of its parts: what SQS may merely not show yet is left out, and
// what it surely shows stays.
func TestSettledLeavesOutWhatIsNotKnown(t *testing.T) {
	plan := Plan{Attributes: map[string]string{DelaySeconds: "5"}, Tags: map[string]string{"cost": "1"}, Untag: []string{"old"}}
	settled, hidden := plan.Settled(unsureOfAll(Observed{Exists: true}))
	if !settled.Empty() || hidden != time.Second {
		t.Errorf("%+v is left for %v, want nothing, for the shortest time", settled, hidden)
	}
	settled, hidden = plan.Settled(Observed{Exists: true})
	if !maps.Equal(settled.Attributes, plan.Attributes) || !maps.Equal(settled.Tags, plan.Tags) || !slices.Equal(settled.Untag, plan.Untag) || hidden != 0 {
		t.Errorf("%+v, %v; want all of the plan at once", settled, hidden)
	}
}

// What a queue is said to have in place is what it has, and not all that was asked for.
func TestInPlaceIsWhatIsThere(t *testing.T) {
	desired := Desired{Attributes: map[string]string{DelaySeconds: "5", MessageRetentionPeriod: "60"}}
	got := InPlace(desired, Observed{Exists: true, Attributes: map[string]string{DelaySeconds: "5", MessageRetentionPeriod: "345600"}})
	if want := map[string]string{DelaySeconds: "5"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if len(desired.Attributes) != 2 {
		t.Error("what was asked for has changed")
	}
}

// A tag without a value is set where it is missing, and left where it is.
func TestTagsWithoutAValueAreTags(t *testing.T) {
	owner := Owner{Cluster: "c", Kind: v1alpha1.TagKindRequest, Namespace: "shop", Name: "login"}
	desired := Desired{Owner: owner, Tags: map[string]string{"urgent": ""}}
	observed := Observed{Exists: true, Tags: owner.Tags()}
	if plan := MakePlan(desired, Remembered{}, observed, Terms{}); !maps.Equal(plan.Tags, desired.Tags) {
		t.Errorf("missing: %+v", plan)
	}
	observed.Tags["urgent"] = ""
	if plan := MakePlan(desired, Remembered{}, observed, Terms{}); !plan.Empty() {
		t.Errorf("there: %+v", plan)
	}
	if plan := MakePlan(Desired{Owner: owner}, Remembered{Tags: []string{"urgent"}}, observed, Terms{}); !slices.Equal(plan.Untag, []string{"urgent"}) {
		t.Errorf("no longer asked for: %+v", plan)
	}
}
