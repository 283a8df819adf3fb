package rpcclient_test

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// A requester without a reply queue is not healthy: at once when none will come, and otherwise when none has come for
// a while.
func TestHealthyWithoutAReplyQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		p.serve(t, addUp)
		p.call(t)
		if err := p.requester.Healthy(); err != nil {
			t.Error(err)
		}
		if _, err := p.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &p.replyURL}); err != nil {
			t.Fatal(err)
		}
		_, err := sum.Call(t.Context(), p.channel, sumRequest{})
		wantOutcome(t, err, rpcclient.Unavailable, rpcclient.MaybeExecuted)
		if err := p.requester.Healthy(); !errors.Is(err, rpcclient.ErrReplyQueueLost) {
			t.Errorf("its only queue was deleted: %v", err)
		}
		waiting, _ := p.newRequester(t, noQueueYet{make(chan struct{})})
		if err := waiting.Healthy(); err != nil {
			t.Errorf("it has just begun: %v", err)
		}
		time.Sleep(15 * time.Second)
		if err := waiting.Healthy(); err == nil {
			t.Error("it has had no reply queue for 15 s, and is healthy")
		}
	})
}
