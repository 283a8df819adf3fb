package main

import (
	"bufio"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// The processes: requesters and responders, which run this program with a role and can be killed.

type work struct {
	Key     string
	Numbers []int
}

type result struct {
	Key string
	Sum int
	Run string `json:",omitempty"` // of a stream: which execution answers
}

var (
	sum     = rpcclient.NewMethod[work, result]("sum")
	slowSum = rpcclient.NewMethod[work, result](slow)
	fails   = rpcclient.NewMethod[work, result]("fail")
	busy    = rpcclient.NewMethod[work, result]("busy") // refused while one runs and one waits
	nowhere = rpcclient.NewMethod[work, result]("nowhere")
	counts  = rpcclient.NewMethod[work, result]("count") // a stream
	notes   = rpcclient.NewMethod[work, result]("note")  // nobody awaits its end
)

// roleVariable says in the environment of a child what it is: role, its name, the server, the reply queue.
const roleVariable = "REPLYQUEUE_SOAK_ROLE"

// slowVariable is set where some calls take slowFor.
const slowVariable = "REPLYQUEUE_SOAK_SLOW"

func sqsClient(endpoint, key string) *sqs.Client {
	return sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: "soak"}, nil
		}),
	})
}

func queueURL(endpoint, name string) string { return endpoint + "/000000000000/" + name }

// side runs a child until its input ends.
func side(in io.Reader, out io.Writer) error {
	part := strings.Split(os.Getenv(roleVariable), " ")
	if len(part) != 4 {
		return errors.New("no role")
	}
	role, name, endpoint, replyQueue := part[0], part[1], part[2], part[3]
	work := rpcclient.ChannelConfig{Name: requestQueue, URL: queueURL(endpoint, requestQueue)}
	kept := rpcclient.ChannelConfig{Name: keptQueue, URL: queueURL(endpoint, keptQueue)}
	if role == "requester" {
		return request(in, out, name, endpoint, replyQueue, rpcclient.WithChannels(work, kept))
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	say := sayer(out)
	defer startPulse(func(one stall) { say("stalled %d %d", one.from.UnixNano(), one.to.UnixNano()) })()
	go func() {
		_, _ = io.Copy(io.Discard, in) // ends when the parent has closed it
		stop()
	}()
	// One knows what it answered by itself, the other by the store that all processes share.
	alone := make(chan error, 1)
	go func() { alone <- respond(ctx, name, endpoint, rpcclient.WithChannels(work)) }()
	err := respond(ctx, name, endpoint, rpcclient.WithChannels(kept), rpcclient.WithReplyStore(remoteStore(endpoint+storePath)))
	return errors.Join(err, <-alone)
}

func respond(ctx context.Context, name, endpoint string, opts ...rpcclient.Option) error {
	r, err := rpcclient.NewResponder(sqsClient(endpoint, name), append(opts, rpcclient.WithReceiveWait(2*time.Second))...)
	if err != nil {
		return err
	}
	// The handler tells the ledger that it runs, before anything else.
	execute := func(ctx context.Context, w *work) error {
		info, _ := rpcclient.InfoFromContext(ctx)
		w.Key = keyOn(info.Channel, w.Key)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+executedPath+"?"+url.Values{"key": {w.Key}, "by": {name}}.Encode(), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	sum.Handle(r, func(ctx context.Context, w work) (result, error) {
		if err := execute(ctx, &w); err != nil {
			return result{}, err
		}
		out := result{Key: w.Key}
		for _, n := range w.Numbers {
			out.Sum += n
		}
		return out, nil
	})
	slowSum.Handle(r, func(ctx context.Context, w work) (result, error) {
		if err := execute(ctx, &w); err != nil {
			return result{}, err
		}
		t := time.NewTimer(slowFor + rand.N(slowSpread))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return result{Key: w.Key, Sum: w.Numbers[0] + w.Numbers[1] + w.Numbers[2]}, nil
	})
	busy.Handle(r, func(ctx context.Context, w work) (result, error) {
		if err := execute(ctx, &w); err != nil {
			return result{}, err
		}
		t := time.NewTimer(busyFor)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return result{Key: w.Key, Sum: w.Numbers[0] + w.Numbers[1] + w.Numbers[2]}, nil
	}, rpcclient.WithMethodConcurrency(1))
	fails.Handle(r, func(ctx context.Context, w work) (result, error) {
		if err := execute(ctx, &w); err != nil {
			return result{}, err
		}
		return result{}, rpcclient.Errorf(rpcclient.FailedPrecondition, "%s", w.Key)
	})
	notes.Handle(r, func(ctx context.Context, w work) (result, error) { return result{}, execute(ctx, &w) })
	counts.HandleStream(r, func(ctx context.Context, w work, send func(result) error) error {
		if err := execute(ctx, &w); err != nil {
			return err
		}
		run := name + "-" + cryptorand.Text()
		for i := range frames(w) {
			if err := send(result{Key: w.Key, Sum: i, Run: run}); err != nil {
				return err
			}
		}
		return nil
	})
	return r.Serve(ctx)
}

// sayer says lines to the parent.
func sayer(out io.Writer) func(format string, args ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...) // one write
	}
}

// movable is a reply queue source that the parent commands.
type movable struct {
	say func(format string, args ...any)

	mu      sync.Mutex
	url     string
	changed chan struct{}
}

func (m *movable) Current() (string, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.url, m.changed
}

func (m *movable) Lost(url string) { m.say("lost %s", url) }

func (m *movable) move(url string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.url = url
	close(m.changed)
	m.changed = make(chan struct{})
}

const (
	callers      = 40 // goroutines that call, in each requester
	longest      = 6500 * time.Millisecond
	shortest     = 4 * time.Second
	cancelWithin = 60 * time.Millisecond
	busyFor      = 50 * time.Millisecond
	slowFor      = 12 * time.Second // a request stays hidden for 10 s by itself
	slowSpread   = 3 * time.Second
	slowLimit    = 20 * time.Second
	pause        = 60 * time.Millisecond // between two calls of a caller, on average
)

func request(in io.Reader, out io.Writer, name, endpoint, replyQueue string, channel rpcclient.Option) error {
	say := sayer(out)
	source := &movable{say: say, url: replyQueue, changed: make(chan struct{})}
	opts := []rpcclient.Option{channel, rpcclient.WithReceiveWait(2 * time.Second)}
	if packs(name) {
		opts = append(opts, rpcclient.WithPackedReplies())
	}
	r, err := rpcclient.NewRequester(sqsClient(endpoint, name), source, opts...)
	if err != nil {
		return err
	}
	c := &caller{say: say, slow: os.Getenv(slowVariable) != ""}
	for i, name := range []string{requestQueue, keptQueue} {
		if c.channels[i], err = r.Channel(name); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	defer startPulse(func(one stall) { say("stalled %d %d", one.from.UnixNano(), one.to.UnixNano()) })()
	for i := range callers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.call(fmt.Sprintf("%s-%d-%d", name, i, n))
				t := time.NewTimer(rand.N(2 * pause))
				select {
				case <-t.C:
				case <-ctx.Done():
				}
				t.Stop()
			}
		})
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if url, ok := strings.CutPrefix(lines.Text(), "move "); ok {
			source.move(url)
			say("moved %s", url)
		}
	}
	stop()
	wg.Wait()
	drain, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.Shutdown(drain)
}

// packs says which requesters take packed replies: every other one.
func packs(name string) bool { return strings.HasPrefix(name, "Q1") || strings.HasPrefix(name, "Q3") }
