package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// resolveReplyQueue finds the pod's reply queue, has one recorded where there is none, and says whether the pod may
// start: true when it needs none, has one, or is silent and gets none until it is heard again.
func (s *podScope) resolveReplyQueue(ctx context.Context) (ready bool, err error) {
	if s.record, err = s.ownRecord(ctx); err != nil {
		return false, err
	}
	// A pod that has a reply queue keeps it, and its ReplyHost, whatever becomes of its annotations.
	name := s.pod.Annotations[v1alpha1.AnnotationReplyHost]
	if s.record != nil {
		name = s.record.Spec.HostRef.Name
	}
	if name == "" {
		return true, nil
	}
	host := &v1alpha1.ReplyHost{}
	switch err := s.Get(ctx, client.ObjectKey{Namespace: s.pod.Namespace, Name: name}, host); {
	case err == nil:
		s.host = host
	case !apierrors.IsNotFound(err):
		return false, err
	case s.record == nil && len(validation.IsDNS1123Label(name)) > 0:
		s.waitFor("annotation %s: %q is no name; it names one ReplyHost, since a pod has one reply queue", v1alpha1.AnnotationReplyHost, name)
		return false, nil
	case s.record == nil:
		s.waitFor("ReplyHost %s/%s does not exist", s.pod.Namespace, name)
		return false, nil
	}
	if s.record == nil && host.Spec.Identity == v1alpha1.IdentityStable {
		before := len(s.waiting)
		if s.record, err = s.stableRecord(ctx, host); err != nil || len(s.waiting) > before {
			return false, err
		}
	}
	if s.record == nil {
		return s.newRecord(ctx, host)
	}
	if s.record.Status.QueueURL == "" {
		// A record that is on its way says so only when something is in its way.
		if conditions.Is(s.record, v1alpha1.ConditionStalled, metav1.ConditionTrue) || inTheWay(conditions.Reason(s.record, v1alpha1.ConditionReady)) {
			s.waitFor("ReplyQueue %s%s", s.record.Name, because(s.record.Status.Conditions))
		}
		return false, nil
	}
	s.told.replyQueueURL = s.record.Status.QueueURL
	if terms := lifecycle.TermsOf(s.record, s.host); terms.Identity == v1alpha1.IdentityStable {
		kept := min(terms.IdleRetention, messagesKept(s.record))
		s.told.identity = &injected.Identity{Kind: injected.IdentityStable, RetentionSeconds: int32(kept.Seconds())}
	}
	return true, s.tellHostProvider(ctx)
}

// messagesKept is how long a record's queue keeps messages: what it was made with, whatever its ReplyHost says since.
func messagesKept(record *v1alpha1.ReplyQueue) time.Duration {
	seconds, err := strconv.Atoi(record.Spec.Attributes[queue.MessageRetentionPeriod])
	if err != nil {
		return awsMessageRetention
	}
	return time.Duration(seconds) * time.Second
}

// awsMessageRetention is a queue's MessageRetentionPeriod where nobody set one (CreateQueue, API reference).
const awsMessageRetention = 4 * 24 * time.Hour

// inTheWay says whether a reason why a record is not ready yet is worth a pod's event.
func inTheWay(reason string) bool {
	switch reason {
	case v1alpha1.ReasonThrottled, v1alpha1.ReasonSQSUnavailable, v1alpha1.ReasonWaitingForProvider:
		return true
	}
	return false
}

// ownRecord is the oldest record that the pod reads and that is not closed; nil when there is none.
func (s *podScope) ownRecord(ctx context.Context) (*v1alpha1.ReplyQueue, error) {
	var records v1alpha1.ReplyQueueList
	if err := s.List(ctx, &records, client.InNamespace(s.pod.Namespace), client.MatchingFields{indexReader: string(s.pod.UID)}); err != nil {
		return nil, err
	}
	return oldestOpen(records.Items), nil
}

func oldestOpen(records []v1alpha1.ReplyQueue) *v1alpha1.ReplyQueue {
	records = slices.DeleteFunc(records, func(q v1alpha1.ReplyQueue) bool { return !open(&q) })
	if len(records) == 0 {
		return nil
	}
	return ptr.To(slices.MinFunc(records, func(a, b v1alpha1.ReplyQueue) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(string(a.UID), string(b.UID))
	}))
}

// stableRecord is the record of the pod's name. One that another pod of that name read last is taken over once that
// pod is known to have stopped, or has been gone for the safe time; until then the pod keeps its gate.
func (s *podScope) stableRecord(ctx context.Context, host *v1alpha1.ReplyHost) (*v1alpha1.ReplyQueue, error) {
	if owner := metav1.GetControllerOf(s.pod); owner == nil || owner.Kind != "StatefulSet" {
		s.waitFor("ReplyHost %s/%s has identity Stable, which needs pods of a StatefulSet", host.Namespace, host.Name)
		return nil, nil
	}
	var records v1alpha1.ReplyQueueList
	if err := s.List(ctx, &records, client.InNamespace(s.pod.Namespace), client.MatchingFields{indexHost: host.Name}); err != nil {
		return nil, err
	}
	records.Items = slices.DeleteFunc(records.Items, func(q v1alpha1.ReplyQueue) bool {
		return q.Spec.PodRef.Name != s.pod.Name || q.Spec.Identity != v1alpha1.IdentityStable
	})
	record := oldestOpen(records.Items)
	if record == nil || readerOf(record) == s.pod.UID {
		return record, nil
	}
	record, err := s.takeable(ctx, record)
	if err != nil {
		return nil, err
	}
	now := s.Signals.Clock.Now()
	view := s.Signals.view(now)
	predecessor := s.Signals.Pods.See(readerOf(record), lifecycle.PodGone, lifecycle.Caller{}, view, now)
	wait := s.Signals.terms(record, host, now).SafeTime() - now.Sub(predecessor.Since)
	switch {
	case !view.Continuous:
		// What is known of the predecessor may be from before a gap.
		wait = lifecycle.ViewRecheck
	case predecessor.State == lifecycle.PodStopped:
		wait = 0
	}
	if wait > 0 {
		s.waitABit("the predecessor of this pod may still run, and reads the reply queue of its name")
		s.look(wait)
		return nil, nil
	}
	if err := deleteLease(ctx, s.Reader, s.Client, readerOf(record)); err != nil {
		return nil, err
	}
	before := record.DeepCopy()
	record.Status.PodUID = string(s.pod.UID)
	record.Status.State = v1alpha1.ReplyQueueActive
	record.Status.Counted = nil
	if err := s.Status().Patch(ctx, record, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return nil, err
	}
	// Not before: after a conflict it has to be known still that the predecessor ended.
	s.Signals.Heartbeats.Forget(readerOf(before))
	s.Signals.Pods.Forget(readerOf(before))
	return record, nil
}

// takeable asks the API server for what a takeover follows from: that the pod has its name now, so that the one that reads
// the record's queue is gone, and that the record is open and still that one's. It returns the record as it is there, and
// fails with a conflict where caches show something else.
func (s *podScope) takeable(ctx context.Context, cached *v1alpha1.ReplyQueue) (*v1alpha1.ReplyQueue, error) {
	behind := func(resource, name string) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: resource}, name, errors.New("the cache is behind"))
	}
	pod := &corev1.Pod{}
	switch err := s.Reader.Get(ctx, client.ObjectKeyFromObject(s.pod), pod); {
	case client.IgnoreNotFound(err) != nil:
		return nil, err
	case err != nil || pod.UID != s.pod.UID || pod.DeletionTimestamp != nil || ended(pod):
		return nil, behind("pods", s.pod.Name)
	}
	record := &v1alpha1.ReplyQueue{}
	switch err := s.Reader.Get(ctx, client.ObjectKeyFromObject(cached), record); {
	case client.IgnoreNotFound(err) != nil:
		return nil, err
	case err != nil || record.UID != cached.UID || !open(record) || readerOf(record) != readerOf(cached):
		return nil, behind("replyqueues", cached.Name)
	}
	return record, nil
}

// newRecord writes the record of a new reply queue. The queue itself follows: a record without a queue is safe, a
// queue without a record would be a leak.
func (s *podScope) newRecord(ctx context.Context, host *v1alpha1.ReplyHost) (ready bool, err error) {
	now := s.Signals.Clock.Now()
	woken := false
	if s.lease {
		if !s.Signals.Heartbeats.Listed() {
			// Whether this pod is silent is not known yet.
			s.look(ledgerRetry)
			return !gated(s.pod), nil
		}
		heard := s.Signals.Heartbeats.Hear(s.pod.UID, now)
		if heard.Lease && heard.Closing {
			if !heard.Woke {
				return true, nil
			}
			woken = true
		}
	}
	switch {
	case host.DeletionTimestamp != nil && !woken:
		s.waitFor("ReplyHost %s/%s is being deleted", host.Namespace, host.Name)
		return false, nil
	case !controllerutil.ContainsFinalizer(host, v1alpha1.FinalizerReplyHost):
		// Its own reconciler puts it there first, so that a deletion cannot overtake the record. Its update wakes us.
		return false, nil
	}
	if fits, err := s.hostFits(ctx, host); err != nil || !fits {
		return false, err
	}
	if host.Spec.MaxQueues != nil {
		// Most that wait see by the cache that there is no place, and need not wait for each other too.
		if full, err := s.fullBy(ctx, host, s.cachedRecords); err != nil || full {
			return false, err
		}
		// Pods that start together must not all see the one place that is left.
		place := s.place(host)
		place.Lock()
		defer place.Unlock()
		if full, err := s.full(ctx, host); err != nil || full {
			return false, err
		}
	}
	record, err := s.draftRecord(ctx, host)
	if err != nil || record == nil {
		return false, err
	}
	if err := s.Create(ctx, record); err != nil {
		return false, s.recordRefused(err)
	}
	// Its event wakes us; but a record that goes before the watch shows it, by force or with a restored backup, has none.
	s.look(createdRecheck)
	if woken {
		s.Recorder.Eventf(s.pod, record, corev1.EventTypeNormal, EventReplyQueueWoken, "Wake",
			"The application sends heartbeats again; reply queue %s is being created for it", record.Name)
	}
	return false, nil
}

// recordRefused tells the pod of a refusal that somebody has to mend, in the API server's words: a quota, or another policy of
// the cluster. Other errors are returned as they are.
func (s *podScope) recordRefused(err error) error {
	if !refusedByCluster(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return err
	}
	s.waitFor("the API server refuses the record of its reply queue: %s", err)
	s.look(refusedRetry)
	return nil
}

// refusedRetry is when a record is written again that the API server refused: nothing tells of a quota that is raised.
const refusedRetry = time.Minute

// createdRecheck is when a pod for which a record was written is looked at again in any case.
const createdRecheck = time.Minute

// full says that the ReplyHost's guard is reached: by the cache, or else by the API server, which knows the records
// that were written just now.
func (s *podScope) full(ctx context.Context, host *v1alpha1.ReplyHost) (bool, error) {
	if full, err := s.fullBy(ctx, host, s.cachedRecords); err != nil || full {
		return full, err
	}
	return s.fullBy(ctx, host, s.writtenRecords)
}

// recordsOf lists a ReplyHost's records.
type recordsOf func(ctx context.Context, host *v1alpha1.ReplyHost, into *v1alpha1.ReplyQueueList) error

// writtenRecords lists a ReplyHost's records as the API server has them.
func (s *podScope) writtenRecords(ctx context.Context, host *v1alpha1.ReplyHost, into *v1alpha1.ReplyQueueList) error {
	return s.Reader.List(ctx, into, client.InNamespace(host.Namespace), client.MatchingLabels{v1alpha1.LabelReplyHost: host.Name})
}

// cachedRecords lists a ReplyHost's records without copying them: they are only to be counted.
func (s *podScope) cachedRecords(ctx context.Context, host *v1alpha1.ReplyHost, into *v1alpha1.ReplyQueueList) error {
	return s.List(ctx, into, client.InNamespace(host.Namespace), client.MatchingFields{indexHost: host.Name}, client.UnsafeDisableDeepCopy)
}

// fullBy is full by one list, and tells the pod of the limit. It does not tell how many there are: that changes with every pod
// that goes, for each of those who wait.
func (s *podScope) fullBy(ctx context.Context, host *v1alpha1.ReplyHost, list recordsOf) (bool, error) {
	var records v1alpha1.ReplyQueueList
	if err := list(ctx, host, &records); err != nil {
		return false, err
	}
	n := int32(0)
	for i := range records.Items {
		if open(&records.Items[i]) {
			n++
		}
	}
	if n < *host.Spec.MaxQueues {
		return false, nil
	}
	s.waitFor("ReplyHost %s/%s has no place left: its spec.maxQueues is %d", host.Namespace, host.Name, *host.Spec.MaxQueues)
	return true, nil
}

// draftRecord is the record to write; nil when the API server holds an open one that the cache does not show yet.
func (s *podScope) draftRecord(ctx context.Context, host *v1alpha1.ReplyHost) (*v1alpha1.ReplyQueue, error) {
	var existing v1alpha1.ReplyQueueList
	if err := s.Reader.List(ctx, &existing, client.InNamespace(s.pod.Namespace), client.MatchingLabels{v1alpha1.LabelPodUID: string(s.pod.UID)}); err != nil {
		return nil, err
	}
	incarnation := 1
	for i := range existing.Items {
		if open(&existing.Items[i]) {
			s.look(staleRetry)
			return nil, nil
		}
		incarnation = max(incarnation, incarnationOf(existing.Items[i].Name)+1)
	}
	owner := string(s.pod.UID)
	if host.Spec.Identity == v1alpha1.IdentityStable {
		// The name's record may have been made for a predecessor, under its UID. Whoever makes one for the name calls it alike, so
		// that one that an earlier leader asks for late, for the predecessor, is refused.
		owner = string(host.UID) + "/" + s.pod.Name
		var ofHost v1alpha1.ReplyQueueList
		if err := s.Reader.List(ctx, &ofHost, client.InNamespace(s.pod.Namespace), client.MatchingLabels{v1alpha1.LabelReplyHost: host.Name}); err != nil {
			return nil, err
		}
		for i := range ofHost.Items {
			q := &ofHost.Items[i]
			if q.Spec.PodRef.Name != s.pod.Name {
				continue
			}
			if open(q) {
				s.look(staleRetry)
				return nil, nil
			}
			incarnation = max(incarnation, incarnationOf(q.Name)+1)
		}
	}
	terms := lifecycle.TermsOf(&v1alpha1.ReplyQueue{}, host)
	mode := v1alpha1.HeartbeatPod
	if s.lease {
		mode = v1alpha1.HeartbeatLease
	}
	identity := host.Spec.Identity
	if identity == "" {
		identity = v1alpha1.IdentityPod
	}
	return &v1alpha1.ReplyQueue{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:  s.pod.Namespace,
			Name:       recordName(s.pod.Name, owner, incarnation),
			Finalizers: []string{v1alpha1.FinalizerReplyQueue},
			Labels: map[string]string{
				v1alpha1.LabelPodUID:    string(s.pod.UID),
				v1alpha1.LabelReplyHost: host.Name,
				v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator,
			},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(host, v1alpha1.GroupVersion.WithKind("ReplyHost"))},
		},
		Spec: v1alpha1.ReplyQueueSpec{
			HostRef:                  v1alpha1.HostReference{Name: host.Name},
			PodRef:                   v1alpha1.PodReference{Name: s.pod.Name, UID: string(s.pod.UID)},
			Identity:                 identity,
			Heartbeat:                mode,
			ProviderRef:              v1alpha1.ProviderReference{Name: providerOf(host)},
			Attributes:               queue.ReplyQueueAttributes(host),
			Tags:                     host.Spec.Tags,
			HeartbeatIntervalSeconds: int32(terms.Interval.Seconds()),
			IdleRetentionSeconds:     int32(terms.IdleRetention.Seconds()),
			DrainSeconds:             ptr.To(int32(terms.Drain.Seconds())),
		},
	}, nil
}

func providerOf(host *v1alpha1.ReplyHost) string {
	if host.Spec.ProviderRef != nil {
		return host.Spec.ProviderRef.Name
	}
	return v1alpha1.DefaultProviderName
}

// recordName is the name of the nth record of a pod, or of a pod's name, of which owner is what tells it from all others. It
// is computed, so that two operators at once, or one with an old cache, cannot write two.
func recordName(pod, owner string, incarnation int) string {
	const kept = 200
	name := pod
	if len(name) > kept {
		name = strings.TrimRight(name[:kept], "-.")
	}
	sum := sha256.Sum256([]byte(owner))
	return fmt.Sprintf("%s-%s-%d", name, hex.EncodeToString(sum[:4]), incarnation)
}

func incarnationOf(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// hostFits reports whether a reply queue of the ReplyHost would be where the pod's channels are, before one is made for
// nothing. A provider that cannot be used is told by the record.
func (s *podScope) hostFits(ctx context.Context, host *v1alpha1.ReplyHost) (bool, error) {
	provider, err := s.Providers.Get(ctx, providerOf(host), host.Namespace)
	if err != nil {
		if _, ok := explainProvider(err); ok {
			err = nil
		}
		return err == nil, err
	}
	return s.fits(placeOf("ReplyHost "+client.ObjectKeyFromObject(host).String(), provider, "")), nil
}

// tellHostProvider tells the pod where its reply queue is, for all its queues. One that is elsewhere than its channels is
// told only to a pod that was told of a reply queue before.
func (s *podScope) tellHostProvider(ctx context.Context) error {
	provider, err := s.Providers.Get(ctx, s.record.Spec.ProviderRef.Name, s.pod.Namespace)
	if err != nil {
		if said, ok := explainProvider(err); ok {
			s.waitFor("ReplyHost %s/%s: %s", s.pod.Namespace, s.record.Spec.HostRef.Name, said)
			return nil
		}
		return err
	}
	of := fmt.Sprintf("ReplyHost %s/%s", s.pod.Namespace, s.record.Spec.HostRef.Name)
	if !s.fits(placeOf(of, provider, s.told.replyQueueURL)) && s.pod.Annotations[v1alpha1.AnnotationReplyQueueURL] == "" {
		s.told.replyQueueURL, s.told.identity = "", nil
		return nil
	}
	s.told.region, s.told.endpoint = provider.Region, provider.Endpoint
	return nil
}
