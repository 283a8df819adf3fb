package fence_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The credentials become another account's. The process that held the marker finds it gone, and so does the next; neither
// deletes anything, nor leaves anything there, whether a queue is there by which to tell the account, or none is.
func TestCredentialsOfAnotherAccount(t *testing.T) {
	for name, busy := range map[string]bool{"with queues": true, "without any": false} {
		t.Run(name, func(t *testing.T) {
			server := sqstest.NewServer(t, sqstest.WithAccount("111111111111"))
			c := newCluster(t, server, uid, nil)
			c.Round(c.ctx)
			c.round()
			theirs, there := sqstest.NewServer(t, sqstest.WithAccount("222222222222")), 0
			if busy {
				orders := "orders"
				if _, err := theirs.Client().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &orders}); err != nil {
					t.Fatal(err)
				}
				there++
			}
			c.provider.API = writing{theirs.Client(noRetries), c}
			for range 4 {
				c.round()
				c.expectHeld("in another account", true)
				if n := len(theirs.Queues()); n != there {
					t.Errorf("%d queues in the other account, want %d", n, there)
				}
				for _, account := range []string{"111111111111", "222222222222"} {
					if status := c.identity().Data["status"]; !strings.Contains(status, account) {
						t.Errorf("it does not name account %s: %q", account, status)
					}
				}
			}
			if made := theirs.Requests(sqstest.Action("CreateQueue")); busy && made != 1 {
				t.Errorf("%d queues were made, want the one that is theirs", made)
			}
			c.provider.API = writing{server.Client(noRetries), c}
			c.round()
			c.expectOpen("in its own account again")
			if status := c.identity().Data["status"]; status != "" {
				t.Errorf("it still says %q", status)
			}
			c.provider.API = writing{theirs.Client(noRetries), c}
			c.lead(uid)
			for range 4 {
				c.round()
			}
			c.expectHeld("a new process, in another account", true)
			if n := len(theirs.Queues()); n != there {
				t.Errorf("a new process: %d queues in the other account, want %d", n, there)
			}
		})
	}
}

// A marker with the right tags is in the account that the credentials became: it is not written to.
func TestAMarkerInAnotherAccount(t *testing.T) {
	server := sqstest.NewServer(t, sqstest.WithAccount("111111111111"))
	c := newCluster(t, server, uid, nil)
	c.Round(c.ctx)
	c.round()
	q, _ := server.Queue("rq_c_identity")
	theirs := sqstest.NewServer(t, sqstest.WithAccount("222222222222"))
	if _, err := theirs.Client().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &q.Name, Tags: q.Tags}); err != nil {
		t.Fatal(err)
	}
	c.provider.API = writing{theirs.Client(noRetries), c}
	for range 3 {
		c.round()
		c.expectHeld("in another account", true)
	}
	c.lead(uid)
	c.watch()
	c.expectHeld("a new process", true)
	if there, ok := theirs.Queue(q.Name); !ok || there.Tags["nonce.replyqueue.dev/default"] != q.Tags["nonce.replyqueue.dev/default"] {
		t.Error("the marker in the other account was written to, or deleted")
	}
}

// A process that began with another account's credentials, where there is no queue by which to tell, has seen nothing of its own
// marker: with the right ones it watches that for as long as any does.
func TestWhatAnotherAccountDoesNotShowHasNotGone(t *testing.T) {
	server := sqstest.NewServer(t, sqstest.WithAccount("111111111111"))
	c := newCluster(t, server, uid, nil)
	c.Round(c.ctx)
	c.round()
	c.lead(uid)
	theirs := sqstest.NewServer(t, sqstest.WithAccount("222222222222"))
	c.provider.API = writing{theirs.Client(noRetries), c}
	c.round()
	c.expectHeld("in another account", false)
	c.provider.API = writing{server.Client(noRetries), c}
	c.round()
	c.expectHeld("in its own, where it has not watched", false)
	c.watch()
	c.expectOpen("in its own account again")
}
