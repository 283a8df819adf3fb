package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
)

// fault is what the gate does to a request.
type fault string

const (
	throttled   fault = "throttled"        // RequestThrottled, nothing done
	errorBefore fault = "5xx before"       // InternalError, nothing done
	errorAfter  fault = "5xx after"        // InternalError, done
	dropBefore  fault = "drop before"      // the connection is closed, nothing done
	dropAfter   fault = "drop after"       // the connection is closed, done
	blackHole   fault = "black hole"       // no answer ever, nothing done
	lateReply   fault = "late reply"       // a reply's send is confirmed, and done when its call is over
	partial     fault = "partial batch"    // single entries of a batch fail
	duplicate   fault = "duplicate"        // a message is received twice
	reordered   fault = "reordered"        // a message takes another's place
	nearID      fault = "forged near ID"   // a reply to an ID next to one that is pending
	otherRun    fault = "forged other run" // a reply to a call of the process before this one
	completedID fault = "forged completed" // a reply to a call that is over
	olderQueue  fault = "forged old queue" // a reply to a call of the queue before this one
	queueGone   fault = "queue deleted"    // calls under which the reply queue was deleted
	killed      fault = "process killed"   // calls whose requester or responder was killed
	doubted     fault = "doubted"          // a send of requests is done and its answer lost; its repeats are throttled to the end
	starved     fault = "starved"          // a send of requests is throttled, and so are its repeats, to the end
	lateAfter         = 12 * time.Second   // when a late reply is sent: after the longest call
	faultRate         = 0.006              // of the requests, for each kind of fault
	doomRate          = 0.004              // of the sends of requests, for each of doubted and starved
	// doomRateOneWay is that of sends with a notification. No reply tells that such a one arrived: what its caller
	// is told is what the sends say, all of them together.
	doomRateOneWay = 0.06
)

// before says which faults of a send had no effect.
var before = map[fault]bool{throttled: true, errorBefore: true, dropBefore: true, blackHole: true, partial: true}

// gate stands before the SQS server. It strikes requests with faults, and tells the ledger what really
// happened: which requests the queue took, who was given which, which replies were taken.
type gate struct {
	server http.Handler
	ledger *ledger

	mu     sync.Mutex
	rng    *rand.Rand
	faulty bool            // strikes
	doomed map[string]bool // keys of which no send succeeds any more
	given  map[string]bool // receives of requests: message IDs with their counts
	late   sync.WaitGroup
	ended  chan struct{}
}

// keysPattern finds a call's key in a message's body, in a packed one too, where quotes are escaped.
var keysPattern = regexp.MustCompile(`\\*"Key\\*":\\*"([A-Za-z0-9-]+)`)

func keysIn(text string) (keys []string) {
	for _, m := range keysPattern.FindAllStringSubmatch(text, -1) {
		keys = append(keys, m[1])
	}
	return keys
}

func isRequestQueue(name string) bool { return name == requestQueue || name == keptQueue }

// keyOn is the key of a call to a queue: a Gather asks both the same.
func keyOn(queue, key string) string {
	if queue == keptQueue {
		return key + "-kept"
	}
	return key
}

func keysOn(queue string, keys []string) []string {
	for i := range keys {
		keys[i] = keyOn(queue, keys[i])
	}
	return keys
}

// sqsRequest is a request as far as the gate reads it.
type sqsRequest struct {
	action string
	queue  string
	sender string // access key
	keys   [][]string
	reply  []string // return addresses, by entry
	raw    []byte
}

var credential = regexp.MustCompile(`Credential=([^/]+)/`)

func (g *gate) parseRequest(r *http.Request) (sqsRequest, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return sqsRequest{}, err
	}
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	q := sqsRequest{action: action, raw: raw}
	if m := credential.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		q.sender = m[1]
	}
	var in struct {
		QueueURL string `json:"QueueUrl"`
		Entries  []struct {
			ID                string `json:"Id"`
			MessageBody       string
			MessageAttributes map[string]struct{ StringValue string }
		}
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return q, nil //nolint:nilerr // SQS says what is wrong with it
	}
	q.queue = path.Base(in.QueueURL)
	for i := range in.Entries {
		e := &in.Entries[i]
		address := e.MessageAttributes["ResponseQueueUrl"].StringValue
		q.reply = append(q.reply, address)
		if isRequestQueue(q.queue) {
			keys := keysOn(q.queue, keysIn(e.MessageBody))
			g.ledger.asked(keys, address)
			q.keys = append(q.keys, keys)
			continue
		}
		q.keys = append(q.keys, g.ledger.keysOfReplies(e.MessageAttributes["__AmazonSQSVirtualQueuesClient.QueueName"].StringValue+" "+e.MessageBody))
	}
	return q, nil
}

func (q *sqsRequest) allKeys() (all []string) {
	for _, keys := range q.keys {
		all = append(all, keys...)
	}
	return all
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := g.parseRequest(r)
	if err != nil {
		return // the client went away
	}
	if q.sender == controller || q.sender == "" {
		g.pass(w, r, &q)
		return
	}
	if q.action == "SendMessageBatch" && isRequestQueue(q.queue) && g.doom(w, r, &q) {
		return
	}
	switch f := g.strike(&q); f {
	case throttled:
		g.hit(&q, f)
		refuse(w, http.StatusForbidden, "RequestThrottled")
	case errorBefore:
		g.hit(&q, f)
		refuse(w, http.StatusInternalServerError, "InternalError")
	case dropBefore:
		g.hit(&q, f)
		drop(w)
	case blackHole:
		g.hit(&q, f)
		select {
		case <-r.Context().Done():
		case <-g.ended:
		}
		drop(w)
	case lateReply:
		g.hit(&q, f)
		g.sendLate(r, &q)
		confirm(w, len(q.keys))
	case dropAfter, errorAfter:
		answer := g.do(r, &q)
		if q.action == "ReceiveMessage" {
			q.keys = [][]string{g.keysReceived(q.queue, answer.body.String())}
			if len(q.keys[0]) == 0 { // nothing was lost
				answer.copyTo(w)
				return
			}
		}
		g.hit(&q, f)
		if f == errorAfter {
			refuse(w, http.StatusInternalServerError, "InternalError")
			return
		}
		drop(w)
	default:
		g.do(r, &q).copyTo(w)
	}
}

// hit counts a fault and the calls it touched.
func (g *gate) hit(q *sqsRequest, f fault) {
	g.ledger.struck(f, 1)
	request := isRequestQueue(q.queue) && strings.HasPrefix(q.action, "Send")
	g.ledger.touch(q.allKeys(), f, request && before[f])
}

// strike decides what happens to a request.
func (g *gate) strike(q *sqsRequest) fault {
	kinds := []fault{throttled, errorBefore, dropBefore, dropAfter, errorAfter, blackHole}
	switch {
	case q.action == "SendMessageBatch" && !isRequestQueue(q.queue):
		kinds = append(kinds, lateReply, lateReply)
	case q.action == "ReceiveMessage":
		kinds = kinds[:5] // a poll in a black hole is what a quiet queue looks like; sends and deletes have it
		if isRequestQueue(q.queue) {
			kinds = append(kinds, blackHole)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.faulty {
		return ""
	}
	at := g.rng.Float64()
	if n := int(at / faultRate); n < len(kinds) {
		return kinds[n]
	}
	return ""
}

func (g *gate) setFaulty(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faulty = on
}

// answer is what the server said.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (a *answer) copyTo(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}

// pass lets a request through, unobserved.
func (g *gate) pass(w http.ResponseWriter, r *http.Request, q *sqsRequest) {
	g.forward(r, q).copyTo(w)
}

func (g *gate) forward(r *http.Request, q *sqsRequest) *answer {
	again := r.WithContext(r.Context())
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(q.raw)), int64(len(q.raw))
	a := &answer{header: http.Header{}, status: http.StatusOK}
	g.server.ServeHTTP(a, again)
	return a
}

// do lets a request through and notes what came of it.
func (g *gate) do(r *http.Request, q *sqsRequest) *answer {
	a := g.forward(r, q)
	if a.status != http.StatusOK {
		return a
	}
	switch q.action {
	case "ReceiveMessage":
		keys := g.keysReceived(q.queue, a.body.String())
		if isRequestQueue(q.queue) {
			g.ledger.handedOut(keys, q.sender)
			g.ledger.twinned(keysOn(q.queue, g.twins(a.body.Bytes())))
		}
		if len(keys) > 0 {
			g.travel(r)
		}
	case "SendMessageBatch":
		var out struct {
			Successful, Failed []struct {
				ID string `json:"Id"`
			}
		}
		if json.Unmarshal(a.body.Bytes(), &out) != nil {
			return a
		}
		for _, e := range out.Failed {
			if n, ok := entryOf(e.ID, len(q.keys)); ok {
				g.ledger.struck(partial, 1)
				g.ledger.touch(q.keys[n], partial, isRequestQueue(q.queue))
			}
		}
		for _, e := range out.Successful {
			if n, ok := entryOf(e.ID, len(q.keys)); ok {
				g.ledger.took(q.keys[n], q.queue)
			}
		}
	}
	return a
}

// keysReceived are the calls whose messages a receive brought.
func (g *gate) keysReceived(queue, answer string) []string {
	if isRequestQueue(queue) {
		return keysOn(queue, keysIn(answer))
	}
	return g.ledger.keysOfReplies(answer)
}

// twins are the calls of messages that were given out with the same receive count before: SQS made a copy.
func (g *gate) twins(answer []byte) (keys []string) {
	var out struct {
		Messages []struct {
			MessageID  string `json:"MessageId"`
			Body       string
			Attributes struct{ ApproximateReceiveCount string }
		}
	}
	if json.Unmarshal(answer, &out) != nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range out.Messages {
		receive := m.MessageID + " " + m.Attributes.ApproximateReceiveCount
		if g.given[receive] {
			keys = append(keys, keysIn(m.Body)...)
		}
		g.given[receive] = true
	}
	return keys
}

// travel lets time pass between the choice of messages and their arrival, as a network does: a poll that
// is given up meanwhile loses them until their visibility ends.
func (g *gate) travel(r *http.Request) {
	g.mu.Lock()
	d := 5*time.Millisecond + time.Duration(g.rng.Int64N(int64(15*time.Millisecond)))
	g.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

func entryOf(id string, n int) (int, bool) {
	if len(id) != 1 || id[0] < '0' || int(id[0]-'0') >= n {
		return 0, false
	}
	return int(id[0] - '0'), true
}

// sendLate sends a reply when its call is over.
func (g *gate) sendLate(r *http.Request, q *sqsRequest) {
	again := r.Clone(context.WithoutCancel(r.Context()))
	g.late.Go(func() {
		t := time.NewTimer(lateAfter)
		defer t.Stop()
		select {
		case <-t.C:
			g.forward(again, q)
		case <-g.ended:
		}
	})
}

func (g *gate) close() {
	close(g.ended)
	g.late.Wait()
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"__type":"com.amazonaws.sqs#`+code+`","message":"soak"}`)
}

// confirm answers a batch with success.
func confirm(w http.ResponseWriter, n int) {
	type entry struct {
		ID        string `json:"Id"`
		MessageID string `json:"MessageId"`
	}
	out := struct {
		Successful []entry
		Failed     []entry
	}{Failed: []entry{}}
	for i := range n {
		out.Successful = append(out.Successful, entry{ID: string(rune('0' + i)), MessageID: "late"})
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_ = json.NewEncoder(w).Encode(out)
}

// drop closes the connection.
func drop(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			_ = c.Close()
		}
	}
}
