package fence

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

const (
	// silentFor is for how long SQS gives no answer about a provider before it counts as silent. One lost answer is none.
	silentFor = time.Minute
	// silentLooks is after how many looks without an answer a round leaves the rest of those that got none before to the next.
	silentLooks = 2
)

// silence is how long SQS has given no answer about a provider; zero: it gave one at the last look, if only a refusal.
type silence struct {
	// since is when the first look that got none began, and asked when the last one did.
	since, asked time.Time
}

// inTurn yields the names of providers in the order in which a round looks at them. Each look that gets no answer takes as long as
// a request may, and nobody else's nonce may stand still for the sum of that: so those about which the last look got no answer
// come last, and the round ends when two of them got none again; the others follow in the next. Those that were answered a minute
// ago come first among them.
func inTurn[V any](f *Fence, providers map[string]V) iter.Seq[string] {
	f.mu.Lock()
	var answered, silent []string
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		if s := f.states[name]; s != nil && s.silence != (silence{}) {
			silent = append(silent, name)
		} else {
			answered = append(answered, name)
		}
	}
	slices.SortStableFunc(silent, func(a, b string) int {
		x, y := f.states[a].silence, f.states[b].silence
		return cmp.Or(cmp.Compare(x.long(), y.long()), x.asked.Compare(y.asked))
	})
	f.mu.Unlock()
	return func(yield func(string) bool) {
		for _, name := range answered {
			if !yield(name) {
				return
			}
		}
		for vain, i := 0, 0; i < len(silent) && vain < silentLooks; i++ {
			before := f.silenceOf(silent[i])
			if !yield(silent[i]) {
				return
			}
			if after := f.silenceOf(silent[i]); after != before && after != (silence{}) {
				vain++
			}
		}
	}
}

func (f *Fence) silenceOf(provider string) silence {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.states[provider]; s != nil {
		return s.silence
	}
	return silence{}
}

// long is 1 where the silence has lasted, and 0 where it may be one lost answer.
func (s silence) long() int {
	if s.asked.Sub(s.since) >= silentFor {
		return 1
	}
	return 0
}

// after is the silence after one more look without an answer.
func (s silence) after(asked time.Time) silence {
	if s.since.IsZero() {
		s.since = asked
	}
	s.asked = asked
	return s
}
