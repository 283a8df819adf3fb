package sqstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// everyFault is a plan with each fault there is, as a person would write it.
const everyFault = `{"seed":7,"rules":[
	{"fault":"Throttle","action":"SendMessage*","probability":0.3},
	{"fault":"ServerError","action":"ReceiveMessage","probability":0.3},
	{"fault":"ServerErrorAfter","action":"SendMessage","probability":0.3},
	{"fault":"HTMLUnavailable","action":"*Queue*","probability":0.2},
	{"fault":"DropBefore","probability":0.2},
	{"fault":"DropAfter","action":"SendMessage","queue":"q","skip":1,"count":2},
	{"fault":"BlackHole","action":"DeleteMessage","probability":0.4},
	{"fault":"Delay","probability":0.5,"duration":"40ms","spread":0.4},
	{"fault":"DelayAfter","action":"Receive*","probability":0.5,"duration":"250ms"},
	{"fault":"SlowBody","action":"ReceiveMessage","probability":0.6,"duration":"800ms"},
	{"fault":"CutBody","action":"ReceiveMessage","probability":0.4},
	{"fault":"ExpiredCredentials","skip":20,"count":3},
	{"fault":"AccessDenied","action":"DeleteQueue","probability":0.5},
	{"fault":"ClockSkew","action":"ListQueues","probability":0.5,"duration":"-1h"},
	{"fault":"NotInFlight","probability":0.5},
	{"fault":"AbandonPoll","probability":0.5,"duration":"5s"},
	{"fault":"DeleteUnderPoll","probability":0.3,"duration":"100ms"},
	{"fault":"Duplicate","probability":0.5,"duration":"300ms"},
	{"fault":"Reorder","probability":0.5},
	{"fault":"DeliveryLag","probability":0.3,"duration":"1s","spread":0.5},
	{"fault":"PartialBatch","action":"SendMessageBatch","probability":0.4},
	{"fault":"IgnoreOldHandles","probability":0.5},
	{"fault":"Sharded","probability":0.7},
	{"fault":"LoneWakeUp","probability":0.5},
	{"fault":"SlowCreate","probability":0.5,"duration":"1s"},
	{"fault":"StaleReads","probability":0.5,"duration":"10s"},
	{"fault":"ListLag","probability":0.5,"duration":"10s"},
	{"fault":"LostSends","probability":0.5,"duration":"30s"}
]}`

// Each fault, in a rule as it stands in a plan.
func ExampleFault() {
	plan, err := sqstest.ParsePlan(everyFault)
	if err != nil {
		log.Fatal(err)
	}
	for _, rule := range plan.Rules {
		fmt.Println(sqstest.Plan{Seed: plan.Seed, Rules: []sqstest.Rule{rule}})
	}
	// Output:
	// {"seed":7,"rules":[{"fault":"Throttle","action":"SendMessage*","probability":0.3}]}
	// {"seed":7,"rules":[{"fault":"ServerError","action":"ReceiveMessage","probability":0.3}]}
	// {"seed":7,"rules":[{"fault":"ServerErrorAfter","action":"SendMessage","probability":0.3}]}
	// {"seed":7,"rules":[{"fault":"HTMLUnavailable","action":"*Queue*","probability":0.2}]}
	// {"seed":7,"rules":[{"fault":"DropBefore","probability":0.2}]}
	// {"seed":7,"rules":[{"fault":"DropAfter","action":"SendMessage","queue":"q","skip":1,"count":2}]}
	// {"seed":7,"rules":[{"fault":"BlackHole","action":"DeleteMessage","probability":0.4}]}
	// {"seed":7,"rules":[{"fault":"Delay","probability":0.5,"spread":0.4,"duration":"40ms"}]}
	// {"seed":7,"rules":[{"fault":"DelayAfter","action":"Receive*","probability":0.5,"duration":"250ms"}]}
	// {"seed":7,"rules":[{"fault":"SlowBody","action":"ReceiveMessage","probability":0.6,"duration":"800ms"}]}
	// {"seed":7,"rules":[{"fault":"CutBody","action":"ReceiveMessage","probability":0.4}]}
	// {"seed":7,"rules":[{"fault":"ExpiredCredentials","skip":20,"count":3}]}
	// {"seed":7,"rules":[{"fault":"AccessDenied","action":"DeleteQueue","probability":0.5}]}
	// {"seed":7,"rules":[{"fault":"ClockSkew","action":"ListQueues","probability":0.5,"duration":"-1h0m0s"}]}
	// {"seed":7,"rules":[{"fault":"NotInFlight","probability":0.5}]}
	// {"seed":7,"rules":[{"fault":"AbandonPoll","probability":0.5,"duration":"5s"}]}
	// {"seed":7,"rules":[{"fault":"DeleteUnderPoll","probability":0.3,"duration":"100ms"}]}
	// {"seed":7,"rules":[{"fault":"Duplicate","probability":0.5,"duration":"300ms"}]}
	// {"seed":7,"rules":[{"fault":"Reorder","probability":0.5}]}
	// {"seed":7,"rules":[{"fault":"DeliveryLag","probability":0.3,"spread":0.5,"duration":"1s"}]}
	// {"seed":7,"rules":[{"fault":"PartialBatch","action":"SendMessageBatch","probability":0.4}]}
	// {"seed":7,"rules":[{"fault":"IgnoreOldHandles","probability":0.5}]}
	// {"seed":7,"rules":[{"fault":"Sharded","probability":0.7}]}
	// {"seed":7,"rules":[{"fault":"LoneWakeUp","probability":0.5}]}
	// {"seed":7,"rules":[{"fault":"SlowCreate","probability":0.5,"duration":"1s"}]}
	// {"seed":7,"rules":[{"fault":"StaleReads","probability":0.5,"duration":"10s"}]}
	// {"seed":7,"rules":[{"fault":"ListLag","probability":0.5,"duration":"10s"}]}
	// {"seed":7,"rules":[{"fault":"LostSends","probability":0.5,"duration":"30s"}]}
}

// What a plan prints brings the same faults upon the same requests again, to the last millisecond: each fault alone, and
// all together. And each makes a difference that its clients see.
func TestEveryFaultIsReplayed(t *testing.T) {
	all, err := sqstest.ParsePlan(everyFault)
	if err != nil {
		t.Fatal(err)
	}
	var healthy string
	synctest.Test(t, func(t *testing.T) { healthy = live(t, sqstest.New()) })
	plans := map[string]sqstest.Plan{"all": all}
	for i, r := range all.Rules {
		if plans[string(r.Fault)].Rules != nil {
			t.Errorf("rule %d: %s is there twice", i, r.Fault)
		}
		plans[string(r.Fault)] = sqstest.Plan{Seed: all.Seed, Rules: []sqstest.Rule{r}}
	}
	for _, f := range sqstest.AllFaults {
		if plans[string(f)].Rules == nil {
			t.Errorf("everyFault has no %s", f)
		}
	}
	for name, first := range plans {
		t.Run(name, func(t *testing.T) {
			second, err := sqstest.ParsePlan(first.String())
			if err != nil {
				t.Fatal(err)
			}
			var lives, hits [2]string
			for i, p := range []sqstest.Plan{first, second} {
				synctest.Test(t, func(t *testing.T) {
					s := sqstest.New(sqstest.WithFaults(p))
					lives[i] = live(t, s)
					hits[i] = fmt.Sprint(s.FaultHits())
				})
			}
			if lives[0] != lives[1] || hits[0] != hits[1] {
				t.Errorf("replayed, hits %s became %s, and\n%s\nbecame\n%s", hits[0], hits[1], lives[0], lives[1])
			}
			if lives[0] == healthy {
				t.Errorf("hits %s, and no client saw a difference", hits[0])
			}
		})
	}
}

// live is what clients see of a queue that is made, used in every way and deleted, several times over, in virtual time.
func live(t *testing.T, s *sqstest.Server) string {
	defer s.Close()
	l := &life{t: t, c: s.Client(noRetries), url: aws.String("http://h/000000000000/q")}
	for range 3 {
		l.round()
	}
	return l.seen.String()
}

type life struct {
	t    *testing.T
	c    *sqs.Client
	url  *string
	seen strings.Builder
}

// do notes what came of a request, and how long it took. One that is not answered ends after three seconds.
func (l *life) do(what string, request func(ctx context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	got, err := request(ctx)
	var api smithy.APIError
	switch {
	case errors.As(err, &api):
		got = api.ErrorCode()
	case err != nil:
		got = "failed"
	}
	fmt.Fprintf(&l.seen, "%s %s %v\n", what, got, time.Since(start).Round(time.Millisecond))
}

func (l *life) send(body string) {
	l.do("send", func(ctx context.Context) (string, error) {
		_, err := l.c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: l.url, MessageBody: &body})
		return body, err
	})
}

func (l *life) receive(limit, wait int32) (handles []*string) {
	l.do("receive", func(ctx context.Context) (string, error) {
		out, err := l.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: l.url, MaxNumberOfMessages: limit, WaitTimeSeconds: wait})
		if err != nil {
			return "", err
		}
		var bodies []string
		for _, m := range out.Messages {
			bodies, handles = append(bodies, *m.Body), append(handles, m.ReceiptHandle)
		}
		return fmt.Sprint(bodies), nil
	})
	return handles
}

func (l *life) delete(handle *string) {
	l.do("delete", func(ctx context.Context) (string, error) {
		_, err := l.c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: l.url, ReceiptHandle: handle})
		return "", err
	})
}

func (l *life) read() {
	l.do("attributes", func(ctx context.Context) (string, error) {
		out, err := l.c.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: l.url, AttributeNames: []types.QueueAttributeName{
			"DelaySeconds", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed",
		}})
		if err != nil {
			return "", err
		}
		return fmt.Sprint(out.Attributes), nil
	})
	l.do("list", func(ctx context.Context) (string, error) {
		out, err := l.c.ListQueues(ctx, &sqs.ListQueuesInput{})
		if err != nil {
			return "", err
		}
		return fmt.Sprint(len(out.QueueUrls)), nil
	})
}

// during does something while a poll waits.
func (l *life) during(poll func(), f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		poll()
	}()
	time.Sleep(500 * time.Millisecond)
	f()
	<-done
}

func (l *life) round() {
	l.do("create", func(ctx context.Context) (string, error) {
		_, err := l.c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("q"), Attributes: map[string]string{"VisibilityTimeout": "2"}})
		return "", err
	})
	l.read()
	for _, body := range []string{"a", "b", "c", "d"} {
		l.send(body)
	}
	handles := l.receive(10, 0)
	time.Sleep(2500 * time.Millisecond) // their visibility timeout
	l.receive(10, 0)
	for i, h := range handles {
		if i == 0 {
			l.do("visibility", func(ctx context.Context) (string, error) {
				_, err := l.c.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: l.url, ReceiptHandle: h, VisibilityTimeout: 1})
				return "", err
			})
		}
		l.delete(h) // the handle of the receive before
	}
	time.Sleep(2500 * time.Millisecond)
	l.receive(10, 0)
	polled := &life{t: l.t, c: l.c, url: l.url} // concurrent notes, put after the others
	l.during(func() { polled.receive(10, 2) }, func() {
		l.do("batch", func(ctx context.Context) (string, error) {
			var entries []types.SendMessageBatchRequestEntry
			for _, id := range []string{"e", "f", "g"} {
				entries = append(entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &id})
			}
			out, err := l.c.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: l.url, Entries: entries})
			if err != nil {
				return "", err
			}
			return fmt.Sprint(len(out.Successful)), nil
		})
	})
	l.seen.WriteString(polled.seen.String())
	l.receive(10, 0)
	time.Sleep(2500 * time.Millisecond)
	for _, h := range l.receive(10, 0) {
		l.delete(h)
	}
	time.Sleep(5 * time.Second)
	ctx, cancel := context.WithCancel(l.t.Context())
	l.during(func() { _, _ = poll(ctx, l.c, *l.url, 10, 20) }, cancel)
	l.send("h")
	l.receive(10, 0)
	l.read()
	l.do("drop", func(ctx context.Context) (string, error) {
		_, err := l.c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: l.url})
		return "", err
	})
	l.send("i")
	l.read()
	time.Sleep(2 * time.Minute)
}
