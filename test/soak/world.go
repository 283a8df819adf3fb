package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const (
	requestQueue = "rq_soak_ns_work"
	keptQueue    = "rq_soak_ns_kept" // whose responders share a reply store
	executedPath = "/executed"       // where handlers tell that they run
	storePath    = "/store"          // where the reply store is
	controller   = "CONTROLLER"

	requesters = 4
	responders = 3
)

// world is one run: a server behind a gate, processes that call and answer, and a script that harms them.
type world struct {
	child    string // program
	duration time.Duration
	// enough says whether there is enough in a run whose duration is over. It goes on until there is, a sixth of the
	// duration at a time, extensions times at most: a slow machine needs longer for as much. nil: there is.
	enough func(*report) bool
	log    io.Writer
	slack  time.Duration // for a machine that does much else meanwhile
	slow   bool          // some calls take longer than a request stays hidden by itself

	server *sqstest.Server
	ledger *ledger
	gate   *gate
	store  *store
	url    string
	client *sqs.Client // the controller's, which no fault strikes

	rng   *rand.Rand
	slots []*slot
	queue int // reply queues made so far
	mu    sync.Mutex
}

// slot is the place of one process, which may be filled by one after the other.
type slot struct {
	role string
	id   string // "Q1", "S2"

	mu         sync.Mutex
	process    *process
	generation int
	replyQueue string    // URL
	since      time.Time // when its reply queue stopped working; zero: it works
	deleted    bool      // since because it was deleted
}

type process struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{} // closed when its output is read and it is gone
}

// run runs the world for its duration and reports.
func (w *world) run(ctx context.Context, seed uint64) (rep report, err error) {
	w.rng = rand.New(rand.NewPCG(seed, 1))
	w.server = sqstest.New()
	defer w.server.Close()
	// Messages come twice, out of order, and single entries of batches fail, and polls that are cancelled keep what they were
	// given, by the server's own plan.
	plan := sqstest.Plan{Seed: seed, Rules: []sqstest.Rule{
		{Fault: sqstest.Duplicate, Probability: 0.02},
		{Fault: sqstest.Reorder, Probability: 0.02},
		{Fault: sqstest.PartialBatch, Action: "*MessageBatch", Probability: 0.004},
		{Fault: sqstest.AbandonPoll},
	}}
	w.ledger = newLedger()
	w.ledger.slack = w.slack
	w.gate = &gate{server: w.server, ledger: w.ledger, rng: rand.New(rand.NewPCG(seed, 2)), ended: make(chan struct{}), given: map[string]bool{}, doomed: map[string]bool{}}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return rep, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc(executedPath, func(_ http.ResponseWriter, r *http.Request) {
		w.ledger.execute(r.URL.Query().Get("key"), r.URL.Query().Get("by"))
	})
	w.store = newStore()
	mux.Handle(storePath, w.store)
	mux.Handle("/", w.gate)
	front := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = front.Serve(listener) }()
	defer func() { w.gate.close(); _ = front.Close(); <-served }()
	w.url = "http://" + listener.Addr().String()
	w.client = sqsClient(w.url, controller)
	for _, name := range []string{requestQueue, keptQueue} {
		if _, err := w.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)}); err != nil {
			return rep, err
		}
	}
	defer w.killAll()
	for i := range responders {
		if err := w.start(ctx, &slot{role: "responder", id: fmt.Sprintf("S%d", i+1)}); err != nil {
			return rep, err
		}
	}
	for i := range requesters {
		if err := w.start(ctx, &slot{role: "requester", id: fmt.Sprintf("Q%d", i+1)}); err != nil {
			return rep, err
		}
	}
	defer startPulse(func(one stall) { w.ledger.stalls.add("server", one) })()
	w.server.SetFaults(plan)
	w.gate.setFaulty(true)
	began := time.Now()
	w.harm(ctx, w.duration)
	for range extensions {
		if rep = w.report(); w.enough == nil || w.enough(&rep) || ctx.Err() != nil {
			break
		}
		w.harm(ctx, w.duration/6)
	}
	took := time.Since(began)
	w.gate.setFaulty(false)
	if err := w.finish(); err != nil {
		return rep, err
	}
	rep = w.report()
	rep.took = took
	return rep, ctx.Err()
}

// extensions bounds how often a run is prolonged: to six times its duration.
const extensions = 30

// report is what the ledger and the server know by now.
func (w *world) report() report {
	rep := w.ledger.report()
	for i, f := range []fault{duplicate, reordered} {
		n := w.server.FaultHits()[i]
		rep.strikes[f] = n
		rep.faults += n
	}
	rep.recalled = int(w.store.recalled.Load())
	return rep
}

// start fills a slot with a new process.
func (w *world) start(ctx context.Context, s *slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation == 0 {
		w.slots = append(w.slots, s)
		if s.role == "requester" {
			url, err := w.newQueue(ctx)
			if err != nil {
				return err
			}
			s.replyQueue = url
		}
	}
	s.generation++
	p := &process{name: fmt.Sprintf("%s-%d", s.id, s.generation), ended: make(chan struct{})}
	queue := s.replyQueue
	if queue == "" {
		queue = "-"
	}
	p.cmd = exec.CommandContext(ctx, w.child)
	p.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1", roleVariable+"="+strings.Join([]string{s.role, p.name, w.url, queue}, " "))
	if w.slow {
		p.cmd.Env = append(p.cmd.Env, slowVariable+"=1")
	}
	p.cmd.Stderr = w.log
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.in = in
	s.process = p
	go func() {
		defer close(p.ended)
		w.listen(ctx, s, p, out)
		_ = p.cmd.Wait()
	}()
	return nil
}

// listen takes down what a process says.
func (w *world) listen(ctx context.Context, s *slot, p *process, out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 5 && f[0] == "began":
			start, _ := strconv.ParseInt(f[3], 10, 64)
			limit, _ := strconv.ParseInt(f[4], 10, 64)
			w.ledger.began(f[1], p.name, f[2], time.Unix(0, start), time.Duration(limit))
		case len(f) == 6 && f[0] == "ended":
			took, _ := strconv.ParseInt(f[5], 10, 64)
			w.ledger.over(f[1], f[2], f[3], f[4], time.Duration(took))
		case len(f) == 3 && f[0] == "stalled":
			from, _ := strconv.ParseInt(f[1], 10, 64)
			to, _ := strconv.ParseInt(f[2], 10, 64)
			w.ledger.stalls.add(p.name, stall{time.Unix(0, from), time.Unix(0, to)})
		case len(f) > 1 && f[0] == "broken":
			w.ledger.contradicted(strings.TrimPrefix(lines.Text(), "broken "))
		case len(f) == 2 && f[0] == "lost":
			w.replace(ctx, s, p, f[1])
		case len(f) == 2 && f[0] == "moved":
			w.recovered(s, p, f[1])
		}
	}
}

func (w *world) newQueue(ctx context.Context) (url string, err error) {
	w.mu.Lock()
	w.queue++
	name := fmt.Sprintf("rq_soak_r_%04d", w.queue)
	w.mu.Unlock()
	out, err := w.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return "", err
	}
	return *out.QueueUrl, nil
}

// replace gives a requester another reply queue, as the operator does when one is lost.
func (w *world) replace(ctx context.Context, s *slot, p *process, lost string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != p || s.replyQueue != lost {
		return
	}
	w.move(ctx, s)
}

// move is called with the slot's lock held.
func (w *world) move(ctx context.Context, s *slot) {
	url, err := w.newQueue(ctx)
	if err != nil {
		fmt.Fprintln(w.log, "soak: new reply queue:", err)
		return
	}
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.replyQueue = url
	_, _ = fmt.Fprintf(s.process.in, "move %s\n", url)
}

// recovered notes that a requester uses its new queue.
func (w *world) recovered(s *slot, p *process, url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != p || s.replyQueue != url || s.since.IsZero() {
		return
	}
	w.ledger.queueReplaced(p.name, url, time.Now())
	w.ledger.queueLost(p.name, s.since, s.deleted)
	s.since, s.deleted = time.Time{}, false
}

// kill ends a slot's process with SIGKILL and starts another.
func (w *world) kill(ctx context.Context, s *slot) {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	_ = p.cmd.Process.Kill()
	<-p.ended
	if s.role == "responder" {
		w.ledger.responderKilled(p.name)
	} else {
		w.ledger.requesterKilled(p.name)
	}
	s.mu.Lock()
	s.since, s.deleted = time.Time{}, false
	if s.role == "requester" {
		// Where its queue was deleted just now, the new one gets another at once.
		if _, err := w.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(nameOf(s.replyQueue))}); err != nil {
			if url, err := w.newQueue(ctx); err == nil {
				s.replyQueue = url
			}
		}
	}
	s.mu.Unlock()
	if err := w.start(ctx, s); err != nil && ctx.Err() == nil {
		fmt.Fprintln(w.log, "soak: restart:", err)
	}
}

func nameOf(url string) string { return url[strings.LastIndex(url, "/")+1:] }

// harm kills, deletes, moves and forges for a duration.
func (w *world) harm(ctx context.Context, duration time.Duration) {
	over := time.NewTimer(duration)
	defer over.Stop()
	// Each forger needs 50 in a minute; harm comes often in a short run too.
	const step = 100 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	steps := int(duration / step)
	for n := 1; ; n++ {
		select {
		case <-over.C:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.forge(ctx)
		if steps-n < int(settleBefore/step) {
			continue // nothing new is broken shortly before the end
		}
		responder, requester := w.slots[w.rng.IntN(responders)], w.slots[responders+w.rng.IntN(requesters)]
		switch {
		case n%40 == 15:
			w.kill(ctx, responder)
		case n%70 == 30:
			w.kill(ctx, requester)
		case n%50 == 25:
			w.deleteQueue(ctx, requester)
		case n%50 == 5:
			requester.mu.Lock()
			w.move(ctx, requester)
			requester.mu.Unlock()
		}
	}
}

// settleBefore the end nothing is killed or deleted any more, so that what was is seen to its end.
const settleBefore = time.Second

// deleteQueue deletes a requester's reply queue under it.
func (w *world) deleteQueue(ctx context.Context, s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		return
	}
	s.since, s.deleted = time.Now(), true
	if _, err := w.client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &s.replyQueue}); err != nil {
		fmt.Fprintln(w.log, "soak: delete:", err)
	}
}

// forge sends one reply of each kind that nobody may take.
func (w *world) forge(ctx context.Context) {
	for _, s := range w.slots {
		if s.role != "requester" {
			continue
		}
		s.mu.Lock()
		owner, queue := s.process.name, s.replyQueue
		s.mu.Unlock()
		for kind, ok := range map[fault]func(*record) bool{
			nearID:      func(r *record) bool { return r.owner == owner && r.ends == 0 },
			completedID: func(r *record) bool { return r.owner == owner && r.ends == 1 },
			otherRun:    func(r *record) bool { return r.owner != owner && strings.HasPrefix(r.owner, s.id+"-") },
			olderQueue:  func(r *record) bool { return r.owner == owner && r.ends == 0 && r.queue != queue },
		} {
			if kind == olderQueue {
				// Calls of the older queue end as soon as it is lost: any of them will do.
				ok = func(r *record) bool { return r.owner == owner && r.queue != queue }
			}
			if w.rng.IntN(requesters) > 0 {
				continue
			}
			r, found := w.ledger.pick(ok)
			if !found {
				continue
			}
			id := r.callID
			if kind == nearID {
				id = id[:len(id)-1] + string('a'+id[len(id)-1]%26)
				if id == r.callID {
					continue
				}
			}
			if err := w.sendForged(ctx, queue, id); err == nil {
				w.ledger.struck(kind, 1)
			} else if !errors.As(err, new(*types.QueueDoesNotExist)) && ctx.Err() == nil {
				fmt.Fprintln(w.log, "soak: forge:", err)
			}
		}
	}
}

func (w *world) sendForged(ctx context.Context, queue, id string) error {
	text := func(v string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
	}
	_, err := w.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: &queue, MessageBody: aws.String(`{"Key":"forged","Sum":-1}`),
		MessageAttributes: map[string]types.MessageAttributeValue{
			"__AmazonSQSVirtualQueuesClient.QueueName": text(id),
			"replyqueue": text(`{"k":"r","v":1,"e":"t","n":0,"end":1}`),
		},
	})
	return err
}

// finish lets the requesters end their calls, the responders do what they were asked, and everybody stop.
func (w *world) finish() error {
	limit := time.NewTimer(5 * time.Minute)
	defer limit.Stop()
	for _, role := range []string{"requester", "responder"} {
		if role == "responder" && !w.drained(limit.C) {
			return errors.New("the responders do not empty the request queues")
		}
		for _, s := range w.slots {
			if s.role == role {
				_ = s.process.in.Close()
			}
		}
		for _, s := range w.slots {
			if s.role != role {
				continue
			}
			select {
			case <-s.process.ended:
			case <-limit.C:
				return fmt.Errorf("%s does not end", s.process.name)
			}
			if !s.process.cmd.ProcessState.Success() {
				return fmt.Errorf("%s: %s", s.process.name, s.process.cmd.ProcessState)
			}
			if !s.since.IsZero() {
				w.ledger.queueLost(s.process.name, s.since, s.deleted)
			}
		}
	}
	return nil
}

// drained waits until nothing is left in the request queues, what a killed responder held included.
func (w *world) drained(limit <-chan time.Time) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, name := range []string{requestQueue, keptQueue} {
			q, _ := w.server.Queue(name)
			left += q.Visible + q.InFlight
		}
		if left == 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-limit:
			return false
		}
	}
}

func (w *world) killAll() {
	for _, s := range w.slots {
		if s.process != nil {
			_ = s.process.cmd.Process.Kill()
			<-s.process.ended
		}
	}
}
