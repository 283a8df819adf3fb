package model

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

var (
	steps       = flag.Int("steps", 400, "how many actions are played at least")
	seed        = flag.Uint64("seed", 1, "what the scripts are made from")
	withMutants = flag.Bool("mutants", false, "expect every mutant to be noticed, too")
	onlyMutants = flag.String("mutant", "", "a part of the names of those that are to be noticed; empty: all")
	skip        = flag.Uint64("skip", 0, "how many episodes are left out at the beginning")
	breaches    = flag.Int("breaches", 3, "after how many violations a run ends")
	patience    = flag.Int("patience", 60_000, "after how many actions a mutant counts as not noticed")
	scriptFrom  = flag.String("script", "", "a file with the script that TestReplay plays, one action a line; empty: the whole episode")
	reportTo    = flag.String("report", "", "a file to write the report to")
)

// least is how often each kind of action is played in a thousand, at least, in a run that is long enough to say so.
const (
	least  = 2
	enough = 10_000
)

// wanted is how often something is to have come of ten thousand actions, at least, in a run that is long enough to say so: a
// promise that nothing happened to was not tried. It is about half of what 24,000 actions came to, less of what is rare.
var wanted = map[string]int{
	"a Lease was written to when it was about to be closed":      8,
	"a closing is undone with etcd":                              3,
	"a container restarts on a lost node, of a pod that is gone": 10,
	"a record is closed: Idle":                                   150,
	"a record is closed: NameAbsent":                             35,
	"a record is closed: PodGone":                                200,
	"a record is closed: PodStopped":                             35,
	"a record is closed: QueueMissing":                           15,
	"a request of a process that is gone arrives":                150,
	"closed as idle":                                             140,
	"closed as its name is absent":                               40,
	"closed as its pod is gone":                                  10,
	"closed as its pod is gone, while its process lives":         80,
	"closed as its pod stopped":                                  55,
	"five seconds of a silence of nearly all":                    1000,
	"queues in the way of a copy of their cluster":               400,
	"swept away":                     150,
	"taken over after the safe time": 50,
	"taken over by a successor":      100,
	"told of a queue by a heartbeat": 40,
}

// move is one action of a script.
type move struct {
	action int
	arg    uint64
}

// outcome is what became of one episode.
type outcome struct {
	script []move
	// moments are the events, calls and ticks that the actions came to.
	moments   int
	violation *violation
	counts    map[string]int
	happened  map[string]int
	hash      uint64
}

// playwright chooses the actions of a script: most by their weights, and every other to be one of those that were not
// played for longest, so that what is seldom possible is played when it is.
type playwright struct {
	random *rand.Rand
	total  int
	wishes []int
	played int
}

func newPlaywright(random *rand.Rand) *playwright {
	p := &playwright{random: random, wishes: random.Perm(len(actions))}
	for _, a := range actions {
		p.total += a.weight
	}
	return p
}

// next plays one action, and says whether it came to what its name says: what was tried in vain is part of the script, too.
func (p *playwright) next(w *world) (m move, played bool) {
	p.played++
	before := w.step
	if p.played%2 == 0 {
		arg := p.random.Uint64()
		for at, i := range p.wishes {
			played = actions[i].do(w, arg)
			if played || w.step != before {
				p.wishes = append(slices.Delete(p.wishes, at, at+1), i)
				return move{i, arg}, played
			}
		}
	}
	for {
		n, i := p.random.IntN(p.total), 0
		for n >= actions[i].weight {
			n -= actions[i].weight
			i++
		}
		m = move{action: i, arg: p.random.Uint64()}
		if played = actions[i].do(w, m.arg); played || w.step != before {
			return m, played
		}
	}
}

// episode is the life of one world, made from a seed.
func episode(m mutant, seed uint64, say func(string, ...any)) outcome {
	w := newWorld(m)
	defer w.close()
	w.say = say
	random := rand.New(rand.NewPCG(seed, 0))
	w.setUp(random.Uint64())
	author := newPlaywright(random)
	var script []move
	for len(script) < w.budget() && w.violation == nil {
		m, played := author.next(w)
		if played {
			w.counts[actions[m.action].name]++
		}
		script = append(script, m)
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
func shrink(m mutant, seed uint64, script []move, broke *violation, deadline time.Time) []move {
	for size := len(script) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(script) && time.Now().Before(deadline); {
			without := slices.Concat(script[:at], script[at+size:])
			if v := replay(m, seed, without, nil); v != nil && v.promise == broke.promise && v.kind() == broke.kind() {
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
	debug.SetGCPercent(800) // Worlds are small, and soon forgotten.
	os.Exit(m.Run())
}

// TestModel plays episodes until they have taken the steps wanted, and expects every promise to hold, and every kind of
// action to have been played; and, with -mutants, expects every mutant to be noticed. A step is one action of a script.
func TestModel(t *testing.T) {
	out := &report{T: t}
	taken, moments, violations, counts, happened := 0, 0, 0, map[string]int{}, map[string]int{}
	began := time.Now()
	episodes(mutant{}, firstSeed(), func(seed uint64, o outcome) bool {
		if (taken+len(o.script))/10_000 > taken/10_000 {
			t.Logf("%d actions in %v", taken+len(o.script), time.Since(began).Round(time.Second))
		}
		taken += len(o.script)
		moments += o.moments
		add(counts, o.counts)
		add(happened, o.happened)
		if o.violation != nil {
			violations++
			out.broken(seed, o)
		}
		return taken < *steps && violations < *breaches
	})
	for _, a := range actions {
		out.line("%8d  %s", counts[a.name], a.name)
		if violations == 0 && taken >= enough && counts[a.name] < taken*least/1000 {
			t.Errorf("%q was played %d times in %d, and is to be %d times in a thousand", a.name, counts[a.name], taken, least)
		}
	}
	out.line("")
	for _, name := range slices.Sorted(maps.Keys(happened)) {
		out.line("%8d  %s", happened[name], name)
	}
	for name, least := range wanted {
		if violations == 0 && taken >= enough && happened[name]*enough < taken*least {
			t.Errorf("%q happened %d times in %d actions, and is to happen %d times in %d", name, happened[name], taken, least, enough)
		}
	}
	out.line("%8d  actions, which came to %d events, calls and ticks\n", taken, moments)
	t.Logf("%d actions in %v", taken, time.Since(began).Round(time.Second))
	caught := 0
	if *withMutants {
		for _, m := range mutants {
			if !strings.Contains(m.name, *onlyMutants) {
				continue
			}
			if at, v := noticedAt(m); v != nil {
				caught++
				t.Logf("%s: noticed at step %d", m.name, at)
				out.line("%-72s step %6d  %s", m.name, at, shorten(v))
			} else {
				t.Errorf("%s: not noticed in %d steps", m.name, at)
			}
		}
	}
	verdict := "OK"
	if t.Failed() {
		verdict = "FAILED"
	}
	out.line("\nMODEL %s steps=%d violations=%d mutants_caught=%d/%d", verdict, taken, violations, caught, len(mutants))
	out.write()
}

// sideBySide is how many episodes are played at once.
const sideBySide = 4

// firstSeed is that of the first episode.
func firstSeed() uint64 { return *seed<<20 + *skip }

// episodes plays one episode after the other, several at once, and tells of each in the order of their seeds, until more is
// false. What comes of an episode depends on its seed alone.
func episodes(m mutant, first uint64, tell func(seed uint64, o outcome) (more bool)) {
	var playing []chan outcome
	play := func(seed uint64) {
		c := make(chan outcome, 1)
		playing = append(playing, c)
		go func() { c <- episode(m, seed, nil) }()
	}
	for n := range uint64(sideBySide) {
		play(first + n)
	}
	for seed := first; ; seed++ {
		o := <-playing[0]
		playing = playing[1:]
		if !tell(seed, o) {
			break
		}
		play(seed + sideBySide)
	}
	for _, c := range playing {
		<-c
	}
}

// noticedAt says after how many steps a mutant is noticed, and by what; nil: it is not, in that many.
func noticedAt(m mutant) (at int, v *violation) {
	episodes(m, firstSeed(), func(seed uint64, o outcome) bool {
		at += len(o.script)
		// What breaks without the mutant too is not the mutant's doing.
		if o.violation != nil && episode(mutant{}, seed, nil).violation == nil {
			v = o.violation
		}
		return v == nil && at < *patience
	})
	return at, v
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
	script := shrink(mutant{}, seed, o.script, o.violation, time.Now().Add(time.Minute))
	var said []string
	v := replay(mutant{}, seed, script, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d: %v\n%d of its %d actions show it, or another of its kind:\n", seed, o.violation, len(script), len(o.script))
	for _, m := range script {
		fmt.Fprintf(&text, "    %s (%d)\n", actions[m.action].name, m.arg)
	}
	fmt.Fprintf(&text, "The last of what they do:\n%s\n%v", strings.Join(said[max(0, len(said)-60):], "\n"), v)
	r.Error(text.String())
}

// TestReplay is for people: it plays one episode aloud, or a script that a failure printed.
func TestReplay(t *testing.T) {
	if !testing.Verbose() {
		t.Skip("it is for people: -v -seed=<seed of an episode>")
	}
	aloud := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	if *scriptFrom == "" {
		if o := episode(mutant{}, *seed, aloud); o.violation != nil {
			t.Error(o.violation)
		}
		return
	}
	text, err := os.ReadFile(*scriptFrom)
	if err != nil {
		t.Fatal(err)
	}
	var script []move
	for line := range strings.Lines(string(text)) {
		name, arg, _ := strings.Cut(strings.TrimSpace(line), " (")
		n, err := strconv.ParseUint(strings.TrimSuffix(arg, ")"), 10, 64)
		i := slices.IndexFunc(actions, func(a action) bool { return a.name == name })
		if err != nil || i < 0 {
			t.Fatalf("no action: %q", line)
		}
		script = append(script, move{i, n})
	}
	if v := replay(mutant{}, *seed, script, aloud); v != nil {
		t.Error(v)
	}
}

// TestWhatBrokeOnce plays scripts that broke a promise once.
func TestWhatBrokeOnce(t *testing.T) {
	type line struct {
		name string
		arg  uint64
	}
	for _, broke := range []struct {
		name  string
		seed  uint64
		lines []line
	}{
		// The Lease of an idle pod, of which nothing is expected, was deleted, and nobody wrote another: it could not wake.
		{"an idle pod's Lease is missed", 1049234, []line{
			{"heartbeats are lost", 18003221960938522193},
			{"Stable pod is replaced, unseen by the next leader", 3869938816599820438},
			{"lists of records are old for long", 510554412421632718},
			{"Lease is deleted", 2150446027991432557},
		}},
		// The API server's word that a pod is gone was long in coming, and the time that the queue drains for was counted from
		// when it had been asked for.
		{"a late answer is no old one", 1048691, []line{
			{"label is removed", 6752128372898151305}, {"operator is killed", 9733735508205655503}, {"pod is deleted", 4329700102660339573},
			{"operator leads", 11723863111801999890}, {"time passes, with work", 10759585153979052963},
		}},
		// A record was written whose event would wake its pod, and was gone before the watch of records, which hung, showed it.
		{"a record that goes unseen is written again", 2097176, []line{
			{"heartbeats are lost for long", 6473488544208853006}, {"watch of records hangs", 2425300579287501429},
			{"time passes, with work", 6050134924360678325}, {"etcd is set back", 9091948415633300883},
		}},
		// A pod had gone, was there again with a backup, and went again: what was counted from when it had gone first closed its
		// queue.
		{"a drain is not counted over a restored backup", 1049025, []line{
			{"watch of records hangs", 12833955405226603516},
			{"pod is deleted", 3315857781263407670},
			{"credentials are another account's for long", 8512670958486811401},
			{"nobody works for long", 9256163923445817053},
			{"kubelet ends a pod", 2281109328619266879},
			{"cluster is copied, and the marker removed", 11793224064084336374},
			{"etcd is set back", 7471807318441252630},
			{"container restarts", 5611219888857732103},
		}},
		// A heartbeat was lost with the Lease, which a person deleted before it could be marked closing.
		{"a Lease that was deleted says nothing of silence", 4194410, []line{
			{"heartbeat before a closing", 18009800644380123017}, {"Lease is deleted", 7966376225418943092},
		}},
		// A pod was told of another queue, since somebody had removed the record of its name's, and had not heard of that yet.
		{"a queue is its name's, and any pod of that name may read it", 4194369, []line{
			{"Stable pod is replaced", 14513325765303972354}, {"Stable pod is replaced, unseen by the next leader", 1131056656742647968},
			{"pod comes while a sweep lists", 10683390636679560114}, {"process pauses", 17684019502933653911},
			{"record is removed by force", 4560999660430837066},
		}},
		// Etcd was set back, and with it a heartbeat that was answered; the operator read that before its watch told it.
		{"a heartbeat that was undone with etcd keeps the queue", 1049012, []line{
			{"process pauses", 13418464477907759390}, {"Stable pod is replaced, unseen by the next leader", 8812646288982018535},
			{"time passes, with work", 8244675355742074186}, {"heartbeats are lost for long", 17196850642685935688},
			{"heartbeat before a closing", 4008764759713265372}, {"identity is confirmed", 11369872648334054292},
		}},
		// The next leader finished a closing that its predecessor had begun, although a pod of the name had come since.
		{"a closing that was begun is not finished over a successor", 1048615, []line{
			{"leader is deposed", 8521549123421151491}, {"operator leads", 7276728581880269862},
			{"identity is confirmed", 17596335787439159996}, {"nobody works for long", 15721403497937300411},
			{"informer delivers", 11498933995820325156}, {"Stable pod comes while its queue is about to be closed", 12654436974599404001},
		}},
		{"nor by one whose cache does not show that successor", 1048869, []line{
			{"Stable pod is replaced", 17462542580245439903}, {"API server is down for long", 1075058491357635328},
			{"heartbeats return one by one", 6701854790654246717}, {"time passes, with work", 11037597339220491680},
			{"leader is deposed", 8336652806869310829}, {"watch of pods hangs", 2105284871193777795},
			{"operator leads with old lists", 12190283325386815716}, {"Stable pod comes while its queue is about to be closed", 14446315254658129742},
		}},
		// A pod was created while its ReplyHost was gone, and waits for that under the name of a queue.
		{"a pod that waits has its name", 1049031, []line{
			{"pod is deleted", 18005025570934003859}, {"ReplyHost is removed by force", 1974649387917088339},
			{"kubelet ends a pod", 14186823921618179276}, {"pod is created", 7737756089816249476},
		}},
		// A queue was made, and deleted, with another account's credentials, and the record of it came back with a backup.
		{"a queue of another account is nobody's to give up, and is told", 1048986, []line{
			{"operator pauses", 8576239401470239302}, {"leader is deposed", 7526031440670555731},
			{"Stable pod is replaced", 4463171653856684989}, {"credentials are another account's", 14984254071287149449},
			{"pod finishes", 5548905498930490965}, {"operator leads", 9072068078770894415},
			{"time passes, with work", 1154152080608592557}, {"marker is removed", 12132956049742007388},
			{"pod finishes", 10787554728162749720}, {"Stable pod is replaced, unseen by the next leader", 9111426658955163315},
			{"pod comes while a sweep lists", 10541090172859734288}, {"pod finishes", 9891376053068807175},
			{"heartbeats are lost for long", 327054257904619711}, {"etcd is set back", 12723969375942904972},
			{"container restarts", 14622447968278303016},
		}},
		// Most heartbeats were lost, and the slow ones' ReplyHost had just been given a longer interval, which nobody knew of yet.
		{"a longer interval hides no outage", 2199504551957, []line{
			{"ReplyHost changes", 6457001786540035334}, {"heartbeats return one by one", 15174619637420312619},
		}},
		// A person deleted the Lease that said so, while the fence held the queue and its ReplyHost was gone.
		{"a queue that is closed stays so for who reads it", 1048763, []line{
			{"credentials are another account's for long", 15629738120295555501}, {"marker is removed", 13364172533938273498},
			{"Stable pod comes while its queue is about to be closed", 16541261107358174488}, {"ReplyHost is removed by force", 8657025059595376242},
			{"heartbeats are lost", 6334654412663116354}, {"a crash is the last that a lost node reports", 1320135778903134827},
			{"Stable pod is replaced, unseen by the next leader", 1214764896593505206}, {"Lease is deleted", 2321756758372626500},
		}},
		// A queue was made for a pod that was gone, and kept for another of its name; when that one went too, its absence was
		// counted from when it had last been looked for.
		{"a name is kept from when its last pod is missed", 1048890, []line{
			{"sweep is allowed", 2367161072783788031}, {"cluster is copied while the nonce stands still", 8434019975947069950},
			{"Stable pod comes while its queue is about to be closed", 4523699105163683139}, {"record is removed by force", 8565689257750619718},
			{"ReplyHost is removed by force", 14904197909769252315}, {"pod is deleted", 11835643210257671075},
			{"pod comes while a sweep lists", 4849146805679449673}, {"time passes, with work", 14783141000836895747},
			{"Stable pod is replaced, unseen by the next leader", 1333566695548586722}, {"record is removed by force", 13274741785963429763},
			{"informer delivers", 1062542492663609755}, {"leader is deposed", 574040351052228334},
			{"operator works", 2891845272233234594}, {"ReplyHost is deleted", 6268344842815619249},
			{"time passes", 9337435051982349614}, {"operator leads", 4865184965721002851},
			{"operator works", 15184553523903045174}, {"watch of Leases breaks", 2263375929717040461},
			{"time passes", 17356923358286054446}, {"pod is created", 18109320251611771209},
			{"operator works", 8501832931538360699}, {"operator works", 1088663987799563910},
			{"time passes, with work", 3772380912877768753}, {"Stable pod is replaced", 460401411409104204},
		}},
		// An application tried to heartbeat in the one second for which the API server was away.
		{"a moment without an API server is no heartbeat", 1049469, []line{
			{"process pauses", 14368739376256083718}, {"API server goes down", 250638047651718364},
			{"time passes", 4716954905126941812}, {"process resumes", 18089768893417803721},
			{"API server comes back", 7774527128561319637}, {"heartbeats are lost for long", 16246828872322463438},
		}},
		// Etcd was set back while a closing asked for the operator's own Lease, which came back as it had been.
		{"a closing sees that etcd was set back just now", 1049815, []line{
			{"API server is down for long", 17549418536732518458}, {"lists of records are old for long", 18000925483398877497},
			{"credentials are another account's for long", 3387044497943351487}, {"heartbeat before a closing", 2886030334654863074},
			{"operator works", 10220832179209555866}, {"identity is confirmed", 169489373429947438},
		}},
		// Etcd was set back to before a closing, and the watch of records, which hung, still showed it.
		{"a closing that was undone with etcd is not finished", 1049005, []line{
			{"pod is created", 3131731408397834677}, {"time passes, with work", 10013793374606100927},
			{"pod is force-deleted", 462594267012162379}, {"credentials are another account's for long", 2233311142113274649},
			{"watch of records hangs", 2555774361782601357}, {"etcd is set back", 2408170038508396732},
			{"pod starts", 9293763105541563549}, {"heartbeats return one by one", 16992936818807620595},
		}},
		// The leader changed during an outage of heartbeats. Of the slow applications the next had not waited for three heartbeats
		// when the fast ones had been silent for their retention, and those are too few for an outage by themselves.
		{"a silence from before a leader began is not its own", 2097716, []line{
			{"ReplyHost changes", 7783440043969989110}, {"a crash is the last that a lost node reports", 12680752084826936914},
			{"heartbeat before a closing", 9625377299666831103}, {"pod finishes", 6872349283651222042},
			{"etcd is set back", 3212587211033674856}, {"Stable pod is replaced", 3871332282409806680},
			{"heartbeats are lost", 7457829176809197428}, {"Stable pod is replaced, unseen by the next leader", 67860023057820854},
		}},
		// A ReplyHost was removed by force, and another came by its name, with shorter times.
		{"a ReplyHost that replaced another says what is owed", 1050258, []line{
			{"ReplyHost changes", 6046707718069759866}, {"heartbeats of a crowd are lost", 381111571348800600},
			{"heartbeat before a closing", 11231164830168369962}, {"garbage is collected", 6071789341886581143},
			{"ReplyHost is created", 9033105203708688096}, {"watch of Leases breaks", 10427787582034689218},
		}},
		// The cluster was copied between a human's word that the marker was abandoned and its use, and somebody deleted the marker
		// once more: who had made it again ended before it saw that, and the copy had the word.
		{"a word that a marker is abandoned is for who was there", 3145825, []line{
			{"sweep is allowed", 12912382248765615824}, {"operator is killed", 10966377552461702306},
			{"operator leads", 6254680884318137981}, {"marker is removed", 2126546387329587928},
			{"time passes, with work", 2380802634408849503}, {"identity is confirmed", 7552648399643663825},
			{"cluster is copied, and the marker removed", 15694671098422334031}, {"leader is deposed", 8301339620002378561},
		}},
		// The leader ended before it could put back the nonce that somebody had removed, and nobody stood by. An earlier leader's request
		// was late, and brought back one that the copy, which watched since before, knew.
		{"a nonce that comes back proves little", 7340133, []line{
			{"time passes, with work", 14945992884462677318}, {"operator is killed", 16347146005213267413},
			{"operator leads with old lists", 13538289756036340100}, {"cluster is copied, and the marker removed", 8860193641207590073},
			{"leader is deposed", 10777979765309935478},
		}},
		// Ten fast applications, too few to be an outage by themselves, had been closed as idle when ten slow ones came to be missed.
		{"who was closed in an outage is missed in it", 2099174, []line{
			{"time passes, with work", 5788126855567662423}, {"pod is created", 2302599854651036425},
			{"pod is deleted", 3132458065027685662}, {"pod is force-deleted", 8037941265406614974},
			{"kubelet ends a pod", 15507377699855756563}, {"credentials are another account's", 7683096918111500667},
			{"pod is deleted", 15172336344976737597}, {"pod is force-deleted", 13000081724076312439},
			{"Lease is forged", 13024414556825915849}, {"policy is restored", 17122609231841374487},
			{"ReplyHost is deleted", 5118318343997904244}, {"ReplyHost changes", 6853478158634541248},
			{"reconcile anything", 4273041875011200608}, {"Stable pod is replaced", 16084667694653580854},
			{"heartbeats of a crowd are lost", 5912202642389209842}, {"node is lost", 12522261290312730130},
			{"Stable pod comes while its queue is about to be closed", 15554770665366826797}, {"time passes, with work", 2465931271585745360},
		}},
		// A Stable queue had gone over to a successor, and a deposed leader without news of pods wrote its first reader's Lease anew.
		{"a Lease of who read a queue before is swept", 1050102, []line{
			{"watch of pods hangs", 13925719831240208206}, {"Stable pod is replaced, unseen by the next leader", 12115495736517415722},
			{"watch of records hangs", 16082504514857421723}, {"leader is deposed", 4723616656487988232},
			{"operator leads with old lists", 18325517411055154059}, {"a Lease is written late", 14843850559389808359},
		}},
		// An outage was over when enough of the fast were heard again, and no slow one could be missed for long after: its count had begun
		// anew. The rest of the fast were closed.
		{"who was missed in an outage is missed on", 1051401, []line{
			{"ReplyHost changes", 9015313061376692609}, {"heartbeats are lost for long", 12430682194713203701},
			{"cluster is copied", 4239875642759774653}, {"operator works", 15466735751347301976},
			{"heartbeats return one by one", 4668695766687439131},
		}},
	} {
		t.Run(broke.name, func(t *testing.T) {
			var script []move
			for _, m := range broke.lines {
				script = append(script, move{slices.IndexFunc(actions, func(a action) bool { return a.name == m.name }), m.arg})
			}
			if v := replay(mutant{}, broke.seed, script, nil); v != nil {
				t.Error(v)
			}
		})
	}
}

// TestSeedsReplay holds the model to its word that a seed says everything: whatever number of processors there is, the
// same is said, word for word.
func TestSeedsReplay(t *testing.T) {
	aloud := func(seed uint64, processors int) string {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		var b strings.Builder
		o := episode(mutant{}, seed, func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
		fmt.Fprintf(&b, "%v %x %v\n", o.script, o.hash, o.violation)
		return b.String()
	}
	for n := range uint64(4) {
		first := aloud(firstSeed()+n, 1)
		for _, processors := range []int{1, 2} {
			if again := aloud(firstSeed()+n, processors); again != first {
				t.Errorf("seed %d, on %d processors, is played otherwise than before", firstSeed()+n, processors)
			}
		}
	}
}
