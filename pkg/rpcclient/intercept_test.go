package rpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// trail notes what happened, in order.
type trail struct {
	mu    sync.Mutex
	steps []string
}

func (l *trail) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, fmt.Sprintf(format, args...))
}

func (l *trail) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.steps)
}

func (l *trail) onCall(name string) rpcclient.CallInterceptor {
	return func(next rpcclient.CallFunc) rpcclient.CallFunc {
		return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
			l.add("%s sends a %s to %s/%s", name, c.Kind, c.Channel, c.Method)
			err := next(ctx, c, func(reply any) error {
				l.add("%s receives", name)
				return receive(reply)
			})
			l.add("%s ends: %s", name, rpcclient.CodeOf(err))
			return err
		}
	}
}

func (l *trail) onHandler(name string) rpcclient.HandlerInterceptor {
	return func(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
		return func(ctx context.Context, c *rpcclient.IncomingCall, send func(any) error) error {
			l.add("%s handles %s", name, c.Info.Method)
			err := next(ctx, c, func(reply any) error {
				l.add("%s sends", name)
				return send(reply)
			})
			l.add("%s ends: %s", name, rpcclient.CodeOf(err))
			return err
		}
	}
}

func TestInterceptorsRunInOrderOnBothSides(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var l trail
		p := newPair(t, rpcclient.WithCallInterceptors(l.onCall("outer"), l.onCall("inner")),
			rpcclient.WithHandlerInterceptors(l.onHandler("first"), l.onHandler("second")))
		stop := p.serve(t, addUp)
		p.call(t)
		stop()
		want := []string{
			"outer sends a call to login/calculate_sum", "inner sends a call to login/calculate_sum",
			"first handles calculate_sum", "second handles calculate_sum", "second sends", "first sends", "second ends: OK", "first ends: OK",
			"inner receives", "outer receives", "inner ends: OK", "outer ends: OK",
		}
		if got := l.all(); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestInterceptorsSeeAndChangeWhatTravels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		p := newPair(t, rpcclient.WithCallInterceptors(func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				c.Metadata[rpcclient.TraceParent] = trace
				c.Metadata["tenant"] = "a"
				c.Request = sumRequest{Numbers: append(c.Request.(sumRequest).Numbers, 40)}
				err := next(ctx, c, func(reply any) error {
					return receive(sumReply{Sum: reply.(sumReply).Sum * 2})
				})
				if c.ReplyMetadata["served-by"] != "r1" || c.ReplyMetadata[rpcclient.TraceParent] != trace || c.Attempts != 1 || len(c.CallID) != 12 {
					t.Errorf("after the call: %+v", c)
				}
				return err
			}
		}))
		stop := p.serve(t, addUp, rpcclient.WithHandlerInterceptors(func(next rpcclient.HandlerFunc) rpcclient.HandlerFunc {
			return func(ctx context.Context, c *rpcclient.IncomingCall, send func(any) error) error {
				md := c.Info.Metadata()
				if md[rpcclient.TraceParent] != trace || md["tenant"] != "a" || md["user"] != "u" {
					t.Errorf("metadata %v", md)
				}
				rpcclient.SetReplyMetadata(ctx, "served-by", "r1")
				rpcclient.SetReplyMetadata(ctx, rpcclient.TraceParent, md[rpcclient.TraceParent])
				if rpcclient.SetReplyMetadata(ctx, "large", strings.Repeat("x", 5000)) {
					t.Error("5,000 bytes of metadata fit")
				}
				c.Request = sumRequest{Numbers: append(c.Request.(sumRequest).Numbers, 1)}
				return next(ctx, c, send)
			}
		}))
		var md rpcclient.Metadata
		got, err := sum.Call(t.Context(), p.channel, sumRequest{Numbers: []int{1}}, rpcclient.CallMetadata("user", "u"), rpcclient.CallReplyMetadata(&md))
		if err != nil || got.Sum != 2*(1+40+1) || md["served-by"] != "r1" {
			t.Errorf("got %v, %v with %v", got, err, md)
		}
		stop()
	})
}

func TestInterceptorErrors(t *testing.T) {
	refused := errors.New("not today")
	for name, tc := range map[string]struct {
		intercept rpcclient.CallInterceptor
		code      rpcclient.Code
		outcome   rpcclient.Outcome
	}{
		"before": {func(rpcclient.CallFunc) rpcclient.CallFunc {
			return func(context.Context, *rpcclient.OutgoingCall, func(any) error) error { return refused }
		}, rpcclient.Unknown, rpcclient.NotSent},
		"before, with a code": {func(rpcclient.CallFunc) rpcclient.CallFunc {
			return func(context.Context, *rpcclient.OutgoingCall, func(any) error) error {
				return rpcclient.Errorf(rpcclient.PermissionDenied, "%w", refused)
			}
		}, rpcclient.PermissionDenied, rpcclient.NotSent},
		"after": {func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				return errors.Join(refused, next(ctx, c, receive))
			}
		}, rpcclient.Unknown, rpcclient.Executed},
		"another type": {func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				return next(ctx, c, func(any) error { return receive("text") })
			}
		}, rpcclient.Internal, rpcclient.Executed},
		"no reply": {func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, _ func(any) error) error {
				return next(ctx, c, func(any) error { return nil })
			}
		}, rpcclient.Internal, rpcclient.Executed},
		"twice": {func(next rpcclient.CallFunc) rpcclient.CallFunc {
			return func(ctx context.Context, c *rpcclient.OutgoingCall, receive func(any) error) error {
				if err := next(ctx, c, receive); err != nil {
					return err
				}
				return next(ctx, c, receive)
			}
		}, rpcclient.Internal, rpcclient.Executed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t, rpcclient.WithCallInterceptors(tc.intercept))
				p.serve(t, addUp)
				_, err := sum.Call(t.Context(), p.channel, sumRequest{})
				var e *rpcclient.Error
				if !errors.As(err, &e) || e.Code != tc.code || e.Outcome != tc.outcome || len(e.CallID) != 12 {
					t.Errorf("got %v; want %s (%s)", err, tc.code, tc.outcome)
				}
				if name != "another type" && name != "no reply" && name != "twice" && !errors.Is(err, refused) {
					t.Errorf("the cause is lost: %v", err)
				}
				time.Sleep(time.Second)
				if n := p.requester.Pending(); n != 0 {
					t.Errorf("%d calls are still pending", n)
				}
			})
		})
	}
}

// The same interceptors see streams, frame by frame, and calls without a reply.
func TestInterceptorsOfStreamsAndNotifications(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var l trail
		p := newPair(t, rpcclient.WithCallInterceptors(l.onCall("caller")))
		stop := p.respond(t, func(r *rpcclient.Responder) { count.HandleStream(r, countTo) }, rpcclient.WithHandlerInterceptors(l.onHandler("handler")))
		if got, err := collect(count.Stream(t.Context(), p.channel, 2)); err != nil || len(got) != 2 {
			t.Errorf("got %v, %v", got, err)
		}
		time.Sleep(time.Second)
		if err := count.Notify(t.Context(), p.channel, 1); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		stop()
		for side, want := range map[string][]string{ // which of the two is first is open
			"caller": {
				"caller sends a stream to login/count", "caller receives", "caller receives", "caller ends: OK",
				"caller sends a notify to login/count", "caller ends: OK",
			},
			"handler": {
				"handler handles count", "handler sends", "handler sends", "handler ends: OK",
				"handler handles count", "handler sends", "handler ends: OK",
			},
		} {
			got := slices.DeleteFunc(l.all(), func(step string) bool { return !strings.HasPrefix(step, side) })
			if !slices.Equal(got, want) {
				t.Errorf("the %s's steps:\n%s", side, strings.Join(got, "\n"))
			}
		}
	})
}

// The trace context is an attribute of both messages, where tracers of other languages look for it.
func TestTraceContextOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		p := newPair(t)
		pending := sum.Start(t.Context(), p.channel, sumRequest{}, rpcclient.CallMetadata(rpcclient.TraceParent, trace), rpcclient.CallMetadata("k", "v"))
		request := p.receive(t, p.url).MessageAttributes
		if len(request) != 3 || *request["traceparent"].StringValue != trace || strings.Contains(*request["replyqueue"].StringValue, trace) {
			t.Errorf("request: %v", request)
		}
		pending.Cancel()
		<-pending.Done()

		stop := p.respond(t, func(r *rpcclient.Responder) {
			sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) {
				rpcclient.SetReplyMetadata(ctx, rpcclient.TraceParent, trace)
				return addUp(ctx, q)
			})
		})
		p.copies(t, 1, "calculate_sum", `{"Numbers":[1]}`, "1")
		reply := p.receive(t, p.replyURL).MessageAttributes
		if len(reply) != 2 || *reply["traceparent"].StringValue != trace { // all else is said by the absence of an envelope
			t.Errorf("reply: %v", reply)
		}
		stop()
	})
}
