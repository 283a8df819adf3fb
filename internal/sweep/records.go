package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// objectsAtOnce bounds what a page of the API server's answer holds. All pages show one moment.
const objectsAtOnce = 500

// records is what all ReplyQueues cover.
type records struct {
	// uids are those of records, and readers those of the pods that read their queues.
	uids, readers map[types.UID]bool
	// reads are the names of the queues that pods read, by the open records, and leases those with which they heartbeat; both by
	// the pods' UIDs.
	reads  map[types.UID]string
	leases map[types.UID]*coordinationv1.Lease
	// open are the records whose queue was created and is not closed, by provider. One that is to be deleted is open as long
	// as its pod needs it.
	open map[string][]openRecord
}

type openRecord struct {
	types.NamespacedName
	uid types.UID
	url string
}

// listRecords reads every record from the API server: a cache may not show yet what was written before its queue was
// listed.
func (s *Sweeper) listRecords(ctx context.Context, leases []coordinationv1.Lease) (*records, error) {
	all := &records{
		uids: map[types.UID]bool{}, readers: map[types.UID]bool{}, reads: map[types.UID]string{}, open: map[string][]openRecord{},
		leases: make(map[types.UID]*coordinationv1.Lease, len(leases)),
	}
	for i := range leases {
		all.leases[types.UID(leases[i].Name)] = &leases[i]
	}
	for token := ""; ; {
		var page v1alpha1.ReplyQueueList
		if err := s.Reader.List(ctx, &page, client.Limit(objectsAtOnce), client.Continue(token)); err != nil {
			return nil, fmt.Errorf("list ReplyQueues: %w", err)
		}
		for i := range page.Items {
			r := &page.Items[i]
			all.uids[r.UID] = true
			all.readers[types.UID(cmp.Or(r.Status.PodUID, r.Spec.PodRef.UID))] = true
			if r.Status.Closing == nil && r.Status.QueueURL != "" {
				provider := r.Spec.ProviderRef.Name
				all.open[provider] = append(all.open[provider], openRecord{client.ObjectKeyFromObject(r), r.UID, r.Status.QueueURL})
				all.reads[types.UID(cmp.Or(r.Status.PodUID, r.Spec.PodRef.UID))] = lastSegment(r.Status.QueueURL)
			}
		}
		if token = page.Continue; token == "" {
			return all, nil
		}
	}
}

// recorded asks the API server for the record that a queue's tags name.
func (s *Sweeper) recorded(ctx context.Context, p *place, name string, tags map[string]string) (bool, error) {
	key := types.NamespacedName{Namespace: tags[v1alpha1.TagNamespace], Name: tags[v1alpha1.TagName]}
	if key.Namespace == "" || key.Name == "" {
		return false, nil
	}
	record := &v1alpha1.ReplyQueue{}
	if err := s.Reader.Get(ctx, key, record); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return p.ReplyQueueName(record.UID) == name, nil
}

// inCluster is the pod of that name, if it is the one that is meant, first asked for in the cache; nil: there is none.
func (s *Sweeper) inCluster(ctx context.Context, key types.NamespacedName, is func(*corev1.Pod) bool) (*corev1.Pod, error) {
	if key.Namespace == "" || key.Name == "" {
		return nil, nil
	}
	for _, from := range []client.Reader{s.Client, s.Reader} {
		pod := &corev1.Pod{}
		switch err := from.Get(ctx, key, pod); {
		case err == nil && is(pod):
			return pod, nil
		case client.IgnoreNotFound(err) != nil:
			return nil, err
		}
	}
	return nil, nil
}

// listLeases lists the heartbeat Leases that the operator wrote.
func (s *Sweeper) listLeases(ctx context.Context) ([]coordinationv1.Lease, error) {
	var all []coordinationv1.Lease
	for token := ""; ; {
		var page coordinationv1.LeaseList
		err := s.Reader.List(ctx, &page, client.InNamespace(v1alpha1.HeartbeatNamespace), client.Limit(objectsAtOnce), client.Continue(token),
			client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator})
		if err != nil {
			return nil, fmt.Errorf("list Leases: %w", err)
		}
		for i := range page.Items {
			// Of the operator's own Lease, the beacon, no pod is the owner.
			if page.Items[i].Labels[v1alpha1.LabelPodUID] == page.Items[i].Name {
				all = append(all, page.Items[i])
			}
		}
		if token = page.Continue; token == "" {
			return all, nil
		}
	}
}

// sweepLeases deletes the Leases of pods that are gone and have no record. One that is renewed meanwhile stays: its
// version differs.
func (s *Sweeper) sweepLeases(ctx context.Context, leases []coordinationv1.Lease, covered *records) error {
	found := map[string]*coordinationv1.Lease{}
	var keys []string
	var problems []error
	for i := range leases {
		lease := &leases[i]
		if covered.readers[types.UID(lease.Name)] {
			continue
		}
		pod := types.NamespacedName{Namespace: lease.Labels[v1alpha1.LabelPodNamespace], Name: lease.Annotations[heartbeat.AnnotationPodName]}
		if odd := oddName(pod); odd != nil {
			problems = append(problems, fmt.Errorf("the Lease %s is kept: its pod %w", lease.Name, odd))
			continue
		}
		lives, err := s.inCluster(ctx, pod, func(p *corev1.Pod) bool { return string(p.UID) == lease.Name })
		if err != nil {
			return errors.Join(append(problems, fmt.Errorf("get pod %s: %w", pod, err))...)
		}
		if lives == nil {
			found[lease.Name], keys = lease, append(keys, lease.Name)
		}
	}
	log := ctrl.LoggerFrom(ctx).WithName("sweep")
	for _, f := range s.leases.See(keys, s.Clock.Now()) {
		if !s.ripe(f) {
			continue
		}
		lease := found[f.Key]
		if s.DryRun {
			log.Info("Would delete a Lease without pod and record (dry run)", "lease", lease.Name, "namespace", lease.Labels[v1alpha1.LabelPodNamespace])
			continue
		}
		err := s.Client.Delete(ctx, lease, client.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
			continue
		case err != nil:
			problems = append(problems, fmt.Errorf("delete Lease %s: %w", lease.Name, err))
			continue
		}
		log.Info("Deleted a Lease without pod and record", "lease", lease.Name, "namespace", lease.Labels[v1alpha1.LabelPodNamespace])
		s.Metrics.deleted("", kindLease)
	}
	return errors.Join(problems...)
}
