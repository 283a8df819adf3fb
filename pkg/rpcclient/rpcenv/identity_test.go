package rpcenv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// sends has an element for each send that SQS accepted.
type sends chan struct{}

func (s sends) OnSQSRequest(r rpcclient.SQSRequest) {
	if r.Action == rpcclient.ActionSend && r.Err == nil {
		s <- struct{}{}
	}
}

// A pod of a StatefulSet calls and dies; the pod that replaces it resumes the call, though its reply came to the
// queue long before it asked. It is told of its identity by its environment, or by its Lease where it started
// without one.
func TestASuccessorReadsItsPredecessorsReplies(t *testing.T) {
	identity := injected.Encode(injected.Identity{Kind: injected.IdentityStable, RetentionSeconds: 600})
	for name, tc := range map[string]struct {
		environment, lease string
		more               []rpcclient.Option
		holds              bool
	}{
		"Stable":                    {environment: identity, holds: true},
		"Stable, told by the Lease": {lease: identity, holds: true},
		"Pod":                       {},
		"a kind of later versions":  {environment: `{"kind":"Other","retentionSeconds":600,"more":true}`},
		"the program holds nothing": {environment: identity, more: []rpcclient.Option{rpcclient.WithHeldReplies(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, urls := queues(t, "rq_c_ns_login", "rq_c_r_1")
			channels := injected.Encode(injected.Channels{"login": {URL: urls[0], Role: injected.RoleBoth, TimeoutSeconds: 20}})
			returns := injected.Encode(injected.ReturnAddresses{AccountID: "000000000000", Region: "us-east-1", Endpoint: endpoint, Prefixes: []string{"rq_c_r_"}})
			api := newAPIServer(t)
			api.set(injected.LeaseState, injected.LeaseStateOpen, injected.LeaseReplyQueueURL, urls[1], injected.LeaseIdentity, tc.lease)
			variables := api.variables(map[string]string{
				injected.EnvReplyQueueURL: urls[1], injected.EnvRegion: "us-east-1", injected.EnvEndpoint: endpoint,
				injected.EnvChannels: channels, injected.EnvReturnAddresses: returns, injected.EnvIdentity: tc.environment,
			})
			if tc.lease != "" { // and all else
				api.set(injected.LeaseChannels, channels, injected.LeaseReturnAddresses, returns,
					injected.LeaseRegion, "us-east-1", injected.LeaseEndpoint, endpoint)
				variables = api.variables(nil)
			}
			called, answered := make(sends, 10), make(sends, 10)
			start := func() (*rpcclient.Requester, *rpcclient.Channel) {
				e, err := readEnvironment(variables, noFolder)
				if err != nil {
					t.Fatal(err)
				}
				// No reply is young enough to be left for another process without being held.
				r, err := e.requester(t.Context(), append([]rpcclient.Option{rpcclient.WithReceiveWait(time.Second), rpcclient.WithForeignGrace(0), rpcclient.WithHooks(called)}, tc.more...))
				if err != nil {
					t.Fatal(err)
				}
				login, err := r.Channel("login")
				if err != nil {
					t.Fatal(err)
				}
				return r, login
			}

			first, login := start()
			id := rpcclient.NewCallID()
			pending := echo.Start(t.Context(), login, "hello", rpcclient.WithCallID(id))
			<-called
			killed, kill := context.WithCancel(t.Context())
			kill()
			_ = first.Shutdown(killed)
			if _, err := pending.Wait(t.Context()); !errors.Is(err, rpcclient.ErrClosed) {
				t.Fatalf("the call that was cut off: %v", err)
			}

			e, err := readEnvironment(variables, noFolder)
			if err != nil {
				t.Fatal(err)
			}
			responder, err := e.responder(t.Context(), []rpcclient.Option{rpcclient.WithReceiveWait(time.Second), rpcclient.WithHooks(answered)})
			if err != nil {
				t.Fatal(err)
			}
			echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- responder.Serve(ctx) }()
			defer func() {
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()
			<-answered

			second, login := start()
			defer shutdown(t, second)
			// The reply that nobody awaits comes before that of a call.
			if _, err := echo.Call(t.Context(), login, "other"); err != nil {
				t.Fatal(err)
			}
			got, err := echo.Resume(t.Context(), login, id, rpcclient.CallTimeout(time.Second))
			if tc.holds && (err != nil || got != "hello") {
				t.Errorf("got %q, %v", got, err)
			}
			if !tc.holds && rpcclient.CodeOf(err) != rpcclient.DeadlineExceeded {
				t.Errorf("got %q, %v, want no reply", got, err)
			}
		})
	}
}

func TestIdentityOfTheEnvironment(t *testing.T) {
	for _, text := range []string{"{", `{"kind":"Stable"}`, `{"retentionSeconds":5}`, `{"kind":"Stable","retentionSeconds":-1}`} {
		if _, err := readEnvironment(func(name string) string { return map[string]string{injected.EnvIdentity: text}[name] }, noFolder); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}
