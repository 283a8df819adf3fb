package rpcclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	transport "github.com/aws/smithy-go/endpoints"
)

const (
	// dialTimeout and the send timeout are short because a call's deadline is: a host that does not
	// answer in this time is better asked again on another connection.
	dialTimeout = 3 * time.Second
	sendTimeout = 3 * time.Second
	// slowestLink is the rate, in bytes per second, at which a send of any size still has time to leave.
	slowestLink = 256 << 10
	// receiveSlack is what a receive attempt may take beyond its long poll.
	receiveSlack = 5 * time.Second
	// idleConnections per host: the SDK's 10 are fewer than our pollers and senders, so that
	// connections would be opened and closed all the time.
	idleConnections = 128
)

// keepAlive finds within a quarter of a minute that the other end of a long poll is gone without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3}

// pings do the same for HTTP/2, which some endpoints speak: there a request that is given up ends its stream only, and
// others would go onto the same connection for as long as the kernel keeps it.
var pings = http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second}

// newClient derives the SQS client that this package sends with: the application's own configuration,
// credentials, endpoint and middleware, but no SDK retries (a retry of a send must know whether the
// first attempt may have arrived) and a transport fit for many long polls at once.
//
// An HTTP client other than the SDK's own is kept as it is and only wrapped. Of the SDK's own, its time limit is left
// out, which would end long polls: every attempt has one of its own.
func newClient(client *sqs.Client) *sqs.Client {
	return sqs.New(client.Options(), func(o *sqs.Options) {
		o.Retryer = aws.NopRetryer{}
		o.RetryMaxAttempts = 0
		d := tracingDoer{inner: o.HTTPClient}
		if b, ok := d.inner.(*awshttp.BuildableClient); ok {
			d.own = b.WithDialerOptions(dialSoon).GetTransport()
			d.own.MaxIdleConns = 0
			d.own.MaxIdleConnsPerHost = max(d.own.MaxIdleConnsPerHost, idleConnections)
			if d.own.HTTP2 == nil {
				d.own.HTTP2 = &http.HTTP2Config{}
			}
			if d.own.HTTP2.SendPingTimeout == 0 {
				d.own.HTTP2.SendPingTimeout, d.own.HTTP2.PingTimeout = pings.SendPingTimeout, pings.PingTimeout
			}
			d.own.TLSHandshakeTimeout, d.own.ResponseHeaderTimeout = dialTimeout, 0
			d.inner = &http.Client{Transport: d.own, CheckRedirect: followRedirect}
		}
		o.HTTPClient = d
		if reflect.TypeOf(o.EndpointResolverV2) == reflect.TypeOf(sqs.NewDefaultEndpointResolverV2()) {
			o.EndpointResolverV2 = &onceResolver{inner: o.EndpointResolverV2}
		}
	})
}

func dialSoon(d *net.Dialer) { d.Timeout, d.KeepAliveConfig = dialTimeout, keepAlive }

// followRedirect is the SDK's rule: only what keeps method and body.
func followRedirect(r *http.Request, _ []*http.Request) error {
	if r.Response != nil && (r.Response.StatusCode == http.StatusTemporaryRedirect || r.Response.StatusCode == http.StatusPermanentRedirect) {
		return nil
	}
	return http.ErrUseLastResponse
}

// checkClient refuses an HTTP client that ends long polls of that length: it would fail while nothing comes.
func checkClient(client *sqs.Client, wait time.Duration) error {
	if client == nil {
		return errors.New("the SQS client is nil")
	}
	c, ok := client.Options().HTTPClient.(*http.Client)
	if !ok || c == nil {
		return nil
	}
	limit := c.Timeout
	if t, ok := c.Transport.(*http.Transport); ok && t != nil && t.ResponseHeaderTimeout > 0 && (limit == 0 || t.ResponseHeaderTimeout < limit) {
		limit = t.ResponseHeaderTimeout
	}
	if limit > 0 && limit < wait+receiveSlack {
		return fmt.Errorf("the SQS client's HTTP client ends each request after %s, and a long poll takes %s and more: leave its timeouts unset, since every attempt has a limit here, or see WithReceiveWait",
			limit, wait)
	}
	return nil
}

// onceResolver keeps what the SDK's own resolver made of its parameters, which stay the same: it goes through all
// its rules for every request. An application's own resolver is asked each time.
type onceResolver struct {
	inner sqs.EndpointResolverV2
	last  atomic.Pointer[resolved]
}

type resolved struct {
	asked  endpointQuestion
	answer transport.Endpoint
}

// endpointQuestion is sqs.EndpointParameters by value.
type endpointQuestion struct {
	endpoint, region string
	dual, fips       bool
}

func (r *onceResolver) ResolveEndpoint(ctx context.Context, p sqs.EndpointParameters) (transport.Endpoint, error) {
	asked := endpointQuestion{deref(p.Endpoint), deref(p.Region), aws.ToBool(p.UseDualStack), aws.ToBool(p.UseFIPS)}
	if l := r.last.Load(); l != nil && l.asked == asked {
		return l.answer, nil
	}
	e, err := r.inner.ResolveEndpoint(ctx, p)
	if err == nil {
		r.last.Store(&resolved{asked, e})
	}
	return e, err
}

type httpDoer interface {
	Do(*http.Request) (*http.Response, error)
}

// tracingDoer notes on the attempt in the request's context whether a byte may have been written, and
// gives net/http a request body that it knows to be in memory.
//
// Of the SDK's own body net/http knows nothing: it might block. So it sends the header by itself first, and each
// request is two writes here and two reads there. And smithy-go closes that body after Do. When the server answers
// before net/http's write loop has looked for the end of the body, that loop then reads through WriterTo, which
// reports io.EOF as an error, and the connection is torn down under the answer: 1–3 % of receives with answers over
// 4 KB fail on loopback, and their messages stay hidden. A copy has no such end.
type tracingDoer struct {
	inner httpDoer
	own   *http.Transport // nil: the application's
}

func (d tracingDoer) Do(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	r = r.WithContext(ctx) // a copy: the caller's request stays as it is
	if err := holdBody(r); err != nil {
		return nil, err
	}
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		a.handedOver.Store(true)
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GetConn: func(string) { a.traced.Store(true) },
			GotConn: func(httptrace.GotConnInfo) { a.connected.Store(true) },
		})
		r = r.WithContext(ctx)
	}
	return d.inner.Do(r)
}

// maxHeldBody bounds the bodies that are copied: with longer ones, the second write does not matter.
const maxHeldBody = 64 << 10

// holdBody makes the body of a request one that can be told to be in memory. Of a long one it hides the WriterTo
// only: through Read its end is just the end.
func holdBody(r *http.Request) error {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
	case r.ContentLength <= 0 || r.ContentLength > maxHeldBody:
		r.Body = struct{ io.ReadCloser }{r.Body}
	default:
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return fmt.Errorf("read the request's body: %w", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	return nil
}

// attempt watches one API request on its way out.
type attempt struct {
	handedOver atomic.Bool // given to the HTTP client
	traced     atomic.Bool // the HTTP client reports its connections
	connected  atomic.Bool // it had a connection at least once
}

type attemptKey struct{}

func (a *attempt) attach(ctx context.Context) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

// certainlyNotSent reports whether a failed send cannot have had an effect: it ended before a byte was
// written, or SQS answered with a refusal.
func (a *attempt) certainlyNotSent(err error) bool {
	switch {
	case !a.handedOver.Load():
		return true
	case a.traced.Load() && !a.connected.Load():
		return true
	default:
		return isRefusal(err)
	}
}

// isRefusal reports whether err is SQS's own answer that it did not do what was asked: a decoded 4xx
// or a throttle. A 4xx that is not SQS's (a proxy's page) proves nothing.
func isRefusal(err error) bool {
	var entry *entryError
	if errors.As(err, &entry) {
		return entry.senderFault || isThrottleCode(entry.Code)
	}
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() == "" || api.ErrorCode() == "UnknownError" {
		return false
	}
	if isThrottle(err) {
		return true
	}
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) {
		s := response.HTTPStatusCode()
		return s >= 400 && s < 500
	}
	return false
}

// isThrottle reports whether SQS refused for the rate of requests.
func isThrottle(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && isThrottleCode(api.ErrorCode())
}

func isThrottleCode(code string) bool {
	switch code {
	case "RequestThrottled", "RequestThrottledException", "Throttling", "ThrottlingException",
		"ThrottledException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown",
		"KmsThrottled", "KMS.ThrottlingException", "AWS.SimpleQueueService.RequestThrottled":
		return true
	default:
		return false
	}
}

// isMissingQueue reports whether err says that the queue does not exist. AWS uses both codes.
func isMissingQueue(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue":
		return true
	default:
		return false
	}
}

// isDenied reports whether SQS refused who asked.
func isDenied(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch", "KmsAccessDenied", "KMS.AccessDeniedException",
		"UnrecognizedClientException", "InvalidSecurity", "IncompleteSignature", "MissingAuthenticationToken",
		"MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "RequestTimeTooSkewed", "InvalidSignatureException":
		return true
	default:
		return isExpired(err)
	}
}

// isUnacceptable reports whether SQS refused a message for what it is: usually for its size, which a queue may limit
// to less than SQS does.
func isUnacceptable(err error) bool {
	return isPermanent(err) && !isMissingQueue(err) && !isDenied(err)
}

// isTooLarge reports whether SQS refused a message for its size. It has no code for that: of the texts with which it
// refuses a parameter, this is the one.
func isTooLarge(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "InvalidParameterValue", "AWS.SimpleQueueService.InvalidParameterValue":
		return strings.Contains(api.ErrorMessage(), "must be shorter than")
	case "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong":
		return true
	default:
		return false
	}
}

// errorOfUnacceptable is what the caller is told of a reply that SQS does not take.
func errorOfUnacceptable(err error) error {
	return &Error{Code: ResourceExhausted, Message: cutUTF8("the reply queue does not take the reply: "+err.Error(), maxMessageBytes), cause: err}
}

// isExpired reports whether SQS refused credentials, or a signature, for their age. The next request may bear new
// ones; and where the SDK has seen by the answer's Date that this clock is wrong, it signs the next one by SQS's.
func isExpired(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return true
	case "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException", "AccessDeniedException":
		// The SDK calls these retryable only where its clock was off, which may be all that is wrong.
		var skewed interface{ RetryableError() bool }
		return errors.As(err, &skewed) && skewed.RetryableError()
	default:
		return false
	}
}

// isPermanent reports whether trying the same request again is pointless: SQS refused it, and not for
// its rate, nor for the age of its credentials.
func isPermanent(err error) bool { return isRefusal(err) && !isThrottle(err) && !isExpired(err) }
