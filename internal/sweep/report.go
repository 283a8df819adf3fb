package sweep

import (
	"context"
	"errors"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
)

// A process that has just begun to lead has found nothing for long enough to say anything of it: that it does not see what
// holds sweeps is no word that nothing does. What the leader before said stands until this one can judge.

// judges notes that a sweep looks at what a condition tells of, and says whether this process has looked for long enough to say
// that there is nothing.
func (s *Sweeper) judges(m *memory, what string) bool {
	f, looked := m.judging[what]
	if !looked {
		f = lifecycle.Finding{Key: what, Since: s.Clock.Now()}
	}
	f.Passes++
	m.judging[what] = f
	return s.ripe(f)
}

// report tells of what holds sweeps, or, where this process can judge, that nothing does.
func (s *Sweeper) report(ctx context.Context, provider, what, message string, judged bool) (news bool, err error) {
	if message == "" && !judged {
		return false, nil
	}
	return s.Fence.Report(ctx, provider, what, message)
}

// unsay ends what was said of a provider that there is no more.
func (s *Sweeper) unsay(ctx context.Context, provider string) error {
	var problems []error
	for _, what := range []string{
		v1alpha1.ConditionSweepHeld, v1alpha1.ConditionForeignSweepHeld, v1alpha1.ConditionQueuesMissing, v1alpha1.ConditionSweepIncomplete,
	} {
		_, err := s.Fence.Report(ctx, provider, what, "")
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}
