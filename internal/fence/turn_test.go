package fence_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// silent is SQS where no request is answered: each ends when its time is over.
type silent struct {
	queue.API
	c     *cluster
	asked *int
}

func (s silent) wait() error {
	*s.asked++
	s.c.clock.Step(queue.RequestTimeout)
	return context.DeadlineExceeded
}

func (s silent) GetQueueUrl(context.Context, *sqs.GetQueueUrlInput, ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	return nil, s.wait()
}

func (s silent) ListQueueTags(context.Context, *sqs.ListQueueTagsInput, ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return nil, s.wait()
}

// A region that does not answer is its providers' trouble. Those of another are proven by the next leader as ever, and the
// silent ones are asked again in turn, until they answer.
func TestSilentProvidersDoNotHoldTheOthers(t *testing.T) {
	const away = 16
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.watch()
	c.lead(uid) // A new process.
	answers := c.provider.API
	var asked [away]int
	for i := range away {
		name := fmt.Sprintf("away-%02d", i)
		c.shares(name)
		c.others[name].Region, c.others[name].API = "eu-west-1", silent{nil, c, &asked[i]}
	}
	start := c.clock.Now()
	for c.MayDelete("default") != nil {
		c.round()
		// The first round asks all of them, and the watch begins with the second.
		if waited := c.clock.Since(start); waited > 2*(away*queue.RequestTimeout+fence.WatchFor(fence.DefaultInterval)) {
			t.Fatalf("after %v: %v", waited, c.MayDelete("default"))
		}
	}
	for i := range asked {
		asked[i] = 0
	}
	for range away {
		c.round()
	}
	for i, n := range asked {
		if n != 2 {
			t.Errorf("provider %d was asked about %d times in %d rounds", i, n, away)
		}
	}
	// One answer about the healthy one is lost. It is not behind those that have been silent for long.
	before := c.nonce()
	c.provider.API = silent{nil, c, new(int)}
	c.round()
	c.provider.API = answers
	c.round()
	if c.nonce() == before {
		t.Error("after one lost answer, the next round leaves the nonce as it was")
	}
	for _, other := range c.others {
		other.API = answers
	}
	for range away {
		c.round()
	}
	c.watch()
	c.round()
	c.expectAll(true, "when all answer again")
}
