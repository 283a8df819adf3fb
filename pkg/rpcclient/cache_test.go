package rpcclient

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func TestReplyCacheForgetsWhatExpiresFirst(t *testing.T) {
	t.Run("replies under way", func(t *testing.T) { testForgetting(t, false) })
	t.Run("settled", func(t *testing.T) { testForgetting(t, true) })
}

func testForgetting(t *testing.T, settled bool) {
	synctest.Test(t, func(t *testing.T) {
		early := 0
		var left time.Duration
		var c *replyCache
		c = newReplyCache(4, 1<<20, func(d time.Duration) {
			if !c.mu.TryLock() {
				t.Error("hooks are called with the lock held")
				return
			}
			c.mu.Unlock()
			early, left = early+1, d
		})
		begin := func(key string, kept retention) (*cacheEntry, verdict) {
			now := time.Now()
			return c.begin(key, 0, 1, messageCopy{id: key, handle: key}, now, kept)
		}
		until := func(d time.Duration) retention { return retention{until: time.Now().Add(d), after: time.Second} }
		run := func(key string, kept retention) {
			t.Helper()
			e, v := begin(key, kept)
			if v != runIt {
				t.Fatalf("%s: verdict %d", key, v)
			}
			c.finish(e, replyContent{body: "1"}, Succeeded)
			if settled {
				c.takeCopies(e, messageCopy{})
			}
		}
		known := func(want string) {
			t.Helper()
			got := ""
			for i := range 10 {
				if _, ok := c.find(newCacheKey(fmt.Sprint(i))); ok {
					got += fmt.Sprint(i)
				}
			}
			if got != want {
				t.Errorf("knows %s, want %s", got, want)
			}
		}
		run("0", until(14*24*time.Hour)) // an old entry that lives long pins nothing
		run("1", until(time.Minute))
		run("2", until(time.Hour))
		time.Sleep(2 * time.Minute)
		run("3", until(time.Minute))
		known("023")
		if early != 0 {
			t.Errorf("%d forgotten early", early)
		}
		running, _ := begin("4", until(0))
		run("5", until(time.Hour)) // 3 would expire first
		known("0245")
		run("6", until(time.Hour))
		known("0456")
		if early != 2 || left != 58*time.Minute {
			t.Errorf("%d forgotten early, want 2; the last %s before its time", early, left)
		}
		time.Sleep(time.Hour)
		run("7", until(time.Hour)) // the running one stays
		known("047")
		c.finish(running, replyContent{}, Succeeded) // and lives a while after it has run
		if _, v := begin("4", until(0)); v != replayed {
			t.Errorf("verdict %d", v)
		}
		time.Sleep(time.Second)
		run("4", until(0))
		for key := range c.entries {
			c.remove(key)
		}
		for key := range c.settled {
			c.remove(key)
		}
		c.evict(time.Now()) // an expiry of what was removed means nothing
		if c.bytes != 0 || len(c.finished) != 0 {
			t.Errorf("%d bytes, %d in the heap of an empty cache", c.bytes, len(c.finished))
		}
	})
}

// What expires first comes first, in whatever order it was entered.
func TestExpiryHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h expiryHeap
	var in []time.Duration
	check := func() {
		t.Helper()
		slices.Sort(in)
		if len(h) != len(in) || len(in) > 0 && h[0].at != in[0] {
			t.Fatalf("%d entries of %d, the head is %v", len(h), len(in), h)
		}
	}
	for range 2000 {
		if len(in) > 0 && random.IntN(5) < 2 {
			h.pop()
			in = in[1:]
		} else {
			at := time.Duration(random.IntN(50))
			h.push(expiry{at: at})
			in = append(in, at)
		}
		check()
	}
	for len(in) > 0 {
		h.pop()
		in = in[1:]
		check()
	}
}

// What is settled is known as before: the same reply, hash, attempt and expiry, and it is in one piece of memory.
func TestSettledEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReplyCache(10, 1<<20, func(time.Duration) {})
		kept := retention{until: time.Now().Add(time.Minute), after: 30 * time.Second}
		one := messageCopy{id: "m", handle: "h"}
		run := func(key string, attempt int, reply replyContent, s Situation) {
			t.Helper()
			e, v := c.begin(key, 7, attempt, one, time.Now(), kept)
			if v != runIt {
				t.Fatalf("%s: verdict %d", key, v)
			}
			c.finish(e, reply, s)
			if got := c.takeCopies(e, messageCopy{}); len(got) != 1 || got[0] != one {
				t.Errorf("copies %v", got)
			}
			if got := c.takeCopies(e, messageCopy{}); len(got) != 0 {
				t.Errorf("copies are settled twice: %v", got)
			}
		}
		all := replyContent{body: "the body\x00", envelope: "{}", virtual: "id", trace: "00-1"}
		replies := map[string]replyContent{"all": all, "empty": {}, "body": {body: strings.Repeat("x", 1000)}}
		for key, reply := range replies {
			run(key, 3, reply, HandlerFailed)
		}
		if len(c.entries) != 0 || len(c.settled) != len(replies) {
			t.Errorf("%d entries, %d settled", len(c.entries), len(c.settled))
		}
		bytes := c.bytes
		for key, reply := range replies {
			e, v := c.begin(key, 7, 3, one, time.Now(), kept)
			if v != replayed || e.reply != reply || e.situation != HandlerFailed || e.attempt != 3 {
				t.Errorf("%s: verdict %d, %+v", key, v, e)
			}
			if _, v := c.begin(key, 8, 3, one, time.Now(), kept); v != conflicting {
				t.Errorf("%s with other content: verdict %d", key, v)
			}
		}
		if c.bytes != bytes {
			t.Errorf("%d bytes, before a look %d", c.bytes, bytes)
		}
		run("all", 4, all, Succeeded) // a later attempt of what failed runs
		if _, v := c.begin("all", 7, 5, one, time.Now(), kept); v != replayed {
			t.Errorf("a later attempt of what succeeded: verdict %d", v)
		}
		time.Sleep(50 * time.Second)
		if _, v := c.begin("body", 7, 3, one, time.Now(), kept); v != replayed { // now kept for 30 s more
			t.Errorf("verdict %d", v)
		}
		time.Sleep(20 * time.Second)
		if _, v := c.begin("body", 7, 3, one, time.Now(), kept); v != replayed {
			t.Errorf("a copy came, and its answer is forgotten before its time: verdict %d", v)
		}
		if len(c.settled) != 1 {
			t.Errorf("%d settled entries are left", len(c.settled))
		}
	})
}

// That a call was out of time is kept for its copies, and those of what joined it, but not for one that is made again.
func TestCutOffIsKeptForCopies(t *testing.T) {
	for name, settled := range map[string]bool{"reply under way": false, "settled": true} {
		t.Run(name, func(t *testing.T) {
			c := newReplyCache(10, 1<<20, func(time.Duration) {})
			begin := func(due int64) (*cacheEntry, verdict) {
				now := time.Now()
				return c.begin("k", 7, 1, messageCopy{id: "m", handle: "h"}, now, retention{after: time.Minute, deadline: now.Add(time.Hour), due: due})
			}
			e, _ := begin(10_000)
			if _, v := begin(20_000); v != joined {
				t.Fatalf("verdict %d", v)
			}
			c.cutOff(e)
			c.finish(e, replyContent{body: "-"}, HandlerFailed)
			if settled {
				c.takeCopies(e, messageCopy{})
			}
			for _, due := range []int64{10_000, 20_000} {
				if again, v := begin(due); v != replayed || again.reply.body != "-" || again.situation != HandlerFailed {
					t.Errorf("a copy of the call until %d: verdict %d, %+v", due, v, again)
				}
			}
			if _, v := begin(30_000); v != runIt {
				t.Errorf("one that is made again: verdict %d", v)
			}
		})
	}
}

// An answer that was replaced is the one that is kept.
func TestReplacedAnswerIsSettled(t *testing.T) {
	c := newReplyCache(10, 1<<20, func(time.Duration) {})
	kept := retention{after: time.Minute}
	e, _ := c.begin("k", 7, 1, messageCopy{id: "m"}, time.Now(), kept)
	c.finish(e, replyContent{body: "too large"}, Succeeded)
	c.replace(e, replyContent{body: "-"}, ReplyTooLarge)
	if got := c.takeCopies(e, messageCopy{}); len(got) != 1 {
		t.Errorf("copies %v", got)
	}
	again, v := c.begin("k", 7, 1, messageCopy{id: "m"}, time.Now(), kept)
	if v != replayed || again.reply.body != "-" || len(c.entries) != 0 || c.bytes != entryOverhead+1 {
		t.Errorf("verdict %d, %+v, %d entries, %d bytes", v, again, len(c.entries), c.bytes)
	}
}

// The garbage collector has one object of each settled entry to look at, and nothing in it.
func TestSettledEntriesHaveNoPointers(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		settledSink = newSettledEntry(&cacheEntry{reply: replyContent{body: "b", virtual: "v"}}, time.Time{})
	}); n != 1 {
		t.Errorf("%v objects", n)
	}
	if k := reflect.TypeFor[expiry](); k.Field(1).Type.Kind() != reflect.Array {
		t.Errorf("expiries have a %s", k.Field(1).Type)
	}
}

var settledSink settledEntry

// A call that joins while the handler's request is not yet kept hidden has it kept hidden for its own time too.
func TestJoinsBeforeItIsHeld(t *testing.T) {
	client := sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1:1"), Credentials: aws.AnonymousCredentials{}})
	r, err := NewResponder(client, WithReturnPrefixes("rq_"), WithChannels(ChannelConfig{Name: "a", URL: "http://127.0.0.1:1/000000000000/rq_test_ns_a"}))
	if err != nil {
		t.Fatal(err)
	}
	runs, end := make(chan struct{}), make(chan struct{})
	NewMethod[int, int]("m").Handle(r, func(context.Context, int) (int, error) {
		close(runs)
		<-end
		return 0, nil
	})
	s, now := r.servers[0], time.Now()
	m := &received{placed: true, message: &types.Message{
		MessageId: aws.String("first"), ReceiptHandle: aws.String("h"), Body: aws.String("5"),
		MessageAttributes: map[string]types.MessageAttributeValue{
			attributeEnvelope: stringAttribute(fmt.Sprintf(`{"k":"q","v":1,"id":"0123456789abcdef0123","m":"m","e":"t","b":30000,"t":%d,"a":1}`, now.UnixMilli())),
			attributeReplyTo:  stringAttribute("http://127.0.0.1:1/000000000000/rq_test_r_1#0123456789abcdef0123"),
		},
	}, delivery: delivery{sent: now, firstReceive: now, count: 1, local: now}}
	q := s.admit(m.message, m.delivery, now)
	if q.refusal != nil {
		t.Fatal(q.refusal)
	}

	s.extender.mu.Lock() // the first stops where it is to be kept hidden
	var served sync.WaitGroup
	served.Go(func() { s.serve(m) })
	for entered := false; !entered; runtime.Gosched() {
		r.cache.mu.Lock()
		_, entered = r.cache.entries[newCacheKey(q.key)]
		r.cache.mu.Unlock()
	}
	later := now.Add(time.Hour)
	e, found := r.cache.begin(q.key, r.hashRequest(q), 1, messageCopy{id: "second"}, now, retention{deadline: later})
	if found != joined || e.held.Load() != nil {
		t.Errorf("verdict %d, kept hidden by %v", found, e.held.Load())
	}
	s.extender.mu.Unlock()
	<-runs
	s.extender.mu.Lock()
	if got := e.held.Load().deadline; !got.Equal(later) {
		t.Errorf("it is kept hidden until %s from now, want an hour", got.Sub(now))
	}
	s.extender.mu.Unlock()
	r.stop() // the reply has nowhere to go
	close(end)
	served.Wait()
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
