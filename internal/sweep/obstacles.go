package sweep

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// passesUntilTold is after how many sweeps in a row that could not look at something people are told: most of what stands
// in the way passes by itself.
const passesUntilTold = 3

// obstacles are what keeps sweeps of a provider from looking at queues, by the queue's name; "" is for what keeps them from
// all.
type obstacles map[string]obstacle

type obstacle struct {
	passes int
	why    string
	// met says that the sweep under way met it.
	met bool
}

// meet notes that a sweep cannot look at a queue, and returns why.
func (o obstacles) meet(name string, err error) error {
	if err == nil {
		return nil
	}
	was := o[name]
	if !was.met {
		was.passes++
	}
	o[name] = obstacle{was.passes, queue.Explain(err), true}
	return err
}

// pass ends a sweep: what it did not meet is none any more.
func (o obstacles) pass() {
	maps.DeleteFunc(o, func(_ string, is obstacle) bool { return !is.met })
	for name, is := range o {
		is.met = false
		o[name] = is
	}
}

// named is how many obstacles a message names.
const named = 3

// message is what people are told; empty: nothing. It stays the same while the obstacles do.
func (o obstacles) message() string {
	const longest = 200
	var lasting []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		is := o[name]
		if is.passes < passesUntilTold {
			continue
		}
		if name == "" {
			return fmt.Sprintf("no sweep of this provider comes to its end, and orphaned reply queues are left: %s", is.why[:min(len(is.why), longest)])
		}
		lasting = append(lasting, fmt.Sprintf("%s (%s)", name, is.why[:min(len(is.why), longest)]))
	}
	if len(lasting) == 0 {
		return ""
	}
	more := ""
	if len(lasting) > named {
		lasting, more = lasting[:named], ", and others"
	}
	return "sweeps cannot judge these queues, and leave them as they are: " + strings.Join(lasting, ", ") + more +
		". Let the operator read and delete them, or delete them in SQS if nobody needs them"
}

// tell ends a sweep of a provider and says what has kept sweeps of it from their work for some time.
func (s *Sweeper) tell(ctx context.Context, provider string) error {
	m := s.memory[provider]
	m.obstacles.pass()
	m.ended++
	s.Metrics.unjudged(provider, len(m.obstacles))
	_, err := s.report(ctx, provider, v1alpha1.ConditionSweepIncomplete, m.obstacles.message(), m.ended >= passesUntilTold)
	return err
}
