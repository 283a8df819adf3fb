package rpcclient

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// settlementTable reads the table of docs/protocol.md: situation, then peer, to the words in the cell.
func settlementTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "<!-- settlement:")
	text, _, ok2 := strings.Cut(text, "<!-- /settlement -->")
	if !ok || !ok2 {
		t.Fatal("docs/protocol.md has no settlement table")
	}
	table := map[string]map[string]string{}
	var header []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if header == nil {
			header = cells
			continue
		}
		row := map[string]string{}
		for i, cell := range cells[1:] {
			row[header[i+1]] = cell
		}
		table[cells[0]] = row
	}
	return table
}

func (s settlement) words() string {
	var words []string
	switch {
	case s.reply && s.rejected && s.delete:
		return "delete, reply Rejected"
	case s.reply:
		words = append(words, "reply Executed")
	}
	if s.delete {
		words = append(words, "delete")
	}
	if len(words) == 0 {
		return "leave"
	}
	return strings.Join(words, ", ")
}

func TestSettlementTableIsTheDocument(t *testing.T) {
	table := settlementTable(t)
	if len(table) != int(situationCount) {
		t.Errorf("the document has %d situations, the code %d", len(table), situationCount)
	}
	for s := range situationCount {
		for p := range peerCount {
			got := settle(s, p, false, false).words()
			if dead := settle(s, p, true, false).words(); dead != got {
				got += " or " + dead
			}
			if s == Succeeded {
				got = strings.Replace(got, "reply Executed", "reply", 1)
			}
			if want := table[s.String()][p.String()]; got != want {
				t.Errorf("%s × %s: the code says %q, the document %q", s, p, got, want)
			}
			if p != PeerNative && p != PeerOneWay {
				if with := settle(s, p, false, true); with != settle(s, PeerNative, false, false) {
					t.Errorf("%s × %s with error replies: %+v", s, p, with)
				}
			}
		}
	}
}

// unreachable are the cells that cannot come about: a request without an envelope has no deadline, and
// one without a return address has no reply.
var unreachable = map[Situation][]Peer{
	Expired:       {PeerJava},
	ReplyTooLarge: {PeerOneWay},
	ReplyNotSent:  {PeerOneWay},
	RequesterGone: {PeerOneWay},
}

// Every cell of the table, with messages on a server; in each of its variants, where a dead-letter queue or the
// replying of errors makes another of it.
func TestSettlement(t *testing.T) {
	for s := range situationCount {
		for p := range peerCount {
			if slices.Contains(unreachable[s], p) {
				continue
			}
			plain := settle(s, p, false, false)
			for _, v := range []variant{{}, {deadLetter: true}, {errorReplies: true}} {
				if v != (variant{}) && settle(s, p, v.deadLetter, v.errorReplies) == plain {
					continue
				}
				t.Run(s.String()+"/"+p.String()+v.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { settleOne(t, s, p, v) })
				})
			}
		}
	}
}

// variant is what a cell of the table may depend on besides situation and peer.
type variant struct{ deadLetter, errorReplies bool }

func (v variant) String() string {
	switch {
	case v.deadLetter:
		return "/with a dead-letter queue"
	case v.errorReplies:
		return "/with error replies"
	default:
		return ""
	}
}

type situationLog struct{ seen chan Served }

func (l situationLog) OnServed(s Served) { l.seen <- s }

func settleOne(t *testing.T, s Situation, p Peer, v variant) {
	server := sqstest.New()
	client := server.Client()
	queue := func(name string) string {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	requests, replies := queue("rq_c_ns_login"), queue("rq_c_r_1")

	// The request.
	method := map[Situation]string{
		Succeeded: "ok", HandlerFailed: "fail", Panicked: "panic", ReplyTooLarge: "huge", UnknownMethod: "none",
	}[s]
	if method == "" {
		method = "ok"
	}
	to := replies
	switch s {
	case BadAddress:
		to = requests
	case RequesterGone:
		to = strings.Replace(replies, "rq_c_r_1", "rq_c_r_2", 1)
	}
	const id = "call-1"
	attributes := map[string]types.MessageAttributeValue{}
	switch p {
	case PeerNative, PeerJava:
		attributes[attributeReplyTo] = stringAttribute(to + "#" + id)
	case PeerPlain:
		attributes[attributeReplyTo] = stringAttribute(to)
	case PeerOneWay:
		if s == BadAddress {
			attributes[attributeVirtualQueue] = stringAttribute(id)
		}
	}
	// An envelope where the peer is told by it, or where only an envelope can bring the situation about.
	if p == PeerNative || s == Expired {
		stamp, err := newRequestStamp(&requestEnvelope{Kind: kindRequest, Version: 1, CallID: id, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		attributes[attributeEnvelope] = stringAttribute(stamp.render(20*time.Second, time.Now(), 1))
	}
	body := "1"
	if s == Undecodable {
		body = "{"
	}
	if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &requests, MessageBody: aws.String(body), MessageAttributes: attributes}); err != nil {
		t.Fatal(err)
	}

	// The responder.
	log := situationLog{seen: make(chan Served, 10)}
	opts := []Option{WithChannels(ChannelConfig{Name: "login", URL: requests, DeadLetter: v.deadLetter}), WithHooks(log)}
	if v.errorReplies {
		opts = append(opts, WithErrorReplies())
	}
	switch s {
	case Expired:
		time.Sleep(21 * time.Second)
	case Shed:
		if p == PeerNative { // others are not shed for their age
			opts = append(opts, WithMaxQueueAge(time.Second))
			time.Sleep(2 * time.Second)
		}
	case ReplyNotSent:
		server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Queue: "rq_c_r_1"}}})
	}
	if s != UnknownMethod {
		opts = append(opts, WithDefaultMethod(method, 20*time.Second))
	}
	r, err := NewResponder(client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	NewMethod[int, int]("ok").Handle(r, func(_ context.Context, n int) (int, error) { return n + 1, nil }, func(h *handler) {
		if s == Shed && p != PeerNative {
			h.limit = newMethodLimit(1)
			h.limit.running <- struct{}{}
			h.limit.waiting = 1
		}
	})
	NewMethod[int, int]("fail").Handle(r, func(context.Context, int) (int, error) { return 0, errors.New("no") })
	NewMethod[int, int]("panic").Handle(r, func(context.Context, int) (int, error) { panic("no") })
	NewMethod[int, string]("huge").Handle(r, func(context.Context, int) (string, error) { return strings.Repeat("x", maxSQSBytes), nil })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	time.Sleep(8 * time.Second) // deletes have gone out, and what was left is not visible again

	// What came of it.
	want := settle(s, p, v.deadLetter, v.errorReplies)
	left, _ := server.Queue("rq_c_ns_login")
	if got := left.Visible+left.InFlight == 0; got != want.delete {
		t.Errorf("deleted: %t, want %t", got, want.delete)
	}
	server.SetFaults(sqstest.Plan{})
	out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &replies, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(out.Messages); (got == 1) != want.reply || got > 1 {
		t.Errorf("%d replies, want a reply: %t", got, want.reply)
	} else if got == 1 {
		checkSettlementReply(t, &out.Messages[0], s, p, want)
	}
	select {
	case e := <-log.seen:
		if e.Situation != s {
			t.Errorf("the hook saw %s: %v", e.Situation, e.Err)
		}
	default:
		t.Error("the hook saw nothing")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func checkSettlementReply(t *testing.T, m *types.Message, s Situation, p Peer, want settlement) {
	t.Helper()
	if got := attribute(m, attributeVirtualQueue); (got != "") != (p != PeerPlain) {
		t.Errorf("virtual queue %q", got)
	}
	text := attribute(m, attributeEnvelope)
	if p != PeerNative && s != Succeeded { // an error in words, and in the envelope for who reads it
		if e, err := parseReplyEnvelope(text); err != nil || e.Code == OK || e.Rejected != want.rejected || *m.Body == emptyBody || *m.Body == "2" {
			t.Errorf("%s got body %q and envelope %s", p, *m.Body, text)
		}
		return
	}
	if p != PeerNative {
		if text != "" || *m.Body != "2" {
			t.Errorf("%s got body %q and envelope %s", p, *m.Body, text)
		}
		return
	}
	var e replyEnvelope
	if text == "" {
		if *m.Body != "2" {
			t.Errorf("body %q without an envelope", *m.Body)
		}
	} else if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	if e.Rejected != want.rejected || (s == Succeeded) != (e.Code == "") {
		t.Errorf("envelope %s", text)
	}
}

// What was answered but could not be sent is sent when the request comes back, without another run.
func TestUnsentReplyIsSentOnRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := sqstest.New()
		client := server.Client()
		var urls []string
		for _, name := range []string{"rq_c_ns_login", "rq_c_r_1"} {
			out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
			if err != nil {
				t.Fatal(err)
			}
			urls = append(urls, *out.QueueUrl)
		}
		opts := WithChannels(ChannelConfig{Name: "login", URL: urls[0]})
		server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "SendMessageBatch", Queue: "rq_c_r_1", Count: 1}}})
		r, err := NewResponder(client, opts)
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		method := NewMethod[int, int]("count")
		method.Handle(r, func(context.Context, int) (int, error) {
			runs++
			return runs, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- r.Serve(ctx) }()
		q, err := NewRequester(client, StaticReplyQueue(urls[1]), opts)
		if err != nil {
			t.Fatal(err)
		}
		ch, err := q.Channel("login")
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		got, err := method.Call(t.Context(), ch, 0)
		if took := time.Since(started); err != nil || got != 1 || runs != 1 || took < 9*time.Second || took > 12*time.Second {
			t.Errorf("got %d, %v after %d runs and %s", got, err, runs, took)
		}
		if s := r.Stats(); s.Duplicates != 1 || s.Left != 1 {
			t.Errorf("stats: %+v", s)
		}
		cancel()
		if err := errors.Join(<-served, q.Shutdown(t.Context())); err != nil {
			t.Error(err)
		}
	})
}
