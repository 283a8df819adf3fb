package sqstest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The address of every queue in these benchmarks; servers look at its path only.
const benchURL = "http://sqs.us-east-1.sqstest.invalid/000000000000/q"

// BenchmarkCycle is send, receive and delete of one message of 1 KB by 16 clients, on our server and on one that answers
// from constants, in turns of a few hundred cycles each, so that both see the same machine:
//
//	go test ./pkg/sqstest -run - -bench Cycle -benchtime 20x
//
// "%ofconstant" is the median over all turns of our cycles per second divided by the constant server's.
func BenchmarkCycle(b *testing.B) {
	for _, w := range waysIn {
		b.Run(w.name, func(b *testing.B) {
			s := sqstest.New()
			raw(b, s, "CreateQueue", `{"QueueName":"q"}`)
			ours, constant := w.ours(b, s), w.like(b, newConstant(b))
			const clients, each = 16, 20
			turn(b, ours, clients, each) // connections, and what the SDK makes once
			turn(b, constant, clients, each)
			var ourTime, constantTime time.Duration
			var ratios []float64
			for b.Loop() {
				// Ours, theirs, theirs, ours: a machine that gets slower or faster meanwhile favours neither.
				first := turn(b, ours, clients, each)
				theirs := turn(b, constant, clients, each) + turn(b, constant, clients, each)
				mine := first + turn(b, ours, clients, each)
				ourTime, constantTime = ourTime+mine, constantTime+theirs
				ratios = append(ratios, 100*theirs.Seconds()/mine.Seconds())
			}
			cycles := float64(2 * clients * each * len(ratios))
			slices.Sort(ratios)
			b.ReportMetric(0, "ns/op") // a turn of both servers says nothing
			b.ReportMetric(cycles/ourTime.Seconds(), "cycles/s")
			b.ReportMetric(cycles/constantTime.Seconds(), "constant-cycles/s")
			b.ReportMetric(ratios[len(ratios)/2], "%ofconstant")
		})
	}
}

// turn lets clients do a number of cycles each, and is how long that took.
func turn(b *testing.B, c *sqs.Client, clients, each int) time.Duration {
	b.Helper()
	body := strings.Repeat("x", benchBody)
	var wg sync.WaitGroup
	start := time.Now()
	for range clients {
		wg.Go(func() {
			for range each {
				if err := cycle(c, benchURL, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func cycle(c *sqs.Client, url, body string) error {
	ctx := context.Background()
	if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
		return err
	}
	m, err := poll(ctx, c, url, 1, 20)
	if err != nil || len(m) == 0 {
		return fmt.Errorf("%d messages: %w", len(m), err)
	}
	_, err = c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m[0].ReceiptHandle})
	return err
}

// BenchmarkWakeUp is the time from the start of a send to the return of a poll that was waiting for it, in turns with a
// server whose receive waits for nothing but the send:
//
//	go test ./pkg/sqstest -run - -bench WakeUp -benchtime 500x
func BenchmarkWakeUp(b *testing.B) {
	for _, w := range waysIn {
		b.Run(w.name, func(b *testing.B) {
			s := sqstest.New()
			raw(b, s, "CreateQueue", `{"QueueName":"q"}`)
			constant := newWakingConstant(b)
			ours, like := w.ours(b, s), w.like(b, constant)
			ourPoll := func() bool { q, _ := s.Queue("q"); return q.Pollers == 1 }
			itsPoll := func() bool { return constant.waiting.Load() == 1 }
			var mine, theirs []time.Duration
			for b.Loop() {
				theirs = append(theirs, wakeUp(b, like, itsPoll))
				mine = append(mine, wakeUp(b, ours, ourPoll))
			}
			slices.Sort(mine)
			slices.Sort(theirs)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(mine[len(mine)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(theirs[len(theirs)/2].Microseconds()), "constant-µs-p50")
			b.ReportMetric(float64(mine[len(mine)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(theirs[len(theirs)*99/100].Microseconds()), "constant-µs-p99")
		})
	}
}

func wakeUp(b *testing.B, c *sqs.Client, waiting func() bool) time.Duration {
	b.Helper()
	done := make(chan time.Time)
	var handle *string
	go func() {
		m, err := poll(context.Background(), c, benchURL, 1, 20)
		if err != nil || len(m) != 1 {
			b.Errorf("%d messages: %v", len(m), err)
		} else {
			handle = m[0].ReceiptHandle
		}
		done <- time.Now()
	}()
	until(b, waiting)
	start := time.Now()
	send(b, c, benchURL, strings.Repeat("x", benchBody))
	took := (<-done).Sub(start)
	if _, err := c.DeleteMessage(context.Background(), &sqs.DeleteMessageInput{QueueUrl: aws.String(benchURL), ReceiptHandle: handle}); err != nil {
		b.Error(err)
	}
	return took
}
