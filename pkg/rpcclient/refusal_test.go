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

// A refusal whose reply was not accepted is decided anew when the request comes back: another responder may have handled
// it meanwhile.
func TestRefusalThatWasNotSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runsB atomic.Int64
		// A: method limit 1, busy with another call, sheds.
		var refuseA atomic.Bool
		var takeA, takeB atomic.Bool
		takeA.Store(true)
		clientA := wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
			if action == "ReceiveMessage" {
				for !takeA.Load() {
					select {
					case <-r.Context().Done():
						return nil, r.Context().Err()
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
			if action == "SendMessageBatch" && refuseA.Load() {
				takeA.Store(false)
				return nil, errors.New("no network")
			}
			return inner.Do(r)
		})
		ra, err := rpcclient.NewResponder(clientA, append(p.options, rpcclient.WithReceiveWait(time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		sum.Handle(ra, func(ctx context.Context, r sumRequest) (sumReply, error) {
			if len(r.Numbers) > 0 && r.Numbers[0] == 7 {
				t.Error("A ran it")
			}
			<-release
			return addUp(ctx, r)
		}, rpcclient.WithMethodConcurrency(1))
		ctxA, stopA := context.WithCancel(context.Background())
		servedA := make(chan error, 1)
		go func() { servedA <- ra.Serve(ctxA) }()
		// fill A's place and its waiting place
		for range 2 {
			go func() {
				_, _ = sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.CallTimeout(5*time.Minute))
			}()
		}
		time.Sleep(5 * time.Second)
		// B: another responder that runs it and is killed before its answer is out
		clientB := wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
			if action == "ReceiveMessage" {
				for !takeB.Load() {
					select {
					case <-r.Context().Done():
						return nil, r.Context().Err()
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
			return inner.Do(r)
		})
		rb, err := rpcclient.NewResponder(clientB, append(p.options, rpcclient.WithReceiveWait(time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		var killB func()
		sum.Handle(rb, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runsB.Add(1)
			takeB.Store(false)
			takeA.Store(true)
			refuseA.Store(false)
			go killB()
			<-ctx.Done()
			return sumReply{}, ctx.Err()
		})
		servedB := make(chan error, 1)
		go func() { servedB <- rb.Serve(context.Background()) }()
		killB = func() {
			c, cancel := context.WithCancel(context.Background())
			cancel()
			_ = rb.Shutdown(c)
		}
		refuseA.Store(true)
		go func() { // once A has refused, B may receive
			for takeA.Load() {
				time.Sleep(100 * time.Millisecond)
			}
			takeB.Store(true)
		}()
		_, err = sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{7}}, rpcclient.CallTimeout(2*time.Minute), rpcclient.CallMaxAttempts(1))
		var e *rpcclient.Error
		errors.As(err, &e)
		if runsB.Load() > 0 && e != nil && e.Outcome == rpcclient.Rejected {
			t.Error("Rejected, and executed; SQS had handed the message out thrice, which A sees")
		}
		close(release)
		takeA.Store(true)
		stopA()
		if err := <-servedA; err != nil {
			t.Error(err)
		}
		if err := <-servedB; err == nil {
			t.Error("the one that was killed ended well")
		}
		time.Sleep(time.Minute)
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
						body := `{"Successful":[],"Failed":[{"Id":"0","Code":"` + code + `","SenderFault":true,"Message":"slow down"}]}`
						return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r, ContentLength: int64(len(body))}, nil
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
