package sqstest_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A poll over a socket is cancelled, and a message is sent once the cancelled call has returned: net/http may not have
// noticed by then that the client hung up, but the kernel has.
func TestMessageSentAfterACancelledPollIsNotEatenOverASocket(t *testing.T) {
	s := sqstest.NewServer(t)
	c := loopbackClient(s)
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan []types.Message)
		go func() {
			m, _ := poll(ctx, c, url, 1, 20)
			done <- m
		}()
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
		cancel()
		if m := <-done; len(m) != 0 {
			t.Fatalf("the cancelled poll got %v", m)
		}
		send(t, c, url, "x")
		// It may come a moment later, when the poll that it woke has put it back.
		m := mustPoll(t, c, url, 1, 5)
		if len(m) != 1 || m[0].Attributes["ApproximateReceiveCount"] != "1" {
			t.Fatalf("received %+v", m)
		}
		remove(t, c, url, m[0])
	}
}

// With another poll waiting, the message is that one's.
func TestMessageOfAHungUpPollGoesToTheNext(t *testing.T) {
	s := sqstest.NewServer(t)
	c := loopbackClient(s)
	url := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		gone, got := make(chan struct{}), make(chan []types.Message)
		go func() {
			defer close(gone)
			_, _ = poll(ctx, c, url, 1, 20)
		}()
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 })
		go func() {
			m, _ := poll(t.Context(), c, url, 1, 20)
			got <- m
		}()
		until(t, func() bool { q, _ := s.Queue("q"); return q.Pollers == 2 })
		cancel()
		<-gone
		send(t, c, url, "x")
		m := <-got
		if len(m) != 1 || m[0].Attributes["ApproximateReceiveCount"] != "1" {
			t.Fatalf("received %+v", m)
		}
		remove(t, c, url, m[0])
	}
}

// heldListener hands connections over when it is let.
type heldListener struct {
	net.Listener
	let chan struct{}
}

func (l heldListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		<-l.let
	}
	return c, err
}

// A request whose client has hung up before the server comes to it takes nothing, though a message is there.
func TestRequestOfAHungUpClientTakesNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	let := make(chan struct{}, 1)
	s := sqstest.New()
	s.Serve(heldListener{listener, let})
	defer s.Close()
	defer close(let)
	c := s.Client()
	standard := create(t, c, "q", map[string]string{"VisibilityTimeout": "600"})
	fifo := create(t, c, "q.fifo", map[string]string{"VisibilityTimeout": "600", "FifoQueue": "true", "ContentBasedDeduplication": "true"})
	send(t, c, standard, "x")
	sendGrouped(t, c, fifo, "x", "g")
	for _, body := range []string{
		`{"QueueUrl":"` + standard + `"}`, `{"QueueUrl":"` + standard + `","WaitTimeSeconds":20}`,
		`{"QueueUrl":"` + fifo + `","ReceiveRequestAttemptId":"a"}`,
	} {
		s.ResetRequests()
		hangUp(t, listener.Addr().String(), body)
		let <- struct{}{}
		until(t, func() bool { return s.Requests(sqstest.Action("ReceiveMessage")) == 1 })
		for _, name := range []string{"q", "q.fifo"} {
			if q, _ := s.Queue(name); q.InFlight != 0 || q.Visible != 1 {
				t.Errorf("%s: %s has %d in flight, %d visible", body, name, q.InFlight, q.Visible)
			}
		}
	}
}

// hangUp sends a receive and closes the connection at once.
func hangUp(t *testing.T, address, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.0\r\n"+
		"X-Amz-Target: AmazonSQS.ReceiveMessage\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}
