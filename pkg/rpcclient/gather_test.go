package rpcclient_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// newFleet is a requester with three channels, each with a responder that answers after its own time.
func newFleet(t *testing.T, took map[string]time.Duration, answer func(name string) error) (p *pair, targets []*rpcclient.Channel) {
	t.Helper()
	s := sqstest.New()
	p = &pair{server: s, client: s.Client()}
	p.replyURL = p.queue(t, replyQueue)
	var channels []rpcclient.ChannelConfig
	names := []string{"a", "b", "c"}
	for _, name := range names {
		channels = append(channels, rpcclient.ChannelConfig{Name: name, URL: p.queue(t, "rq_test_ns_"+name)})
	}
	r, err := rpcclient.NewRequester(p.client, rpcclient.StaticReplyQueue(p.replyURL), rpcclient.WithChannels(channels...))
	if err != nil {
		t.Fatal(err)
	}
	p.requester = r
	t.Cleanup(func() {
		if err := r.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i, name := range names {
		p.options = []rpcclient.Option{rpcclient.WithChannels(channels[i])}
		p.respond(t, func(r *rpcclient.Responder) {
			where.Handle(r, func(ctx context.Context, _ int) (string, error) {
				rpcclient.SetReplyMetadata(ctx, "at", name)
				time.Sleep(took[name])
				return name, answer(name)
			})
		})
		ch, err := r.Channel(name)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, ch)
	}
	return p, targets
}

var where = rpcclient.NewMethod[int, string]("where")

func TestGather(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, targets := newFleet(t, map[string]time.Duration{"a": 3 * time.Second}, func(string) error { return nil })
		got, err := where.Gather(t.Context(), targets, 1)
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		for i, name := range []string{"a", "b", "c"} {
			if g := got[i]; g.Reply != name || g.Err != nil || g.Channel != targets[i] || g.ReplyMetadata["at"] != name {
				t.Errorf("%+v", g)
			}
		}
		if got, err := where.Gather(t.Context(), nil, 1); err != nil || len(got) != 0 {
			t.Errorf("of nobody: %v, %v", got, err)
		}
	})
}

func TestGatherSaysWhatIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, targets := newFleet(t, map[string]time.Duration{"c": 20 * time.Second}, func(name string) error {
			if name == "b" {
				return rpcclient.Errorf(rpcclient.NotFound, "not here")
			}
			return nil
		})
		got, err := where.Gather(t.Context(), targets, 1, rpcclient.CallTimeout(5*time.Second))
		var incomplete *rpcclient.Incomplete
		e := errorOf(err)
		if !errors.As(err, &incomplete) || *incomplete != (rpcclient.Incomplete{Received: 1, Expected: 3}) ||
			e.Code != rpcclient.NotFound || e.Outcome != rpcclient.Executed || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got[0].Reply != "a" || got[0].Err != nil || rpcclient.CodeOf(got[1].Err) != rpcclient.NotFound ||
			rpcclient.CodeOf(got[2].Err) != rpcclient.DeadlineExceeded || errorOf(got[2].Err).Outcome != rpcclient.MaybeExecuted {
			t.Errorf("got %+v", got)
		}
		for _, opt := range []rpcclient.CallOption{rpcclient.WithCallID(rpcclient.NewCallID()), rpcclient.CallReplyMetadata(new(rpcclient.Metadata))} {
			if _, err := where.Gather(t.Context(), targets, 1, opt); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestGatherFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var failing atomic.Value
		failing.Store("")
		_, targets := newFleet(t, map[string]time.Duration{"a": 20 * time.Second, "b": 2 * time.Second, "c": 4 * time.Second}, func(name string) error {
			if name == failing.Load() {
				return rpcclient.Errorf(rpcclient.Internal, "broken")
			}
			return nil
		})
		started := time.Now()
		got, err := where.GatherFirst(t.Context(), 2, targets, 1)
		if took := time.Since(started); err != nil || took < 4*time.Second || took > 5*time.Second {
			t.Fatalf("%v after %s", err, took)
		}
		if got[1].Reply != "b" || got[2].Reply != "c" || !errors.Is(got[0].Err, rpcclient.ErrNotNeeded) ||
			errorOf(got[0].Err).Code != rpcclient.Canceled || errorOf(got[0].Err).Outcome != rpcclient.MaybeExecuted {
			t.Errorf("got %+v", got)
		}
		// One that fails does not count: the slow one is waited for.
		failing.Store("b")
		got, err = where.GatherFirst(t.Context(), 2, targets, 1)
		if err != nil || got[0].Reply != "a" || got[2].Reply != "c" || rpcclient.CodeOf(got[1].Err) != rpcclient.Internal {
			t.Errorf("got %+v, %v", got, err)
		}
		var incomplete *rpcclient.Incomplete
		if _, err := where.GatherFirst(t.Context(), 3, targets, 1); !errors.As(err, &incomplete) || *incomplete != (rpcclient.Incomplete{Received: 0, Expected: 3}) { // ended with the first
			t.Errorf("got %v", err)
		}
		if _, err := where.Gather(t.Context(), targets, 1); !errors.As(err, &incomplete) || *incomplete != (rpcclient.Incomplete{Received: 2, Expected: 3}) {
			t.Errorf("got %v", err)
		}
		for _, n := range []int{0, 4} {
			if _, err := where.GatherFirst(t.Context(), n, targets, 1); rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
				t.Errorf("the first %d of 3: %v", n, err)
			}
		}
	})
}
