package rpcenv

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// What the file has, once it has something that can be read, stands until it has something else.
func TestAddressesFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "return-addresses")
	var log strings.Builder
	f := &addressesFile{name: name, policy: policyOf(&injected.ReturnAddresses{Prefixes: []string{"env_"}}), log: slog.New(slog.NewTextHandler(&log, nil))}
	for i, step := range []struct{ text, want string }{
		{"", "env_"}, // not there
		{" ", "env_"},
		{injected.Encode(injected.ReturnAddresses{Prefixes: []string{"first_"}}), "first_"},
		{"{", "first_"},
		{"{", "first_"},
		{"", "first_"},
		{injected.Encode(injected.ReturnAddresses{Prefixes: []string{"second_"}}), "second_"},
	} {
		if i > 0 {
			if err := os.WriteFile(name, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.current(); len(got.Prefixes) != 1 || got.Prefixes[0] != step.want {
			t.Errorf("step %d: %v, want %s", i, got.Prefixes, step.want)
		}
	}
	if n := strings.Count(log.String(), "cannot be read"); n != 1 {
		t.Errorf("%d warnings of one text:\n%s", n, log.String())
	}
}

// A responder that runs answers a requester whose QueueProvider came after its start.
func TestReturnAddressesChangeWhileServing(t *testing.T) {
	endpoint, urls := queues(t, "rq_c_ns_login", "other_c_r_1")
	file := filepath.Join(t.TempDir(), injected.ReturnAddressesFile)
	addresses := func(prefixes ...string) string {
		return injected.Encode(injected.ReturnAddresses{AccountID: "000000000000", Region: "us-east-1", Endpoint: endpoint, Prefixes: prefixes})
	}
	for name, value := range map[string]string{
		injected.EnvReplyQueueURL: urls[1], injected.EnvRegion: "us-east-1", injected.EnvEndpoint: endpoint,
		injected.EnvChannels:        injected.Encode(injected.Channels{"login": {URL: urls[0], Role: injected.RoleBoth}}),
		injected.EnvReturnAddresses: addresses("rq_c_r_"), injected.EnvReturnAddressesFile: file,
	} {
		t.Setenv(name, value)
	}
	if err := os.WriteFile(file, []byte(addresses("rq_c_r_")), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := make(chan struct{}, 1)
	responder, err := NewResponder(t.Context(), rpcclient.WithReceiveWait(time.Second), rpcclient.WithHooks(served(func(s rpcclient.Served) {
		if s.Situation == rpcclient.BadAddress {
			select {
			case refused <- struct{}{}:
			default:
			}
		}
	})))
	if err != nil {
		t.Fatal(err)
	}
	echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
	stop := serving(t, responder)
	requester, err := NewRequester(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	login, err := requester.Channel("login")
	if err != nil {
		t.Fatal(err)
	}
	one, giveUp := context.WithCancel(t.Context())
	lost := echo.Start(one, login, "hello")
	<-refused
	giveUp()
	if _, err := lost.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("an address that is not allowed yet: %v", err)
	}
	if err := os.WriteFile(file, []byte(addresses("other_c_r_", "rq_c_r_")), 0o600); err != nil {
		t.Fatal(err)
	}
	// At most for as long as what was read counts.
	for end := time.Now().Add(20 * time.Second); ; {
		got, err := echo.Call(t.Context(), login, "hello", rpcclient.CallTimeout(time.Second))
		if err == nil && got == "hello" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	shutdown(t, requester)
	stop()
}

type served func(rpcclient.Served)

func (f served) OnServed(s rpcclient.Served) { f(s) }
