package fence

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// A copy of a cluster holds every object of its original, and so the nonces that it knew. What it does not hold is a process
// of the original. So each process finds out by itself whether its cluster is the one that holds a marker, before it writes
// there or deletes a queue, in one of two ways:
//
//   - It sees a nonce on the marker that was noted in its own cluster since it began. Only a process of its own cluster that
//     had found out before can have put it there. This is how a standby learns it from the leader whose place it may take.
//   - It watches the marker for a time in which an original would have shown itself, and sees no nonce that its cluster does
//     not know. One that goes and comes back, or that an earlier one replaces, was written by a request that is late, and what an
//     original wrote meanwhile may have been under it. Who sees that watches for longer, by how few nonces it knows that were noted
//     after that one: an original knows more than any copy of it, and goes first. It says so in its cluster, so that a copy which
//     is taken meanwhile does not go before it.
const (
	// propagation is for how long SQS may answer with a queue's tags as they were ("Changes made to tags can take up to 60
	// seconds to propagate", as of queue attributes).
	propagation = time.Minute
	// recovery is how many intervals an original may need from the moment that a copy shows until it has changed the nonce:
	// one until that is due, and the 17 s in which a standby takes the place of a leader that dies in that moment.
	recovery = 4
)

// WatchFor is for how long a process that has no better proof watches a marker, where nonces change every interval.
func WatchFor(interval time.Duration) time.Duration { return propagation + recovery*interval }

// headStart is by how much an original goes first, for each nonce that it noted since it was copied, where both see one come back:
// SQS may show that to the original so much later, and what it then writes so much later to the copy, and each looks once an interval.
func headStart(watch time.Duration) time.Duration { return 2 * watch }

// Standby watches the markers while another process leads, and reads only. It costs one SQS request an interval for each
// provider, until it has seen the leader change the nonce.
type Standby struct{ Fence *Fence }

// NeedLeaderElection makes the manager run it in every process.
func (Standby) NeedLeaderElection() bool { return false }

// Start looks at once and then every interval, until this process leads or ctx ends.
func (s Standby) Start(ctx context.Context) error {
	f := s.Fence
	f.init()
	for !f.leading.Load() {
		f.Look(ctx)
		if !f.sleep(ctx, f.Interval) {
			return nil
		}
	}
	return nil
}

// Look looks once at each marker that this cluster has claimed, unless this process knows already that it is the cluster's.
// What it finds wrong is the leader's to say.
func (f *Fence) Look(ctx context.Context) {
	f.init()
	known, err := f.store.read(ctx)
	if err != nil {
		return // The leader says so.
	}
	f.begin(known)
	f.unsay(known)
	for name := range inTurn(f, known.entries) {
		if f.heldHere(name) {
			continue
		}
		if provider, err := f.Providers.ForDeletion(ctx, name); err == nil {
			f.look(ctx, provider)
		}
	}
}

// look reads the marker first and then what the cluster knows, in which the leader notes a nonce before it writes it.
func (f *Fence) look(ctx context.Context, provider *queue.Provider) {
	ctx = queue.Anyway(ctx)
	f.checking.Lock()
	defer f.checking.Unlock()
	asked := f.Clock.Now()
	marker, tags, err := readMarker(ctx, provider)
	if err != nil {
		f.unseen(provider.Name, asked, err)
		return
	}
	known, err := f.store.read(ctx)
	if err != nil {
		return
	}
	if !marker.Exists && known.entries[provider.Name].Account != "" {
		if marker.Account, err = f.accountSeen(ctx, provider); err != nil {
			f.unseen(provider.Name, asked, err)
			return
		}
	}
	marker.Strange = known.strange(provider.Name, tags)
	f.watched(provider.Name, Judge(f.pinned(provider.Name, known), marker), known, marker, asked)
}

// begin keeps the nonces that the cluster knew when this process began.
func (f *Fence) begin(known *identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first != nil {
		return
	}
	f.first = map[string][]string{}
	for name, e := range known.entries {
		f.first[name] = e.Nonces
	}
	f.stale = slices.DeleteFunc(known.annotated(v1alpha1.AnnotationConfirmIdentity), func(word string) bool { return !saysAbandoned(word) })
}

// unsay takes the words out of what was read that a marker is abandoned and that were there when this process began: it may be a
// copy's, taken before its original used them. Who said so in the original is asked once more where its process ended just
// then. What has been taken off can be said again.
func (f *Fence) unsay(known *identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := known.annotated(v1alpha1.AnnotationConfirmIdentity)
	f.stale = slices.DeleteFunc(f.stale, func(word string) bool { return !slices.Contains(said, word) })
	for _, word := range f.stale {
		known.use(v1alpha1.AnnotationConfirmIdentity, word)
	}
}

// watched takes in a look, begun at the given time, and says whether this process may go by it. Whoever looked into another
// account, saw no marker, or another nonce, or none, or did not look for a while, has not watched this one. Of a watch that lasts
// longer than f.Watch, the end must be without a break; of the rest, what SQS answered counts.
func (f *Fence) watched(provider string, verdict Verdict, known *identity, m Marker, asked time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, mine, now := f.state(provider), known.entries[provider], place{marked: m.Exists, account: m.Account}
	age, before := slices.Index(mine.Nonces, m.Nonce), slices.Index(mine.Nonces, s.place.nonce)
	if age >= 0 {
		now.nonce = m.Nonce
		s.returned = s.returned || s.bare || before >= 0 && before < age
	}
	switch {
	case s.place != now:
		s.watching, s.answered = asked, 0
	case s.watching.IsZero() || asked.Sub(s.looked) > provenFor*f.Interval:
		s.watching = asked
	default:
		s.answered += asked.Sub(s.looked)
	}
	s.place, s.looked, s.silence = now, asked, silence{}
	s.bare = verdict == Conflict || verdict == Abandoned && m.Account != "" // Else it may have looked into another account.
	s.needs = f.Watch
	if (s.returned || mine.Returned) && verdict.MayDelete() {
		s.needs += time.Duration(nonceHistory-age) * headStart(f.Watch)
		if !s.returned {
			s.needs += headStart(f.Watch) // It may be of a copy that was taken while a process of the original watched.
		}
	}
	watched := asked.Sub(s.watching) >= f.Watch && s.answered >= s.needs
	if verdict.MayDelete() && (watched || !slices.Contains(f.first[provider], m.Nonce)) {
		s.held = true
	}
	return watched || s.held
}

// place is where a look went, whether a marker was there, and which nonce that this cluster knows it bore; empty: none.
type place struct {
	marked         bool
	account, nonce string
}

// unseen breaks the watch: while SQS answers this process badly, it may keep the original from changing the nonce.
func (f *Fence) unseen(provider string, asked time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state(provider)
	s.watching = time.Time{}
	if queue.Unanswered(err) {
		s.silence = s.silence.after(asked)
	} else {
		s.silence = silence{}
	}
}

// waitFor is for a claim on a marker that another provider has claimed: it waits until this process has found out whose that is.
func (f *Fence) waitFor(ctx context.Context, provider, other string, known *identity, asked time.Time) error {
	f.mu.Lock()
	conflict, s := f.state(other).conflict, f.state(provider)
	if conflict == "" {
		s.conflict, s.until = "", asked.Add(f.Interval)
	}
	f.mu.Unlock()
	if conflict != "" {
		return f.inConflict(ctx, provider, known, fmt.Sprintf("the queues are those of provider %s too: %s", other, conflict))
	}
	if f.store.trouble(provider, TroubleConflict, "") {
		f.changed(provider)
	}
	if err := f.store.write(ctx, known); err != nil {
		return err
	}
	return f.MayDelete(provider)
}

// wait is for a look by which this process may not go yet: nothing is written in SQS, and nothing deleted.
func (f *Fence) wait(ctx context.Context, provider string, known *identity, asked time.Time) error {
	f.learn(provider, known, "", asked)
	f.mu.Lock()
	s, mine := f.state(provider), known.entries[provider]
	s.until = asked.Add(max(f.Watch-asked.Sub(s.watching), s.needs-s.answered))
	if s.returned && !mine.Returned {
		mine.Returned = true
		known.entries[provider] = mine
	}
	f.mu.Unlock()
	if err := f.store.write(ctx, known); err != nil { // what is wrong no more
		return err
	}
	return f.MayDelete(provider)
}
