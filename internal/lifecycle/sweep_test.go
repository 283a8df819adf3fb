package lifecycle

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

func TestSweep(t *testing.T) {
	terms := SweepTerms{Cluster: "ours", Grace: 15 * time.Minute}
	ripe := Orphan{NameComputed: true, Kind: v1alpha1.TagKindReply, Cluster: "ours", Passes: 4, Unrecorded: 15 * time.Minute, Unread: 15 * time.Minute}
	for _, c := range []struct {
		name   string
		change func(*Orphan, *SweepTerms)
		want   SweepVerdict
	}{
		{"an orphan", func(*Orphan, *SweepTerms) {}, SweepDelete},
		{"a name that is not computed", func(o *Orphan, _ *SweepTerms) { o.NameComputed = false }, SweepNotOurs},
		{"a request queue", func(o *Orphan, _ *SweepTerms) { o.Kind = v1alpha1.TagKindRequest }, SweepNotOurs},
		{"a dead-letter queue", func(o *Orphan, _ *SweepTerms) { o.Kind = v1alpha1.TagKindDeadLetter }, SweepNotOurs},
		{"no kind", func(o *Orphan, _ *SweepTerms) { o.Kind = "" }, SweepNotOurs},
		{"another cluster's", func(o *Orphan, _ *SweepTerms) { o.Cluster = "theirs" }, SweepNotOurs},
		{"nobody's", func(o *Orphan, _ *SweepTerms) { o.Cluster = "" }, SweepNotOurs},
		{"nobody's, where nobody is named", func(o *Orphan, s *SweepTerms) { o.Cluster, s.Cluster = "", "" }, SweepNotOurs},
		{"a former cluster's", func(o *Orphan, s *SweepTerms) { o.Cluster, s.Former = "theirs", "theirs" }, SweepDelete},
		{"a record", func(o *Orphan, _ *SweepTerms) { o.Recorded = true }, SweepRecorded},
		{"a living pod", func(o *Orphan, _ *SweepTerms) { o.PodLives = true }, SweepPodLives},
		{"found once", func(o *Orphan, _ *SweepTerms) { o.Passes = 1 }, SweepYoung},
		{"a moment too young", func(o *Orphan, _ *SweepTerms) { o.Unrecorded -= time.Nanosecond }, SweepYoung},
		{"a pod a moment too long", func(o *Orphan, _ *SweepTerms) { o.Unread -= time.Nanosecond }, SweepYoung},
	} {
		o, s := ripe, terms
		c.change(&o, &s)
		if got := Sweep(o, s); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSweepDeletesOnlyWhatEverythingSpeaksFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"", "ours", "theirs", "former"})
		o := Orphan{
			NameComputed: rapid.Bool().Draw(t, "computed"),
			Kind:         rapid.SampledFrom([]string{"", v1alpha1.TagKindReply, v1alpha1.TagKindRequest, v1alpha1.TagKindDeadLetter}).Draw(t, "kind"),
			Cluster:      names.Draw(t, "cluster"),
			Recorded:     rapid.Bool().Draw(t, "recorded"),
			PodLives:     rapid.Bool().Draw(t, "pod"),
			Passes:       rapid.IntRange(0, 3).Draw(t, "passes"),
			Unrecorded:   time.Duration(rapid.IntRange(0, 20).Draw(t, "minutes")) * time.Minute,
			Unread:       time.Duration(rapid.IntRange(0, 20).Draw(t, "minutes unread")) * time.Minute,
		}
		s := SweepTerms{Cluster: "ours", Former: rapid.SampledFrom([]string{"", "former"}).Draw(t, "former"), Grace: 15 * time.Minute}
		speaks := o.NameComputed && o.Kind == v1alpha1.TagKindReply && !o.Recorded && !o.PodLives && o.Passes >= 2 &&
			o.Unrecorded >= s.Grace && o.Unread >= s.Grace && (o.Cluster == "ours" || o.Cluster == "former" && s.Former == "former")
		if got := Sweep(o, s) == SweepDelete; got != speaks {
			t.Fatalf("deletes: %v, want %v", got, speaks)
		}
	})
}

func TestBraked(t *testing.T) {
	for _, c := range []struct {
		total, orphans, allowed int
		want                    bool
	}{
		{0, 0, 0, false}, {10, 10, 0, false}, {11, 11, 0, true}, {55, 11, 0, false}, {54, 11, 0, true},
		{1000, 200, 0, false}, {1000, 201, 0, true}, {1000, 201, 200, true}, {1000, 201, 201, false}, {1000, 201, 500, false},
	} {
		if got := Braked(c.total, c.orphans, c.allowed); got != c.want {
			t.Errorf("%d of %d with %d allowed: braked is %v, want %v", c.orphans, c.total, c.allowed, got, c.want)
		}
	}
}

func TestFindingsForgetWhatOneSweepDidNotFind(t *testing.T) {
	var f Findings
	f.See([]string{"a", "b", "b"}, now)
	got := f.See([]string{"b", "c"}, now.Add(time.Minute))
	if len(got) != 2 || got[0] != (Finding{"b", 2, now}) || got[1] != (Finding{"c", 1, now.Add(time.Minute)}) {
		t.Errorf("got %v", got)
	}
	if got := f.See([]string{"a"}, now.Add(2*time.Minute)); len(got) != 1 || got[0].Passes != 1 {
		t.Errorf("a was away for one sweep and is counted on: %v", got)
	}
}
