package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) {
	if os.Getenv("SQSTEST_AS_COMMAND") != "" {
		main() // a child of killable
		return
	}
	goleak.VerifyTestMain(m)
}

func TestServesUntilToldToStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"--listen", "127.0.0.1:0"}, in, io.Discard) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.Fields(line)[3]

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := sqstest.New().Client(func(o *sqs.Options) {
		o.BaseEndpoint = &url
		o.HTTPClient = &http.Client{Transport: transport}
	})
	queue, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		t.Fatal(err)
	}
	if *queue.QueueUrl != url+"/000000000000/q" {
		t.Errorf("queue URL %s at %s", *queue.QueueUrl, url)
	}
	polled := make(chan error, 1)
	go func() {
		_, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, WaitTimeSeconds: 20},
			func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
		polled <- err
	}()

	start := time.Now()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-polled; err == nil {
		t.Error("the poll outlived the server")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v to stop", d)
	}
}

func TestRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--listen 0.0.0.0:0":                     "--allow-non-loopback",
		"--listen nonsense":                      "nonsense",
		"--listen nonsense --allow-non-loopback": "nonsense",
		"--faults {":                             "fault plan",
		"--faults @/nonexistent":                 "fault plan: open /nonexistent",
		"--faults @main.go":                      "fault plan: invalid character",
		"--account 123":                          "12 digits",
		"extra":                                  "extra",
		"--nonsense":                             "usage",
		"--save-every 0s":                        "--save-every",
		"--data /nonexistent/folder/file":        "no such file",
		"--data main.go":                         "main.go: sqstest: load",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestServesOtherAddressesWhenAsked(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out strings.Builder
	if err := run(ctx, []string{"--listen", "0.0.0.0:0", "--allow-non-loopback"}, &out, io.Discard); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "serving SQS at http://") {
		t.Errorf("said %q", out.String())
	}
}

func TestFaultPlanByNameFileAndValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plan.json")
	const plan = `{"seed":7,"rules":[{"fault":"Throttle","action":"Send*","probability":0.01}]}`
	if err := os.WriteFile(file, []byte(plan+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for arg, want := range map[string]string{
		plan: plan, "@" + file: plan, "aws-like": sqstest.AWSLike(1).String(), "": "",
	} {
		var out strings.Builder
		if err := run(ctx, []string{"--listen", "127.0.0.1:0", "--faults", arg}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		if _, printed, _ := strings.Cut(out.String(), "fault plan: "); strings.TrimSpace(printed) != want {
			t.Errorf("--faults %s: printed %q, want %q", arg, printed, want)
		}
	}
}
