package rpcclient

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestReplyCacheForgetsWhatExpiresFirst(t *testing.T) {
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
		}
		known := func(want string) {
			t.Helper()
			got := ""
			for i := range 10 {
				if _, ok := c.entries[fmt.Sprint(i)]; ok {
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
		for e := range c.entries {
			c.remove(c.entries[e])
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
