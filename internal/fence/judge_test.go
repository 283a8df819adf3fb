package fence

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestJudge(t *testing.T) {
	ours := Pinned{Cluster: "ours", Nonces: []string{"n3", "n2", "n1"}}
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
		{"as it was left", ours, Marker{true, "ours", "n3"}, Held},
		{"stopped before the nonce was written", ours, Marker{true, "ours", "n2"}, Behind},
		{"an earlier leader's late request", ours, Marker{true, "ours", "n1"}, Behind},
		{"the original went on", ours, Marker{true, "ours", "n9"}, Conflict},
		{"a copy from before the first claim", fresh, Marker{true, "ours", "n1"}, Conflict},
		{"the marker was deleted", ours, Marker{}, Lost},
		{"its tag was removed", ours, Marker{Exists: true, Cluster: "ours"}, Lost},
		{"somebody else's queue of that name", ours, Marker{Exists: true}, Conflict},
		{"another cluster's", fresh, Marker{true, "theirs", "t1"}, Conflict},
		{"another cluster's, given to this one", with(fresh, func(p *Pinned) { p.AdoptFrom = "theirs" }), Marker{true, "theirs", "t1"}, Given},
		{"another cluster's, when a third was given", with(fresh, func(p *Pinned) { p.AdoptFrom = "third" }), Marker{true, "theirs", "t1"}, Conflict},
		{"nobody's, when nobody's was given", with(fresh, func(p *Pinned) { p.AdoptFrom = "" }), Marker{Exists: true}, Conflict},
		{"a human declared the other's nonce void", with(ours, func(p *Pinned) { p.Confirmed = []string{"n9"} }), Marker{true, "ours", "n9"}, Given},
		{"the other went on since", with(ours, func(p *Pinned) { p.Confirmed = []string{"n9"} }), Marker{true, "ours", "n10"}, Conflict},
	} {
		if got := Judge(c.pinned, c.marker); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestACopyDeletesNothing has an original and any number of copies of it take turns at any moment, each crashing
// between its two writes or not. A copy is taken at least one change of the nonce before it looks for the first time,
// which the leader's lease sees to.
func TestACopyDeletesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type cluster struct {
			pinned Pinned
		}
		var marker Marker
		n := 0
		turn := func(c *cluster, crashes bool) Verdict {
			v := Judge(c.pinned, marker)
			if v == Conflict {
				return v
			}
			if v != Behind {
				n++
				c.pinned.Nonces = Next(c.pinned.Nonces, fmt.Sprint("n", n))
			}
			if !crashes {
				marker = Marker{Exists: true, Cluster: "ours", Nonce: c.pinned.Nonces[0]}
			}
			return v
		}
		original := &cluster{pinned: Pinned{Cluster: "ours"}}
		turn(original, false)
		var copies []*cluster
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch action := rapid.IntRange(0, 3).Draw(t, "action"); {
			case action == 0:
				c := &cluster{pinned: original.pinned}
				c.pinned.Nonces = slices.Clone(c.pinned.Nonces)
				copies = append(copies, c)
				for marker.Nonce == c.pinned.Nonces[0] || slices.Contains(c.pinned.Nonces, marker.Nonce) {
					turn(original, false) // the original lives
				}
			case action == 1 && len(copies) > 0:
				c := copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				if v := turn(c, rapid.Bool().Draw(t, "crash")); v != Conflict {
					t.Fatalf("a copy with %v met the marker %v and said %s", c.pinned.Nonces, marker, v)
				}
			default:
				if v := turn(original, rapid.Bool().Draw(t, "crash")); !v.MayDelete() {
					t.Fatalf("the original with %v met the marker %v and said %s", original.pinned.Nonces, marker, v)
				}
			}
		}
	})
}
