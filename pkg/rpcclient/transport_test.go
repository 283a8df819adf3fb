package rpcclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	transport "github.com/aws/smithy-go/endpoints"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The SDK's defect: an answer that comes before net/http has looked for the end of the request's body
// is torn down with its connection. Here the answer always comes before: the connection holds the
// writer back after the last byte until smithy-go has closed the body.
func TestAnswerBeforeTheEndOfTheRequest(t *testing.T) {
	if err := sendLarge(t, newClient); err != nil {
		t.Errorf("the write loop ended with %v, and would have closed the connection under the answer", err)
	}
	if err := sendLarge(t, func(c *sqs.Client) *sqs.Client { return c }); err == nil {
		t.Error("the SDK does not need tracingDoer to replace the body any more: remove that")
	}
}

// sendLarge makes one send of 16 KB with the client that wrap returns, and returns what the write loop
// ended with.
func sendLarge(t *testing.T, wrap func(*sqs.Client) *sqs.Client) (writeErr error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"Successful":[],"Failed":[]}`)
	}))
	defer server.Close()
	held := make(chan struct{}) // closed when smithy-go has closed the request's body
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &heldConn{Conn: c, total: 16 << 10, held: held}, err
	}}
	defer transport.CloseIdleConnections()
	wrote := make(chan error, 1)
	client := wrap(sqs.New(sqs.Options{
		Region: "eu-west-1", BaseEndpoint: &server.URL, Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
		HTTPClient: doerFunc(func(r *http.Request) (*http.Response, error) {
			ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				WroteRequest: func(i httptrace.WroteRequestInfo) { wrote <- i.Err },
			})
			resp, err := transport.RoundTrip(r.WithContext(ctx))
			if err == nil {
				resp.Body = &firstRead{ReadCloser: resp.Body, before: func() { close(held) }}
			}
			return resp, err
		}),
	}))
	body := strings.Repeat("x", 16<<10)
	_, _ = client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{
		QueueUrl: aws.String(ownQueue), Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("0"), MessageBody: &body}},
	})
	return <-wrote
}

// heldConn holds the write that completes a request until held is closed.
type heldConn struct {
	net.Conn
	written, total int
	held           chan struct{}
}

func (c *heldConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.written += n; c.written > c.total {
		<-c.held
	}
	return n, err
}

// firstRead calls before ahead of the first read: smithy-go has closed the request's body by then.
type firstRead struct {
	io.ReadCloser
	once   sync.Once
	before func()
}

func (r *firstRead) Read(b []byte) (int, error) {
	r.once.Do(r.before)
	return r.ReadCloser.Read(b)
}

func TestSDKDoesNotRetry(t *testing.T) {
	seen := 0
	client := newClient(sqs.New(sqs.Options{
		Region: "eu-west-1", Credentials: aws.AnonymousCredentials{}, RetryMaxAttempts: 5,
		HTTPClient: doerFunc(func(*http.Request) (*http.Response, error) {
			seen++
			return nil, errors.New("enough")
		}),
	}))
	if _, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(ownQueue)}); err == nil || seen != 1 {
		t.Errorf("%d attempts, %v; want one", seen, err)
	}
}

type doerFunc func(*http.Request) (*http.Response, error)

func (f doerFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestCertainlyNotSent(t *testing.T) {
	answer := func(status int, code string) error {
		return &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
			Err:      &smithy.GenericAPIError{Code: code},
		}
	}
	for _, tc := range []struct {
		name string
		at   func(a *attempt)
		err  error
		want bool
	}{
		{"before the HTTP client", func(*attempt) {}, errors.New("no credentials"), true},
		{"no connection", func(a *attempt) { a.handedOver.Store(true); a.traced.Store(true) }, &net.OpError{Op: "dial"}, true},
		{"connected", func(a *attempt) { a.handedOver.Store(true); a.traced.Store(true); a.connected.Store(true) }, errors.New("reset"), false},
		{"untraced client", func(a *attempt) { a.handedOver.Store(true) }, errors.New("reset"), false},
		{"SQS's 400", func(a *attempt) { a.handedOver.Store(true) }, answer(400, "InvalidAttributeValue"), true},
		{"SQS's 403", func(a *attempt) { a.handedOver.Store(true) }, answer(403, "AccessDenied"), true},
		{"throttle as 503", func(a *attempt) { a.handedOver.Store(true) }, answer(503, "RequestThrottled"), true},
		{"SQS's 500", func(a *attempt) { a.handedOver.Store(true) }, answer(500, "InternalError"), false},
		{"a proxy's 403", func(a *attempt) { a.handedOver.Store(true) }, answer(403, "UnknownError"), false},
		{"an undecoded 400", func(a *attempt) { a.handedOver.Store(true) }, answer(400, ""), false},
	} {
		var a attempt
		tc.at(&a)
		if got := a.certainlyNotSent(tc.err); got != tc.want {
			t.Errorf("%s: certainly not sent: %t, want %t", tc.name, got, tc.want)
		}
	}
}

// With net/http's transport, a host that nobody listens at is a certain failure, and an answer that
// never comes is not.
func TestRefusedSignatures(t *testing.T) {
	for _, code := range []string{"InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "AccessDeniedException"} {
		refused := &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusForbidden}},
			Err:      &smithy.GenericAPIError{Code: code},
		}
		if !isDenied(refused) || !isPermanent(refused) {
			t.Errorf("%s is not final", code)
		}
		if e := (signedTooEarly{refused}); !isDenied(e) || isPermanent(e) {
			t.Errorf("%s, which the SDK knows to come of a wrong clock, is not tried again", code)
		}
	}
}

// signedTooEarly is how the SDK marks an error for which it has corrected its clock.
type signedTooEarly struct{ error }

func (e signedTooEarly) Unwrap() error      { return e.error }
func (signedTooEarly) RetryableError() bool { return true }

func TestAttemptOnARealConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := "http://" + listener.Addr().String()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if c, err := listener.Accept(); err == nil {
			buf := make([]byte, 1)
			_, _ = c.Read(buf) // one byte is proof enough
			_ = c.Close()
		}
	}()
	send := func(endpoint string) bool {
		client := sqs.New(sqs.Options{Region: "eu-west-1", Credentials: aws.AnonymousCredentials{}, BaseEndpoint: &endpoint})
		api := newQueueAPI(client, &Stats{}, hooks{})
		_, notSent, err := api.send(t.Context(), endpoint+"/111122223333/q", []types.SendMessageBatchRequestEntry{
			{Id: aws.String("0"), MessageBody: aws.String("x")},
		})
		if err == nil {
			t.Error("succeeded")
		}
		return notSent
	}
	if send(silent) {
		t.Error("a request that was written counts as not sent")
	}
	<-accepted
	_ = listener.Close()
	if !send(silent) {
		t.Error("a refused connection counts as maybe sent")
	}
}

// countedResolver is an application's own.
type countedResolver struct {
	sqs.EndpointResolverV2
	asked int
}

func (r *countedResolver) ResolveEndpoint(ctx context.Context, p sqs.EndpointParameters) (transport.Endpoint, error) {
	r.asked++
	return r.EndpointResolverV2.ResolveEndpoint(ctx, p)
}

// The SDK's own resolver is asked again only when something else is asked; an application's, each time.
func TestEndpointIsResolvedOnce(t *testing.T) {
	inner := &countedResolver{EndpointResolverV2: sqs.NewDefaultEndpointResolverV2()}
	once := &onceResolver{inner: inner}
	for i, region := range []string{"eu-west-1", "eu-west-1", "us-east-1", "eu-west-1"} {
		p := sqs.EndpointParameters{Region: aws.String(region), UseDualStack: aws.Bool(false), UseFIPS: aws.Bool(false)}
		e, err := once.ResolveEndpoint(t.Context(), p)
		if want := "sqs." + region + ".amazonaws.com"; err != nil || e.URI.Host != want {
			t.Errorf("%d: %s, %v", i, e.URI.Host, err)
		}
	}
	if inner.asked != 3 {
		t.Errorf("asked %d times, want 3", inner.asked)
	}
	if _, err := once.ResolveEndpoint(t.Context(), sqs.EndpointParameters{}); err == nil {
		t.Error("an error is hidden")
	}
	if _, ok := newClient(sqs.New(sqs.Options{Region: "eu-west-1"})).Options().EndpointResolverV2.(*onceResolver); !ok {
		t.Error("the SDK's resolver goes through its rules for every request")
	}
	own := sqs.Options{Region: "eu-west-1", EndpointResolverV2: inner}
	if _, ok := newClient(sqs.New(own)).Options().EndpointResolverV2.(*countedResolver); !ok {
		t.Error("an application's resolver is not asked each time")
	}
}

// Timeouts that suit an application's requests cut off no long poll: those of the SDK's HTTP client are left out, and
// another client is refused with them.
func TestTimeoutsOfTheHTTPClient(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select { // the long poll of an idle queue
		case <-time.After(200 * time.Millisecond):
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{}`)
	}))
	defer server.Close()
	const short = 20 * time.Millisecond
	client := func(h sqs.HTTPClient) *sqs.Client {
		return sqs.New(sqs.Options{
			Region: "eu-west-1", BaseEndpoint: &server.URL, HTTPClient: h,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
			}),
		})
	}
	for name, h := range map[string]*awshttp.BuildableClient{
		"whole request": awshttp.NewBuildableClient().WithTimeout(short),
		"read":          awshttp.NewBuildableClient().WithReadTimeout(short),
		"header":        awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = short }),
	} {
		api := newQueueAPI(client(h), &Stats{}, hooks{})
		if _, _, _, err := api.receive(t.Context(), longPoll{queueURL: server.URL + "/111122223333/q", max: 1, wait: time.Second, visibility: time.Second}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	channels := WithChannels(ChannelConfig{Name: "login", URL: server.URL + "/111122223333/rq_c_ns_login"})
	for name, tc := range map[string]struct {
		client *http.Client
		ok     bool
	}{
		"none":   {&http.Client{}, true},
		"long":   {&http.Client{Timeout: time.Minute}, true},
		"short":  {&http.Client{Timeout: 24 * time.Second}, false},
		"header": {&http.Client{Timeout: time.Minute, Transport: &http.Transport{ResponseHeaderTimeout: 10 * time.Second}}, false},
	} {
		_, err := NewResponder(client(tc.client), channels)
		if (err == nil) != tc.ok {
			t.Errorf("%s: responder: %v", name, err)
		}
		r, err := NewRequester(client(tc.client), StaticReplyQueue(server.URL+"/111122223333/rq_c_r_0001"), channels)
		if (err == nil) != tc.ok {
			t.Errorf("%s: requester: %v", name, err)
		}
		if r != nil {
			_ = r.Shutdown(t.Context())
		}
	}
}
