package conformance

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
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

	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var serverNames = flag.String("servers", "", "comma-separated servers to check: sqstest, moto, local-aws-sqs")

var reportFile = flag.String("report", "", "file to write the table of TestServers to, besides standard output")

// quick is how long a check may wait and still share the workers with others; one that waits longer gets its own.
const quick = 10 * time.Second

// result is what became of the checks on one server.
type result struct {
	server     string
	ran        map[string]bool
	passed     map[string]bool
	known      int
	skipped    int // waits longer than CONFORMANCE_PATIENCE
	unexpected []string
	notThere   string // why the server could not be asked
}

// TestServers prints how each of the servers does. They are asked all at once: most of a run is waiting for time to pass.
func TestServers(t *testing.T) {
	endpoint := os.Getenv("CONFORMANCE_ENDPOINT")
	if *serverNames == "" && endpoint == "" {
		t.Skip("no -servers and no CONFORMANCE_ENDPOINT; TestSqstest checks our own")
	}
	names := strings.FieldsFunc(*serverNames, func(r rune) bool { return r == ',' })
	if endpoint != "" {
		names = append(names, endpoint)
	}
	results := make([]result, len(names))
	t.Run("", func(t *testing.T) { // ends when all of its parallel subtests have
		for i, name := range names {
			t.Run(name, func(t *testing.T) {
				if name == "sqstest" {
					results[i] = checkOurs(t) // no time passes
					return
				}
				t.Parallel()
				switch name {
				case "moto":
					results[i] = checkStranger(t, name, startMoto)
				case "local-aws-sqs":
					results[i] = checkStranger(t, name, startLocalAWSSQS)
				case endpoint:
					results[i] = checkEndpoint(t, endpoint, os.Getenv("CONFORMANCE_KNOWN"), endpoint)
				default:
					t.Fatalf("unknown server %q", name)
				}
			})
		}
	})
	if !t.Failed() {
		report(t, results)
	}
}

// checkOurs runs every check in a bubble of its own.
func checkOurs(t *testing.T) result {
	t.Helper()
	known := readKnown(t, "sqstest")
	r := newResult("sqstest")
	for _, c := range checks() {
		var err error
		synctest.Test(t, func(t *testing.T) { err = onSqstest(t.Context(), c) })
		r.add(c, err, known)
	}
	return r
}

func checkStranger(t *testing.T, name string, start func(*testing.T, int) error) result {
	t.Helper()
	port, err := freeport.Loopback()
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
	r := newResult(name)
	patience := patience(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	do := func(c check) {
		ctx, cancel := context.WithTimeout(t.Context(), c.wait+time.Minute)
		defer cancel()
		err := c.outcome(ctx, client)
		mu.Lock()
		defer mu.Unlock()
		r.add(c, err, known)
	}
	work := make(chan check)
	for range 8 {
		wg.Go(func() {
			for c := range work {
				do(c)
			}
		})
	}
	all := checks()
	slices.SortStableFunc(all, func(a, b check) int { return cmp.Compare(b.wait, a.wait) })
	for _, c := range all {
		switch {
		case c.wait > patience:
			r.skipped++
		case c.wait > quick:
			wg.Go(func() { do(c) })
		default:
			work <- c
		}
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

func newResult(server string) result {
	return result{server: server, ran: map[string]bool{}, passed: map[string]bool{}}
}

// patience is CONFORMANCE_PATIENCE: the longest that a check may wait in real time. Without it, all are run.
func patience(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("CONFORMANCE_PATIENCE")
	if s == "" {
		return time.Hour
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("CONFORMANCE_PATIENCE: %v", err)
	}
	return d
}

func (r *result) add(c check, err error, known map[string]string) {
	_, listed := known[c.name]
	r.ran[c.name] = true
	switch {
	case err == nil && !listed:
		r.passed[c.name] = true
	case err != nil && listed:
		r.known++
	case err == nil:
		r.unexpected = append(r.unexpected, c.name+": passes, and is listed as a known difference")
	default:
		r.unexpected = append(r.unexpected, fmt.Sprintf("%s: %v (source: %s)", c.name, err, links(c.source)))
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
			return fmt.Errorf("no %s on the PATH (install Node.js 20 or newer, which brings npm)", tool)
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
			return fmt.Errorf("npm cannot install local-aws-sqs (it needs a registry, once): %w: %s", err, strings.Join(strings.Fields(string(out)), " "))
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
