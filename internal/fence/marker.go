package fence

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// readMarker reads what the marker queue of a provider says, and its tags.
func readMarker(ctx context.Context, provider *queue.Provider) (Marker, map[string]string, error) {
	tags, exists, err := provider.IdentityTags(ctx)
	if class := queue.Classify(err); class == queue.Denied || (err == nil && !exists) {
		// The URL may be computed from that of another account.
		provider.ForgetAccount()
		tags, exists, err = provider.IdentityTags(ctx)
	}
	if err != nil || !exists {
		return Marker{}, nil, err
	}
	return Marker{
		Exists: true, Cluster: tags[v1alpha1.TagCluster], Nonce: tags[nonceTag(provider.Name)], Account: provider.AccountID(),
	}, tags, nil
}

// rivals are the nonces, by tag, that a marker bears for other providers than the given one and that the cluster does not know. What
// it bore once, and does not any more, is kept until a human speaks.
func (i *identity) rivals(provider string, tags map[string]string) map[string]string {
	found := map[string]string{}
	for _, tag := range nonceTags(tags, nonceTag(provider)) {
		if nonce := tags[tag]; !i.knows(nonce) {
			found[tag] = nonce
		}
	}
	for tag, nonce := range i.entries[provider].Rivals {
		if tags[tag] == "" && !i.knows(nonce) {
			found[tag] = nonce
		}
	}
	return found
}

// strange are the rivals' nonces.
func (i *identity) strange(provider string, tags map[string]string) []string {
	return slices.Sorted(maps.Values(i.rivals(provider, tags)))
}

// remember keeps which tags have borne others' nonces: the first of each, since they change all the time.
func (i *identity) remember(provider string, tags map[string]string) {
	mine, rivals := i.entries[provider], i.rivals(provider, tags)
	for tag, nonce := range mine.Rivals {
		if rivals[tag] != "" {
			rivals[tag] = nonce
		}
	}
	mine.Rivals = rivals
	i.entries[provider] = mine
}

// knows says that the cluster wrote a nonce, for any provider, or that a human has declared it void.
func (i *identity) knows(nonce string) bool {
	for _, e := range i.entries {
		if slices.Contains(e.Nonces, nonce) || slices.Contains(e.Confirmed, nonce) {
			return true
		}
	}
	return false
}

// claims says that the cluster knows of a provider whose nonces are in that tag.
func (i *identity) claims(tag string) bool {
	for name := range i.entries {
		if nonceTag(name) == tag {
			return true
		}
	}
	return false
}

// beside names a provider that has claimed the very marker of the given one, which bears no nonce of it now, and of which this
// process has not found out that it is the cluster's: it would be Abandoned, and so nothing is claimed there for another; empty: none.
// Whose the queues are is one answer for all: where the marker bears a nonce of this cluster for a provider of which this process
// has found out, it is found out for each, also for one that there is no more and that nobody could find out about.
func (f *Fence) beside(provider *queue.Provider, known *identity, m Marker, tags map[string]string) string {
	besides := ""
	for _, name := range slices.Sorted(maps.Keys(known.entries)) {
		e := known.entries[name]
		there := (e.Seen || e.Contested) && e.Place == placeOf(provider) && (e.Account == "" || m.Account == "" || e.Account == m.Account)
		if !there || name == provider.Name {
			continue
		}
		nonce, held := tags[nonceTag(name)], f.heldHere(name)
		if held && !e.Contested && nonce != "" && slices.Contains(e.Nonces, nonce) {
			return ""
		}
		if besides == "" && nonce == "" && !held {
			besides = name
		}
	}
	return besides
}

// placeOf is where a provider's marker is, but for the account.
func placeOf(provider *queue.Provider) string {
	return provider.Region + "/" + provider.IdentityQueueName()
}

// pinned is what the cluster knows of a provider's marker.
func (f *Fence) pinned(provider string, known *identity) Pinned {
	mine, spoken := known.entries[provider], known.annotated(v1alpha1.AnnotationConfirmIdentity)
	return Pinned{
		Cluster: f.ClusterUID, Nonces: mine.Nonces, Confirmed: mine.Confirmed, Seen: mine.Seen, Held: f.heldHere(provider),
		AdoptFrom: known.object.Annotations[v1alpha1.AnnotationAdoptFrom],
		Contested: mine.Contested, Spoken: spoken, ClaimAbandoned: slices.Contains(spoken, abandoned(provider)),
		Account: mine.Account,
	}
}

// accountSeen is the account that is looked into where no marker is found, by any queue there; empty: there is none to tell.
func (f *Fence) accountSeen(ctx context.Context, provider *queue.Provider) (string, error) {
	account, err := provider.AccountOfAny(ctx)
	if queue.Classify(err) == queue.Denied {
		err = nil
	}
	if account == "" && err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		account = f.state(provider.Name).elsewhere
	}
	return account, err
}

// elsewhere takes back a marker that was made again, and turned out to be in another account: that account had no queue by
// which to tell.
func (f *Fence) elsewhere(ctx context.Context, provider *queue.Provider, known *identity, asked time.Time) error {
	account := provider.AccountID()
	f.learn(provider.Name, known, Elsewhere, asked)
	f.mu.Lock()
	f.state(provider.Name).elsewhere = account
	f.mu.Unlock()
	marker, _, err := readMarker(ctx, provider)
	if err != nil || !marker.Exists { // The next comparison looks again.
		marker = Marker{Account: account}
	}
	return f.conflict(ctx, provider, known, Elsewhere, marker, nil)
}

// takeBack deletes a marker that this process made in another account.
func (f *Fence) takeBack(ctx context.Context, provider *queue.Provider, mine entry, marker Marker) {
	f.mu.Lock()
	made := f.state(provider.Name).elsewhere
	f.mu.Unlock()
	if !marker.Exists || marker.Account != made || marker.Cluster != f.ClusterUID || !slices.Contains(mine.Nonces, marker.Nonce) {
		return
	}
	if err := provider.UnmarkIdentity(ctx); err != nil && ctx.Err() == nil {
		ctrl.LoggerFrom(ctx).WithName("fence").Info("A marker that was made in another account could not be taken back", "provider", provider.Name, "why", err.Error())
	}
}

// clear removes the nonces of other providers from a marker that was given to this cluster.
func (f *Fence) clear(ctx context.Context, provider *queue.Provider, tags map[string]string) error {
	if tags[v1alpha1.TagCluster] == f.ClusterUID {
		return nil
	}
	if foreign := nonceTags(tags, nonceTag(provider.Name)); len(foreign) > 0 {
		url, err := provider.QueueURL(ctx, provider.IdentityQueueName())
		if err != nil {
			return err
		}
		return provider.Untag(ctx, url, foreign)
	}
	return nil
}

// nonceTags are the nonce tags among tags, but one.
func nonceTags(tags map[string]string, but string) []string {
	var found []string
	for key := range tags {
		if strings.HasPrefix(key, v1alpha1.TagNoncePrefix) && key != but {
			found = append(found, key)
		}
	}
	return found
}

// nonceTag is the tag that holds a provider's nonce. A tag's key has at most 128 characters.
func nonceTag(provider string) string {
	const most = 128 - len(v1alpha1.TagNoncePrefix)
	if len(provider) > most {
		sum := sha256.Sum256([]byte(provider))
		provider = provider[:most-17] + "-" + hex.EncodeToString(sum[:8])
	}
	return v1alpha1.TagNoncePrefix + provider
}

// newNonce is 64 random bits: nobody has to guess it for anything, it must only not come twice.
func newNonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // It never fails (crypto/rand).
	return hex.EncodeToString(b[:])
}
