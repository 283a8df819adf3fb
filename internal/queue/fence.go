package queue

import (
	"errors"
	"fmt"
	"time"
)

// Fence says whether this operator may delete queues: whether they are its cluster's, and not those of the original of
// which the cluster is a copy.
type Fence interface {
	// MayDelete is nil while queues of the provider may be deleted or given up, else a *Held. It does not block.
	MayDelete(provider string) error
	// AdoptsFrom is the UID of the cluster whose queues at this provider a human has given to this one; empty: none.
	AdoptsFrom(provider string) string
}

// Held is why no queue of a provider is deleted.
type Held struct {
	Provider string
	// Conflict says that the queues may be another cluster's, and that only a human can say whose. Otherwise the proof
	// is merely not there yet, or no longer fresh.
	Conflict bool
	// Known says that this process has found out before that the queues are this cluster's. The proof is merely old.
	Known bool
	// Overdue says that it has not been found out for longer than that takes where SQS answers, and no nonce came back that had gone:
	// it may take long, or for ever. Whoever asks for a queue to be left behind need not wait for it any more.
	Overdue bool
	// Message says why, and what can be done.
	Message string
	// RetryAfter is when to try again.
	RetryAfter time.Duration
}

// Error is the message.
func (h *Held) Error() string { return fmt.Sprintf("provider %s: %s", h.Provider, h.Message) }

// MayDelete is nil while queues of this provider may be deleted or given up, else a *Held (see Fence). Delete and
// DeleteQueueByName ask it by themselves.
func (p *Provider) MayDelete() error {
	if p.Fence == nil {
		return nil
	}
	return p.Fence.MayDelete(p.Name)
}

// MayCreate is nil unless the queues of this provider are known to be another cluster's, of which this one is a copy: then a *Held.
// Unlike a change, a creation needs no proof that they are not: what exists is left as it is.
func (p *Provider) MayCreate() error {
	err := p.MayDelete()
	if held, ok := heldBy(err); ok && !held.Conflict {
		return nil
	}
	return err
}

// MayChange is nil once this process has found out that the queues of this provider are this cluster's, else a *Held. Unlike a
// deletion, a change needs no proof of the last minute; but the original of a copy may lose messages by it.
func (p *Provider) MayChange() error {
	err := p.MayDelete()
	if held, ok := heldBy(err); ok && !held.Conflict && held.Known {
		return nil
	}
	return err
}

// adopts says whether the queues of the cluster with that UID have been given to this one.
func (p *Provider) adopts(clusterUID string) bool {
	return p.Fence != nil && clusterUID != "" && p.Fence.AdoptsFrom(p.Name) == clusterUID
}

// Inherits reports whether a queue is to be taken over because it was the same object's in a cluster whose queues a
// human has given to this one.
func (p *Provider) Inherits(desired Desired, tags map[string]string) bool {
	owner := OwnerIn(tags)
	if owner.Cluster == desired.Owner.Cluster || !p.adopts(owner.Cluster) {
		return false
	}
	owner.Cluster = desired.Owner.Cluster
	return owner == desired.Owner
}

// Overdue reports whether err is a *Held that may last long, or for ever.
func Overdue(err error) bool {
	held, ok := heldBy(err)
	return ok && held.Overdue
}

func heldBy(err error) (held *Held, ok bool) {
	ok = errors.As(err, &held)
	return held, ok
}
