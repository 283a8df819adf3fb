package rpcclient_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

type doer interface {
	Do(*http.Request) (*http.Response, error)
}
type doerFunc func(*http.Request) (*http.Response, error)

func (f doerFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func wrapped(c *sqs.Client, f func(inner doer, action string, r *http.Request) (*http.Response, error)) *sqs.Client {
	return sqs.New(c.Options(), func(o *sqs.Options) {
		inner := o.HTTPClient
		o.HTTPClient = doerFunc(func(r *http.Request) (*http.Response, error) {
			a := r.Header.Get("X-Amz-Target")
			return f(inner, a[strings.LastIndex(a, ".")+1:], r)
		})
	})
}

// Nobody is told Rejected whose request another responder may still be given: a refusal is sent when its request is
// deleted, and not at all when SQS does not confirm that.
func TestRefusalComesAfterItsDelete(t *testing.T) {
	for _, how := range []string{"deletes fail", "entries of deletes fail", "answers of deletes are lost", "killed"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				client := wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
					switch {
					case action != "DeleteMessageBatch" || how == "killed":
						return inner.Do(r)
					case how == "deletes fail":
						return nil, errors.New("no network")
					case how == "answers of deletes are lost":
						if resp, err := inner.Do(r); err == nil {
							_ = resp.Body.Close()
						}
						return nil, errors.New("no network")
					}
					return answered(r, `{"Successful":[],"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false,"Message":"no"}]}`), nil
				})
				// One of yesterday, which lacks the method.
				old, err := rpcclient.NewResponder(client, p.options...)
				if err != nil {
					t.Fatal(err)
				}
				rpcclient.NewMethod[int, int]("other").Handle(old, func(context.Context, int) (int, error) { return 0, nil })
				served := make(chan error, 1)
				go func() { served <- old.Serve(context.Background()) }()
				called := make(chan error, 1)
				go func() {
					_, err := sum.Call(context.Background(), p.channel, sumRequest{}, rpcclient.CallMaxAttempts(1), rpcclient.CallTimeout(30*time.Second))
					called <- err
				}()
				time.Sleep(5 * time.Second)
				over, cancel := context.WithCancel(context.Background())
				cancel()
				_ = old.Shutdown(over)
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) { runs.Add(1); return addUp(ctx, r) })
				err = <-called
				if err := <-served; err == nil {
					t.Error("it was cut off, and ended well")
				}
				time.Sleep(30 * time.Second)
				switch how {
				case "deletes fail", "entries of deletes fail": // the other's answer
					if err != nil || runs.Load() != 1 {
						t.Errorf("%v; executed %d times", err, runs.Load())
					}
				case "killed":
					wantOutcome(t, err, rpcclient.Unimplemented, rpcclient.Rejected)
					if runs.Load() != 0 {
						t.Errorf("executed %d times", runs.Load())
					}
				default: // it is gone, and its responder cannot know
					wantOutcome(t, err, rpcclient.DeadlineExceeded, rpcclient.MaybeExecuted)
				}
			})
		})
	}
}

func answered(r *http.Request, body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r, ContentLength: int64(len(body)),
	}
}

// A refusal that SQS does not accept at first is sent again: its request is deleted, and nobody else can answer it.
func TestRefusalIsSentUntilItIsAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.respond(t, func(r *rpcclient.Responder) {
			rpcclient.NewMethod[int, int]("other").Handle(r, func(context.Context, int) (int, error) { return 0, nil })
		})
		p.server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "SendMessageBatch", Queue: replyQueue}}})
		time.AfterFunc(15*time.Second, func() { p.server.SetFaults(sqstest.Plan{}) })
		_, err := sum.Call(t.Context(), p.channel, sumRequest{})
		wantOutcome(t, err, rpcclient.Unimplemented, rpcclient.Rejected)
	})
}

// A refusal whose delete took so long that the request may have been given to another meanwhile is none for certain.
func TestRefusalAfterItsVisibility(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var deletes, receives atomic.Int64
		client := wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
			switch action {
			case "ChangeMessageVisibilityBatch":
				return nil, errors.New("no network")
			case "DeleteMessageBatch":
				if deletes.Add(1) < 3 {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
			case "ReceiveMessage":
				if receives.Add(1) > 1 {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
			}
			return inner.Do(r)
		})
		old, err := rpcclient.NewResponder(client, rpcclient.WithMaxPollers(1), rpcclient.WithReceiveWait(20*time.Second),
			rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url, VisibilityTimeout: 5 * time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		rpcclient.NewMethod[int, int]("other").Handle(old, func(context.Context, int) (int, error) { return 0, nil })
		served := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { served <- old.Serve(ctx) }()
		_, err = sum.Call(t.Context(), p.channel, sumRequest{}, rpcclient.CallMaxAttempts(1))
		wantOutcome(t, err, rpcclient.Unimplemented, rpcclient.MaybeExecuted)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// Two processes that hold replies and share a queue leave each other theirs.
func TestTwoHoldersOnOneQueue(t *testing.T) {
	for _, grace := range []time.Duration{0, 10 * time.Minute} {
		t.Run(grace.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t, rpcclient.WithHeldReplies(grace))
				_, second := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
				p.serve(t, addUp)
				var worst time.Duration
				failed, slow := 0, 0
				const n = 100
				type res struct {
					took time.Duration
					err  error
				}
				out := make(chan res, 2*n)
				for range n {
					for _, ch := range []*rpcclient.Channel{p.channel, second} {
						go func() {
							at := time.Now()
							_, err := sum.Call(context.Background(), ch, sumRequest{})
							out <- res{time.Since(at), err}
						}()
					}
					time.Sleep(300 * time.Millisecond)
				}
				for range 2 * n {
					r := <-out
					worst = max(worst, r.took)
					if r.err != nil {
						failed++
					}
					if r.took > time.Second {
						slow++
					}
				}
				if failed > 0 || slow > 40 {
					t.Errorf("grace %s: of %d calls %d failed, %d took over 1 s; worst %s", grace, 2*n, failed, slow, worst)
				}
			})
		})
	}
}

// An extension that SQS throttles, which it calls the sender's fault, is made again.
func TestThrottledExtensionIsMadeAgain(t *testing.T) {
	for _, code := range []string{"RequestThrottled", "KmsThrottled"} {
		t.Run(code, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var struck atomic.Int64
				p.client = wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
					if action == "ChangeMessageVisibilityBatch" && struck.Add(1) == 1 {
						return answered(r, `{"Successful":[],"Failed":[{"Id":"0","Code":"`+code+`","SenderFault":true,"Message":"slow down"}]}`), nil
					}
					return inner.Do(r)
				})
				var runs atomic.Int64
				for range 2 {
					p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
						runs.Add(1)
						time.Sleep(25 * time.Second)
						return addUp(ctx, r)
					})
				}
				_, _ = sum.Call(t.Context(), p.channel, sumRequest{})
				time.Sleep(30 * time.Second)
				if runs.Load() != 1 {
					t.Errorf("%d runs", runs.Load())
				}
			})
		})
	}
}
