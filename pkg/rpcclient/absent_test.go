package rpcclient_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// Replies to queues that do not exist wait for them in a bounded number, whoever's they are. What is beyond the bound
// comes again, and is not run again.
func TestRepliesToMissingQueuesAreBounded(t *testing.T) {
	const n, places = 1000, 16
	for name, tc := range map[string]struct {
		method   string
		distinct bool
	}{
		"of many requesters": {"blob", true},
		"of one requester":   {"blob", false},
		"refusals":           {"unknown", true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				for at := 0; at < n; at += 10 {
					var entries []types.SendMessageBatchRequestEntry
					for i := range 10 {
						id, queue := rpcclient.NewCallID(), "rq_test_r_gone"
						if tc.distinct {
							queue += fmt.Sprint(at + i)
						}
						entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: aws.String("5"), MessageAttributes: attributes(
							"ResponseQueueUrl", strings.Replace(p.replyURL, replyQueue, queue, 1)+"#"+id,
							"replyqueue", fmt.Sprintf(`{"k":"q","v":1,"id":%q,"m":%q,"e":"t","b":60000,"t":0,"a":1}`, id, tc.method))})
					}
					if _, err := p.client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &p.url, Entries: entries}); err != nil {
						t.Fatal(err)
					}
				}
				before := runtime.NumGoroutine()
				var runs, sums atomic.Int64
				p.respond(t, func(r *rpcclient.Responder) {
					rpcclient.NewMethod[int, string]("blob").Handle(r, func(context.Context, int) (string, error) {
						runs.Add(1)
						return strings.Repeat("x", 1000), nil
					})
					sum.Handle(r, func(ctx context.Context, q sumRequest) (sumReply, error) { sums.Add(1); return addUp(ctx, q) })
				}, rpcclient.WithConcurrency(places))
				most := 0
				for range 50 {
					time.Sleep(50 * time.Millisecond)
					most = max(most, runtime.NumGoroutine()-before)
				}
				if most > n/4 {
					t.Errorf("%d goroutines more, for %d replies to missing queues and %d places", most, n, places)
				}
				p.call(t) // others are served meanwhile
				time.Sleep(time.Minute)
				want := int64(n)
				if tc.method != "blob" {
					want = 0
				}
				s := p.responder.Stats()
				if runs.Load() > want || p.messages(t, requestQueue) != 0 || sums.Load() != 1 {
					t.Errorf("%d runs, %d requests left, %+v", runs.Load(), p.messages(t, requestQueue), s)
				}
				if sent := s.Entries[rpcclient.ActionSend]; sent > 3*n {
					t.Errorf("%d sends of %d replies to queues that do not exist", sent, n)
				}
			})
		})
	}
}
