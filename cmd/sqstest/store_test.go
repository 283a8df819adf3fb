package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// killable is the command in a process of its own.
type killable struct {
	t      testing.TB
	cmd    *exec.Cmd
	client *sqs.Client
}

func startKillable(t testing.TB, file string, args ...string) *killable {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--listen", "127.0.0.1:0", "--data", file, "--save-every", "5ms"}, args...)...)
	cmd.Env = append(os.Environ(), "SQSTEST_AS_COMMAND=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // unless it has ended
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &killable{t, cmd, sqstest.New().Client(func(o *sqs.Options) {
		o.BaseEndpoint = aws.String(strings.Fields(line)[3])
		o.HTTPClient = &http.Client{Transport: transport}
		o.Retryer = aws.NopRetryer{}
	})}
}

// kill is kill -9: the process gets no chance to save.
func (k *killable) kill() {
	k.t.Helper()
	if err := k.cmd.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	_ = k.cmd.Wait() // "signal: killed"
}

func (k *killable) queue() string {
	k.t.Helper()
	out, err := k.client.CreateQueue(k.t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		k.t.Fatal(err)
	}
	return *out.QueueUrl
}

func (k *killable) bodies(url string) []string {
	k.t.Helper()
	var all []string
	for {
		out, err := k.client.ReceiveMessage(k.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
		if err != nil {
			k.t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return all
		}
		for _, m := range out.Messages {
			all = append(all, *m.Body)
			if _, err := k.client.ChangeMessageVisibility(k.t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 3600}); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}

// awaitSaved waits until the file has the message.
func awaitSaved(t *testing.T, file, body string) {
	t.Helper()
	every := time.NewTicker(time.Millisecond)
	defer every.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-every.C {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), `"`+body+`"`) {
			return
		}
	}
	t.Fatalf("%q was not saved", body)
}

func TestQueuesOutliveAKilledProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queues")
	for round := range 4 {
		server := startKillable(t, file)
		url := server.queue()
		if round > 0 {
			// Everything up to what was seen in the file, and perhaps some of what was sent after that.
			got := server.bodies(url)
			for i := range 20 {
				if want := fmt.Sprintf("round-%d-%d", round-1, i); !slices.Contains(got, want) {
					t.Fatalf("round %d: %s is lost; there are %v", round, want, got)
				}
			}
			if len(got) != len(slices.Compact(slices.Sorted(slices.Values(got)))) {
				t.Errorf("some came twice: %v", got)
			}
			if slices.ContainsFunc(got, func(b string) bool { return !strings.HasPrefix(b, fmt.Sprintf("round-%d-", round-1)) }) {
				t.Errorf("what was in flight came back: %v", got)
			}
		}
		last := ""
		for i := range 20 {
			last = fmt.Sprintf("round-%d-%d", round, i)
			if _, err := server.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &last}); err != nil {
				t.Fatal(err)
			}
		}
		awaitSaved(t, file, last)
		// Kill it while it writes: sends go on until the connection breaks.
		broken := make(chan struct{})
		go func() {
			defer close(broken)
			for i := 20; ; i++ {
				body := fmt.Sprintf("round-%d-%d", round, i)
				if _, err := server.client.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
					return
				}
			}
		}()
		awaitSaved(t, file, fmt.Sprintf("round-%d-%d", round, 30+round))
		server.kill()
		<-broken
	}
}

func TestSavesAtTheEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queues")
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--listen", "127.0.0.1:0", "--data", file, "--save-every", "1h"}, in, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := sqstest.New().Client(func(o *sqs.Options) {
		o.BaseEndpoint = aws.String(strings.Fields(line)[3])
		o.HTTPClient = &http.Client{Transport: transport}
	})
	if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("kept")}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s := sqstest.New()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Load(f); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Queue("kept"); !ok {
		t.Error("the queue was not saved")
	}
}

func TestAFailedSaveLeavesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queues")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err := replace(file, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half of the n")
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "old" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// What changes without a request is saved too: a message move task goes on by itself.
func TestSavesWhatNoRequestChanged(t *testing.T) {
	clock := sqstest.NewManualClock(time.Now())
	server := sqstest.New(sqstest.WithClock(clock))
	defer server.Close()
	client := server.Client()
	kept := store{server: server, file: filepath.Join(t.TempDir(), "queues")}
	if err := kept.load(); err != nil {
		t.Fatal(err)
	}
	const dead, other = "arn:aws:sqs:us-east-1:000000000000:dead", "arn:aws:sqs:us-east-1:000000000000:other"
	for _, q := range []struct{ name, policy string }{{"dead", ""}, {"other", ""}, {"q", `{"deadLetterTargetArn":"` + dead + `","maxReceiveCount":1}`}} {
		if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &q.name, Attributes: map[string]string{"RedrivePolicy": q.policy}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String("http://h/000000000000/dead"), MessageBody: aws.String("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(dead), DestinationArn: aws.String(other), MaxNumberOfMessagesPerSecond: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	saved := func() string {
		if err := kept.save(); err != nil {
			t.Fatal(err)
		}
		again := store{server: sqstest.New(), file: kept.file}
		if err := again.load(); err != nil {
			t.Fatal(err)
		}
		from, _ := again.server.Queue("dead")
		to, _ := again.server.Queue("other")
		return fmt.Sprint(from.Visible, to.Visible)
	}
	seen := []string{saved()}
	for range 2 {
		clock.Advance(2 * time.Second)
		seen = append(seen, saved())
	}
	if want := []string{"5 0", "3 2", "1 4"}; !slices.Equal(seen, want) {
		t.Errorf("saved %q, want %q", seen, want)
	}
	before, err := os.Stat(kept.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.save(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(kept.file); err != nil || !os.SameFile(before, after) {
		t.Errorf("nothing changed, and it was written again (%v)", err)
	}
}
