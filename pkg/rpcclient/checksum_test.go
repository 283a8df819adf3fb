package rpcclient

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// saying answers every request with the same text.
type saying string

func (s saying) Do(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(s))), Request: r}, nil
}

func apiThatSays(text string, verify bool) *queueAPI {
	return newQueueAPI(sqs.New(sqs.Options{
		Region: "eu-west-1", Credentials: aws.AnonymousCredentials{}, HTTPClient: saying(text), DisableMessageChecksumValidation: !verify,
	}), &Stats{}, hooks{})
}

const (
	md5OfA      = "0cc175b9c0f1b6a831c399e269772661"
	md5OfB      = "92eb5ffee6ae2fec3ad71c777531578f"
	md5Of3000As = "6ca003d00c9bb4569a4a27d751db7a89"
)

// A body that SQS took or gave out differently fails the request, unless the application wants no checksums.
func TestBodiesAreComparedWithChecksums(t *testing.T) {
	for _, c := range []struct {
		name, body, sum string
		off, fails      bool
	}{
		{name: "equal", body: "a", sum: md5OfA},
		{name: "longer than a part", body: strings.Repeat("a", 3000), sum: md5Of3000As},
		{name: "another", body: "a", sum: md5OfB, fails: true},
		{name: "no digits", body: "a", sum: strings.Repeat("x", 32), fails: true},
		{name: "too short", body: "a", sum: md5OfA[:30], fails: true},
		{name: "switched off", body: "a", sum: md5OfB, off: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			api := apiThatSays(`{"Successful":[{"Id":"0","MessageId":"m","MD5OfMessageBody":"`+c.sum+`"}],"Failed":[]}`, !c.off)
			_, notSent, err := api.send(ctx, "https://sqs.eu-west-1.amazonaws.com/1/q", []types.SendMessageBatchRequestEntry{{Id: &batchIDs[0], MessageBody: &c.body}})
			if (err != nil) != c.fails || notSent {
				t.Errorf("send: error %v, certainly not sent %t", err, notSent)
			}
			api = apiThatSays(`{"Messages":[{"MessageId":"m","Body":"`+c.body+`","MD5OfBody":"`+c.sum+`"}]}`, !c.off)
			msgs, _, _, err := api.receive(ctx, longPoll{queueURL: "https://sqs.eu-west-1.amazonaws.com/1/q", max: 1, wait: time.Second})
			if (err != nil) != c.fails || (len(msgs) == 1) == c.fails {
				t.Errorf("receive: %d messages, error %v", len(msgs), err)
			}
		})
	}
}

func TestChecksumsThatAreAbsentAreNotCompared(t *testing.T) {
	body := "a"
	api := apiThatSays(`{"Successful":[{"Id":"0"},{"Id":"9","MD5OfMessageBody":"x"}]}`, true)
	if _, _, err := api.send(context.Background(), "https://sqs.eu-west-1.amazonaws.com/1/q", []types.SendMessageBatchRequestEntry{{Id: &batchIDs[0], MessageBody: &body}}); err != nil {
		t.Error(err)
	}
	api = apiThatSays(`{"Messages":[{"Body":"a"},{"MD5OfBody":"x"}]}`, true)
	if _, _, _, err := api.receive(context.Background(), longPoll{queueURL: "https://sqs.eu-west-1.amazonaws.com/1/q", max: 1, wait: time.Second}); err != nil {
		t.Error(err)
	}
}
