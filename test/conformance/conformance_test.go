package conformance

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func checks() []check {
	all := queueChecks()
	all = append(all, missingQueueChecks()...)
	all = append(all, messageChecks()...)
	all = append(all, batchChecks()...)
	all = append(all, fifoChecks()...)
	return append(all, deadLetterChecks()...)
}

// TestSqstest runs every check against our own server, each in a bubble whose time costs nothing.
func TestSqstest(t *testing.T) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if err := onSqstest(t.Context(), c); err != nil {
					t.Errorf("%v\nsource: %s", err, links(c.source))
				}
			})
		})
	}
}

func onSqstest(ctx context.Context, c check) error {
	s := sqstest.New()
	defer s.Close()
	return c.outcome(ctx, s.Client())
}

func TestChecksAreNamedAndSourced(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks() {
		if c.name == "" || c.source == "" || seen[c.name] {
			t.Errorf("%q, source %q: a check needs a name of its own and a source", c.name, c.source)
		}
		seen[c.name] = true
		if err := checkSource(c.source); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if len(seen) < 120 {
		t.Errorf("%d checks, want at least 120", len(seen))
	}
}
