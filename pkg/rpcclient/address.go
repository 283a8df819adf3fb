package rpcclient

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// ReturnAddressPolicy says which reply queues a responder may answer. A return address comes from
// whoever could send a request, and the reply goes out under the responder's credentials, so it is
// checked before the handler runs.
type ReturnAddressPolicy struct {
	// AccountID is the account whose queues may be answered. Empty: the account of the request queue.
	AccountID string
	// Region is the region whose queues may be answered. Empty: the region of the request queue's URL;
	// when that names none, addresses on the request queue's own host only.
	Region string
	// Endpoint is the base URL on which replies are sent, e.g. http://127.0.0.1:4566. Empty: the
	// request queue's.
	Endpoint string
	// Prefixes of queue names that may be answered, e.g. "rq_0a1b2c3d_r_", or "__RequesterClientQueues__"
	// for Java requesters. None: names of the operator's form <prefix>_<cluster>_r_<UID>.
	Prefixes []string
	// Accounts may be answered besides AccountID.
	Accounts []string

	more []string // prefixes besides
}

// Check says whether a reply may go to received, the return address (message attribute ResponseQueueUrl) of
// a message that came from the queue at requestQueueURL, and returns the URL to send it to: rebuilt on the
// responder's own endpoint, with what followed the #. A Responder does this by itself; it is for programs
// that answer by other means. The error does not repeat the address, which holds a secret.
func (p ReturnAddressPolicy) Check(requestQueueURL, received string) (string, error) {
	a, err := checkReturnAddress(p, requestQueueURL, received)
	if err != nil {
		return "", err
	}
	return a.String(), nil
}

// returnAddress is a return address that passed the check.
type returnAddress struct {
	// queueURL is rebuilt on our own base, never the received text.
	queueURL string
	// virtual is the text after the #: the call ID or Java's virtual queue. Empty for a plain URL.
	virtual string
}

// String is the address in the form in which it travels.
func (a returnAddress) String() string {
	if a.virtual == "" {
		return a.queueURL
	}
	return a.queueURL + "#" + a.virtual
}

// maxVirtualNameBytes bounds the text after the #. Ours has 34, Java's default 60.
const maxVirtualNameBytes = 256

var (
	queueNamePattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)
	accountPattern     = regexp.MustCompile(`^[0-9]{12}$`)
	operatorQueueNames = regexp.MustCompile(`^[A-Za-z0-9-]+_[A-Za-z0-9-]+_r_[A-Za-z0-9-]+$`)
	regionPattern      = `([a-z]{2,}(?:-[a-z0-9]+)+)`
	// suffixes of the AWS partitions' endpoints.
	partitionSuffixes = `(?:amazonaws\.com|amazonaws\.com\.cn|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov|amazonaws\.eu)`
	regionalHosts     = []*regexp.Regexp{
		regexp.MustCompile(`^sqs(?:-fips)?\.` + regionPattern + `\.` + partitionSuffixes + `$`),
		regexp.MustCompile(`^` + regionPattern + `\.queue\.` + partitionSuffixes + `$`),
		regexp.MustCompile(`^sqs(?:-fips)?\.` + regionPattern + `\.(?:api\.aws|api\.amazonwebservices\.com\.cn)$`),
		regexp.MustCompile(`^vpce-[a-z0-9-]+\.sqs\.` + regionPattern + `\.vpce\.` + partitionSuffixes + `$`),
	}
)

// legacyHost is the host of the oldest queue URLs, which all name us-east-1.
const legacyHost = "queue.amazonaws.com"

// queueAddress is a queue's URL taken apart.
type queueAddress struct {
	base    *url.URL // scheme, host and any path before the account
	account string
	name    string
	region  string // empty when the host does not say
}

func (q queueAddress) on(base *url.URL) string {
	return strings.TrimSuffix(base.String(), "/") + "/" + q.account + "/" + q.name
}

// parseQueueURL takes a queue's URL apart. It refuses anything that a queue's URL never has.
func parseQueueURL(text string) (queueAddress, error) {
	var q queueAddress
	if len(text) > 1024 || !isPrintableASCII(text) {
		return q, errors.New("not a URL of printable ASCII")
	}
	u, err := url.Parse(text)
	if err != nil {
		return q, errors.New("not a URL")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return q, errors.New("scheme is neither https nor http")
	case u.User != nil:
		return q, errors.New("has userinfo")
	case u.RawQuery != "" || u.ForceQuery:
		return q, errors.New("has a query")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return q, errors.New("has a fragment")
	case u.Opaque != "" || u.Host == "" || u.RawPath != "":
		return q, errors.New("not a plain URL")
	}
	segments := strings.Split(u.Path, "/")
	if len(segments) < 3 {
		return q, errors.New("path does not end in account and queue name")
	}
	n := len(segments)
	q.account, q.name = segments[n-2], segments[n-1]
	for _, s := range segments[1:] {
		if s == "" || s == "." || s == ".." {
			return q, errors.New("path has an empty or dot segment")
		}
	}
	if !accountPattern.MatchString(q.account) {
		return q, errors.New("account is not 12 digits")
	}
	if !queueNamePattern.MatchString(strings.TrimSuffix(q.name, ".fifo")) {
		return q, errors.New("not a queue name")
	}
	q.base = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.Join(segments[:n-2], "/")}
	q.region = regionOfHost(u.Hostname())
	return q, nil
}

// checkReplyQueue refuses a URL to which no responder sends a reply.
func checkReplyQueue(text string) error {
	q, err := parseQueueURL(text)
	if err == nil && strings.HasSuffix(q.name, ".fifo") {
		err = errors.New("a FIFO queue: replies go to a standard one")
	}
	return err
}

// regionOfHost returns the region that an SQS host name tells, or "".
func regionOfHost(host string) string {
	host = strings.ToLower(host)
	if host == legacyHost {
		return "us-east-1"
	}
	for _, p := range regionalHosts {
		if m := p.FindStringSubmatch(host); m != nil {
			return m[1]
		}
	}
	return ""
}

// checkReturnAddress decides whether a reply may go to received, the attribute ResponseQueueUrl of a
// message that came from the queue at requestQueue. It is a pure function; the error says what is
// wrong without repeating the address, which holds a secret.
func checkReturnAddress(policy ReturnAddressPolicy, requestQueue, received string) (returnAddress, error) {
	own, err := parseQueueURL(requestQueue)
	if err != nil {
		return returnAddress{}, fmt.Errorf("request queue URL: %w", err)
	}
	return newAddressChecker(policy, nil, own).check(received)
}

// addressChecker is checkReturnAddress for one request queue. It remembers the reply queues it has
// accepted, since requesters call again.
type addressChecker struct {
	own    queueAddress
	source func() (policy ReturnAddressPolicy, ok bool) // nil: the policy does not change

	mu       sync.Mutex
	rules    addressRules
	asked    time.Time         // when the source was
	accepted map[string]string // by these rules: received queue URL → rebuilt URL
}

const (
	// maxAcceptedAddresses bounds what an addressChecker remembers.
	maxAcceptedAddresses = 4096
	// sourceEvery is how old a source's answer may be, and sourceAgain when an address would be refused by it.
	sourceEvery = 10 * time.Second
	sourceAgain = time.Second
)

// newAddressChecker checks by policy, until the source, which may be nil, says another.
func newAddressChecker(policy ReturnAddressPolicy, source func() (policy ReturnAddressPolicy, ok bool), own queueAddress) *addressChecker {
	return &addressChecker{own: own, source: source, rules: newAddressRules(policy, own), asked: time.Now(), accepted: map[string]string{}}
}

func (c *addressChecker) check(received string) (returnAddress, error) {
	queue, virtual, hasVirtual := strings.Cut(received, "#")
	if hasVirtual && (virtual == "" || len(virtual) > maxVirtualNameBytes ||
		strings.Contains(virtual, "#") || !isPrintableASCII(virtual)) {
		return returnAddress{}, errors.New("no usable name after the #")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ask(sourceEvery)
	rebuilt, ok := c.accepted[queue]
	if !ok {
		var err error
		if rebuilt, err = c.rules.check(queue); err != nil && c.ask(sourceAgain) {
			rebuilt, err = c.rules.check(queue)
		}
		if err != nil {
			return returnAddress{}, err
		}
		if len(c.accepted) >= maxAcceptedAddresses {
			clear(c.accepted)
		}
		c.accepted[queue] = rebuilt
	}
	return returnAddress{queueURL: rebuilt, virtual: virtual}, nil
}

// ask asks the source unless its answer is younger than that, and reports whether the rules are new. It is called with
// the lock held.
func (c *addressChecker) ask(age time.Duration) (changed bool) {
	now := time.Now()
	if c.source == nil || now.Sub(c.asked) < age {
		return false
	}
	c.asked = now
	policy, ok := c.source()
	policy.more = c.rules.given.more
	if !ok || policy.equal(c.rules.given) {
		return false
	}
	c.rules = newAddressRules(policy, c.own)
	clear(c.accepted)
	return true
}

// containedSource is source, which is the application's: it is not ok where that panics. It is nil where source is.
func containedSource(source func() ReturnAddressPolicy, log *slog.Logger) func() (policy ReturnAddressPolicy, ok bool) {
	if source == nil {
		return nil
	}
	return func() (policy ReturnAddressPolicy, ok bool) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("the source of return addresses panicked; those of before stand", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		return source(), true
	}
}

func (p ReturnAddressPolicy) equal(o ReturnAddressPolicy) bool {
	return p.AccountID == o.AccountID && p.Region == o.Region && p.Endpoint == o.Endpoint &&
		slices.Equal(p.Prefixes, o.Prefixes) && slices.Equal(p.Accounts, o.Accounts) && slices.Equal(p.more, o.more)
}

// addressRules are a policy for one request queue.
type addressRules struct {
	given  ReturnAddressPolicy
	policy ReturnAddressPolicy // with what the request queue says
	own    queueAddress
	base   *url.URL // where replies go
	err    error    // the policy cannot be followed
}

func newAddressRules(policy ReturnAddressPolicy, own queueAddress) addressRules {
	policy.Prefixes, policy.Accounts = slices.Clone(policy.Prefixes), slices.Clone(policy.Accounts) // the source may write to them
	r := addressRules{given: policy, policy: policy, own: own, base: own.base}
	if policy.Endpoint != "" {
		base, err := url.Parse(policy.Endpoint)
		if err != nil || base.Host == "" {
			r.err = errors.New("own endpoint is not a URL")
		}
		r.base = base
	}
	if policy.Region == "" {
		r.policy.Region = own.region
	}
	if policy.AccountID == "" {
		r.policy.AccountID = own.account
	}
	return r
}

// check checks a queue's URL and rebuilds it on our own base.
func (r *addressRules) check(received string) (string, error) {
	if r.err != nil {
		return "", r.err
	}
	q, err := parseQueueURL(received)
	if err != nil {
		return "", err
	}
	onOwnHost := strings.EqualFold(q.base.Host, r.base.Host) || strings.EqualFold(q.base.Host, r.own.base.Host)
	switch {
	case !onOwnHost && (r.policy.Region == "" || q.region != r.policy.Region):
		return "", errors.New("another region or an unknown host")
	case q.account != r.policy.AccountID && !slices.Contains(r.policy.Accounts, q.account):
		return "", errors.New("another account")
	case strings.HasSuffix(q.name, ".fifo"):
		return "", errors.New("reply queues are standard queues")
	case !r.policy.allowsName(q.name):
		return "", errors.New("queue name has none of the allowed prefixes")
	}
	return q.on(r.base), nil
}

func (p ReturnAddressPolicy) allowsName(name string) bool {
	begins := func(prefix string) bool {
		return prefix != "" && strings.HasPrefix(name, prefix) && len(name) > len(prefix)
	}
	return len(p.Prefixes) == 0 && operatorQueueNames.MatchString(name) ||
		slices.ContainsFunc(p.Prefixes, begins) || slices.ContainsFunc(p.more, begins)
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// RegionOfQueueURL returns the AWS region that a queue's URL names by its host, "" when it names none
// (an endpoint of one's own) or is not a queue's URL.
func RegionOfQueueURL(queueURL string) string {
	q, err := parseQueueURL(queueURL)
	if err != nil {
		return ""
	}
	return q.region
}
