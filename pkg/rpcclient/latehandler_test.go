package rpcclient_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A handler that ends after the deadline is not run again for a copy that seems to have time left: each copy's is
// estimated by itself.
func TestLateHandlerIsNotRunAgain(t *testing.T) {
	const body = `{"Numbers":[1,2]}`
	for name, tc := range map[string]struct {
		oneWay  bool
		another bool // the copy comes to another responder, with the same store
		end     func(context.Context, sumRequest) (sumReply, error)
	}{
		"call":                            {end: addUp},
		"call, shared store":              {end: addUp, another: true},
		"notification":                    {end: addUp, oneWay: true},
		"notification that fails":         {end: outOfTime, oneWay: true},
		"notification, shared store":      {end: outOfTime, oneWay: true, another: true},
		"call whose handler fails, store": {end: outOfTime, another: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				var runs atomic.Int64
				store := rpcclient.NewMemoryReplyStore(10)
				serve := func() (stop func()) {
					return p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
						runs.Add(1)
						time.Sleep(62 * time.Second)
						return tc.end(ctx, r)
					}, rpcclient.WithReplyStore(store))
				}
				send := p.copiesOf
				if tc.oneWay {
					send = p.notificationsOf
				}
				stop := serve()
				id := rpcclient.NewCallID()
				send(t, id, 1, "calculate_sum", body, "1")
				time.Sleep(63 * time.Second)
				if tc.another {
					stop()
					serve()
				}
				send(t, id, 1, "calculate_sum", body, "1")
				time.Sleep(70 * time.Second)
				replies := 1 // to the copy, of which nobody can say whether it is a call that was made again
				if tc.oneWay {
					replies = 0
				}
				if runs.Load() != 1 || p.messages(t, requestQueue) != 0 || p.messages(t, replyQueue) != replies {
					t.Errorf("%d runs, %d requests and %d replies in the queues; want one run, no request and %d replies", runs.Load(),
						p.messages(t, requestQueue), p.messages(t, replyQueue), replies)
				}
			})
		})
	}
}

func outOfTime(ctx context.Context, _ sumRequest) (sumReply, error) {
	return sumReply{}, context.Cause(ctx)
}

// notificationsOf is copiesOf without a return address.
func (p *pair) notificationsOf(t *testing.T, id string, n int, method, body, attempt string) {
	t.Helper()
	for range n {
		if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &p.url, MessageBody: aws.String(body), MessageAttributes: attributes(
				"replyqueue", `{"k":"q","v":1,"id":"`+id+`","m":"`+method+`","e":"t","b":60000,"t":0,"a":`+attempt+`}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// What has no deadline, and is not deleted for whatever reason, comes again for as long: it is known each time.
func TestUndeletedRequestIsNotRunAgain(t *testing.T) {
	for name, address := range map[string]string{"Java": "#q", "plain URL": "", "one-way": "none"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				p.fault(sqstest.Rule{Fault: sqstest.ServerError, Action: "DeleteMessageBatch", Queue: requestQueue})
				var runs atomic.Int64
				p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
					runs.Add(1)
					return addUp(ctx, r)
				}, rpcclient.WithDefaultMethod("calculate_sum", 30*time.Second))
				in := &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1,2]}`)}
				if address != "none" {
					in.MessageAttributes = attributes("ResponseQueueUrl", p.replyURL+address)
				}
				if _, err := p.client.SendMessage(t.Context(), in); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Minute)
				if s := p.responder.Stats(); runs.Load() != 1 || s.Duplicates < 30 {
					t.Errorf("%d runs in 20 minutes, %d duplicates; want one run", runs.Load(), s.Duplicates)
				}
				p.fault()
			})
		})
	}
}
