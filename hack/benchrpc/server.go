package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// serverSpec says to a child which SQS server it is.
type serverSpec struct {
	Kind   string // "plain" or "aws"
	Queues int    // of replies
	// Profile is what the names of the profiles' files begin with; empty: none are written.
	Profile string
}

// cost is what a server has been asked for. It answers with one whenever it is asked.
type cost struct {
	Error string `json:",omitempty"`

	URL      string
	Started  int // requests, those under way included
	Open     int // long polls under way
	Messages int // that are not deleted
	CPU      time.Duration
}

// serverSide is the main function of a server's process.
func serverSide(ctx context.Context, text string, in io.Reader, out io.Writer) error {
	var s serverSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	if s.Profile != "" {
		stop, err := profile(s.Profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	var opts []sqstest.Option
	if s.Kind == "aws" {
		opts = append(opts, sqstest.WithFaults(sqstest.AWSLike(1)))
	}
	server := sqstest.New(opts...)
	if err := server.Listen("127.0.0.1:0"); err != nil {
		return err
	}
	defer server.Close()
	client := server.Client()
	for i := range s.Queues + 1 {
		name := requestQueue
		if i > 0 {
			name = replyQueue(i - 1)
		}
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)}); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
	say := json.NewEncoder(out)
	if err := say.Encode(costOf(server)); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := say.Encode(costOf(server)); err != nil {
			return err
		}
	}
	return nil
}

func costOf(server *sqstest.Server) cost {
	c := cost{URL: server.URL, CPU: cpuTime()}
	for _, n := range server.RequestsByAction() {
		c.Started += n
	}
	for _, q := range server.Queues() {
		c.Open += q.Pollers
		c.Messages += q.Visible + q.InFlight + q.Delayed
	}
	c.Started += c.Open
	return c
}

// cpuTime is what this process has had; 0 where the system does not say.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
