package rpcclient

import (
	"slices"
	"sync"
	"time"
)

// crew runs functions, each on a goroutine of its own that the next function gets. The SDK's calls go deep: on a
// new goroutine each of them copies its stack several times while that grows, which is a tenth of what a call
// costs. Members leave when they had nothing to do for a while. One timer sees to that for all of them: a timer for
// each would be set and unset with every function.
type crew struct {
	mu     sync.Mutex
	idle   []*member // since ever later
	timer  *time.Timer
	closed bool
	count  int        // of members, and of the timer while it is set
	gone   *sync.Cond // count is 0; nil: nobody waits for it. A WaitGroup must not be used anew while it is awaited.
}

// member is one goroutine. It is told what to do, or, by the end of its channel, to leave.
type member struct {
	next  chan job
	since time.Time // when it had nothing to do any more
}

// job is one function, and who counts it.
type job struct {
	f  func()
	wg *sync.WaitGroup
}

func (j job) do() {
	defer j.wg.Done()
	j.f()
}

// crewPatience is how long a member waits for something to do.
const crewPatience = time.Second

// run has a member call f, which wg counts. It does not block.
func (c *crew) run(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	j := job{f, wg}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		m := c.idle[n-1] // the latest, so that the others can leave
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		m.next <- j
		return
	}
	m := &member{next: make(chan job, 1)}
	m.next <- j
	c.count++
	go c.serve(m)
}

func (c *crew) serve(m *member) {
	defer c.leave()
	for j := range m.next {
		j.do()
		if !c.rest(m) {
			return
		}
	}
}

// leave counts a member, or the timer, out.
func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.countOut()
}

// countOut is leave, with the lock held.
func (c *crew) countOut() {
	if c.count--; c.count == 0 && c.gone != nil {
		c.gone.Broadcast()
	}
}

// rest makes a member idle. It is false when it is to leave instead.
func (c *crew) rest(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	m.since = time.Now()
	c.idle = append(c.idle, m)
	if c.timer == nil {
		c.arm(crewPatience)
	}
	return true
}

// arm sets the timer. It is called with the lock held.
func (c *crew) arm(d time.Duration) {
	c.count++
	c.timer = time.AfterFunc(d, c.dismiss)
}

// dismiss sends those away who have waited for long enough.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.countOut()
	c.timer = nil
	now, n := time.Now(), 0
	for n < len(c.idle) && now.Sub(c.idle[n].since) >= crewPatience {
		close(c.idle[n].next)
		n++
	}
	c.idle = slices.Delete(c.idle, 0, n)
	if len(c.idle) > 0 {
		c.arm(crewPatience - now.Sub(c.idle[0].since))
	}
}

// close sends the idle members away, and waits until all have left. Nothing is run for longer than before: what is
// begun later gets a goroutine that leaves with its end.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, m := range c.idle {
		close(m.next)
	}
	c.idle = nil
	if c.timer != nil && c.timer.Stop() {
		c.timer = nil
		c.countOut()
	}
	if c.gone == nil {
		c.gone = sync.NewCond(&c.mu)
	}
	for c.count > 0 {
		c.gone.Wait()
	}
}
