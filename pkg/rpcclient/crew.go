package rpcclient

import (
	"slices"
	"sync"
	"time"
)

// crew runs functions, each on a goroutine of its own that the next function gets. The SDK's calls go deep: on a
// new goroutine each of them copies its stack several times while that grows, which is a tenth of what a call
// costs. Members leave when they had nothing to do for a while.
type crew struct {
	mu     sync.Mutex
	idle   []*member
	closed bool
	wg     sync.WaitGroup
}

// member is one goroutine. It is told what to do, or, by the end of its channel, to leave.
type member struct{ next chan func() }

// crewPatience is how long a member waits for something to do.
const crewPatience = time.Second

// run has a member call f, which wg counts. It does not block.
func (c *crew) run(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	job := func() {
		defer wg.Done()
		f()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		m := c.idle[n-1] // the latest, so that the others can leave
		c.idle = c.idle[:n-1]
		m.next <- job
		return
	}
	m := &member{next: make(chan func(), 1)}
	m.next <- job
	c.wg.Go(func() { c.serve(m) })
}

func (c *crew) serve(m *member) {
	patience := time.NewTimer(crewPatience)
	defer patience.Stop()
	for {
		select {
		case job, ok := <-m.next:
			if !ok {
				return
			}
			job()
			if !c.rest(m) {
				return
			}
			patience.Reset(crewPatience)
		case <-patience.C:
			if c.leave(m) {
				return
			}
			// There is something to do after all.
		}
	}
}

// rest makes a member idle. It is false when it is to leave instead.
func (c *crew) rest(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.idle = append(c.idle, m)
	}
	return !c.closed
}

// leave takes a member out of the idle ones, and is false when it is none any more.
func (c *crew) leave(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.idle, m)
	if i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
	return i >= 0
}

// close sends the idle members away, and waits until all have left. Nothing is run for longer than before: what is
// begun later gets a goroutine that leaves with its end.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	for _, m := range c.idle {
		close(m.next)
	}
	c.idle = nil
	c.mu.Unlock()
	c.wg.Wait()
}
