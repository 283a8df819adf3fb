package rpcenv

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.uber.org/goleak"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apiServer holds one Lease and lets it be patched as the cluster's policies do.
type apiServer struct {
	t   *testing.T
	dir string // token and ca.crt
	url string

	mu          sync.Mutex
	token       string
	status      int // 0: 200
	annotations map[string]string
	beats       []map[string]any // bodies of the patches
	beat        chan struct{}    // one element per patch, while there is room
}

const leasePath = "/apis/coordination.k8s.io/v1/namespaces/replyqueue-heartbeats/leases/uid-1"

func newAPIServer(t *testing.T) *apiServer {
	a := &apiServer{t: t, dir: t.TempDir(), token: "first", beat: make(chan struct{}, 100), annotations: map[string]string{}}
	s := httptest.NewTLSServer(a)
	t.Cleanup(s.Close)
	a.url = s.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	a.write("ca.crt", string(ca))
	a.write("token", a.token+"\n")
	return a
}

func (a *apiServer) write(name, content string) {
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o600); err != nil {
		a.t.Error(err)
	}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() {
		select {
		case a.beat <- struct{}{}:
		default:
		}
	}()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case a.status != 0:
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, `{"kind":"Status","message":"not now"}`)
		return
	case r.Header.Get("Authorization") != "Bearer "+a.token:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"kind":"Status","message":"Unauthorized"}`)
		return
	case r.Method != http.MethodPatch || r.URL.Path != leasePath || r.Header.Get("Content-Type") != "application/merge-patch+json":
		a.t.Errorf("request %s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	var patch map[string]any
	if err := json.Unmarshal(body, &patch); err != nil {
		a.t.Errorf("patch %s: %v", body, err)
	}
	a.beats = append(a.beats, patch)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"metadata": map[string]any{"name": "uid-1", "annotations": a.annotations}, "spec": patch["spec"],
	})
}

func (a *apiServer) set(pairs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			delete(a.annotations, pairs[i])
			continue
		}
		a.annotations[pairs[i]] = pairs[i+1]
	}
}

func (a *apiServer) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.beats)
}

// wait waits for n more patches to arrive.
func (a *apiServer) wait(n int) {
	a.t.Helper()
	for range n {
		select {
		case <-a.beat:
		case <-time.After(20 * time.Second):
			a.t.Fatal("no heartbeat came")
		}
	}
}

// variables is what a container of an injected pod sees.
func (a *apiServer) variables(more map[string]string) func(string) string {
	u, err := url.Parse(a.url)
	if err != nil {
		a.t.Fatal(err)
	}
	v := map[string]string{
		"KUBERNETES_SERVICE_HOST": u.Hostname(), "KUBERNETES_SERVICE_PORT": u.Port(),
		injected.EnvServiceAccountDir: a.dir, injected.EnvPodName: "web-1", injected.EnvPodUID: "uid-1",
		injected.EnvHeartbeat: injected.Encode(injected.Heartbeat{Namespace: "replyqueue-heartbeats", Name: "uid-1", IntervalSeconds: 3600}),
	}
	maps.Copy(v, more)
	return func(name string) string { return v[name] }
}

func noFolder(string) bool { return false }

// queues makes a server with a request queue and reply queues.
func queues(t *testing.T, names ...string) (endpoint string, urls []string) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "")
	s := sqstest.NewServer(t)
	client := s.Client()
	for _, name := range names {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name)})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(*out.QueueUrl)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, s.URL+u.Path)
	}
	return s.URL, urls
}

var echo = rpcclient.NewMethod[string, string]("echo")

func shutdown(t *testing.T, r *rpcclient.Requester) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestInjectedPairCalls(t *testing.T) {
	endpoint, urls := queues(t, "rq_c_ns_login", "rq_c_r_1")
	channels := injected.Channels{"login": {URL: urls[0], Role: injected.RoleBoth, TimeoutSeconds: 20, DeadLetter: true}}
	for name, value := range map[string]string{
		injected.EnvReplyQueueURL: urls[1], injected.EnvChannels: injected.Encode(channels),
		injected.EnvRegion: "us-east-1", injected.EnvEndpoint: endpoint,
		injected.EnvReturnAddresses: injected.Encode(injected.ReturnAddresses{AccountID: "000000000000", Region: "us-east-1", Endpoint: endpoint, Prefixes: []string{"rq_c_r_"}}),
	} {
		t.Setenv(name, value)
	}
	responder, err := NewResponder(t.Context(), rpcclient.WithReceiveWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
	stop := serving(t, responder)
	requester, err := NewRequester(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	login, err := requester.Channel("login")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := echo.Call(t.Context(), login, "hello"); err != nil || got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	shutdown(t, requester)
	stop()
}

// serving has a responder serve until the function returned is called, which waits for its end.
func serving(t *testing.T, responder *rpcclient.Responder) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- responder.Serve(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestHeartbeatStartsBeforeTheFirstCall(t *testing.T) {
	endpoint, urls := queues(t, "rq_c_ns_login", "rq_c_r_1")
	api := newAPIServer(t)
	api.set(injected.LeaseState, injected.LeaseStateOpen, injected.LeaseReplyQueueURL, urls[1])
	e, err := readEnvironment(api.variables(map[string]string{
		injected.EnvReplyQueueURL: urls[1], injected.EnvRegion: "us-east-1", injected.EnvEndpoint: endpoint,
		injected.EnvChannels: injected.Encode(injected.Channels{"login": {URL: urls[0], Role: injected.RoleCall}}),
	}), noFolder)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.requester(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer shutdown(t, r)
	api.wait(1)
	api.mu.Lock()
	defer api.mu.Unlock()
	spec, _ := api.beats[0]["spec"].(map[string]any)
	renewed, _ := spec["renewTime"].(string)
	at, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", renewed)
	if err != nil || time.Since(at) > time.Minute || len(renewed) != len("2026-01-02T03:04:05.000000Z") ||
		spec["holderIdentity"] != "web-1" || len(spec) != 2 || len(api.beats[0]) != 1 {
		t.Errorf("patch %v (%v): the policy allows renewTime and holderIdentity alone", api.beats[0], err)
	}
}

func TestReplyQueueFollowsTheLease(t *testing.T) {
	api := newAPIServer(t)
	const first, second = "http://127.0.0.1:1/000000000000/rq_c_r_1", "http://127.0.0.1:1/000000000000/rq_c_r_2"
	api.set(injected.LeaseState, injected.LeaseStateOpen, injected.LeaseReplyQueueURL, first)
	e, err := readEnvironment(api.variables(map[string]string{injected.EnvReplyQueueURL: first}), noFolder)
	if err != nil {
		t.Fatal(err)
	}
	l := newLease(e, discard())
	l.start()
	defer func() { _ = l.Close() }()
	api.wait(1)

	// Closed for ever: the queue is given up, and the Lease is asked again soon, though the interval is an hour.
	_, changed := l.Current()
	api.set(injected.LeaseState, injected.LeaseStateClosing, injected.LeaseReplyQueueURL, "")
	l.Lost(first)
	<-changed
	queue, changed := l.Current()
	if queue != "" {
		t.Errorf("closing: replies still come to %s", queue)
	}
	api.wait(2)
	api.set(injected.LeaseState, injected.LeaseStateProvisioning)
	api.wait(2)
	select {
	case <-changed:
		t.Error("provisioning brought a queue")
	default:
	}
	api.set(injected.LeaseState, injected.LeaseStateOpen, injected.LeaseReplyQueueURL, second)
	<-changed
	if queue, _ := l.Current(); queue != second {
		t.Errorf("replies come to %s, want %s", queue, second)
	}
}

func TestNextQueue(t *testing.T) {
	for _, tc := range []struct {
		name, current, state, annotated, want string
		seenOpen                              bool
	}{
		{"confirmed", "a", injected.LeaseStateOpen, "a", "a", true},
		{"replaced", "a", injected.LeaseStateOpen, "b", "b", true},
		{"closing", "a", injected.LeaseStateClosing, "", "", true},
		{"closing, URL still there", "a", injected.LeaseStateClosing, "a", "", true},
		{"provisioning after one was seen", "a", injected.LeaseStateProvisioning, "", "", true},
		{"provisioning at the start", "a", injected.LeaseStateProvisioning, "", "a", false},
		{"a Lease without annotations at the start", "a", "", "", "a", false},
		{"first URL from the Lease", "", injected.LeaseStateOpen, "b", "b", false},
		{"nothing yet", "", "", "", "", false},
	} {
		if got, _ := nextQueue(tc.current, tc.seenOpen, tc.state, tc.annotated); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// The token rotates, the API server goes away and comes back: the next heartbeat works, and calls never
// notice.
func TestHeartbeatSurvivesFailures(t *testing.T) {
	api := newAPIServer(t)
	const queue = "http://127.0.0.1:1/000000000000/rq_c_r_1"
	e, err := readEnvironment(api.variables(map[string]string{injected.EnvReplyQueueURL: queue}), noFolder)
	if err != nil {
		t.Fatal(err)
	}
	l := newLease(e, discard())
	l.start()
	defer func() { _ = l.Close() }()
	api.wait(1)
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity} {
		api.mu.Lock()
		api.status = status
		api.mu.Unlock()
		l.Lost("another")
		api.wait(1)
		if got, _ := l.Current(); got != queue {
			t.Errorf("status %d took the reply queue away: %q", status, got)
		}
	}
	api.write("token", "second")
	api.mu.Lock()
	api.status, api.token = 0, "second"
	before := len(api.beats)
	api.mu.Unlock()
	l.Lost("another")
	for api.count() == before {
		api.wait(1)
	}
}

func TestAdvisedInterval(t *testing.T) {
	e := environment{heartbeat: &injected.Heartbeat{Namespace: "n", Name: "u", IntervalSeconds: 60}}
	l := newLease(e, discard())
	for text, want := range map[string]time.Duration{"120": 2 * time.Minute, "0": time.Minute, "x": time.Minute, "-1": time.Minute} {
		l.interval = time.Minute
		if err := l.take(map[string]string{injected.LeaseIntervalSeconds: text}); err != nil || l.interval != want {
			t.Errorf("%q: %s, %v, want %s", text, l.interval, err, want)
		}
	}
	for range 100 {
		if d := jitter(time.Minute); d > time.Minute || d < 48*time.Second {
			t.Fatalf("jitter gave %s", d)
		}
	}
}

// A pod that started before it was injected learns everything from its Lease, which it finds by the UID
// in its token: region and endpoint too, without which no queue on a host of one's own can be reached.
func TestPodWithoutEnvironmentAsksItsLease(t *testing.T) {
	endpoint, urls := queues(t, "rq_c_ns_login", "rq_c_r_1")
	api := newAPIServer(t)
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"kubernetes.io":{"namespace":"shop","pod":{"name":"web-1","uid":"uid-1"}}}`))
	api.token = "e30." + claims + ".c2ln"
	api.write("token", api.token)
	get := api.variables(map[string]string{
		injected.EnvHeartbeat: "", injected.EnvPodUID: "", injected.EnvPodName: "", "HOSTNAME": "web-1",
	})
	e, err := readEnvironment(get, noFolder)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		api.wait(2) // nothing is known at first
		api.set(injected.LeaseChannels, injected.Encode(injected.Channels{"login": {URL: urls[0], Role: injected.RoleBoth, TimeoutSeconds: 20}}),
			injected.LeaseState, injected.LeaseStateOpen, injected.LeaseReplyQueueURL, urls[1],
			injected.LeaseRegion, "us-east-1", injected.LeaseEndpoint, endpoint,
			injected.LeaseReturnAddresses, injected.Encode(injected.ReturnAddresses{AccountID: "000000000000", Endpoint: endpoint, Prefixes: []string{"rq_c_r_"}}))
	}()
	r, err := e.requester(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer shutdown(t, r)
	login, err := r.Channel("login")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); r.ReplyQueueURL() != urls[1]; api.wait(1) {
		if time.Now().After(deadline) {
			t.Fatalf("replies come to %q", r.ReplyQueueURL())
		}
	}
	e, err = readEnvironment(get, noFolder)
	if err != nil {
		t.Fatal(err)
	}
	responder, err := e.responder(t.Context(), []rpcclient.Option{rpcclient.WithReceiveWait(time.Second)})
	if err != nil {
		t.Fatalf("responder: %v", err)
	}
	echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	if got, err := echo.Call(t.Context(), login, "hello"); err != nil || got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestRegionAndEndpointOfTheLease(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	const (
		aws1     = "https://sqs.eu-west-1.amazonaws.com/111122223333/login"
		loopback = "http://127.0.0.1:1/000000000000/login"
		here     = "http://127.0.0.1:1"
		private  = "https://sqs.internal.example.com"
	)
	type place struct{ region, endpoint string }
	for name, tc := range map[string]struct {
		queue                    string
		environment, lease, want place
	}{
		"neither says anything":   {queue: aws1, want: place{"eu-west-1", ""}},
		"both from the Lease":     {queue: aws1, lease: place{"eu-west-2", private}, want: place{"eu-west-2", private}},
		"only an endpoint":        {queue: aws1, lease: place{"", private}, want: place{"eu-west-1", private}},
		"loopback":                {queue: loopback, lease: place{"us-east-1", here}, want: place{"us-east-1", here}},
		"the environment wins":    {queue: loopback, environment: place{"eu-west-3", here}, lease: place{"us-east-1", private}, want: place{"eu-west-3", here}},
		"one from each":           {queue: loopback, environment: place{"eu-west-3", ""}, lease: place{"us-east-1", here}, want: place{"eu-west-3", here}},
		"one from each, reversed": {queue: loopback, environment: place{"", here}, lease: place{"us-east-1", private}, want: place{"us-east-1", here}},
	} {
		e := environment{
			region: tc.environment.region, endpoint: tc.environment.endpoint,
			heartbeat: &injected.Heartbeat{Namespace: "n", Name: "u", IntervalSeconds: 60},
		}
		l := newLease(e, discard())
		annotations := map[string]string{
			injected.LeaseChannels: injected.Encode(injected.Channels{"login": {URL: tc.queue, Role: injected.RoleCall}}),
		}
		if tc.lease.region != "" {
			annotations[injected.LeaseRegion] = tc.lease.region
		}
		if tc.lease.endpoint != "" {
			annotations[injected.LeaseEndpoint] = tc.lease.endpoint
		}
		if err := l.take(annotations); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := e.askLease(t.Context(), l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		client, err := e.client(t.Context(), tc.queue)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := (place{client.Options().Region, aws.ToString(client.Options().BaseEndpoint)}); got != tc.want {
			t.Errorf("%s: the client is for %v, want %v", name, got, tc.want)
		}
	}
}

func TestPodWithoutEnvironmentGivesUpWithItsContext(t *testing.T) {
	api := newAPIServer(t)
	e, err := readEnvironment(api.variables(map[string]string{injected.EnvHeartbeat: ""}), noFolder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		api.wait(2)
		cancel()
	}()
	if _, err := e.requester(ctx, nil); err == nil || !strings.Contains(err.Error(), injected.EnvChannels) || !strings.Contains(err.Error(), "uid-1") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	channels := injected.Encode(injected.Channels{
		"login": {URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/login", Role: injected.RoleCall},
		"shop":  {URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/shop", Role: injected.RoleServe, TimeoutSeconds: 20, MaxAttempts: 2, FIFO: true, VisibilityTimeoutSeconds: 60, MaximumMessageBytes: 4096, DeadLetter: true, MaxReceiveCount: 7},
	})
	get := func(v map[string]string) func(string) string { return func(n string) string { return v[n] } }

	e, err := readEnvironment(get(map[string]string{injected.EnvChannels: channels, "REPLYQUEUE_CHANNEL_LOGIN_URL": "https://sqs.eu-west-1.amazonaws.com/111122223333/mine"}), noFolder)
	if err != nil || e.channels["login"].URL != "https://sqs.eu-west-1.amazonaws.com/111122223333/mine" {
		t.Errorf("a variable that the pod's author set does not win: %+v, %v", e.channels, err)
	}
	if got := configs(e.channels, injected.Role.Serves); len(got) != 1 || got[0] != (rpcclient.ChannelConfig{
		Name: "shop", URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/shop",
		Timeout: 20 * time.Second, MaxAttempts: 2, FIFO: true, VisibilityTimeout: time.Minute, MaxMessageBytes: 4096, DeadLetter: true, MaxReceiveCount: 7,
	}) {
		t.Errorf("serves %+v", got)
	}
	if e.account != injected.DefaultServiceAccountDir {
		t.Errorf("service account in %s", e.account)
	}
	e, _ = readEnvironment(get(nil), func(p string) bool { return p == injected.ProjectedServiceAccountDir })
	if e.account != injected.ProjectedServiceAccountDir {
		t.Errorf("service account in %s", e.account)
	}
	for name, v := range map[string]map[string]string{
		injected.EnvChannels:        {injected.EnvChannels: "{"},
		injected.EnvReturnAddresses: {injected.EnvReturnAddresses: "{"},
		injected.EnvHeartbeat:       {injected.EnvHeartbeat: "{"},
		"KUBERNETES_SERVICE_HOST":   {injected.EnvHeartbeat: `{"namespace":"n","name":"u","intervalSeconds":60}`},
	} {
		if _, err := readEnvironment(get(v), noFolder); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v, want a word on %s", v, err, name)
		}
	}
	for _, v := range []map[string]string{nil, {injected.EnvReplyQueueURL: "https://sqs.eu-west-1.amazonaws.com/111122223333/r"}} {
		e, err := readEnvironment(get(v), noFolder)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.requester(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "REPLYQUEUE_") || !strings.Contains(err.Error(), "replyqueue.dev/") {
			t.Errorf("requester of %v: %v, want the variable and what to do", v, err)
		}
		if _, err := e.responder(t.Context(), nil); err == nil || !strings.Contains(err.Error(), injected.EnvChannels) || !strings.Contains(err.Error(), "replyqueue.dev/serves") {
			t.Errorf("responder of %v: %v, want the variable and what to do", v, err)
		}
	}
}
