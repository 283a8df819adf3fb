package rpcclient

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A copy was hidden all the time only if SQS's own times say so.
func TestHidden(t *testing.T) {
	given := time.Unix(1_700_000_000, 0)
	date := func(after time.Duration) time.Time { return given.Add(after).Truncate(time.Second) }
	const second = time.Second
	for _, tc := range []struct {
		name     string
		given    time.Time
		extended *time.Time // until when
		date     time.Time
		want     bool
	}{
		{"at once", given, nil, date(0), true},
		{"at 7 s", given, nil, date(7 * second), true},
		{"at 9 s, and what is left of the second", given, nil, date(9 * second), false},
		{"without FirstReceive", time.Time{}, nil, date(0), false},
		{"without a Date", given, nil, time.Time{}, false},
		{"extended", given, new(given.Add(16 * second)), date(13 * second), true},
		{"extended, and over", given, new(given.Add(16 * second)), date(15 * second), false},
		{"extended too late", given, &time.Time{}, date(2 * second), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newExtender(nil, 10*time.Second)
			c := messageCopy{handle: "h", count: 1, given: tc.given}
			h := &heldRequest{}
			if tc.extended != nil {
				h.until = map[string]time.Time{"h": *tc.extended}
			}
			if got := x.hidden(h, c, tc.date); got != tc.want {
				t.Errorf("hidden: %t, want %t", got, tc.want)
			}
		})
	}
}

// An extension makes a copy hidden for longer only if it came while the copy was hidden.
func TestHiddenByExtension(t *testing.T) {
	for _, tc := range []struct {
		name          string
		after, answer time.Duration // of the extension, and what its answer takes
		want          bool
	}{
		{"in time", 6 * time.Second, 0, true},
		{"too late", 10 * time.Second, 0, false},
		{"nobody can say", 8 * time.Second, 1900 * time.Millisecond, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := sqstest.New()
				client := server.Client()
				queue, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("rq_c_ns_login")})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String("1")}); err != nil {
					t.Fatal(err)
				}
				api := newQueueAPI(client, &Stats{}, hooks{})
				msgs, at, date, err := api.receive(t.Context(), longPoll{queueURL: *queue.QueueUrl, system: systemAttributes, max: 1, visibility: 10 * time.Second})
				if err != nil || len(msgs) != 1 {
					t.Fatal(len(msgs), err)
				}
				d := newDelivery(&msgs[0], at, date)
				c := messageCopy{handle: *msgs[0].ReceiptHandle, count: d.count, given: d.given()}
				x := newExtender(newSettler(t.Context(), api, *queue.QueueUrl, time.Second), 10*time.Second)
				time.Sleep(tc.after)
				if tc.answer > 0 {
					server.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.DelayAfter, Duration: tc.answer}}})
				}
				h := &heldRequest{}
				x.extend([]extension{{h, c, visibilityChange{handle: c.handle, d: 10 * time.Second}}})
				server.SetFaults(sqstest.Plan{})
				if len(h.until) != 1 || len(h.refused) != 0 {
					t.Fatalf("not extended: until %v, refused %v", h.until, h.refused)
				}
				if got := x.hidden(h, c, time.Now().Truncate(time.Second)); got != tc.want {
					t.Errorf("hidden: %t, want %t", got, tc.want)
				}
			})
		})
	}
}
