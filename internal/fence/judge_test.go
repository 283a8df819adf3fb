package fence

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	ours := Pinned{Cluster: "ours", Nonces: []string{"n3", "n2", "n1"}, Seen: true, Held: true, Account: "a"}
	fresh := Pinned{Cluster: "ours"}
	with := func(p Pinned, change func(*Pinned)) Pinned { change(&p); return p }
	for _, c := range []struct {
		name   string
		pinned Pinned
		marker Marker
		want   Verdict
	}{
		{"the first start", fresh, Marker{}, Unclaimed},
		{"a marker by another provider of the same account", fresh, Marker{Exists: true, Cluster: "ours"}, Unclaimed},
		{"as it was left", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n3"}, Held},
		{"stopped before the nonce was written", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n2"}, Behind},
		{"an earlier leader's late request", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n1"}, Behind},
		{"the original went on", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n9"}, Conflict},
		{"a copy from before the first claim", fresh, Marker{Exists: true, Cluster: "ours", Nonce: "n1"}, Conflict},
		{"the marker was deleted", ours, Marker{}, Lost},
		{"its tag was removed", ours, Marker{Exists: true, Cluster: "ours"}, Lost},
		{"it was deleted, and this process never saw it", with(ours, func(p *Pinned) { p.Held = false }), Marker{}, Abandoned},
		{"its tag was removed, and this process never saw it", with(ours, func(p *Pinned) { p.Held = false }), Marker{Exists: true, Cluster: "ours"}, Abandoned},
		{"stopped before the marker was made", with(ours, func(p *Pinned) { p.Seen, p.Held = false, false }), Marker{}, Unclaimed},
		{"a human says that it was abandoned", with(ours, func(p *Pinned) { p.Contested, p.ClaimAbandoned = true, true }), Marker{}, Given},
		{"abandoned by a human's word, but it is not", with(ours, func(p *Pinned) { p.Contested, p.ClaimAbandoned = true, true }), Marker{Exists: true, Cluster: "ours", Nonce: "n9"}, Conflict},
		{"once contested, and gone", with(ours, func(p *Pinned) { p.Contested = true }), Marker{}, Conflict},
		{"once contested, without a nonce ever, and gone", with(fresh, func(p *Pinned) { p.Contested = true }), Marker{}, Conflict},
		{"once contested, and its own nonce again", with(ours, func(p *Pinned) { p.Contested = true }), Marker{Exists: true, Cluster: "ours", Nonce: "n3"}, Conflict},
		{"once contested, and what was confirmed long ago", with(ours, func(p *Pinned) { p.Contested, p.Confirmed = true, []string{"n8"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n8"}, Conflict},
		{"once contested, and a human spoke", with(ours, func(p *Pinned) { p.Contested, p.Spoken = true, []string{"n9"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n9"}, Given},
		{"another cluster's nonce for a provider that shares it", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n3", Strange: []string{"r"}}, Rival},
		{"the same, where this provider has claimed nothing", fresh, Marker{Exists: true, Cluster: "ours", Strange: []string{"r"}}, Rival},
		{"the same, when the marker is gone", with(ours, func(p *Pinned) { p.ClaimAbandoned = true }), Marker{Strange: []string{"r"}}, Rival},
		{"a human spoke of it", with(ours, func(p *Pinned) { p.Spoken = []string{"r"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n3", Strange: []string{"r"}}, Held},
		{"a human spoke of one of two", with(ours, func(p *Pinned) { p.Spoken = []string{"r"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n3", Strange: []string{"r", "s"}}, Rival},
		{"a human spoke of it alone, and its own is another's too", with(ours, func(p *Pinned) { p.Spoken = []string{"r"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n9", Strange: []string{"r"}}, Conflict},
		{"another cluster's marker, given, with nonces of other providers", with(fresh, func(p *Pinned) { p.AdoptFrom = "theirs" }), Marker{Exists: true, Cluster: "theirs", Nonce: "t1", Strange: []string{"t2"}}, Given},
		{"claimed for another provider, and not seen", with(fresh, func(p *Pinned) { p.Beside = true }), Marker{}, Beside},
		{"claimed for another provider, but its own is there", with(ours, func(p *Pinned) { p.Beside = true }), Marker{Exists: true, Cluster: "ours", Nonce: "n3"}, Held},
		{"claimed for another provider, and a human says that it was abandoned", with(fresh, func(p *Pinned) { p.Beside, p.ClaimAbandoned = true, true }), Marker{}, Given},
		{"in another account", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n3", Account: "b"}, Elsewhere},
		{"in its account", ours, Marker{Exists: true, Cluster: "ours", Nonce: "n3", Account: "a"}, Held},
		{"somebody else's queue of that name", ours, Marker{Exists: true}, Conflict},
		{"another cluster's", fresh, Marker{Exists: true, Cluster: "theirs", Nonce: "t1"}, Conflict},
		{"another cluster's, given to this one", with(fresh, func(p *Pinned) { p.AdoptFrom = "theirs" }), Marker{Exists: true, Cluster: "theirs", Nonce: "t1"}, Given},
		{"another cluster's, when a third was given", with(fresh, func(p *Pinned) { p.AdoptFrom = "third" }), Marker{Exists: true, Cluster: "theirs", Nonce: "t1"}, Conflict},
		{"nobody's, when nobody's was given", with(fresh, func(p *Pinned) { p.AdoptFrom = "" }), Marker{Exists: true}, Conflict},
		{"a human declared the other's nonce void", with(ours, func(p *Pinned) { p.Confirmed = []string{"n9"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n9"}, Given},
		{"the other went on since", with(ours, func(p *Pinned) { p.Confirmed = []string{"n9"} }), Marker{Exists: true, Cluster: "ours", Nonce: "n10"}, Conflict},
	} {
		if got := Judge(c.pinned, c.marker); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestACopyDeletesNothing has an original and any number of copies of it take turns at any moment, each crashing
// between its two writes or not, while somebody removes the marker, or its tag, now and then. A copy is taken at least one
// change of the nonce before it looks for the first time, which the leader's lease sees to. No copy ever writes.
func TestACopyDeletesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var marker Marker
		n := 0
		turn := func(p *Pinned, crashes bool) Verdict {
			v := Judge(*p, marker)
			p.Held = p.Held || v.MayDelete()
			p.Seen = p.Seen || v.MayDelete()
			p.Contested = p.Contested || v == Conflict
			if v == Conflict || v == Abandoned {
				return v
			}
			if v != Behind && v != Lost {
				n++
				p.Nonces = Next(p.Nonces, fmt.Sprint("n", n))
			}
			if !crashes {
				marker = Marker{Exists: true, Cluster: "ours", Nonce: p.Nonces[0]}
			}
			return v
		}
		original := &Pinned{Cluster: "ours"}
		turn(original, false)
		turn(original, false)
		var copies []*Pinned
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch action := rapid.IntRange(0, 4).Draw(t, "action"); {
			case action == 0:
				c := *original
				c.Nonces, c.Held = slices.Clone(c.Nonces), false
				copies = append(copies, &c)
				for marker.Nonce == "" || slices.Contains(c.Nonces, marker.Nonce) {
					turn(original, false) // the original lives
				}
			case action == 1 && len(copies) > 0:
				c := copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				if v := turn(c, rapid.Bool().Draw(t, "crash")); v != Conflict && v != Abandoned {
					t.Fatalf("a copy with %v met the marker %v and said %s", c, marker, v)
				}
			case action == 2 && marker.Exists:
				marker = Marker{}
				if rapid.Bool().Draw(t, "only its tag") {
					marker = Marker{Exists: true, Cluster: "ours"}
				}
			default:
				gone := marker.Nonce == ""
				if v := turn(original, rapid.Bool().Draw(t, "crash")); !v.MayDelete() && (!gone || v != Lost) {
					t.Fatalf("the original with %v met the marker %v and said %s", original, marker, v)
				}
			}
		}
	})
}
