package model

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

var (
	steps       = flag.Int("steps", 20_000, "how many steps the model takes at least")
	seed        = flag.Uint64("seed", 1, "what the scripts are made from")
	withMutants = flag.Bool("mutants", false, "expect every mutant to be noticed, too")
	patience    = flag.Int("patience", 1_000_000, "after how many steps a mutant counts as not noticed")
	reportTo    = flag.String("report", "", "a file to write the report to")
)

// move is one action of a script.
type move struct {
	action int
	arg    uint64
}

// outcome is what became of one episode.
type outcome struct {
	script    []move
	steps     int
	violation *violation
	counts    map[string]int
	happened  map[string]int
	hash      uint64
}

// episode is the life of one world, made from a seed.
func episode(m mutant, seed uint64, say func(string, ...any)) outcome {
	w := newWorld(m)
	defer w.close()
	w.say = say
	random := rand.New(rand.NewPCG(seed, 0))
	w.setUp(random.Uint64())
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	var script []move
	for w.step < w.budget() && w.violation == nil {
		n, i := random.IntN(total), 0
		for n >= actions[i].weight {
			n -= actions[i].weight
			i++
		}
		m := move{action: i, arg: random.Uint64()}
		if actions[i].do(w, m.arg) {
			w.counts[actions[i].name]++
			script = append(script, m)
		}
	}
	if w.violation == nil {
		w.rest(rand.New(rand.NewPCG(seed, 3)))
	}
	return outcome{script, w.step, w.violation, w.counts, w.happened, w.digest.Sum64()}
}

// replay plays a script, leaving out what cannot happen.
func replay(m mutant, seed uint64, script []move, say func(string, ...any)) *violation {
	w := newWorld(m)
	defer w.close()
	w.say = say
	w.setUp(rand.New(rand.NewPCG(seed, 0)).Uint64())
	for _, m := range script {
		if w.violation == nil {
			actions[m.action].do(w, m.arg)
		}
	}
	if w.violation == nil {
		w.rest(rand.New(rand.NewPCG(seed, 3)))
	}
	return w.violation
}

// shrink leaves out of a script what its violation does not need.
func shrink(m mutant, seed uint64, script []move, promise string, deadline time.Time) []move {
	for size := len(script) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(script) && time.Now().Before(deadline); {
			without := slices.Concat(script[:at], script[at+size:])
			if v := replay(m, seed, without, nil); v != nil && v.promise == promise {
				script = without
			} else {
				at += size
			}
		}
	}
	return script
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// TestModel plays episodes until they have taken the steps wanted, and expects every promise to hold; and, with -mutants,
// expects every mutant to be noticed.
func TestModel(t *testing.T) {
	out := &report{T: t}
	taken, violations, counts, happened := 0, 0, map[string]int{}, map[string]int{}
	began := time.Now()
	for n := uint64(0); taken < *steps && violations < 3; n += batch {
		for i, o := range episodes(mutant{}, firstSeed()+n) {
			taken += o.steps
			add(counts, o.counts)
			add(happened, o.happened)
			if o.violation != nil {
				violations++
				out.broken(firstSeed()+n+uint64(i), o)
			}
		}
	}
	for _, a := range actions {
		out.line("%8d  %s", counts[a.name], a.name)
	}
	out.line("")
	for _, name := range slices.Sorted(maps.Keys(happened)) {
		out.line("%8d  queues %s", happened[name], name)
	}
	out.line("%8d  steps in %v\n", taken, time.Since(began).Round(time.Second))
	caught := 0
	if *withMutants {
		for _, m := range mutants {
			if at, v := noticedAt(m); v != nil {
				caught++
				out.line("%-62s step %7d  %s", m.name, at, shorten(v))
			} else {
				t.Errorf("%s: not noticed in %d steps", m.name, at)
			}
		}
	}
	if *withMutants {
		if at, v := noticedWithin(careless, *steps/4); v != nil {
			t.Errorf("%s: %v", careless.name, v)
		} else {
			out.line("%-62s nothing in %d steps, as it should be", careless.name, at)
		}
	}
	verdict := "OK"
	if t.Failed() {
		verdict = "FAILED"
	}
	out.line("\nMODEL %s steps=%d violations=%d mutants_caught=%d/%d", verdict, taken, violations, caught, len(mutants))
	out.write()
}

// batch is how many episodes are played side by side.
const batch = 4

// firstSeed is that of the first episode.
func firstSeed() uint64 { return *seed << 20 }

// episodes plays a batch of episodes; what comes of each depends on its seed alone.
func episodes(m mutant, seed uint64) []outcome {
	all := make([]outcome, batch)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = episode(m, seed+uint64(i), nil) })
	}
	wg.Wait()
	return all
}

// noticedAt says after how many steps a mutant is noticed, and by what; nil: it is not, in that many.
func noticedAt(m mutant) (at int, v *violation) { return noticedWithin(m, *patience) }

func noticedWithin(m mutant, steps int) (at int, v *violation) {
	for n := uint64(0); at < steps; n += batch {
		for i, o := range episodes(m, firstSeed()+n) {
			at += o.steps
			// What breaks without the mutant too is not the mutant's doing.
			if o.violation != nil && episode(mutant{}, firstSeed()+n+uint64(i), nil).violation == nil {
				return at, o.violation
			}
		}
	}
	return at, nil
}

func shorten(v *violation) string {
	text := v.promise + ": " + v.message
	return text[:min(len(text), 110)]
}

func add(to, from map[string]int) {
	for name, n := range from {
		to[name] += n
	}
}

// report is what a run has to say, for the log and for a file.
type report struct {
	*testing.T
	text strings.Builder
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }

func (r *report) write() {
	r.Helper()
	r.Logf("\n%s", r.text.String())
	if *reportTo == "" {
		return
	}
	if err := os.WriteFile(*reportTo, []byte(r.text.String()), 0o600); err != nil {
		r.Error(err)
	}
}

// broken says what broke, and the shortest script found that shows it.
func (r *report) broken(seed uint64, o outcome) {
	r.Helper()
	script := shrink(mutant{}, seed, o.script, o.violation.promise, time.Now().Add(20*time.Second))
	var said []string
	v := replay(mutant{}, seed, script, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d: %v\n%d of its %d actions show it (or another breach of the same promise):\n", seed, o.violation, len(script), len(o.script))
	for _, m := range script {
		fmt.Fprintf(&text, "    %s (%d)\n", actions[m.action].name, m.arg)
	}
	fmt.Fprintf(&text, "The last of what they do:\n%s\n%v", strings.Join(said[max(0, len(said)-60):], "\n"), v)
	r.Error(text.String())
}

// TestReplay is for people: it plays one episode aloud.
func TestReplay(t *testing.T) {
	if !testing.Verbose() {
		t.Skip("it is for people: -v -seed=<seed of an episode>")
	}
	o := episode(mutant{}, *seed, func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if o.violation != nil {
		t.Error(o.violation)
	}
}

// TestSeedsReplay holds the model to its word that a seed says everything.
func TestSeedsReplay(t *testing.T) {
	for n := range uint64(5) {
		a, b := episode(mutant{}, firstSeed()+n, nil), episode(mutant{}, firstSeed()+n, nil)
		if a.hash != b.hash || a.steps != b.steps {
			t.Errorf("seed %d: two runs differ: %d steps and %x, %d steps and %x", firstSeed()+n, a.steps, a.hash, b.steps, b.hash)
		}
	}
}
