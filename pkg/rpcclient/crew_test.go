package rpcclient

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		var wg sync.WaitGroup
		var done atomic.Int32
		members := func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.idle)
		}
		for range 3 { // one after the other: all on the same goroutine
			c.run(&wg, func() { done.Add(1) })
			synctest.Wait()
			if members() != 1 {
				t.Fatalf("%d are idle", members())
			}
		}
		for range 5 {
			c.run(&wg, func() { time.Sleep(10 * time.Millisecond); done.Add(1) })
		}
		wg.Wait()
		synctest.Wait()
		if members() != 5 || done.Load() != 8 {
			t.Errorf("%d are idle after %d functions", members(), done.Load())
		}
		for range 4 { // one that is always wanted stays, the others leave
			time.Sleep(crewPatience / 2)
			c.run(&wg, func() { done.Add(1) })
		}
		synctest.Wait()
		if members() != 1 {
			t.Errorf("%d have not left", members())
		}
		time.Sleep(crewPatience)
		synctest.Wait()
		if members() != 0 {
			t.Errorf("%d wait for ever", members())
		}
		c.run(&wg, func() { time.Sleep(time.Minute); done.Add(1) })
		c.run(&wg, func() { done.Add(1) })
		synctest.Wait()
		c.close() // waits for the one that works
		if done.Load() != 14 {
			t.Errorf("%d functions ran", done.Load())
		}
		c.run(&wg, func() { done.Add(1) })
		wg.Wait()
		synctest.Wait()
		if done.Load() != 15 || members() != 0 {
			t.Errorf("%d functions ran, %d idle after the end", done.Load(), members())
		}
	})
}

// A thousand at once, from several goroutines, while it is closed.
func TestCrewUnderLoad(t *testing.T) {
	var c crew
	var wg, starters sync.WaitGroup
	var done atomic.Int32
	for range 10 {
		starters.Go(func() {
			for range 100 {
				c.run(&wg, func() { done.Add(1) })
			}
		})
	}
	c.close()
	starters.Wait()
	wg.Wait()
	c.close()
	if done.Load() != 1000 {
		t.Errorf("%d of 1000 ran", done.Load())
	}
}
