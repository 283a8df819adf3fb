package rpcclient

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// featureStream in a request says that its requester takes replies of many frames.
const featureStream = "stream"

const (
	// maxFrames and maxFrameBytes bound the frames of one stream that have come and were not taken; the
	// pack that reaches maxFrames is taken whole.
	maxFrames     = 256
	maxFrameBytes = 4 << 20
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
	total      int           // frames, the end included; 0: not known yet
	overflowed bool          // frames had to be put back since the last was taken
	wake       chan struct{} // capacity 1
	broken     *brokenStream
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

// put takes in what came for the stream in an attempt of its call.
func (f *frames) put(a answer, attempt int) deliveryVerdict {
	env := replyEnvelope{Code: OK, End: 1}
	if a.envelope != "" {
		parsed, err := parseReplyEnvelope(a.envelope)
		switch {
		case err == nil:
			env = parsed
		case !errors.Is(err, errNotOurs):
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.breakOff(Internal, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	verdict := f.insert(frame{body: a.body, env: env, trace: a.trace, packed: a.packed}, attempt)
	if verdict != deliveryStale {
		f.signal()
	}
	return verdict
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
	room := maxFrames
	if n.packed {
		room += maxPackEntries // a pack is taken whole
	}
	if number != f.next && (len(f.early) >= room || f.bytes+n.bytes() > maxFrameBytes) {
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

// take returns the next frame; ok is false when it has not come. gap: later ones have, up to the end or
// as many as there is room for, so that it should not be long.
func (f *frames) take() (n frame, ok, gap bool, broken *brokenStream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok = f.early[f.next]
	if !ok {
		return frame{}, false, f.total > 0 || f.overflowed, f.broken
	}
	delete(f.early, f.next)
	f.bytes -= n.bytes()
	f.next++
	f.overflowed = false
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
