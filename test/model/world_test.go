package model

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// world is everything: a cluster, SQS, the operators, and the pods with their processes.
type world struct {
	mutant    mutant
	namespace string
	cluster   *cluster
	sqsServer *sqstest.Server
	sqsClock  *sqstest.ManualClock
	sqs       *sqs.Client

	// now is the time since the world began, by no clock in particular.
	now time.Duration
	// operatorSkew and podSkew are by how much their wall clocks are wrong.
	operatorSkew, podSkew time.Duration

	// leader leads; zombies did, and do not know yet. flying are requests whose process is gone.
	leader  *operator
	zombies []*operator
	flying  []*call
	// standby is the process that waits for its turn to lead. copies are the operators of copies of the cluster.
	standby   *operator
	copies    []*operator
	operators int
	beacons   int
	requests  int

	// down: the API server answers nobody. lost: heartbeats do not reach it, everything else does.
	down, lost     bool
	downSince      time.Duration
	lostSince      time.Duration
	unguardedSince time.Duration

	pods    []*pod
	byUID   map[string]*pod
	queues  map[string]*reply
	foreign map[string]string
	alias   map[string]string
	// taken are the URLs of queues that somebody else than the operator deleted, and deleted when each was that is gone.
	taken   map[string]bool
	deleted map[string]time.Duration
	// lag says that SQS lists queues as they were, in lastList.
	lag      bool
	lastList *sqs.ListQueuesOutput
	// unwritten says that the cluster's requests to change the marker's nonce fail. sights is what the marker bore, and when.
	unwritten bool
	sights    []sight
	// elsewhere says that the operator's credentials are those of another account, whose client away is.
	elsewhere bool
	away      *sqs.Client
	// staleLists says that the API server lists records to the sweeper as they were after staleAt events.
	staleLists bool
	staleAt    int
	// allowed is how many queues a person let a sweep delete.
	allowed int

	// Backups of etcd, and when it was last set back; -1: never. oldest is, for each kind, the first place in the log that
	// an API server can answer from since. restoring says that it is being set back.
	backups    []backup
	nextBackup time.Duration
	setBackAt  time.Duration
	oldest     map[kind]int
	restoring  bool

	// alone says that the cluster is never copied.
	alone bool
	// big says that there are many pods, so that a silence of all is one of many.
	big bool

	step      int
	violation *violation
	// counts are the actions taken, happened what came of them that is worth counting.
	counts, happened map[string]int
	say              func(format string, args ...any)
	digest           interface {
		Write([]byte) (int, error)
		Sum64() uint64
	}
}

func newWorld(m mutant) *world { return newWorldOfUIDs(m, "shop", nil) }

// newWorldOfUIDs is a world in memory whose first objects get the UIDs given, in the order in which they come. By them much
// is ordered that has no other order, from a sweep's queues to a list of Leases.
func newWorldOfUIDs(m mutant, namespace string, given []types.UID) *world {
	w := emptyWorld(m, namespace)
	server := newMemory(func() metav1.Time { return metav1.NewTime(epoch.Add(w.now).Truncate(time.Second)) })
	server.given = given
	w.cluster = newCluster(server)
	w.populate()
	return w
}

// newWorldOn is a world on another API server, in a namespace of its own.
func newWorldOn(m mutant, server client.Client, namespace string) *world {
	w := emptyWorld(m, namespace)
	w.cluster = newCluster(server)
	w.populate()
	return w
}

func emptyWorld(m mutant, namespace string) *world {
	return &world{
		mutant: m, namespace: namespace, sqsClock: sqstest.NewManualClock(epoch), unguardedSince: -1, setBackAt: -1, lostSince: never,
		taken: map[string]bool{}, deleted: map[string]time.Duration{}, oldest: map[kind]int{},
		byUID: map[string]*pod{}, queues: map[string]*reply{}, foreign: map[string]string{}, alias: map[string]string{},
		counts: map[string]int{}, happened: map[string]int{}, digest: fnv.New64a(),
	}
}

// populate adds what every world begins with: two ReplyHosts, an operator, and queues of others.
func (w *world) populate() {
	w.cluster.noticed = w.noticed
	w.sqsServer = sqstest.New(sqstest.WithClock(w.sqsClock), sqstest.WithAccessKey("AWAY", awayAccount))
	w.sqs = w.sqsServer.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	w.away = w.sqsServer.Client(func(o *sqs.Options) {
		o.Retryer, o.Credentials = aws.NopRetryer{}, credentials.NewStaticCredentialsProvider("AWAY", "secret", "")
	})
	for name, tags := range map[string]map[string]string{
		"rq_c_shop_login":                              {v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest},
		"rq_c_shop_login_dlq":                          {v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindDeadLetter},
		"rq_c_r_aaaaaaaa-0000-4000-8000-000000000000":  {v1alpha1.TagCluster: "another", v1alpha1.TagKind: v1alpha1.TagKindReply},
		"rq_c_r_bbbbbbbb-0000-4000-8000-000000000000":  nil,
		"rq_c2_r_cccccccc-0000-4000-8000-000000000000": {v1alpha1.TagCluster: "another", v1alpha1.TagKind: v1alpha1.TagKindReply},
		"rq_c_r_dddddddd-0000-4000-8000-000000000000":  {v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest},
		"orders": nil,
	} {
		if _, err := w.sqs.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: &name, Tags: tags}); err != nil {
			panic(err)
		}
		w.foreign[name] = fmt.Sprintf("not ours to sweep (tags %v)", tags)
	}
	for _, name := range hostNames {
		w.must(w.cluster.create(newHost(w.namespace, name), nil))
	}
	w.must(w.cluster.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: identity.Namespace, Name: identity.Name}}, nil))
	w.leader = w.newOperator(w.cluster, w.cluster.present)
}

func (w *world) must(err error) {
	if err != nil {
		panic(err)
	}
}

func (w *world) isGuarded() bool { return w.unguardedSince < 0 }

// trace counts one step, and says what it is.
func (w *world) trace(format string, args ...any) {
	w.step++
	line := fmt.Sprintf(format, args...)
	_, _ = w.digest.Write([]byte(line))
	if w.say != nil {
		w.say("%6d %10v  %s", w.step, w.now, line)
	}
}

// everyone are the operators' processes that run.
func (w *world) everyone() []*operator {
	var all []*operator
	if w.leader != nil {
		all = append(all, w.leader)
	}
	return append(append(all, w.zombies...), w.copies...)
}

// advance lets time go by. Processes heartbeat meanwhile; operators get no time.
func (w *world) advance(d time.Duration) {
	for d > 0 {
		chunk := min(d, 5*time.Second)
		d -= chunk
		w.now += chunk
		w.sqsClock.Advance(chunk)
		w.backUp()
		for _, p := range w.pods {
			if p.process != nil && p.process.alive && !p.process.paused && p.process.next <= w.now {
				w.beat(p)
			}
		}
		for _, op := range w.everyone() {
			if op.massSilence() {
				op.massUntil = w.now
				w.happened["five seconds of a silence of nearly all"]++
			}
		}
	}
}

// tick lets time go by and gives the operators' listeners their turn.
func (w *world) tick(d time.Duration) {
	w.advance(d)
	w.trace("time passes: %v", d)
	for _, op := range w.everyone() {
		op.tick()
	}
	w.standBy()
}

// pass lets time go by while operators work; stall is for run.
func (w *world) pass(total time.Duration, random *rand.Rand, stall float64) {
	for d := time.Duration(0); d < total && w.violation == nil; d += 5 * time.Second {
		w.tick(5 * time.Second)
		w.run(random, stall, false)
	}
}

// work is something that an operator could do now.
type work struct {
	op   *operator
	kind kind     // deliver an event of it; leases: to the listener
	do   *workers // start a reconcile of it
	task *task    // make its next call
}

// possible lists what operators could do now, in an order that depends on nothing but the world.
func (w *world) possible(impatient bool) []work {
	var all []work
	for _, op := range w.everyone() {
		if op.paused {
			continue
		}
		for _, k := range watched {
			if op.behind(k) {
				all = append(all, work{op: op, kind: k})
			}
		}
		if op.listenable() {
			all = append(all, work{op: op, kind: leases})
		}
		for _, c := range op.controllers {
			if c.queue.ready(impatient) > 0 && op.running(c) < concurrency {
				all = append(all, work{op: op, do: c})
			}
		}
		for _, t := range op.tasks {
			if !t.stalled {
				all = append(all, work{op: op, task: t})
			}
		}
	}
	return all
}

// perform does one thing that is possible.
func (w *world) perform(x work, arg uint64) {
	switch {
	case x.task != nil:
		w.perform1(x.task)
	case x.do != nil:
		n := int(arg % uint64(len(x.do.queue.order)))
		w.trace("operator %d: reconcile %s %s", x.op.id, x.do.name, x.do.queue.order[n].Name)
		x.op.reconcile(x.do, n)
	case x.kind == leases:
		w.trace("operator %d: hear of a Lease", x.op.id)
		x.op.listen()
	default:
		w.trace("operator %d: see a %s", x.op.id, x.kind)
		x.op.deliver(x.kind)
	}
}

// perform1 makes a task's next call.
func (w *world) perform1(t *task) {
	c := t.pending
	w.traceCall(c, "")
	c.run()
	t.resume()
}

func (w *world) traceCall(c *call, how string) {
	name := ""
	if c.task != nil {
		name = c.task.name
	}
	w.trace("operator %d: %s: %s %s%s", c.op.id, name, c.verb, c.target, how)
}

// run lets the operators work until there is nothing to do, in an order of the random numbers. Each call is left hanging
// with the probability of stall.
func (w *world) run(random *rand.Rand, stall float64, impatient bool) {
	for range w.patience() {
		all := w.possible(impatient)
		if len(all) == 0 || w.violation != nil {
			return
		}
		x := all[random.IntN(len(all))]
		chance := stall
		if x.task != nil && x.task.pending.closes() {
			chance = min(1, 4*stall)
		}
		if x.task != nil && random.Float64() < chance {
			x.task.stalled = true
			continue
		}
		w.perform(x, random.Uint64())
	}
	if len(w.zombies) == 0 {
		w.violate("P6", "the operator never comes to rest")
	}
}

// until lets time go by while operators work, up to the moment when something is so, and reports whether that came.
func (w *world) until(total time.Duration, random *rand.Rand, so func() bool) bool {
	for began := w.now; w.violation == nil; w.tick(5 * time.Second) {
		for range w.patience() {
			if so() {
				return true
			}
			all := w.possible(false)
			if len(all) == 0 || w.violation != nil {
				break
			}
			w.perform(all[random.IntN(len(all))], random.Uint64())
		}
		if w.now-began >= total {
			return false
		}
	}
	return false
}

// patience is how many things an operator may have to do until it rests: a watch that hung may have thousands of events to
// tell, and what is tried by an old cache is tried again until they are told. Two that believe to lead may count the silent
// pods of a ReplyHost differently, and write that in turns while both live. Or one whose watch of pods hangs makes records of pods that
// the other closes, as often as both get time; the processes end within seconds in life, and here leave all of these to be tidied.
func (w *world) patience() int {
	if len(w.zombies) > 0 {
		return 1000
	}
	untold := 0
	for _, op := range w.everyone() {
		for _, k := range watched {
			untold += len(op.cluster.log[k]) - op.views[k].at
		}
	}
	return 6_000 + 10*untold + 30*len(w.cluster.now[records])
}

// kill ends a process. Its requests under way are lost, or have their effect, now or later: two bits of fate for each.
func (w *world) kill(op *operator, fate uint64) {
	for _, t := range slices.Clone(op.tasks) {
		c := t.pending
		switch fate & 3 {
		case 1:
			w.traceCall(c, " (its last)")
			c.run()
		case 2, 3:
			w.flying = append(w.flying, c)
		}
		fate = fate>>2 | fate<<62
		t.kill()
	}
	op.dead, op.tasks = true, nil
	op.cancel()
	if w.leader == op {
		w.leader = nil
	}
	w.zombies = slices.DeleteFunc(w.zombies, func(z *operator) bool { return z == op })
	w.copies = slices.DeleteFunc(w.copies, func(z *operator) bool { return z == op })
}

// arrive has a request arrive whose process is gone.
func (w *world) arrive(n int) {
	c := w.flying[n]
	w.flying = slices.Delete(w.flying, n, n+1)
	w.traceCall(c, " (it arrives late)")
	w.happened["a request of a process that is gone arrives"]++
	c.run()
}

// collect is Kubernetes' garbage collector: what an owner that is gone owned is deleted.
func (w *world) collect() bool {
	done := false
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) {
		owner := metav1.GetControllerOf(r)
		if owner == nil || r.DeletionTimestamp != nil {
			return
		}
		h := w.cluster.now[hosts][types.NamespacedName{Namespace: r.Namespace, Name: owner.Name}]
		if h == nil || h.GetUID() != owner.UID {
			done = true
			w.must(client.IgnoreNotFound(w.cluster.remove(r.DeepCopy(), nil)))
		}
	})
	return done
}

// rest ends everything that is wrong with the world and lets it come to rest.
func (w *world) rest(random *rand.Rand) {
	w.trace("everything is mended, and comes to rest")
	w.unwritten = false
	w.comeBack()
	w.lost, w.lag, w.unguardedSince, w.elsewhere, w.staleLists = false, false, -1, false, false
	for _, p := range w.pods {
		p.muted = false
	}
	for len(w.flying) > 0 {
		w.arrive(0)
	}
	for _, z := range slices.Clone(w.zombies) {
		w.kill(z, 0)
	}
	if w.leader == nil {
		w.leader = w.newOperator(w.cluster, w.cluster.present)
	}
	for _, op := range w.everyone() {
		op.paused, op.cut, op.deaf = false, false, map[kind]bool{}
		for _, t := range op.tasks {
			t.stalled = false
		}
	}
	began := w.now
	for still := 0; still < 100; still++ {
		if w.doubts() && w.now-began < 48*time.Minute {
			still = 0
		}
		w.confirm()
		w.collect()
		w.kubelets()
		w.tick(5 * time.Second)
		w.run(random, 0, true)
		if w.violation != nil {
			return
		}
	}
	w.judgeRest()
	w.judgeLeftovers()
	if w.violation != nil {
		return
	}
	before := w.requests
	for range 12 {
		w.tick(5 * time.Second)
		w.run(random, 0, true)
	}
	if w.requests != before && w.violation == nil {
		w.violate("P6", "%d requests to SQS in a minute in which nothing happens", w.requests-before)
	}
}

// close ends the world's processes.
func (w *world) close() {
	for _, op := range w.everyone() {
		w.kill(op, 0)
	}
	w.standby.cancel()
	w.sqsServer.Close()
}

func (w *world) queueNames() []string {
	names := make([]string, 0, len(w.queues))
	for name := range w.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) byURL(url string) *reply {
	for _, q := range w.queues {
		if q.url == url {
			return q
		}
	}
	return nil
}

// size is how many names pods of one host have.
func (w *world) size() int {
	if w.big {
		return 24
	}
	return 4
}

// setUp lets a world begin with some pods that run; every sixth with many.
func (w *world) setUp(arg uint64) {
	w.big = arg%6 == 0
	n := 3
	if w.big {
		n = 24
	}
	for i := range n {
		// Some heartbeat slowly, and some fast.
		host := hostNames[2*(i%2)]
		w.must(w.create(fmt.Sprintf("%s-%d", host, i), host, v1alpha1.HeartbeatLease, false))
	}
	w.must(w.create("db-0", "db", v1alpha1.HeartbeatLease, false))
	random := rand.New(rand.NewPCG(arg, 4))
	for range 3 {
		w.tick(time.Second)
		w.run(random, 0, false)
	}
	for _, p := range w.pods {
		if p.open {
			w.bind(p)
			w.must(w.report(p, corev1.PodRunning))
		}
	}
	w.run(random, 0, false)
}

// budget is how many actions a world lives for.
func (w *world) budget() int {
	if w.big {
		return 90
	}
	return 60
}

// rank is a pod's place in the order in which pods came.
func (w *world) rank(uid types.UID) int {
	return slices.IndexFunc(w.pods, func(p *pod) bool { return p.uid == string(uid) })
}
