package sqstest

import (
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What a pattern can match is what package path says of names: of any that it matches, the kind is known, and one of the
// shortest that it is said to match is as long as said.
func TestKindsOfPatterns(t *testing.T) {
	part := rapid.SampledFrom([]string{"*", "?", "a", "b", "-", ".", ".fifo", "fo", "[ab]", "[^a]", "[a-z.]", `\a`, `[\]b]`, "/", "ä", " "})
	rapid.Check(t, func(t *rapid.T) {
		pattern := strings.Join(rapid.SliceOfN(part, 1, 6).Draw(t, "pattern"), "")
		kinds, err := kindsOf(pattern)
		if err != nil {
			t.Fatal(err)
		}
		name := rapid.StringMatching(`[ab-]{1,4}`).Draw(t, "name")
		for of, known := range map[string]bool{name: kinds.standard, name + ".fifo": kinds.fifo} {
			if ok, _ := path.Match(pattern, of); ok && !known {
				t.Fatalf("%q matches %q, and %+v", pattern, of, kinds)
			}
		}
		steps, _ := parsePattern(pattern)
		for ending, known := range map[string]bool{"": kinds.standard, ".fifo": kinds.fifo} {
			if known && !someNameMatches(pattern, ending, shortest(steps, ending)) {
				t.Fatalf("%q matches no name of %d characters that ends in %q, and %+v", pattern, shortest(steps, ending), ending, kinds)
			}
		}
	})
}

// someNameMatches tries the names of that length which are made of a few characters, up to four freely.
func someNameMatches(pattern, ending string, length int) bool {
	base := length - len(ending)
	if base > 4 {
		return true // too many to try
	}
	var try func(name string) bool
	try = func(name string) bool {
		if len(name) == base {
			ok, _ := path.Match(pattern, name+ending)
			return ok
		}
		for _, c := range []string{"a", "b", "-", "f", "i", "o"} {
			if try(name + c) {
				return true
			}
		}
		return false
	}
	return try("")
}
