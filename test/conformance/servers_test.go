package conformance

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var serverNames = flag.String("servers", "", "comma-separated servers to check: sqstest, moto, local-aws-sqs")

// patience is how long a check may wait in real time unless CONFORMANCE_SLOW is set.
const patience = 10 * time.Second

// result is what became of the checks on one server.
type result struct {
	server        string
	passed, known int
	skipped       int // too slow for today
	unexpected    []string
	notThere      string // why the server could not be asked
}

// TestServers prints how each of the servers does.
func TestServers(t *testing.T) {
	endpoint := os.Getenv("CONFORMANCE_ENDPOINT")
	if *serverNames == "" && endpoint == "" {
		t.Skip("no -servers and no CONFORMANCE_ENDPOINT; TestSqstest checks our own")
	}
	var results []result
	for name := range strings.SplitSeq(*serverNames, ",") {
		switch name {
		case "":
		case "sqstest":
			results = append(results, checkOurs(t))
		case "moto":
			results = append(results, checkStranger(t, name, startMoto))
		case "local-aws-sqs":
			results = append(results, checkStranger(t, name, startLocalAWSSQS))
		default:
			t.Fatalf("unknown server %q", name)
		}
	}
	if endpoint != "" {
		results = append(results, checkEndpoint(t, endpoint, os.Getenv("CONFORMANCE_KNOWN"), endpoint))
	}
	report(t, results)
}

func report(t *testing.T, results []result) {
	t.Helper()
	unexpected, ours := 0, 0
	fmt.Printf("\n%-24s %8s %8s %8s %11s\n", "server", "passed", "known", "skipped", "unexpected")
	for _, r := range results {
		if r.notThere != "" {
			fmt.Printf("%-24s not asked: %s\n", r.server, r.notThere)
			continue
		}
		fmt.Printf("%-24s %8d %8d %8d %11d\n", r.server, r.passed, r.known, r.skipped, len(r.unexpected))
		unexpected += len(r.unexpected)
		if r.server == "sqstest" {
			ours = r.passed
		}
	}
	for _, r := range results {
		for _, u := range r.unexpected {
			t.Errorf("%s: %s", r.server, u)
		}
	}
	if unexpected == 0 {
		fmt.Printf("CONFORMANCE OK checks=%d sqstest=%d unexpected=0\n", len(checks()), ours)
	}
}

// checkOurs runs every check in a bubble of its own.
func checkOurs(t *testing.T) result {
	t.Helper()
	known := readKnown(t, "sqstest")
	r := result{server: "sqstest"}
	for _, c := range checks() {
		var err error
		synctest.Test(t, func(t *testing.T) { err = onSqstest(t.Context(), c) })
		r.add(c, err, known)
	}
	return r
}

func checkStranger(t *testing.T, name string, start func(*testing.T, int) error) result {
	t.Helper()
	port, err := freePort()
	if err == nil {
		err = start(t, port)
	}
	endpoint := "http://127.0.0.1:" + strconv.Itoa(port)
	if err == nil {
		err = awaitServer(t.Context(), endpoint)
	}
	if err != nil {
		return result{server: name, notThere: err.Error()}
	}
	return checkEndpoint(t, name, name, endpoint)
}

// checkEndpoint runs the checks against an endpoint, several at a time.
func checkEndpoint(t *testing.T, name, knownAs, endpoint string) result {
	t.Helper()
	client := clientFor(t, endpoint)
	known := readKnown(t, knownAs)
	r := result{server: name}
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan check)
	for range 8 {
		wg.Go(func() {
			for c := range work {
				ctx, cancel := context.WithTimeout(t.Context(), c.wait+time.Minute)
				err := c.outcome(ctx, client)
				cancel()
				mu.Lock()
				r.add(c, err, known)
				mu.Unlock()
			}
		})
	}
	for _, c := range checks() {
		if c.wait > patience && os.Getenv("CONFORMANCE_SLOW") == "" {
			mu.Lock()
			r.skipped++
			mu.Unlock()
			continue
		}
		work <- c
	}
	close(work)
	wg.Wait()
	for n := range maps.Keys(known) {
		if !slices.ContainsFunc(checks(), func(c check) bool { return c.name == n }) {
			r.unexpected = append(r.unexpected, n+": listed as a known difference, and no such check")
		}
	}
	slices.Sort(r.unexpected)
	return r
}

func (r *result) add(c check, err error, known map[string]string) {
	_, listed := known[c.name]
	switch {
	case err == nil && !listed:
		r.passed++
	case err != nil && listed:
		r.known++
	case err == nil:
		r.unexpected = append(r.unexpected, c.name+": passes, and is listed as a known difference")
	default:
		r.unexpected = append(r.unexpected, fmt.Sprintf("%s: %v (source: %s)", c.name, err, c.source))
	}
}

// readKnown reads known/<server>.txt: a check's name and, after it, the reason why the server differs.
func readKnown(t *testing.T, server string) map[string]string {
	t.Helper()
	known := map[string]string{}
	f, err := os.Open(filepath.Join("known", server+".txt"))
	if errors.Is(err, os.ErrNotExist) {
		return known
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("known/%s.txt: %q has no reason", server, line)
		}
		known[name] = strings.TrimSpace(reason)
	}
	return known
}

// clientFor takes credentials and region from the SDK's environment where they are set, and anything otherwise.
func clientFor(t *testing.T, endpoint string) *sqs.Client {
	t.Helper()
	opts := []func(*config.LoadOptions) error{config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })}
	if os.Getenv("AWS_ACCESS_KEY_ID") == "" && os.Getenv("AWS_PROFILE") == "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	}
	if os.Getenv("AWS_REGION") == "" {
		opts = append(opts, config.WithRegion(sqstest.DefaultRegion))
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	cfg.HTTPClient = &http.Client{Transport: plainBodies{&http.Transport{MaxIdleConnsPerHost: 32}}}
	return sqs.NewFromConfig(cfg, func(o *sqs.Options) { o.BaseEndpoint = &endpoint })
}

// plainBodies hides the request body's WriterTo: with it, net/http can tear down a connection under an answer that is
// still being read, once smithy has closed the body.
type plainBodies struct{ next http.RoundTripper }

func (p plainBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return p.next.RoundTrip(r)
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func startMoto(t *testing.T, port int) error {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err != nil {
		return errors.New("no moto_server on the PATH (pip install 'moto[server]')")
	}
	return run(t, path, "-H", "127.0.0.1", "-p", strconv.Itoa(port))
}

// startLocalAWSSQS installs the package that strangers/package-lock.json pins, once, and starts it.
func startLocalAWSSQS(t *testing.T, port int) error {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("no %s on the PATH", tool)
		}
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "conformance"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("strangers", f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "local-aws-sqs")); err != nil {
		install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = dir
		if out, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("npm ci: %w: %s", err, out)
		}
	}
	return run(t, "node", filepath.Join("strangers", "serve.mjs"), strconv.Itoa(port), dir)
}

// run starts a server and ends it with the test.
func run(t *testing.T, name string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was told to stop
	})
	return nil
}

// awaitServer waits until something answers.
func awaitServer(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return errors.New("it did not answer within a minute")
		}
	}
}
