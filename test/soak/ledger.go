package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// ledger is what the server, the handlers and the callers said, each of its own knowledge.
type ledger struct {
	mu      sync.Mutex
	calls   map[string]*record
	ids     map[string]string // keys by call ID
	killed  map[string]bool   // responders
	broken  []string          // what the requesters found wrong with what they got
	strikes map[fault]int
	given   map[string][]string // keys that a responder was given, by its access key
	slack   time.Duration       // what a call may end, and an execution begin, after the deadline, beyond the usual
	stalls  stalls              // when processes stood still for want of a turn
}

// record is one call.
type record struct {
	key   string
	owner string // requester process
	what  string // method
	start time.Time
	limit time.Duration

	ends    int
	outcome string // "OK", or the error's
	code    string
	answer  string // key in the answer
	took    time.Duration
	lost    bool // its process was killed before it ended

	queue    string // reply queue it was sent for
	callID   string
	taken    bool // the request queue took the request
	sends    int  // how often it did: an attempt each, and copies of a lost answer
	receives int  // how often responders were given it
	again    int  // how often of those it was after a handler had begun
	moved    bool // an attempt had another reply queue than the one before: to responders it is another call
	replied  bool // the reply queue took a reply
	executed []execution

	twin         bool      // SQS made a copy of its request by itself
	lostQueue    string    // reply queue that its process gave up while it was pending
	endBy        time.Time // when it had to have ended then
	struckBefore bool      // a fault without effect hit its request's send
	struck       bool      // any other fault touched it
	starved      bool      // every send of it was throttled from some moment on
	unsure       bool      // a fault that was not a throttle touched it: its requester cannot know what came of it
}

type execution struct {
	responder string
	at        time.Time
}

func newLedger() *ledger {
	return &ledger{calls: map[string]*record{}, ids: map[string]string{}, killed: map[string]bool{}, strikes: map[fault]int{}, given: map[string][]string{}}
}

// of is the record of a key. It is called with the lock held.
func (l *ledger) of(key string) *record {
	r := l.calls[key]
	if r == nil {
		r = &record{key: key}
		l.calls[key] = r
	}
	return r
}

func (l *ledger) struck(f fault, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strikes[f] += n
}

func (l *ledger) touch(keys []string, f fault, beforeEffect bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.of(k).starved = l.of(k).starved || f == starved
		l.of(k).unsure = l.of(k).unsure || f != starved && f != throttled
		if beforeEffect {
			l.of(k).struckBefore = true
		} else {
			l.of(k).struck = true
		}
	}
}

func (l *ledger) began(key, owner, what string, start time.Time, limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(key)
	r.owner, r.what, r.start, r.limit = owner, what, start, limit
}

func (l *ledger) over(key, outcome, code, answer string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(key)
	r.ends++
	r.outcome, r.code, r.answer, r.took = outcome, code, answer, took
}

func (l *ledger) execute(key, responder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(key)
	r.executed = append(r.executed, execution{responder, time.Now()})
}

// asked notes where the reply to a request is to go.
func (l *ledger) asked(keys []string, returnAddress string) {
	url, id, ok := strings.Cut(returnAddress, "#")
	if !ok {
		return // nobody awaits one
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.ids[id] = k
		r := l.of(k)
		r.moved = r.moved || r.queue != "" && r.queue != url
		r.queue, r.callID = url, id
	}
}

// callIDPattern finds what may be a call ID.
var callIDPattern = regexp.MustCompile(`[A-Za-z0-9_-]{34,}`)

// keysOfReplies are the calls that a text answers, by their IDs: an error, or a stream's end, says no key.
func (l *ledger) keysOfReplies(text string) (keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range callIDPattern.FindAllString(text, -1) {
		if k, ok := l.ids[id]; ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// took notes messages that a queue took.
func (l *ledger) took(keys []string, queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		r := l.of(k)
		if !isRequestQueue(queue) {
			r.replied = true
			continue
		}
		r.taken = true
		r.sends++
	}
}

// contradicted notes that what a requester got contradicts itself.
func (l *ledger) contradicted(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, what)
}

func (l *ledger) handedOut(keys []string, responder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given[responder] = append(l.given[responder], keys...)
	for _, k := range keys {
		r := l.of(k)
		if r.receives++; len(r.executed) > 0 {
			r.again++
		}
	}
}

// twinned notes requests of which SQS gave out the same receive twice.
func (l *ledger) twinned(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.of(k).twin = true
	}
}

// queueReplaced notes that a process was told of a new reply queue: what was pending on the old one must end.
func (l *ledger) queueReplaced(owner, queue string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.calls {
		if r.owner == owner && r.ends == 0 && r.taken && r.queue != "" && r.queue != queue {
			r.lostQueue, r.endBy = r.queue, at.Add(deadlineSlack+l.slack)
		}
	}
}

// responderKilled touches what a responder had and had not answered.
func (l *ledger) responderKilled(responder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed[responder] = true
	for _, k := range l.given[responder] {
		if r := l.of(k); (!r.replied || r.what == stream) && r.ends == 0 {
			r.struck = true
			l.strikes[killed]++
		}
	}
	delete(l.given, responder)
}

// requesterKilled gives up the calls of a process.
func (l *ledger) requesterKilled(owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.calls {
		if r.owner == owner && r.ends == 0 {
			r.lost = true
			l.strikes[killed]++
		}
	}
}

// queueLost touches the calls of a process that were pending while it had no working reply queue.
func (l *ledger) queueLost(owner string, from time.Time, deleted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.calls {
		if r.owner == owner && (r.ends == 0 || r.start.Add(r.took).After(from)) {
			r.struck = true
			if deleted {
				l.strikes[queueGone]++
			}
		}
	}
}

// pick returns a call for a forger: pending, over, of another process than owner, or of another queue.
func (l *ledger) pick(ok func(*record) bool) (r record, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls { // in no order
		if c.callID != "" && ok(c) {
			return *c, true
		}
	}
	return record{}, false
}

// report is what the ledger shows at the end.
type report struct {
	calls, outcomes                     int
	misrouted, overdue                  []string
	executedAnyway, takenAnyway         []string       // NotSent or Rejected, and yet
	doubtful                            []string       // certainly not sent, and not said to be
	stoodStill, longestStill            time.Duration  // some process or other, and one at once at most
	stalled                             int            // calls that met so much of it that nothing is asked of them but their end
	unexplained                         []string       // an answer without an execution
	broken                              []string       // answers that contradict themselves
	notGiven                            []string       // notifications that SQS took, and nobody executed
	lingered                            []string       // calls that outlived their reply queue
	shown                               []string       // requests that were not kept hidden while they were handled
	byTwo                               []string       // executions by two processes that share a store
	recalled                            int            // claims that the shared store refused
	kinds                               map[string]int // calls that ended well, by method or form
	twice, afterDeadline                []string
	untouched, untouchedWell            int
	beforeEffect, beforeEffectWell      int
	faults                              int
	strikes                             map[fault]int
	outcomesBy                          map[string]int
	took                                time.Duration // while faults struck
	exampleOfUntouched, exampleOfBefore []string
}

// deadlineSlack is what a call may end after its deadline, and clockSlack what an execution may begin after
// it: the request was looked at before, and a busy machine takes its time to run the handler.
const (
	deadlineSlack = time.Second
	clockSlack    = 1500 * time.Millisecond
	// stillEnough is how long processes may stand still during a call before it may fail for that: half of the
	// shortest deadline, and what is left of a request's visibility when it is renewed.
	stillEnough = shortest / 2
)

func (l *ledger) report() report {
	l.mu.Lock()
	defer l.mu.Unlock()
	rep := report{strikes: maps.Clone(l.strikes), outcomesBy: map[string]int{}, broken: l.broken, kinds: map[string]int{}}
	for _, n := range l.strikes {
		rep.faults += n
	}
	for _, r := range l.calls {
		if r.owner == "" {
			continue // its process was killed before it could say that it began
		}
		rep.calls++
		end := r.start.Add(r.took)
		if r.ends == 0 {
			end = r.start.Add(r.limit)
		}
		still := l.stalls.any(r.start, end)
		rep.executions(r, l, still)
		if r.lost && r.ends == 0 {
			continue
		}
		rep.outcomes += r.ends
		if deadline := r.start.Add(r.limit); r.ends != 1 || r.took > r.limit+deadlineSlack+l.slack+l.stalls.of(r.owner, deadline, end) {
			rep.overdue = append(rep.overdue, fmt.Sprintf("%s ended %d times, after %s of %s", r.key, r.ends, r.took, r.limit))
			continue
		}
		if r.lingered(end, l.stalls.any(r.endBy.Add(-deadlineSlack), end)) {
			rep.lingered = append(rep.lingered, r.String())
		}
		rep.outcomesBy[r.outcome+" "+r.code]++
		rep.outcome(r, still)
	}
	rep.stoodStill, rep.longestStill = l.stalls.total()
	return rep
}

func (rep *report) executions(r *record, l *ledger, still time.Duration) {
	byProcess := map[string]int{}
	// A stream of which SQS did not take every frame is run again. And so is a call of which SQS made a copy by itself,
	// should that copy have been refused, and the next attempt have another reply queue.
	again := r.what == stream && (r.struck || r.struckBefore) || r.twin && r.moved
	excused := again
	for _, e := range r.executed {
		if byProcess[e.responder]++; byProcess[e.responder] == 2 && !again {
			rep.twice = append(rep.twice, fmt.Sprintf("by %s, %s after its start: %s; sent %d, received %d times", e.responder, e.at.Sub(r.start), r, r.sends, r.receives))
		}
		if late := e.at.Sub(r.start.Add(r.limit)); r.what != notify && late > clockSlack+l.slack+l.stalls.any(r.start, e.at) {
			rep.afterDeadline = append(rep.afterDeadline, fmt.Sprintf("%s, %s after its deadline", r.key, late))
		}
		excused = excused || l.killed[e.responder] // before it told the store, or its answer was lost with it
	}
	excused = excused || still >= stillEnough // whoever stands still for so long renews nothing
	// A poll whose process was killed may have been given it before, and then nobody handled it.
	if r.what == slow && r.again > 0 && !r.twin && !r.struck && !r.struckBefore && !excused {
		rep.shown = append(rep.shown, fmt.Sprintf("%s; sent %d, received %d times, %d of them while it ran, by %v", r, r.sends, r.receives, r.again, byProcess))
	}
	if r.shared() && len(byProcess) > 1 && !excused {
		rep.byTwo = append(rep.byTwo, fmt.Sprintf("%s %s by %v", r.what, r.key, byProcess))
	}
}

// lingered reports whether a call that ended then outlived the reply queue it was made with by more than it may, and
// processes stood still since.
func (r *record) lingered(end time.Time, still time.Duration) bool {
	if (r.what == gather || r.what == first) && r.code != string(rpcclient.DeadlineExceeded) {
		return false // it ended before the others that it was made with, nobody saw when
	}
	return r.lostQueue != "" && r.queue == r.lostQueue && !r.struckBefore && end.After(r.endBy.Add(still))
}

// shared reports whether the call's responders share a store.
func (r *record) shared() bool { return strings.HasSuffix(r.key, keyOn(keptQueue, "")) }

func (rep *report) outcome(r *record, still time.Duration) {
	well := r.well()
	if well {
		rep.kinds[r.what]++
	}
	switch r.outcome {
	case "OK":
		if r.what == notify {
			if !r.taken || len(r.executed) == 0 {
				rep.notGiven = append(rep.notGiven, r.String())
			}
		} else if r.answer != r.key {
			rep.misrouted = append(rep.misrouted, r.key+" got "+r.answer)
		} else if len(r.executed) == 0 {
			rep.unexplained = append(rep.unexplained, r.key)
		}
	case notSent, rejected:
		// A copy that SQS made by itself may be executed beside one that was refused (docs/protocol.md), and nothing else.
		if len(r.executed) > 0 && !(r.outcome == rejected && r.twin) {
			rep.executedAnyway = append(rep.executedAnyway, fmt.Sprintf("%s is %s %s", r.key, r.outcome, r.code))
		}
		if r.outcome == notSent && r.taken {
			rep.takenAnyway = append(rep.takenAnyway, fmt.Sprintf("%s is NotSent %s", r.key, r.code))
		}
	case maybeExecuted:
		// Of what awaits no reply, this is the sends' own end; any other may have ended while a send was under way.
		sends := r.code == string(rpcclient.ResourceExhausted) || r.what == notify && r.code == string(rpcclient.Unavailable)
		if r.starved && !r.unsure && !r.taken && sends && still < stillEnough {
			rep.doubtful = append(rep.doubtful, r.String())
		}
	case executed:
		if len(r.executed) == 0 {
			rep.unexplained = append(rep.unexplained, r.key)
		}
	}
	switch {
	case still >= stillEnough && r.what != slow:
		rep.stalled++
	case !r.struck && !r.struckBefore:
		rep.untouched++
		if well {
			rep.untouchedWell++
		} else if len(rep.exampleOfUntouched) < 5 {
			rep.exampleOfUntouched = append(rep.exampleOfUntouched, r.String())
		}
	case r.struckBefore && !r.struck:
		rep.beforeEffect++
		if well || r.outcome == notSent {
			rep.beforeEffectWell++
		} else if len(rep.exampleOfBefore) < 5 {
			rep.exampleOfBefore = append(rep.exampleOfBefore, r.String())
		}
	}
}

// refused reports whether a call ended as one that a responder refused: with honest doubt where something struck, or
// responders were given it oftener than once.
func (r *record) refused(code string) bool {
	doubt := r.twin || r.sends > 1 || r.receives > 1 || r.struck || r.struckBefore
	return r.code == code && (r.outcome == rejected || r.outcome == maybeExecuted && doubt)
}

// well reports whether the call ended as it should without faults.
func (r *record) well() bool {
	switch r.what {
	case "sum", slow, stream, gather:
		return r.outcome == "OK" && r.answer == r.key
	case notify:
		return r.outcome == "OK"
	case "fail":
		return r.outcome == executed && r.code == "FAILED_PRECONDITION"
	case "cancel", first: // the caller changed its mind, or had enough
		return r.code == string(rpcclient.Canceled) || r.outcome == "OK" && r.answer == r.key
	case "busy":
		return r.outcome == "OK" && r.answer == r.key || r.refused("UNAVAILABLE")
	default: // no such method
		return r.refused("UNIMPLEMENTED")
	}
}

func (r *record) String() string {
	return fmt.Sprintf("%s %s: %s %s after %s of %s; taken %t, replied %t, executed %d times",
		r.what, r.key, r.outcome, r.code, r.took, r.limit, r.taken, r.replied, len(r.executed))
}

// bar is what a run must reach.
type bar struct {
	calls, each int // calls, and strikes of each fault
	refused     int // calls that a responder with too much to do refused
	recalled    int // copies that the shared store kept from being executed by another process
	kinds       int // calls of each form that ended well
	// shares of the calls that no fault touched, and of those struck before the effect only, that must end well
	untouched, before float64
}

// wanted is what the project promises.
var wanted = bar{calls: 20_000, each: 50, refused: 50, recalled: 20, kinds: 200, untouched: 0.99, before: 0.95}

// violations lists what the report breaks of the promises.
func (rep *report) violations(b bar) (all []violation) {
	add := func(kind string, what []string) {
		if len(what) > 0 {
			slices.Sort(what)
			all = append(all, violation{kind, fmt.Sprintf("%d, such as %s", len(what), strings.Join(what[:min(3, len(what))], "; "))})
		}
	}
	add("reply to the wrong call", rep.misrouted)
	add("not one outcome by the deadline", rep.overdue)
	add("NotSent or Rejected, and executed", rep.executedAnyway)
	add(sentAnyway, rep.takenAnyway)
	add(needlessDoubt, rep.doubtful)
	add("answered, and not executed", rep.unexplained)
	add(executedTwice, rep.twice)
	add("executed by two processes that share a reply store", rep.byTwo)
	add(shownMeanwhile, rep.shown)
	add(outlivedQueue, rep.lingered)
	add(contradicted, rep.broken)
	add("notified, and not executed", rep.notGiven)
	add(executedLate, rep.afterDeadline)
	if share := ratio(rep.untouchedWell, rep.untouched); share < b.untouched {
		all = append(all, violation{untouchedFailed, fmt.Sprintf("%.2f %% of %d succeeded; %s", share*100, rep.untouched, strings.Join(rep.exampleOfUntouched, "; "))})
	}
	if share := ratio(rep.beforeEffectWell, rep.beforeEffect); share < b.before {
		all = append(all, violation{"struck before the effect, and neither NotSent nor successful",
			fmt.Sprintf("%.2f %% of %d; %s", share*100, rep.beforeEffect, strings.Join(rep.exampleOfBefore, "; "))})
	}
	return append(all, rep.tooFew(b)...)
}

// tooFew lists what a run needs more of to show anything.
func (rep *report) tooFew(b bar) (all []violation) {
	if rep.calls < b.calls {
		all = append(all, violation{"too few calls", fmt.Sprintf("%d of %d", rep.calls, b.calls)})
	}
	if n := rep.outcomesBy[rejected+" UNAVAILABLE"]; n < b.refused {
		all = append(all, violation{"too few refusals", fmt.Sprintf("%d of %d", n, b.refused)})
	}
	if rep.recalled < b.recalled {
		all = append(all, violation{"too few copies at the reply store", fmt.Sprintf("%d of %d", rep.recalled, b.recalled)})
	}
	for _, kind := range []string{stream, gather, first, notify} {
		if n := rep.kinds[kind]; n < b.kinds {
			all = append(all, violation{"too few of a form of call", fmt.Sprintf("%s: %d of %d", kind, n, b.kinds)})
		}
	}
	for _, f := range allFaults {
		if n := rep.strikes[f]; n < b.each {
			all = append(all, violation{"too few faults", fmt.Sprintf("%s: %d of %d", f, n, b.each)})
		}
	}
	return all
}

var allFaults = []fault{
	throttled, errorBefore, errorAfter, dropBefore, dropAfter, blackHole, lateReply, partial, doubted, starved, duplicate, reordered,
	nearID, otherRun, completedID, olderQueue, queueGone, killed,
}

// Outcomes, as rpcclient prints them.
var (
	maybeExecuted = rpcclient.MaybeExecuted.String()
	notSent       = rpcclient.NotSent.String()
	rejected      = rpcclient.Rejected.String()
	executed      = rpcclient.Executed.String()
)

// Kinds of violation that a mutant must show.
const (
	executedTwice   = "executed twice by one process"
	executedLate    = "executed after the deadline"
	untouchedFailed = "calls that no fault touched failed"
	sentAnyway      = "NotSent, and in the queue"
	needlessDoubt   = "throttled each time it was sent, and not said to be NotSent"
	shownMeanwhile  = "handled by one, and given to another without need"
	outlivedQueue   = "pending after its reply queue was replaced"
	contradicted    = "an answer that contradicts itself"
)

type violation struct{ kind, what string }

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}
