package controller

import (
	"context"
	"strconv"
	"time"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// This file holds where the channel's queues are, and whose cluster's: what is asked before they are written to.

// elsewhere refuses to look for the channel's queues in another place than where they were made: the operator's own region
// or account has changed since. They would be made again there, and the old ones lost sight of.
func (r *RequestChannelReconciler) elsewhere(s *scope) error { return elsewhere(s.channel, s.provider) }

func elsewhere(channel *v1alpha1.RequestChannel, provider *queue.Provider) error {
	status := &channel.Status
	account := provider.AccountID()
	moved := status.Region != provider.Region || (account != "" && status.AccountID != account)
	if status.QueueURL == "" || status.Region == "" || status.AccountID == "" || !moved {
		return nil
	}
	if account == "" {
		account = "the operator's"
	}
	return stalled(v1alpha1.ReasonQueueElsewhere,
		"the queue is in account %s, region %s (status), and QueueProvider %s leads to account %s, region %s now: nothing is made or deleted there. Give the operator its region and credentials back, or delete this channel with %s=true, which leaves the queue there, and create another",
		status.AccountID, status.Region, provider.Name, account, provider.Region, v1alpha1.AnnotationForceDelete)
}

// sameAccount refuses to make a queue again where it was not. Whose account is looked into is asked anew, since the operator's
// credentials may be others than a moment ago: by the marker, which every account with a queue of this cluster's has, else by any
// queue that there is.
func (r *RequestChannelReconciler) sameAccount(ctx context.Context, s *scope) error {
	if err := s.provider.MayChange(); err != nil {
		return err // A copy does not make what its original is about to make again.
	}
	same, err := s.provider.SameAccount(ctx, s.channel.Status.QueueURL)
	if err != nil || same {
		return err
	}
	seen, err := s.provider.AccountOfAny(ctx)
	if err != nil {
		return err
	}
	if err := r.elsewhere(s); err != nil {
		return err
	}
	if seen == "" {
		return waiting(accountRetry, v1alpha1.ReasonIdentityUnproven,
			"the queue is not there, and in which account the operator looks is not known: there is no queue by which to tell. It was in account %s", s.channel.Status.AccountID)
	}
	return nil
}

// accountRetry is when to ask again in which account the operator looks.
const accountRetry = 30 * time.Second

// mayWrite refuses to write to a queue that existed before this reconcile until this process knows that it is this cluster's.
func (s *scope) mayWrite(observed queue.Observed, nothing bool) error {
	created, err := strconv.ParseInt(observed.Attributes[queue.CreatedTimestamp], 10, 64)
	if fresh := err == nil && !time.Unix(created, 0).Add(clocksDiffer).Before(s.began); nothing || fresh {
		return nil
	}
	return s.provider.MayChange()
}
