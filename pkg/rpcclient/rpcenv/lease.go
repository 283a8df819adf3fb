package rpcenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	// heartbeatTimeout bounds one request to the API server.
	heartbeatTimeout = 10 * time.Second
	// eagerFirst and eagerLimit bound the pause between heartbeats while there is no reply queue, or
	// the API server does not answer: doubling, and never longer than the interval.
	eagerFirst = 250 * time.Millisecond
	eagerLimit = 5 * time.Second
	// microTime is Kubernetes' format of a MicroTime.
	microTime = "2006-01-02T15:04:05.000000Z07:00"
)

// lease renews a pod's heartbeat Lease and learns from each answer where the pod's replies come to. It
// is the rpcclient.ReplyQueueSource of an injected requester.
type lease struct {
	api      apiClient
	url      string
	holder   string
	interval time.Duration
	log      *slog.Logger
	// needChannels is set when the environment does not name them.
	needChannels bool

	nudge  chan struct{} // a heartbeat is wanted now
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	queueURL string
	lostURL  string
	seenOpen bool // an answer has named a queue
	changed  chan struct{}
	answered chan struct{} // closed and replaced at each answer
	channels injected.Channels
	returns  *injected.ReturnAddresses
	identity *injected.Identity
	region   string // with endpoint, empty where the Lease names none
	endpoint string
}

// newLease prepares the heartbeat; queueURL is what the environment says.
func newLease(e environment, log *slog.Logger) *lease {
	return &lease{
		api: apiClient{account: e.account},
		url: fmt.Sprintf("%s/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s",
			e.apiServer, url.PathEscape(e.heartbeat.Namespace), url.PathEscape(e.heartbeat.Name)),
		holder: e.podName, interval: e.heartbeat.Interval(), log: log, queueURL: e.replyQueueURL,
		needChannels: e.channels == nil,
		nudge:        make(chan struct{}, 1), done: make(chan struct{}),
		changed: make(chan struct{}), answered: make(chan struct{}),
	}
}

// start heartbeats until Close, the first time at once.
func (l *lease) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() {
		defer close(l.done)
		l.run(ctx)
	}()
}

// Close ends the heartbeats and waits for one under way to be given up.
func (l *lease) Close() error {
	l.cancel()
	<-l.done
	l.api.close()
	return nil
}

// Current implements rpcclient.ReplyQueueSource.
func (l *lease) Current() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queueURL, l.changed
}

// Lost implements rpcclient.ReplyQueueSource: the Lease is asked at once for another queue.
func (l *lease) Lost(queueURL string) {
	l.mu.Lock()
	l.lostURL = queueURL
	l.mu.Unlock()
	select {
	case l.nudge <- struct{}{}:
	default:
	}
}

// run is the heartbeat's loop. Its timer runs on the monotonic clock, which goes on while the process
// is stopped: after a SIGCONT an overdue heartbeat is sent at once.
func (l *lease) run(ctx context.Context) {
	eager := eagerFirst
	failing := ""
	for {
		err := l.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && err.Error() != failing:
			l.log.Warn("heartbeat failed; calls go on", "lease", l.url, "error", err)
			failing = err.Error()
		case err == nil && failing != "":
			l.log.Info("heartbeat works again", "lease", l.url)
			failing = ""
		}
		pause := jitter(l.interval)
		if err != nil || l.waiting() || (l.needChannels && !l.knowsChannels()) {
			pause = min(pause, jitter(eager))
			eager = min(2*eager, eagerLimit)
		} else {
			eager = eagerFirst
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.nudge:
			timer.Stop()
			eager = eagerFirst
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// waiting reports whether there is no usable reply queue.
func (l *lease) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queueURL == "" || l.queueURL == l.lostURL
}

// jitter spreads heartbeats of pods that started together: 80 to 100 % of d.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// leaseObject is the part of a Lease this package reads and writes.
type leaseObject struct {
	Metadata *leaseMetadata `json:"metadata,omitempty"`
	Spec     leaseSpec      `json:"spec"`
}

type leaseMetadata struct {
	Annotations map[string]string `json:"annotations"`
}

type leaseSpec struct {
	RenewTime      string `json:"renewTime,omitempty"`
	HolderIdentity string `json:"holderIdentity,omitempty"`
}

// beat renews the Lease and takes in the answer.
func (l *lease) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	body, err := json.Marshal(leaseObject{Spec: leaseSpec{
		RenewTime: time.Now().UTC().Format(microTime), HolderIdentity: l.holder,
	}})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPatch, l.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/merge-patch+json")
	r.Header.Set("Accept", "application/json")
	resp, err := l.api.do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("API server: %s: %s", resp.Status, statusMessage(answer))
	}
	var got leaseObject
	if err := json.Unmarshal(answer, &got); err != nil {
		return fmt.Errorf("read the Lease: %w", err)
	}
	var annotations map[string]string
	if got.Metadata != nil {
		annotations = got.Metadata.Annotations
	}
	return l.take(annotations)
}

// statusMessage is the message of a Kubernetes Status.
func statusMessage(body []byte) string {
	var s struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &s) == nil && s.Message != "" {
		return s.Message
	}
	return strconv.Quote(string(body[:min(len(body), 200)]))
}

// take learns from a Lease's annotations.
func (l *lease) take(annotations map[string]string) error {
	var problems []error
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, err := strconv.Atoi(annotations[injected.LeaseIntervalSeconds]); err == nil && n >= 1 {
		l.interval = time.Duration(n) * time.Second
	}
	if c, err := injected.ParseChannels(annotations[injected.LeaseChannels]); err == nil {
		l.channels = c
	} else if !errors.Is(err, injected.ErrAbsent) {
		problems = append(problems, fmt.Errorf("annotation %s: %w", injected.LeaseChannels, err))
	}
	if a, err := injected.ParseReturnAddresses(annotations[injected.LeaseReturnAddresses]); err == nil {
		l.returns = &a
	} else if !errors.Is(err, injected.ErrAbsent) {
		problems = append(problems, fmt.Errorf("annotation %s: %w", injected.LeaseReturnAddresses, err))
	}
	if i, err := injected.ParseIdentity(annotations[injected.LeaseIdentity]); err == nil {
		l.identity = &i
	} else if !errors.Is(err, injected.ErrAbsent) {
		problems = append(problems, fmt.Errorf("annotation %s: %w", injected.LeaseIdentity, err))
	}
	l.region, l.endpoint = annotations[injected.LeaseRegion], annotations[injected.LeaseEndpoint]

	next, open := nextQueue(l.queueURL, l.seenOpen, annotations[injected.LeaseState], annotations[injected.LeaseReplyQueueURL])
	l.seenOpen = open
	if next != l.queueURL {
		l.queueURL = next
		close(l.changed)
		l.changed = make(chan struct{})
	}
	close(l.answered)
	l.answered = make(chan struct{})
	return errors.Join(problems...)
}

// knowsChannels reports whether an answer has named the channels.
func (l *lease) knowsChannels() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.channels != nil
}

// nextQueue decides which reply queue a Lease's annotations mean: current is the one in use, seenOpen
// whether an earlier answer had named a queue. Without that, a Lease that names none yet does not
// overrule the environment, which the operator wrote before the container started.
func nextQueue(current string, seenOpen bool, state, annotated string) (next string, open bool) {
	switch {
	case state == injected.LeaseStateClosing:
		return "", true
	case annotated != "":
		return annotated, true
	case seenOpen:
		return "", true
	default:
		return current, false
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }
