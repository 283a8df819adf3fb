package controller

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// This file follows dead letters from channel to channel, whether one names the next or the ARN of its queue.

// goesRound refuses dead letters that would come back to the channel; field is where it names the next.
func (r *RequestChannelReconciler) goesRound(ctx context.Context, s *scope, field string) error {
	names, err := r.ring(ctx, s)
	if err != nil || names == nil {
		return err
	}
	return stalled(v1alpha1.ReasonDeadLetterNotAllowed, "%s: dead letters would go round for ever, from RequestChannel %s", field, strings.Join(names, " to "))
}

// ring follows dead letters from one channel to the next, and returns the names of all in the ring when they come back to the
// channel; nil when they do not.
func (r *RequestChannelReconciler) ring(ctx context.Context, s *scope) (names []string, err error) {
	at, seen := s.channel, map[types.NamespacedName]bool{}
	for {
		name := at.Name
		if at.Namespace != s.channel.Namespace {
			name = at.Namespace + "/" + at.Name
		}
		names = append(names, name)
		next, err := r.deadLettersNext(ctx, at)
		switch {
		case err != nil || next == nil || seen[client.ObjectKeyFromObject(next)]:
			return nil, err
		case next.UID == s.channel.UID:
			return append(names, s.channel.Name), nil
		}
		seen[client.ObjectKeyFromObject(next)] = true
		at = next
	}
}

// deadLettersNext is the channel whose queue a channel's dead letters go to; nil: none that is known.
func (r *RequestChannelReconciler) deadLettersNext(ctx context.Context, channel *v1alpha1.RequestChannel) (*v1alpha1.RequestChannel, error) {
	spec := channel.Spec.DeadLetter
	switch {
	case spec == nil:
	case spec.ChannelRef != nil:
		next := &v1alpha1.RequestChannel{}
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: channel.Namespace, Name: spec.ChannelRef.Name}, next)
		if err == nil {
			return next, nil
		}
		return nil, ofCluster(client.IgnoreNotFound(err))
	case spec.ARN != "":
		var list v1alpha1.RequestChannelList
		if err := r.Client.List(ctx, &list, client.MatchingFields{indexARN: spec.ARN}); err != nil {
			return nil, ofCluster(fmt.Errorf("list RequestChannels by the ARN %s: %w", spec.ARN, err))
		}
		for i := range list.Items {
			if list.Items[i].Spec.ManagementPolicy != v1alpha1.ManagementPolicyObserve { // Whoever observes moves nothing.
				return &list.Items[i], nil
			}
		}
	}
	return nil, nil
}

// upstream are the channels whose dead letters can reach this one, however many channels lie between: what becomes of it may
// close a ring, or open one.
func (r *RequestChannelReconciler) upstream(ctx context.Context, channel *v1alpha1.RequestChannel) (all []reconcile.Request) {
	seen := map[types.NamespacedName]bool{client.ObjectKeyFromObject(channel): true}
	take := func(request reconcile.Request) (news bool) {
		news = !seen[request.NamespacedName]
		seen[request.NamespacedName] = true
		if news {
			all = append(all, request)
		}
		return news
	}
	for next := []*v1alpha1.RequestChannel{channel}; len(next) > 0; next = next[1:] {
		at := next[0]
		further := func(c *v1alpha1.RequestChannel) bool {
			if take(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(c)}) {
				next = append(next, c)
			}
			return false
		}
		r.channels(ctx, further, client.InNamespace(at.Namespace), client.MatchingFields{indexDeadLetter: at.Name})
		if at.Status.QueueARN != "" {
			r.channels(ctx, further, client.MatchingFields{indexDeadLetter: at.Status.QueueARN})
		}
	}
	return all
}

// deadLetterOf is the name of the channel, or the ARN of the queue, that a channel names for its dead letters; empty when it
// names none.
func deadLetterOf(o client.Object) string {
	switch d := o.(*v1alpha1.RequestChannel).Spec.DeadLetter; {
	case d == nil:
		return ""
	case d.ChannelRef != nil:
		return d.ChannelRef.Name
	default:
		return d.ARN
	}
}
