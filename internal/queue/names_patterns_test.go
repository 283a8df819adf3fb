package queue

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What the API server accepts as a pattern with ${namespace} gives no name to two namespaces. The rule is the CRD's own.
func TestPatternsKeepNamespacesApart(t *testing.T) {
	crd, err := os.ReadFile("../../config/crd/bases/replyqueue.dev_queueproviders.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`!p\.matches\('+([^']+)'+\)`).FindSubmatch(regexp.MustCompile(`\s+`).ReplaceAll(crd, nil))
	if rule == nil {
		t.Fatal("the CRD has no rule on patterns any more")
	}
	refused := regexp.MustCompile(string(rule[1]))
	shared := 0
	check := func(t *rapid.T) {
		pattern := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"${namespace}", "*", "_", "-", "a", "b"}), 1, 6).Draw(t, "pattern"), "")
		one := rapid.StringMatching(`[ab](-?[ab]){0,2}`).Draw(t, "one")
		other := rapid.StringMatching(`[ab](-?[ab]){0,2}`).Draw(t, "other")
		if !strings.Contains(pattern, "${namespace}") || one == other {
			return
		}
		// A name that the one may have, with something in the place of each star.
		name := strings.ReplaceAll(pattern, "${namespace}", one)
		for strings.Contains(name, "*") {
			name = strings.Replace(name, "*", rapid.StringMatching(`[ab_-]{0,4}`).Draw(t, "star"), 1)
		}
		p := &Provider{Cluster: "c", AllowedQueueNames: []string{pattern}}
		if !p.AllowsQueueName(one, name) {
			t.Fatalf("%s does not allow %s to %s", pattern, name, one)
		}
		if !p.AllowsQueueName(other, name) {
			return
		}
		shared++
		if !refused.MatchString(pattern) {
			t.Fatalf("%s allows %s to %s and to %s", pattern, name, one, other)
		}
	}
	// A hundred draws bring none in one of five times.
	for range 20 {
		if rapid.Check(t, check); shared > 0 {
			break
		}
	}
	if shared == 0 {
		t.Error("no pattern was drawn that the rule is for")
	}
}
