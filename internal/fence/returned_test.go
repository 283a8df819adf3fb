package fence_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// longest is for how long anybody may have to watch where a nonce has come back.
const longest = 46 * time.Minute

// doubting is a cluster whose operator ended without a standby. A new process of it is shown one old answer of SQS, and so watches for long.
func doubting(t *testing.T) *cluster {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	for range 20 {
		c.round()
	}
	older := c.nonce()
	c.round()
	newest := c.nonce()
	c.lead(uid)
	c.clock.Step(15 * time.Second)
	c.Round(c.ctx)
	c.arrive(older)
	c.round()
	c.arrive(newest)
	c.round()
	return c
}

// A copy that is taken and started while a process of its original watches for long is found out by it, however often the
// copy's processes end, and although the original writes nothing all the while.
func TestACopyThatIsTakenInALongWatch(t *testing.T) {
	for name, test := range map[string]struct {
		wait time.Duration // until the copy is taken
		dies bool          // The copy's process ends every five minutes.
		late time.Duration // by which SQS shows the copy the marker
	}{
		"at once":                              {0, false, 0},
		"at once, and is shown it late":        {0, false, time.Minute},
		"five minutes later":                   {5 * time.Minute, false, 0},
		"five minutes later, and ends often":   {5 * time.Minute, true, 0},
		"just before the original finds out":   {41 * time.Minute, false, time.Minute},
		"at once, and its processes end often": {0, true, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			original := doubting(t)
			for passed := time.Duration(0); passed < test.wait; passed += fence.DefaultInterval {
				original.round()
			}
			original.expectHeld("the original, which watches for long", false)
			clone := original.beside()
			note := clone.lateBy(test.late)
			clone.Round(clone.ctx)
			for open, passed := 0, time.Duration(0); open < 10; passed += fence.DefaultInterval {
				if test.dies && passed%(5*time.Minute) == 0 {
					clone.lead(uid)
				}
				note()
				clone.Round(clone.ctx) // It is the first to look.
				original.round()
				if clone.MayDelete("default") == nil {
					t.Fatalf("the clone may delete %v after it was started", passed)
				}
				if err := original.MayDelete("default"); err == nil {
					open++
				} else if passed > longest {
					t.Fatalf("the original does not go on: %v", err)
				}
			}
			clone.expectHeld("the clone, in the end", true)
		})
	}
}

// What a process has seen come back is noted until one has found out whose the marker is: the next begins with it, and the one
// after that as ever.
func TestWhatCameBackIsForgottenWhenItIsFoundOut(t *testing.T) {
	c := doubting(t)
	c.lead(uid)
	c.round()
	c.watch()
	c.expectHeld("the next process", false)
	for range longest / fence.DefaultInterval {
		c.round()
	}
	c.expectOpen("the next process, in the end")
	c.lead(uid)
	c.round()
	c.watch()
	c.expectOpen("the process after that")
}

// A copy that was shown the original's nonce, by a process that stands by or one that leads but could not note it, knows what it is
// when an earlier leader's late request puts another over that, and the original's leader ends.
func TestWhoSawAnotherDoesNotForgetIt(t *testing.T) {
	for _, leads := range []bool{false, true} {
		original := newCluster(t, sqstest.NewServer(t), uid, nil)
		original.Round(original.ctx)
		for range 6 {
			original.round()
		}
		old := original.nonce()
		original.round()
		clone := original.beside()
		for range 3 {
			original.round()
		}
		if leads {
			clone.Round(clone.ctx)
		} else {
			clone.Look(clone.ctx)
		}
		original.clock.Step(5 * time.Second)
		original.arrive(old)
		original.lead(uid)
		for passed := time.Duration(0); original.MayDelete("default") != nil; passed += fence.DefaultInterval {
			clone.Round(clone.ctx)
			original.round()
			if passed > longest || clone.MayDelete("default") == nil {
				t.Fatalf("leads %t, after %v: the clone: %v; the original: %v", leads, passed, clone.MayDelete("default"), original.MayDelete("default"))
			}
		}
		for range 10 {
			both(original, clone)
		}
		original.expectOpen("the original, in the end")
		clone.expectHeld("the clone, in the end", true)
	}
}

// spotty does not answer each nth look.
type spotty struct {
	queue.API
	looks, every int
}

func (l *spotty) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, o ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	if l.looks++; l.looks%l.every == 0 {
		return nil, context.DeadlineExceeded
	}
	return l.API.ListQueueTags(ctx, in, o...)
}

// A long watch goes on after a look that SQS does not answer, but for its end, which has to be without a break.
func TestALongWatchSurvivesALookThatIsNotAnswered(t *testing.T) {
	for every, most := range map[int]time.Duration{200: longest, 30: 55 * time.Minute} {
		c := doubting(t)
		c.provider.API = &spotty{API: c.provider.API, every: every}
		passed := time.Duration(0)
		for ; c.MayDelete("default") != nil && passed < 2*time.Hour; passed += fence.DefaultInterval {
			c.round()
		}
		if passed < 40*time.Minute || passed > most {
			t.Errorf("one look in %d is not answered: %v until it was found out, want 40m to %v", every, passed, most)
		}
	}
	c := doubting(t)
	c.provider.API = &spotty{API: c.provider.API, every: 9}
	for range 2 * time.Hour / fence.DefaultInterval {
		c.round()
	}
	c.expectHeld("who never watches for 100 s without a break", false)
}
