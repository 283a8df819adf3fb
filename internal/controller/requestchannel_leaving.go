package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds what a deletion waits for before it believes SQS that there is nothing: no queue, or no message.

const (
	// emptyRetry is when to count again the messages that a deletion waits for.
	emptyRetry = 30 * time.Second
	// emptyFor is for how long every count must have been zero. SQS's counts are approximate, and settle at the earliest a
	// minute after the last message was sent (GetQueueAttributes, API reference).
	emptyFor = 3 * time.Minute
	// emptyGap is the longest time between two counts that are consecutive.
	emptyGap = 2 * emptyRetry
	// heldAfter is how often it is told that a deletion still waits for messages.
	heldAfter = 24 * time.Hour
)

// leaving is what the process remembers of the deletion of a channel. After a restart it begins anew, which only takes
// longer.
type leaving struct {
	// zeros are the consecutive counts of zero of each queue of which the last was.
	zeros map[string]zeros
	// warned is when it was last told what holds the deletion.
	warned time.Time
	// unavailable is when SQS began to fail.
	unavailable time.Time
	// secretFailed is when the API server first failed to delete the binding's Secret.
	secretFailed time.Time
	// told are the reasons of which it was told already that they hold the deletion.
	told []string
	// left are queues of which it was told that they are left as they are.
	left []string
}

// zeros are consecutive counts of no message: when the first was, and the last.
type zeros struct{ since, last time.Time }

// meet notes when this process first saw the channel.
func (s *scope) meet() {
	s.memory(func(v *visit) {
		if v.since.IsZero() {
			v.since = s.reconciler.now()
			v.inherited = controllerutil.ContainsFinalizer(s.channel, v1alpha1.FinalizerRequestChannel)
			if v.inherited {
				v.mayHaveTaken = s.mayHaveTaken(v.since)
				v.blind = s.blindAt(v.since)
			}
		}
	})
	r, name := s.reconciler, client.ObjectKeyFromObject(s.channel)
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, known := r.named[name]; known && before != s.channel.UID {
		delete(r.visited, before)
	}
	if r.named == nil {
		r.named = map[types.NamespacedName]types.UID{}
	}
	r.named[name] = s.channel.UID
}

// creates notes that a queue is about to be created.
func (s *scope) creates(name string) {
	s.memory(func(v *visit) {
		v.created = maps.Clone(v.created)
		if v.created == nil {
			v.created = map[string]time.Time{}
		}
		v.created[name] = s.reconciler.now()
		v.sent = maps.Clone(v.sent)
		delete(v.sent, name)
	})
}

// finds notes that a queue was met that is the channel's, and that the status did not know.
func (s *scope) finds(name string) {
	s.memory(func(v *visit) {
		v.found = maps.Clone(v.found)
		if v.found == nil {
			v.found = map[string]time.Time{}
		}
		v.found[name] = s.reconciler.now()
	})
}

// foundLately reports whether that was so short a time ago that SQS may have shown a queue that was deleted already.
func (s *scope) foundLately(name string) (lately bool) {
	s.memory(func(v *visit) {
		at, found := v.found[name]
		lately = found && s.reconciler.now().Sub(at) < 2*propagation
	})
	return lately
}

// deleted notes that a queue is gone, and no sight of it is to be waited for.
func (s *scope) deleted(name string) {
	s.memory(func(v *visit) {
		v.created = maps.Clone(v.created)
		delete(v.created, name)
	})
}

// mayAppear reports whether a queue that SQS does not show may have been created so lately that it will: by this
// process, or by another before this one saw the channel. url is where the status says that the queue is, if it says so: what
// another process made, and noted, is older than its note.
func (s *scope) mayAppear(name, url string) bool {
	now := s.reconciler.now()
	may := false
	s.memory(func(v *visit) {
		another := v.inherited && now.Sub(v.since) < propagation
		noted := url != "" && !s.reconciler.lately(s) && !s.reconciler.saidMissing(s, name)
		may = now.Sub(v.created[name]) < propagation || (another && !noted)
	})
	return may
}

// memory has do read or change what the process remembers of the channel.
func (s *scope) memory(do func(*visit)) {
	s.reconciler.mu.Lock()
	defer s.reconciler.mu.Unlock()
	v := s.reconciler.visited[s.channel.UID]
	do(&v)
	s.reconciler.remember(s.channel.UID, v)
}

// leaves tells once that a queue is left behind, and why.
func (r *RequestChannelReconciler) leaves(s *scope, name, format string, args ...any) {
	if s.leavesBehind(name) {
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeNormal, EventQueueLeft, "Delete", format, args...)
	}
}

// leavesBehind notes that a queue is left in SQS, and reports whether that is news.
func (s *scope) leavesBehind(name string) (news bool) {
	s.memory(func(v *visit) {
		if news = !slices.Contains(v.leaving.left, name); news {
			v.leaving.left = append(slices.Clip(v.leaving.left), name)
		}
	})
	return news
}

// counted notes whether a queue held no message, and returns for how long it has held none, by every count.
func (s *scope) counted(name string, none bool) (empty time.Duration) {
	now := s.reconciler.now()
	s.memory(func(v *visit) {
		all := maps.Clone(v.leaving.zeros)
		if all == nil {
			all = map[string]zeros{}
		}
		z, before := all[name]
		if !before || now.Sub(z.last) > emptyGap {
			z.since = now
		}
		z.last = now
		all[name] = z
		if !none {
			delete(all, name)
		}
		v.leaving.zeros = all
		empty = now.Sub(z.since)
	})
	if !none {
		return 0
	}
	return empty
}

// emptied waits until the queues have held no message for a while, by every count, and returns those that have, and those that are left behind
// whatever they hold, of which no count is asked. What is never received expires with the message retention, so the wait ends unless somebody
// goes on sending; in a namespace that is being deleted, it ends then too, by giving the queues up.
func (r *RequestChannelReconciler) emptied(ctx context.Context, s *scope, endings []ending) (empty []ending, waits error) {
	within, kept := emptyFor, emptyFor
	held, holds := "", ""
	since := map[string]time.Duration{}
	for _, e := range endings {
		if slices.Contains(s.givesUp, e.name) {
			empty = append(empty, e)
			continue
		}
		attributes, err := s.provider.Attributes(ctx, e.url)
		if queue.Classify(err) == queue.NotFound {
			since[e.name] = s.counted(e.name, true)
			continue
		}
		if err != nil {
			if s.counted(e.name, false); waits == nil {
				waits = err
			}
			continue
		}
		none := queue.Empty(attributes)
		if !none && held == "" {
			held, holds = e.name, holdsOf(attributes)
		}
		since[e.name] = s.counted(e.name, none)
		// A message that expires in the dead-letter queue may have waited in the other first.
		kept += seconds(attributes[queue.MessageRetentionPeriod])
		// A message that was sent while the counts were stale shows again, at the latest, when it is delivered.
		within = max(within, seconds(attributes[queue.DelaySeconds])+propagation)
	}
	for _, e := range endings {
		if since[e.name] >= within {
			empty = append(empty, e)
		}
	}
	switch {
	case waits != nil:
		return empty, waits
	case held != "":
		return empty, r.held(ctx, s, held, holds, kept)
	case len(empty) == len(endings):
		return empty, nil
	}
	return empty, waiting(emptyRetry, v1alpha1.ReasonDeleting,
		"no message is counted; SQS's counts are approximate, so that deletionPolicy DeleteIfEmpty deletes once every count in %s was zero", within)
}

// holdsOf says what a queue holds that is not known to be empty.
func holdsOf(attributes map[string]string) string {
	if n := queue.CountsIn(attributes).Total(); n > 0 {
		return fmt.Sprintf("about %d messages", n)
	}
	return "an unknown number of messages, of which SQS does not tell every count"
}

// held is the wait for a queue with messages. Once the namespace has been being deleted for as long as messages are kept,
// none is left that was there when its deletion was asked for; whoever sends to the queue since does not hold the namespace.
func (r *RequestChannelReconciler) held(ctx context.Context, s *scope, name, holds string, kept time.Duration) error {
	going, err := r.namespaceGoes(ctx, s)
	if err != nil {
		return err
	}
	atMost := ""
	if going != nil {
		until := going.Add(kept)
		if !r.now().Before(until) {
			s.givesUp = []string{s.provider.ChannelQueueName(s.channel), s.provider.DeadLetterQueue(s.channel, "").Name}
			s.abandons = map[string]string{name: fmt.Sprintf("Queue %s is left in SQS, without ownership tags, with %s: its namespace has been being deleted for longer than it keeps any message, and somebody goes on sending", name, holds)}
			return nil
		}
		atMost = fmt.Sprintf(", until %s at the latest: the namespace is being deleted, and what was sent before is gone then", until.UTC().Format(time.RFC3339))
	}
	r.warnHeld(s, fmt.Sprintf("queue %s to be empty", name), "Stop who sends to it")
	return waiting(emptyRetry, v1alpha1.ReasonQueueNotEmpty, "queue %s holds %s, and deletionPolicy DeleteIfEmpty waits for them to go%s", name, holds, atMost)
}

// namespaceGoes is when the deletion of the channel's namespace was asked for; nil: it was not.
func (r *RequestChannelReconciler) namespaceGoes(ctx context.Context, s *scope) (*metav1.Time, error) {
	var namespace corev1.Namespace
	if err := r.Client.Get(ctx, client.ObjectKey{Name: s.channel.Namespace}, &namespace); client.IgnoreNotFound(err) != nil {
		return nil, ofCluster(fmt.Errorf("get namespace %s: %w", s.channel.Namespace, err))
	}
	return namespace.DeletionTimestamp, nil
}

// longestKept is the longest that SQS keeps a message (MessageRetentionPeriod, API reference), and what a queue that cannot be looked at counts for.
const longestKept = 14 * 24 * time.Hour

// outlasted reports whether the namespace has been being deleted for longer than the channel's queues keep any message.
func (r *RequestChannelReconciler) outlasted(ctx context.Context, s *scope) (bool, error) {
	going, err := r.namespaceGoes(ctx, s)
	if err != nil || going == nil {
		return false, err
	}
	kept := emptyFor
	for _, name := range []string{s.provider.ChannelQueueName(s.channel), s.provider.DeadLetterQueue(s.channel, "").Name} {
		observed, err := s.provider.Observe(ctx, name)
		if err != nil {
			kept += longestKept
			continue
		}
		kept += seconds(observed.Attributes[queue.MessageRetentionPeriod])
	}
	return !r.now().Before(going.Add(kept)), nil
}

// seconds is a duration as SQS's attributes give it; 0 where it is none.
func seconds(value string) time.Duration {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// isNews reports whether a reason is to be told by an event. While messages come and go, a deletion waits now for those, and now for
// counts to be believed: each is told once, and then day by day (warnHeld).
func (s *scope) isNews(reason string) (news bool) {
	if s.channel.DeletionTimestamp.IsZero() || (reason != v1alpha1.ReasonQueueNotEmpty && reason != v1alpha1.ReasonDeleting) {
		return true
	}
	s.memory(func(v *visit) {
		if news = !slices.Contains(v.leaving.told, reason); news {
			v.leaving.told = append(slices.Clip(v.leaving.told), reason)
		}
	})
	return news
}

// warnHeld tells each day what the deletion waits for, and how that may be brought about.
func (r *RequestChannelReconciler) warnHeld(s *scope, what, how string) {
	now, due := r.now(), false
	s.memory(func(v *visit) {
		last := v.leaving.warned
		if last.IsZero() {
			last = now
			v.leaving.warned = now
		}
		if due = now.Sub(last) >= heldAfter; due {
			v.leaving.warned = now
		}
	})
	if due {
		r.Recorder.Eventf(s.channel, nil, corev1.EventTypeWarning, EventDeletionHeld, "Delete",
			"The deletion has waited for another day for %s, and so has the namespace if it is being deleted. %s, set another deletionPolicy, or annotate the channel with %s=true, which leaves the queue behind",
			what, how, v1alpha1.AnnotationForceDelete)
	}
}
