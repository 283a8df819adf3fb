package rpcclient_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// A requester of another make may use one temporary queue for any number of requests.
func TestOneTemporaryQueueForSeveralRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var runs atomic.Int64
		p.serve(t, func(ctx context.Context, r sumRequest) (sumReply, error) {
			runs.Add(1)
			return addUp(ctx, r)
		}, rpcclient.WithDefaultMethod("calculate_sum", 30*time.Second))
		for _, body := range []string{`{"Numbers":[1,2]}`, `{"Numbers":[1,2]}`, `{"Numbers":[3,4]}`} {
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.url, MessageBody: aws.String(body), MessageAttributes: attributes("ResponseQueueUrl", p.replyURL+"#temporary"),
			}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if runs.Load() != 3 || p.messages(t, replyQueue) != 3 || p.messages(t, requestQueue) != 0 {
			t.Errorf("%d runs, %d replies, %d requests left", runs.Load(), p.messages(t, replyQueue), p.messages(t, requestQueue))
		}
	})
}

// A request whose sender cannot be told to come later is served, however late it is.
func TestQueueAgeShedsNativeRequestsAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		if err := sum.Notify(t.Context(), p.channel, sumRequest{}); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"", "#temporary"} {
			if _, err := p.client.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &p.url, MessageBody: aws.String("{}"), MessageAttributes: attributes("ResponseQueueUrl", p.replyURL+to),
			}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		p.serve(t, addUp, rpcclient.WithMaxQueueAge(2*time.Second), rpcclient.WithDefaultMethod("calculate_sum", time.Second))
		time.Sleep(5 * time.Second)
		if s := p.responder.Stats(); s.Served != 3 || s.Refused != 0 || p.messages(t, requestQueue) != 0 {
			t.Errorf("served %d, refused %d, %d left", s.Served, s.Refused, p.messages(t, requestQueue))
		}
	})
}

func TestDefaultMethodNeedsTime(t *testing.T) {
	p := newPair(t)
	for _, d := range []time.Duration{0, -1, 15 * 24 * time.Hour} {
		if _, err := rpcclient.NewResponder(p.client, append(p.options, rpcclient.WithDefaultMethod("calculate_sum", d))...); err == nil {
			t.Errorf("a time of %s is accepted", d)
		}
	}
}
