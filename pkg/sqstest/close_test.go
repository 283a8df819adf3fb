package sqstest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// hookedClock calls a hook, once, when it is asked for the time.
type hookedClock struct {
	*sqstest.ManualClock
	hook atomic.Pointer[func()]
}

func (c *hookedClock) Now() time.Time {
	if hook := c.hook.Swap(nil); hook != nil {
		(*hook)()
	}
	return c.ManualClock.Now()
}

// A poll that has been let in when Close comes, and waits for nothing yet, must not wait for ever; and Close must
// await it.
func TestCloseAwaitsAPollThatIsJustBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &hookedClock{ManualClock: sqstest.NewManualClock(time.Now())}
		s := sqstest.New(sqstest.WithClock(clock))
		c := s.Client(noRetries)
		url := create(t, c, "q", nil)
		closed := make(chan struct{})
		polled := make(chan error, 1)
		hook := func() { // in the request, which is past the question whether the server is closed
			go func() {
				defer close(closed)
				s.Close()
			}()
			time.Sleep(time.Second) // for Close to do all it can
			select {
			case <-closed:
				t.Error("Close returned under a request")
			default:
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		clock.hook.Store(&hook)
		go func() {
			_, err := poll(ctx, c, url, 1, 20)
			polled <- err
		}()
		if err := <-polled; !errors.Is(err, sqstest.ErrServerClosed) {
			t.Errorf("the poll ended with %v", err)
		}
		<-closed
		if n := clock.Pending(); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

func TestCloseStopsWhatIsToHappenLater(t *testing.T) {
	clock := sqstest.NewManualClock(time.Now())
	s := sqstest.New(sqstest.WithClock(clock))
	c := s.Client(noRetries)
	url := create(t, c, "q", nil)
	s.SetFaults(plan(sqstest.Rule{Fault: sqstest.DeleteUnderPoll, Duration: time.Minute}))
	mustPoll(t, c, url, 1, 0)
	s.Close()
	if n := clock.Pending(); n != 0 {
		t.Errorf("%d timers are left", n)
	}
	clock.Advance(time.Hour)
	if _, ok := s.Queue("q"); !ok {
		t.Error("the queue was deleted after Close")
	}
}

// A move task that starts as the server closes neither runs nor panics when it is cancelled.
func TestMoveTaskUnderClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &hookedClock{ManualClock: sqstest.NewManualClock(time.Now())}
		s := sqstest.New(sqstest.WithClock(clock))
		c := s.Client(noRetries)
		create(t, c, "dead", nil)
		create(t, c, "q", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":1}`})
		closed := make(chan struct{})
		hook := func() {
			go func() {
				defer close(closed)
				s.Close()
			}()
			time.Sleep(time.Second)
		}
		clock.hook.Store(&hook)
		_, err := c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:000000000000:dead")})
		if err == nil {
			t.Error("a task started on a closed server")
		}
		<-closed
		if n := clock.Pending(); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

// Close does not wait for a request whose client does not send the rest of it.
func TestCloseWithARequestThatDoesNotCome(t *testing.T) {
	s := sqstest.New()
	front := httptest.NewServer(s)
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The server asks for the body when it reads it.
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
}
