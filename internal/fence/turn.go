package fence

import (
	"maps"
	"slices"
)

// inTurn returns the names of providers in the order in which a round looks at them. Of those that SQS gave no answer about
// there is one in a round, the one that was asked about longest ago, and it comes last: each is waited for as long as a
// request may take, and the watch of the others must not have a pause of all that.
func inTurn[V any](f *Fence, providers map[string]V) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var answered, silent []string
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		if s := f.states[name]; s != nil && !s.silent.IsZero() {
			silent = append(silent, name)
		} else {
			answered = append(answered, name)
		}
	}
	if len(silent) == 0 {
		return answered
	}
	return append(answered, slices.MinFunc(silent, func(a, b string) int { return f.states[a].silent.Compare(f.states[b].silent) }))
}
