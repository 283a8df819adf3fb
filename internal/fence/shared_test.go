package fence_test

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Providers may lead to the same account, region and prefix: they have the same queues and the same marker.

const another = "another"

func (c *cluster) claimed(provider string) bool {
	q, _ := c.sqs.Queue("rq_c_identity")
	return q.Tags[v1alpha1.TagNoncePrefix+provider] != ""
}

// expectAll fails unless the queues of all providers may be deleted, or those of none.
func (c *cluster) expectAll(may bool, why string) {
	c.Helper()
	for _, provider := range c.inUse {
		if err := c.MayDelete(provider); (err == nil) != may {
			c.Errorf("%s: provider %s: %v", why, provider, err)
		}
	}
}

// twoProviders is a cluster that has found out whose its queues are by two providers that lead there.
func twoProviders(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.watch()
	c.shares(another)
	c.watch()
	c.round()
	c.expectAll(true, "with a second provider")
	return c
}

// A process that has just begun cannot know whose a marker is on which nobody has claimed anything for a provider: it claims it
// when it has watched.
func TestAClaimOnAMarkerThatIsThereWaits(t *testing.T) {
	first := newCluster(t, sqstest.NewServer(t), uid, nil)
	first.Round(first.ctx)
	c := first.beside().shares(another)
	for range fence.WatchFor(fence.DefaultInterval) / fence.DefaultInterval {
		c.round()
		if c.claimed(another) || c.MayDelete(another) == nil {
			t.Fatal("it does not wait")
		}
	}
	c.round()
	c.round()
	c.expectAll(true, "when it has watched")
	if !c.claimed(another) {
		t.Error("it is not claimed")
	}
}

// A cluster goes on when it comes to have a second provider for the same queues, and with its next leader.
func TestASecondProviderClaimsAndGoesOn(t *testing.T) {
	c := twoProviders(t)
	c.lead(uid)
	c.others[another].Fence = c.Fence
	c.Round(c.ctx)
	c.watch()
	c.expectAll(true, "with another leader")
}

// In a copy of the cluster somebody names another provider, of which the original knows nothing.
func TestASecondProviderInACopy(t *testing.T) {
	removals := map[string]func(*cluster, string) error{
		"the marker is there": nil,
		"the marker is removed": func(c *cluster, url string) error {
			_, err := c.sqs.Client().DeleteQueue(c.ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
			return err
		},
		"its nonces are removed": func(c *cluster, url string) error {
			_, err := c.sqs.Client().UntagQueue(c.ctx, &sqs.UntagQueueInput{QueueUrl: &url, TagKeys: []string{
				v1alpha1.TagNoncePrefix + "default", v1alpha1.TagNoncePrefix + another,
			}})
			return err
		},
	}
	for what, remove := range removals {
		for when, waits := range map[string]int{"the copy has just begun": 0, "the copy is in conflict": 15} {
			for _, before := range []bool{true, false} {
				t.Run(what+", "+when, func(t *testing.T) {
					original := newCluster(t, sqstest.NewServer(t), uid, nil)
					original.Round(original.ctx)
					original.round()
					clone := original.beside()
					original.round()
					if before {
						clone.shares(another)
					}
					for range waits {
						both(original, clone)
					}
					if !before {
						clone.shares(another)
					}
					if q, _ := original.sqs.Queue("rq_c_identity"); remove != nil {
						if err := remove(original, q.URL); err != nil {
							t.Fatal(err)
						}
					}
					for range 20 {
						clone.Round(clone.ctx)
						if clone.claimed(another) {
							t.Fatal("the copy claims the marker")
						}
						clone.expectAll(false, "the copy")
						original.round()
					}
					if clone.others[another].MayCreate() == nil {
						t.Error("the copy creates queues")
					}
					if clone.Trouble(another, fence.TroubleConflict) == "" {
						t.Error("nobody is told")
					}
				})
			}
		}
	}
}

// In a copy a provider is used of which it has never seen the marker as its own: the original was the first to use it. Then the marker
// loses its nonce, and the copy names one more provider: that nobody claims anything there now makes the copy no holder.
func TestAMarkerThatWasContestedIsNotClaimedForAnother(t *testing.T) {
	original := newCluster(t, sqstest.NewServer(t), uid, nil)
	clone := newCluster(t, original.sqs, uid, original.snapshot())
	clone.clock = original.clock
	clone.lead(uid)
	original.Round(original.ctx)
	clone.Round(clone.ctx)
	for range 15 {
		both(original, clone)
	}
	clone.expectHeld("the copy", true)
	q, _ := original.sqs.Queue("rq_c_identity")
	if _, err := original.sqs.Client().UntagQueue(original.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{v1alpha1.TagNoncePrefix + "default"}}); err != nil {
		t.Fatal(err)
	}
	clone.shares(another)
	for range 20 {
		clone.round()
		if clone.claimed(another) {
			t.Fatal("the copy claims the marker")
		}
		clone.expectAll(false, "the copy")
	}
}

// A human voids what the messages name, once, and the cluster has its queues for all providers.
func TestAWordForAllThatShareTheMarker(t *testing.T) {
	original := newCluster(t, sqstest.NewServer(t), uid, nil).shares(another)
	original.Round(original.ctx)
	original.watch()
	original.expectAll(true, "the original")
	clone := original.beside().shares(another)
	original.shares("third") // The copy does not know of it.
	original.watch()
	original.round()
	original.expectAll(true, "the original, with a provider more")
	clone.Round(clone.ctx)
	clone.watch()
	clone.expectAll(false, "the copy")
	var words []string
	for _, provider := range clone.inUse {
		_, word, found := strings.Cut(clone.Trouble(provider, fence.TroubleConflict), v1alpha1.AnnotationConfirmIdentity+"=")
		if !found {
			t.Fatalf("provider %s: %q names no word", provider, clone.Trouble(provider, fence.TroubleConflict))
		}
		words = append(words, word)
	}
	clone.annotate(v1alpha1.AnnotationConfirmIdentity, strings.Join(words, ","))
	clone.watch()
	clone.expectAll(true, "the copy, when a human has spoken")
	if left := clone.identity().Annotations[v1alpha1.AnnotationConfirmIdentity]; left != "" {
		t.Errorf("words are left: %q", left)
	}
	original.Round(original.ctx)
	original.expectAll(false, "the original, then")
}

// A rival's nonce that is gone from the marker is remembered until a human speaks.
func TestARivalIsRemembered(t *testing.T) {
	original := newCluster(t, sqstest.NewServer(t), uid, nil).shares(another)
	original.Round(original.ctx)
	original.watch()
	original.expectAll(true, "the original")
	q, _ := original.sqs.Queue("rq_c_identity")
	rival := v1alpha1.TagNoncePrefix + "rival"
	if _, err := original.sqs.Client().TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: map[string]string{rival: "r1"}}); err != nil {
		t.Fatal(err)
	}
	original.round()
	original.expectAll(false, "with a rival's nonce")
	if _, err := original.sqs.Client().UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{rival}}); err != nil {
		t.Fatal(err)
	}
	original.round()
	original.lead(uid)
	original.others[another].Fence = original.Fence
	original.Round(original.ctx)
	original.watch()
	original.expectAll(false, "without it, and with another leader")
	original.annotate(v1alpha1.AnnotationConfirmIdentity, "r1")
	original.watch()
	original.expectAll(true, "when a human has spoken")
}

// What another cluster's marker bears for other providers goes with it.
func TestAMarkerIsGivenWithAllThatItBears(t *testing.T) {
	const former = "0b000000-0000-0000-0000-000000000000"
	theirs := newCluster(t, sqstest.NewServer(t), former, nil).shares(another)
	theirs.Round(theirs.ctx)
	theirs.watch()
	theirs.expectAll(true, "the former cluster")
	c := newCluster(t, theirs.sqs, uid, nil)
	c.Round(c.ctx)
	c.annotate(v1alpha1.AnnotationAdoptFrom, former)
	c.watch()
	c.round()
	c.round()
	c.expectAll(true, "whom it was given to")
}

// lacking is a cluster in which some QueueProviders are no more.
type lacking struct {
	*cluster
	gone map[string]bool
}

func (l lacking) ForDeletion(ctx context.Context, name string) (*queue.Provider, error) {
	if l.gone[name] {
		return nil, queue.ErrProviderNotFound
	}
	return l.cluster.ForDeletion(ctx, name)
}

// A provider that is gone for good leaves what it claimed. When its tag is lost with the marker, nobody writes it again; but
// whose the queues are is known by another provider, and so to one that comes later.
func TestAProviderThatIsGoneIsInNobodysWay(t *testing.T) {
	c := twoProviders(t)
	c.inUse = []string{"default"}
	gone := lacking{c, map[string]bool{another: true}}
	c.Fence.Providers = gone
	q, _ := c.sqs.Queue("rq_c_identity")
	if _, err := c.sqs.Client().UntagQueue(c.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{
		v1alpha1.TagNoncePrefix + "default", v1alpha1.TagNoncePrefix + another,
	}}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		c.round()
	}
	c.lead(uid)
	c.Fence.Providers = gone
	c.shares("third")
	c.Round(c.ctx)
	c.watch()
	c.watch()
	c.round()
	c.expectAll(true, "with a third provider, and another leader")
}

// Where no other provider tells whose the queues are either, a human is asked.
func TestAfterTheOnlyProviderIsGoneAHumanIsAsked(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.watch()
	q, _ := c.sqs.Queue("rq_c_identity")
	if _, err := c.sqs.Client().UntagQueue(c.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{v1alpha1.TagNoncePrefix + "default"}}); err != nil {
		t.Fatal(err)
	}
	c.inUse = nil
	c.lead(uid)
	c.Fence.Providers = lacking{c, map[string]bool{"default": true}}
	c.shares("third")
	c.Round(c.ctx)
	c.watch()
	c.watch()
	c.expectAll(false, "before anybody has spoken")
	const word = "third=abandoned"
	if said := c.Trouble("third", fence.TroubleConflict); !strings.Contains(said, word) {
		t.Fatalf("told %q, want the words to annotate: %s", said, word)
	}
	c.annotate(v1alpha1.AnnotationConfirmIdentity, word)
	c.watch()
	c.round()
	c.expectAll(true, "when a human has spoken")
}
