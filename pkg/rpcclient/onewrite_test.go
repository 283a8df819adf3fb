package rpcclient

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// countingConn counts its writes.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// A request that fits net/http's buffer of 4 KB leaves in one write, header and body; one that is too long to be held
// in memory arrives whole all the same.
func TestWritesOfARequest(t *testing.T) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"MessageId":"1"}`)
	}))
	defer server.Close()
	var writes atomic.Int64
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return countingConn{c, &writes}, err
	}}
	defer transport.CloseIdleConnections()
	client := newClient(sqs.New(sqs.Options{
		Region: "eu-west-1", BaseEndpoint: &server.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
		HTTPClient:                       &http.Client{Transport: transport},
		DisableMessageChecksumValidation: true,
	}))
	for _, length := range []int{1 << 10, maxHeldBody, 4 * maxHeldBody} {
		writes.Store(0)
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: aws.String(server.URL + "/1/q"), MessageBody: aws.String(strings.Repeat("x", length)),
		}); err != nil {
			t.Fatal(err)
		}
		if got.Load() < int64(length) {
			t.Errorf("%d bytes came of a body of more than %d", got.Load(), length)
		}
		if n := writes.Load(); length == 1<<10 && n != 1 {
			t.Errorf("a request of %d bytes was %d writes", length, n)
		}
	}
}
