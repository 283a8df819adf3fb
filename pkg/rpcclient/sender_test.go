package rpcclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// scripted is SQS as far as a sender sees it: answer gets the bodies of a batch, and says what becomes of
// each: "" is accepted, "!Code" refused with SenderFault, any other a code without; or an HTTP status and
// code for the whole batch.
type scripted struct {
	answer func(bodies []string) (entries []string, status int, code string)

	mu      sync.Mutex
	batches [][]string
}

func (s *scripted) Do(r *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var in struct {
		Entries []struct {
			ID          string `json:"Id"`
			MessageBody string
		}
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, err
	}
	bodies := make([]string, len(in.Entries))
	for i := range in.Entries {
		bodies[i] = in.Entries[i].MessageBody
	}
	s.mu.Lock()
	s.batches = append(s.batches, bodies)
	s.mu.Unlock()
	entries, status, code := s.answer(bodies)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var out any = map[string]string{"__type": "com.amazonaws.sqs#" + code, "message": "scripted"}
	if status == http.StatusOK {
		type entry struct {
			ID          string `json:"Id"`
			Code        string
			SenderFault bool
		}
		done := struct{ Successful, Failed []entry }{[]entry{}, []entry{}}
		for i := range in.Entries {
			switch result := entries[i]; {
			case result == "":
				done.Successful = append(done.Successful, entry{ID: in.Entries[i].ID})
			case result == "silence": // SQS does not mention the entry
			default:
				fault := strings.HasPrefix(result, "!")
				done.Failed = append(done.Failed, entry{ID: in.Entries[i].ID, Code: strings.TrimPrefix(result, "!"), SenderFault: fault})
			}
		}
		out = done
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}, nil
}

func (s *scripted) sender(t *testing.T) *sender {
	t.Helper()
	client := sqs.New(sqs.Options{
		Region: "eu-west-1", Credentials: aws.AnonymousCredentials{}, HTTPClient: s,
		DisableMessageChecksumValidation: true,
	})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	api := newQueueAPI(client, &Stats{}, hooks{})
	t.Cleanup(api.crew.close)
	return newSender(ctx, api, ownQueue)
}

// note is a message that remembers its end.
type note struct {
	out  outgoing
	text string
	pack bool

	mu      sync.Mutex
	ends    int
	err     error
	notSent bool
	after   time.Duration
	started time.Time
}

func newNote(text string, pack bool) *note {
	n := &note{text: text, pack: pack, started: time.Now()}
	n.out.message = n
	return n
}

func (n *note) size() int { return len(n.text) }
func (n *note) entry(time.Time) (types.SendMessageBatchRequestEntry, bool) {
	return types.SendMessageBatchRequestEntry{MessageBody: &n.text}, true
}
func (n *note) packKey() string {
	if n.pack {
		return "process"
	}
	return ""
}
func (n *note) line() string           { return n.text + "\n" }
func (n *note) expired(time.Time) bool { return false }
func (n *note) sent(err error, notSent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends++
	n.err, n.notSent, n.after = err, notSent, time.Since(n.started)
}

// sendBehind sends notes while another batch is under way, so that they gather.
func sendBehind(s *sender, notes ...*note) {
	first := newNote("first", false)
	s.add(&first.out)
	synctest.Wait()
	for _, n := range notes {
		s.add(&n.out)
	}
	s.wait()
}

func accept(bodies []string) ([]string, int, string) { return make([]string, len(bodies)), 200, "" }

// slowFirst answers the first batch after a while, and the others by answer.
func slowFirst(answer func([]string) ([]string, int, string)) func([]string) ([]string, int, string) {
	return func(bodies []string) ([]string, int, string) {
		if slices.Contains(bodies, "first") {
			time.Sleep(5 * time.Millisecond)
			return accept(bodies)
		}
		return answer(bodies)
	}
}

func TestEntriesOfABatchMeetTheirOwnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := map[string]int{}
		s := &scripted{}
		s.answer = slowFirst(func(bodies []string) ([]string, int, string) {
			out := make([]string, len(bodies))
			for i, b := range bodies {
				tries[b]++
				switch b {
				case "refused":
					out[i] = "!InvalidMessageContents"
				case "once":
					if tries[b] == 1 {
						out[i] = "InternalError"
					}
				case "throttled":
					out[i] = "RequestThrottled"
				case "never":
					out[i] = "InternalError"
				case "unmentioned":
					if tries[b] == 1 {
						out[i] = "silence"
					}
				}
			}
			return out, 200, ""
		})
		var notes []*note
		for _, text := range []string{"good", "refused", "once", "throttled", "never", "unmentioned"} {
			notes = append(notes, newNote(text, false))
		}
		sendBehind(s.sender(t), notes...)
		for i, want := range []struct {
			fails, notSent bool
			tries          int
		}{
			{false, false, 1}, {true, true, 1}, {false, false, 2}, {true, true, sendAttempts}, {true, false, sendAttempts}, {false, false, 2},
		} {
			n := notes[i]
			if n.ends != 1 || (n.err != nil) != want.fails || n.notSent != want.notSent || tries[n.text] != want.tries {
				t.Errorf("%s: %d ends, %v, not sent %t, tried %d times; want failure %t, not sent %t, %d", n.text, n.ends, n.err, n.notSent, tries[n.text], want.fails, want.notSent, want.tries)
			}
		}
	})
}

// A 4xx for the whole batch is one entry's doing: each goes by itself, and none waits for another's retries.
func TestRefusedBatchIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		s.answer = slowFirst(func(bodies []string) ([]string, int, string) {
			switch {
			case slices.Contains(bodies, "bad"):
				return nil, 400, "InvalidAttributeValue"
			case slices.Contains(bodies, "throttled"):
				return nil, 403, "RequestThrottled"
			default:
				return accept(bodies)
			}
		})
		throttled, good, bad := newNote("throttled", false), newNote("good", false), newNote("bad", false)
		sendBehind(s.sender(t), throttled, good, bad)
		if good.ends != 1 || good.err != nil || good.after > 100*time.Millisecond {
			t.Errorf("the good one: %d ends, %v, after %s", good.ends, good.err, good.after)
		}
		for _, n := range []*note{throttled, bad} {
			if n.ends != 1 || n.err == nil || !n.notSent {
				t.Errorf("%s: %d ends, %v, not sent %t", n.text, n.ends, n.err, n.notSent)
			}
		}
	})
}

func TestRefusedPackIsTakenApart(t *testing.T) {
	bad := func(body string) bool { return strings.Contains(body, "bad") }
	for name, tc := range map[string]struct {
		answer func(bodies []string) ([]string, int, string)
		fails  []string
	}{
		"as an entry": {func(bodies []string) ([]string, int, string) {
			out := make([]string, len(bodies))
			for i := range bodies {
				if bad(bodies[i]) {
					out[i] = "!InvalidMessageContents"
				}
			}
			return out, 200, ""
		}, []string{"bad"}},
		"as a batch": {func(bodies []string) ([]string, int, string) {
			if slices.ContainsFunc(bodies, bad) {
				return nil, 400, "InvalidMessageContents"
			}
			return accept(bodies)
		}, []string{"bad"}},
		"for its queue": {func([]string) ([]string, int, string) { return nil, 400, "QueueDoesNotExist" }, []string{"a", "bad", "b"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: slowFirst(tc.answer)}
			var notes []*note
			for _, text := range []string{"a", "bad", "b"} {
				notes = append(notes, newNote(text, true))
			}
			sendBehind(s.sender(t), notes...)
			if len(s.batches) < 2 || len(s.batches[1]) != 1 || s.batches[1][0] != "a\nbad\nb" {
				t.Fatalf("%s: sent %q", name, s.batches)
			}
			for _, n := range notes {
				if n.ends != 1 || (n.err != nil) != slices.Contains(tc.fails, n.text) {
					t.Errorf("%s: %s: %d ends, %v", name, n.text, n.ends, n.err)
				}
			}
			if n := len(s.batches); name == "for its queue" && n != 2 {
				t.Errorf("%d batches to a queue that is gone", n)
			}
		})
	}
}

// One batch that SQS does not answer holds up nobody: what comes after leaves within the linger.
func TestSlowBatchHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		s.answer = func(bodies []string) ([]string, int, string) {
			if slices.Contains(bodies, "stuck") {
				time.Sleep(2 * time.Second)
			}
			return accept(bodies)
		}
		sender := s.sender(t)
		stuck := newNote("stuck", false)
		sender.add(&stuck.out)
		synctest.Wait()
		var notes []*note
		for range 5 {
			for _, pack := range []bool{false, true} {
				n := newNote("next", pack)
				notes = append(notes, n)
				sender.add(&n.out)
			}
			time.Sleep(7 * time.Millisecond)
		}
		sender.wait()
		for i, n := range notes {
			if n.ends != 1 || n.err != nil || n.after > 2*maxLinger {
				t.Errorf("note %d: %d ends, %v, after %s", i, n.ends, n.err, n.after)
			}
		}
		if stuck.ends != 1 || stuck.err != nil {
			t.Errorf("the stuck one: %v", stuck.err)
		}
	})
}

// A message that was abandoned while it waited is never sent, packed or not.
// A message that a flight is about to take needs no timer, and what no flight takes has one.
func TestTimerOnlyForWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := (&scripted{answer: slowFirst(accept)}).sender(t)
		armed := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.timer != nil
		}
		first := newNote("first", false)
		s.add(&first.out)
		if armed() {
			t.Error("a message that is alone has a timer")
		}
		synctest.Wait() // it is under way
		second := newNote("second", false)
		s.add(&second.out)
		if !armed() {
			t.Error("what waits behind a batch under way has no timer")
		}
		s.wait()
	})
	// A flight leaves what does not fit in its batch.
	synctest.Test(t, func(t *testing.T) {
		slow := func(bodies []string) ([]string, int, string) {
			time.Sleep(time.Second)
			return accept(bodies)
		}
		s := (&scripted{answer: slow}).sender(t)
		var notes []*note
		s.mu.Lock() // so that the flight finds all of them
		for range 3 {
			n := newNote(strings.Repeat("x", maxSQSBytes/2), false)
			n.out.queuedAt = time.Now()
			notes, s.queue = append(notes, n), append(s.queue, &n.out)
		}
		s.schedule()
		s.mu.Unlock()
		s.wait()
		for i, n := range notes {
			if want := time.Second + maxLinger; n.ends != 1 || n.err != nil || n.after > want {
				t.Errorf("message %d: %d ends, %v, after %s, want %s at most", i, n.ends, n.err, n.after, want)
			}
		}
	})
}

func TestAbandonedIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: slowFirst(accept)}
		sender := s.sender(t)
		first := newNote("first", false)
		sender.add(&first.out)
		synctest.Wait()
		var kept []*note
		for _, pack := range []bool{false, true} {
			for range 3 {
				n := newNote("kept", pack)
				kept = append(kept, n)
				sender.add(&n.out)
			}
			gone := newNote("gone", pack)
			sender.add(&gone.out)
			if notSent, err := sender.abandon(&gone.out); !notSent || err != nil {
				t.Errorf("abandoned: not sent %t, %v", notSent, err)
			}
		}
		sender.wait()
		for _, b := range s.batches {
			if strings.Contains(strings.Join(b, "\n"), "gone") {
				t.Errorf("sent %q", b)
			}
		}
		for _, n := range kept {
			if n.ends != 1 || n.err != nil {
				t.Errorf("kept: %d ends, %v", n.ends, n.err)
			}
		}
	})
}

func TestStoppedSenderFailsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func([]string) ([]string, int, string) { return nil, 500, "InternalError" }}
		sender := s.sender(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		sender.ctx = ctx
		n := newNote("x", false)
		sender.add(&n.out)
		time.Sleep(10 * time.Millisecond)
		cancel(errors.New("over"))
		sender.wait()
		if n.ends != 1 || n.err == nil || n.notSent {
			t.Errorf("%d ends, %v, not sent %t", n.ends, n.err, n.notSent)
		}
	})
}

// A message that is abandoned while an attempt is under way is not sent again, however that ends.
func TestAbandonedInFlightIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func([]string) ([]string, int, string) {
			time.Sleep(10 * time.Millisecond)
			return nil, 500, "InternalError"
		}}
		sender := s.sender(t)
		n := newNote("x", false)
		sender.add(&n.out)
		synctest.Wait()
		if notSent, _ := sender.abandon(&n.out); notSent {
			t.Error("abandoned under way, and called not sent")
		}
		sender.wait()
		if len(s.batches) != 1 || n.ends != 0 {
			t.Errorf("sent %d times, %d ends", len(s.batches), n.ends)
		}
	})
}
