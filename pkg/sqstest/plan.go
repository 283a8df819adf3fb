package sqstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Fault is one way in which SQS, or the network before it, can be nasty.
type Fault string

// Faults of single requests. What they strike is chosen by the rule's patterns, probability and counts.
const (
	// Throttle answers RequestThrottled (403) and does nothing.
	Throttle Fault = "Throttle"
	// ServerError answers InternalError (500) and does nothing.
	ServerError Fault = "ServerError"
	// ServerErrorAfter does the thing and then answers InternalError (500).
	ServerErrorAfter Fault = "ServerErrorAfter"
	// HTMLUnavailable answers 503 with an HTML page, as a load balancer does, and does nothing.
	HTMLUnavailable Fault = "HTMLUnavailable"
	// DropBefore closes the connection and does nothing.
	DropBefore Fault = "DropBefore"
	// DropAfter does the thing and then closes the connection. A receive's messages stay in flight.
	DropAfter Fault = "DropAfter"
	// BlackHole does nothing and answers nothing until the client gives up.
	BlackHole Fault = "BlackHole"
	// Delay waits for Duration and then goes on as usual: the way there.
	Delay Fault = "Delay"
	// DelayAfter does the thing and answers Duration later: the way back. A long poll's Duration begins when it has its
	// messages, which are in flight meanwhile, and stay so if the client goes away.
	DelayAfter Fault = "DelayAfter"
	// SlowBody does the thing, and takes Duration to send the answer's body. An empty body is no occasion.
	SlowBody Fault = "SlowBody"
	// CutBody does the thing, and breaks the connection in the middle of the answer's body. An empty body is no occasion.
	CutBody Fault = "CutBody"
	// ExpiredCredentials answers ExpiredToken (403) and does nothing.
	ExpiredCredentials Fault = "ExpiredCredentials"
	// AccessDenied answers AccessDenied (403) and does nothing.
	AccessDenied Fault = "AccessDenied"
	// ClockSkew shows the client a server's clock that is off by Duration (either way), in the Date header; a request
	// signed more than five minutes off that clock is refused, as the signature check of AWS does.
	ClockSkew Fault = "ClockSkew"
	// NotInFlight answers ChangeMessageVisibility, and the entries of its batch, with MessageNotInflight (400): an answer
	// that the API reference has, and that nobody is known to have got from AWS.
	NotInFlight Fault = "NotInFlight"
	// AbandonPoll keeps what a long poll was given whose client had gone by then in flight, until the visibility timeout has
	// passed, as AWS does; otherwise it is put back. With a Duration, a poll also waits on for that long after its client
	// went, and takes what comes.
	AbandonPoll Fault = "AbandonPoll"
	// DeleteUnderPoll deletes the queue, Duration after a ReceiveMessage on it began.
	DeleteUnderPoll Fault = "DeleteUnderPoll"
)

// Faults of messages, entries and reads.
const (
	// Duplicate leaves a copy of a message that a receive gets in the queue, with the same MessageId, for another receive to
	// get too, Duration later (0: at once). As with SQS, "on rare occasions", the copy knows nothing of the receive, nor of
	// the deletion of the original: it comes although the original was deleted in time, and has to be deleted itself.
	// A copy is not copied again. Standard queues.
	Duplicate Fault = "Duplicate"
	// Reorder lets a sent message change places with another that waits. Standard queues.
	Reorder Fault = "Reorder"
	// DeliveryLag keeps a sent message from receives for Duration. Standard queues.
	DeliveryLag Fault = "DeliveryLag"
	// PartialBatch fails single entries of batches, with InternalError and SenderFault false.
	PartialBatch Fault = "PartialBatch"
	// IgnoreOldHandles lets a delete by the handle of an earlier receive succeed and delete nothing, as the API reference
	// allows. Without it the message is deleted, as it has been seen on AWS. Standard queues.
	IgnoreOldHandles Fault = "IgnoreOldHandles"
	// Sharded lets a receive find no more than one to nine messages, however many are there.
	Sharded Fault = "Sharded"
	// LoneWakeUp answers a long poll that found nothing at first with one message, though others came with it (in a batch,
	// say): nothing coalesces, and the others are for the next receive.
	LoneWakeUp Fault = "LoneWakeUp"
	// SlowCreate answers every request about a queue as if there were none, for Duration after its creation: "you must
	// wait at least one second after the queue is created" (CreateQueue, API reference).
	SlowCreate Fault = "SlowCreate"
	// StaleReads lets GetQueueAttributes, GetQueueUrl and ListQueueTags answer as before the last change for Duration
	// after it: with the old settings and tags, as if a new queue were not there, or a deleted one still were. The
	// ApproximateNumberOf… attributes are those of Duration ago.
	StaleReads Fault = "StaleReads"
	// ListLag lets ListQueues miss a queue for Duration after its creation, and list it for Duration after its deletion.
	ListLag Fault = "ListLag"
	// LostSends answers sends with success for Duration (at most 60 s) after the queue's deletion, and loses them.
	LostSends Fault = "LostSends"
)

var allFaults = []Fault{
	Throttle, ServerError, ServerErrorAfter, HTMLUnavailable, DropBefore, DropAfter, BlackHole, Delay, DelayAfter, SlowBody,
	CutBody, ExpiredCredentials, AccessDenied, ClockSkew, NotInFlight, AbandonPoll, DeleteUnderPoll,
	Duplicate, Reorder, DeliveryLag, IgnoreOldHandles, PartialBatch, Sharded, LoneWakeUp, SlowCreate, StaleReads, ListLag, LostSends,
}

// timed are the faults that mean nothing without a Duration.
var timed = []Fault{Delay, DelayAfter, SlowBody, ClockSkew, DeliveryLag, SlowCreate, StaleReads, ListLag, LostSends}

// spreadable are the faults whose Duration a Spread can vary.
var spreadable = []Fault{Delay, DelayAfter, SlowBody, DeliveryLag}

// lasting are the faults that a Duration means something to.
var lasting = append([]Fault{Duplicate, DeleteUnderPoll, AbandonPoll}, timed...)

// strikesAt are the actions that have occasions for a fault; faults that are absent have them with every action.
var strikesAt = map[Fault][]string{
	SlowCreate: {
		"AddPermission", "CancelMessageMoveTask", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "DeleteMessage",
		"DeleteMessageBatch", "DeleteQueue", "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues",
		"ListMessageMoveTasks", "ListQueueTags", "PurgeQueue", "ReceiveMessage", "RemovePermission", "SendMessage",
		"SendMessageBatch", "SetQueueAttributes", "StartMessageMoveTask", "TagQueue", "UntagQueue",
	},
	NotInFlight:      {"ChangeMessageVisibility", "ChangeMessageVisibilityBatch"},
	AbandonPoll:      {"ReceiveMessage"},
	DeleteUnderPoll:  {"ReceiveMessage"},
	Duplicate:        {"ReceiveMessage"},
	Sharded:          {"ReceiveMessage"},
	LoneWakeUp:       {"ReceiveMessage"},
	Reorder:          {"SendMessage"},
	DeliveryLag:      {"SendMessage"},
	LostSends:        {"SendMessage", "SendMessageBatch"},
	IgnoreOldHandles: {"DeleteMessage"},
	PartialBatch:     {"ChangeMessageVisibilityBatch", "DeleteMessageBatch", "SendMessageBatch"},
	StaleReads:       {"GetQueueAttributes", "GetQueueUrl", "ListQueueTags"},
	ListLag:          {"ListQueues"},
}

// onStandard are the faults of standard queues only.
var onStandard = []Fault{Duplicate, Reorder, DeliveryLag, IgnoreOldHandles}

// inMilliseconds are the faults whose Duration is compared with the times of queues and messages, which are milliseconds.
var inMilliseconds = []Fault{Duplicate, DeliveryLag, SlowCreate, StaleReads, ListLag, LostSends}

// instead are the faults that are a request's whole answer. Of several that strike one request, the first of these is it.
var instead = []Fault{BlackHole, DropBefore, HTMLUnavailable, Throttle, ServerError, ExpiredCredentials, AccessDenied}

// minProbability is the least there is: chance is drawn from 32 bits, so that one much below would strike more often than it
// says, and no run has so many occasions.
const minProbability = 1e-9

// maxSpread keeps a Spread from making hours of milliseconds.
const maxSpread = 3

// Rule says when a fault strikes. The zero values of everything but Fault mean: always, everywhere.
//
// An occasion is a time when the fault could make a difference: a request of a matching action, a message sent or
// received, an entry of a batch, a read within Duration after a change. Occasions are counted for each rule, action and
// queue name apart, and Skip, Count and Probability are about that count.
type Rule struct {
	Fault Fault `json:"fault"`
	// Action is a pattern (package path) of actions, such as "SendMessage" or "*Batch". For faults of messages it is
	// SendMessage (Reorder, DeliveryLag), ReceiveMessage (Duplicate, LoneWakeUp) or DeleteMessage (IgnoreOldHandles), even
	// when a batch brought them.
	Action string `json:"action,omitempty"`
	// Queue is a pattern of queue names.
	Queue string `json:"queue,omitempty"`
	// Probability of striking, from 1e-9 to 1; 0 is always. It is drawn in steps of 2^-32.
	Probability float64 `json:"probability,omitempty"`
	// Skip lets that many occasions pass first, of each action on each queue.
	Skip int `json:"skip,omitempty"`
	// Count is how often the rule strikes at most, for each action on each queue; 0 is no limit.
	Count int `json:"count,omitempty"`
	// Duration is what the fault says it is.
	Duration time.Duration `json:"-"`
	// Spread, from 0 to 3, lets the Duration of Delay, DelayAfter, SlowBody and DeliveryLag vary as networks do, lognormally:
	// Duration is the median, and Spread the standard deviation of the time's logarithm. At 0.4, one in six takes longer
	// than 1.5 times Duration, and one in a hundred longer than 2.5 times. 0 is always Duration.
	Spread float64 `json:"spread,omitempty"`
}

// Plan is everything that is to go wrong. It is a value: its String can be put into a test's log, and ParsePlan of that
// brings the same faults upon the same requests again. Whether a rule strikes the n-th occasion of an action on a queue, and
// how long a spread Duration then is, depends on the plan alone: its seed, the rule's place in it, the action, the queue's
// name and n. Other queues and other actions make no difference. So a replay is exact for
// whatever asks in the same order, and at the same times where time decides what is an occasion (SlowCreate, StaleReads,
// ListLag and LostSends are about what lies less than Duration back); which of two concurrent requests of one action on one
// queue is the n-th, no seed decides.
type Plan struct {
	Seed  uint64 `json:"seed,omitempty"`
	Rules []Rule `json:"rules"`
}

// String is the plan as JSON, for ParsePlan.
func (p Plan) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Sprintf("invalid plan: %v", err)
	}
	return string(b)
}

// ParsePlan reads what String wrote, or what a person wrote in that form:
//
//	{"seed":7,"rules":[{"fault":"Delay","action":"SendMessage*","probability":0.1,"duration":"2s"}]}
//
// It refuses a rule that could never strike, and says in which field: an action without occasions for the fault, a name that
// no queue can have, a FIFO queue's with a fault of standard queues, a Duration below what the fault counts in (a millisecond,
// for those that concern times of queues and messages), a Probability below 1e-9, or another rule, of the same fault or for
// another whole answer, that always strikes first, as far as the patterns of the two can be compared.
func ParsePlan(s string) (Plan, error) {
	var p Plan
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("fault plan: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Plan{}, errors.New("fault plan: there is more after it")
	}
	if err := p.check(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// AWSLike is a plan of how a healthy SQS differs from a server in memory, for benchmarks: requests take some ten
// milliseconds, half there and half back, lognormally spread (median 10 ms, one in a hundred beyond 20 ms); a receive
// finds between one and ten of the messages that are there; a message that wakes a long poll comes alone; and a poll that
// is cancelled keeps what it was given. Nothing fails. The shape is SQS's; the numbers are a same-region client's, rounded, and no measurement of yours.
func AWSLike(seed uint64) Plan {
	return Plan{Seed: seed, Rules: []Rule{
		{Fault: Delay, Duration: 5 * time.Millisecond, Spread: 0.4},
		{Fault: DelayAfter, Duration: 5 * time.Millisecond, Spread: 0.4},
		{Fault: Sharded, Probability: 0.9},
		{Fault: LoneWakeUp},
		{Fault: AbandonPoll},
	}}
}

func (p Plan) check() error {
	for i, r := range p.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("fault plan: rule %d: %w", i, err)
		}
		for j, other := range p.Rules {
			if i != j && other.hides(r, j < i) {
				return fmt.Errorf("fault plan: rule %d: %s never strikes, since rule %d, %s, always does so first", i, r.Fault, j, other.Fault)
			}
		}
	}
	return nil
}

// hides reports whether a rule strikes whenever another could, and is asked first: as far as their patterns can be compared.
func (r Rule) hides(other Rule, earlier bool) bool {
	if r.Probability != 0 && r.Probability != 1 || r.Skip != 0 || r.Count != 0 || !coversQueue(r.Queue, other.Queue) {
		return false
	}
	mine, its := slices.Index(instead, r.Fault), slices.Index(instead, other.Fault)
	switch {
	case r.Fault == other.Fault:
		return earlier && r.longEnough(other) && r.coversActions(other)
	case mine >= 0 && its >= 0:
		return mine < its && r.coversActions(other)
	default: // a fault of a later moment may strike a request that began under another plan
		return false
	}
}

// longEnough reports whether a rule has the occasions of another of its fault, as far as Duration has a say in that.
func (r Rule) longEnough(other Rule) bool {
	switch r.Fault {
	case SlowCreate, ListLag: // so long after a change
		return r.Duration >= other.Duration
	case StaleReads, LostSends, AbandonPoll:
		return r.Duration == other.Duration
	default:
		return true
	}
}

// actions are those at which the rule can strike.
func (r Rule) actions() []string {
	of := strikesAt[r.Fault]
	if of == nil {
		of = slices.Sorted(maps.Keys(actions))
	}
	return slices.DeleteFunc(slices.Clone(of), func(action string) bool { return !matches(r.Action, action) })
}

func (r Rule) coversActions(other Rule) bool {
	mine := r.actions()
	return !slices.ContainsFunc(other.actions(), func(action string) bool { return !slices.Contains(mine, action) })
}

// coversQueue reports whether a pattern matches whatever another does, as far as that is easily told.
func coversQueue(pattern, of string) bool {
	return pattern == "" || pattern == "*" || pattern == of || of != "" && !strings.ContainsAny(of, `*?[\`) && matches(pattern, of)
}

// check refuses what makes no sense, and what could never strike. It names the field.
func (r Rule) check() error {
	switch {
	case !slices.Contains(allFaults, r.Fault):
		return fmt.Errorf("fault: there is no %q", r.Fault)
	case !(r.Probability >= 0 && r.Probability <= 1): // and so no NaN
		return fmt.Errorf("probability: %v is not between 0 and 1", r.Probability)
	case r.Probability > 0 && r.Probability < minProbability:
		return fmt.Errorf("probability: %v is below %v, and would never strike", r.Probability, minProbability)
	case r.Skip < 0:
		return fmt.Errorf("skip: %d is negative", r.Skip)
	case r.Count < 0:
		return fmt.Errorf("count: %d is negative", r.Count)
	case !(r.Spread >= 0 && r.Spread <= maxSpread):
		return fmt.Errorf("spread: %v is not between 0 and %d", r.Spread, maxSpread)
	case r.Spread != 0 && !slices.Contains(spreadable, r.Fault):
		return fmt.Errorf("spread: %s has none", r.Fault)
	}
	if err := r.checkDuration(); err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	return r.checkPatterns()
}

func (r Rule) checkDuration() error {
	switch {
	case r.Duration == 0 && slices.Contains(timed, r.Fault):
		return fmt.Errorf("%s needs one", r.Fault)
	case r.Duration != 0 && !slices.Contains(lasting, r.Fault):
		return fmt.Errorf("%s has none", r.Fault)
	case r.Duration < 0 && r.Fault != ClockSkew:
		return fmt.Errorf("%v is negative", r.Duration)
	case r.Duration != 0 && r.Duration < time.Millisecond && slices.Contains(inMilliseconds, r.Fault):
		return fmt.Errorf("%v is less than the millisecond in which %s counts", r.Duration, r.Fault)
	}
	return nil
}

// checkPatterns refuses patterns that match no action, or no queue, on which the fault has an occasion.
func (r Rule) checkPatterns() error {
	if _, err := parsePattern(r.Action); err != nil {
		return fmt.Errorf("action: pattern %q: %w", r.Action, err)
	}
	kinds, err := kindsOf(r.Queue)
	if err != nil {
		return fmt.Errorf("queue: pattern %q: %w", r.Queue, err)
	}
	of := r.actions()
	switch {
	case len(of) == 0:
		return fmt.Errorf("action: %s never strikes %q", r.Fault, r.Action)
	case !kinds.standard && !kinds.fifo:
		return fmt.Errorf("queue: %w", errNoSuchName(r.Queue))
	case len(of) == 1 && of[0] == "ListQueues":
		if !kinds.none {
			return fmt.Errorf("queue: %s never strikes %q: ListQueues is about no queue", r.Fault, r.Queue)
		}
	case slices.Contains(onStandard, r.Fault) && !kinds.standard:
		return fmt.Errorf("queue: %s never strikes %q: it is a fault of standard queues", r.Fault, r.Queue)
	}
	return nil
}

// plainRule is Rule without its methods.
type plainRule Rule

type ruleJSON struct {
	plainRule
	Duration string `json:"duration,omitempty"`
}

// MarshalJSON writes Duration in Go's notation ("1m30s").
func (r Rule) MarshalJSON() ([]byte, error) {
	j := ruleJSON{plainRule: plainRule(r)}
	if r.Duration != 0 {
		j.Duration = r.Duration.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Rule) UnmarshalJSON(b []byte) error {
	var j ruleJSON
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return err
	}
	*r = Rule(j.plainRule)
	if j.Duration == "" {
		return nil
	}
	var err error
	r.Duration, err = time.ParseDuration(j.Duration)
	return err
}
