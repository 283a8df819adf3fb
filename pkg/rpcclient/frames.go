package rpcclient

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// featureStream in a request says that its requester takes replies of many frames.
const featureStream = "stream"

const (
	// maxFrames bounds how far ahead of the consumer a frame may be that is taken in; a pack that begins
	// within it is taken whole. maxFrameBytes bounds what has come and was not taken, except for the next
	// nearFrames, so that what is far ahead never keeps out what is wanted first.
	maxFrames     = 1024
	maxFrameBytes = 4 << 20
	nearFrames    = 4
	// satedAt and hungryAt are the shares of the room at which a stream stops and begins again to want
	// messages, in eighths.
	satedAt, hungryAt = 4, 2
	// fastestPace is the shortest time between two frames that is reckoned with when a frame is put back.
	fastestPace = time.Millisecond
	// longestPutBack bounds how long a frame is put back for, as long as a lost receive hides it:
	// gapGrace counts on that.
	longestPutBack = replyVisibility
)

// Incomplete is in the chain of errors of calls that ended with fewer replies than there were or should
// have been: streams, and Gather.
type Incomplete struct {
	// Received replies. Of a stream: those that were handed on, in order and without a gap.
	Received int
	// Expected replies; -1 when that is not known, because a stream's end never came.
	Expected int
}

// Error implements error.
func (e *Incomplete) Error() string {
	if e.Expected < 0 {
		return fmt.Sprintf("incomplete: %d replies, and no end", e.Received)
	}
	return fmt.Sprintf("incomplete: %d of %d replies", e.Received, e.Expected)
}

var (
	errAnotherRun = errors.New("another execution of the request answered too: its responder was lost, or the message came twice")
	errFramesLost = errors.New("a reply is missing, and what comes after it has come")
)

// deliveryVerdict is what becomes of a reply.
type deliveryVerdict uint8

const (
	deliveryTaken   deliveryVerdict = iota // the call has it: delete the message
	deliveryStale                          // it changes nothing: a copy, or an older attempt's
	deliveryFull                           // there is no room now: let it come again
	deliveryUnknown                        // no call waits for it
	deliveryHeld                           // no call waits for it, but Resume may ask
)

// frames puts the replies of one stream in order. Pollers put them in, the consumer takes them out.
type frames struct {
	mu         sync.Mutex
	pinned     bool
	run        string // of the first frame that came; others are of another execution
	next       int    // number of the frame the consumer wants
	early      map[int]frame
	bytes      int
	usual      int           // moving average of a frame's bytes
	total      int           // frames, the end included; 0: not known yet
	overflowed bool          // a frame beyond the room has come since the last was taken
	wake       chan struct{} // capacity 1
	broken     *brokenStream

	handedOn time.Time     // when the consumer got the last frame
	pace     time.Duration // moving average of what the consumer takes for one

	// queue is told when this stream wants no messages for now, and when it does again; nil before the call
	// is registered, and after its end.
	queue *replyQueue
	sated bool
}

// frame is one reply, as it was received.
type frame struct {
	body   string
	env    replyEnvelope
	trace  string
	packed bool
}

func (f *frame) bytes() int { return len(f.body) + len(f.trace) + 64 }

// brokenStream is why no more frames are taken.
type brokenStream struct {
	code  Code
	cause error
}

func newFrames() *frames {
	return &frames{early: map[int]frame{}, wake: make(chan struct{}, 1)}
}

// put takes in what came for the stream in an attempt of its call. putBack is for how long the message
// should be hidden, of the verdict deliveryFull.
func (f *frames) put(a answer, attempt int) (v deliveryVerdict, putBack time.Duration) {
	env := replyEnvelope{Code: OK, End: 1}
	if a.envelope != "" {
		parsed, err := parseReplyEnvelope(a.envelope)
		switch {
		case err == nil:
			env = parsed
		case !errors.Is(err, errNotOurs):
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.breakOff(Internal, err), 0
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	verdict := f.insert(frame{body: a.body, env: env, trace: a.trace, packed: a.packed}, attempt)
	if verdict != deliveryStale {
		f.signal()
	}
	f.appetite()
	if verdict == deliveryFull {
		putBack = f.putBack(env.Sequence)
	}
	return verdict, putBack
}

// putBack is when a frame that is too far ahead may be wanted, as the consumer goes. It is called with the
// lock held.
func (f *frames) putBack(number int) time.Duration {
	pace := min(longestPutBack, max(f.pace, fastestPace)).Seconds()
	ahead := float64(max(1, number-f.next-f.reach()+1))
	return min(longestPutBack, max(time.Second, time.Duration(ahead*pace*float64(time.Second))))
}

// reach is how many frames from the next on are taken in: as many as there is room for. It is called with
// the lock held.
func (f *frames) reach() int {
	return min(maxFrames, max(nearFrames, maxFrameBytes/max(1, f.usual)))
}

// appetite tells the queue whether this stream wants messages: not while a good part of its room is full
// and the frame that comes next is there. It is called with the lock held.
func (f *frames) appetite() {
	if f.queue == nil {
		return
	}
	_, ready := f.early[f.next]
	over := func(eighths int) bool {
		return len(f.early)*8 >= maxFrames*eighths || f.bytes*8 >= maxFrameBytes*eighths
	}
	complete := f.total > 0 && len(f.early) == f.total-f.next
	switch sated := ready && f.broken == nil && (complete || over(satedAt) || f.sated && over(hungryAt)); {
	case sated == f.sated:
	case sated:
		f.sated = true
		f.queue.sated.Add(1)
	default:
		f.sated = false
		f.queue.sated.Add(-1)
		f.queue.pollers.wake()
	}
}

// open names the queue from which the frames come; close forgets it. Both are called with the requester's
// lock held.
func (f *frames) open(q *replyQueue) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = q
}

func (f *frames) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sated {
		f.queue.sated.Add(-1)
	}
	f.queue, f.sated = nil, false
}

// insert is called with the lock held.
func (f *frames) insert(n frame, attempt int) deliveryVerdict {
	number := n.env.Sequence
	_, twice := f.early[number]
	switch {
	case f.broken != nil:
		return deliveryTaken // the end is on its way to the consumer
	case n.env.Code != OK && replyAttempt(&n.env) < attempt:
		return deliveryStale
	case f.pinned && n.env.Run != f.run && n.env.Run == "":
		return deliveryStale // a copy of the request was refused; this one runs
	case f.pinned && n.env.Run != f.run:
		return f.breakOff(DataLoss, errAnotherRun)
	case number < f.next || twice:
		return deliveryStale
	case number-f.next >= 1<<20 || (n.env.End > 0 && n.env.End != number+1) || (f.total > 0 && number >= f.total):
		return f.breakOff(Internal, fmt.Errorf("frame %d of %d is out of place", number, max(n.env.End, f.total)))
	}
	if f.usual == 0 {
		f.usual = n.bytes()
	}
	f.usual += (n.bytes() - f.usual) / 8
	ahead, reach := number-f.next, f.reach()
	if n.packed {
		reach += maxPackEntries // a pack is taken whole
	}
	if ahead >= reach || (ahead >= nearFrames && f.bytes+n.bytes() > maxFrameBytes) {
		// The consumer is slow, or a frame is missing: the message comes again, and take says which.
		f.overflowed = true
		return deliveryFull
	}
	f.pinned, f.run = true, n.env.Run
	f.early[number] = n
	f.bytes += n.bytes()
	if n.env.End > 0 {
		f.total = n.env.End
	}
	return deliveryTaken
}

// breakOff is called with the lock held.
func (f *frames) breakOff(code Code, cause error) deliveryVerdict {
	if f.broken == nil {
		f.broken = &brokenStream{code: code, cause: cause}
		f.signal()
	}
	return deliveryTaken
}

func (f *frames) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns the next frame; ok is false when it has not come. gap: the end has, or one for which there
// is no room, so that it should not be long.
func (f *frames) take() (n frame, ok, gap bool, broken *brokenStream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if !f.handedOn.IsZero() { // the consumer is back
		f.pace += (now.Sub(f.handedOn) - f.pace) / 8
		f.handedOn = time.Time{}
	}
	n, ok = f.early[f.next]
	if !ok {
		return frame{}, false, f.total > 0 || f.overflowed, f.broken
	}
	delete(f.early, f.next)
	f.bytes -= n.bytes()
	f.next++
	f.overflowed = false
	f.handedOn = now
	f.appetite()
	return n, true, false, nil
}

// expected is the number of replies of the stream; -1 when that is not known.
func (f *frames) expected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.total == 0:
		return -1
	case f.run == "": // one reply, which is its own end
		return f.total
	default:
		return f.total - 1
	}
}

// replyAttempt is the attempt that a reply answers.
func replyAttempt(e *replyEnvelope) int { return max(1, e.Attempt) }

// understands reports whether a request asked for a feature.
func (e *requestEnvelope) understands(feature string) bool { return slices.Contains(e.Accept, feature) }
