package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// The raw pipeline moves messages there and back as fast as the API can with batches of ten, and knows nothing
// else: a window of messages is under way, and each that comes back lets another go. The body says when it
// began its round, and whose it is, so that latency can be told without matching anything.

const (
	rawPollers = rawMaxPollers // as pkg/rpcclient has at most
	// rawFlights are the batches under way to one queue, as in pkg/rpcclient.
	rawFlights    = 16
	rawMaxPollers = 4
	// rawLinger is how long deletes wait for company, as in pkg/rpcclient.
	rawLinger = time.Second
)

// outbox sends in batches of ten: at once when nothing is under way, else when ten are there. Its goroutines are
// kept, as pkg/rpcclient's are: a new one for each batch grows its stack anew.
type outbox[T any] struct {
	linger time.Duration // 0: do not wait for ten when nothing is under way
	send   func([]T)
	next   chan []T // a batch for a goroutine that has nothing to do

	mu      sync.Mutex
	queue   []T
	flights int
	timer   *time.Timer
}

func (o *outbox[T]) add(items ...T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, items...)
	o.launch(false)
}

// launch is called with the lock held.
func (o *outbox[T]) launch(now bool) {
	for len(o.queue) > 0 && o.flights < rawFlights {
		if len(o.queue) < 10 && !now {
			if o.linger > 0 {
				if o.timer == nil {
					o.timer = time.AfterFunc(o.linger, o.lingered)
				}
				return
			}
			if o.flights > 0 {
				return
			}
		}
		n := min(10, len(o.queue))
		batch := append([]T(nil), o.queue[:n]...)
		o.queue = append(o.queue[:0], o.queue[n:]...)
		o.flights++
		select {
		case o.next <- batch:
		default:
			go o.work(batch) // ends with the process
		}
	}
}

// work sends that batch, and those that come.
func (o *outbox[T]) work(batch []T) {
	for {
		o.send(batch)
		o.mu.Lock()
		o.flights--
		o.launch(false)
		o.mu.Unlock()
		batch = <-o.next
	}
}

func (o *outbox[T]) lingered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = nil
	o.launch(true)
}

var rawIDs = [10]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

func sendTo(client *sqs.Client, url string) func([]string) {
	return func(bodies []string) {
		entries := make([]types.SendMessageBatchRequestEntry, len(bodies))
		for i := range bodies {
			entries[i] = types.SendMessageBatchRequestEntry{Id: &rawIDs[i], MessageBody: &bodies[i]}
		}
		out, err := client.SendMessageBatch(context.Background(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil || len(out.Failed) > 0 {
			fmt.Fprintln(os.Stderr, "benchrpc: raw send:", err)
		}
	}
}

func deleteFrom(client *sqs.Client, url string) *outbox[string] {
	return &outbox[string]{linger: rawLinger, next: make(chan []string), send: func(handles []string) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(handles))
		for i := range handles {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: &rawIDs[i], ReceiptHandle: &handles[i]}
		}
		out, err := client.DeleteMessageBatch(context.Background(), &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil || len(out.Failed) > 0 {
			fmt.Fprintln(os.Stderr, "benchrpc: raw delete:", err)
		}
	}}
}

// pollRaw receives for ever and hands on what comes, deleted.
func pollRaw(ctx context.Context, client *sqs.Client, url string, wanted func() bool, take func([]types.Message)) {
	deletes := deleteFrom(client, url)
	for range rawPollers {
		go func() { // ends with the process
			for wanted() && ctx.Err() == nil {
				out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
					QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: 20,
				})
				if err != nil {
					fmt.Fprintln(os.Stderr, "benchrpc: raw receive:", err)
					continue
				}
				take(out.Messages)
				handles := make([]string, len(out.Messages))
				for i := range out.Messages {
					handles[i] = *out.Messages[i].ReceiptHandle
				}
				deletes.add(handles...)
			}
		}()
	}
}

func serveRaw(ctx context.Context, s spec, client *sqs.Client) {
	replies := make([]*outbox[string], s.Requesters)
	for i := range replies {
		replies[i] = &outbox[string]{next: make(chan []string), send: sendTo(client, queueURL(s.URL, replyQueue(i)))}
	}
	answer := func(all []types.Message) {
		byRequester := make(map[int][]string, 1)
		for i := range all {
			who, _ := parseRaw(*all[i].Body)
			byRequester[who] = append(byRequester[who], *all[i].Body)
		}
		for who, bodies := range byRequester {
			replies[who].add(bodies...)
		}
	}
	pollRaw(ctx, client, queueURL(s.URL, requestQueue), func() bool { return true }, func(all []types.Message) {
		if s.Handler > 0 {
			go func() { handle(ctx, s.Handler); answer(all) }()
			return
		}
		answer(all)
	})
}

// rawCaller has one pipeline for each requester.
type rawCaller struct {
	share []int
	all   []*rawPipeline
}

type rawPipeline struct {
	who  int
	send *outbox[string]
	pad  string

	mu    sync.Mutex
	end   time.Time // no message goes after it
	took  []time.Duration
	under int
	over  chan struct{} // closed when nothing is under way after the end
}

func newRawCaller(ctx context.Context, s spec, client *sqs.Client) *rawCaller {
	c := &rawCaller{share: spread(s.Concurrency, s.Requesters)}
	for i := range s.Requesters {
		p := &rawPipeline{who: i, send: &outbox[string]{next: make(chan []string), send: sendTo(client, queueURL(s.URL, requestQueue))}}
		p.pad = strings.Repeat("x", bodyBytes-len(p.body("")))
		pollRaw(ctx, client, queueURL(s.URL, replyQueue(i)), func() bool { return true }, p.back)
		c.all = append(c.all, p)
	}
	return c
}

// body is 1 KB that begins with the requester's number and the time.
func (p *rawPipeline) body(pad string) string {
	return fmt.Sprintf("%04d %019d ", p.who, time.Now().UnixNano()) + pad
}

func parseRaw(body string) (who int, at time.Time) {
	who, _ = strconv.Atoi(body[:4])
	ns, _ := strconv.ParseInt(strings.TrimLeft(body[5:24], "0"), 10, 64)
	return who, time.Unix(0, ns)
}

// back takes messages that have made their round, and sends as many more.
func (p *rawPipeline) back(all []types.Message) {
	now := time.Now()
	p.mu.Lock()
	more := make([]string, 0, len(all))
	for i := range all {
		_, at := parseRaw(aws.ToString(all[i].Body))
		p.took = append(p.took, now.Sub(at))
		if now.Before(p.end) {
			more = append(more, p.body(p.pad))
		} else {
			p.under--
		}
	}
	if p.under == 0 && p.over != nil {
		close(p.over)
		p.over = nil
	}
	p.mu.Unlock()
	p.send.add(more...)
}

func (p *rawPipeline) begin(d time.Duration, window int) (over <-chan struct{}) {
	p.mu.Lock()
	p.end, p.under, p.took = time.Now().Add(d), window, nil
	done := make(chan struct{})
	p.over = done
	p.mu.Unlock()
	for range window {
		p.send.add(p.body(p.pad))
	}
	return done
}

func (c *rawCaller) run(ctx context.Context, d time.Duration) (took []time.Duration, failed int) {
	var waits []<-chan struct{}
	for i, p := range c.all {
		if c.share[i] > 0 {
			waits = append(waits, p.begin(d, c.share[i]))
		}
	}
	limit := time.NewTimer(d + 40*time.Second)
	defer limit.Stop()
	for _, over := range waits {
		select {
		case <-over:
		case <-limit.C:
			fmt.Fprintln(os.Stderr, "benchrpc: raw: messages were lost")
			return nil, c.share[0]
		case <-ctx.Done():
			return nil, 0
		}
	}
	for _, p := range c.all {
		p.mu.Lock()
		took = append(took, p.took...)
		p.mu.Unlock()
	}
	return took, 0
}

func (c *rawCaller) one(ctx context.Context) error {
	select {
	case <-c.all[0].begin(0, 1):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
