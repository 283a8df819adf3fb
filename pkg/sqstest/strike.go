package sqstest

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// faults carries out a plan. Without one, every question costs a load.
type faults struct {
	server *Server
	state  atomic.Pointer[faultState]
}

// faultState is a plan, and how far it has been played.
type faultState struct {
	plan Plan
	mu   sync.Mutex
	seen map[occasion]played
	hits []int // strikes so far, of each rule
}

// occasion is what is counted apart.
type occasion struct {
	rule          int
	action, queue string
}

// played is the occasions so far, and how many of them were struck.
type played struct{ seen, struck int }

// SetFaults replaces the fault plan and begins it from its start; an empty one ends all faults. It panics on a plan that
// ParsePlan would refuse.
func (s *Server) SetFaults(p Plan) {
	if err := p.check(); err != nil {
		panic("sqstest: " + err.Error())
	}
	if len(p.Rules) == 0 {
		s.faults.state.Store(nil)
		return
	}
	p.Rules = slices.Clone(p.Rules)
	s.faults.state.Store(&faultState{plan: p, seen: map[occasion]played{}, hits: make([]int, len(p.Rules))})
}

// FaultHits is how often each rule of the current plan has struck, on all queues together, in the plan's order: a test that
// relies on a fault should see that it happened. It is nil without a plan.
func (s *Server) FaultHits() []int {
	st := s.faults.state.Load()
	if st == nil {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.Clone(st.hits)
}

// strike is the first rule for a fault that strikes on this occasion, with a number that is the same in every replay.
func (f *faults) strike(fault Fault, action, queue string) (*Rule, uint64) {
	return f.strikeIf(fault, action, queue, nil)
}

// strikeIf is strike among the rules by which, as could says, this is an occasion at all. nil is all of them.
func (f *faults) strikeIf(fault Fault, action, queue string, could func(*Rule) bool) (*Rule, uint64) {
	st := f.state.Load()
	if st == nil {
		return nil, 0
	}
	for i := range st.plan.Rules {
		r := &st.plan.Rules[i]
		if r.Fault != fault || !matches(r.Action, action) || !matches(r.Queue, queue) || could != nil && !could(r) {
			continue
		}
		if n, ok := st.decide(i, action, queue); ok {
			return r, n
		}
	}
	return nil, 0
}

func (st *faultState) decide(rule int, action, queue string) (uint64, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	r := &st.plan.Rules[rule]
	o := occasion{rule, action, queue}
	p := st.seen[o]
	number := st.number(o, p.seen)
	// The upper half decides; the rest is for whoever needs a random number besides.
	strikes := p.seen >= r.Skip && (r.Count == 0 || p.struck < r.Count) &&
		(r.Probability == 0 || float64(number>>32)/(1<<32) < r.Probability)
	p.seen++
	if strikes {
		p.struck++
		st.hits[rule]++
	}
	st.seen[o] = p
	return number & 0xffffffff, strikes
}

// number is as good as random, and depends on the seed and the occasion alone.
func (st *faultState) number(o occasion, n int) uint64 {
	h := fnv.New64a()
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], st.plan.Seed)
	binary.BigEndian.PutUint64(b[8:], uint64(o.rule))
	binary.BigEndian.PutUint64(b[16:], uint64(n))
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(o.action + "/" + o.queue))
	// FNV alone leaves near-by inputs near by: mix (the finalizer of MurmurHash3).
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// longestSpread keeps the far end of a wide distribution from overflowing.
const longestSpread = 24 * time.Hour

// spread is the rule's Duration as the number, of 32 random bits, has it: the quantile of the lognormal distribution.
func (r *Rule) spread(number uint64) time.Duration {
	if r.Spread == 0 {
		return r.Duration
	}
	quantile := (float64(number) + 0.5) / (1 << 32)
	normal := math.Sqrt2 * math.Erfinv(2*quantile-1)
	return time.Duration(min(float64(r.Duration)*math.Exp(r.Spread*normal), float64(longestSpread)))
}
