// Package sweep deletes what no record covers: reply queues that a crash or a late request left behind, Leases of pods
// that are gone, and, where an administrator asks for it, abandoned queues of the Java client. It decides nothing by
// itself (lifecycle.Sweep does) and deletes nothing that the fence does not let it.
package sweep

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

const (
	// DefaultInterval is the mean time between two sweeps.
	DefaultInterval = 5 * time.Minute
	// DefaultGrace is for how long something is found without an owner before it is deleted. Nothing depends on it while
	// the API server tells the truth; it is the time a human has to stop a sweep when it does not.
	DefaultGrace = 15 * time.Minute
)

// Fence is what the sweeper asks of internal/fence.
type Fence interface {
	queue.Fence
	// Check proves that the provider's queues are this cluster's, or fails.
	Check(ctx context.Context, provider *queue.Provider) error
	// Known are the providers whose markers this cluster has claimed.
	Known(ctx context.Context) ([]string, error)
	// SweepsFrom is the UID of a cluster that is gone and whose reply queues are swept; empty: none.
	SweepsFrom(provider string) string
	// Report notes that sweeps of a provider are held (empty: no more), and whether that is news.
	Report(ctx context.Context, provider, what, message string) (news bool, err error)
	// Trouble is what was reported last, by this process or, where it has not reported yet, by the leader before.
	Trouble(provider, what string) string
	// Allowance is how many queues a human has let the next sweep delete, and UseAllowance takes it away.
	Allowance(ctx context.Context, provider string) (int, error)
	UseAllowance(ctx context.Context, provider string) error
}

// Sweeper sweeps every provider in use, one after the other, on the leader alone. The exported fields are set before it
// starts.
type Sweeper struct {
	// Client reads from the cache, and writes; Reader reads from the API server.
	Client client.Client
	Reader client.Reader
	// Providers finds providers, and InUse names those that objects of the cluster name.
	Providers queue.Providers
	InUse     func(ctx context.Context) ([]string, error)
	Fence     Fence
	// ClusterUID is the UID of the kube-system namespace.
	ClusterUID string
	Clock      clock.WithTicker
	// Interval between two sweeps, on the average, and Grace as in lifecycle.SweepTerms; 0: the defaults.
	Interval, Grace time.Duration
	// DryRun says what would be deleted, and deletes nothing.
	DryRun bool
	// Missing is told of each open record whose queue is gone. It may block.
	Missing func(ctx context.Context, record types.NamespacedName, uid types.UID)
	// Metrics counts what is found; nil: nothing is counted.
	Metrics *Metrics

	memory map[string]*memory
	leases lifecycle.Findings
}

// memory is what is remembered of one provider from sweep to sweep.
type memory struct {
	orphans, missing, foreign lifecycle.Findings
	// tags are those of reply queues without a record, as last read.
	tags map[string]map[string]string
	// readers are who may read those queues.
	readers map[string]*reading
	// owners are those of queues that no RequestChannel has.
	owners map[string]queue.Owner
	// said are the unclaimed request queues that were logged.
	said map[string]bool
	// obstacles are what sweeps could not look at, and ended how many sweeps came to telling of them.
	obstacles obstacles
	ended     int
	// judging is since when, and with how many sweeps, this process has looked at what a condition tells of.
	judging map[string]lifecycle.Finding
}

// NeedLeaderElection makes the manager run it on the leader alone.
func (s *Sweeper) NeedLeaderElection() bool { return true }

// Start sweeps until ctx ends, the first time after a part of the interval.
func (s *Sweeper) Start(ctx context.Context) error {
	s.setDefaults()
	wait := time.Duration(float64(s.Interval) * rand.Float64() / 4) //nolint:gosec // Jitter.
	for {
		if !s.sleep(ctx, wait) {
			return nil
		}
		log := ctrl.LoggerFrom(ctx).WithName("sweep")
		switch err := s.Pass(ctx); {
		case err == nil, ctx.Err() != nil:
		case queue.Classify(err) == queue.Unproven:
			log.Info("The sweep waits for the next turn", "why", err.Error())
		default:
			log.Error(err, "The sweep was not complete; the next one begins anew")
		}
		wait = time.Duration(float64(s.Interval) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // Jitter.
	}
}

func (s *Sweeper) setDefaults() {
	if s.Interval <= 0 {
		s.Interval = DefaultInterval
	}
	if s.Grace <= 0 {
		s.Grace = DefaultGrace
	}
	if s.memory == nil {
		s.memory = map[string]*memory{}
	}
}

func (s *Sweeper) sleep(ctx context.Context, d time.Duration) bool {
	timer := s.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// place is one provider in one sweep.
type place struct {
	*queue.Provider
	*memory
	// listed are the names of its queues that begin as ours do, and covered what was listed of records after them.
	listed  []string
	covered *records
}

// Pass sweeps once. It returns what kept a part of it from being done; the other parts are done all the same.
//
// The order is what makes it safe while reconcilers work: queues and Leases are listed first, records after them and
// from the API server. A record is written before its queue is created, and its UID never comes again: a queue that was
// listed, and has no record afterwards, will never have one. The other way round, every queue created between the two
// lists would look like an orphan.
//
// It costs, for each provider, the fence's two SQS requests, a ListQueues for each thousand queues, one ListQueueTags
// for each queue that is newly found without an owner, and three requests for each that is deleted. A reply queue that
// has a record costs nothing.
func (s *Sweeper) Pass(ctx context.Context) error {
	s.setDefaults()
	names, err := s.providerNames(ctx)
	if err != nil {
		return err
	}
	var problems []error
	var places []*place
	there := map[string]bool{}
	defer func() { s.Metrics.keep(there) }()
	for _, name := range names {
		p, err := s.listQueues(ctx, name)
		there[name] = !errors.Is(err, queue.ErrProviderNotFound)
		if err != nil {
			problems = append(problems, err)
			s.Metrics.pass(name, string(queue.Classify(err)))
			if errors.Is(err, queue.ErrProviderNotFound) {
				problems = append(problems, s.unsay(ctx, name))
			}
			if m := s.memory[name]; m != nil && ctx.Err() == nil {
				if queue.Classify(err) != queue.Fenced { // The fence says what it holds.
					_ = m.obstacles.meet("", err)
				}
				problems = append(problems, s.tell(ctx, name))
			}
			continue
		}
		places = append(places, p)
	}
	leases, err := s.listLeases(ctx)
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	covered, err := s.listRecords(ctx, leases)
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	for _, p := range places {
		p.covered = covered
		err := errors.Join(s.sweepQueues(ctx, p, covered), s.findMissing(ctx, p, covered), s.reportUnclaimed(ctx, p), s.sweepForeign(ctx, p))
		if ctx.Err() == nil {
			err = errors.Join(err, s.tell(ctx, p.Name))
		}
		s.Metrics.pass(p.Name, outcome(err))
		problems = append(problems, err)
	}
	// Leases are this cluster's own, whosever the queues are: in a copy, too, nobody can use one without pod and record.
	problems = append(problems, s.sweepLeases(ctx, leases, covered))
	return errors.Join(problems...)
}

func outcome(err error) string {
	if err == nil {
		return "OK"
	}
	return string(queue.Classify(err))
}

// providerNames are the providers in use, and those where this cluster has left a marker, and so perhaps more.
func (s *Sweeper) providerNames(ctx context.Context) ([]string, error) {
	inUse, err := s.InUse(ctx)
	if err != nil {
		return nil, err
	}
	known, err := s.Fence.Known(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, name := range append(inUse, known...) {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// listQueues proves whose the queues are, and lists all pages of them.
func (s *Sweeper) listQueues(ctx context.Context, name string) (*place, error) {
	provider, err := s.Providers.ForDeletion(ctx, name)
	if err != nil {
		return nil, err
	}
	if s.memory[name] == nil {
		s.memory[name] = &memory{said: map[string]bool{}, obstacles: obstacles{}, judging: map[string]lifecycle.Finding{}}
	}
	if err := s.patiently(ctx, func() error { return s.Fence.Check(ctx, provider) }); err != nil {
		return nil, err
	}
	p := &place{Provider: provider, memory: s.memory[name]}
	p.listed, err = s.listAll(ctx, provider, provider.OwnPrefix())
	return p, err
}

func (s *Sweeper) listAll(ctx context.Context, provider *queue.Provider, prefix string) ([]string, error) {
	var all []string
	for token := ""; ; {
		var names []string
		err := s.patiently(ctx, func() (err error) {
			names, token, err = provider.ListPage(ctx, prefix, token)
			return err
		})
		if err != nil {
			return nil, err
		}
		if all = append(all, names...); token == "" {
			return all, nil
		}
	}
}

// attempts is how often a request that has to wait for its turn is tried in one sweep. A sweep has time, but is not to
// hang while SQS throttles everything: the next one begins anew.
const attempts = 20

// patiently waits for a request's turn, where a reconciler would put its object back into the queue.
func (s *Sweeper) patiently(ctx context.Context, request func() error) error {
	var err error
	for range attempts {
		if err = request(); queue.Classify(err) != queue.Throttled {
			return err
		}
		after, ok := queue.RetryAfter(err)
		if !ok {
			return err
		}
		if !s.sleep(ctx, after) {
			return context.Cause(ctx)
		}
	}
	return err
}
