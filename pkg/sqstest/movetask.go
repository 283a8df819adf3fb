package sqstest

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

const (
	taskRunning    = "RUNNING"
	taskCompleted  = "COMPLETED"
	taskCancelled  = "CANCELLED"
	taskFailed     = "FAILED"
	maxMoveRate    = 500 // messages a second (StartMessageMoveTask, API reference)
	maxListedTasks = 10
	// noMessageSource is why a task ends that finds a message which was sent to the dead-letter queue directly, and has no
	// other destination ("troubleshooting DLQ redrive", developer guide).
	noMessageSource = "CouldNotDetermineMessageSource"
	// moveChunk is how many messages a task without a rate moves at a time, every moveEvery.
	moveChunk = 1000
	moveEvery = time.Millisecond
)

// moveTask moves the messages of a dead-letter queue back to where they came from, or to another queue. It advances by a
// timer of the server's clock.
type moveTask struct {
	id      string
	source  *queue
	to      *queue // nil: each message to its own source
	rate    int    // messages a second, 0 for as fast as can be
	started int64
	toMove  int

	moved   int
	status  string
	failure string
	timer   Timer
}

// moveTasks are all tasks of a server, by source queue, latest last.
type moveTasks struct {
	server *Server
	mu     sync.Mutex
	of     map[*queue][]*moveTask
	closed bool
}

type startMessageMoveTaskIn struct {
	Source      string `json:"SourceArn"`
	Destination string `json:"DestinationArn"`
	Rate        *int   `json:"MaxNumberOfMessagesPerSecond"`
}

func (in startMessageMoveTaskIn) subject(*call) (queueKey, bool) { return parseARN(in.Source) }
func (startMessageMoveTaskIn) size() int                         { return 1 }

type taskHandleOut struct {
	TaskHandle string
}

func startMessageMoveTask(c *call, in startMessageMoveTaskIn) (any, *apiError) {
	source, err := c.queueOfARN("SourceArn", in.Source)
	if err != nil {
		return nil, err
	}
	if in.Rate != nil && (*in.Rate < 1 || *in.Rate > maxMoveRate) {
		return nil, errParameter("MaxNumberOfMessagesPerSecond", *in.Rate, "Must be between 1 and 500, if provided.")
	}
	var to *queue
	if in.Destination != "" {
		if to, err = c.queueOfARN("DestinationArn", in.Destination); err != nil {
			return nil, err
		}
		if to == source {
			return nil, errInvalidParameter("Source queue arn and destination queue arn cannot be the same.")
		}
		if to.key.fifo() != source.key.fifo() {
			return nil, errInvalidParameter("Source queue and destination queue must be of the same type.")
		}
	}
	sources := c.s.registry.sourcesOf(source)
	if len(sources) == 0 {
		return nil, errInvalidParameter("Source queue must be configured as a Dead Letter Queue.")
	}
	if err := c.mayMove(source, to, sources); err != nil {
		return nil, err
	}
	t := &moveTask{id: newMessageID(), source: source, to: to, started: c.s.millis(), status: taskRunning}
	if in.Rate != nil {
		t.rate = *in.Rate
	}
	if _, err := source.lock(); err != nil {
		return nil, err
	}
	t.toMove = source.visibleCount()
	source.unlock()
	if err := c.s.tasks.start(t); err != nil {
		return nil, err
	}
	return taskHandleOut{t.handle()}, nil
}

// mayMove is about the permissions of a task that moves to a queue, or, when that is nil, to the sources of those names.
func (c *call) mayMove(from, to *queue, sources []string) *apiError {
	var targets []queueKey
	if to != nil {
		targets = []queueKey{to.key}
	} else {
		for _, name := range sources {
			targets = append(targets, queueKey{from.key.region, from.key.account, name}) // see checkRedrive
		}
	}
	return c.s.access.mayMove(c.accessKey, from.key, targets...)
}

// queueOfARN is the queue that a parameter names.
func (c *call) queueOfARN(parameter, arn string) (*queue, *apiError) {
	if arn == "" {
		return nil, errMissing(parameter)
	}
	key, ok := parseARN(arn)
	if !ok {
		return nil, errInvalidParameter("Value for parameter %s is invalid.", parameter)
	}
	// "Cross-account permissions don't apply" to message move tasks (custom policies, developer guide), and a region knows
	// its own queues only.
	if key.account != c.account {
		return nil, errAccessDenied(c.accessKey, c.action, arn)
	}
	q := c.s.registry.get(key)
	if q == nil || key.region != c.region || c.s.faults.unborn(c, q.created, c.s.millis()) {
		return nil, errResource("The resource that you specified for the %s parameter doesn't exist.", parameter)
	}
	return q, nil
}

func (ts *moveTasks) start(t *moveTask) *apiError {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return errAborted()
	}
	if ts.server.registry.get(t.source.key) != t.source {
		return errResource("The resource that you specified for the SourceArn parameter doesn't exist.") // deleted this moment
	}
	for _, other := range ts.of[t.source] {
		if other.status == taskRunning {
			return errInvalidParameter("There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
		}
	}
	if ts.of == nil {
		ts.of = map[*queue][]*moveTask{}
	}
	ts.of[t.source] = append(ts.of[t.source], t)
	if list := ts.of[t.source]; len(list) > maxListedTasks {
		ts.of[t.source] = list[len(list)-maxListedTasks:]
	}
	ts.schedule(t)
	return nil
}

// forget drops a deleted queue's tasks.
func (ts *moveTasks) forget(source *queue) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.of[source] {
		if t.status == taskRunning {
			t.status, t.failure = taskFailed, errNoQueue().query
			t.timer.Stop()
		}
	}
	delete(ts.of, source)
}

// schedule arms the task's next step. ts must be locked, and not closed.
func (ts *moveTasks) schedule(t *moveTask) {
	every := moveEvery
	if t.rate > 0 {
		every = time.Second / time.Duration(t.rate)
	}
	t.timer = ts.server.clock.AfterFunc(every, func() { ts.step(t) })
}

func (ts *moveTasks) step(t *moveTask) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.status != taskRunning || ts.closed {
		return
	}
	count := moveChunk
	if t.rate > 0 {
		count = 1
	}
	for range count {
		done, failure := ts.server.moveOne(t)
		switch {
		case failure != "":
			t.status, t.failure = taskFailed, failure
			return
		case done:
			t.status = taskCompleted
			return
		}
		t.moved++
		if t.moved >= t.toMove && t.rate > 0 && t.source.isEmpty() {
			t.status = taskCompleted
			return
		}
	}
	ts.schedule(t)
}

func (q *queue) isEmpty() bool {
	if _, err := q.lock(); err != nil {
		return true
	}
	defer q.unlock()
	return !q.anyReady()
}

// moveOne moves a message, and says when there is none left, or why it cannot go on.
func (s *Server) moveOne(t *moveTask) (done bool, failure string) {
	now, err := t.source.lock()
	if err != nil {
		return false, err.query
	}
	var m *message
	if t.source.fifo != nil {
		m = t.source.fifo.next()
	} else {
		m = t.source.fair.next(t.source.inFlight, now)
	}
	if m == nil {
		t.source.unlock()
		return true, ""
	}
	to := t.to
	switch {
	case to == nil && m.source == "":
		t.source.unlock()
		return false, noMessageSource
	case to == nil:
		to = s.registry.byARN(m.source)
	case s.registry.get(to.key) != to:
		to = nil
	}
	if to == nil {
		t.source.unlock()
		return false, errNoQueue().query
	}
	t.source.remove(m)
	again := redriven(m, now)
	s.moving.add(move{again, to})
	t.source.unlock()
	if !to.readmit(again) {
		t.source.takeBack(m) // the destination was deleted this moment
		return false, errNoQueue().query
	}
	return false, ""
}

// redriven is what a move task makes of a message: a new one, with its own ID, timestamps and count ("redriven messages
// are considered new messages": dead-letter queue redrive, developer guide).
func redriven(m *message, now int64) *message {
	return &message{
		id: newMessageID(), body: m.body, bodyMD5: m.bodyMD5, attrs: m.attrs, attrsMD5: m.attrsMD5, trace: m.trace,
		group: m.group, dedup: m.dedup, sender: m.sender, sent: now, enqueued: now,
	}
}

// readmit takes a message that a move task brings, and is false when the queue was deleted.
func (q *queue) readmit(m *message) bool {
	now, err := q.lock()
	if err != nil {
		q.server.moving.remove(m)
		return false
	}
	defer q.unlock()
	q.server.moving.remove(m)
	q.add(m, now, 0)
	return true
}

type listMessageMoveTasksIn struct {
	Source     string `json:"SourceArn"`
	MaxResults *int
}

func (in listMessageMoveTasksIn) subject(*call) (queueKey, bool) { return parseARN(in.Source) }
func (listMessageMoveTasksIn) size() int                         { return 1 }

type moveTaskOut struct {
	TaskHandle     string `json:",omitempty"`
	Status         string
	SourceArn      string
	DestinationArn string `json:",omitempty"`
	Rate           int    `json:"MaxNumberOfMessagesPerSecond,omitempty"`
	Moved          int    `json:"ApproximateNumberOfMessagesMoved"`
	ToMove         int    `json:"ApproximateNumberOfMessagesToMove"`
	FailureReason  string `json:",omitempty"`
	Started        int64  `json:"StartedTimestamp"`
}

func listMessageMoveTasks(c *call, in listMessageMoveTasksIn) (any, *apiError) {
	limit := 1
	if in.MaxResults != nil {
		if limit = *in.MaxResults; limit < 1 || limit > maxListedTasks {
			return nil, errParameter("MaxResults", limit, "Must be between 1 and 10, if provided.")
		}
	}
	source, err := c.queueOfARN("SourceArn", in.Source)
	if err != nil {
		return nil, err
	}
	out := struct{ Results []moveTaskOut }{[]moveTaskOut{}}
	ts := &c.s.tasks
	ts.mu.Lock()
	defer ts.mu.Unlock()
	list := ts.of[source]
	for i := len(list) - 1; i >= 0 && len(out.Results) < limit; i-- {
		out.Results = append(out.Results, list[i].describe())
	}
	return out, nil
}

func (t *moveTask) describe() moveTaskOut {
	out := moveTaskOut{
		Status: t.status, SourceArn: t.source.arn, Rate: t.rate, Moved: t.moved, ToMove: t.toMove,
		FailureReason: t.failure, Started: t.started,
	}
	if t.to != nil {
		out.DestinationArn = t.to.arn
	}
	if t.status == taskRunning {
		out.TaskHandle = t.handle()
	}
	return out
}

type cancelMessageMoveTaskIn struct {
	TaskHandle *string
}

func (in cancelMessageMoveTaskIn) subject(*call) (queueKey, bool) {
	_, arn, _ := parseTaskHandle(deref(in.TaskHandle))
	return parseARN(arn)
}
func (cancelMessageMoveTaskIn) size() int { return 1 }

func cancelMessageMoveTask(c *call, in cancelMessageMoveTaskIn) (any, *apiError) {
	if in.TaskHandle == nil {
		return nil, errMissing("TaskHandle")
	}
	id, arn, ok := parseTaskHandle(*in.TaskHandle)
	if !ok {
		return nil, errInvalidParameter("Value for parameter TaskHandle is invalid.")
	}
	source, err := c.queueOfARN("SourceArn", arn)
	if err != nil {
		return nil, err
	}
	ts := &c.s.tasks
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.of[source] {
		if t.id != id {
			continue
		}
		if t.status != taskRunning {
			return nil, errUnsupported("Only active tasks can be cancelled.")
		}
		t.status = taskCancelled
		t.timer.Stop()
		return struct {
			Moved int `json:"ApproximateNumberOfMessagesMoved"`
		}{t.moved}, nil
	}
	return nil, errResource("Task does not exist.")
}

func (ts *moveTasks) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for _, list := range ts.of {
		for _, t := range list {
			if t.status == taskRunning {
				t.timer.Stop()
			}
		}
	}
}

// A task handle is the task's ID and its source, as JSON in base64: the form that AWS's have.
type taskHandle struct {
	TaskID    string `json:"taskId"`
	SourceARN string `json:"sourceArn"`
}

func (t *moveTask) handle() string {
	b, err := json.Marshal(taskHandle{t.id, t.source.arn})
	if err != nil {
		panic(err) // two strings always marshal
	}
	return base64.StdEncoding.EncodeToString(b)
}

func parseTaskHandle(s string) (id, arn string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	var h taskHandle
	if err != nil || json.Unmarshal(b, &h) != nil || h.TaskID == "" || !strings.HasPrefix(h.SourceARN, "arn:") {
		return "", "", false
	}
	return h.TaskID, h.SourceARN, true
}
