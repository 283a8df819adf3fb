package fence_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestTheFirstStartClaims(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.expectHeld("before anything was compared", false)
	c.Round(c.ctx)
	c.expectOpen("after the first comparison")
	q, _ := c.sqs.Queue("rq_c_identity")
	if q.Tags[v1alpha1.TagCluster] != uid || q.Tags[v1alpha1.TagKind] != v1alpha1.TagKindIdentity || q.Tags["nonce.replyqueue.dev/default"] == "" {
		t.Errorf("the marker has the tags %v", q.Tags)
	}
	c.round()
	if after, _ := c.sqs.Queue("rq_c_identity"); after.Tags["nonce.replyqueue.dev/default"] == q.Tags["nonce.replyqueue.dev/default"] {
		t.Error("the nonce stays the same")
	}
}

func TestAProofGrowsOld(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.sqs.SetAccess(sqstest.AccessRule{Action: "ListQueueTags", Deny: true})
	for range 6 {
		c.expectOpen("while the proof is fresh")
		c.round()
	}
	c.round()
	c.expectHeld("when nothing could be compared for a minute", false)
	c.sqs.SetAccess()
	c.round()
	c.expectOpen("when it can be compared again")
}

func TestACloneBesideItsOriginalIsHeld(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	clone := newCluster(t, server, uid, original.snapshot())
	original.round() // within the lease that the clone's operator waits out
	for range 5 {
		clone.round()
		clone.expectHeld("the clone", true)
		original.round()
		original.expectOpen("the original")
	}
	if n := clone.heard("IdentityConflict"); n != 1 {
		t.Errorf("%d events of the conflict, want 1", n)
	}
	status := clone.identity().Data["status"]
	if !strings.Contains(status, "stop it first") || strings.Contains(status, v1alpha1.AnnotationConfirmIdentity) {
		t.Errorf("the clone, whose original runs, says %q", status)
	}
	if original.identity().Data["status"] != "" {
		t.Error("the original complains")
	}
}

// TestARestoredClusterAsks is a cluster that was set back by an hour in its place.
func TestARestoredClusterAsks(t *testing.T) {
	server := sqstest.NewServer(t)
	before := newCluster(t, server, uid, nil)
	before.Round(before.ctx)
	hourAgo := before.snapshot()
	for range 30 {
		before.round()
	}
	c := newCluster(t, server, uid, hourAgo)
	for range 11 {
		c.round()
		c.expectHeld("restored", true)
	}
	q, _ := server.Queue("rq_c_identity")
	nonce := q.Tags["nonce.replyqueue.dev/default"]
	if status := c.identity().Data["status"]; !strings.Contains(status, v1alpha1.AnnotationConfirmIdentity+"="+nonce) {
		t.Errorf("it does not say what to do: %q", status)
	}
	c.annotate(v1alpha1.AnnotationConfirmIdentity, "another")
	c.round()
	c.expectHeld("with another nonce confirmed", true)
	c.annotate(v1alpha1.AnnotationConfirmIdentity, "another, "+nonce)
	c.round()
	c.expectHeld("until the claim is seen", false)
	c.round()
	c.expectOpen("when confirmed")
	if i := c.identity(); i.Annotations[v1alpha1.AnnotationConfirmIdentity] != "another" || i.Data["status"] != "" {
		t.Errorf("the confirmation stays open: %v %q", i.Annotations, i.Data["status"])
	}
	before.round()
	before.expectHeld("who was there before", true)
}

func TestALostMarkerIsMadeAgain(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.round()
	url, _ := c.provider.QueueURL(c.ctx, "rq_c_identity")
	if _, err := c.sqs.Client().DeleteQueue(c.ctx, &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
		t.Fatal(err)
	}
	c.round()
	c.round()
	c.expectHeld("while SQS refuses the name", false)
	if n := c.heard("MarkerLost"); n != 1 {
		t.Errorf("%d events, want 1", n)
	}

	fresh := newCluster(t, sqstest.NewServer(t), uid, nil)
	fresh.round()
	fresh.round()

	q, _ := fresh.sqs.Queue("rq_c_identity")
	if _, err := fresh.sqs.Client().UntagQueue(fresh.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{"nonce.replyqueue.dev/default"}}); err != nil {
		t.Fatal(err)
	}
	fresh.round()
	fresh.expectHeld("without its tag", false)
	fresh.round()
	fresh.expectOpen("with its tag again")
}

func TestAQueueOfThatNameIsNotTouched(t *testing.T) {
	server := sqstest.NewServer(t)
	name := "rq_c_identity"
	if _, err := server.Client().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Tags: map[string]string{"team": "a"}}); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, server, uid, nil)
	c.round()
	c.round()
	c.expectHeld("with another's queue of that name", true)
	if q, _ := server.Queue(name); len(q.Tags) != 1 {
		t.Errorf("it was tagged: %v", q.Tags)
	}
}

func TestAMigrationTakesTheMarker(t *testing.T) {
	server := sqstest.NewServer(t)
	old := newCluster(t, server, "old", nil)
	old.Round(old.ctx)
	c := newCluster(t, server, uid, nil)
	c.round()
	c.watch()
	c.expectHeld("without a word", true)
	if status := c.identity().Data["status"]; !strings.Contains(status, v1alpha1.AnnotationAdoptFrom+"=old") {
		t.Errorf("it does not say what to do: %q", status)
	}
	c.annotate(v1alpha1.AnnotationAdoptFrom, "old")
	c.round()
	if from := c.AdoptsFrom("default"); from != "" {
		t.Error("queues are taken before the old cluster is fenced off")
	}
	old.round()
	old.expectHeld("the old cluster", true)
	c.round()
	c.expectOpen("the new cluster")
	if from := c.AdoptsFrom("default"); from != "old" {
		t.Errorf("it adopts from %q", from)
	}
	server.SetAccess(sqstest.AccessRule{Action: "ListQueueTags", Deny: true})
	for range 8 {
		c.round()
	}
	if from := c.AdoptsFrom("default"); from != "" {
		t.Errorf("it adopts from %q, and has not been able to compare for longer than a minute", from)
	}
}

// TestAMarkerOutlivesItsQueues is what a copy would otherwise wait for: a marker that is gone, or that stands still.
func TestAMarkerOutlivesItsQueues(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	original.round()
	original.inUse = nil
	original.round()
	clone, late := newCluster(t, server, uid, original.snapshot()), newCluster(t, server, uid, original.snapshot())
	for range 15 {
		original.round()
		clone.round()
		clone.expectHeld("the clone", true)
	}
	late.round()
	late.expectHeld("a clone that looks late", true)
	original.inUse = []string{"default"}
	original.round()
	original.expectOpen("the original, whose application is back")
}

// TestACloneNeverTakesALostMarker has somebody remove the marker, or its tag, while clones wait: one that has seen the
// conflict, in a new process too, and one that looks for the first time.
func TestACloneNeverTakesALostMarker(t *testing.T) {
	for _, what := range []string{"tag", "queue"} {
		t.Run(what, func(t *testing.T) {
			clock := sqstest.NewManualClock(time.Now())
			server := sqstest.NewServer(t, sqstest.WithClock(clock))
			original := newCluster(t, server, uid, nil)
			original.Round(original.ctx)
			original.round()
			clone, late := newCluster(t, server, uid, original.snapshot()), newCluster(t, server, uid, original.snapshot())
			for range 15 {
				original.round()
				clone.round()
				clone.expectHeld("the clone", true)
			}
			url, err := original.provider.QueueURL(original.ctx, "rq_c_identity")
			if err == nil && what == "tag" {
				_, err = server.Client().UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: &url, TagKeys: []string{"nonce.replyqueue.dev/default"}})
			} else if err == nil {
				_, err = server.Client().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 8 { // The original cannot look, and the clones can.
				clock.Advance(10 * time.Second)
				clone.round()
				clone.expectHeld("the clone", true)
				clone.lead(uid)
				late.round()
				if late.MayDelete("default") == nil {
					t.Fatal("a clone that looks late may delete")
				}
			}
			if q, there := server.Queue("rq_c_identity"); there && q.Tags["nonce.replyqueue.dev/default"] != "" {
				t.Fatal("a clone wrote the marker")
			}
			original.round()
			for range 3 {
				original.round()
				original.expectOpen("the original")
				clone.round()
				clone.expectHeld("the clone", true)
				late.round()
				late.expectHeld("the late clone", true)
			}
		})
	}
}

// TestAnAbandonedMarkerNeedsAWord is a cluster whose marker was deleted while no operator ran.
func TestAnAbandonedMarkerNeedsAWord(t *testing.T) {
	before := newCluster(t, sqstest.NewServer(t), uid, nil)
	before.Round(before.ctx)
	before.round()
	c := newCluster(t, sqstest.NewServer(t), uid, before.snapshot())
	const word = v1alpha1.AnnotationConfirmIdentity + "=default=abandoned"
	c.round()
	c.expectHeld("until it is sure", false)
	for range 5 {
		c.round()
	}
	c.expectHeld("when it is gone for good", true)
	if status := c.identity().Data["status"]; strings.Contains(status, word) {
		t.Errorf("it asks before the other had time to come back: %q", status)
	}
	for range 8 {
		c.round()
	}
	if status := c.identity().Data["status"]; !strings.Contains(status, word) {
		t.Errorf("it does not say what to do: %q", status)
	}
	if len(c.sqs.Queues()) != 0 {
		t.Error("it was made again without a word")
	}
	c.annotate(v1alpha1.AnnotationConfirmIdentity, "default=abandoned")
	c.round()
	c.expectHeld("until it is seen", false)
	c.round()
	c.expectOpen("when a human spoke")
	if i := c.identity(); i.Annotations[v1alpha1.AnnotationConfirmIdentity] != "" || i.Data["status"] != "" {
		t.Errorf("the word stays: %v %q", i.Annotations, i.Data["status"])
	}
}

// TestFenceCrashPoints stops the operator after each write of claiming, changing, confirming and removing in turn: the
// next leader comes to the same end, and never takes its own cluster for a copy.
func TestFenceCrashPoints(t *testing.T) {
	live := func(t *testing.T, point int) (writes int) {
		c := newCluster(t, sqstest.NewServer(t), uid, nil)
		alive := true
		round := func() {
			t.Helper()
			c.afterWrite = func() {
				writes++
				if alive && writes == point {
					panic(errCrash)
				}
			}
			func() {
				defer func() {
					c.afterWrite = nil
					if r := recover(); r != nil {
						if err, ok := r.(error); !ok || !errors.Is(err, errCrash) {
							panic(r)
						}
						alive = false
						c.lead(uid)
					}
				}()
				c.round()
			}()
			if c.Trouble("default", fence.TroubleConflict) != "" {
				t.Fatal("it takes itself for a copy")
			}
		}
		for range 5 {
			round()
		}
		c.afterWrite = nil
		c.round()
		c.watch()
		c.expectOpen("in the end")
		return writes
	}
	points := live(t, 0)
	if points < 8 {
		t.Errorf("only %d writes", points)
	}
	for point := 1; point <= points; point++ {
		t.Run(fmt.Sprint(point), func(t *testing.T) { live(t, point) })
	}
}

var errCrash = errors.New("the process was stopped here")

// TestACopyTakenWhileTheMarkerIsGone knows the nonce that the original is about to write.
func TestACopyTakenWhileTheMarkerIsGone(t *testing.T) {
	clock := sqstest.NewManualClock(time.Now())
	server := sqstest.NewServer(t, sqstest.WithClock(clock))
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	original.round()
	url, err := original.provider.QueueURL(original.ctx, "rq_c_identity")
	if err == nil {
		_, err = server.Client().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // SQS refuses the name for a minute.
		clock.Advance(fence.DefaultInterval)
		original.round()
	}
	clone := newCluster(t, server, uid, original.snapshot())
	clock.Advance(fence.DefaultInterval)
	original.round() // within the lease that the clone's operator waits out
	clone.round()
	if _, there := server.Queue("rq_c_identity"); !there || clone.MayDelete("default") == nil {
		t.Error("the marker was not made again, or the copy takes it for its own")
	}
	original.round()
	original.expectOpen("the original")
	clone.round()
	clone.expectHeld("the clone", true)
}

// TestWhoCannotChangeTheNonceProvesNothing, since a copy would find the nonce that it knows.
func TestWhoCannotChangeTheNonceProvesNothing(t *testing.T) {
	server := sqstest.NewServer(t)
	c := newCluster(t, server, uid, nil)
	c.Round(c.ctx)
	c.round()
	server.SetAccess(sqstest.AccessRule{Action: "TagQueue", Deny: true})
	clone := newCluster(t, server, uid, c.snapshot())
	clone.round()
	if clone.MayDelete("default") == nil {
		t.Error("a copy may delete, though it has changed nothing")
	}
	for range 20 {
		c.round()
	}
	c.expectHeld("when no nonce was changed for a minute", false)
	server.SetAccess()
	c.round()
	c.expectOpen("when it can be changed again")
	if n := len(c.identity().Data["fence"]); n > 400 {
		t.Errorf("what was noted meanwhile is %d bytes long", n)
	}
}

// TestAMarkerShownLateIsStillOurs has SQS answer with earlier tags for a minute, while the nonce goes on changing.
func TestAMarkerShownLateIsStillOurs(t *testing.T) {
	server := sqstest.NewServer(t)
	c := newCluster(t, server, uid, nil)
	c.Round(c.ctx)
	c.round()
	q, _ := server.Queue("rq_c_identity")
	c.provider.API = stale{c.provider.API, q.Tags}
	seen := map[string]bool{}
	for range 30 {
		c.round()
		c.expectOpen("while an earlier nonce is shown")
		now, _ := server.Queue("rq_c_identity")
		seen[now.Tags["nonce.replyqueue.dev/default"]] = true
	}
	if len(seen) < 6 {
		t.Errorf("the nonce took %d values, and a copy would find one that it knows", len(seen))
	}
}

// stale answers with the tags of before.
type stale struct {
	queue.API
	tags map[string]string
}

func (s stale) ListQueueTags(context.Context, *sqs.ListQueueTagsInput, ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return &sqs.ListQueueTagsOutput{Tags: s.tags}, nil
}
