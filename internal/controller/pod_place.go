package controller

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// place is where the queue of something that a pod names is. An application has one SQS client, so all places of a pod have
// to be the same.
type place struct {
	// of is what has its queue there, in words.
	of string
	// provider is the QueueProvider's name, "default" for the operator's own environment.
	provider         string
	region, endpoint string
	// account is empty while it is not known.
	account string
}

// placeOf is where a provider's queues are. url is that of one of them; with an empty one, the account is what the provider
// knows of it.
func placeOf(of string, provider *queue.Provider, url string) place {
	p := place{of: of, provider: provider.Name, region: provider.Region, endpoint: provider.Endpoint}
	if url != "" {
		p.account = queue.AccountInURL(url)
	} else {
		p.account = cmp.Or(provider.RoleAccount, provider.AccountID())
	}
	return p
}

// is reports whether two places are one, as far as is known.
func (p place) is(other place) bool {
	return p.provider == other.provider ||
		p.region == other.region && p.endpoint == other.endpoint && (p.account == other.account || p.account == "" || other.account == "")
}

func (p place) String() string {
	text := "QueueProvider " + p.provider + " (region " + p.region
	if p.account != "" {
		text += ", account " + p.account
	}
	if p.endpoint != "" {
		text += ", endpoint " + p.endpoint
	}
	return text + ")"
}

// fits reports whether a place is the one of what the pod names so far; where it is another, the pod waits.
func (s *podScope) fits(p place) bool {
	if s.first == nil {
		s.first = &p
		return true
	}
	if p.is(*s.first) {
		return true
	}
	s.waitFor("%s uses %s, and %s uses %s: all that a pod names must be in one account and region and at one endpoint, since an application has one SQS client",
		s.first.of, *s.first, p.of, p)
	return false
}

// replyPrefixes are what the names of reply queues at a place start with: those of its own provider, and of every other that
// is not known to lead elsewhere. Callers' ReplyHosts may use any of them. A provider that cannot be used makes no queues.
func (s *podScope) replyPrefixes(ctx context.Context, own *queue.Provider, at place) ([]string, error) {
	var others v1alpha1.QueueProviderList
	if err := s.List(ctx, &others); err != nil {
		return nil, err
	}
	names := []string{v1alpha1.DefaultProviderName}
	for i := range others.Items {
		names = append(names, others.Items[i].Name)
	}
	prefixes := []string{own.ReplyQueuePrefix()}
	for _, name := range names {
		other, err := s.Providers.ForDeletion(ctx, name)
		if err != nil {
			if _, ok := explainProvider(err); ok {
				continue
			}
			return nil, err
		}
		if placeOf("", other, "").is(at) {
			prefixes = append(prefixes, other.ReplyQueuePrefix())
		}
	}
	slices.Sort(prefixes)
	return slices.Compact(prefixes), nil
}

// podsServing are the pods that serve channels: what they may answer follows from all QueueProviders.
func (r *PodReconciler) podsServing(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.podsBy(ctx, func(pod *corev1.Pod) bool { return pod.Annotations[v1alpha1.AnnotationServes] != "" })
}
