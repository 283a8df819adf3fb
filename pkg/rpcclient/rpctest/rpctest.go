// Package rpctest is for testing programs that make or answer calls: the real client and the real messages
// over SQS in memory (package sqstest), without sockets, containers or AWS. It does for rpcclient what
// net/http/httptest does for net/http.
//
//	func TestLogin(t *testing.T) {
//		login := rpctest.Serve(t, func(r *rpcclient.Responder) { Login.Handle(r, myLogin) })
//		reply, err := Login.Call(t.Context(), login, LoginRequest{User: "ann"})
//		...
//	}
//
// A World has as many channels, responders and requesters as a test wants, and the server underneath: its
// faults (throttling, lost answers, duplicates) are the way to see what a program makes of a bad day.
//
// Everything works in a testing/synctest bubble, where deadlines and long polls take no time: make the
// World inside it.
package rpctest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// World is an SQS server in memory, with channels, responders and requesters. It ends with its test.
type World struct {
	// Server is the SQS server, for faults, counts of requests and a look into the queues.
	Server *sqstest.Server

	t      testing.TB
	client *sqs.Client

	mu       sync.Mutex
	channels []rpcclient.ChannelConfig
	replies  int
	// What shuts down responders and requesters, in the order in which they were made.
	responders, requesters []func()
}

// New returns a world without channels. Everything made from it is shut down when the test ends: responders
// first, since their handlers may call; what is still running then is cut off.
func New(t testing.TB, opts ...sqstest.Option) *World {
	t.Helper()
	w := &World{Server: sqstest.New(opts...), t: t}
	w.client = w.Server.Client()
	t.Cleanup(w.end)
	return w
}

// end shuts down responders, whose handlers may call, and then requesters: each the latest first.
func (w *World) end() {
	w.mu.Lock()
	all := slices.Concat(w.requesters, w.responders)
	w.mu.Unlock()
	for _, shutdown := range slices.Backward(all) {
		shutdown()
	}
}

// DeadLetterReceives is how often SQS gives out a request on a channel with a dead-letter queue before it moves it
// there.
const DeadLetterReceives = 3

// Channel makes a request queue of that name, a DNS label, and returns how to reach it. A name that ends
// in .fifo makes a FIFO queue. edit sets what else there is to a channel; its queue gets the visibility timeout and the
// limit on messages, and a dead-letter queue (see DeadLetters) if DeadLetter is set. All requesters and responders made
// afterwards know the channel.
func (w *World) Channel(name string, edit ...func(*rpcclient.ChannelConfig)) rpcclient.ChannelConfig {
	w.t.Helper()
	config := rpcclient.ChannelConfig{}
	for _, e := range edit {
		e(&config)
	}
	config.Name = name
	in := &sqs.CreateQueueInput{Attributes: map[string]string{}}
	queueName := queuePrefix + name
	if len(name) > len(fifoSuffix) && name[len(name)-len(fifoSuffix):] == fifoSuffix {
		config.FIFO = true
		in.Attributes[string(types.QueueAttributeNameFifoQueue)] = "true"
	}
	in.QueueName = &queueName
	set := func(name types.QueueAttributeName, value int) {
		if value > 0 {
			in.Attributes[string(name)] = strconv.Itoa(value)
		}
	}
	set(types.QueueAttributeNameVisibilityTimeout, int(config.VisibilityTimeout/time.Second))
	set(types.QueueAttributeNameMaximumMessageSize, config.MaxMessageBytes)
	if config.DeadLetter {
		in.Attributes[string(types.QueueAttributeNameRedrivePolicy)] = w.deadLetters(queueName, config.FIFO)
	}
	config.URL = w.create(in)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.channels = append(w.channels, config)
	return config
}

const (
	queuePrefix = "rq_test_ns_"
	fifoSuffix  = ".fifo"
)

// deadLetterName is the name of a request queue's dead-letter queue.
func deadLetterName(queue string) string {
	plain, fifo := strings.CutSuffix(queue, fifoSuffix)
	if fifo {
		return plain + "_dead" + fifoSuffix
	}
	return plain + "_dead"
}

// deadLetters makes the dead-letter queue of a request queue and returns the redrive policy that names it.
func (w *World) deadLetters(queue string, fifo bool) string {
	w.t.Helper()
	name := deadLetterName(queue)
	in := &sqs.CreateQueueInput{QueueName: &name}
	if fifo {
		in.Attributes = map[string]string{string(types.QueueAttributeNameFifoQueue): "true"}
	}
	url := w.create(in)
	out, err := w.client.GetQueueAttributes(context.Background(), &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		w.t.Fatalf("rpctest: %v", err)
	}
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, out.Attributes[string(types.QueueAttributeNameQueueArn)], DeadLetterReceives)
}

// DeadLetters is how many requests of a channel are in its dead-letter queue; 0 if it has none.
func (w *World) DeadLetters(channel rpcclient.ChannelConfig) int {
	q, _ := w.Server.Queue(deadLetterName(queuePrefix + channel.Name))
	return q.Visible + q.InFlight + q.Delayed
}

func (w *World) create(in *sqs.CreateQueueInput) string {
	w.t.Helper()
	out, err := w.client.CreateQueue(context.Background(), in)
	if err != nil {
		w.t.Fatalf("rpctest: create queue %s: %v", *in.QueueName, err)
	}
	return *out.QueueUrl
}

func (w *World) options(opts []rpcclient.Option) []rpcclient.Option {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]rpcclient.Option{rpcclient.WithChannels(w.channels...)}, opts...)
}

// Serve starts a responder on all channels made so far, with the handlers that register registers, and
// returns it. Several share the requests, as pods do.
func (w *World) Serve(register func(*rpcclient.Responder), opts ...rpcclient.Option) *rpcclient.Responder {
	w.t.Helper()
	responder, err := rpcclient.NewResponder(w.client, w.options(opts)...)
	if err != nil {
		w.t.Fatalf("rpctest: %v", err)
	}
	register(responder)
	served := make(chan error, 1)
	go func() { served <- responder.Serve(context.Background()) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.responders = append(w.responders, func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = responder.Shutdown(now) // Serve returns the same
		if err := <-served; err != nil {
			w.t.Logf("rpctest: responder: %v", err)
		}
	})
	return responder
}

// Requester returns a requester for all channels made so far, with a reply queue of its own.
func (w *World) Requester(opts ...rpcclient.Option) *rpcclient.Requester {
	w.t.Helper()
	w.mu.Lock()
	w.replies++
	name := fmt.Sprintf("rq_test_r_%d", w.replies)
	w.mu.Unlock()
	url := w.create(&sqs.CreateQueueInput{QueueName: &name})
	requester, err := rpcclient.NewRequester(w.client, rpcclient.StaticReplyQueue(url), w.options(opts)...)
	if err != nil {
		w.t.Fatalf("rpctest: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requesters = append(w.requesters, func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := requester.Shutdown(now); err != nil {
			w.t.Logf("rpctest: requester: %v", err)
		}
	})
	return requester
}

// Serve starts a responder with the handlers that register registers, and returns a channel to call it by.
func Serve(t testing.TB, register func(*rpcclient.Responder), opts ...rpcclient.Option) *rpcclient.Channel {
	t.Helper()
	w := New(t)
	config := w.Channel("test")
	requester := w.Requester(opts...)
	w.Serve(register, opts...)
	channel, err := requester.Channel(config.Name)
	if err != nil {
		t.Fatalf("rpctest: %v", err)
	}
	return channel
}
