package rpcclient

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// A host that never answers costs an attempt its limit, and no more: sends 3 s and what their size takes,
// receives 5 s beyond their wait.
func TestTimeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newQueueAPI(sqs.New(sqs.Options{
			Region: "eu-west-1", Credentials: aws.AnonymousCredentials{},
			HTTPClient: doerFunc(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}),
		}), &Stats{}, hooks{})
		send := func(bytes int) func() error {
			return func() error {
				_, notSent, err := api.send(t.Context(), ownQueue, []types.SendMessageBatchRequestEntry{
					{Id: aws.String("0"), MessageBody: aws.String(strings.Repeat("x", bytes))},
				})
				if notSent {
					t.Error("a send without an answer counts as not sent")
				}
				return err
			}
		}
		for name, tc := range map[string]struct {
			do   func() error
			want time.Duration
		}{
			"send":       {send(0), 3 * time.Second},
			"large send": {send(512 << 10), 5 * time.Second},
			"receive": {func() error {
				_, _, _, err := api.receive(t.Context(), longPoll{queueURL: ownQueue, max: 1, wait: 20 * time.Second, visibility: time.Second})
				return err
			}, 25 * time.Second},
			"delete": {func() error {
				_, err := api.delete(t.Context(), ownQueue, []types.DeleteMessageBatchRequestEntry{{Id: aws.String("0"), ReceiptHandle: aws.String("h")}})
				return err
			}, 3 * time.Second},
			"change visibility": {func() error {
				_, _, err := api.changeVisibility(t.Context(), ownQueue, []types.ChangeMessageVisibilityBatchRequestEntry{{Id: aws.String("0"), ReceiptHandle: aws.String("h")}})
				return err
			}, 3 * time.Second},
		} {
			started := time.Now()
			if err := tc.do(); err == nil {
				t.Errorf("%s: succeeded", name)
			}
			if took := time.Since(started); took != tc.want {
				t.Errorf("%s took %s, want %s", name, took, tc.want)
			}
		}
	})
}

// The SDK's own HTTP client keeps a connection for each poller and sender; another is left as it is.
func TestTransportKeepsConnections(t *testing.T) {
	client := newClient(sqs.New(sqs.Options{Region: "eu-west-1", HTTPClient: awshttp.NewBuildableClient().WithTimeout(time.Second)}))
	doer := client.Options().HTTPClient.(tracingDoer)
	if c, ok := doer.inner.(*http.Client); !ok || c.Transport != doer.own || c.Timeout != 0 {
		t.Fatalf("the HTTP client is %+v", doer.inner)
	}
	transport, dialer := doer.own, net.Dialer{}
	dialSoon(&dialer)
	if transport.MaxIdleConnsPerHost < idleConnections || transport.MaxIdleConns != 0 {
		t.Errorf("idle connections: %d for each host, %d in all", transport.MaxIdleConnsPerHost, transport.MaxIdleConns)
	}
	if dialer.Timeout != dialTimeout || transport.TLSHandshakeTimeout != dialTimeout || !dialer.KeepAliveConfig.Enable {
		t.Errorf("dial %s, handshake %s, keep-alive %+v", dialer.Timeout, transport.TLSHandshakeTimeout, dialer.KeepAliveConfig)
	}
	own := doerFunc(func(*http.Request) (*http.Response, error) { return nil, nil })
	if d, ok := newClient(sqs.New(sqs.Options{Region: "eu-west-1", HTTPClient: own})).Options().HTTPClient.(tracingDoer); !ok || d.inner == nil {
		t.Error("an application's own HTTP client is replaced")
	}
}
