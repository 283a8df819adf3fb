package sqstest_test

import (
	"context"
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
