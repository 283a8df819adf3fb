package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// badError panics when anybody looks at it.
type badError struct{ in string }

func (e badError) Error() string {
	if e.in == "Error" {
		panic("no text")
	}
	return "bad"
}

func (e badError) Unwrap() error {
	if e.in == "Unwrap" {
		panic("no cause")
	}
	return nil
}

func (e badError) As(any) bool {
	if e.in == "As" {
		panic("no type")
	}
	return false
}

// Whatever a handler does, its request is answered, and the responder serves the next.
func TestHandlersAreContained(t *testing.T) {
	for name, tc := range map[string]struct {
		handle func() error
		code   rpcclient.Code
	}{
		"a nil *Error":         {func() error { var e *rpcclient.Error; return e }, rpcclient.OK},
		"a wrapped nil *Error": {func() error { var e *rpcclient.Error; return fmt.Errorf("no: %w", e) }, rpcclient.Unknown},
		"a panic":              {func() error { panic("ouch") }, rpcclient.Internal},
		"a panic with nil":     {func() error { panic(nil) }, rpcclient.Internal}, //nolint:govet // what it is about
		"Goexit":               {func() error { runtime.Goexit(); return nil }, rpcclient.Internal},
		"a panic of Error":     {func() error { return badError{"Error"} }, rpcclient.Internal},
		"a panic of Unwrap":    {func() error { return badError{"Unwrap"} }, rpcclient.Internal},
		"a panic of As":        {func() error { return badError{"As"} }, rpcclient.Internal},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", stream ", stream), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := newPair(t)
					var log strings.Builder
					bad := rpcclient.NewMethod[int, int]("bad")
					p.respond(t, func(r *rpcclient.Responder) {
						sum.Handle(r, addUp)
						if stream {
							bad.HandleStream(r, func(_ context.Context, _ int, send func(int) error) error {
								return errors.Join(send(1), tc.handle())
							}, rpcclient.WithMethodConcurrency(1))
							return
						}
						bad.Handle(r, func(context.Context, int) (int, error) { return 1, tc.handle() }, rpcclient.WithMethodConcurrency(1))
					}, rpcclient.WithConcurrency(1), rpcclient.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
					for range 3 { // it keeps no place
						var err error
						if stream {
							_, err = collect(bad.Stream(t.Context(), p.channel, 1))
						} else {
							_, err = bad.Call(t.Context(), p.channel, 1)
						}
						want := tc.code
						if stream && name == "a nil *Error" {
							want = rpcclient.Unknown // errors.Join made something of it
						}
						if rpcclient.CodeOf(err) != want {
							t.Errorf("got %v, want %s", err, want)
						}
					}
					p.call(t)
					if strings.Contains(name, "panic") && !strings.Contains(log.String(), "contain_test.go") {
						t.Errorf("the log does not say where: %s", log.String())
					}
					time.Sleep(20 * time.Second)
					if n := p.messages(t, requestQueue); n != 0 {
						t.Errorf("%d requests are left", n)
					}
				})
			})
		}
	}
}

func TestNilErrorOfCallInterceptor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				var e *rpcclient.Error
				errors.As(next(ctx, c, receive), &e)
				return e
			}
		}))
		p.serve(t, addUp)
		p.call(t)
		var none *rpcclient.Error
		if none.Error() == "" || none.Unwrap() != nil || none.WithDetails(1) != nil || errors.Is(none, context.Canceled) ||
			rpcclient.IsRemote(none) || rpcclient.CodeOf(none) != rpcclient.OK || rpcclient.CodeOf(fmt.Errorf("no: %w", none)) != rpcclient.Unknown {
			t.Error("a nil *Error is not nothing")
		}
	})
}

type panickingHooks struct{}

func (panickingHooks) OnServed(rpcclient.Served)         { panic("served") }
func (panickingHooks) OnSQSRequest(rpcclient.SQSRequest) { panic("request") }
func (panickingHooks) OnCallEnd(rpcclient.CallEnd)       { panic("call") }
func (panickingHooks) OnReplyQueue(string)               { panic("queue") }
func (panickingHooks) OnForgottenEarly(time.Duration)    { panic("forgotten") }

// panickingStore panics at first.
type panickingStore struct {
	rpcclient.ReplyStore
	claims, completes atomic.Int64
}

func (s *panickingStore) Claim(ctx context.Context, key rpcclient.StoreKey, lease time.Time) ([]byte, rpcclient.ClaimState, error) {
	if s.claims.Add(1) == 1 {
		panic("claim")
	}
	return s.ReplyStore.Claim(ctx, key, lease)
}

func (s *panickingStore) Complete(ctx context.Context, key rpcclient.StoreKey, reply []byte, failed bool, expires time.Time) error {
	if s.completes.Add(1) == 1 {
		panic("complete")
	}
	return s.ReplyStore.Complete(ctx, key, reply, failed, expires)
}

// What the application hangs on to a responder ends no process either.
func TestHooksAndStoresAreContained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, rpcclient.WithHooks(panickingHooks{}))
		p.serve(t, addUp, rpcclient.WithReplyStore(&panickingStore{ReplyStore: rpcclient.NewMemoryReplyStore(10)}),
			rpcclient.WithHooks(panickingHooks{}), rpcclient.WithReplyCache(1, 1<<20))
		p.call(t)
		p.call(t)
		if p.responder.Stats().ForgottenEarly != 1 {
			t.Error("nothing was forgotten")
		}
	})
}

// touchy is a reply whose decoder panics.
type touchy struct{ seen map[string]bool }

func (t *touchy) UnmarshalJSON(b []byte) error {
	t.seen[string(b)] = true
	return nil
}

// On a goroutine of this package nobody else could recover a panic: it ends the call, and not the process.
func TestPanicsOfStartedCalls(t *testing.T) {
	ask := rpcclient.NewMethod[int, touchy]("odd")
	for name, opts := range map[string][]rpcclient.Option{
		"codec": nil,
		"interceptor": {rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				panic(errors.New("assignment to entry in nil map"))
			}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log strings.Builder
				p := newPair(t, append(opts, rpcclient.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
				p.respond(t, func(r *rpcclient.Responder) {
					rpcclient.NewMethod[int, int]("odd").Handle(r, func(context.Context, int) (int, error) { return 1, nil })
				})
				want := rpcclient.MaybeExecuted
				if name == "interceptor" {
					want = rpcclient.NotSent
				}
				_, started := ask.Start(t.Context(), p.channel, 1).Wait(t.Context())
				_, gathered := ask.Gather(t.Context(), []*rpcclient.Channel{p.channel}, 1)
				for _, err := range []error{started, gathered} {
					var e *rpcclient.Error
					if !errors.As(err, &e) || e.Code != rpcclient.Internal || e.Outcome != want || !strings.Contains(e.Message, "nil map") {
						t.Errorf("got %v", err)
					}
				}
				if !strings.Contains(log.String(), "panicked") {
					t.Error("the log says nothing")
				}
			})
		})
	}
}

// Where the source of return addresses panics, the policy of before stands: also for those that wait for the others of
// their group.
func TestSourceOfReturnAddressesIsContained(t *testing.T) {
	for _, queue := range []string{requestQueue, "rq_test_ns_login.fifo"} {
		t.Run(queue, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.url = p.queue(t, queue)
				p.options = []rpcclient.Option{rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: p.url})}
				_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
				var log strings.Builder
				var asked atomic.Int64
				stop := p.serve(t, addUp, rpcclient.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), rpcclient.WithReturnAddressSource(func() rpcclient.ReturnAddressPolicy {
					if asked.Add(1) > 1 {
						panic("no policy")
					}
					return rpcclient.ReturnAddressPolicy{}
				}))
				time.Sleep(time.Minute)
				var all []*rpcclient.Pending[sumReply]
				for range 3 {
					all = append(all, sum.Start(t.Context(), channel, sumRequest{}, rpcclient.CallGroup("g")))
				}
				for _, c := range all {
					if _, err := c.Wait(t.Context()); err != nil {
						t.Error(err)
					}
				}
				stop()
				if asked.Load() < 2 || strings.Count(log.String(), "no policy") != int(asked.Load())-1 {
					t.Errorf("asked %d times; the log: %s", asked.Load(), log.String())
				}
			})
		})
	}
}
