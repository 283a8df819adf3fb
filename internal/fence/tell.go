package fence

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// What people are told: on the identity ConfigMap, on QueueProviders and in events.

// explain says what is wrong, and what a human can do.
func (f *Fence) explain(provider *queue.Provider, known *identity, verdict Verdict, marker Marker, steady int) string {
	mine := known.entries[provider.Name]
	if verdict == Elsewhere {
		provider.ForgetAccount() // The credentials may become right again.
		here := ""
		if marker.Exists {
			here = fmt.Sprintf("delete queue %s there and then ", provider.IdentityQueueName())
		}
		return fmt.Sprintf("the operator's credentials are those of account %s, and the queues of this cluster are in account %s. Nothing is deleted, and no record given up. Give it the credentials of account %s; or, if this cluster is to go on in account %s, %sannotate ConfigMap %s with %s=%s",
			marker.Account, mine.Account, mine.Account, marker.Account, here, f.Identity, v1alpha1.AnnotationConfirmIdentity, abandoned(provider.Name))
	}
	if marker.Nonce == "" && len(marker.Strange) == 0 && (!marker.Exists || marker.Cluster == f.ClusterUID) {
		message := fmt.Sprintf("queue %s, or its tag, is gone. This cluster may be a copy of another, or the operator's credentials those of another account. Nothing is deleted here. ", provider.IdentityQueueName())
		if steady <= comparisonsToReturn {
			return message + "If the operator of another cluster runs, it makes the queue again within two minutes"
		}
		return message + fmt.Sprintf("If this cluster, and no other, is to own the queues named %s* in the account of the operator's credentials, annotate ConfigMap %s with %s=%s",
			provider.OwnPrefix(), f.Identity, v1alpha1.AnnotationConfirmIdentity, abandoned(provider.Name))
	}
	quiet := steady > comparisonsOfAStopped
	message := fmt.Sprintf("queue %s bears a nonce that this cluster did not write: this cluster is a copy of another or was restored from a backup, or it is the original of a copy that took over. Nothing is deleted here. ", provider.IdentityQueueName())
	cluster := marker.Cluster
	if verdict == Rival {
		cluster = f.ClusterUID
	}
	switch cluster {
	case f.ClusterUID:
		if quiet {
			message += fmt.Sprintf("If this cluster, and no other, is to own the queues named %s*, annotate ConfigMap %s with %s=%s",
				provider.OwnPrefix(), f.Identity, v1alpha1.AnnotationConfirmIdentity, strings.Join(known.unspoken(verdict, marker), ","))
		} else {
			// Whatever is confirmed now would be void in ten seconds if the other runs, and so be no decision.
			message += "The operator of the other cluster runs, or did a moment ago: stop it first if this cluster is to own the queues"
		}
	case "":
		message = fmt.Sprintf("queue %s exists and has no owner that its tags name. It is left alone, and nothing is deleted here until it is gone", provider.IdentityQueueName())
	default:
		message = fmt.Sprintf("the queues named %s* are the cluster's with the UID %s (tag %s of queue %s). Nothing is deleted here. If this cluster is to take them over, annotate ConfigMap %s with %s=%s",
			provider.OwnPrefix(), marker.Cluster, v1alpha1.TagCluster, provider.IdentityQueueName(), f.Identity, v1alpha1.AnnotationAdoptFrom, marker.Cluster)
	}
	return message
}

// unspoken are the nonces that a human would have to declare void.
func (i *identity) unspoken(verdict Verdict, marker Marker) []string {
	spoken := i.annotated(v1alpha1.AnnotationConfirmIdentity)
	nonces := slices.DeleteFunc(slices.Clone(marker.Strange), func(nonce string) bool { return slices.Contains(spoken, nonce) })
	if verdict == Conflict {
		nonces = append(nonces, marker.Nonce)
	}
	return nonces
}

// comparisonsOfAStopped is after how many comparisons with the same nonce the other cluster's operator counts as stopped:
// while it runs, its nonce changes once in a comparison.
const comparisonsOfAStopped = 3

// comparisonsToReturn is the same for a marker that is gone: SQS refuses the name of a deleted queue for 60 s.
const comparisonsToReturn = 12

// say says what is out of the ordinary, once.
func (f *Fence) say(ctx context.Context, provider *queue.Provider, known *identity, verdict Verdict, marker Marker) {
	log := ctrl.LoggerFrom(ctx).WithName("fence").WithValues("provider", provider.Name, "queue", provider.IdentityQueueName())
	switch verdict {
	case Lost:
		f.mu.Lock()
		failing := f.state(provider.Name).failed != nil
		f.mu.Unlock()
		if !failing {
			log.Info("The marker was removed by someone else, and is made again; queues are not deleted until it is seen")
			f.event(provider.Name, known.object, corev1.EventTypeWarning, EventMarkerLost,
				fmt.Sprintf("Queue %s, or its tag, was removed by someone else, and is made again. Queues are not deleted until it is seen", provider.IdentityQueueName()))
		}
	case Given:
		log.Info("The marker is claimed from another cluster, as a human said", "cluster", marker.Cluster, "nonce", marker.Nonce)
		f.event(provider.Name, known.object, corev1.EventTypeNormal, EventIdentityClaimed,
			fmt.Sprintf("Queue %s was claimed from the cluster with the UID %s and the nonce %s", provider.IdentityQueueName(), marker.Cluster, marker.Nonce))
	}
}

// inherit has a new leader go on saying what the one before said of its sweeps, until the own sweeper knows better.
func (f *Fence) inherit(known *identity) {
	if f.Unswept {
		return
	}
	for _, provider := range f.store.inherit(known) {
		f.changed(provider)
	}
}

func (f *Fence) changed(provider string) {
	if f.Changed != nil {
		f.Changed(provider)
	}
}

// event is on the ConfigMap, and on the QueueProvider where there is one.
func (f *Fence) event(provider string, identity *corev1.ConfigMap, kind, reason, message string) {
	const longest = 1000 // The API server takes 1024 bytes.
	message = message[:min(len(message), longest)]
	f.Recorder.Eventf(identity, nil, kind, reason, "Compare", "Provider %s: %s", provider, message[:min(len(message), longest-len(provider)-16)])
	if provider != v1alpha1.DefaultProviderName {
		object := &v1alpha1.QueueProvider{}
		object.Name = provider
		f.Recorder.Eventf(object, nil, kind, reason, "Compare", "%s", message)
	}
}
