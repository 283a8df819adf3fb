package fence_test

import (
	"context"
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

// beside is a copy of the cluster, by the original's clock; what it does is done in turn with the original.
func (c *cluster) beside() *cluster {
	c.Helper()
	clone := newCluster(c.T, c.sqs, uid, c.snapshot())
	clone.clock = c.clock
	clone.lead(uid)
	return clone
}

// both lets an interval pass for both.
func both(original, clone *cluster) {
	original.round()
	clone.Round(clone.ctx)
}

// shown is what SQS showed of the marker, and since when.
type shown struct {
	at   time.Time
	tags map[string]string
}

// late answers with tags as they were a while ago.
type late struct {
	queue.API
	c   *cluster
	by  time.Duration
	log *[]shown
}

// lateBy has SQS answer this cluster late, from what is noted with note.
func (c *cluster) lateBy(by time.Duration) (note func()) {
	log := &[]shown{}
	note = func() {
		q, _ := c.sqs.Queue("rq_c_identity")
		*log = append(*log, shown{c.clock.Now(), q.Tags})
	}
	note()
	c.provider.API = late{c.provider.API, c, by, log}
	return note
}

func (l late) ListQueueTags(context.Context, *sqs.ListQueueTagsInput, ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	tags := (*l.log)[0].tags
	for _, s := range *l.log {
		if !s.at.After(l.c.clock.Now().Add(-l.by)) {
			tags = s.tags
		}
	}
	return &sqs.ListQueueTagsOutput{Tags: tags}, nil
}

// A copy is started at any time after it was taken, and SQS shows it the marker as it was up to a minute ago. It writes
// nothing there, deletes nothing, and the original is not disturbed.
func TestACloneThatIsShownTheMarkerLate(t *testing.T) {
	for _, by := range []time.Duration{5 * time.Second, 35 * time.Second, time.Minute} {
		for _, boots := range []int{0, 2, 6} {
			t.Run(fmt.Sprint(by, " after ", boots), func(t *testing.T) {
				server := sqstest.NewServer(t)
				original := newCluster(t, server, uid, nil)
				original.Round(original.ctx)
				original.round()
				clone := original.beside()
				note := clone.lateBy(by)
				for range boots {
					original.round()
					note()
				}
				for range 30 {
					original.round()
					note()
					was := original.nonce()
					clone.Round(clone.ctx)
					if original.nonce() != was {
						t.Fatal("the clone changed the nonce")
					}
					if clone.MayDelete("default") == nil {
						t.Fatal("the clone may delete")
					}
					original.expectOpen("the original")
				}
				clone.expectHeld("the clone, in the end", true)
			})
		}
	}
}

// The original's request to change the nonce fails for a while, so that a copy that is taken meanwhile knows the nonce that
// the marker bears, and the next.
func TestACloneWhileTheNonceCannotBeChanged(t *testing.T) {
	for name, fails := range map[string]struct {
		rule   sqstest.AccessRule
		rounds int
		late   bool // The copy is taken when a nonce was noted that the marker did not take.
	}{
		"refused for half a minute":                    {sqstest.AccessRule{Action: "TagQueue", Deny: true}, 3, true},
		"nothing is answered for a quarter of an hour": {sqstest.AccessRule{Action: "*", Deny: true}, 90, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := sqstest.NewServer(t)
			original := newCluster(t, server, uid, nil)
			original.Round(original.ctx)
			original.round()
			clone := original.beside()
			clone.Round(clone.ctx)
			server.SetAccess(fails.rule)
			if fails.late {
				original.round()
				clone = original.beside()
			}
			for range fails.rounds {
				both(original, clone)
				if clone.MayDelete("default") == nil {
					t.Fatal("the clone may delete")
				}
			}
			server.SetAccess()
			clone.Round(clone.ctx) // It is the first for which SQS answers again.
			for range 15 {
				both(original, clone)
				original.expectOpen("the original")
				if clone.MayDelete("default") == nil {
					t.Fatal("the clone may delete")
				}
			}
			clone.expectHeld("the clone", true)
		})
	}
}

// What a copy sees of another account, or while there is no marker, is no watch: it knows no more than when it began.
func TestAWatchElsewhereIsNone(t *testing.T) {
	server := sqstest.NewServer(t, sqstest.WithAccount("111111111111"))
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	original.round()
	clone := original.beside()
	clone.Round(clone.ctx)
	theirs := sqstest.NewServer(t, sqstest.WithAccount("222222222222"))
	original.provider.API, clone.provider.API = writing{theirs.Client(noRetries), original}, writing{theirs.Client(noRetries), clone}
	for range 20 {
		both(original, clone)
	}
	original.provider.API, clone.provider.API = writing{server.Client(noRetries), original}, writing{server.Client(noRetries), clone}
	for range 15 {
		clone.Round(clone.ctx) // It is the first to look.
		if clone.MayDelete("default") == nil {
			t.Fatal("the clone may delete")
		}
		original.round()
		original.expectOpen("the original")
	}
	clone.expectHeld("the clone", true)
}

// A time without looks is none in which the marker was watched: the original changes the nonce meanwhile, and a request of
// a leader that died brings back one that the copy knows.
func TestATimeWithoutLooksIsNoWatch(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	original.round()
	clone := original.beside()
	clone.Round(clone.ctx)
	known := original.nonce()
	original.watch()
	if original.nonce() == known {
		t.Fatal("the original has not changed the nonce")
	}
	q, _ := server.Queue("rq_c_identity")
	if _, err := server.Client().TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: map[string]string{"nonce.replyqueue.dev/default": known}}); err != nil {
		t.Fatal(err)
	}
	clone.Round(clone.ctx)
	clone.expectHeld("the clone", false)
	for range 15 {
		original.round()
		original.expectOpen("the original")
		clone.Round(clone.ctx)
		if clone.MayDelete("default") == nil {
			t.Fatal("the clone may delete")
		}
	}
	clone.expectHeld("the clone", true)
}

// While SQS answers a process badly, it may keep the original from changing the nonce: a watch begins anew with each look that it does
// not answer, however soon the next one is.
func TestALookWithoutAnAnswerIsNoWatch(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.lead(uid)
	c.Round(c.ctx)
	c.clock.Step(fence.WatchFor(fence.DefaultInterval) / 2)
	c.fault(sqstest.Rule{Fault: sqstest.Throttle})
	c.Round(c.ctx)
	c.fault()
	for range fence.WatchFor(fence.DefaultInterval)/fence.DefaultInterval + 1 {
		c.expectHeld("a process that watches since SQS has answered again", false)
		c.round()
	}
	c.expectOpen("a process that has watched")
}

// A process that has no proof writes nothing and deletes nothing until it has watched; then it goes on.
func TestANewProcessWatchesFirst(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	was := c.nonce()
	c.lead(uid)
	c.expectHeld("a new leader, before it compared", false)
	c.Round(c.ctx)
	for range fence.WatchFor(fence.DefaultInterval)/fence.DefaultInterval - 1 {
		c.expectHeld("a new leader that watches", false)
		c.round()
	}
	if c.nonce() != was {
		t.Error("it wrote the marker")
	}
	c.round()
	c.expectOpen("a new leader that has watched")
	if c.nonce() == was {
		t.Error("the nonce stays the same")
	}
	if status := c.identity().Data["status"]; status != "" {
		t.Errorf("it says %q", status)
	}
}

// Deletions that wait, and changes of what exists, ask again when the watch is over, not all the time; creations do not wait at all. What
// was found out once stands for changes when SQS does not answer any more, and nothing says by itself that it is overdue until it is.
func TestWhatWaitsForAWatch(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.lead(uid)
	c.round()
	err := c.MayDelete("default")
	if after, ok := queue.RetryAfter(err); !ok || after != fence.WatchFor(fence.DefaultInterval) || queue.Classify(err) != queue.Unproven {
		t.Errorf("a deletion is to ask again after %v: %v (%s)", after, err, queue.Classify(err))
	}
	if err := c.provider.MayCreate(); err != nil {
		t.Errorf("a queue may not be created: %v", err)
	}
	if err := c.provider.MayChange(); queue.Classify(err) != queue.Unproven || queue.Overdue(err) {
		t.Errorf("a queue that may be an original's can be changed, or is said never to be: %v", err)
	}
	c.round()
	if after, _ := queue.RetryAfter(c.MayDelete("default")); after != fence.WatchFor(fence.DefaultInterval)-fence.DefaultInterval {
		t.Errorf("an interval later, it is to ask again after %v", after)
	}
	if again := c.MayDelete("default"); again.Error() != err.Error() {
		t.Errorf("what it says changes all the time: %v", again)
	}
	c.watch()
	c.sqs.SetAccess(sqstest.AccessRule{Action: "*", Deny: true})
	for range 12 {
		c.round()
	}
	if err := c.MayDelete("default"); queue.Overdue(err) {
		t.Errorf("overdue when it is asked for the first time: %v", err)
	}
	for range 12 {
		c.round()
	}
	if err := c.MayDelete("default"); !queue.Overdue(err) {
		t.Errorf("not overdue after two minutes without an answer: %v", err)
	}
	if err := c.provider.MayChange(); err != nil {
		t.Errorf("what was found out once does not stand: %v", err)
	}
}

// A standby sees the leader change the nonce, and needs no proof of its own when it leads. It looks no more from then on.
func TestAStandbyGoesOnAtOnce(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.round()
	standby := c.process(uid)
	standby.Look(c.ctx)
	c.round()
	standby.Look(c.ctx)
	before := c.sqs.Requests()
	standby.Look(c.ctx)
	if n := c.sqs.Requests() - before; n != 0 {
		t.Errorf("%d requests of a standby that has seen the proof", n)
	}
	if standby.MayDelete("default") == nil {
		t.Error("a standby may delete before it has compared")
	}
	was := c.nonce()
	standby.Round(c.ctx)
	if err := standby.MayDelete("default"); err != nil || c.nonce() == was {
		t.Errorf("it does not go on at once: %v", err)
	}
	// With leaders that live for no minute, there is always one that goes on at once.
	leader := standby
	for range 10 {
		standby = c.process(uid)
		standby.Look(c.ctx)
		for range 2 {
			c.clock.Step(fence.DefaultInterval)
			leader.Round(c.ctx)
			standby.Look(c.ctx)
		}
		leader = standby
		leader.Round(c.ctx)
		if err := leader.MayDelete("default"); err != nil {
			t.Fatalf("a standby that took its leader's place: %v", err)
		}
	}
}

// A copy's processes see nothing that any of them wrote, however many there are and however they take turns.
func TestACopysStandbysLearnNothing(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	original.round()
	clone := original.beside()
	note := clone.lateBy(time.Minute)
	standby := clone.process(uid)
	for i := range 40 {
		original.round()
		note()
		standby.Look(clone.ctx)
		clone.Round(clone.ctx)
		if clone.MayDelete("default") == nil {
			t.Fatal("the clone may delete")
		}
		original.expectOpen("the original")
		if i%3 == 2 {
			clone.Fence, standby = standby, clone.process(uid)
			clone.provider.Fence = clone.Fence
		}
	}
}

// The copy is taken at the worst moment: the nonce has just been written, the leader dies, and its standby takes over 17 s
// later; SQS shows the copy everything as late as it may.
func TestACopyTakenWhenTheLeaderDies(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newCluster(t, server, uid, nil)
	original.Round(original.ctx)
	standby := original.process(uid)
	standby.Look(original.ctx)
	original.round()
	standby.Look(original.ctx)
	clone := original.beside()
	note := clone.lateBy(time.Minute)
	for second := 1; second <= 300; second++ {
		original.clock.Step(time.Second)
		if second >= 9+17 && (second-26)%10 == 0 {
			standby.Round(original.ctx)
			note()
			if err := standby.MayDelete("default"); err != nil {
				t.Fatalf("the original, after %d s: %v", second, err)
			}
		}
		if second%10 == 1 {
			was := original.nonce()
			clone.Round(clone.ctx)
			if clone.MayDelete("default") == nil || original.nonce() != was {
				t.Fatalf("after %d s the clone takes the marker", second)
			}
		}
	}
}

// A process that never comes to an end of its watch never writes: what of it is a copy is told by the one that does.
func TestProcessesThatWatchDoNotCount(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	was := c.nonce()
	for range 5 {
		c.lead(uid)
		for range 6 {
			c.round()
			c.expectHeld("a leader that lives for a minute, without a standby", false)
		}
	}
	if c.nonce() != was {
		t.Error("it wrote the marker")
	}
}

// A human's word is copied with the cluster, when the copy is taken before the original has used it. The word is the
// original's all the same: it is used up when the copy has watched.
func TestAWordThatWasCopied(t *testing.T) {
	for _, by := range []time.Duration{0, time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			server := sqstest.NewServer(t)
			before := newCluster(t, server, uid, nil)
			before.Round(before.ctx)
			backup := before.snapshot()
			before.round()
			before.round()
			restored := newCluster(t, server, uid, backup)
			restored.round()
			restored.watch()
			restored.expectHeld("restored", true)
			restored.annotate(v1alpha1.AnnotationConfirmIdentity, before.nonce())
			clone := restored.beside()
			clone.annotate(v1alpha1.AnnotationConfirmIdentity, before.nonce())
			note := clone.lateBy(by)
			for range 30 {
				restored.round()
				note()
				was := before.nonce()
				clone.Round(clone.ctx)
				if clone.MayDelete("default") == nil || before.nonce() != was {
					t.Fatal("the copy takes the marker")
				}
			}
			restored.expectOpen("the one that the word was spoken to")
			clone.expectHeld("its copy", true)
		})
	}
}

// TestAWordFromBeforeTheProcessIsNone is a copy that was taken between a human's word that the marker is abandoned and its use, and
// finds none all the time that it watches: the process that had used the word ended when somebody deleted the marker once more.
func TestAWordFromBeforeTheProcessIsNone(t *testing.T) {
	before := newCluster(t, sqstest.NewServer(t), uid, nil)
	before.Round(before.ctx)
	before.round()
	c := newCluster(t, sqstest.NewServer(t), uid, before.snapshot())
	c.annotate(v1alpha1.AnnotationConfirmIdentity, "default=abandoned")
	for range 30 {
		c.round()
		if len(c.sqs.Queues()) != 0 {
			t.Fatal("the copy makes the marker")
		}
	}
	c.expectHeld("a copy with a word that was not spoken to it", true)
	if i := c.identity(); i.Annotations[v1alpha1.AnnotationConfirmIdentity] != "" || !strings.Contains(i.Data["status"], "default=abandoned") {
		t.Errorf("it does not ask anew: %v %q", i.Annotations, i.Data["status"])
	}
	c.annotate(v1alpha1.AnnotationConfirmIdentity, "default=abandoned")
	c.round()
	c.round()
	c.expectOpen("when it was said again")
}

// arrive is a request of a leader that is gone, which puts a nonce on the marker.
func (c *cluster) arrive(nonce string) {
	c.Helper()
	q, _ := c.sqs.Queue("rq_c_identity")
	if _, err := c.sqs.Client().TagQueue(c.Context(), &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: map[string]string{"nonce.replyqueue.dev/default": nonce}}); err != nil {
		c.Fatal(err)
	}
}

func untag(c *cluster) {
	c.Helper()
	q, _ := c.sqs.Queue("rq_c_identity")
	if _, err := c.sqs.Client().UntagQueue(c.Context(), &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: []string{"nonce.replyqueue.dev/default"}}); err != nil {
		c.Fatal(err)
	}
}

// What the original wrote is taken off the marker, or written over, its leader ends, and nobody stands by; a request that is late
// brings back a nonce that the copy knows. Whatever the two saw of that, and whichever looks first, the original goes on, and
// the copy finds out what it is.
func TestANonceThatComesBackIsNoProof(t *testing.T) {
	for name, test := range map[string]struct {
		removed      bool
		noted        int  // how many nonces the original noted since the copy
		sees         bool // The original's new process was there before the nonce came back.
		later, shown time.Duration
		bare         time.Duration // The copy saw no nonce for so long.
	}{
		"removed":           {true, 3, false, 0, 0, 0},
		"removed, for both": {true, 3, true, 0, 0, 0},
		"removed, for both, and shown to the copy late": {true, 1, true, 0, time.Minute, 0},
		"removed for a while":                           {true, 3, false, 0, 0, 50 * time.Minute},
		"replaced":                                      {false, 3, false, 0, 0, 0},
		"removed, and the original is a minute late":    {true, 1, false, time.Minute, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := sqstest.NewServer(t)
			original := newCluster(t, server, uid, nil)
			original.Round(original.ctx)
			for range 4 {
				original.round()
			}
			old := original.nonce()
			for range 3 {
				original.round()
			}
			copied := original.nonce()
			clone := original.beside()
			for range test.noted {
				original.round()
			}
			if test.removed {
				untag(original)
			} else {
				original.arrive(copied) // It is late too.
			}
			note := clone.lateBy(test.shown)
			if test.sees {
				original.lead(uid)
				original.Round(original.ctx)
			}
			clone.Round(clone.ctx)
			for passed := time.Duration(0); passed < test.bare; passed += 3 * fence.DefaultInterval {
				clone.clock.Step(3 * fence.DefaultInterval)
				clone.Round(clone.ctx)
			}
			original.arrive(old)
			passed := time.Duration(0)
			for ; passed < test.later; passed += fence.DefaultInterval {
				original.clock.Step(fence.DefaultInterval)
				note()
				clone.Round(clone.ctx)
			}
			if !test.sees {
				original.lead(uid)
			}
			for open := 0; open < 10; { // The longest that anybody has to watch is 42 minutes.
				note()
				clone.Round(clone.ctx) // It is the first to look.
				if clone.MayDelete("default") == nil {
					t.Fatal("the clone may delete")
				}
				original.round()
				if err := original.MayDelete("default"); err == nil {
					open++
				} else if passed += fence.DefaultInterval; passed > 42*time.Minute {
					t.Fatalf("the original does not go on: %v", err)
				}
			}
			original.expectOpen("the original, in the end")
			clone.expectHeld("the clone, in the end", true)
		})
	}
}
