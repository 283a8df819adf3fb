package fence

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// DefaultInterval is how often the nonces are compared and changed. It is shorter than the leader's lease (15 s), which
// a copy's operator has to wait out before it looks: by then the nonce of the original has changed since the copy was
// taken.
const DefaultInterval = 10 * time.Second

// provenFor is for how many intervals a comparison counts.
const provenFor = 6

// Reasons of events on the identity ConfigMap and on QueueProviders.
const (
	// EventIdentityConflict surfaces when another cluster is found to claim the marker queue.
	EventIdentityConflict = "IdentityConflict"
	// EventIdentityClaimed surfaces when the marker was claimed after a human's word.
	EventIdentityClaimed = "IdentityClaimed"
	// EventMarkerLost surfaces when the marker queue, or its tag, was removed by someone else.
	EventMarkerLost = "MarkerLost"
)

// What can be wrong with a provider (Trouble).
const (
	// TroubleConflict is v1alpha1.ConditionIdentityConflict.
	TroubleConflict = v1alpha1.ConditionIdentityConflict
	// TroubleSweep is v1alpha1.ConditionSweepHeld.
	TroubleSweep = v1alpha1.ConditionSweepHeld
)

// Fence compares and changes the nonces of every provider in use, and says where queues may be deleted. It runs on the
// leader alone. The exported fields are set before it starts.
type Fence struct {
	// Client reads ConfigMaps from the API server, and writes.
	Client client.Client
	// Identity is the ConfigMap that pins the identity.
	Identity client.ObjectKey
	// ClusterUID is the UID of the kube-system namespace.
	ClusterUID string
	// Providers finds providers.
	Providers queue.Providers
	// InUse names the providers that objects of the cluster name.
	InUse    func(ctx context.Context) ([]string, error)
	Recorder events.EventRecorder
	Clock    clock.WithTicker
	// Interval between two comparisons; 0: DefaultInterval.
	Interval time.Duration
	// Watch is for how long a process that has no better proof watches a marker before it goes by it; 0: WatchFor(Interval).
	Watch time.Duration
	// Patience is how long to wait before the first, where no leader's lease has been waited out.
	Patience time.Duration
	// Unswept says that there are no sweeps: what those of an earlier leader told of is not gone on with.
	Unswept bool
	// Metrics counts what is found.
	Metrics *Metrics
	// Changed, if set, is told of each provider whose troubles changed. It must not block.
	Changed func(provider string)

	once  sync.Once
	store *store
	wake  chan struct{}
	// checking lets one comparison happen at a time.
	checking sync.Mutex
	leading  atomic.Bool

	mu     sync.Mutex
	states map[string]*state
	asked  map[string]bool
	// first are the nonces that the cluster knew when this process began, by provider; nil: it has not read them yet. stale are
	// the words that a marker is abandoned which were there then.
	first map[string][]string
	stale []string
}

// state is what is known of one provider's marker.
type state struct {
	// proven is when the nonces last agreed; zero: not yet.
	proven time.Time
	// conflict says what is wrong; empty: nothing.
	conflict string
	// held says that the process has found out that the marker is its cluster's. watching is since when SQS has answered
	// every look of it at one place, without a long pause, and until is when that has lasted for long enough, if it waits for that.
	held            bool
	watching, until time.Time
	// needs is for how long looks there have to be answered, and answered for how long they were, breaks left out.
	needs, answered time.Duration
	// looked is when the last look began, and place what it found. bare says that it found nothing of this cluster's there, or
	// another's nonce, and returned that a nonce has come back.
	looked         time.Time
	place          place
	bare, returned bool
	// changed is when this process noted another nonce last, or began, and written says that the marker took what was
	// noted.
	changed time.Time
	written bool
	// foreign is another cluster's nonce, and steady how many comparisons in a row have found it. elsewhere is the account,
	// another than the cluster's, that a marker which was made again turned out to be in.
	foreign   string
	steady    int
	elsewhere string
	silence   silence
	// failed is why the last comparison could not be made.
	failed error
	reach  reach
	// unknown is when somebody first asked in vain since it was last known; zero: nobody did.
	unknown time.Time
	// adoptFrom is v1alpha1.AnnotationAdoptFrom, and sweepFrom v1alpha1.AnnotationSweepFrom, at the last comparison.
	adoptFrom, sweepFrom string
}

var _ queue.Fence = (*Fence)(nil)

func (f *Fence) init() {
	f.once.Do(func() {
		f.store = &store{client: f.Client, key: f.Identity}
		f.wake = make(chan struct{}, 1)
		f.states, f.asked = map[string]*state{}, map[string]bool{}
		if f.Interval <= 0 {
			f.Interval = DefaultInterval
		}
		if f.Watch <= 0 {
			f.Watch = WatchFor(f.Interval)
		}
	})
}

// NeedLeaderElection makes the manager run it on the leader alone.
func (f *Fence) NeedLeaderElection() bool { return true }

// Start compares at once, then every interval, and when a deletion waits, until ctx ends.
func (f *Fence) Start(ctx context.Context) error {
	f.init()
	if f.Patience > 0 {
		if known, err := f.store.read(ctx); err == nil && len(known.entries) > 0 {
			f.inherit(known)
			if !f.sleep(ctx, f.Patience) {
				return nil
			}
		}
	}
	f.leading.Store(true)
	for {
		f.Round(ctx)
		timer := f.Clock.NewTimer(f.Interval)
		select {
		case <-ctx.Done():
		case <-timer.C():
		case <-f.wake:
			// A deletion waits; but when comparing fails, deletions that ask again and again must not set the pace.
			f.sleep(ctx, f.Interval/20)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (f *Fence) sleep(ctx context.Context, d time.Duration) bool {
	timer := f.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// Round compares the nonces of every provider that is in use, or was: a marker that stood still, or went, would be any
// copy's.
func (f *Fence) Round(ctx context.Context) {
	f.init()
	log := ctrl.LoggerFrom(ctx).WithName("fence")
	inUse, err := f.inUse(ctx)
	if err != nil {
		log.Error(err, "Could not find out which providers are in use")
		return
	}
	known, err := f.store.read(ctx)
	if err != nil {
		if ctx.Err() == nil {
			log.Error(err, "Could not compare the nonces of markers; queues are not deleted when this goes on")
		}
		return
	}
	all := maps.Clone(inUse)
	for name := range known.entries {
		all[name] = true
	}
	there := maps.Clone(all)
	for name := range inTurn(f, all) {
		provider, err := f.Providers.ForDeletion(ctx, name)
		if err == nil {
			err = f.Check(ctx, provider)
		}
		// A provider that there is not, or that cannot be reached, says so on the objects that name it.
		if errors.Is(err, queue.ErrProviderNotFound) || errors.Is(err, queue.ErrProviderInvalid) {
			delete(all, name)
			there[name] = !errors.Is(err, queue.ErrProviderNotFound)
		} else if err != nil && ctx.Err() == nil && queue.Classify(err) == queue.Transient {
			log.Info("Could not compare the nonce of a marker", "provider", name, "why", err.Error())
		}
	}
	f.unasked(ctx, all)
	f.Metrics.keep(there)
}

// inUse are the providers that objects name, and those where a deletion waits.
func (f *Fence) inUse(ctx context.Context) (map[string]bool, error) {
	names, err := f.InUse(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.asked
	f.asked = map[string]bool{}
	for _, name := range names {
		all[name] = true
	}
	return all, nil
}

// Check compares a provider's nonces, and changes them. It fails with *queue.Held on a conflict and while this process has
// not watched for long enough, and with SQS's or the API server's error when the comparison cannot be made. It costs two
// SQS requests, and one write to the ConfigMap.
//
// The new nonce is noted before it is written on the marker: a process that stops in between leaves a marker with a
// nonce that the cluster knows.
func (f *Fence) Check(ctx context.Context, provider *queue.Provider) error {
	f.init()
	err := f.compare(ctx, provider)
	f.reached(ctx, provider.Name, err)
	return err
}

func (f *Fence) compare(ctx context.Context, provider *queue.Provider) error {
	f.checking.Lock()
	defer f.checking.Unlock()
	err := f.check(ctx, provider)
	failed := err
	if held := (*queue.Held)(nil); errors.As(err, &held) {
		failed = nil // It was made.
	}
	f.mu.Lock()
	f.state(provider.Name).failed = failed
	f.mu.Unlock()
	return err
}

func (f *Fence) check(ctx context.Context, provider *queue.Provider) error {
	ctx = queue.Anyway(ctx)
	asked := f.Clock.Now()
	known, err := f.store.read(ctx)
	if err != nil {
		return err
	}
	f.begin(known)
	f.unsay(known)
	f.inherit(known)
	marker, tags, err := readMarker(ctx, provider)
	mine := known.entries[provider.Name]
	if err == nil && !marker.Exists && (mine.Account != "" || f.beside(provider, known, marker, tags) != "") {
		marker.Account, err = f.accountSeen(ctx, provider)
	}
	if err != nil {
		f.unseen(provider.Name, asked, err)
		return err
	}
	other := f.beside(provider, known, marker, tags)
	judge := func() Verdict {
		marker.Strange = known.strange(provider.Name, tags)
		pinned := f.pinned(provider.Name, known)
		pinned.Beside = other != ""
		return Judge(pinned, marker)
	}
	verdict := judge()
	if verdict == Conflict || verdict == Rival {
		// What an earlier leader noted and wrote meanwhile is no other cluster's.
		if known, err = f.store.read(ctx); err != nil {
			return err
		}
		f.unsay(known)
		mine, verdict = known.entries[provider.Name], judge()
	}
	f.Metrics.found(provider.Name, verdict)
	if !verdict.MayDelete() {
		f.learn(provider.Name, known, verdict, asked)
	}
	sure := f.watched(provider.Name, verdict, known, marker, asked)
	switch verdict {
	case Conflict, Rival, Abandoned, Elsewhere:
		return f.conflict(ctx, provider, known, verdict, marker, tags)
	case Beside:
		if _, err := f.Providers.ForDeletion(ctx, other); errors.Is(err, queue.ErrProviderNotFound) {
			// Nobody can find out about that one any more, so a human has to say whose the queues are.
			return f.conflict(ctx, provider, known, Abandoned, marker, tags)
		}
		return f.waitFor(ctx, provider.Name, other, known, asked)
	}
	if f.store.trouble(provider.Name, TroubleConflict, "") {
		f.changed(provider.Name)
	}
	// A queue is made by one request only, whoever asks for it at once, and has its first tags from that.
	if made := verdict == Unclaimed && !marker.Exists; !sure && !made {
		return f.wait(ctx, provider.Name, known, asked)
	}
	f.say(ctx, provider, known, verdict, marker)

	if f.changes(provider.Name, verdict, mine.Nonces, marker.Nonce) {
		mine.Nonces = Next(mine.Nonces, newNonce())
	}
	switch {
	case verdict.MayDelete():
		mine.Seen, mine.Account, mine.Place, mine.Returned = true, marker.Account, placeOf(provider), false
	case verdict == Given && marker.Nonce != "":
		mine.Seen, mine.Contested, mine.Returned = false, false, false
		mine.void(marker.Nonce)
		known.use(v1alpha1.AnnotationConfirmIdentity, marker.Nonce)
	case verdict == Given:
		mine.Seen, mine.Contested, mine.Returned = false, false, false
		if marker.Cluster == "" || marker.Cluster == f.ClusterUID {
			mine.Account = "" // Whoever says that it was abandoned says so of where the operator looks now.
			known.use(v1alpha1.AnnotationConfirmIdentity, abandoned(provider.Name))
		}
	}
	for tag, nonce := range known.rivals(provider.Name, tags) { // A human has spoken of them, or given the whole marker.
		mine.void(nonce)
		if !known.claims(tag) { // Else the word is for that provider to use.
			known.use(v1alpha1.AnnotationConfirmIdentity, nonce)
		}
	}
	mine.Rivals = nil
	known.entries[provider.Name] = mine
	if err := f.store.write(ctx, known); err != nil {
		return err
	}
	if verdict == Given {
		if err := f.clear(ctx, provider, tags); err != nil {
			return err
		}
	}
	nonceTag := nonceTag(provider.Name)
	err = provider.MarkIdentity(ctx, marker.Exists, map[string]string{
		v1alpha1.TagCluster: f.ClusterUID, v1alpha1.TagKind: v1alpha1.TagKindIdentity, nonceTag: mine.Nonces[0],
	})
	f.wrote(provider.Name, err == nil)
	if err != nil {
		return err // Whoever cannot change the nonce is told from no copy: what agreed proves nothing.
	}
	if verdict.MayDelete() {
		f.learn(provider.Name, known, verdict, asked)
	}
	if account := provider.AccountID(); !marker.Exists && mine.Account != "" && account != mine.Account {
		return f.elsewhere(ctx, provider, known, asked)
	}
	if verdict != Unclaimed {
		return nil
	}
	// Nobody else can have claimed it but at this moment: then one of the two reads the other's nonce.
	if tags, _, err = provider.IdentityTags(ctx); err == nil && tags[nonceTag] == mine.Nonces[0] && tags[v1alpha1.TagCluster] == f.ClusterUID {
		f.learn(provider.Name, known, Held, asked)
	}
	return nil // Not shown yet, or another's: the next comparison says which.
}

// learn takes in a comparison that was begun at the given time.
func (f *Fence) learn(provider string, known *identity, verdict Verdict, asked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state(provider)
	s.until = time.Time{}
	s.adoptFrom, s.sweepFrom = "", known.object.Annotations[v1alpha1.AnnotationSweepFrom]
	switch {
	case verdict.MayDelete():
		s.proven, s.held, s.conflict, s.foreign, s.elsewhere, s.unknown = asked, true, "", "", "", time.Time{}
		s.adoptFrom = known.object.Annotations[v1alpha1.AnnotationAdoptFrom]
	default:
		s.proven = time.Time{}
		if !slices.Contains([]Verdict{Conflict, Rival, Abandoned, Elsewhere, Beside}, verdict) {
			s.conflict, s.foreign = "", ""
		}
	}
}

// changes says whether another nonce is to be noted. It is with every comparison that finds the last. Where an earlier one
// is found, or none, the last is written again, and so that no copy taken meanwhile finds the one that it knows, it is
// another one after an interval; but never so that the marker's own would be forgotten, which may be shown late or be
// what a request under way writes.
func (f *Fence) changes(provider string, verdict Verdict, nonces []string, marked string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, now := f.state(provider), f.Clock.Now()
	if s.changed.IsZero() && (verdict == Behind || verdict == Lost) {
		s.changed = now
	}
	change := true
	switch verdict {
	case Behind:
		change = s.written && now.Sub(s.changed) >= f.Interval && slices.Index(nonces, marked) < nonceHistory-1
	case Lost:
		change = now.Sub(s.changed) >= f.Interval
	}
	if change {
		s.changed = now
	}
	return change
}

// wrote notes whether the marker took the nonce that was noted last.
func (f *Fence) wrote(provider string, taken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state(provider).written = taken
}

// heldHere says that this process has found out that the marker is its cluster's.
func (f *Fence) heldHere(provider string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(provider).held
}

// conflict says that the queues may be another cluster's, on everything that can say it. That another cluster has claimed
// the marker is kept until a human speaks: whatever becomes of the marker, the other may come back.
func (f *Fence) conflict(ctx context.Context, provider *queue.Provider, known *identity, verdict Verdict, marker Marker, tags map[string]string) error {
	if verdict == Elsewhere {
		f.takeBack(ctx, provider, known.entries[provider.Name], marker)
	}
	if verdict == Conflict && marker.Cluster != "" {
		mine := known.entries[provider.Name]
		mine.Contested, mine.Place = true, placeOf(provider)
		known.entries[provider.Name] = mine
	}
	if verdict == Conflict || verdict == Rival {
		known.remember(provider.Name, tags)
	}
	f.mu.Lock()
	s := f.state(provider.Name)
	if foreign := strings.Join(append([]string{marker.Nonce}, marker.Strange...), ","); s.foreign != foreign {
		s.foreign, s.steady = foreign, 0
	}
	s.steady++
	steady := s.steady
	f.mu.Unlock()
	if verdict == Abandoned && steady <= comparisonsOfAStopped {
		return f.MayDelete(provider.Name) // SQS may not show it for a moment.
	}
	return f.inConflict(ctx, provider.Name, known, f.explain(provider, known, verdict, marker, steady))
}

// inConflict tells of a conflict.
func (f *Fence) inConflict(ctx context.Context, provider string, known *identity, message string) error {
	f.mu.Lock()
	s := f.state(provider)
	news := s.conflict != message
	s.conflict = message
	f.mu.Unlock()
	if f.store.trouble(provider, TroubleConflict, message) {
		f.changed(provider)
	}
	if news {
		ctrl.LoggerFrom(ctx).WithName("fence").Info("The queues may be another cluster's; nothing is deleted", "provider", provider, "why", message)
		f.event(provider, known.object, corev1.EventTypeWarning, EventIdentityConflict, message)
	}
	if err := f.store.write(ctx, known); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
		return err
	}
	return f.MayDelete(provider)
}

func (f *Fence) state(provider string) *state {
	s := f.states[provider]
	if s == nil {
		s = &state{}
		f.states[provider] = s
	}
	return s
}
