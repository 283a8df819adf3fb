package sqstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const (
	// DefaultRegion is where requests without a region in their signature go.
	DefaultRegion = "us-east-1"
	// DefaultAccount owns the queues of every access key that WithAccessKey does not give to another account.
	DefaultAccount = "000000000000"
	// AccessKey is the access key ID of the clients that Client returns. Any other is taken as well: signatures are not checked.
	AccessKey = "SQSTEST"
)

// maxRequestBytes bounds a request: a batch of 1 MiB of which JSON escapes every byte in six, and room for the rest.
const maxRequestBytes = 8 << 20

// ErrServerClosed is what RoundTrip returns on a closed Server.
var ErrServerClosed = errors.New("sqstest: server closed")

// Server is an SQS in memory. It is an http.Handler and an http.RoundTripper, and with NewServer or Listen it serves a
// loopback address too; all three may be used at once and see the same queues. It is safe for concurrent use.
type Server struct {
	// URL is the endpoint, http://host:port, once the server listens; empty before.
	URL string

	clock   Clock
	region  string
	account string
	keys    map[string]string // account of an access key

	registry registry
	faults   faults
	access   access
	log      requestLog
	moving   inTransit
	tasks    moveTasks

	revision atomic.Uint64 // see Revision

	closed   atomic.Bool // set under endingMu
	endingMu sync.Mutex
	stalls   map[chan struct{}]struct{} // requests that wait for something other than a queue
	later    map[*scheduled]struct{}    // what is to happen without a request
	requests sync.WaitGroup
	http     *http.Server
	serving  chan struct{} // closed when the listener's loop has returned
}

// Option configures a Server.
type Option func(*Server)

// WithClock takes time from c instead of package time.
func WithClock(c Clock) Option { return func(s *Server) { s.clock = c } }

// WithRegion is the region of requests that name none in their signature, and of Client. Queues of different regions do
// not see each other.
func WithRegion(region string) Option { return func(s *Server) { s.region = region } }

// WithAccount is the account of every access key without one of its own. It panics unless that is 12 digits.
func WithAccount(account string) Option {
	mustBeAccount(account)
	return func(s *Server) { s.account = account }
}

func mustBeAccount(account string) {
	if !IsAccount(account) {
		panic(fmt.Sprintf("sqstest: account %q is not 12 digits", account))
	}
}

// WithAccessKey gives an access key ID an account of its own, and panics unless that is 12 digits. The queues that it creates and lists are that
// account's. It can send to, receive from and look at another account's queues, and not change them.
func WithAccessKey(accessKey, account string) Option {
	mustBeAccount(account)
	return func(s *Server) { s.keys[accessKey] = account }
}

// WithFaults is SetFaults from the start.
func WithFaults(p Plan) Option { return func(s *Server) { s.SetFaults(p) } }

// New returns a Server without sockets and goroutines: use it as an http.RoundTripper (Client does), or as an
// http.Handler. It needs no Close, unless something may still be polling or a message move task running.
func New(opts ...Option) *Server {
	s := &Server{
		clock: systemClock{}, region: DefaultRegion, account: DefaultAccount, keys: map[string]string{},
		stalls: map[chan struct{}]struct{}{}, later: map[*scheduled]struct{}{},
	}
	s.registry.queues = map[queueKey]*queue{}
	s.registry.incarnations = rand.Uint64() >> 2
	s.registry.gone = map[queueKey]goneQueue{}
	s.registry.sources, s.registry.targets = map[string]map[*queue]bool{}, map[*queue]string{}
	s.faults.server = s
	s.log.init()
	s.tasks.server = s
	for _, o := range opts {
		o(s)
	}
	return s
}

// NewServer returns a Server that listens on a free port of 127.0.0.1 and is closed when the test ends. It fails the test
// when there is no port to be had.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := New(opts...)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatalf("sqstest: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// ErrNotLoopback is why Listen refuses an address that others may reach.
var ErrNotLoopback = errors.New("not a loopback address")

// Listen serves address, which must be a loopback one, in the background until Close, and sets URL. Call it once.
func (s *Server) Listen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", address, err)
	}
	if !isLoopback(host) {
		return fmt.Errorf("listen on %q: %w: the server checks no signatures (Serve takes any listener)", address, ErrNotLoopback)
	}
	l, err := net.Listen("tcp", address) //nolint:noctx // a bind on loopback does not block
	if err != nil {
		return err
	}
	s.Serve(l)
	return nil
}

// Serve serves l in the background until Close, which closes it, and sets URL. Whoever reaches l can do everything: keep
// it to loopback or a machine's own network. Call it once, and not together with Listen.
func (s *Server) Serve(l net.Listener) {
	s.URL = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ConnContext: withConnection}
	s.serving = make(chan struct{})
	go func() {
		defer close(s.serving)
		_ = s.http.Serve(l) // always returns an error; after Close, ErrServerClosed
	}()
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Close ends every request under way (long polls included, and by RoundTrip too) with a dropped connection, the listener if
// there is one, and every timer. It returns when they have ended: nothing changes the queues after it. Closing twice is
// harmless.
func (s *Server) Close() {
	s.endingMu.Lock()
	s.closed.Store(true)
	for c := range s.stalls {
		close(c)
	}
	clear(s.stalls)
	for l := range s.later {
		l.timer.Stop()
	}
	clear(s.later)
	s.endingMu.Unlock()
	s.tasks.close()
	for _, q := range s.registry.all() {
		q.mu.Lock()
		for w := q.waiters.pop(); w != nil; w = q.waiters.pop() {
			w.answer(polled{err: errAborted()})
		}
		q.arm()
		q.mu.Unlock()
	}
	if s.http != nil {
		_ = s.http.Close()
		<-s.serving
	}
	s.requests.Wait()
}

// enter counts a request in, for Close to await until leave. It is false on a closed server.
func (s *Server) enter() bool {
	s.endingMu.Lock()
	defer s.endingMu.Unlock()
	if s.closed.Load() {
		return false
	}
	s.requests.Add(1)
	return true
}

func (s *Server) leave() { s.requests.Done() }

// scheduled is something that happens later, without a request, unless the server is closed before.
type scheduled struct{ timer Timer }

// after calls f when d has passed.
func (s *Server) after(d time.Duration, f func()) {
	s.endingMu.Lock()
	defer s.endingMu.Unlock()
	if s.closed.Load() {
		return
	}
	l := &scheduled{}
	s.later[l] = struct{}{}
	l.timer = s.clock.AfterFunc(d, func() {
		if !s.enter() {
			return
		}
		defer s.leave()
		s.endingMu.Lock()
		delete(s.later, l)
		s.endingMu.Unlock()
		f()
	})
}

// Revision is a number that rises with every change of what Save would write, whether a request made it or not (a message
// move task, say, or time): an equal one means that nothing needs saving.
func (s *Server) Revision() uint64 { return s.revision.Load() }

// Client returns an SDK client that calls the server through RoundTrip, without a socket. It has the SDK's defaults
// otherwise, its retries included: pass an option to change them.
func (s *Server) Client(optFns ...func(*sqs.Options)) *sqs.Client {
	return sqs.New(sqs.Options{
		Region:       s.region,
		BaseEndpoint: aws.String(s.endpoint()),
		HTTPClient:   &http.Client{Transport: s},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: "sqstest", Source: "sqstest"}, nil
		}),
	}, optFns...)
}

// endpoint is URL, or an address that only RoundTrip answers: the top-level domain is reserved never to exist.
func (s *Server) endpoint() string {
	if s.URL != "" {
		return s.URL
	}
	return "http://sqs." + s.region + ".sqstest.invalid"
}

func (s *Server) millis() int64 { return s.clock.Now().UnixMilli() }

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// RoundTrip answers an SDK's request in the calling goroutine. It returns an error where a network would break, as the
// fault plan says, when the request's context ends, and ErrServerClosed after Close.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	var body requestBody
	if r.Body != nil {
		var err error
		body, err = readBody(r)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if !s.enter() {
		return nil, ErrServerClosed
	}
	defer s.leave()
	if r.Method != http.MethodPost {
		return nil, fmt.Errorf("sqstest: %s %s by RoundTrip: only the SQS API is", r.Method, r.URL)
	}
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	a := s.answer(r.Context(), r.Header, r.URL.Scheme+"://"+host, body)
	if a.dropped {
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		if s.closed.Load() {
			return nil, ErrServerClosed
		}
		return nil, errConnectionReset
	}
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: s.body(r.Context(), a), ContentLength: int64(len(a.body)), Request: r,
	}, nil
}

// ServeHTTP answers requests of the SQS API (POST), and the status page (GET).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body requestBody
	var unread error
	if r.Method == http.MethodPost {
		body, unread = readBody(r) // before Close has to wait for this request: it may never come
	}
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.leave()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		s.serveStatus(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "the SQS API is POST", http.StatusMethodNotAllowed)
		return
	}
	if unread != nil {
		http.Error(w, "cannot read the request", http.StatusBadRequest)
		return
	}
	a := s.answer(r.Context(), r.Header, baseURL(r), body)
	if a.dropped {
		panic(http.ErrAbortHandler) // net/http closes the connection without an answer
	}
	s.write(r.Context(), w, a)
}

// baseURL is what the server's URLs begin with for whoever made a request.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// requestBody is a request's body, or the news that it is larger than any can be.
type requestBody struct {
	bytes    []byte
	tooLarge bool
}

// maxDrainBytes is how much of a body that is too large is read nevertheless: a client that is still sending when the
// connection closes may not see the answer.
const maxDrainBytes = 256 << 20

func readBody(r *http.Request) (requestBody, error) {
	if r.Body != nil && r.ContentLength > 0 && r.ContentLength <= maxRequestBytes {
		b := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, b)
		return requestBody{bytes: b}, err
	}
	if r.Body == nil { // a request that a test made, and no client
		return requestBody{}, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBytes+1))
	if err == nil && len(b) > maxRequestBytes {
		_, err = io.Copy(io.Discard, io.LimitReader(r.Body, maxDrainBytes))
		return requestBody{tooLarge: true}, err
	}
	return requestBody{bytes: b}, err
}

func (s *Server) write(ctx context.Context, w http.ResponseWriter, a answer) {
	header := w.Header()
	for k, v := range a.header {
		header[k] = v
	}
	whole := a.slow == 0 && !a.cut
	if whole {
		// As SQS does. Otherwise net/http sends what is over 2 KB in chunks, which is one more write here and one more read there.
		header["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	}
	w.WriteHeader(a.status)
	if whole {
		_, _ = w.Write(a.body) // a client that went away is its own business
		return
	}
	if _, err := io.Copy(flusher{w}, s.body(ctx, a)); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// flusher sends every piece as soon as it is written.
type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if fl, ok := f.w.(http.Flusher); ok && err == nil {
		fl.Flush()
	}
	return n, err
}

// body is an answer's body with its faults: slow, or broken off in the middle.
func (s *Server) body(ctx context.Context, a answer) io.ReadCloser {
	if a.slow == 0 && !a.cut {
		return io.NopCloser(bytes.NewReader(a.body))
	}
	return &faultyBody{server: s, ctx: ctx, answer: a}
}

// caller is who sends a request, by its signature, which is read and not checked.
func (s *Server) caller(h http.Header) (accessKey, account, region string) {
	region = s.region
	if key, scope, ok := credentialScope(h.Get("Authorization")); ok {
		accessKey, region = key, scope
	}
	account = s.account
	if own, ok := s.keys[accessKey]; ok {
		account = own
	}
	return accessKey, account, region
}

// credentialScope is what the server needs of an AWS4 signature, "… Credential=<key>/<date>/<region>/sqs/aws4_request, …".
func credentialScope(authorization string) (accessKey, region string, ok bool) {
	_, credential, ok := strings.Cut(authorization, "Credential=")
	if !ok {
		return "", "", false
	}
	accessKey, scope, _ := strings.Cut(credential, "/")
	_, scope, _ = strings.Cut(scope, "/")
	region, _, ok = strings.Cut(scope, "/")
	if !ok || accessKey == "" || region == "" || strings.ContainsAny(accessKey+region, ", ") {
		return "", "", false
	}
	return accessKey, region, true
}

// wait blocks for d, or until ctx ends or the server is closed, and reports whether all of d passed. A negative d is for ever.
func (s *Server) wait(ctx context.Context, d time.Duration) bool {
	done := make(chan struct{}) // closed by Close
	s.endingMu.Lock()
	if s.closed.Load() {
		s.endingMu.Unlock()
		return false
	}
	s.stalls[done] = struct{}{}
	s.endingMu.Unlock()
	defer func() {
		s.endingMu.Lock()
		delete(s.stalls, done)
		s.endingMu.Unlock()
	}()
	passed := make(chan struct{}, 1)
	if d >= 0 {
		t := s.clock.AfterFunc(d, func() { passed <- struct{}{} })
		defer t.Stop()
	}
	select {
	case <-passed:
		return true
	case <-ctx.Done():
	case <-done:
	}
	return false
}

// queueURL is a queue's URL under a base such as http://127.0.0.1:4566.
func queueURL(base string, k queueKey) string { return base + "/" + k.account + "/" + k.name }

// parseQueueURL takes account and name from the last two segments of a URL's path: the host is whatever the client
// reached the server by.
func parseQueueURL(url string) (account, name string, ok bool) {
	path := url
	if _, after, found := strings.Cut(url, "://"); found {
		_, path, found = strings.Cut(after, "/")
		if !found {
			return "", "", false
		}
	}
	path = strings.TrimPrefix(path, "/")
	account, name, ok = strings.Cut(path, "/")
	if i := strings.LastIndexByte(path, '/'); ok && strings.Contains(name, "/") {
		name = path[i+1:]
		account = path[:i]
		account = account[strings.LastIndexByte(account, '/')+1:]
	}
	return account, name, ok && IsAccount(account) && name != ""
}

// IsAccount reports whether s has the form of an AWS account ID: 12 digits.
func IsAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}
