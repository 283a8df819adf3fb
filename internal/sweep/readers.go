package sweep

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// reading is what sweeps have seen of those that may read a queue without a record.
type reading struct {
	// last is when there was one; zero: there never was.
	last time.Time
	// pod is the one of the queue's name whose Lease names other, the name of another queue, and renewal was its last renewal
	// when a sweep first saw that. left says that it renewed it since: the answer named the other queue, and it reads that.
	pod            types.UID
	other, renewal string
	left           bool
	// heard is the last renewal by a pod that has ended, as far as anybody reported.
	heard string
}

// read looks for a pod that may read a queue without a record, notes when there was one, and returns it; nil: there is none.
// unsure says that the queue may be kept for it in vain, for as long as its name lives.
//
// That is the pod that the queue was made for, and one of the same name that was told of it. A queue that belongs to a name
// may be read by any pod of that name: also by one that was told of another since, and has not heard of that yet. One that
// has ended reads nothing; but where nobody reported the end of its containers, its process may live, and heartbeat.
func (s *Sweeper) read(ctx context.Context, p *place, name string, tags map[string]string) (by *corev1.Pod, unsure bool, err error) {
	r := p.readers[name]
	key := types.NamespacedName{Namespace: tags[v1alpha1.TagPodNamespace], Name: tags[v1alpha1.TagPodName]}
	by, err = s.inCluster(ctx, key, func(pod *corev1.Pod) bool {
		unsure = false
		switch state := lifecycle.StateOf(pod); {
		case state == lifecycle.PodStopped, state == lifecycle.PodGone && !r.hears(p.covered.leases[pod.UID]):
			return false
		case lastSegment(pod.Annotations[v1alpha1.AnnotationReplyQueueURL]) == name:
			return true
		case tags[v1alpha1.TagIdentity] == string(v1alpha1.IdentityStable):
			unsure = true
			return !r.leaves(pod, name, p.covered)
		}
		return string(pod.UID) == tags[v1alpha1.TagPodUID]
	})
	if by != nil {
		r.last = s.Clock.Now()
	}
	return by, unsure && by != nil, err
}

// leaves says that a pod is known to read another queue, that of its record: its Lease names that, and was renewed since.
func (r *reading) leaves(pod *corev1.Pod, name string, covered *records) bool {
	lease := covered.leases[pod.UID]
	if lease == nil {
		return false
	}
	other := lastSegment(lease.Annotations[injected.LeaseReplyQueueURL])
	if other == "" || other == name || other != covered.reads[pod.UID] {
		r.pod = ""
		return false
	}
	renewal := heartbeat.RenewalOf(lease)
	if r.pod != pod.UID || r.other != other {
		r.pod, r.other, r.renewal, r.left = pod.UID, other, renewal, false
	}
	r.left = r.left || renewal != r.renewal
	return r.left
}

// hears says that a pod's Lease was renewed since it was last asked.
func (r *reading) hears(lease *coordinationv1.Lease) bool {
	if lease == nil {
		return false
	}
	before := r.heard
	r.heard = heartbeat.RenewalOf(lease)
	return r.heard != before
}

// keptFor says for whom a queue is kept of which nobody knows that it is read.
func keptFor(pod *corev1.Pod) error {
	return fmt.Errorf("no record stands for it, and the pod %s of its name may read it: it has renewed no Lease that names another", client.ObjectKeyFromObject(pod))
}
