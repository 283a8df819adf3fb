package sqstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"time"
)

// contentType is AWS JSON 1.0's.
const contentType = "application/x-amz-json-1.0"

const targetPrefix = "AmazonSQS."

// errConnectionReset is what a client sees of a connection that the other side dropped.
var errConnectionReset = syscall.ECONNRESET

// errAborted stands for a request that gets no answer, because its client is gone or the server is closing.
func errAborted() *apiError { return &apiError{shape: "aborted", query: "aborted"} }

// answer is what goes back for a request.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	dropped bool          // the connection is closed without an answer
	cut     bool          // the connection breaks in the middle of the body
	slow    time.Duration // the body takes this long
}

// call is one request while it is served.
type call struct {
	s         *Server
	ctx       context.Context //nolint:containedctx // the request's own; a call lives no longer
	action    string
	accessKey string
	account   string
	region    string
	base      string        // what URLs of queues begin with
	queue     string        // the name of the queue it is about, "" for none
	about     queueKey      // that queue
	entries   int           // messages or handles in the request
	reached   bool          // it came to SQS, and was not lost before
	payload   int           // bytes of the messages accepted or delivered: see Billed
	skew      time.Duration // of the clock that this client sees
}

// input is a decoded request.
type input interface {
	// subject is the queue that the request is about, found in it as the action finds it: what may be done to a queue is
	// asked by it. It is false for no queue, and for one that is named in a way in which the action finds none.
	subject(c *call) (queueKey, bool)
	// size is the number of entries in the request, 1 for one without a list.
	size() int
}

// action is one of the API's.
type action struct {
	decode func(body []byte) (input, *apiError)
	run    func(c *call, in input) (any, *apiError)
}

// bind makes an action of a function of its input type.
func bind[In input](f func(c *call, in In) (any, *apiError)) action {
	form := shapeOf(reflect.TypeFor[In]())
	return action{
		decode: func(body []byte) (input, *apiError) {
			var in In
			if q, ok := any(&in).(quick); ok && quickly(body, q) {
				return in, nil
			}
			if len(body) > 0 {
				in = *new(In)
				if err := json.Unmarshal(form.hideInexact(markBadText(body)), &in); err != nil {
					return in, errSerialization("%s", strings.TrimPrefix(err.Error(), "json: "))
				}
			}
			return in, nil
		},
		run: func(c *call, in input) (any, *apiError) { return f(c, in.(In)) },
	}
}

// actions are all of SQS's (API reference, "Actions").
var actions map[string]action

// In a function, because the actions and what they call refer to each other.
func init() {
	actions = map[string]action{
		"AddPermission":                bind(addPermission),
		"CancelMessageMoveTask":        bind(cancelMessageMoveTask),
		"ChangeMessageVisibility":      bind(changeMessageVisibility),
		"ChangeMessageVisibilityBatch": bind(changeMessageVisibilityBatch),
		"CreateQueue":                  bind(createQueue),
		"DeleteMessage":                bind(deleteMessage),
		"DeleteMessageBatch":           bind(deleteMessageBatch),
		"DeleteQueue":                  bind(deleteQueue),
		"GetQueueAttributes":           bind(getQueueAttributes),
		"GetQueueUrl":                  bind(getQueueURL),
		"ListDeadLetterSourceQueues":   bind(listDeadLetterSourceQueues),
		"ListMessageMoveTasks":         bind(listMessageMoveTasks),
		"ListQueueTags":                bind(listQueueTags),
		"ListQueues":                   bind(listQueues),
		"PurgeQueue":                   bind(purgeQueue),
		"ReceiveMessage":               bind(receiveMessage),
		"RemovePermission":             bind(removePermission),
		"SendMessage":                  bind(sendMessage),
		"SendMessageBatch":             bind(sendMessageBatch),
		"SetQueueAttributes":           bind(setQueueAttributes),
		"StartMessageMoveTask":         bind(startMessageMoveTask),
		"TagQueue":                     bind(tagQueue),
		"UntagQueue":                   bind(untagQueue),
	}
}

// answer serves a request and writes it down.
func (s *Server) answer(ctx context.Context, h http.Header, base string, body requestBody) answer {
	c := &call{s: s, ctx: ctx, base: base}
	c.accessKey, c.account, c.region = s.caller(h)
	start := s.clock.Now()
	a, code := s.serve(c, h, body)
	if a.header == nil && !a.dropped {
		a.header = http.Header{}
	}
	if !a.dropped {
		id := newMessageID()
		a.header["X-Amzn-Requestid"] = []string{id}
		if a.header["Date"] == nil {
			a.header["Date"] = []string{s.clock.Now().Add(c.skew).UTC().Format(http.TimeFormat)}
		}
	}
	s.log.add(Request{
		Time: start, Action: c.action, Queue: c.queue, AccessKey: c.accessKey, Region: c.region, Entries: c.entries, Billed: c.bill(),
		Status: a.status, ErrorCode: code, Duration: s.clock.Now().Sub(start),
	})
	return a
}

// serve runs the steps of a request: what it is, what is to go wrong, who may, and then the thing itself.
func (s *Server) serve(c *call, h http.Header, body requestBody) (answer, string) {
	target := h.Get("X-Amz-Target")
	name, ok := strings.CutPrefix(target, targetPrefix)
	act, known := actions[name]
	if !ok || !known {
		return failure(errUnknownAction(target))
	}
	c.action = name
	if body.tooLarge {
		c.reached = true
		return failure(errTooLarge())
	}
	in, err := act.decode(body.bytes)
	if err != nil {
		c.reached = true
		return failure(err)
	}
	c.entries = in.size()
	if about, ok := in.subject(c); ok {
		c.about, c.queue = about, about.name
	}

	f := s.faults.before(c, h)
	if f.wait != 0 && !s.wait(c.ctx, f.wait) || f.drop {
		return answer{dropped: true}, "ConnectionDropped"
	}
	if f.page != nil {
		return *f.page, fmt.Sprintf("HTTP %d", f.page.status)
	}
	c.reached = true
	if f.err != nil {
		return failure(f.err)
	}
	if err := s.access.check(c); err != nil {
		return failure(err)
	}
	f.prepare(c)
	out, err := act.run(c, in)
	if err != nil && err.shape == "aborted" {
		return answer{dropped: true}, "ConnectionDropped"
	}
	if f.waitAfter != 0 && !s.wait(c.ctx, f.waitAfter) {
		return answer{dropped: true}, "ConnectionDropped"
	}
	if f.errAfter {
		return failure(errInternal())
	}
	if f.dropAfter {
		return answer{dropped: true}, "ConnectionDropped"
	}
	var a answer
	code := ""
	if err != nil {
		a, code = failure(err)
	} else {
		a = success(out)
	}
	s.faults.onBody(c, &a)
	return a, code
}

// encoded is an output that is JSON already.
type encoded []byte

func success(out any) answer {
	a := answer{status: http.StatusOK, header: http.Header{"Content-Type": {contentType}}}
	switch out := out.(type) {
	case nil:
		// Actions without output answer with an empty body.
	case encoded:
		a.body = out
	case rendered:
		a.body = out.appendJSON(nil)
	default:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false) // a body of HTML need not grow sixfold
		if err := e.Encode(out); err != nil {
			panic(err) // outputs are made of strings and numbers
		}
		a.body = b.Bytes()
	}
	return a
}

func failure(e *apiError) (answer, string) {
	return answer{
		status: e.status,
		header: http.Header{
			"Content-Type":       {contentType},
			"X-Amzn-Query-Error": {e.query + ";" + e.fault()},
		},
		body: e.body(),
	}, e.query
}

// parseQueue is the queue of a URL, or of a bare name, which is of the caller's own (recorded: LocalStack's
// test_posting_to_queue_via_queue_name).
func (c *call) parseQueue(url string) (queueKey, bool) {
	if isQueueName(url) {
		return queueKey{c.region, c.account, url}, true
	}
	account, name, ok := parseQueueURL(url)
	return queueKey{c.region, account, name}, ok
}

// find is the queue of a URL.
func (c *call) find(url string) (*queue, *apiError) {
	if url == "" {
		return nil, errMissing("QueueUrl")
	}
	key, ok := c.parseQueue(url)
	if !ok {
		return nil, errAddress(url)
	}
	if key.account != c.account && ownAccountOnly[c.action] {
		return nil, errAccessDenied(c.accessKey, c.action, key.arn())
	}
	return c.findKey(key)
}

// ownAccountOnly are the actions to which "cross-account permissions don't apply" (API reference, the note on each). With
// the others, a queue of another account is open to all.
var ownAccountOnly = map[string]bool{
	"AddPermission": true, "DeleteQueue": true, "ListQueueTags": true, "RemovePermission": true,
	"SetQueueAttributes": true, "TagQueue": true, "UntagQueue": true,
	// And those of message move tasks, which name queues by ARN: see queueOfARN.
}

func (c *call) findKey(key queueKey) (*queue, *apiError) {
	now := c.s.millis()
	q := c.s.registry.get(key)
	if q == nil {
		g, ok := c.s.registry.lately(key)
		if c.s.faults.stale(c, func(lag int64) bool { return ok && g.q != nil && now < g.at+lag }) > 0 {
			return g.q, nil
		}
		return nil, errNoQueue()
	}
	if c.s.faults.unborn(c, q.created, now) || c.s.faults.stale(c, func(lag int64) bool { return now < q.created+lag }) > 0 {
		return nil, errNoQueue()
	}
	return q, nil
}

// lockToRead is queue.lock for actions that only read: what find found may be a deleted queue that a read still sees.
func (c *call) lockToRead(q *queue) (now int64, err *apiError) {
	if now, err = q.lock(); err == nil {
		return now, nil
	}
	if g, ok := c.s.registry.lately(q.key); !ok || g.q != q || c.s.faults.state.Load() == nil {
		return 0, err
	}
	q.mu.Lock()
	return c.s.millis(), nil
}
